"""Run against baseline: pass, regressed or inconclusive, cell by cell, with the reason. No torch.

- **regressed**: the accuracy on the same samples dropped by more than the tolerance, and the drop is significant after
  Holm's correction over all cells (exact McNemar); or the accuracy is below a floor.
- **pass**: a drop as large as the tolerance is ruled out (`metrics.verdict.not_worse_p`).
- **inconclusive**: neither, because there are too few samples, because samples failed, or because a cell vanished.
  Often enough in a row, or if the policy says so, it exits as regressed does.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import pandas as pd

from robustbench_twicing.errors import EXIT_INCONCLUSIVE, EXIT_OK, EXIT_REGRESSED, UserError
from robustbench_twicing.metrics.paired import Flips, count_flips
from robustbench_twicing.metrics.verdict import Comparison, compare, not_worse_p
from robustbench_twicing.results.baselines import Baseline
from robustbench_twicing.results.begun import begun, moment
from robustbench_twicing.results.changes import Change, changes
from robustbench_twicing.results.run import Run, load_finished
from robustbench_twicing.results.side import by_threat, matched, refuse_other_suites
from robustbench_twicing.spec.policy import Policy, fits

Verdict = Literal["pass", "regressed", "inconclusive"]

EXIT_CODES: Mapping[Verdict, int] = {
    "pass": EXIT_OK,
    "regressed": EXIT_REGRESSED,
    "inconclusive": EXIT_INCONCLUSIVE,
}

_LOOK_AHEAD = 1000  # no estimate beyond this many times the samples there are


@dataclass(frozen=True)
class CellResult:
    """One (model, threat) of the run, judged."""

    model: str
    threat: str
    verdict: Verdict
    reason: str
    outcome: Comparison | None
    """Of the run against the baseline; None if no sample was answered on both sides."""
    baseline_accuracy: float | None
    """On the samples that both answered, in [0, 1]."""
    accuracy: float | None


@dataclass(frozen=True)
class GateResult:
    """What a gate says."""

    verdict: Verdict
    cells: tuple[CellResult, ...]
    new: tuple[str, ...]
    """`MODEL:THREAT` of cells that the baseline lacks: of these only the floors are judged."""
    vanished: tuple[str, ...]
    """`MODEL:THREAT` of cells that the run lacks: nobody knows, so the verdict is inconclusive at best."""
    policy: Policy
    nights: int = 0
    """Nights of the plan in a row, this one included, on which the verdict was inconclusive; not counted beyond the
    policy's `inconclusive_nights`."""
    changes: tuple[Change, ...] = ()
    """What the run was made with that the baseline was not."""

    @property
    def escalated(self) -> bool:
        """Whether an inconclusive verdict exits as regressed does."""
        most = self.policy.inconclusive_nights
        strict = self.policy.fail_on == "inconclusive" or (most is not None and self.nights >= most)
        return self.verdict == "inconclusive" and strict

    @property
    def exit_code(self) -> int:
        """What the process tells the shell: 0, 3 or 4."""
        return EXIT_REGRESSED if self.escalated else EXIT_CODES[self.verdict]


def check_run(run: Run, baseline: Baseline, policy: Policy | None = None) -> GateResult:
    """Judge a run against a baseline, by the policy of the run's plan unless another is given.

    If it is inconclusive, the plan's earlier runs in the same folder are judged too, to count how many nights in a row
    are. Raises `UserError` as `check` does, and if a suite of both is judged by other classes or labels.
    """
    policy = policy or run.manifest.gate
    result = _check_one(run, baseline, policy)
    nights = 0
    if result.verdict == "inconclusive":
        nights = 1 + _inconclusive_before(run, baseline, policy)
    return replace(result, nights=nights, changes=changes(baseline.manifest.run, run.manifest))


def _check_one(run: Run, baseline: Baseline, policy: Policy) -> GateResult:
    refuse_other_suites("The run", run.manifest.suites, "the baseline", baseline.manifest.run.suites)
    return check(run.records, baseline.records, policy)


