"""Suite name -> SuiteSpec, and the class lists that suites name."""

from functools import cache
from pathlib import Path

from robustbench_twicing.catalog.alexnet import alexnet_errors
from robustbench_twicing.catalog.locate import definitions
from robustbench_twicing.catalog.read_toml import read_toml, validated
from robustbench_twicing.errors import UserError, unknown_name
from robustbench_twicing.spec.suite import Denominator, SuiteDefinition, SuiteSpec
from robustbench_twicing.spec.values import content_hash

_HINT = "corruptions/README.md lists every key and its allowed values."


def suite_names() -> list[str]:
    """Names of the suites that ship with the tool."""
    return sorted(path.stem for path in definitions("corruptions").glob("*.toml"))


def suite(name: str) -> SuiteSpec:
    """A suite by name, or from a TOML file of the user's own. Raises `UserError` if there is none or it is wrong.

    In a file of the user's own, `index` and `classes` may be paths of text files, relative to the TOML file.
    """
    if name.endswith(".toml"):
        return _read(Path(name))
    return _shipped(name)


@cache
def _shipped(name: str) -> SuiteSpec:
    if name not in suite_names():
        raise unknown_name("suite", name, suite_names())
    return _read(definitions("corruptions") / f"{name}.toml")


def _read(path: Path) -> SuiteSpec:
    content = {"name": path.stem, "index": "imagenet", **read_toml(path)}
    content.setdefault("classes", content["index"])
    content |= {key: _listed(content[key], path.parent) for key in ("index", "classes")}
    return validated(SuiteSpec, content, str(path), _HINT)


def _listed(value: object, folder: Path) -> object:
    """The class list that a key names; what is no text is left for the validation."""
    if not isinstance(value, str):
        return value
    return class_list(str((folder / value).absolute()) if value.endswith(".txt") else value)


def class_list_names() -> list[str]:
    """Names of the class lists that ship with the tool."""
    return sorted(path.stem for path in (definitions("corruptions") / "classes").glob("*.txt"))


@cache
def class_list(name: str) -> tuple[str, ...]:
    """The class names (wnids) of a list, in its order: a name, or the path of a text file with one class on each line.

    Raises `UserError` for an unknown list, and for one that is empty or names a class twice.
    """
    if name.endswith(".txt"):
        path = Path(name)
    elif name in class_list_names():
        path = definitions("corruptions") / "classes" / f"{name}.txt"
    else:
        raise unknown_name("class list", name, class_list_names())
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The class list {path} cannot be read: {error}.", "It is text, one class a line.") from None
    classes = tuple(line.strip() for line in lines if line.strip())
    if not classes or len(set(classes)) < len(classes):
        wrong = "names a class twice" if classes else "is empty"
        raise UserError(f"The class list {path} {wrong}.", "It is text, one class a line, each once.")
    return classes


def suite_definition(name: str) -> SuiteDefinition:
    """A suite as a run's manifest keeps it, so that reading the run needs neither this catalog nor the suite's file."""
    spec = suite(name)
    denominator = None
    if spec.families:
        denominator = _alexnet() if spec.index == class_list("imagenet") else Denominator(name="deit")
    return SuiteDefinition(
        spec=spec,
        classes_hash=content_hash([spec.index, spec.classes]),
        denominator=denominator,
    )


def _alexnet() -> Denominator:
    errors = alexnet_errors()
    by_name = {f"{name}/{severity}": error for (name, severity), error in errors.corrupted.items()}
    return Denominator(name="AlexNet", clean=errors.clean, errors=by_name)
