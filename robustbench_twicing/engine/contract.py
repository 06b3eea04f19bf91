"""What an engine is: a pure function `(model, images, labels, threat, draws) -> Perturbed`."""

from collections.abc import Callable, Iterator, Sequence
from threading import Lock
from typing import NamedTuple, Protocol, TypeVar

import torch

from robustbench_twicing.parallel import cores, on_every_core
from robustbench_twicing.seeding import Draws
from robustbench_twicing.specs import AttackThreat
from robustbench_twicing.tensors import Counts, Images, Labels, Logits, PerSample

Piece = TypeVar("Piece")
Result = TypeVar("Result")

LossFunction = Callable[[Logits, Labels], PerSample]
"""A loss for each sample; an attack ascends it."""


class Perturbed(NamedTuple):
    """What an engine gives back. The runner trusts none of it: it measures range, norm, shape and finiteness again."""

    images: torch.Tensor
    """Same shape as the input, in the same space."""
    forwards: Counts
    """Evaluations of the model spent on each sample."""
    backwards: Counts
    """Input gradients spent on each sample."""


class Engine(Protocol):
    """An attack algorithm.

    `images` (at least one) lie in the space the threat names; `labels` are the classes to move away from. Random
    numbers come from `draws` alone, whose rows are those of `images`. Under `iterate = "best"` a sample that some
    iterate fools comes back as that iterate; the engine does not check whether the clean image was right (the runner
    only sends those that were). eps = 0 returns the input.
    """

    def __call__(
        self, model: "Queries", images: Images, labels: Labels, threat: AttackThreat, draws: Draws
    ) -> Perturbed: ...


_LEAST_VALUES = 2**16
"""Pixel values (21 digits, half an image of 224 pixels) below which a piece is not worth a core of its own."""


class Queries:
    """The model as an attack sees it: split into pieces that fit the device, gradients for the input only.

    Calling it gives logits without a graph. No parameter ever receives a gradient, whether or not the caller froze
    the weights.
    """

    def __init__(
        self,
        model: Callable[[Images], Logits],
        batch_size: int,
        tick: Callable[[int], None] = lambda evaluations: None,
        reentrant: bool = False,
    ) -> None:
        self.model = model
        self.batch_size = batch_size
        """Images to evaluate at the same time, at most."""
        self.tick = tick
        """Told after each piece how many images were evaluated, for progress bars."""
        self.reentrant = reentrant
        """The model may be called from several threads at a time: on a CPU every core evaluates pieces of its own."""
        self._lock = Lock()

    def __call__(self, images: Images) -> Logits:
        """Logits of any number of images."""

        def evaluate(part: Images) -> Logits:
            with torch.no_grad():
                logits = self.model(part)
            self._count(len(part))
            return logits

        return torch.cat(list(self.on_every_core(evaluate, images.split(self._piece(images)), images.device)))

    def gradient(self, images: Images, labels: Labels, loss: LossFunction) -> tuple[Logits, Images]:
        """Logits, and the gradient of each sample's own loss with respect to its image (not to be changed in place)."""

        def differentiate(pair: tuple[Images, Labels]) -> tuple[Logits, Images]:
            part = pair[0].detach().requires_grad_()
            with torch.enable_grad():
                logits = self.model(part)
                (gradient,) = torch.autograd.grad(loss(logits, pair[1]).sum(), part)
            self._count(len(part))
            return logits.detach(), gradient

        size = self._piece(images)
        pairs = list(zip(images.split(size), labels.split(size), strict=True))
        all_logits, gradients = zip(*self.on_every_core(differentiate, pairs, images.device), strict=True)
        # A single piece's gradient is returned as it is: copying it would cost as much as a step of the attack.
        return torch.cat(all_logits), gradients[0] if len(gradients) == 1 else torch.cat(gradients)

    def on_every_core(
        self, work: Callable[[Piece], Result], pieces: Sequence[Piece], device: torch.device
    ) -> Iterator[Result]:
        """`work(piece)` for each piece, in order, `cores` of them at a time."""
        return on_every_core(work, pieces, device) if self.reentrant else map(work, pieces)

    def cores(self, device: torch.device) -> int:
        """On how many cores the model is evaluated at the same time."""
        return cores(device) if self.reentrant else 1

    def share(self, cores: int) -> "Queries":
        """The model for the use of one of `cores` cores, whose batches fit the device together."""
        if cores == 1:
            return self
        return Queries(self.model, max(1, self.batch_size // cores), self._count)

    def _piece(self, images: Images) -> int:
        """How many of the images go into one call: an equal share, for every core, of those that fit."""
        count, at_once = len(images), min(len(images), self.batch_size)
        shares = max(1, min(self.cores(images.device), at_once * images[0].numel() // _LEAST_VALUES))
        return -(-count // (shares * -(-count // self.batch_size)))

    def _count(self, evaluations: int) -> None:
        with self._lock:
            self.tick(evaluations)
