"""Arms: the models of a run that are training seeds of one method. No torch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from robustbench_twicing.errors import UserError
from robustbench_twicing.metrics.arms import FEWEST_SEEDS
from robustbench_twicing.metrics.paired import MUST_AGREE, ArmPairs, match_arms
from robustbench_twicing.results.cells import Cells
from robustbench_twicing.spec.arms import ArmPatterns, members, wrong_arms

_MUST_BE_ONE = {
    "architecture": "another network",
    "attention": "another method",
    "training_recipe": "another training recipe",
}
"""What every model of an arm has in common; what differs makes it another mechanism."""
_OF_A_MODEL = ("model", *_MUST_BE_ONE, "training_seed", "weights_hash")
_OF_A_SAMPLE = (
    *("model", "attention", "weights_hash", *MUST_AGREE, "sample_id", "label", "status", "correct"),
    *("kind", "eps", "suite", "corruption", "severity", "margin"),
)
"""What `match_arms` reads, and what tells curves, suites and slices."""
ARM_COLUMNS = tuple(dict.fromkeys((*_OF_A_MODEL, *_OF_A_SAMPLE)))
"""Of records, what a comparison of arms reads."""

BEGAN_WITH = ".from-"
"""In a stated recipe, between what trained the weights and the hash of the weights that this began with."""


@dataclass(frozen=True, eq=False)
class Arm:
    """The training seeds of one method."""

    name: str
    models: tuple[str, ...]
    states_recipe: bool
    """Whether the weights' files say what trained them. Else nobody but the user knows that it was done alike."""
    cells: Mapping[str, Mapping[str, pd.DataFrame]]
    """The records of each model under each threat."""

    def means(self, values: np.ndarray) -> dict[str, float]:
        """Each model's mean, of one value for each seed (row) and image."""
        return dict(zip(self.models, values.mean(axis=1).tolist(), strict=True))

    def covers(self, threat: str) -> bool:
        """Every model was evaluated under it."""
        return len(self.cells.get(threat, {})) == len(self.models)


def require_arms(patterns: ArmPatterns, models: Sequence[str], *, compared: bool = True) -> None:
    """Raise `UserError` for what the names of models show to be no arms, as `arms_of` does."""
    for _, error in wrong_arms(patterns, models, FEWEST_SEEDS, compared=compared):
        raise error


def arms_of(cells: Cells, patterns: ArmPatterns, *, compared: bool = True) -> list[Arm]:
    """The arms that patterns of model names (`*` and `?` as in a shell) make of some records.

    Raises `UserError` for a pattern that fits no model, a model in two arms, fewer than three seeds, models of one arm
    that differ in more than their seed, and the same weights or the same training twice; if the arms are `compared`
    with each other, also for a single arm, and for arms of two recipes.
    """
    firsts: dict[str, pd.DataFrame] = {}
    for (model, _), rows in cells.items():
        firsts.setdefault(model, rows[list(_OF_A_MODEL)].iloc[:1])
    known = list(firsts)
    about = pd.concat(firsts.values()).set_index(pd.Index(known))
    require_arms(patterns, known, compared=compared)
    found = {name: members(some, known) for name, some in patterns.items()}
    for name, models in found.items():
        _refuse_mixed(name, about.loc[list(models)])
    chosen = about.loc[[model for models in found.values() for model in models]]
    _refuse_same_weights(chosen)
    recipes = {name: str(about.loc[models[0], "training_recipe"]) for name, models in found.items()}
    if compared:
        _refuse_trained_further(recipes)
        _refuse_other_recipes(recipes)
    return [Arm(name, found[name], bool(recipes[name]), _cells(cells, found[name])) for name in found]


def _cells(cells: Cells, models: Sequence[str]) -> dict[str, dict[str, pd.DataFrame]]:
    """By threat, in the order of the cells, and model."""
    return {
        threat: {model: cells[model, threat] for model in models if (model, threat) in cells}
        for threat in dict.fromkeys(threat for _, threat in cells)
    }


def matched_arms(baseline: Arm, other: Arm, threat: str) -> ArmPairs:
    """`paired.match_arms` under one threat, which a `UserError` then names; also raised for less than two samples."""
    try:
        pairs = match_arms(baseline.cells[threat], other.cells[threat])
    except UserError as error:
        raise UserError(f"{threat}: {error.message}", error.hint) from None
    if len(pairs.sample_ids) < 2:
        raise UserError(f"{threat}: all models answered only 1 sample.", "Evaluate more: raise --limit.")
    return pairs


def shared_threats(baseline: Arm, other: Arm) -> list[str]:
    """Those that every model of both arms was evaluated under, in the order of the baseline's records."""
    return [threat for threat in baseline.cells if baseline.covers(threat) and other.covers(threat)]


Match = Callable[[Arm, Arm, str], ArmPairs]
"""As `matched_arms`."""


def _refuse_mixed(arm: str, about: pd.DataFrame) -> None:
    """`about` has one row for each model of the arm."""
    for column, what in _MUST_BE_ONE.items():
        found = about.groupby(column, sort=False)["model"].agg(", ".join)
        if len(found) > 1:
            listed = "; ".join(f"{value or 'not stated'}: {models}" for value, models in found.items())
            raise UserError(f"Arm {arm} mixes models with {what}: {listed}.", "An arm is one method, trained alike.")
    stated = about[about["training_seed"] >= 0]
    twice = stated[stated["training_seed"].duplicated(keep=False)]
    if len(twice):
        seed = twice["training_seed"].iloc[0]
        models = " and ".join(twice.loc[twice["training_seed"] == seed, "model"])
        raise UserError(
            f"Arm {arm}: {models} come from one training, with seed {seed}.",
            "Every model of an arm is a training of its own: name only one of them.",
        )


def _refuse_same_weights(about: pd.DataFrame) -> None:
    twice = about[about["weights_hash"].duplicated(keep=False)]
    if len(twice):
        same = twice.loc[twice["weights_hash"] == twice["weights_hash"].iloc[0], "model"]
        raise UserError(
            f"{' and '.join(same)} are the same weights.",
            "Every model of an arm is a training of its own; weights that run under two methods are a drop-in, "
            "which `compare` judges without --arm.",
        )


def _refuse_trained_further(recipes: Mapping[str, str]) -> None:
    """`recipes`: of each arm. `train --from` states the weights it began with; other weights state none."""
    began = {name: recipe.partition(BEGAN_WITH)[2] for name, recipe in recipes.items()}
    if len(set(began.values())) < 2:
        return
    listed = ", ".join(
        f"{name} was trained further ({recipes[name]})" if began[name] else f"{name} was not" for name in recipes
    )
    raise UserError(
        f"The arms do not begin alike: {listed}.",
        "A difference would be the extra training's as much as the method's. Train the control, softmax attention by "
        "the same recipe from the same weights, and compare with that: twicing-bench train --from WEIGHTS --control.",
    )


def _refuse_other_recipes(recipes: Mapping[str, str]) -> None:
    if len(set(filter(None, recipes.values()))) > 1:
        listed = ", ".join(f"{name} by {recipe or 'an unknown one'}" for name, recipe in recipes.items())
        raise UserError(
            f"The arms were trained by other recipes: {listed}.",
            "A difference would be the recipe's as much as the method's: train both arms alike.",
        )
