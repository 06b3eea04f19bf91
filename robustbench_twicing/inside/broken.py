"""Which samples an attack breaks: for diagnoses and sweeps, which keep no records."""

from typing import NamedTuple

import torch

from robustbench_twicing.engine.attacked import attacked
from robustbench_twicing.engine.contract import Queries
from robustbench_twicing.engine.losses import fooled
from robustbench_twicing.models.classifier import Classifier
from robustbench_twicing.seeding import Draws
from robustbench_twicing.spec.threats import AttackThreat
from robustbench_twicing.tensors import Images, Labels


class Samples(NamedTuple):
    """Images in [0, 1], (batch, 3, height, width), and what is on them."""

    ids: tuple[str, ...]
    images: Images
    labels: Labels

    def take(self, rows: torch.Tensor) -> "Samples":
        """Some of them, by a mask."""
        ids = tuple(one for one, kept in zip(self.ids, rows.tolist(), strict=True) if kept)
        return Samples(ids, self.images[rows], self.labels[rows])


def right(model: Classifier, samples: Samples) -> torch.Tensor:
    """Which samples the model answers rightly."""
    return ~fooled(Queries(model, model.batch_size)(samples.images), samples.labels)


def broken_by(
    model: Classifier,
    samples: Samples,
    threat: AttackThreat,
    seed: int,
    rows: torch.Tensor,
    crafting: Classifier | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Who of `rows` (a mask) falls, and the evaluations spent, for all samples; made on `crafting`, if it is given."""
    broken = torch.zeros_like(rows)
    spent = torch.zeros(len(samples.ids), dtype=torch.int64, device=rows.device)
    some = samples.take(rows)
    if some.ids:
        queries = Queries(crafting or model, model.batch_size)
        draws = Draws(seed, some.ids, threat.id)
        perturbed, checked = attacked(queries, some.images, some.labels, threat, draws)
        broken[rows] = ~right(model, some._replace(images=checked.images))
        spent[rows] = perturbed.forwards
    return broken, spent
