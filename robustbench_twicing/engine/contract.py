"""What an engine is: a pure function `(model, images, labels, threat, draws) -> Perturbed`."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, Protocol, runtime_checkable

import torch

from robustbench_twicing.errors import UserError
from robustbench_twicing.seeding import Draws
from robustbench_twicing.spec.threats import AttackThreat
from robustbench_twicing.tensors import Counts, Images, Labels, Logits, PerSample

LossFunction = Callable[[Logits, Labels], PerSample]
"""A loss for each sample; an attack ascends it."""


RowLoss = Callable[[Logits, Counts], PerSample]
"""A loss of some samples, each named by its row of the batch."""


class Perturbed(NamedTuple):
    """What an engine gives back. The runner trusts none of it: it measures range, norm, shape and finiteness again."""

    images: torch.Tensor
    """Same shape as the input, in the same space."""
    forwards: Counts
    """Evaluations of the model spent on each sample."""
    backwards: Counts
    """Input gradients spent on each sample."""


@runtime_checkable  # the test run checks types at run time
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


class NoGradientError(UserError):
    """The model's logits have no gradient with respect to its images."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"The model gives no gradient: {why}.",
            "Take no_grad, inference_mode, detach and numpy out of its forward; or attack without gradients: "
            "--attack square, --attack spsa.",
        )


class Queries:
    """The model as an attack sees it: split into chunks that fit the device, gradients for the input only.

    Calling it gives logits without a graph. No parameter ever receives a gradient, whether or not the caller froze
    the weights.
    """

    def __init__(
        self,
        model: Callable[[Images], Logits],
        batch_size: int,
        tick: Callable[[int], None] = lambda evaluations: None,
        eot: int = 1,
    ) -> None:
        self.model = model
        self.batch_size = batch_size
        self.tick = tick
        """Told after each chunk how many images were evaluated, for progress bars."""
        self.eot = eot
        """Evaluations of each image that are averaged, for a model that draws at random: logits, and gradients of each
        draw's own loss (Athalye et al. 2018, arXiv 1802.00420, section 4.2)."""

    def __call__(self, images: Images) -> Logits:
        """Logits of any number of images."""
        all_logits = []
        with torch.no_grad():
            for part in images.split(self._part(images)):
                (logits,) = self._averaged(partial(self._logits, part))
                all_logits.append(logits)
                self.tick(len(part) * self.eot)
        return torch.cat(all_logits)

    def gradient(self, images: Images, labels: Labels, loss: LossFunction) -> tuple[Logits, Images]:
        """Logits, and the gradient of each sample's own loss with respect to its image (not to be changed in place).

        Raises `NoGradientError` if the model gives none.
        """
        all_logits, gradients = [], []
        size = self._part(images)
        for part, targets in zip(images.split(size), labels.split(size), strict=True):
            logits, gradient = self._averaged(partial(self._gradient, part, targets, loss))
            all_logits.append(logits)
            gradients.append(gradient)
            self.tick(len(part) * self.eot)
        # A single chunk's gradient is returned as it is: copying it would cost as much as a step of the attack.
        return torch.cat(all_logits), gradients[0] if len(gradients) == 1 else torch.cat(gradients)

    def _logits(self, images: Images) -> tuple[Logits]:
        return (self.model(images).detach(),)  # of a module that asks for a gradient itself

    def _gradient(self, images: Images, labels: Labels, loss: LossFunction) -> tuple[Logits, Images]:
        images = images.detach().requires_grad_()
        with torch.enable_grad():
            logits = self.model(images)
            gradient = _gradient_of(loss(logits, labels).sum(), images)
        return logits.detach(), gradient

    def _averaged(self, ask: Callable[[], tuple[torch.Tensor, ...]]) -> tuple[torch.Tensor, ...]:
        """The means of `eot` answers."""
        means = ask()
        for _ in range(self.eot - 1):
            means = tuple(mean + new for mean, new in zip(means, ask(), strict=True))
        return means if self.eot == 1 else tuple(mean / self.eot for mean in means)

    def asked(self, images: Images, heard: Sequence[torch.Tensor]) -> torch.Tensor:
        """What was heard inside the model of each chunk of these images, without rows that nobody asked for.

        A model may fill a chunk up to a size that it is fast at; what it adds stands behind the others.
        """
        parts = images.split(self._part(images))
        return torch.cat([one[: len(part)] for one, part in zip(heard, parts, strict=True)])

    def network(self) -> torch.nn.Module:
        """The model as a module, for an attack that looks inside. Raises `UserError` for a mere function."""
        if not isinstance(self.model, torch.nn.Module):
            raise UserError("The model is a function, with nothing inside to look at.", "Give a torch.nn.Module.")
        return self.model

    def _part(self, images: Images) -> int:
        """Images of a chunk: as few chunks as fit, all of nearly one size, since a small one costs more an image."""
        return -(-len(images) // -(-len(images) // self.batch_size)) if len(images) else 1


def _gradient_of(loss: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    if not loss.requires_grad:
        raise NoGradientError("its logits come out of no_grad, inference_mode, detach or numpy")
    try:
        (gradient,) = torch.autograd.grad(loss, images, allow_unused=True)
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:  # torch's, of a tensor changed in place, or of the user's own backward
        lines = str(error).strip().splitlines() or [""]
        raise NoGradientError(f"{type(error).__name__}: {lines[0][:200]}") from error
    if gradient is None:
        raise NoGradientError("its logits do not depend on its images")
    return gradient
