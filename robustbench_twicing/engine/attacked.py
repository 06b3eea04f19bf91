"""An attack carried out, and measured: the one way in which images are attacked."""

from robustbench_twicing.engine.algorithms import engine_of
from robustbench_twicing.engine.contract import Perturbed, Queries
from robustbench_twicing.engine.measured import Verified, verify
from robustbench_twicing.seeding import Draws
from robustbench_twicing.spec.threats import AttackThreat
from robustbench_twicing.tensors import Images, Labels


def attacked(
    crafting: Queries, images: Images, labels: Labels, threat: AttackThreat, draws: Draws
) -> tuple[Perturbed, Verified]:
    """What the threat's algorithm gives back for `images` in the threat's space, and what it is after measuring.

    Raises `UserError` as the algorithm does. What breaks a rule of the threat is in `Verified.reasons`.
    """
    perturbed = engine_of(threat.settings)(crafting, images, labels, threat, draws)
    spent = {"forwards": perturbed.forwards * crafting.eot, "backwards": perturbed.backwards * crafting.eot}
    return perturbed._replace(**spent), verify(perturbed, images, threat)
