"""Cells of a plan that its gate can never pass, told before anything is computed."""

from collections.abc import Iterator

from robustbench_twicing.catalog.suites import suite
from robustbench_twicing.metrics.drops import fewest_samples
from robustbench_twicing.spec.arms import ArmPatterns, members
from robustbench_twicing.spec.plan import EMBEDDED, EMBEDDED_IMAGES, Plan
from robustbench_twicing.spec.policy import Policy
from robustbench_twicing.spec.threats import Threat

_SHOWN = 6
_UNKNOWN = 10**9
"""Images of a data set that does not say how many it has: the plan's limit decides."""


def judged_names(plan: Plan, arms: ArmPatterns) -> list[str]:
    """What the gate's cells are called after: the arms, and the models that are in none."""
    models = [model.name for model in plan.models]
    taken = {model for patterns in arms.values() for model in members(patterns, models)}
    return [*arms, *(model for model in models if model not in taken)]


def never_passing(plan: Plan, gate: Policy, arms: ArmPatterns) -> tuple[str, ...]:
    """A line for each cell that has too few images to pass even if no answer changes: its name, n, and the n it needs.

    Of many cells the first six.
    """
    lines = list(_lines(plan, gate, arms))
    more = (f"and {len(lines) - _SHOWN} cells more that can never pass",) if len(lines) > _SHOWN else ()
    return (*lines[:_SHOWN], *more)


def _lines(plan: Plan, gate: Policy, arms: ArmPatterns) -> Iterator[str]:
    if plan.task != "images":
        return  # what a text rules out hangs on its documents' nats
    for name in judged_names(plan, arms):
        for threat in plan.threats:
            tolerance = gate.tolerance_for(name, threat.id)
            n, needed = plan.samples_for(threat, _images(plan, threat)), fewest_samples(tolerance, gate.alpha)
            if n < needed:
                yield (
                    f"The gate can never pass {name}:{threat.id}: {n} images rule out no drop of "
                    f"{100 * tolerance:.1f} points, even if no answer changes; it takes {needed:,}."
                )


def _images(plan: Plan, threat: Threat) -> int:
    """That the threat's data set has."""
    name = (threat.classes_of if threat.kind == "clean" else getattr(threat, "suite", "")) or plan.data.name
    return EMBEDDED_IMAGES if name == EMBEDDED else suite(name).images or _UNKNOWN
