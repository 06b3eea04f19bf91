"""Mechanisms side by side: arms of training seeds, threat by threat, and over whole curves and suites.

Computed from records alone. No torch.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import NamedTuple

import numpy as np

from robustbench_twicing.errors import UserError
from robustbench_twicing.metrics.arms import ArmsTest, Images, compare_arms
from robustbench_twicing.metrics.paired import ArmPairs
from robustbench_twicing.metrics.verdict import Verdict, check_margin, holm
from robustbench_twicing.results.arm_figures import ArmFigure, compare_figures
from robustbench_twicing.results.arm_slices import ArmOutcomes, ArmSlices, arm_margins, find_arm_slices
from robustbench_twicing.results.arms import Arm, Match, arms_of, matched_arms, shared_threats
from robustbench_twicing.results.family import Outside, outside_family
from robustbench_twicing.results.manifest import Manifest
from robustbench_twicing.results.run import Run
from robustbench_twicing.results.viewed import Viewed, counted
from robustbench_twicing.spec.arms import ArmPatterns
from robustbench_twicing.spec.threats import Threat


@dataclass(frozen=True, eq=False)
class ArmRow:
    """Two arms under one threat."""

    baseline: str
    candidate: str
    threat: str
    n: int
    left_out: int
    """Samples that some model of the arms did not answer."""
    failed: int
    """Those of them that failed for some model, and were skipped or missing for none."""
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
class ArmComparisons(Viewed):
    """What arms say about their mechanisms."""

    arms: tuple[Arm, ...]
    rows: tuple[ArmRow, ...]
    figures: tuple[ArmFigure, ...]
    """Areas under curves over eps, and figures over whole suites; outside the family, since they follow from rows."""
    family: int
    """How many of the rows Holm's correction is over."""
    images: Images
    alpha: float
    power: float
    margin: float | None = None
    """A difference that matters, chosen beforehand, as a fraction: each row then also says whether it is ruled out."""
    elsewhere: bool = False
    """The answers are another tool's predictions."""
    look: Callable[[], ArmSlices] = lambda: ArmSlices((), 0)
    """Finds `slices`."""

    @cached_property
    def slices(self) -> ArmSlices:
        """Where the mechanisms differ, over the rows of the family; looked for when it is first asked for."""
        return self.look()

    def __repr__(self) -> str:
        return f"ArmComparisons({counted(row.verdict for row in self.rows)})"


class _Judged(NamedTuple):
    outcome: ArmsTest
    p_holm: float
    verdict: Verdict


_Outcomes = tuple[np.ndarray, np.ndarray]
"""Both arms' answers: 0 or 1 for each seed and image."""
_Found = list[tuple[Arm, str, ArmPairs]]
"""Of each row the candidate, the threat, and what all models answered."""


def compare_run(run: Run, patterns: ArmPatterns) -> ArmComparisons:
    """As `compare_mechanisms`, of a run that was read."""
    return compare_mechanisms(run.manifest, arms_of(run.cells, patterns))


def compare_mechanisms(
    manifest: Manifest,
    arms: Sequence[Arm],
    *,
    images: Images = "random",
    alpha: float = 0.05,
    margin: float | None = None,
) -> ArmComparisons:
    """Compare arms of a run: under every threat but suites of outliers, to which no answer is right.

    Raises `UserError` as `compare_all`.
    """
    suites, threats = manifest.suites, {threat.id: threat for threat in manifest.plan.threats}
    outliers = {name for name, suite in suites.items() if suite.spec.labels == "outlier"}
    arms = [
        replace(arm, cells={threat: cell for threat, cell in arm.cells.items() if threat not in outliers})
        for arm in arms
    ]
    outside = outside_family(list(threats), threats, suites)
    match = cache(matched_arms)  # rows and figures are about the same
    found = compare_all(arms, images=images, outside=outside, alpha=alpha, margin=margin, match=match)
    figures = tuple(compare_figures(arms, suites, images=images, alpha=alpha, match=match))

    def look() -> ArmSlices:
        baseline, *others = arms
        return find_arm_slices([_outcomes(baseline, other, threats, outside, match) for other in others], images, alpha)

    return replace(found, figures=figures, elsewhere=manifest.origin == "predictions", look=look)


