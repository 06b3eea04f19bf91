"""Which models of which runs are compared, and what has to be carried out before."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from robustbench_twicing.catalog.plans import PlanFile
from robustbench_twicing.errors import UserError, unknown_name
from robustbench_twicing.results.arms import require_arms
from robustbench_twicing.results.of_plans import load_finished, unfinished_plan
from robustbench_twicing.results.run import Run
from robustbench_twicing.results.side import Side
from robustbench_twicing.spec.arms import ArmPatterns

Named = str | Path
"""A run by its folder or its plan; with `run`, the name of one of its models."""


def sides_of(what: Sequence[Named], run: Named | None = None) -> list[tuple[Side, Side]]:
    """Pairs of a baseline and another: as `api.compare` understands what is named. Raises `UserError`."""
    if run is None and len(what) == 2:
        return sides_of_runs([load_finished(place) for place in what])
    place, names = _one_run(what, run)
    one = load_finished(place)
    baseline, *others = (one.side(name) for name in _chosen(names, one.models, one.path))
    return [(baseline, side) for side in others]


def sides_of_runs(runs: Sequence[Run]) -> list[tuple[Side, Side]]:
    """The models of one run beside its first; of several runs the models that each has in common with the first run.

    No pair for one run of one model, nor where a run is not finished or lacks records. Raises `UserError` for a run
    that shares no model with the first.
    """
    if not all(run.is_whole for run in runs):
        return []
    if len(runs) == 1:
        baseline, *others = (runs[0].side(name) for name in runs[0].models)
        return [(baseline, side) for side in others]
    first, called = runs[0], names_of_runs(runs)
    return [
        (first.side(left, f"{left} in {called[0]}"), run.side(right, f"{right} in {name}"))
        for run, name in zip(runs[1:], called[1:], strict=True)
        for left, right in shared_models(first.models, run.models)
    ]


def names_of_runs(runs: Sequence[Run]) -> list[str]:
    """What each of several runs is called: its folder's name, or where another one has that, its whole path."""
    taken = Counter(run.path.name for run in runs)
    return [run.path.name if taken[run.path.name] == 1 else str(run.path) for run in runs]


def still_to_do(*what: Named, run: Named | None = None, arms: ArmPatterns | None = None) -> list[Named]:
    """Of what `api.compare` is given (with `arms`, `api.compare_arms`) the plans whose own runs are not finished yet.

    Raises `UserError` as these would for the other runs and for the names of models: before a plan takes hours.
    """
    plans = {place: unfinished_plan(place) for place in (what if run is None else (run,))}
    if run is None and len(what) == 2:
        shared_models(*(_models(plans[place] or load_finished(place)) for place in what))
    else:
        place, names = _one_run(what, run)
        plan = plans[place]
        if plan and arms is None:
            _chosen(names, _models(plan), place)
        elif plan and arms:
            require_arms(arms, _models(plan))
    return [place for place, plan in plans.items() if plan]


def _one_run(what: Sequence[str | Path], run: str | Path | None) -> tuple[str | Path, list[str]]:
    """The run whose own models are compared, and their names: none for all of them."""
    if run is not None:
        return run, [str(name) for name in what]
    if len(what) != 1:
        raise UserError(f"Cannot compare {len(what)} runs.", "Name two runs, or one run with its models: --run RUN.")
    return what[0], []


def _models(run: Run | PlanFile) -> list[str]:
    return run.models if isinstance(run, Run) else [model.name for model in run.plan.models]


def _chosen(names: Sequence[str], known: Sequence[str], place: str | Path) -> list[str]:
    """At least two models of one run, the baseline first."""
    for name in names:
        if name not in known:
            raise unknown_name("model", name, known)
    chosen = list(dict.fromkeys(names or known))
    if len(chosen) < 2:
        raise UserError(
            f"{place} has nothing to compare {', '.join(chosen) or 'a model'} with; it holds {', '.join(known)}.",
            "Name two of its models, or another run.",
        )
    return chosen


def shared_models(left: Sequence[str], right: Sequence[str]) -> list[tuple[str, str]]:
    """The models that both of two runs have, or the only model of each."""
    pairs = [(name, name) for name in left if name in right]
    if not pairs and len(left) == len(right) == 1:
        pairs = [(left[0], right[0])]
    if not pairs:
        raise UserError(
            f"The runs share no model: {', '.join(left)} | {', '.join(right)}.",
            "Give the models the same name in both, or run them together and compare with --run.",
        )
    return pairs
