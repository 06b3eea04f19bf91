"""Run against baseline: pass, regressed or inconclusive, cell by cell, with the reason. No torch.

- **regressed**: that the accuracy on the same samples dropped by no more than the tolerance, or that it reaches its
  floor, is rejected after Holm's correction over all drops and floors.
- **pass**: a drop as large as the tolerance is rejected.
- **inconclusive**: neither, because there are too few samples, because samples failed or are not there, or because a
  cell vanished or is new. Often enough in a row, or if the policy says so, it exits as regressed does.

Both tests are exact for models (`metrics.drops`). An arm of training seeds is judged by `metrics.arms`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from robustbench_twicing.errors import EXIT_INCONCLUSIVE, EXIT_OK, EXIT_REGRESSED, UserError
from robustbench_twicing.results.baselines import Baseline
from robustbench_twicing.results.begun import begun, moment
from robustbench_twicing.results.cells import Cells, by_cell
from robustbench_twicing.results.changes import Change, changes
from robustbench_twicing.results.gate_arms import cells_of, with_training
from robustbench_twicing.results.gate_cells import Cell, CellResult, Verdict, judge
from robustbench_twicing.results.of_task import tables_of
from robustbench_twicing.results.run import Run, load_finished
from robustbench_twicing.results.side import refuse_other_suites
from robustbench_twicing.spec.arms import ArmPatterns
from robustbench_twicing.spec.policy import Policy, fits, wrong_alpha

EXIT_CODES: Mapping[Verdict, int] = {
    "pass": EXIT_OK,
    "regressed": EXIT_REGRESSED,
    "inconclusive": EXIT_INCONCLUSIVE,
}


@dataclass(frozen=True)
class GateResult:
    """What a gate says."""

    verdict: Verdict
    cells: tuple[CellResult, ...]
    new: tuple[str, ...]
    """`MODEL:THREAT` of cells that the baseline lacks: of these only the floors are judged, and unless the policy lets
    them pass the verdict is inconclusive at best."""
    vanished: tuple[str, ...]
    """`MODEL:THREAT` of cells that the run lacks: nobody knows, so the verdict is inconclusive at best."""
    policy: Policy
    nights: int = 0
    """Nights of the plan in a row, this one included, on which the verdict was inconclusive; not counted beyond the
    policy's `inconclusive_nights`."""
    elsewhere: tuple[str, ...] = ()
    """Which of the run and the baseline are another tool's predictions."""
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


def check_run(
    run: Run, baseline: Baseline, policy: Policy | None = None, arms: ArmPatterns | None = None
) -> GateResult:
    """Judge a run against a baseline, by the policy and the arms of the run's plan unless others are given.

    An arm stands for its models on both sides; without any, every model is judged by itself.

    If it is inconclusive, the plan's earlier runs in the same folder are judged too, to count how many nights in a row
    are. Raises `UserError` as `check` does, and if a suite of both is judged by other classes or labels.
    """
    if run.manifest.plan.task != baseline.manifest.run.plan.task:
        raise UserError(
            "One of the run and the baseline is over a text, the other over images.", "Judge two of a kind."
        )
    policy = policy or run.manifest.gate
    arms = run.manifest.arms if arms is None else arms
    result = _check_one(run, baseline, policy, arms)
    nights = 0
    if result.verdict == "inconclusive":
        nights = 1 + _inconclusive_before(run, baseline, policy, arms)
    sides = {"the run": run.manifest, "the baseline": baseline.manifest.run}
    elsewhere = tuple(side for side, manifest in sides.items() if manifest.origin == "predictions")
    found = changes(baseline.manifest.run, run.manifest)
    return replace(result, nights=nights, elsewhere=elsewhere, changes=found)


def _check_one(run: Run, baseline: Baseline, policy: Policy, arms: ArmPatterns) -> GateResult:
    refuse_other_suites("The run", run.manifest.suites, "the baseline", baseline.manifest.run.suites)
    theirs = with_training(baseline.records, baseline.manifest.run.models)
    return check(run.cells, by_cell(theirs), policy, arms, tables_of(run.manifest).judge)


def _inconclusive_before(run: Run, baseline: Baseline, policy: Policy, arms: ArmPatterns) -> int:
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
            verdict = _check_one(load_finished(path), baseline, policy, arms).verdict
        except UserError:
            break
        if verdict != "inconclusive":
            break
        count += 1
    return count


def check(
    records: Cells,
    baseline: Cells,
    policy: Policy,
    arms: ArmPatterns = MappingProxyType({}),
    judged_by: Callable[[Sequence[Cell], Policy], list[CellResult]] = judge,
) -> GateResult:
    """Judge a run's records against a baseline's. Raises `UserError` if a shared cell was not run alike on both sides,
    if they share none, if a pattern of the policy fits no cell, or if `arms` are none on some side.
    """
    if error := wrong_alpha(policy):
        raise error
    ours, theirs = cells_of("The run", records, arms), cells_of("The baseline", baseline, arms)
    shared = [key for key in ours if key in theirs]
    _refuse_idle_patterns(policy, list(ours))
    if not shared:
        raise UserError(
            f"The run and the baseline share no cell. The run has {_names(list(ours))}; "
            f"the baseline has {_names(list(theirs))}.",
            "Compare runs of the same plan, or accept this run as a baseline of its own.",
        )
    new = [key for key in ours if key not in theirs]
    cells = [Cell(*key, ours[key], theirs.get(key), key[0] in arms) for key in [*shared, *new]]
    judged = judged_by(cells, policy)
    vanished = tuple(f"{model}:{threat}" for model, threat in theirs if (model, threat) not in ours)
    verdicts = {cell.verdict for cell in judged}
    overall: Verdict = "pass"
    if "regressed" in verdicts:
        overall = "regressed"
    elif "inconclusive" in verdicts or vanished or (new and policy.new == "inconclusive"):
        overall = "inconclusive"
    return GateResult(
        verdict=overall,
        cells=tuple(judged),
        new=tuple(f"{model}:{threat}" for model, threat in new),
        vanished=vanished,
        policy=policy,
    )


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