def _inconclusive_before(run: Run, baseline: Baseline, policy: Policy) -> int:
    """How many runs of the same plan just before this one are inconclusive; no more than the policy asks about.

    A run that cannot be judged any more ends the row, as does the one that was accepted.
    """
    if not run.manifest.name or policy.inconclusive_nights is None:
        return 0
    began, accepted = moment(run.manifest), moment(baseline.manifest.run)
    count = 0
    for path, manifest in begun(run.path.absolute().parent):
        if manifest.name != run.manifest.name or not accepted < moment(manifest) < began:
            continue
        if count + 1 >= policy.inconclusive_nights:
            break
        try:
            verdict = _check_one(load_finished(path), baseline, policy).verdict
        except UserError:
            break
        if verdict != "inconclusive":
            break
        count += 1
    return count


def check(records: pd.DataFrame, baseline: pd.DataFrame, policy: Policy) -> GateResult:
    """Judge a run's records against a baseline's. Raises `UserError` if a shared cell was not run alike on both sides,
    if they share none, or if a pattern of the policy fits no cell.
    """
    ours, theirs = _cells(records), _cells(baseline)
    shared = [key for key in ours if key in theirs]
    _refuse_idle_patterns(policy, list(ours))
    if not shared:
        raise UserError(
            f"The run and the baseline share no cell. The run has {_names(list(ours))}; "
            f"the baseline has {_names(list(theirs))}.",
            "Compare runs of the same plan, or accept this run as a baseline of its own.",
        )
    flips = _flips({key: (theirs[key], ours[key]) for key in shared})
    outcomes = dict(zip(flips, compare(list(flips.values()), policy.alpha), strict=True))
    cells = [_judge(*key, theirs[key], ours[key], outcomes.get(key), policy) for key in shared]
    new = {key: ours[key] for key in ours if key not in theirs}
    for (model, threat), frame in new.items():
        below = _below_floor(model, threat, frame, policy)
        cells += [CellResult(model, threat, "regressed", below, None, None, None)] if below else []
    vanished = tuple(f"{model}:{threat}" for model, threat in theirs if (model, threat) not in ours)
    verdicts = {cell.verdict for cell in cells}
    overall: Verdict = "pass"
    if "regressed" in verdicts:
        overall = "regressed"
    elif "inconclusive" in verdicts or vanished:
        overall = "inconclusive"
    return GateResult(
        verdict=overall,
        cells=tuple(cells),
        new=tuple(f"{model}:{threat}" for model, threat in new),
        vanished=vanished,
        policy=policy,
    )


def _judge(
    model: str,
    threat: str,
    baseline: pd.DataFrame,
    records: pd.DataFrame,
    outcome: Comparison | None,
    policy: Policy,
) -> CellResult:
    before = accuracy = None
    if outcome is not None:
        flips = outcome.flips
        before = (flips.both_right + flips.lost) / flips.n
        accuracy = (flips.both_right + flips.gained) / flips.n

    def result(verdict: Verdict, reason: str) -> CellResult:
        return CellResult(model, threat, verdict, reason, outcome, before, accuracy)

    below = _below_floor(model, threat, records, policy)
    if below:
        return result("regressed", below)
    if outcome is None:
        return result("inconclusive", f"no sample was answered on both sides{_first_error(records)}")
    tolerance = policy.tolerance_for(model, threat)
    drop = -outcome.difference
    missing = int((~baseline["sample_id"].isin(records["sample_id"])).sum())
    without = f", {missing} of the baseline's samples are missing" if missing else ""
    change = f"{_points(outcome.difference)} (lost {flips.lost}, gained {flips.gained} of {flips.n}{without})"
    if outcome.verdict == "worse" and drop > tolerance:
        return result(
            "regressed",
            f"{change}, p {outcome.p_holm:.2g} after Holm: more than the tolerance of {_points(tolerance, '')}",
        )
    failed = _newly_failed(baseline, records)
    if failed:
        return result("inconclusive", f"{failed} sample(s) failed that the baseline answered{_first_error(records)}")
    p = not_worse_p(flips, tolerance)
    if p <= policy.alpha:
        within = ", significant but within the tolerance" if outcome.verdict == "worse" else ""
        return result("pass", f"{change}{within}; a drop of {_points(tolerance, '')} is ruled out (p {p:.2g})")
    more = _more_samples(flips, tolerance, policy.alpha)
    return result(
        "inconclusive",
        f"{change}; a drop of {_points(tolerance, '')} cannot be ruled out (p {p:.2g})"
        + (f"; needs about {more:,} more images" if more else ""),
    )


