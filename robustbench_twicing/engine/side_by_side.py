"""Several walks of each sample in one batch: as many samples at a time as fill it."""

from collections.abc import Callable

import torch
from jaxtyping import Int

from robustbench_twicing.engine.contract import Perturbed, Queries
from robustbench_twicing.engine.losses import lead_of_targets, wrong_classes
from robustbench_twicing.seeding import Draws
from robustbench_twicing.tensors import Counts, Images, Labels, Logits, PerSample

BATCHES = 4
"""Of the model, that walks side by side fill: enough to fill some, few enough for the memory."""


def in_parts(
    model: Queries,
    images: Images,
    labels: Labels,
    draws: Draws,
    walks: int,
    attack: Callable[[Images, Labels, Draws], Perturbed],
) -> Perturbed:
    """`attack` of some samples at a time, parts of nearly one size, where each sample has so many walks."""
    together = max(1, BATCHES * model.batch_size // walks)
    together = -(-len(images) // -(-len(images) // together))
    parts = []
    for start in range(0, len(images), together):
        rows = range(start, min(start + together, len(images)))
        part = slice(rows.start, rows.stop)
        parts.append(attack(images[part], labels[part], draws.take(rows)))
    return Perturbed(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def aims(
    model: Queries, images: Images, labels: Labels, most: int, restarts: int
) -> tuple[Int[torch.Tensor, "batch ranks"], list[tuple[int, int]]]:
    """The wrong classes that each image's logits rank highest, `most` of them at most, and the walks towards them in
    order: the draw of each one's start, and its class's rank. Restart r towards rank t starts at draw
    r x (classes - 1) + t. One evaluation of each image."""
    clean = model(images)
    others = clean.shape[1] - 1
    targets = wrong_classes(clean, labels, min(most, others))
    return targets, [(restart * others + rank, rank) for restart in range(restarts) for rank in range(targets.shape[1])]


def each(rows: torch.Tensor, ranks: int) -> torch.Tensor:
    """Every row `ranks` times, one after the other."""
    return rows.repeat_interleave(ranks, 0)


def logit_gaps(model: Queries, images: Images, labels: Labels, targets: Labels) -> tuple[PerSample, Images]:
    """The target's logit less the label's, and its gradient."""

    def gap(logits: Logits, rows: Counts) -> PerSample:
        return lead_of_targets(logits, labels[rows], targets[rows])

    rows = torch.arange(len(images), device=images.device)
    logits, gradient = model.gradient(images, rows, gap)
    return gap(logits, rows), gradient
