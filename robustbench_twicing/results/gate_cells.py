"""One cell of a gate: what its samples say about a drop and a floor, and the verdict with its reason. No torch.

A cell is one model, or one arm of training seeds, under one threat.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import bdtr

from robustbench_twicing.errors import UserError
from robustbench_twicing.metrics.arms import ArmsTest, compare_arms, margin_p, one_sided
from robustbench_twicing.metrics.drops import exceeded_p, fewest_samples, ruled_out_p
from robustbench_twicing.metrics.intervals import Interval, paired_difference_interval
from robustbench_twicing.metrics.paired import Flips, count_flips, match, match_arms
from robustbench_twicing.metrics.verdict import holm
from robustbench_twicing.spec.policy import Policy

Verdict = Literal["pass", "regressed", "inconclusive"]

Frames = Mapping[str, pd.DataFrame]
"""The records of one threat, by model."""

_POWER = 0.8


@dataclass(frozen=True, eq=False)
class Cell:
    """The records of one model or arm under one threat, tonight and in the baseline."""

    model: str
    """Name of the model, or of the arm."""
    threat: str
    tonight: Frames
    baseline: Frames | None
    """None of a cell that the baseline lacks."""
    is_arm: bool = False

    @property
    def key(self) -> tuple[str, str]:
        return self.model, self.threat

    @cached_property
    def answered(self) -> set[str]:
        """The samples that every model answered tonight."""
        return _answered_ids(self.tonight)

    @cached_property
    def answered_before(self) -> set[str]:
        """Those that every model answered in the baseline; none of a cell that it lacks."""
        return _answered_ids(self.baseline) if self.baseline is not None else set()


class Answers(NamedTuple):
    """What the samples say that both sides answered."""

    n: int
    baseline_accuracy: float
    """In [0, 1]; of an arm the mean over its seeds."""
    accuracy: float
    interval: Interval
    """Of the difference, tonight minus baseline, at level 1 - alpha, for this cell alone."""
    p_exceeded: float
    """One-sided p of "the drop is the tolerance at most", before any correction."""
    p_ruled_out: float
    """One-sided p of "the drop is the tolerance or more"."""
    flips: Flips | None = None
    """Of a model."""
    arms: ArmsTest | None = None
    """Of an arm; its difference is that from the baseline less the tolerance."""
    seeds: tuple[int, int] = (1, 1)
    """Models in the baseline and tonight."""

    @property
    def difference(self) -> float:
        """Accuracy tonight minus that of the baseline."""
        return self.accuracy - self.baseline_accuracy

    @property
    def worse(self) -> bool:
        """The interval has drops alone."""
        return self.interval.high < 0


class TextAnswers(NamedTuple):
    """The same of a text, whose measure is bits per byte: more of them are worse."""

    n: int
    """Documents."""
    baseline_bits: float
    """Bits per byte; of an arm the mean over its seeds."""
    bits: float
    interval: Interval
    p_exceeded: float
    """One-sided p of "the rise is the tolerance at most", before any correction."""
    p_ruled_out: float
    """One-sided p of "the rise is the tolerance or more"."""
    seeds: tuple[int, int] = (1, 1)

    @property
    def difference(self) -> float:
        """Bits per byte tonight minus those of the baseline."""
        return self.bits - self.baseline_bits

    @property
    def worse(self) -> bool:
        """The interval has rises alone."""
        return self.interval.low > 0


class Floor(NamedTuple):
    """What tonight's samples say about a floor."""

    least: float
    accuracy: float
    """On all samples that tonight answered."""
    p: float
    """One-sided p of "the accuracy reaches its floor"."""


@dataclass(frozen=True)
class CellResult:
    """One cell, judged."""

    model: str
    threat: str
    verdict: Verdict
    reason: str
    answers: Answers | TextAnswers | None = None
    """None if no sample was answered on both sides, or the baseline lacks the cell."""
    p_regressed: float | None = None
    """`p_exceeded` after Holm's correction over all drops and floors of the run."""


class Measure(NamedTuple):
    """What the samples of a task are judged by."""

    answers: Callable[[Cell, Policy], Any]
    """`Answers` or `TextAnswers`; None where the sides share no answer."""
    floor: Callable[[Cell, Policy], Floor | None]
    change: Callable[[Any], str]
    """How the answers changed, in words."""
    amount: Callable[[float], str]
    """A tolerance, in words."""
    worsening: str
    """What a tolerance is one of."""
    advice: Callable[[Any, float, Policy], str]
    """What it would take to pass; empty if nobody can say."""


