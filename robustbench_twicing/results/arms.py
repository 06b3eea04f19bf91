"""Arms: the models of a run that are training seeds of one method. No torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from robustbench_twicing.errors import UserError
from robustbench_twicing.metrics.arms import FEWEST_SEEDS
from robustbench_twicing.metrics.paired import MUST_AGREE
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
    *("kind", "eps", "suite", "corruption", "severity"),
)
"""What `match_arms` reads, and what tells curves and suites."""


@dataclass(frozen=True, eq=False)
class Arm:
    """The training seeds of one method."""

    name: str
    models: tuple[str, ...]
    states_recipe: bool
    """Whether the weights' files say what trained them. Else nobody but the user knows that it was done alike."""
    cells: Mapping[str, Mapping[str, pd.DataFrame]]
    """The records of each model under each threat."""


def require_arms(patterns: ArmPatterns, models: Sequence[str], *, compared: bool = True) -> None:
    """Raise `UserError` for what the names of models show to be no arms, as `arms_of` does."""
    for _, error in wrong_arms(patterns, models, FEWEST_SEEDS, compared=compared):
        raise error


def arms_of(records: pd.DataFrame, patterns: ArmPatterns, *, compared: bool = True) -> list[Arm]:
    """The arms that patterns of model names (`*` and `?` as in a shell) make of some records.

    Raises `UserError` for a pattern that fits no model, a model in two arms, fewer than three seeds, models of one arm
    that differ in more than their seed, and the same weights or the same training twice; if the arms are `compared`
    with each other, also for a single arm, and for arms of two recipes.
    """
    about = records.loc[~records["model"].duplicated(), list(_OF_A_MODEL)].set_index("model", drop=False)
    known = [str(name) for name in about.index]
    require_arms(patterns, known, compared=compared)
    found = {name: members(some, known) for name, some in patterns.items()}
    for name, models in found.items():
        _refuse_mixed(name, about.loc[list(models)])
    chosen = about.loc[[model for models in found.values() for model in models]]
    _refuse_same_weights(chosen)
    recipes = {name: str(about.loc[models[0], "training_recipe"]) for name, models in found.items()}
    if compared:
        _refuse_other_recipes(recipes)
    cells = {str(threat): group for threat, group in records[list(_OF_A_SAMPLE)].groupby("threat", sort=False)}
    return [Arm(name, found[name], bool(recipes[name]), _cells(cells, found[name])) for name in found]


def _cells(threats: Mapping[str, pd.DataFrame], models: Sequence[str]) -> dict[str, dict[str, pd.DataFrame]]:
    found = {}
    for threat, records in threats.items():
        of_model = {str(model): rows for model, rows in records.groupby("model", sort=False)}
        found[threat] = {model: of_model[model] for model in models if model in of_model}
    return found


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


def _refuse_other_recipes(recipes: Mapping[str, str]) -> None:
    if len(set(filter(None, recipes.values()))) > 1:
        listed = ", ".join(f"{name} by {recipe or 'an unknown one'}" for name, recipe in recipes.items())
        raise UserError(
            f"The arms were trained by other recipes: {listed}.",
            "A difference would be the recipe's as much as the method's: train both arms alike.",
        )
