"""Arms as a plan or a command line names them: patterns of model names. No torch, no files."""

import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator, Field

from robustbench_twicing.errors import UserError


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Patterns = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_listed), Field(min_length=1)]
"""Names of models, with `*` and `?` as in a shell. One text stands for itself."""

ArmPatterns = Mapping[str, Sequence[str]]
"""The patterns of each arm, by its name; the first arm is the baseline."""


class WrongArm(NamedTuple):
    """What is wrong with one arm; `arm` is empty for what is wrong with all of them together."""

    arm: str
    error: UserError


def members(patterns: Sequence[str], models: Sequence[str]) -> tuple[str, ...]:
    """The models that fit some pattern, in their own order."""
    return tuple(model for model in models if any(fnmatchcase(model, pattern) for pattern in patterns))


def listed(arms: Mapping[str, str | Sequence[str]]) -> ArmPatterns:
    """Arms in the form of `ArmPatterns`: one text stands for itself."""
    return {name: (some,) if isinstance(some, str) else tuple(some) for name, some in arms.items()}


def arms_in_names(models: Sequence[str], fewest: int) -> ArmPatterns:
    """The arms that names such as `deit@s0` make by themselves: two or more of at least `fewest` seeds each, else none.

    None either where some model is in no arm: leaving it out is for the user to say.
    """
    arms: dict[str, list[str]] = {}
    for model in models:
        found = re.fullmatch(r"(.+)@s\d+", model)
        if found is None:
            return {}
        arms.setdefault(found[1], []).append(model)
    return arms if len(arms) > 1 and all(len(seeds) >= fewest for seeds in arms.values()) else {}


def wrong_arms(arms: ArmPatterns, models: Sequence[str], fewest: int, *, compared: bool = True) -> Iterator[WrongArm]:
    """Everything about arms that can be told from the names of models.

    A pattern that fits no model, a model in two arms, fewer than `fewest` models in an arm, and, if they are `compared`
    with each other, fewer than two arms.
    """
    if len(arms) < 2 and compared:
        error = UserError("One arm has nothing to be compared with.", "Name two or more; the first is the baseline.")
        yield WrongArm(next(iter(arms), ""), error)
    owner: dict[str, str] = {}
    for name, patterns in arms.items():
        unfit = [pattern for pattern in patterns if not members((pattern,), models)]
        for pattern in unfit:
            hint = f"There is {', '.join(models)}; * and ? as in a shell."
            yield WrongArm(name, UserError(f"Arm {name}: no model fits {pattern!r}.", hint))
        found = members(patterns, models)
        for model in found:
            if model in owner:
                said = f"Model {model!r} is in the arms {owner[model]} and {name}."
                yield WrongArm(name, UserError(said, "Write narrower patterns."))
            owner.setdefault(model, name)
        if len(found) < fewest and not unfit:
            yield WrongArm(name, _too_few(name, found, fewest))


def _too_few(name: str, found: Sequence[str], fewest: int) -> UserError:
    kind = found[0].partition("@")[0]
    return UserError(
        f"Arm {name} has {len(found)} seed(s) ({', '.join(found)}); a verdict about a mechanism needs {fewest} or "
        "more.",
        f"Train more: twicing-bench train --model {kind} --seed N.",
    )
