"""Plan files: TOML, what it extends, and the line of every mistake. docs/plans.md explains every key.

What a file says means is `catalog.resolve`'s to tell.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import Field

from robustbench_twicing.catalog.arms_to_train import ArmsToTrain, arms_to_train, models_with
from robustbench_twicing.catalog.config import Settings
from robustbench_twicing.catalog.locate import definitions
from robustbench_twicing.catalog.mistakes import Mistake, Mistakes, Place, dotted
from robustbench_twicing.catalog.passing import judged_names, never_passing
from robustbench_twicing.catalog.plugins import PREFIX, refused_code
from robustbench_twicing.catalog.read_toml import parse_toml, read_toml
from robustbench_twicing.catalog.resolve import require_models, stated_or_none
from robustbench_twicing.catalog.suites import moved
from robustbench_twicing.errors import UserError, unknown_name
from robustbench_twicing.machine.remote import is_remote
from robustbench_twicing.metrics.arms import FEWEST_SEEDS
from robustbench_twicing.spec.arms import ArmPatterns, Patterns, wrong_arms
from robustbench_twicing.spec.experiment import Experiment, TextExperiment
from robustbench_twicing.spec.means import Means
from robustbench_twicing.spec.plan import EMBEDDED, Plan
from robustbench_twicing.spec.policy import Policy, fits, wrong_alpha
from robustbench_twicing.spec.text import EMBEDDED_TEXT
from robustbench_twicing.spec.training import TrainTable
from robustbench_twicing.spec.values import Frozen

_NAMED = 100
"""Mistakes that are said one by one."""
_HINT = "docs/plans.md explains every key; `twicing-bench plan new` writes a plan to start from."


@dataclass(frozen=True)
class PlanFile:
    """A plan file, read and found to be right."""

    name: str
    """The file's name without its ending."""
    title: str
    experiment: Experiment | TextExperiment
    means: Means
    """What was given, over what the file says, over what is configured."""
    plan: Plan
    decided: tuple[str, ...]
    """In lines, which model's weights a file in the working folder decided."""
    gate: Policy
    arms: ArmPatterns
    """What `compare` and `gate` take for arms of training seeds; empty without any."""
    never_pass: tuple[str, ...] = ()
    """In lines, the cells that its gate can never pass; empty if the file states no gate."""
    train: ArmsToTrain | None = None
    """What is trained before it is carried out; the models that come of it are models of the plan."""


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


def read_plan(name: str | Path, known: Settings | None = None, given: Means | None = None) -> PlanFile:
    """Read a plan file with the plans it extends. Raises one `UserError` that lists every mistake with its line.

    Paths are relative to the file that names them. `given` means win over the file's, and those over what is `known`,
    which also says the checkpoints that the file does not name. Plans travel with cloned repositories, so one that
    names code (`python:`) is refused outside of `plugins.code_allowed`.
    """
    files = _chain(plan_path(name))
    content: dict[str, Any] = {}
    for file in reversed(files):
        content = _merged(content, file.content)
    about: dict[str, Any] = {key: content.pop(key) for key in _About.model_fields if key in content}
    content.pop("extends", None)
    mistakes = Mistakes()
    for place, code in refused_code(content):
        what = f"{code!r} runs code that this file names, and plans travel with cloned repositories."
        mistakes.add(place, what, "If you trust it, pass --allow-code.")
    if mistakes.found:  # before anything of it could be imported
        raise _located(mistakes.found, files)
    text = mistakes.filled(_About, about)
    train = None
    if text.train is not None:
        data = "text" if "text" in content else str(content.get("data", EMBEDDED))
        train = arms_to_train(text.train, data, files[0].path.stem, mistakes)
    if train is not None:
        content["models"] = models_with(content, train)
    if text.train is None:
        require_models(content, mistakes)
    stated = stated_or_none(content, known, mistakes, given, keys=("extends", *_About.model_fields))
    if stated is not None:
        _check_gate(text.gate, stated.plan, text.arms, mistakes)
        _check_arms(text.arms, stated.plan, mistakes)
    if mistakes.found or stated is None:
        raise _located(mistakes.found, files)
    never = never_passing(stated.plan, text.gate, text.arms) if "gate" in about else ()
    experiment, means, plan, decided = stated
    about_it = (text.gate, text.arms, never, train)
    return PlanFile(files[0].path.stem, text.title, experiment, means, plan, decided, *about_it)


class _About(Frozen):
    """What a plan file says beside the experiment and the means."""

    title: str = ""
    gate: Policy = Policy()
    arms: Mapping[str, Patterns] = Field(default_factory=dict)
    train: TrainTable | None = None


