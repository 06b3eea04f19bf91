"""Models on the same samples, threat by threat, and over whole curves and suites: what `compare` and `gate` show.

Computed from records alone. No torch.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd

from robustbench_twicing.errors import UserError
from robustbench_twicing.metrics.accuracy import curve_area, half_accuracy_eps
from robustbench_twicing.metrics.intervals import Estimate, mean_interval
from robustbench_twicing.metrics.paired import Pairs, draws_differ, match_suite
from robustbench_twicing.metrics.verdict import Comparison, Verdict, check_margin
from robustbench_twicing.results.cells import two_at_once
from robustbench_twicing.results.eps_curves import EpsCurve, eps_curves
from robustbench_twicing.results.family import Key, Outside, judge_pairs, outside_family
from robustbench_twicing.results.side import Side, matched, refuse_other_suites
from robustbench_twicing.results.slices import NOT_ASKED, Outcomes, Slices, clean_margins, find_slices
from robustbench_twicing.results.suite_comparison import SuiteFigure, compare_suites
from robustbench_twicing.results.viewed import Viewed, counted


@dataclass(frozen=True, eq=False)
class Row:
    """Two models under one threat."""

    baseline: str
    candidate: str
    threat: str
    pairs: Pairs
    records: tuple[pd.DataFrame, pd.DataFrame]
    """Of both models."""
    outcome: Comparison
    outside: Outside | None
    """Why the row is not in the family of hypotheses that Holm's correction counts; None if it is."""

    @cached_property
    def changed(self) -> pd.DataFrame:
        """What changed sides: sample_id, label, change ("lost" or "gained") and both models' predictions."""
        return _changed(self.pairs, *self.records)

    @property
    def baseline_accuracy(self) -> float:
        """On the samples that both answered, in [0, 1]."""
        return float(self.pairs.baseline.mean())

    @property
    def candidate_accuracy(self) -> float:
        """On the samples that both answered, in [0, 1]."""
        return float(self.pairs.candidate.mean())

    @property
    def verdict(self) -> Verdict:
        """Of the candidate."""
        return self.outcome.verdict


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
    """Candidate minus baseline, paired by image, with its interval at level 1 - alpha."""
    baseline_half: float | None
    """eps at which accuracy has fallen to half of the clean one; None if it never does within the range."""
    candidate_half: float | None


@dataclass(frozen=True, eq=False)
class Comparisons(Viewed):
    """Everything that `compare` says."""

    rows: tuple[Row, ...]
    curves: tuple[Curve, ...]
    suites: tuple[SuiteFigure, ...]
    not_compared: tuple[str, ...]
    """Threats that only one of two models was evaluated under, each with its model; and what else was left out."""
    alpha: float
    power: float
    margin: float | None = None
    """A difference that matters, chosen beforehand, as a fraction: each row then says whether it is ruled out."""
    sequential: bool = False
    """Verdicts, p and intervals of rows hold over all looks together."""
    by_max_t: bool = False
    """p of the family are those of `metrics.max_t`, and not Holm's."""
    elsewhere: tuple[str, ...] = ()
    """Models that are known only by another tool's predictions."""
    look: Callable[[], Slices] = lambda: NOT_ASKED
    """Finds `slices`."""

    @cached_property
    def slices(self) -> Slices:
        """Where the models differ, over the rows of the family; looked for when it is first asked for.

        None with `sequential`, since the test is of one look.
        """
        return self.look()

    def __repr__(self) -> str:
        return f"Comparisons({counted(row.verdict for row in self.rows)})"

    @property
    def family(self) -> int:
        """Rows that Holm's correction counts."""
        return sum(row.outside is None for row in self.rows)


def compare_sides(
    sides: Sequence[tuple[Side, Side]],
    alpha: float = 0.05,
    power: float = 0.8,
    margin: float | None = None,
    sequential: bool = False,
    by_max_t: bool = False,
) -> Comparisons:
    """Compare each (baseline, candidate) under every threat that both have; the rows of `family` are one for Holm.

    A suite of outliers, to which no answer is right, has no row; its own figures are compared. Raises `UserError` if
    nothing is shared, if a shared threat was not run alike on both sides (`paired.match`), and for what is no margin.
    """
    check_margin(margin)
    if sequential and by_max_t:
        raise UserError("max-T is for one look at the data.", "Leave max_t or until_decided away.")
    matches, not_compared = _matches(sides)
    outside = {match.key: match.outside for match in matches if match.outside}
    pairs = {match.key: match.pairs for match in matches}
    outcomes = judge_pairs(pairs, outside, alpha, power, sequential=sequential, by_max_t=by_max_t)
    same = {match.key for match in matches if match.outside and match.outside.why == "draws"}
    outcomes |= {key: outcomes[key]._replace(verdict="same weights") for key in same}
    compared = two_at_once(lambda pair: compare_suites(*pair, alpha), sides)
    suites = [figure for of_pair in compared for figure in of_pair]
    if not matches and not suites:
        hint = "Evaluate both under the same threats. " + "; ".join(not_compared)
        raise UserError("The models share no threat by which they can be compared.", hint)
    curves = [curve for pair in sides for curve in _curves(*pair, alpha)]
    return Comparisons(
        rows=tuple(Row(*match[:5], outcomes[match.key], match.outside) for match in matches),
        curves=tuple(curves),
        suites=tuple(suites),
        not_compared=tuple(not_compared),
        alpha=alpha,
        power=power,
        margin=margin,
        sequential=sequential,
        by_max_t=by_max_t,
        elsewhere=tuple(dict.fromkeys(side.name for pair in sides for side in pair if side.elsewhere)),
        look=lambda: NOT_ASKED if sequential else find_slices(list(_outcomes(sides, matches)), alpha),
    )


