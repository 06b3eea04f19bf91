"""Mechanisms side by side: arms of training seeds, threat by threat. Computed from records alone. No torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
import pandas as pd

from robustbench_twicing.errors import UserError
from robustbench_twicing.metrics.arms import FEWEST_SEEDS, ArmsTest, Images, compare_arms
from robustbench_twicing.metrics.paired import ArmPairs, match_arms
from robustbench_twicing.metrics.verdict import Verdict, holm
from robustbench_twicing.results.family import outside_family
from robustbench_twicing.results.run import Run

_MUST_BE_ONE = {
    "architecture": "another network",
    "attention": "another method",
    "training_recipe": "another training recipe",
}
"""What every model of an arm has in common; what differs makes it another mechanism."""


@dataclass(frozen=True, eq=False)
class Arm:
    """The training seeds of one method."""

    name: str
    models: tuple[str, ...]
    records: pd.DataFrame


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
    """After Holm's correction over the rows of the family; the verdict's p."""
    verdict: Verdict
    """Of the candidate as it was trained, against the baseline as it was trained."""


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


def arms_of(records: pd.DataFrame, patterns: Mapping[str, Sequence[str]]) -> list[Arm]:
    """The arms that patterns of model names (`*` and `?` as in a shell) make of some records.

    Raises `UserError` for a pattern that fits no model, a model in two arms, fewer than three seeds, models of one arm
    that differ in more than their seed, and the same weights twice.
    """
    known = [str(name) for name in records["model"].unique()]
    arms: list[Arm] = []
    for name, some in patterns.items():
        models = [model for model in known if any(fnmatchcase(model, pattern) for pattern in some)]
        for pattern in some:
            if not any(fnmatchcase(model, pattern) for model in known):
                raise UserError(
                    f"Arm {name}: no model fits {pattern!r}.",
                    f"The run holds {', '.join(known)}; * and ? as in a shell.",
                )
        arms.append(Arm(name, tuple(models), records[records["model"].isin(models)]))
    _refuse_wrong_arms(arms)
    return arms


def _refuse_wrong_arms(arms: Sequence[Arm]) -> None:
    if len(arms) < 2:
        raise UserError("One arm has nothing to be compared with.", "Name two or more: --arm NAME=PATTERN.")
    owner: dict[str, str] = {}
    for arm in arms:
        for model in arm.models:
            if model in owner:
                raise UserError(
                    f"Model {model!r} is in the arms {owner[model]} and {arm.name}.", "Write narrower patterns."
                )
            owner[model] = arm.name
        _refuse_mixed(arm)
    _refuse_other_recipes(arms)
    weights = pd.concat([arm.records.drop_duplicates("model") for arm in arms]).set_index("model")["weights_hash"]
    twice = weights[weights.duplicated(keep=False)]
    if len(twice):
        same = [str(model) for model in twice.index[twice == twice.iloc[0]]]
        raise UserError(
            f"{' and '.join(same)} are the same weights.",
            "Every model of an arm is a training of its own; weights that run under two methods are a drop-in, "
            "which `compare` judges without --arm.",
        )


def _refuse_other_recipes(arms: Sequence[Arm]) -> None:
    stated = {arm.name: str(arm.records["training_recipe"].iloc[0]) for arm in arms}
    if len(set(filter(None, stated.values()))) > 1:
        listed = ", ".join(f"{name} by {recipe or 'an unknown one'}" for name, recipe in stated.items())
        raise UserError(
            f"The arms were trained by other recipes: {listed}.",
            "A difference would be the recipe's as much as the method's: train both arms alike.",
        )


def _refuse_mixed(arm: Arm) -> None:
    if len(arm.models) < FEWEST_SEEDS:
        raise UserError(
            f"Arm {arm.name} has {len(arm.models)} seed(s) ({', '.join(arm.models)}); a verdict about a mechanism "
            f"needs {FEWEST_SEEDS} or more.",
            f"Train more: twicing-bench train --model {arm.models[0].partition('@')[0]} --seed N.",
        )
    for column, what in _MUST_BE_ONE.items():
        found = arm.records.drop_duplicates("model").groupby(column, sort=False)["model"].agg(", ".join)
        if len(found) > 1:
            listed = "; ".join(f"{value or 'not stated'}: {models}" for value, models in found.items())
            raise UserError(
                f"Arm {arm.name} mixes models with {what}: {listed}.", "An arm is one method, trained alike."
            )


def compare_run(
    run: Run, patterns: Mapping[str, Sequence[str]], *, images: Images = "random", alpha: float = 0.05
) -> ArmComparisons:
    """`compare_all` for the arms of one run, whose family is that of `compare`; suites of outliers have no accuracy.

    Raises `UserError` as `arms_of` and `compare_all`.
    """
    suites, threats = run.manifest.suites, {threat.id: threat for threat in run.manifest.plan.threats}
    outliers = [name for name, suite in suites.items() if suite.spec.labels == "outlier"]
    arms = arms_of(run.records[~run.records["threat"].isin(outliers)], patterns)
    return compare_all(arms, images=images, outside=list(outside_family(list(threats), threats, suites)), alpha=alpha)


def compare_all(
    arms: Sequence[Arm],
    *,
    images: Images = "random",
    outside: Sequence[str] = (),
    alpha: float = 0.05,
    power: float = 0.8,
) -> ArmComparisons:
    """Compare the first arm with each of the others under every threat that all of their models share.

    All rows are one family for Holm's correction, but for the threats `outside` of it (controls and what is a function
    of other rows). Raises `UserError` if arms share no threat, or were not run alike.
    """
    baseline, *others = arms
    tested = [
        (other, threat, *_tested(baseline, other, threat, images, alpha, power))
        for other in others
        for threat in _shared_threats(baseline, other)
    ]
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
        n = len(pairs.sample_ids)
        rows.append(ArmRow(baseline.name, other.name, threat, n, pairs.left_out, sides[0], sides[1], test, p, verdict))
    return ArmComparisons(tuple(arms), tuple(rows), len(family), images, alpha, power)


def _shared_threats(baseline: Arm, other: Arm) -> list[str]:
    """Those that every model of both arms was evaluated under, in the order of the baseline's records."""
    pairs = pd.concat([arm.records[["model", "threat"]].drop_duplicates() for arm in (baseline, other)])
    counts = pairs["threat"].value_counts()
    everyone = len(baseline.models) + len(other.models)
    shared = [str(threat) for threat in baseline.records["threat"].unique() if counts[threat] == everyone]
    if not shared:
        raise UserError(
            f"The models of {baseline.name} and {other.name} share no threat.", "Evaluate all under the same threats."
        )
    return shared


def _tested(
    baseline: Arm, other: Arm, threat: str, images: Images, alpha: float, power: float
) -> tuple[ArmPairs, ArmsTest]:
    sides = [
        {str(model): rows for model, rows in arm.records[arm.records["threat"] == threat].groupby("model", sort=False)}
        for arm in (baseline, other)
    ]
    try:
        pairs = match_arms(*sides)
    except UserError as error:
        raise UserError(f"{threat}: {error.message}", error.hint) from None
    if len(pairs.sample_ids) < 2:
        raise UserError(f"{threat}: all models answered only 1 sample.", "Evaluate more: raise --limit.")
    left, right = pairs.baseline.astype(float), pairs.candidate.astype(float)
    return pairs, compare_arms(left, right, images=images, alpha=alpha, power=power)
