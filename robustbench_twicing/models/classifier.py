"""The model as everything else sees it: pixels in [0, 1] in, logits out."""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from robustbench_twicing.models.faster.straight import Straight, straight
from robustbench_twicing.models.guard import guarded
from robustbench_twicing.spec.models import ModelSpec, Recipes
from robustbench_twicing.tensors import Images, Logits


@dataclass(frozen=True)
class ModelCard:
    """What is known about a loaded model; goes into the manifest and, in part, into every record."""

    spec: ModelSpec
    attention: str
    """Which method each block computes, found by the numerical probe: `softmax`, `twicing`, with block numbers from 0
    `twicing@3,4,5`; empty if no block was probed."""
    blocks: int
    parameters: int
    weights_hash: str
    classes: int
    image_size: int
    recipes: Recipes
    """The model's own preprocessing, for images on disk."""
    prepared_as: str = ""
    """Whose preprocessing that is."""
    weights_note: str = ""
    """Such as which key of a checkpoint was read."""
    training_recipe: str = ""
    """Hash of the recipe that trained the weights; empty unless their file states it."""
    training_seed: int = -1
    """Seed of the training; -1 unless the weights' file states it."""


_LARGE = 64
"""A batch so large that filling it up costs less than a size that was not seen before."""


class Classifier(nn.Module):
    """A network with its normalisation inside: `images` (batch, 3, H, W) in [0, 1] to logits (batch, classes)."""

    mean: torch.Tensor
    std: torch.Tensor
    batch_size: int = 64
    """Images to evaluate at once. The runner sets it, and halves it where the device runs out of memory."""
    granule: int = 1
    """Batches of 64 and more are filled up to a multiple of this, with copies of their last image."""

    def __init__(
        self,
        network: nn.Module,
        card: ModelCard,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
    ) -> None:
        super().__init__()
        self.network = network
        self.card = card
        self._straight: Straight | None = None
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    def normalize(self, images: Images) -> Images:
        """(images - mean) / std, channel by channel."""
        return (images - self.mean).div_(self.std)

    def forward(self, images: Images) -> Logits:
        count = len(images)
        missing = -count % self.granule if count >= _LARGE else 0
        if missing:
            images = torch.cat((images, images[-1:].expand(missing, -1, -1, -1)))
        foreign = self.card.spec.in_memory or self.card.spec.is_plugged
        with guarded(self.card.spec.name, f"was given {count} images") if foreign else nullcontext():
            logits = self._answer(self.normalize(images))
        return logits[:count] if missing else logits

    def _answer(self, normalized: Images) -> Logits:
        """What the network says, along the way straight through it where that leads to the same."""
        if self._straight is None or self._straight.network is not self.network:
            self._straight = straight(self.network)
        way = self._straight
        logits: torch.Tensor = (way if way.takes(normalized) else self.network)(normalized)
        return logits

    def with_network(self, network: nn.Module) -> "Classifier":
        """The same around another network, in eval mode."""
        other = Classifier(network, self.card, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        other.mean, other.std = self.mean, self.std
        other.batch_size, other.granule = self.batch_size, self.granule
        return other.eval()

    def in_space(self, space: Literal["pixel", "normalized"]) -> nn.Module:
        """The model as seen from a protocol's space: itself, or the bare network that expects normalised images."""
        return self if space == "pixel" else self.network
