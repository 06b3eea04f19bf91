"""Mechanisms side by side: arms of training seeds, threat by threat. Computed from records alone. No torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from robustbench_twicing.errors import UserError
from robustbench_twicing.metrics.arms import FEWEST_SEEDS, ArmsTest, Images, compare_arms
from robustbench_twicing.metrics.paired import MUST_AGREE, ArmPairs, match_arms
from robustbench_twicing.metrics.verdict import Verdict, holm
from robustbench_twicing.results.family import Outside, outside_family
from robustbench_twicing.results.run import Run
from robustbench_twicing.spec.arms import ArmPatterns, members, wrong_arms

_MUST_BE_ONE = {
    "architecture": "another network",
    "attention": "another method",
    "training_recipe": "another training recipe",
}
"""What every model of an arm has in common; what differs makes it another mechanism."""
_OF_A_MODEL = ("model", *_MUST_BE_ONE, "training_seed", "weights_hash")
_OF_A_SAMPLE = ("model", "attention", "weights_hash", *MUST_AGREE, "sample_id", "label", "status", "correct")
"""What `match_arms` reads."""


@dataclass(frozen=True, eq=False)
class Arm:
    """The training seeds of one method."""

    name: str
    models: tuple[str, ...]
    states_recipe: bool
    """Whether the weights' files say what trained them. Else nobody but the user knows that it was done alike."""
    cells: Mapping[str, Mapping[str, pd.DataFrame]]
    """The records of each model under each threat."""


@dataclass(frozen=True, eq=False)
class ArmRow:
    """Two arms under one threat."""

    baseline: str
    candidate: str
    threat: str
    n: int
    left_out: int
    """Samples that some model of the arms did not answer."""
    baseline_accuracies: Mapping[str, float]
    """Of each seed's model, on the samples that all answered, in [0, 1]."""
    candidate_accuracies: Mapping[str, float]
    outcome: ArmsTest
    p_holm: float
    """After Holm's correction over the rows of the family, of which a row outside is none; the verdict's p."""
    verdict: Verdict
    """Of the candidate as it was trained, against the baseline as it was trained."""
    outside: Outside | None = None
    """Why the row is outside the family, if it is."""


@dataclass(frozen=True, eq=False)
class ArmComparisons:
    """What arms say about their mechanisms."""

    arms: tuple[Arm, ...]
    rows: tuple[ArmRow, ...]
    family: int
    """How many of the rows Holm's correction is over."""
    images: Images
    alpha: float
    power: float


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


def compare_run(run: Run, patterns: ArmPatterns, *, images: Images = "random", alpha: float = 0.05) -> ArmComparisons:
    """`compare_all` for the arms of one run, whose family is that of `compare`; suites of outliers have no accuracy.

    Raises `UserError` as `arms_of` and `compare_all`.
    """
    suites, threats = run.manifest.suites, {threat.id: threat for threat in run.manifest.plan.threats}
    outliers = {name for name, suite in suites.items() if suite.spec.labels == "outlier"}
    arms = [
        replace(arm, cells={threat: cell for threat, cell in arm.cells.items() if threat not in outliers})
        for arm in arms_of(run.records, patterns)
    ]
    return compare_all(arms, images=images, outside=outside_family(list(threats), threats, suites), alpha=alpha)


def compare_all(
    arms: Sequence[Arm],
    *,
    images: Images = "random",
    outside: Mapping[str, Outside] | None = None,
    alpha: float = 0.05,
    power: float = 0.8,
) -> ArmComparisons:
    """Compare the first arm with each of the others under every threat that all of their models share.

    All rows are one family for Holm's correction, but for the threats `outside` of it, which keep their own p. Raises
    `UserError` if arms share no threat, or were not run alike.
    """
    baseline, *others = arms
    tested = [
        (other, threat, *_tested(baseline, other, threat, images, alpha, power))
        for other in others
        for threat in _shared_threats(baseline, other)
    ]
    outside = outside or {}
    family = [index for index, (_, threat, *_) in enumerate(tested) if threat not in outside]
    adjusted = [test.p for *_, test in tested]
    for index, p in zip(family, holm(np.array([adjusted[index] for index in family])), strict=True):
        adjusted[index] = float(p)
    rows = []
    for (other, threat, pairs, test), p in zip(tested, adjusted, strict=True):
        sides = [
            dict(zip(arm.models, side.mean(axis=1).tolist(), strict=True))
            for arm, side in ((baseline, pairs.baseline), (other, pairs.candidate))
        ]
        verdict: Verdict = "no difference found"
        if p <= alpha:
            verdict = "better" if test.difference > 0 else "worse"
        rows.append(
            ArmRow(
                baseline=baseline.name,
                candidate=other.name,
                threat=threat,
                n=len(pairs.sample_ids),
                left_out=pairs.left_out,
                baseline_accuracies=sides[0],
                candidate_accuracies=sides[1],
                outcome=test,
                p_holm=p,
                verdict=verdict,
                outside=outside.get(threat),
            )
        )
    return ArmComparisons(tuple(arms), tuple(rows), len(family), images, alpha, power)


def _shared_threats(baseline: Arm, other: Arm) -> list[str]:
    """Those that every model of both arms was evaluated under, in the order of the baseline's records."""
    shared = [
        threat
        for threat in baseline.cells
        if all(len(arm.cells.get(threat, {})) == len(arm.models) for arm in (baseline, other))
    ]
    if not shared:
        raise UserError(
            f"The models of {baseline.name} and {other.name} share no threat.", "Evaluate all under the same threats."
        )
    return shared


def _tested(
    baseline: Arm, other: Arm, threat: str, images: Images, alpha: float, power: float
) -> tuple[ArmPairs, ArmsTest]:
    try:
        pairs = match_arms(baseline.cells[threat], other.cells[threat])
    except UserError as error:
        raise UserError(f"{threat}: {error.message}", error.hint) from None
    if len(pairs.sample_ids) < 2:
        raise UserError(f"{threat}: all models answered only 1 sample.", "Evaluate more: raise --limit.")
    left, right = pairs.baseline.astype(float), pairs.candidate.astype(float)
    return pairs, compare_arms(left, right, images=images, alpha=alpha, power=power)
