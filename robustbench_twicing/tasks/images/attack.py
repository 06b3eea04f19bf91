"""Attack samples, trust nothing of what comes back, and judge it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

from robustbench_twicing.engine.attacked import attacked
from robustbench_twicing.engine.contract import Queries
from robustbench_twicing.engine.losses import fooled
from robustbench_twicing.errors import UserError
from robustbench_twicing.models.classifier import Classifier
from robustbench_twicing.models.faster.precision import tensor_cores
from robustbench_twicing.seeding import Draws
from robustbench_twicing.spec.threats import AttackThreat
from robustbench_twicing.tasks.images.judge import Judgement, Samples
from robustbench_twicing.tensors import Images, Labels

Result = TypeVar("Result")


@dataclass(frozen=True)
class Roles:
    """Who takes part in an attack. The three are one and the same unless a plan says otherwise."""

    judging: Classifier
    """Decides, in float32."""
    crafting: Classifier
    """What the attack sees: compiled, in another precision, or another model altogether."""
    fallback: Classifier
    """What the attack sees for samples whose success float32 does not confirm: the crafting model in float32."""


@dataclass
class Outcome:
    """What an attack did to some samples, a row for each (numpy, on the CPU)."""

    judgement: Judgement
    correct_8bit: np.ndarray
    """Right on the attacked image rounded to 8 bits; as judged where the threat does not ask for it."""
    rejected: np.ndarray
    """The crafting precision took it for broken, float32 did not, and the attack was repeated in float32."""
    distances: np.ndarray
    """(2, samples): L∞ and L2."""
    spent: np.ndarray
    """(2, samples): evaluations and input gradients."""
    images: np.ndarray
    """(3, H, W, samples) float32: what was judged, in the threat's space; of no pixels, (0, samples), unless kept."""

    @classmethod
    def untouched(cls, judgement: Judgement, images: np.ndarray | None = None) -> "Outcome":
        """Of samples that nothing was done to; `images` are theirs, if they are kept."""
        count = len(judgement.correct)
        none = np.zeros(count, dtype=bool)
        spent = np.zeros((2, count), dtype=np.int64)
        kept = np.zeros((0, count), dtype=np.float32) if images is None else images
        return cls(judgement, judgement.correct.copy(), none, np.zeros((2, count)), spent, kept)

    def take(self, rows: np.ndarray) -> "Outcome":
        """Some of the rows, a copy."""
        columns = {name: column[..., rows] for name, column in vars(self).items() if name != "judgement"}
        return Outcome(self.judgement.take(rows.tolist()), **columns)

    def put(self, rows: np.ndarray, other: "Outcome") -> None:
        """Replace some of the rows."""
        for name, column in vars(other).items():
            if name != "judgement":
                getattr(self, name)[..., rows] = column
        for name, column in vars(other.judgement).items():
            getattr(self.judgement, name)[rows] = column


class Attacks:
    """The attacks on one block of samples. An outcome is kept, so that a sequence need not repeat a member."""

    def __init__(self, seed: int, keeps_images: bool = False) -> None:
        self.seed = seed
        self.keeps_images = keeps_images
        self._done: dict[tuple[int, str], dict[str, tuple[Outcome, int]]] = {}

    def __call__(
        self, roles: Roles, threat: AttackThreat, samples: Samples, clean: Judgement, tick: Callable[[int], None]
    ) -> Outcome:
        """Attack `samples` (at least one), whose judgement without an attack is `clean`."""
        if len(threat.members) == 1 and threat.members[0] is threat:
            return self._single(roles, threat, samples, tick)
        result = self.untouched(roles, threat, samples, clean.take(range(len(samples.ids))))
        standing = np.arange(len(samples.ids))
        for member in threat.members:
            if len(standing) == 0:
                break
            new, old = self._single(roles, member, samples.take(standing.tolist()), tick), result.take(standing)
            broken = (new.judgement.error == "") & ~new.judgement.correct
            # Of what did not break it, a failure is kept (the sample cannot be called robust), else the closest call.
            closer = (old.judgement.error == "") & (
                (new.judgement.error != "") | (new.judgement.margin < old.judgement.margin)
            )
            result.put(standing[broken | closer], new.take(np.flatnonzero(broken | closer)))
            result.spent[:, standing] = old.spent + new.spent
            result.rejected[standing] = old.rejected | new.rejected
            standing = standing[~broken]
        return result

    def untouched(self, roles: Roles, threat: AttackThreat, samples: Samples, clean: Judgement) -> Outcome:
        """The outcome before anything is done to the samples."""
        if not self.keeps_images:
            return Outcome.untouched(clean)
        pixel = threat.rules.space == "pixel"
        return Outcome.untouched(clean, as_kept(samples.images if pixel else roles.judging.normalize(samples.images)))

    def _single(self, roles: Roles, threat: AttackThreat, samples: Samples, tick: Callable[[int], None]) -> Outcome:
        done = self._done.setdefault((id(roles.judging), threat.id), {})
        new = [row for row, sample in enumerate(samples.ids) if sample not in done]
        if new:
            some = samples.take(new)
            outcome = with_smaller_batches(
                lambda size: _attack(roles, threat, some, self.seed, size, self.keeps_images, tick), roles.judging
            )
            done.update({sample: (outcome, row) for row, sample in enumerate(some.ids)})
            if len(new) == len(samples.ids):
                return outcome
        first, row = done[samples.ids[0]]
        result = first.take(np.full(len(samples.ids), row))
        for position, sample in enumerate(samples.ids):
            outcome, row = done[sample]
            result.put(np.array([position]), outcome.take(np.array([row])))
        return result


