"""What there is to compare in runs that were read: mechanisms where a run has arms, else models. No torch."""

from collections.abc import Sequence

from robustbench_twicing.results.arm_comparison import ArmComparisons, compare_run
from robustbench_twicing.results.comparison import Comparisons, compare_sides
from robustbench_twicing.results.run import Run
from robustbench_twicing.results.sides import sides_of_runs


def compared_runs(runs: Sequence[Run]) -> Comparisons | ArmComparisons | None:
    """Of one run its mechanisms, or its models; of several what they share with the first.

    None for a single model, and for runs that are not finished or lack records. Raises `UserError` for what cannot be
    compared.
    """
    if len(runs) == 1 and runs[0].is_whole and runs[0].manifest.arms:
        return compare_run(runs[0], runs[0].manifest.arms)
    sides = sides_of_runs(runs)
    return compare_sides(sides) if sides else None