def _outcomes(
    baseline: Arm, other: Arm, threats: Mapping[str, Threat], outside: Mapping[str, Outside], match: Match
) -> ArmOutcomes:
    """What the slices of a pair of arms are made of: the threats of the family."""
    family = [threat for threat in shared_threats(baseline, other) if threat not in outside]
    pairs = {threat: match(baseline, other, threat) for threat in family}
    return ArmOutcomes(baseline.name, other.name, pairs, threats, arm_margins(baseline, other))


def compare_all(
    arms: Sequence[Arm],
    *,
    images: Images = "random",
    outside: Mapping[str, Outside] | None = None,
    alpha: float = 0.05,
    power: float = 0.8,
    margin: float | None = None,
    match: Match = matched_arms,
) -> ArmComparisons:
    """Compare the first arm with each of the others under every threat that all of their models share.

    All rows are one family for Holm's correction, but for the threats `outside` of it, which keep their own p. A row
    that hangs on samples that failed is undecided. Raises `UserError` if arms share no threat, or were not run alike,
    and for what is no margin.
    """
    check_margin(margin)
    baseline, *others = arms
    found = [
        (other, threat, match(baseline, other, threat))
        for other in others
        for threat in _shared_threats(baseline, other)
    ]
    outside = outside or {}
    family = [index for index, (_, threat, _) in enumerate(found) if threat not in outside]

    def judged(outcomes: Iterable[_Outcomes]) -> list[_Judged]:
        tests = [
            compare_arms(one.astype(float), other.astype(float), images=images, alpha=alpha, power=power)
            for one, other in outcomes
        ]
        p = np.array([test.p for test in tests])
        p[family] = holm(p[family])
        return [_Judged(test, float(one), _verdict(test, one, alpha)) for test, one in zip(tests, p, strict=True)]

    judgements = _undecided(found, judged([(pairs.baseline, pairs.candidate) for *_, pairs in found]), judged)
    rows = []
    for (other, threat, pairs), judgement in zip(found, judgements, strict=True):
        rows.append(
            ArmRow(
                baseline=baseline.name,
                candidate=other.name,
                threat=threat,
                n=len(pairs.sample_ids),
                left_out=pairs.left_out,
                failed=pairs.failed.shape[1],
                baseline_accuracies=baseline.means(pairs.baseline),
                candidate_accuracies=other.means(pairs.candidate),
                outcome=judgement.outcome,
                p_holm=judgement.p_holm,
                verdict=judgement.verdict,
                outside=outside.get(threat),
            )
        )
    return ArmComparisons(tuple(arms), tuple(rows), (), len(family), images, alpha, power, margin)


def _undecided(
    found: _Found, judged: list[_Judged], judge: Callable[[Iterable[_Outcomes]], list[_Judged]]
) -> list[_Judged]:
    """The same, but undecided what failures would turn, counted all against the candidate or all in its favour."""
    failed = [pairs.failed.size > 0 for *_, pairs in found]
    if not any(failed):
        return judged
    for in_favour in (False, True):
        extreme = judge(pairs.with_failures(in_favour) for *_, pairs in found)
        judged = [
            one._replace(verdict="undecided") if lost and one.verdict != other.verdict else one
            for one, other, lost in zip(judged, extreme, failed, strict=True)
        ]
    return judged


def _verdict(test: ArmsTest, p: float, alpha: float) -> Verdict:
    if p > alpha:
        return "no difference found"
    return "better" if test.difference > 0 else "worse"


def _shared_threats(baseline: Arm, other: Arm) -> list[str]:
    shared = shared_threats(baseline, other)
    if not shared:
        raise UserError(
            f"The models of {baseline.name} and {other.name} share no threat.", "Evaluate all under the same threats."
        )
    return shared