def as_kept(images: Images) -> np.ndarray:
    """(3, H, W, samples) float32 on the CPU, a copy: an outcome is written into."""
    return images.permute(1, 2, 3, 0).cpu().numpy().copy()


def _attack(
    roles: Roles,
    threat: AttackThreat,
    samples: Samples,
    seed: int,
    batch_size: int,
    keeps_images: bool,
    tick: Callable[[int], None],
) -> Outcome:
    """One attack, crafted as the threat says and judged by float32."""
    space, model = threat.rules.space, roles.judging
    judging = Queries(model.in_space(space), batch_size, tick)
    inputs = samples.images if space == "pixel" else model.normalize(samples.images)
    targets = samples.labels if threat.rules.labels == "true" else judging(inputs).argmax(1)
    crafting = Queries(roles.crafting.in_space(space), batch_size, tick, threat.eot)
    doubted = roles.crafting is not roles.fallback or threat.precision == "tf32"
    outcome, images, believed = _craft(crafting, judging, threat, samples, inputs, targets, seed, doubted)
    if doubted:
        held = torch.from_numpy(outcome.judgement.prediction).to(targets.device) == targets
        rejected = np.flatnonzero((believed & held).cpu().numpy())
        if len(rejected):
            rows = rejected.tolist()
            exact = threat.model_copy(update={"precision": "float32"})
            fallback = Queries(roles.fallback.in_space(space), batch_size, tick, threat.eot)
            again, images[rows], _ = _craft(
                fallback, judging, exact, samples.take(rows), inputs[rows], targets[rows], seed
            )
            again.spent += outcome.spent[:, rejected]
            again.rejected[:] = True
            outcome.put(rejected, again)
    if threat.eight_bit:
        outcome.correct_8bit = samples.judged(judging((images * 255).round() / 255)).correct
        outcome.spent[0] += 1
    if keeps_images:
        outcome.images = as_kept(images)
    return outcome


def _craft(
    crafting: Queries,
    judging: Queries,
    threat: AttackThreat,
    samples: Samples,
    inputs: Images,
    targets: Labels,
    seed: int,
    doubted: bool = False,
) -> tuple[Outcome, Images, torch.Tensor]:
    """The outcome, the images that were judged, and, if it is `doubted`, which the crafting model takes for broken."""
    # What fools the source need not fool the target, so a transfer takes every step.
    asked = (
        threat
        if threat.source is None
        else threat.model_copy(update={"rules": threat.rules.model_copy(update={"iterate": "last"})})
    )
    draws = Draws(seed, tuple(samples.ids), threat.id)
    with tensor_cores(threat.precision == "tf32"):
        perturbed, checked = attacked(crafting, inputs, targets, asked, draws)
        believed = fooled(crafting(checked.images), targets) if doubted else torch.zeros_like(targets, dtype=torch.bool)
    judgement = samples.judged(judging(checked.images))
    judgement.error = np.where(judgement.error == "", np.array(checked.reasons, dtype=object), judgement.error)
    outcome = Outcome.untouched(judgement)
    outcome.distances = torch.stack((checked.linf, checked.l2)).cpu().numpy()
    outcome.spent = torch.stack((perturbed.forwards + 1 + doubted * threat.eot, perturbed.backwards)).cpu().numpy()
    return outcome, checked.images, believed


def with_smaller_batches(compute: Callable[[int], Result], model: Classifier) -> Result:
    """`compute(model.batch_size)`, halving that as often as the device runs out of memory. Draws do not change."""
    while True:
        try:
            return compute(model.batch_size)
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
            if model.batch_size == 1:
                raise UserError(
                    "The device runs out of memory with a single image.",
                    "Close other programs that use it, choose a smaller model, or pass --device cpu.",
                ) from None
            model.batch_size //= 2
