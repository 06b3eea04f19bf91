"""Plan files (TOML) -> Plan, with every mistake named at once, each with its line. docs/plans.md explains every key."""

import tomllib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError

from robustbench_twicing.catalog.config import Settings
from robustbench_twicing.catalog.datasets import titles
from robustbench_twicing.catalog.locate import definitions
from robustbench_twicing.catalog.protocols import attack_threat, protocol
from robustbench_twicing.catalog.read_toml import read_toml
from robustbench_twicing.catalog.suites import suite_names
from robustbench_twicing.catalog.threats import base_of, clean_threats, norm_of_eps, suite_threats
from robustbench_twicing.catalog.zoo import WhichWeights, model_specs
from robustbench_twicing.errors import UserError, unknown_name
from robustbench_twicing.spec.models import ModelSpec
from robustbench_twicing.spec.plan import Plan
from robustbench_twicing.spec.policy import Policy, fits
from robustbench_twicing.spec.protocol import Protocol
from robustbench_twicing.spec.threats import AttackThreat, CleanThreat, Threat
from robustbench_twicing.spec.values import Eps, Frozen

Place = tuple[str | int, ...]
"""Keys and positions that lead to a value, such as ("attacks", 0, "eps", 1)."""

Value = TypeVar("Value")

_HINT = "docs/plans.md explains every key; `twicing-bench plan new` writes a plan to start from."


@dataclass(frozen=True)
class PlanFile:
    """A plan file, read and found to be right."""

    name: str
    """The file's name without its ending."""
    title: str
    plan: Plan
    directories: Mapping[str, Path]
    """Where data sets on disk lie, by name."""
    gate: Policy


def plan_names() -> list[str]:
    """Names of the plans that ship with the tool."""
    return sorted(path.stem for path in definitions("plans").glob("*.toml"))


def plan_path(name: str | Path) -> Path:
    """The file of a plan: a path, or the name of one that ships with the tool. Raises `UserError`."""
    path = Path(name).expanduser()
    if path.suffix == ".toml":
        return path
    if str(name) not in plan_names():
        raise unknown_name("plan", str(name), [*plan_names(), "FILE.toml"])
    return definitions("plans") / f"{name}.toml"


def read_plan(name: str | Path, known: Settings | None = None) -> PlanFile:
    """Read a plan file with the plans it extends. Raises one `UserError` that lists every mistake with its line.

    Checkpoints and directories are relative to the file that names them; what it does not name may be in `known`.
    """
    files = _chain(plan_path(name))
    content: dict[str, Any] = {}
    for file in reversed(files):
        content = _merged(content, file.content)
    content.pop("extends", None)
    mistakes = _Mistakes(files)
    form = _filled_in(content, mistakes)
    directories = known.directories() if known else {}
    directories |= {key: Path(place) for key, place in form.directories.items()}
    threats, base = _threats(form, directories, mistakes)
    models = _models(form, base, known.checkpoints(base) if known else {}, mistakes) if base else []
    _check_names(form, models, threats, mistakes)
    recipe = form.recipe or (None if base == "digits" else _own_recipe(form, mistakes))
    if mistakes.found:
        raise mistakes.error()
    plan = Plan.model_validate(
        {
            "models": models,
            "threats": threats,
            "data": {"name": base, "limit": form.limit},
            "recipe": recipe,
            "seed": form.seed,
        }
    )
    return PlanFile(files[0].path.stem, form.title, plan, directories, form.gate)


# --- the form of a plan file -----------------------------------------------------------------------------------------


class _Attacks(Frozen):
    names: tuple[str, ...] = ()
    eps: tuple[str, ...] = Field(default=("1/255",), min_length=1)


class _Suite(Frozen):
    name: str
    corruptions: tuple[str, ...] = ()
    severities: tuple[int, ...] = ()


class _Form(Frozen):
    title: str = ""
    models: tuple[str, ...] = Field(min_length=1)
    weights: WhichWeights = "raw"
    resample_pos_embed: bool = False
    data: str | None = None
    directories: Mapping[str, str] = Field(default_factory=dict)
    limit: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0)
    recipe: Literal["model", "paper", "none"] | None = None
    protocol: str = "standard"
    attacks: tuple[_Attacks, ...] = ()
    suites: tuple[_Suite, ...] = ()
    gate: Policy = Policy()


def _filled_in(content: Mapping[str, Any], mistakes: "_Mistakes") -> _Form:
    """The form with what a file says. What has a wrong form is collected and left out, so that wrong names in the rest
    are found too.
    """
    try:
        return _Form.model_validate(content)
    except ValidationError as error:
        issues = error.errors()
    for issue in issues:
        mistakes.add(issue["loc"], _form_mistake(issue))
    wrong = {str(issue["loc"][0]) for issue in issues}
    if wrong & {"data", "suites"}:  # what models there are depends on the data
        wrong.add("models")
    rest = {key: value for key, value in content.items() if key not in wrong}
    return _Form.model_validate({"models": ["deit"], **rest})