def _below_floor(model: str, threat: str, records: pd.DataFrame, policy: Policy) -> str:
    """Why a cell is below its floor; empty if it is not. About the run alone: all samples that it answered count."""
    floor, ok = policy.floor_for(model, threat), records[records["status"] == "ok"]
    if floor is None or ok.empty or ok["correct"].mean() >= floor:
        return ""
    return f"accuracy {_percent(float(ok['correct'].mean()))} is below its floor of {_percent(floor)}"


def _more_samples(flips: Flips, tolerance: float, alpha: float) -> int | None:
    """About how many more samples would rule the drop out, should the shares of the flips stay as they are.

    None if more of the same would not, or not within 1,000 times the samples.
    """
    if flips.difference <= -tolerance:
        return None
    scale = 1.0
    while scale < _LOOK_AHEAD:
        scale *= 1.05
        if not_worse_p(Flips(*(round(count * scale) for count in flips)), tolerance) <= alpha:
            return round(flips.n * (scale - 1))
    return None


def _flips(
    cells: Mapping[tuple[str, str], tuple[pd.DataFrame, pd.DataFrame]],
) -> dict[tuple[str, str], Flips]:
    """The flips of every cell that both sides answered. Raises one `UserError` for all that were not run alike."""
    flips, refused = {}, []
    for (model, threat), (baseline, records) in cells.items():
        if not all((frame["status"] == "ok").any() for frame in (baseline, records)):
            continue
        try:
            pairs = matched(threat, baseline, records)
        except UserError as error:
            refused.append(error.message)
            continue
        flips[model, threat] = count_flips(pairs.baseline, pairs.candidate)
    if refused:
        raise UserError(
            f"{len(refused)} cell(s) were not run alike in the baseline and in this run.\n" + "\n".join(refused[:5]),
            "Run the plan that the baseline was made with, or accept this run as the new baseline.",
        )
    return flips


def _newly_failed(baseline: pd.DataFrame, records: pd.DataFrame) -> int:
    answered = baseline.loc[baseline["status"] == "ok", "sample_id"]
    return int(records.loc[records["status"] == "failed", "sample_id"].isin(answered).sum())


def _cells(records: pd.DataFrame) -> dict[tuple[str, str], pd.DataFrame]:
    return {
        (str(model), threat): frame
        for model, mine in records.groupby("model", sort=False)
        for threat, frame in by_threat(mine).items()
    }


def _refuse_idle_patterns(policy: Policy, cells: list[tuple[str, str]]) -> None:
    idle = [pattern for pattern in policy.patterns() if not any(fits(pattern, *cell) for cell in cells)]
    if idle:
        raise UserError(
            f"No cell of the run fits {', '.join(map(repr, idle))}.",
            f"Write MODEL:THREAT, with * and ? as in a shell. The run has {_names(cells)}.",
        )


def _names(cells: list[tuple[str, str]]) -> str:
    shown = [f"{model}:{threat}" for model, threat in cells[:6]]
    return ", ".join(shown) + (f" and {len(cells) - 6} more" if len(cells) > 6 else "")


def _first_error(records: pd.DataFrame) -> str:
    if "error" not in records:
        return ""
    errors = records.loc[records["status"] == "failed", "error"]
    return f" ({errors.iloc[0]})" if len(errors) else ""


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


def _points(difference: float, sign: str = "+") -> str:
    return f"{100 * difference:{sign}.1f} points"