def judge(cells: Sequence[Cell], policy: Policy, by: Measure | None = None) -> list[CellResult]:
    """The verdict on every cell, in their order; of new cells only on those that are below their floor.

    `by` left out: by right and wrong answers. Raises `UserError` for a cell that was not run alike on both sides.
    """
    by = by or ACCURACY
    answers = _all_answers(cells, policy, by)
    floors = [by.floor(cell, policy) for cell in cells]
    family = {("drop", i): found.p_exceeded for i, found in enumerate(answers) if found}
    family |= {("floor", i): found.p for i, found in enumerate(floors) if found}
    adjusted = dict(zip(family, holm(np.array(list(family.values()))).tolist(), strict=True))
    results = []
    for i, (cell, found, floor) in enumerate(zip(cells, answers, floors, strict=True)):
        p, p_floor = adjusted.get(("drop", i)), adjusted.get(("floor", i))
        said = _below_its_floor(floor, p_floor, policy) or _regressed(
            found, p, policy.tolerance_for(*cell.key), by, policy
        )
        if said:
            results.append(CellResult(cell.model, cell.threat, "regressed", said, found, p))
        elif cell.baseline is not None:
            verdict, said = _not_regressed(cell, found, floor, policy, by)
            results.append(CellResult(cell.model, cell.threat, verdict, said, found, p))
        elif floor and floor.accuracy < floor.least:
            results.append(CellResult(cell.model, cell.threat, "inconclusive", _near(floor)))
    return results


def _below_its_floor(floor: Floor | None, p: float | None, policy: Policy) -> str:
    """Why the cell is regressed; empty if it is not."""
    shown = floor and p is not None and p <= policy.alpha
    return f"{_below(floor)} (p {p:.2g} after Holm)" if floor and shown else ""


def _regressed(answers: Any, p: float | None, tolerance: float, by: Measure, policy: Policy) -> str:
    """Likewise, of what changed."""
    if not answers or p is None or p > policy.alpha:
        return ""
    beyond = f"a {by.worsening} beyond the tolerance of {by.amount(tolerance)}"
    return f"{by.change(answers)}: {beyond} (p {p:.2g} after Holm)"


def _not_regressed(cell: Cell, answers: Any, floor: Floor | None, policy: Policy, by: Measure) -> tuple[Verdict, str]:
    if answers is None:
        return "inconclusive", f"no sample was answered on both sides{_first_error(cell.tonight)}"
    lacking = _lacking(cell)
    if lacking.failed:
        error = _first_error(cell.tonight)
        return "inconclusive", f"{lacking.failed} sample(s) failed that the baseline answered{error}"
    without = ""
    if lacking.missing or lacking.skipped:
        counts = {"missing": lacking.missing, "skipped": lacking.skipped}
        listed = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        without = f"of the baseline's {lacking.of} samples {listed}"
        if lacking.missing + lacking.skipped > policy.missing * lacking.of:
            return "inconclusive", f"{without}: no verdict on the rest ({by.change(answers)})"
        without = f"; {without}, which the policy allows"
    if floor and floor.accuracy < floor.least:
        return "inconclusive", _near(floor)
    tolerance, p = policy.tolerance_for(*cell.key), answers.p_ruled_out
    change, much = f"{by.change(answers)}{without}", f"a {by.worsening} of {by.amount(tolerance)}"
    if p <= policy.alpha:
        within = f", a {by.worsening} within the tolerance" if answers.worse else ""
        return "pass", f"{change}{within}; {much} is ruled out (p {p:.2g})"
    return "inconclusive", f"{change}; {much} cannot be ruled out (p {p:.2g}){by.advice(answers, tolerance, policy)}"


def _advice(answers: Answers, tolerance: float, policy: Policy) -> str:
    """What it would take to pass; empty if nobody can say."""
    fewest = fewest_samples(tolerance, policy.alpha)
    if answers.n < fewest:
        return f": {answers.n} images cannot pass even if no answer changes, it takes {fewest:,}"
    if answers.flips is None:
        share = answers.arms.seed_share if answers.arms else 0.0
        return f"; {share:.0%} of the uncertainty is training seeds" if share > 0 else ""
    reach = NormalDist().inv_cdf(1 - policy.alpha) + NormalDist().inv_cdf(_POWER)
    needed = round(answers.flips.discordance * (reach / tolerance) ** 2)
    return f"; if nothing dropped, about {needed:,} images would show it" if needed > answers.n else ""


# --- the tests -------------------------------------------------------------------------------------------------------


def _all_answers(cells: Sequence[Cell], policy: Policy, by: Measure) -> list[Any]:
    """Raises one `UserError` for all cells that were not run alike in the baseline and in the run."""
    found, refused = [], []
    for cell in cells:
        try:
            found.append(by.answers(cell, policy))
        except UserError as error:
            refused.append(f"{cell.threat}: {error.message}")
    if refused:
        raise UserError(
            f"{len(refused)} cell(s) were not run alike in the baseline and in this run.\n" + "\n".join(refused[:5]),
            "Run the plan that the baseline was made with, or accept this run as the new baseline.",
        )
    return found