def _form_mistake(issue: Any) -> str | UserError:
    if issue["type"] == "extra_forbidden":
        *outside, key = issue["loc"]
        tables: dict[str, type[Frozen]] = {"attacks": _Attacks, "suites": _Suite, "gate": Policy}
        known = tables[outside[0]].model_fields if outside else {**_Form.model_fields, "extends": None}
        return unknown_name("key", str(key), known)
    got = f" (got {issue['input']!r})" if issue["type"] != "missing" else ""
    return str(issue["msg"]) + (got if len(got) < 80 else "")


# --- names into threats and models -----------------------------------------------------------------------------------


def _threats(form: _Form, placed: Collection[str], mistakes: "_Mistakes") -> tuple[list[Threat], str | None]:
    """Every threat, and the data set it is about; None if that cannot be told."""
    rules = mistakes.tried(("protocol",), protocol, form.protocol)
    attacked = [
        threat for number, entry in enumerate(form.attacks) for threat in _attacked(rules, number, entry, mistakes)
    ]
    corrupted = [threat for number, entry in enumerate(form.suites) for threat in _corrupted(number, entry, mistakes)]
    names = list(dict.fromkeys(entry.name for entry in form.suites))
    known = [name for name in names if name in suite_names() or name.endswith(".toml")]
    base = mistakes.tried(("suites",), base_of, known) if known else form.data or "digits"
    if base is None:
        return [], None
    if base not in titles():
        mistakes.add(("data",), unknown_name("data set", base, titles()))
        return [], None
    if form.data not in (None, base):
        mistakes.add(("data",), f"The suites {', '.join(names)} are made from {base!r}, not from {form.data!r}.")
    if mistakes.found:
        return [], base
    clean: list[Threat] = [CleanThreat()] if attacked or not names else []
    if base == "digits" or base in placed:
        clean += clean_threats(names)
    return [*dict.fromkeys(clean), *attacked, *corrupted], base


def _attacked(rules: Protocol | None, number: int, entry: _Attacks, mistakes: "_Mistakes") -> list[Threat]:
    at: Place = ("attacks", number)
    names = (entry.names or rules.default_attacks) if rules else ()
    attacks: list[AttackThreat] = []
    for position, name in enumerate(names):
        where = (*at, "names", position) if entry.names else at
        # With any size, so that a wrong name is found beside a wrong size.
        one = mistakes.tried(where, attack_threat, rules, name, Eps(0))
        attacks += [one] if one is not None else []
    norm = norm_of_eps(attacks)
    sizes = [mistakes.tried((*at, "eps", position), Eps.parse, text, norm) for position, text in enumerate(entry.eps)]
    return [one.model_copy(update={"eps": size}) for one in attacks for size in sizes if size is not None]


def _corrupted(number: int, entry: _Suite, mistakes: "_Mistakes") -> list[Threat]:
    at: Place = ("suites", number)
    before = len(mistakes.found)
    if mistakes.tried((*at, "name"), suite_threats, entry.name) is None:
        return []
    for position, corruption in enumerate(entry.corruptions):
        mistakes.tried((*at, "corruptions", position), suite_threats, entry.name, [corruption])
    for position, severity in enumerate(entry.severities):
        mistakes.tried((*at, "severities", position), suite_threats, entry.name, (), [severity])
    if len(mistakes.found) > before:
        return []
    return suite_threats(entry.name, entry.corruptions, entry.severities)


def _models(form: _Form, base: str, checkpoints: Mapping[str, str], mistakes: "_Mistakes") -> list[ModelSpec]:
    found: list[ModelSpec] = []
    for position, text in enumerate(form.models):
        at: Place = ("models", position)
        specs = mistakes.tried(at, model_specs, text, base, form.weights, form.resample_pos_embed, checkpoints) or ()
        for spec in specs:
            file = spec.weights.removeprefix("file:")
            if file != spec.weights and not Path(file).expanduser().is_file():
                mistakes.add(at, f"There is no checkpoint {file}.")
            if spec.name in [other.name for other in found]:
                mistakes.add(at, f"The name {spec.name!r} is given twice; write {spec.name}@LABEL=CHECKPOINT.")
        found += specs
    return found


def _check_names(form: _Form, models: list[ModelSpec], threats: list[Threat], mistakes: "_Mistakes") -> None:
    ids = [threat.id for threat in threats]
    twice = [name for name in dict.fromkeys(ids) if ids.count(name) > 1]
    if twice:
        where: Place = ("attacks",) if form.attacks else ("suites",)
        mistakes.add(where, f"Named twice: {', '.join(twice)}.")
    cells = [(model.name, threat) for model in models for threat in ids]
    for key, patterns in (("tolerances", form.gate.tolerances), ("floors", form.gate.floors)):
        for pattern in patterns if cells else ():
            if not any(fits(pattern, *cell) for cell in cells):
                mistakes.add(("gate", key, pattern), "No MODEL:THREAT of the plan fits this pattern.")
    for name in form.directories:
        if name not in titles():
            mistakes.add(("directories", name), unknown_name("data set", name, titles()))


