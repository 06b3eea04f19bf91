"""Who still resists an attack, and the book that is kept of it."""

import torch

from robustbench_twicing.engine.contract import Perturbed
from robustbench_twicing.engine.losses import fooled
from robustbench_twicing.seeding import Draws
from robustbench_twicing.spec.threats import AttackThreat
from robustbench_twicing.tensors import Counts, Images, Labels, Logits, Mask


class Standing:
    """The samples of a batch that no iterate has fooled yet, what the others were fooled by, and what each one cost.

    Under `iterate = "last"` nobody leaves. The tensors that an attack keeps for the samples at work are its own: when
    some leave, `judge` says which rows of them stay.
    """

    def __init__(self, images: Images, labels: Labels, threat: AttackThreat, draws: Draws) -> None:
        self.judges = threat.rules.iterate == "best"
        """Iterates are looked at, and whoever is fooled leaves."""
        self.rows: Counts = torch.arange(len(images), device=images.device)
        """Those who stand, as rows of the batch."""
        self.labels: Labels = labels
        """Theirs."""
        self._draws = draws
        self._found = images.clone()
        self._forwards = torch.zeros_like(self.rows)
        self._backwards = torch.zeros_like(self.rows)

    def __len__(self) -> int:
        """How many stand."""
        return len(self.rows)

    @property
    def draws(self) -> Draws:
        """The random numbers of those who stand."""
        return self._draws.take(self.rows.tolist())

    def count(self, forwards: int | Counts, backwards: int | Counts = 0) -> None:
        """Each of those who stand has cost so many evaluations and gradients more."""
        self._forwards[self.rows] += forwards
        if isinstance(backwards, torch.Tensor) or backwards:
            self._backwards[self.rows] += backwards

    def judge(self, logits: Logits, images: Images) -> Mask | None:
        """Whom the iterate `images`, of which the model says `logits`, fools keeps it and leaves.

        Returns which of those who stood still do; None if nobody has left: copying the survivors takes longer than a
        step of an attack.
        """
        if not self.judges or not (done := fooled(logits, self.labels)).any():
            return None
        return self.leave(done, images)

    def leave(self, done: Mask, images: Images) -> Mask:
        """Those of `done` keep their row of `images` and leave. Returns which of those who stood still do."""
        self._found[self.rows[done]] = images[done]
        left = ~done
        self.rows, self.labels = self.rows[left], self.labels[left]
        return left

    def keep(self, images: Images) -> None:
        """What those who stand come back as, unless a later iterate takes its place."""
        self._found[self.rows] = images

    def perturbed(self) -> Perturbed:
        """Everybody's image and costs."""
        return Perturbed(self._found, self._forwards, self._backwards)