def _check_gate(gate: Policy, plan: Plan, arms: ArmPatterns, mistakes: Mistakes) -> None:
    if error := wrong_alpha(gate):
        mistakes.add(("gate", "alpha"), error)
    cells = [(name, threat.id) for name in judged_names(plan, arms) for threat in plan.threats]
    for key, patterns in (("tolerances", gate.tolerances), ("floors", gate.floors)):
        for pattern in patterns:
            if not any(fits(pattern, *cell) for cell in cells):
                mistakes.add(("gate", key, pattern), "No MODEL:THREAT of the plan fits this pattern.")


def _check_arms(arms: ArmPatterns, plan: Plan, mistakes: Mistakes) -> None:
    for arm, error in wrong_arms(arms, [model.name for model in plan.models], FEWEST_SEEDS) if arms else ():
        mistakes.add(("arms", arm), error)


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
        if not isinstance(path, str) or not path or is_remote(path):
            return path
        return str(folder / Path(path).expanduser())

    def definition(name: Any) -> Any:  # a name, or a file of the user's own
        return moved(name, placed) if isinstance(name, str) else name

    def weights(source: Any) -> Any:
        return source if isinstance(source, str) and source.startswith(("timm:", "hf-hub:", PREFIX)) else placed(source)

    def model(text: Any) -> Any:
        name, _, checkpoint = text.partition("=") if isinstance(text, str) else ("", "", "")
        return f"{name}={weights(checkpoint)}" if checkpoint else text

    def frost(name: Any) -> Any:
        return name if name == "drawn" else placed(name)

    def trained(table: Any) -> Any:
        for key, change in (("recipe", definition), ("directory", placed), ("out", placed), ("from", weights)):
            table = _changed(table, key, change)
        return table

    result = dict(content)

    def each(key: str, kind: type, change: Callable[[Any], Any]) -> None:
        if isinstance(result.get(key), kind):
            result[key] = change(result[key])

    each("models", list, lambda texts: [model(text) for text in texts])
    each("source_model", str, model)
    each("source_model", list, lambda texts: [model(text) for text in texts])
    each("data", str, definition)
    each("ids", str, placed)
    each("text", str, lambda name: name if name == EMBEDDED_TEXT else placed(name))
    each("protocol", str, definition)
    each("checkpoints", dict, lambda table: {name: weights(source) for name, source in table.items()})
    each("directories", dict, lambda table: {definition(name): placed(path) for name, path in table.items()})
    each("means", dict, lambda table: _changed(_changed(table, "frost_dir", frost), "out", placed))
    each("train", dict, trained)
    each("suites", list, lambda rows: [_changed(row, "name", definition) for row in rows])  # of a text no tables
    return result


def _changed(table: Any, key: str, change: Callable[[Any], Any]) -> Any:
    return {**table, key: change(table[key])} if isinstance(table, dict) and key in table else table


def _merged(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Tables are merged key by key; anything else, lists too, is replaced."""
    merged = dict(base)
    for key, value in own.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def _located(found: list[Mistake], files: list[_File]) -> UserError:
    """Every mistake with the line where it lies."""
    lines = []
    for place, message, hint in found[:_NAMED]:
        file = max(files, key=lambda file: _depth(file.content, place))  # of several, the nearest
        line = line_of(file.text, place)
        where = f"{file.path}, line {line}" if line else str(file.path)
        lines.append(f"  {where}: {dotted(place)}: {message} {hint}".rstrip())
    if len(found) > _NAMED:
        lines.append(f"  and {len(found) - _NAMED:,} more")
    return UserError(f"The plan has {len(found):,} mistake(s):\n" + "\n".join(lines), _HINT)


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

    Python's parser tells no lines. But the first of the beginnings of the text that holds the value ends with its
    statement, and every later one holds it too.
    """
    ends = _ends(text)
    depth = _depth(_beginning(text, ends[-1]), place)
    if depth == 0:
        return None
    place = place[:depth]
    number = bisect_left(ends, True, key=lambda end: _depth(_beginning(text, end), place) == depth)
    start, end = ends[number - 1] if number else 0, ends[number]
    return start + 1 + _line_within(text.splitlines()[start:end], _beginning(text, end), place)


@lru_cache(maxsize=8)
def _ends(text: str) -> list[int]:
    """How many lines there are up to the end of each statement: it parses by itself, a part of it does not."""
    lines, start, ends = text.splitlines(), 0, []
    for end in range(1, len(lines) + 1):
        last = lines[end - 1]
        if last.rstrip().endswith(",") and "#" not in last:
            continue  # within an array, which need not be parsed anew at every line
        try:
            parse_toml("\n".join(lines[start:end]), "a part")
        except UserError:
            continue
        ends.append(end)
        start = end
    return ends or [len(lines)]


@lru_cache(maxsize=32)
def _beginning(text: str, end: int) -> dict[str, Any]:
    return parse_toml("\n".join(text.splitlines()[:end]), "a beginning")


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