def _own_recipe(form: _Form, mistakes: "_Mistakes") -> str | None:
    """The protocol's recipe where something is attacked; None leaves it to each suite, whose usual one is `model`."""
    rules = mistakes.tried(("protocol",), protocol, form.protocol) if form.attacks else None
    if rules is None or rules.recipe == "model":
        return None
    if form.suites:
        what = f"Protocol {form.protocol!r} has a recipe of its own, and so have the suites. Write two plans."
        mistakes.add(("suites",), what)
    return rules.recipe


# --- files, and where in them a mistake lies -------------------------------------------------------------------------


@dataclass(frozen=True)
class _File:
    path: Path
    text: str
    content: dict[str, Any]


def _chain(path: Path) -> list[_File]:
    """The plan and those it extends, nearest first."""
    files: list[_File] = []
    while True:
        if path.resolve() in [file.path.resolve() for file in files]:
            names = " extends ".join(str(file.path) for file in files)
            raise UserError(f"Plans extend each other in a circle: {names} extends {path}.", "Remove one `extends`.")
        content = _placed(read_toml(path), path.parent)
        files.append(_File(path, path.read_text(encoding="utf-8"), content))
        base = content.get("extends")
        if base is None:
            return files
        if not isinstance(base, str):
            raise UserError(f"{path}: extends = {base!r} is not a name.", "Write the path of a plan, or a plan's name.")
        path = plan_path(path.parent / base if base.endswith(".toml") else base)


def _placed(content: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The content with its paths relative to the working folder. What has the wrong form is left for the validation."""

    def placed(path: Any) -> Any:
        return str(folder / Path(path).expanduser()) if isinstance(path, str) else path

    def model(text: Any) -> Any:
        name, sign, checkpoint = text.partition("=") if isinstance(text, str) else ("", "", "")
        published = checkpoint.startswith(("timm:", "hf-hub:"))
        return f"{name}={placed(checkpoint)}" if sign and not published else text

    result = dict(content)
    if isinstance(result.get("models"), list):
        result["models"] = [model(text) for text in result["models"]]
    if isinstance(result.get("directories"), dict):
        result["directories"] = {name: placed(path) for name, path in result["directories"].items()}
    return result


def _merged(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Tables are merged key by key; anything else, lists too, is replaced."""
    merged = dict(base)
    for key, value in own.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


class _Mistakes:
    """Collects mistakes, each at its place."""

    def __init__(self, files: list[_File]) -> None:
        self.found: list[str] = []
        self._files = files

    def add(self, place: Place, what: str | UserError) -> None:
        said = f"{what.message} {what.hint}" if isinstance(what, UserError) else what
        file = max(self._files, key=lambda file: _depth(file.content, place))  # of several, the nearest
        dotted = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in place).lstrip(".")
        line = line_of(file.text, place)
        where = f"{file.path}, line {line}" if line else str(file.path)
        mistake = f"  {where}: {dotted}: {said.strip()}"
        if mistake not in self.found:  # the protocol is asked for twice
            self.found.append(mistake)

    def tried(self, place: Place, step: Callable[..., Value], *arguments: Any) -> Value | None:
        """What `step(*arguments)` returns; None if it raises `UserError`, which is collected."""
        try:
            return step(*arguments)
        except UserError as error:
            self.add(place, error)
            return None

    def error(self) -> UserError:
        return UserError(f"The plan has {len(self.found)} mistake(s):\n" + "\n".join(self.found), _HINT)


def _depth(content: Any, place: Place) -> int:
    """How many steps of the place there are."""
    for depth, key in enumerate(place):
        if isinstance(content, list):
            here = isinstance(key, int) and key < len(content)
        else:
            here = isinstance(content, dict) and key in content
        if not here:
            return depth
        content = content[key]
    return len(place)


def line_of(text: str, place: Place) -> int | None:
    """The line, from 1, of the value at a place of a TOML text, or of the nearest table around it.

    Python's parser tells no lines. But a prefix of whole lines parses exactly where a statement ends, so the first
    prefix that holds the value ends with its statement.
    """
    depth = _depth(tomllib.loads(text), place)
    if depth == 0:
        return None
    place = place[:depth]
    lines, start = text.splitlines(), 0
    for end in range(1, len(lines) + 1):
        try:
            content = tomllib.loads("\n".join(lines[:end]))
        except tomllib.TOMLDecodeError:
            continue
        if _depth(content, place) == depth:
            return start + 1 + _line_within(lines[start:end], content, place)
        start = end
    return None


def _line_within(lines: list[str], content: Any, place: Place) -> int:
    """The line of an array's element within the array's statement, if the element is a text that stands there."""
    earlier: list[Any] = []
    for key in place:
        earlier = content[:key] if isinstance(key, int) else []
        content = content[key]
    texts = [content] if isinstance(content, str) else list(content.values()) if isinstance(content, dict) else []
    wanted = [quote + text + quote for text in texts if isinstance(text, str) for quote in ("'", '"')]
    before = earlier.count(content)  # the same text may stand there several times
    for number, line in enumerate(lines):
        before -= sum(line.count(text) for text in wanted)
        if before < 0:
            return number
    return 0
