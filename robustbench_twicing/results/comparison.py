"""Models on the same samples, threat by threat, and over whole curves and suites: what `compare` and `gate` show.

Computed from records alone. No torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from robustbench_twicing.errors import UserError
from robustbench_twicing.metrics.accuracy import curve_area, half_accuracy_eps
from robustbench_twicing.metrics.bootstrap import Estimate, bootstrap_mean
from robustbench_twicing.metrics.corruption_error import errors_by_cell, mce, mean_error, relative_mce
from robustbench_twicing.metrics.paired import Pairs, SuitePairs, count_flips, match, match_suite
from robustbench_twicing.metrics.verdict import Comparison
from robustbench_twicing.metrics.verdict import compare as judge_family
from robustbench_twicing.spec.suite import SuiteDefinition
from robustbench_twicing.spec.values import Eps

CLEAN = "clean"


class Side(NamedTuple):
    """One model's records, and what to call it."""

    name: str
    records: pd.DataFrame
    suites: Mapping[str, SuiteDefinition]
    """Those of its run, by the name that the records give them."""


@dataclass(frozen=True, eq=False)
class Row:
    """Two models under one threat."""

    baseline: str
    candidate: str
    threat: str
    pairs: Pairs
    changed: pd.DataFrame
    """The samples that changed sides: sample_id, label, change ("lost" or "gained") and both models' predictions."""
    outcome: Comparison

    @property
    def baseline_accuracy(self) -> float:
        """On the samples that both answered, in [0, 1]."""
        return float(self.pairs.baseline.mean())

    @property
    def candidate_accuracy(self) -> float:
        """On the samples that both answered, in [0, 1]."""
        return float(self.pairs.candidate.mean())


@dataclass(frozen=True, eq=False)
class Curve:
    """Accuracy over eps of two models under one attack, on the samples that both answered at every eps."""

    baseline: str
    candidate: str
    attack: str
    """Attack and norm, such as `pgd-linf`."""
    eps: tuple[str, ...]
    """Ascending; the first is 0, the clean images."""
    n: int
    baseline_accuracies: tuple[float, ...]
    candidate_accuracies: tuple[float, ...]
    baseline_area: float
    """Mean accuracy over the range of eps, see `metrics.accuracy.curve_area`."""
    candidate_area: float
    area_difference: Estimate
    """Candidate minus baseline, paired by image, with a 95 % bootstrap interval."""
    baseline_half: float | None
    """eps at which accuracy has fallen to half of the clean one; None if it never does within the range."""
    candidate_half: float | None


@dataclass(frozen=True, eq=False)
class SuiteMean:
    """One figure over a whole suite of corruptions, for two models on the same images. Lower is better."""

    baseline: str
    candidate: str
    suite: str
    figure: str
    """`mean error` (fraction), `mCE` or `relative mCE` (percent of AlexNet's)."""
    n: int
    baseline_value: float
    candidate_value: float
    difference: Estimate
    """Candidate minus baseline, paired by image, with a 95 % bootstrap interval."""


@dataclass(frozen=True, eq=False)
class Comparisons:
    """Everything that `compare` says."""

    rows: tuple[Row, ...]
    curves: tuple[Curve, ...]
    suites: tuple[SuiteMean, ...]
    one_sided: tuple[str, ...]
    """Threats that only one of two models was evaluated under, each with its model."""
    alpha: float
    power: float


def compare_sides(
    sides: Sequence[tuple[Side, Side]], alpha: float = 0.05, power: float = 0.8, seed: int = 0
) -> Comparisons:
    """Compare each (baseline, candidate) under every threat that both have; all rows are one family for Holm.

    Raises `UserError` if nothing is shared, or if a shared threat was not run alike on both sides (`paired.match`).
    """
    rows, one_sided = _matched_rows(sides)
    if not rows:
        raise UserError("The models share no threat.", "Evaluate both under the same threats. " + "; ".join(one_sided))
    outcomes = judge_family([count_flips(pairs.baseline, pairs.candidate) for *_, pairs, _ in rows], alpha, power)
    curves = [curve for pair in sides for curve in _curves(*pair, seed)]
    suites = [mean for pair in sides for mean in _suite_means(*pair, seed)]
    return Comparisons(
        rows=tuple(Row(*row, outcome) for row, outcome in zip(rows, outcomes, strict=True)),
        curves=tuple(curves),
        suites=tuple(suites),
        one_sided=tuple(one_sided),
        alpha=alpha,
        power=power,
    )


