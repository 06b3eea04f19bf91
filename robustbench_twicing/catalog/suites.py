"""Suite name -> SuiteSpec, and the class lists that suites name."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from robustbench_twicing.catalog.denominators import denominator
from robustbench_twicing.catalog.locate import definitions
from robustbench_twicing.catalog.read_toml import read_toml, validated
from robustbench_twicing.errors import UserError, unknown_name
from robustbench_twicing.spec.corruptions import CORRUPTIONS, families
from robustbench_twicing.spec.suite import SuiteDefinition, SuiteSpec

_HINT = "corruptions/README.md lists every key and its allowed values."


def suite_names() -> list[str]:
    """Names of the suites that ship with the tool."""
    return sorted(path.stem for path in definitions("corruptions").glob("*.toml"))


def suite(name: str) -> SuiteSpec:
    """A suite by name, or from a TOML file of the user's own. Raises `UserError` if there is none or it is wrong.

    In a file of the user's own, `index` and `classes` may be paths of text files, and `denominator` that of a CSV file,
    relative to the TOML file.
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
    if isinstance(content.get("common_of"), str):
        content |= _families_of_the_table(content["common_of"], content, path)
    if str(content.get("denominator")).endswith(".csv"):
        content["denominator"] = str((path.parent / content["denominator"]).absolute())
    spec = validated(SuiteSpec, content, str(path), _HINT)
    _refuse_incomplete_denominator(spec, path)
    return spec


def _listed(value: object, folder: Path) -> object:
    """The class list that a key names; what is no text is left for the validation."""
    if not isinstance(value, str):
        return value
    return class_list(str((folder / value).absolute()) if value.endswith(".txt") else value)


def _families_of_the_table(common_of: str, content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The families of a generated suite: those of the table, the common ones being those of another suite."""
    given = [key for key in ("families", "extra_families") if key in content]
    if given:
        raise UserError(f"{path}: common_of and {given[0]} say the same thing twice.", "Leave one of them away.")
    if common_of not in suite_names():
        raise unknown_name("suite", common_of, suite_names())
    common = suite(common_of).common
    unknown = [name for name in common if name not in CORRUPTIONS]
    if unknown or not common:
        what = f"its corruption {unknown[0]!r} is not one that can be generated" if unknown else "it has no corruptions"
        raise UserError(f"{path}: common_of = {common_of!r}, but {what}.", f"Known: {', '.join(CORRUPTIONS)}.")
    return {"families": families(common), "extra_families": families(CORRUPTIONS.keys() - set(common))}


def _refuse_incomplete_denominator(spec: SuiteSpec, path: Path) -> None:
    """Raise `UserError` if errors that were measured elsewhere lack one that the mean over the suite needs."""
    if spec.denominator is None or denominator(spec.denominator).measured_here:
        return
    known = denominator(spec.denominator).errors
    missing = [str(part) for part in spec.parts(spec.common) if str(part) not in known]
    if missing:
        raise UserError(
            f"{path}: the denominator {spec.denominator!r} has no error for {len(missing)} of the suite's (corruption, "
            f"severity) pairs, such as {missing[0]}.",
            "Name another denominator, or move these corruptions into [extra_families], which no mean contains.",
        )


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
    return SuiteDefinition(
        spec=spec,
        denominator=denominator(spec.denominator) if spec.denominator else None,
    )