def _answers(cell: Cell, policy: Policy) -> Answers | None:
    """None where the sides share no answer; an arm needs two to be tested."""
    if cell.baseline is None or len(cell.answered_before & cell.answered) < 1 + cell.is_arm:
        return None
    tolerance = policy.tolerance_for(cell.model, cell.threat)
    if cell.is_arm:
        return _of_arm(cell.baseline, cell.tonight, tolerance, policy.alpha)
    (before,), (now,) = cell.baseline.values(), cell.tonight.values()
    pairs = match(before, now)
    flips = count_flips(pairs.baseline, pairs.candidate)
    changed = (flips.lost, flips.gained, flips.n)
    return Answers(
        n=flips.n,
        baseline_accuracy=float(pairs.baseline.mean()),
        accuracy=float(pairs.candidate.mean()),
        interval=paired_difference_interval(*changed, 1 - policy.alpha),
        p_exceeded=exceeded_p(*changed, tolerance),
        p_ruled_out=ruled_out_p(*changed, tolerance),
        flips=flips,
    )


def _of_arm(baseline: Frames, tonight: Frames, tolerance: float, alpha: float) -> Answers:
    sides = [
        {f"{when} {name}": frame for name, frame in side.items()}
        for when, side in (("baseline", baseline), ("tonight", tonight))
    ]
    pairs = match_arms(*sides)
    before, now = pairs.baseline.astype(float), pairs.candidate.astype(float)
    test = compare_arms(before, now, alpha=alpha)
    return Answers(
        n=now.shape[1],
        baseline_accuracy=float(before.mean()),
        accuracy=float(now.mean()),
        interval=test.interval,
        p_exceeded=one_sided(test, -tolerance)[0],
        p_ruled_out=margin_p(test, tolerance, now.shape[1])[0],
        arms=test,
        seeds=(len(before), len(now)),
    )


def _floor(cell: Cell, policy: Policy) -> Floor | None:
    least = policy.floor_for(cell.model, cell.threat)
    if least is None or len(cell.answered) < 1 + cell.is_arm:
        return None
    if cell.is_arm:
        right = _right(cell.tonight)
        seeds, n = right.shape
        # One row more than the arm has, all alike: then only the arm's seeds count, with one degree of freedom less.
        test = compare_arms(np.full((seeds + 1, n), least), right)
        return Floor(least, float(right.mean()), one_sided(test)[0])
    (frame,) = cell.tonight.values()
    right = frame.loc[frame["status"] == "ok", "correct"].to_numpy(dtype=bool)
    return Floor(least, float(right.mean()), float(bdtr(int(right.sum()), len(right), least)))


def _right(frames: Frames) -> np.ndarray:
    """1 and 0 for right and wrong, seeds × samples, of the samples that all models answered."""
    columns = {name: frame[frame["status"] == "ok"].set_index("sample_id")["correct"] for name, frame in frames.items()}
    return pd.concat(columns, axis=1, join="inner").to_numpy(dtype=float).T


# --- samples without an answer ---------------------------------------------------------------------------------------


class _Lacking(NamedTuple):
    """Samples that the baseline answered and tonight did not."""

    of: int
    """That the baseline answered."""
    failed: int
    skipped: int
    missing: int


def _answered_ids(frames: Frames) -> set[str]:
    return set.intersection(*(set(frame.loc[frame["status"] == "ok", "sample_id"]) for frame in frames.values()))


def _lacking(cell: Cell) -> _Lacking:
    without = cell.answered_before - cell.answered
    failed = without & _ids(cell.tonight, "failed")
    skipped = (without & _ids(cell.tonight, "skipped")) - failed
    return _Lacking(len(cell.answered_before), len(failed), len(skipped), len(without) - len(failed) - len(skipped))


def _ids(frames: Frames, status: str) -> set[str]:
    """Of samples that have this status with some model."""
    return {name for frame in frames.values() for name in frame.loc[frame["status"] == status, "sample_id"]}


def _first_error(frames: Frames) -> str:
    for frame in frames.values():
        for error in frame.loc[frame["status"] == "failed", "error"] if "error" in frame else ():
            return f" ({error})"
    return ""


# --- words -----------------------------------------------------------------------------------------------------------


def _change(answers: Answers) -> str:
    difference = _points(answers.difference)
    if answers.flips is None:
        before, now = answers.seeds
        return f"{difference} ({before} and {now} seeds, {answers.n} images)"
    flips = answers.flips
    return f"{difference} (lost {flips.lost}, gained {flips.gained} of {flips.n})"


def _below(floor: Floor) -> str:
    return f"accuracy {_percent(floor.accuracy)} is below its floor of {_percent(floor.least)}"


def _near(floor: Floor) -> str:
    return f"{_below(floor)}, but so near that chance may have done it (p {floor.p:.2g} alone)"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


def _points(difference: float, sign: str = "+") -> str:
    return f"{100 * difference:{sign}.1f} points"


def _tolerated(drop: float) -> str:
    return _points(drop, "")


ACCURACY = Measure(_answers, _floor, _change, _tolerated, "drop", _advice)
"""Right and wrong answers of images."""