def _matched_rows(
    sides: Sequence[tuple[Side, Side]],
) -> tuple[list[tuple[str, str, str, Pairs, pd.DataFrame]], list[str]]:
    """Every field of a row but the outcome, for every shared threat; and the threats that one side lacks."""
    rows, one_sided = [], []
    for baseline, candidate in sides:
        left, right = by_threat(baseline.records), by_threat(candidate.records)
        refuse_other_suites(baseline.name, baseline.suites, candidate.name, candidate.suites)
        for threat in left:
            if threat in right:
                pairs = matched(threat, left[threat], right[threat])
                changed = _changed(pairs, left[threat], right[threat])
                rows.append((baseline.name, candidate.name, threat, pairs, changed))
        one_sided += [f"{baseline.name} only: {threat}" for threat in left if threat not in right]
        one_sided += [f"{candidate.name} only: {threat}" for threat in right if threat not in left]
    return rows, list(dict.fromkeys(one_sided))


def refuse_other_suites(
    name: str, suites: Mapping[str, SuiteDefinition], other: str, others: Mapping[str, SuiteDefinition]
) -> None:
    """Raise `UserError`, naming both sides, if a suite that both have is judged by other classes or labels."""
    for suite in suites.keys() & others.keys():
        if suites[suite].judges != others[suite].judges:
            raise UserError(
                f"{name} and {other} were not judged alike: the classes or labels of the suite {suite!r} are others.",
                "Its definition was edited between the two; repeat one of them.",
            )


def matched(threat: str, baseline: pd.DataFrame, candidate: pd.DataFrame) -> Pairs:
    """`paired.match` for the records of one threat, which a `UserError` then names."""
    try:
        return match(baseline, candidate)
    except UserError as error:
        raise UserError(f"{threat}: {error.message}", error.hint) from None


