"""The digits to train on: in memory, augmented a batch at a time.

A seed gives the same weights again on the same machine with the same number of threads; elsewhere float sums differ in
their last bit, and training amplifies that.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch.nn import functional as F

from robustbench_twicing.data.digits import digits
from robustbench_twicing.errors import UserError
from robustbench_twicing.spec.models import Recipe
from robustbench_twicing.spec.training import Affine
from robustbench_twicing.tensors import Images, Labels
from robustbench_twicing.train.job import Job, MicroBatch, Share, normalised


@dataclass(frozen=True, eq=False)
class DigitsData:
    """The 1,200 digits to train on, and 597 to test with."""

    name: str = "digits"
    classes: int = 10
    fingerprint: str = "0"
    train_images: int = 1200
    test_images: int = 597

    def feed(self, job: Job, network: Any, share: Share, first: int) -> Iterator[MicroBatch]:
        """See `TrainingData`. Raises `UserError` for a recipe that is made for pictures in files."""
        said = job.recipe.augmentation
        if not isinstance(said, Affine):
            raise UserError(
                f"Recipe {job.recipe.name} augments pictures in files, and the digits lie in memory.",
                'Take --recipe digits, or one of your own with kind = "affine".',
            )
        return self._feed(job, said, network, share, first)

    def _feed(self, job: Job, said: Affine, network: Any, share: Share, first: int) -> Iterator[MicroBatch]:
        images, labels = _all_images("train")
        generator = torch.Generator().manual_seed(job.seed)
        number = 0
        for _ in range(job.recipe.epochs):
            order = torch.randperm(len(labels), generator=generator)
            for rows in order[: job.updates_per_epoch * job.recipe.batch].split(job.recipe.batch):
                draws = torch.rand(4, len(rows), generator=generator)  # also for what is done already
                if number >= first:
                    moved = normalised(augment(images[rows], draws, said), network)
                    for micro in share.own:
                        part = slice(micro, None, share.micro_batches)
                        yield MicroBatch(moved[part], labels[rows][part])
                number += 1

    def count_right(self, network: Any, device: torch.device, share: Share) -> tuple[int, tuple[str, ...]]:
        """See `TrainingData`."""
        images, labels = _all_images("test")
        part = slice(share.rank, None, share.world)
        answers = network(normalised(images[part], network).to(device)).argmax(dim=1).cpu()
        return int((answers == labels[part]).sum()), ()


def augment(images: Images, draws: torch.Tensor, said: Affine) -> Images:
    """Each image turned, scaled and shifted, by at most what the recipe says.

    `draws` (4, images), uniform on [0, 1): of the angle, the scale, and the shifts to the right and downwards.
    """
    uniform = draws * 2 - 1
    angle = uniform[0] * math.radians(said.degrees)
    scale = 1 + uniform[1] * said.scale
    # affine_grid spans -1 to 1, twice the fraction.
    shift_x, shift_y = uniform[2] * 2 * said.shift, uniform[3] * 2 * said.shift
    cos, sin = angle.cos() / scale, angle.sin() / scale
    matrices = torch.stack((torch.stack((cos, -sin, shift_x), 1), torch.stack((sin, cos, shift_y), 1)), 1)
    grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


@cache
def _all_images(split: str) -> tuple[Images, Labels]:
    data = digits(split)
    none = Recipe()
    return data.read(range(len(data.labels)), [none]).images[none], torch.tensor(data.labels)
