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
    own = Path(name)
    if own.suffix == ".toml":
        path = own
    elif name in suite_names():
        path = definitions("corruptions") / f"{name}.toml"
    else:
        raise unknown_name("suite", name, suite_names())
    spec = validated(SuiteSpec, {"name": path.stem, **read_toml(path)}, str(path), _HINT)
    lists = {key: value for key in ("index", "classes") if (value := getattr(spec, key)).endswith(".txt")}
    spec = spec.model_copy(update={key: str((path.parent / value).absolute()) for key, value in lists.items()})
    outside = sorted(set(class_list(spec.classes)) - set(class_list(spec.index)))
    if outside:
        raise UserError(
            f"{path}: {len(outside)} of the classes in {spec.classes!r} are not in the index {spec.index!r}, "
            f"such as {outside[0]}.",
            "Every class that a suite is scored over needs a logit.",
        )
    return spec


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
        classes = tuple(path.read_text(encoding="utf-8").split())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The class list {path} cannot be read: {error}.", "It is text, one class a line.") from None
    if not classes or len(set(classes)) < len(classes):
        wrong = "names a class twice" if classes else "is empty"
        raise UserError(f"The class list {path} {wrong}.", "It is text, one class a line, each once.")
    return classes


def class_mask(suite: SuiteSpec) -> tuple[int, ...]:
    """The logits that a suite is scored over, in ascending order."""
    wanted = set(class_list(suite.classes))
    return tuple(position for position, name in enumerate(class_list(suite.index)) if name in wanted)


def suite_definition(name: str) -> SuiteDefinition:
    """A suite as a run's manifest keeps it, so that reading the run needs neither this catalog nor the suite's file."""
    spec = suite(name)
    denominator = None
    if spec.families:
        denominator = _alexnet() if spec.index == "imagenet" else Denominator(name="deit")
    return SuiteDefinition(
        spec=spec,
        classes_hash=content_hash([class_list(spec.index), class_list(spec.classes)]),
        denominator=denominator,
    )


def _alexnet() -> Denominator:
    errors = alexnet_errors()
    by_name = {f"{name}/{severity}": error for (name, severity), error in errors.corrupted.items()}
    return Denominator(name="AlexNet", clean=errors.clean, errors=by_name)
