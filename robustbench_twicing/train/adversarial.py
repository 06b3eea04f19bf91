"""Images attacked while a model is trained, by the PGD that evaluates it."""

from typing import Any

import torch

from robustbench_twicing.engine.contract import Queries
from robustbench_twicing.engine.pgd import pgd
from robustbench_twicing.seeding import Draws
from robustbench_twicing.spec.attacks import PgdSettings
from robustbench_twicing.spec.protocol import Rules
from robustbench_twicing.spec.threats import AttackThreat
from robustbench_twicing.tensors import Images, Labels
from robustbench_twicing.train.job import Job, in_pixels, normalised

_RULES = Rules(space="pixel", clip=True, labels="true", iterate="last")


def attacked(
    job: Job, network: Any, images: Images, labels: Labels, place: tuple[int, int], pieces: int
) -> torch.Tensor:
    """Normalised `images` moved within eps so that the network, in eval mode, errs; float32, whatever trains.

    `place`: update and micro-batch, which the random starts follow. `pieces`: parts that go through at once. The
    network is in train mode again afterwards.
    """
    said = job.recipe.adversarial
    assert said is not None
    settings = PgdSettings(steps=said.steps, step_size=said.step_size)
    threat = AttackThreat(protocol="training", attack="pgd", eps=said.eps, rules=_RULES, settings=settings)
    draws = Draws(job.seed, tuple(f"{place[0]}/{place[1]}/{row}" for row in range(len(images))), "training")
    network.eval()
    queries = Queries(lambda some: network(normalised(some, network)), -(-len(images) // pieces))
    moved = pgd(queries, in_pixels(images, network), labels, threat, draws).images
    network.train()
    return normalised(moved, network)
