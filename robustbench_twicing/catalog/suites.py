"""Suite name -> SuiteSpec, and the class lists that suites name."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from robustbench_twicing.catalog.denominators import denominator
from robustbench_twicing.catalog.locate import definitions
from robustbench_twicing.catalog.plugins import find_plugin, plugin_names
from robustbench_twicing.catalog.read_toml import read_toml, validated
from robustbench_twicing.errors import UserError, shown, unknown_name
from robustbench_twicing.spec.corruptions import CORRUPTIONS, families
from robustbench_twicing.spec.plan import EMBEDDED
from robustbench_twicing.spec.suite import SuiteDefinition, SuiteSpec

_HINT = "corruptions/README.md lists every key and its allowed values."


def suite_names() -> list[str]:
    """Names of the suites that ship with the tool, and after them of those that other packages register."""
    return [*(shipped := shipped_names()), *plugin_names("suites", shipped)]


def shipped_names() -> list[str]:
    """Names of the suites that ship with the tool."""
    return sorted(path.stem for path in definitions("corruptions").glob("*.toml"))


def known_suites() -> dict[str, SuiteSpec]:
    """Every suite by name, but for those of packages that cannot be read: `suite` says of each why."""
    found = {}
    for name in suite_names():
        with suppress(*([] if name in shipped_names() else [UserError])):
            found[name] = suite(name)
    return found


def suite(name: str) -> SuiteSpec:
    """A suite by name, or from a TOML file of the user's own. Raises `UserError` if there is none or it is wrong.

    In a file of the user's own, `index` and `classes` may be paths of text files, `denominator` that of a CSV file, and
    `clean` that of another suite, relative to the TOML file. A suite whose classes are the names of its folders has
    none until they are seen (`data.layout.find_suite`). Without a file, `folder:DIR` is the class folders in DIR, and
    `corrupted:DATA` the corruptions of ImageNet-C, computed from any data set.
    """
    if name.startswith(CORRUPTED):
        return _corrupted(name)
    if name.startswith(FOLDER):
        return _folder(name)
    return _read(Path(name)) if is_own(name) else _named(name)


FOLDER, CORRUPTED = "folder:", "corrupted:"
"""Before the path of a folder with class folders; before the name of a data set."""


def is_own(name: str) -> bool:
    """`name` is a suite of the user's own: the path of a TOML file, `folder:DIR` or `corrupted:DATA`."""
    return name.endswith(".toml") or name.startswith((FOLDER, CORRUPTED))


def moved(name: str, path: Callable[[str], str]) -> str:
    """The name of a suite, with the path in it, if there is one, changed by `path`."""
    for prefix in (CORRUPTED, FOLDER):
        if name.startswith(prefix):
            rest = name.removeprefix(prefix)
            return prefix + (moved(rest, path) if prefix == CORRUPTED else path(rest) if rest.strip() else "")
    return path(name) if is_own(name) else name


def corrupted(data: str | None) -> str:
    """The suite that corrupts the images of a data set in memory: one that ships, if there is one for it."""
    made = [name for name in shipped_names() if suite(name).layout == "generated" and suite(name).clean == data]
    return (made or ["digits-c" if data is None else CORRUPTED + data])[0]


def same_suite(name: str) -> str:
    """One spelling for each suite: of a path, from the working folder if it lies below it, else the absolute one."""

    def spelled(text: str) -> str:
        path = Path(text).expanduser().absolute()
        return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)

    return moved(name, spelled)


def place_of(name: str, directories: Mapping[str, Path]) -> Path | None:
    """Where a suite's data lie: as somebody says in `directories`, else as its own TOML says; None if nobody does.

    A suite of the user's own lies beside its TOML unless that says `directory`. Raises `UserError`.
    """
    said = {same_suite(key): place for key, place in directories.items()}
    if same_suite(name) in said:
        return said[same_suite(name)]
    if name.startswith(FOLDER):
        return Path(name.removeprefix(FOLDER)).expanduser()
    if not is_own(name) or name.startswith(CORRUPTED):
        return None
    directory = read_toml(Path(name)).get("directory", ".")
    if not isinstance(directory, str):
        raise UserError(f"{name}: directory = {directory!r} is no path.", 'Write directory = "path/to/the/data".')
    return Path(name).parent / Path(directory).expanduser()


def _folder(name: str) -> SuiteSpec:
    folder = Path(name.removeprefix(FOLDER)).expanduser()
    if not name.removeprefix(FOLDER).strip():
        raise UserError(
            "folder: names no folder.", "Write folder:DIR, where DIR holds a folder of images for each class."
        )
    title = shown(folder.absolute().name) or "folder"
    content = {"name": title, "title": title, "source": "a folder of images", "layout": "imagefolder"}
    return validated(SuiteSpec, {**content, "own_classes": True}, name, _HINT)