def by_threat(records: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The records of one model under each threat, in the order of the records."""
    return {str(threat): group for threat, group in records.groupby("threat", sort=False)}


def _changed(pairs: Pairs, baseline: pd.DataFrame, candidate: pd.DataFrame) -> pd.DataFrame:
    changed = pairs.baseline != pairs.candidate
    found = pd.DataFrame(
        {
            "sample_id": pairs.sample_ids[changed],
            "label": pairs.labels[changed],
            "change": np.where(pairs.baseline[changed], "lost", "gained"),
        }
    )
    for name, records in (("baseline_prediction", baseline), ("candidate_prediction", candidate)):
        predictions = records.set_index("sample_id")["prediction"]
        found[name] = predictions.reindex(found["sample_id"]).to_numpy()
    return found


def _curves(baseline: Side, candidate: Side, seed: int) -> list[Curve]:
    """One curve for each attack with clean samples and at least one eps on both sides."""
    left, right = by_threat(baseline.records), by_threat(candidate.records)
    if CLEAN not in left or CLEAN not in right:
        return []
    families: dict[tuple[str, str], dict[Eps, str]] = {}
    for threat, records in left.items():
        first = records.iloc[0]
        if first["kind"] != "attack" or threat not in right:
            continue
        size = Eps.parse(first["eps"], norm="L2")
        if size > Eps(0):
            attack = threat.removesuffix(f"-{first['eps']}")
            families.setdefault((attack, first["protocol_hash"]), {})[size] = threat
    curves = []
    for (attack, _), threats in families.items():
        sizes = sorted(threats)
        names = [CLEAN, *(threats[size] for size in sizes)]
        both = match_suite({name: left[name] for name in names}, {name: right[name] for name in names})
        if len(both.labels) < 2:  # no interval from one image
            continue
        eps = np.array([0.0, *(float(size) for size in sizes)])
        accuracies = [side.mean(axis=0) for side in (both.baseline, both.candidate)]
        areas = [curve_area(eps, side.astype(float)) for side in (both.baseline, both.candidate)]
        curves.append(
            Curve(
                baseline=baseline.name,
                candidate=candidate.name,
                attack=attack,
                eps=("0", *(str(size) for size in sizes)),
                n=len(both.labels),
                baseline_accuracies=tuple(float(value) for value in accuracies[0]),
                candidate_accuracies=tuple(float(value) for value in accuracies[1]),
                baseline_area=float(areas[0].mean()),
                candidate_area=float(areas[1].mean()),
                area_difference=_paired(areas[0], areas[1], both, seed),
                baseline_half=half_accuracy_eps(eps, accuracies[0]),
                candidate_half=half_accuracy_eps(eps, accuracies[1]),
            )
        )
    return curves


def _suite_means(baseline: Side, candidate: Side, seed: int) -> list[SuiteMean]:
    """Mean error, and with a denominator outside the run mCE and relative mCE, of each suite that is whole."""
    left, right = by_threat(baseline.records), by_threat(candidate.records)
    suites: dict[str, dict[tuple[str, int], str]] = {}
    for threat, records in left.items():
        first = records.iloc[0]
        if first["kind"] == "corruption" and threat in right:
            cells = suites.setdefault(first["suite"], {})
            cells[first["corruption"], int(first["severity"])] = threat
    means = []
    for suite, every in suites.items():
        spec = baseline.suites[suite].spec
        cells = {cell: every[cell] for cell in spec.parts(spec.common) if cell in every}
        if len(cells) < len(spec.parts(spec.common)):
            continue
        over = spec.families, spec.severities
        names = list(cells.values())
        both = match_suite({name: left[name] for name in names}, {name: right[name] for name in names})
        if len(both.labels) < 2:
            continue
        errors = [errors_by_cell(side, list(cells)) for side in (both.baseline, both.candidate)]
        figures = {"mean error": [mean_error(error, *over) for error in errors]}
        yardstick = baseline.suites[suite].denominator
        same = yardstick == candidate.suites[suite].denominator
        if yardstick is not None and same and not yardstick.measured_here:
            figures["mCE"] = [mce(error, yardstick.by_cell, *over) for error in errors]
            clean = _clean_errors(left, right, both)
            if clean is not None and yardstick.clean is not None:
                figures["relative mCE"] = [
                    relative_mce(error, own, yardstick.by_cell, yardstick.clean, *over)
                    for error, own in zip(errors, clean, strict=True)
                ]
        for figure, values in figures.items():
            one, other = (np.asarray(value, dtype=float) for value in values)
            means.append(
                SuiteMean(
                    baseline=baseline.name,
                    candidate=candidate.name,
                    suite=suite,
                    figure=figure,
                    n=len(both.labels),
                    baseline_value=float(one.mean()),
                    candidate_value=float(other.mean()),
                    difference=_paired(one, other, both, seed),
                )
            )
    return means


def _clean_errors(
    left: Mapping[str, pd.DataFrame], right: Mapping[str, pd.DataFrame], both: SuitePairs
) -> list[np.ndarray] | None:
    """Both models' clean errors (0. or 1.) on the suite's images; None unless both answered every one of them."""
    if CLEAN not in left or CLEAN not in right:
        return None
    clean = match(left[CLEAN], right[CLEAN])
    rows = pd.Index(clean.sample_ids).get_indexer(pd.Index(both.sample_ids))
    if (rows < 0).any():
        return None
    return [(~side[rows]).astype(float) for side in (clean.baseline, clean.candidate)]


def _paired(baseline: np.ndarray, candidate: np.ndarray, both: SuitePairs, seed: int) -> Estimate:
    return bootstrap_mean(candidate - baseline, strata=both.labels, seed=seed)