class _Match(NamedTuple):
    """A row without its outcome."""

    baseline: str
    candidate: str
    threat: str
    pairs: Pairs
    records: tuple[pd.DataFrame, pd.DataFrame]
    outside: Outside | None

    @property
    def key(self) -> Key:
        return self.baseline, self.candidate, self.threat


def _outcomes(sides: Sequence[tuple[Side, Side]], matches: Sequence[_Match]) -> Iterator[Outcomes]:
    """What each pair's slices are made of: the threats of the family."""
    for baseline, candidate in sides:
        of_pair = [match for match in matches if match.key[:2] == (baseline.name, candidate.name)]
        pairs = {match.threat: match.pairs for match in of_pair if match.outside is None}
        if pairs:
            margins = clean_margins(baseline, candidate)
            yield Outcomes(baseline.name, candidate.name, pairs, baseline.threats, margins)


def _matches(sides: Sequence[tuple[Side, Side]]) -> tuple[list[_Match], list[str]]:
    """Every threat that both sides have and that has an accuracy; and what is not compared."""
    found, not_compared = [], []
    for baseline, candidate in sides:
        left, right = baseline.cells, candidate.cells
        refuse_other_suites(baseline.name, baseline.suites, candidate.name, candidate.suites)
        shared = [threat for threat in left if threat in right]
        outliers = [threat for threat in shared if baseline.has_outliers(threat)]
        shared = [threat for threat in shared if threat not in outliers]
        outside = outside_family(shared, baseline.threats, baseline.suites)
        records = {threat: (left[threat], right[threat]) for threat in shared}
        aligned = two_at_once(lambda item: matched(item[0], *item[1]), list(records.items()))
        for (threat, both), pairs in zip(records.items(), aligned, strict=True):
            if draws_differ(*both):
                outside[threat] = Outside("draws")
            found.append(_Match(baseline.name, candidate.name, threat, pairs, both, outside.get(threat)))
        not_compared += [f"{baseline.name} only: {threat}" for threat in left if threat not in right]
        not_compared += [f"{candidate.name} only: {threat}" for threat in right if threat not in left]
        not_compared += [
            f"{threat}: no answer to an outlier is right, and there is no clean[{threat}] to tell outliers from"
            for threat in outliers
            if f"clean[{threat}]" not in shared
        ]
    return found, list(dict.fromkeys(not_compared))


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


def _curves(baseline: Side, candidate: Side, alpha: float) -> list[Curve]:
    """One curve for each attack with clean samples and at least one eps on both sides."""
    left, right = baseline.cells, candidate.cells
    return [
        curve
        for over in eps_curves({name: records.iloc[0] for name, records in left.items() if name in right})
        if (curve := _curve(baseline.name, candidate.name, over, left, right, alpha))
    ]


def _curve(
    baseline: str,
    candidate: str,
    over: EpsCurve,
    left: Mapping[str, pd.DataFrame],
    right: Mapping[str, pd.DataFrame],
    alpha: float,
) -> Curve | None:
    """None from one image: there is no interval."""
    both = match_suite(*({name: side[name] for name in over.threats} for side in (left, right)), draws=True)
    if len(both.labels) < 2:
        return None
    eps = np.array([float(size) for size in over.eps])
    accuracies = [side.mean(axis=0) for side in (both.baseline, both.candidate)]
    areas = [curve_area(eps, side.astype(float)) for side in (both.baseline, both.candidate)]
    change = areas[1] - areas[0]
    return Curve(
        baseline=baseline,
        candidate=candidate,
        attack=over.attack,
        eps=tuple(map(str, over.eps)),
        n=len(both.labels),
        baseline_accuracies=tuple(float(value) for value in accuracies[0]),
        candidate_accuracies=tuple(float(value) for value in accuracies[1]),
        baseline_area=float(areas[0].mean()),
        candidate_area=float(areas[1].mean()),
        area_difference=Estimate(float(change.mean()), mean_interval(change, (-1.0, 1.0), 1 - alpha)),
        baseline_half=half_accuracy_eps(eps, accuracies[0]),
        candidate_half=half_accuracy_eps(eps, accuracies[1]),
    )