def _corrupted(name: str) -> SuiteSpec:
    data = name.removeprefix(CORRUPTED)
    if data == EMBEDDED:
        return suite("digits-c")
    base = suite(data)
    if base.severities or base.labels == "outlier":
        raise UserError(f"{data!r} is no set of clean images, so it cannot be corrupted.", "Name its clean data set.")
    content = {
        **base.model_dump(include={"index", "classes", "own_classes"}),
        **_families_of_the_table(_USUAL, {}, Path(name)),
        "name": f"{base.name}-c",
        "title": f"{base.title}, corrupted",
        "source": "see docs/corruptions.md",
        "layout": "generated",
        "clean": data,
        "severities": [1, 2, 3, 4, 5],
    }
    return validated(SuiteSpec, content, name, _HINT)


@cache
def _named(name: str) -> SuiteSpec:
    if name in shipped_names():
        return _read(definitions("corruptions") / f"{name}.toml")
    return _read(_plugged(name)).model_copy(update={"name": name})


def _plugged(name: str) -> Path:
    """The TOML file of a suite that a package registers. Raises `UserError` if there is none."""
    found = find_plugin("suites", name)
    if found is None:
        raise unknown_name("suite", name, suite_names())
    if not isinstance(found.value, str | Path) or not is_own(str(found.value)):
        raise UserError(
            f"Suite {name!r} of the package {found.origin.package} is {found.value!r}.",
            "It is the path of its TOML file; docs/plugins.md has an example.",
        )
    return Path(found.value)


def _read(path: Path, above: tuple[Path, ...] = ()) -> SuiteSpec:
    said = read_toml(path)
    usual = {"image_size": 32, "recipe": "none"} if said.get("layout") in ("cifar", "cifar-c") else {}
    content = {"name": path.stem, "title": path.stem, "source": "its own TOML file", **usual, **said}
    content.pop("directory", None)  # see `place_of`
    clean = None
    if isinstance(content.get("clean"), str) and is_own(content["clean"]):
        beside = path.parent / Path(content["clean"]).expanduser()
        if beside.resolve() in (path.resolve(), *above):
            raise UserError(f"{path}: clean = {content['clean']!r} leads back to itself.", "Name the clean data set.")
        content["clean"] = str(beside)
        clean = _read(beside, (*above, path.resolve()))
    content |= _classes(content, path, clean)
    if isinstance(content.get("common_of"), str):
        content |= _families_of_the_table(content["common_of"], content, path)
    elif content.get("layout") == "generated" and "families" not in content:
        content |= _families_of_the_table(_USUAL, content, path)
        content.setdefault("severities", [1, 2, 3, 4, 5])
    if str(content.get("denominator")).endswith(".csv"):
        content["denominator"] = str((path.parent / content["denominator"]).absolute())
    spec = validated(SuiteSpec, content, str(path), _HINT)
    _refuse_incomplete_denominator(spec, path)
    return spec


_USUAL = "imagenet-c"
"""Whose common corruptions a generated suite has if it names none."""

_OF_THE_FOLDERS = "folders"
"""Instead of a class list: the names of the class folders, sorted."""


def _classes(content: Mapping[str, Any], path: Path, clean: SuiteSpec | None) -> dict[str, Any]:
    """`index` and `classes` as the names themselves. What is no text is left for the validation.

    One that is not given is the other; without both, they are those of the clean data set, else the folders' names
    where the layout is for classes of one's own, else ImageNet's.
    """
    given = {key: content[key] for key in ("index", "classes") if key in content}
    layout = content.get("layout")
    if not given:
        if clean is not None:
            return clean.model_dump(include={"index", "classes", "own_classes"})
        given = {"index": _OF_THE_FOLDERS if layout in ("imagefolder", "cifar") else "imagenet"}
        if layout == "cifar-c":
            raise UserError(
                f"{path} does not say which classes its labels are.",
                'Write classes = "cifar10", classes = "cifar100", or the name of a text file, one class a line.',
            )
    if "index" not in given and layout in ("classes", "numbered", "corruptions"):
        given["index"] = "imagenet" if clean is None or clean.own_classes else clean.index
    index, classes = given.get("index", given.get("classes")), given.get("classes", given.get("index"))
    if _OF_THE_FOLDERS in (index, classes):
        if index != classes or layout == "numbered":
            raise UserError(
                f'{path}: classes = "folders" means that the folders are all the classes there are.',
                "Leave index away, or write the name of a text file instead.",
            )
        return {"index": (), "classes": (), "own_classes": True}
    return {"index": _listed(index, path.parent), "classes": _listed(classes, path.parent), "own_classes": False}


def _listed(value: object, folder: Path) -> object:
    """The class list that a key names."""
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
    return definition_of(suite(name))


def definition_of(spec: SuiteSpec) -> SuiteDefinition:
    """The same, of a suite whose classes have been seen."""
    return SuiteDefinition(
        spec=spec,
        denominator=denominator(spec.denominator) if spec.denominator else None,
    )
