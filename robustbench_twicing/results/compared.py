"""What there is to compare in runs that were read: mechanisms where a run has arms, else models. No torch."""

from collections.abc import Sequence
from contextlib import suppress

from robustbench_twicing.errors import UserError
from robustbench_twicing.metrics.arms import FEWEST_SEEDS
from robustbench_twicing.results.arm_comparison import ArmComparisons, compare_run
from robustbench_twicing.results.comparison import Comparisons, compare_sides
from robustbench_twicing.results.run import Run
from robustbench_twicing.results.sides import sides_of_runs
from robustbench_twicing.spec.arms import arms_in_names


def compared_runs(runs: Sequence[Run]) -> Comparisons | ArmComparisons | None:
    """Of one run its mechanisms, or its models; of several what they share with the first.

    None for a single model, and for runs that are not finished or lack records. Raises `UserError` for what cannot be
    compared; arms that only names make (`arms_in_names`) are then compared as models.
    """
    if len(runs) == 1 and runs[0].is_whole:
        run = runs[0]
        if run.manifest.arms:
            return compare_run(run, run.manifest.arms)
        if arms := arms_in_names(run.models, FEWEST_SEEDS):
            with suppress(UserError):
                return compare_run(run, arms)
    sides = sides_of_runs(runs)
    return compare_sides(sides) if sides else None
