"""What is trained, and with what it is computed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import torch

from robustbench_twicing.attention.methods import settled
from robustbench_twicing.errors import UserError
from robustbench_twicing.machine.cores import usable_cores
from robustbench_twicing.results.arms import BEGAN_WITH
from robustbench_twicing.spec.models import ModelSpec
from robustbench_twicing.spec.training import TrainingRecipe
from robustbench_twicing.spec.values import content_hash
from robustbench_twicing.tensors import Images, Labels


class MicroBatch(NamedTuple):
    """Images that go through the network at once, augmented and normalised."""

    images: Images
    labels: Labels
    unreadable: tuple[str, ...] = ()
    """Files that could not be read, and why; another image stands in the place of each."""


class Share(NamedTuple):
    """Which micro-batches of every update one of several processes has, and how it reads them."""

    micro_batches: int = 1
    """Of an update, over all processes. Number `j` holds every image `i` of it with `i % micro_batches == j`."""
    rank: int = 0
    """This process has the micro-batches `j` with `j % world == rank`."""
    world: int = 1
    workers: int = 0
    """Processes that read images ahead; they change no number."""

    @property
    def own(self) -> range:
        """The micro-batches of this process."""
        return range(self.rank, self.micro_batches, self.world)

    def images_of(self, batch: int) -> int:
        """How many images of a batch this process has."""
        return batch // self.world


@runtime_checkable
class TrainingData(Protocol):
    """Images to train on, and others to count right answers on when all is done. They choose nothing."""

    @property
    def name(self) -> str: ...

    @property
    def classes(self) -> int: ...

    @property
    def fingerprint(self) -> str:
        """Changes when training images, their classes or their order change."""
        ...

    @property
    def train_images(self) -> int: ...

    @property
    def test_images(self) -> int: ...

    def feed(self, job: "Job", network: Any, share: Share, first: int) -> Iterator[MicroBatch]:
        """The micro-batches of this process from update `first` to the end: those of one update after another."""
        ...

    def count_right(self, network: Any, device: torch.device, share: Share) -> tuple[int, tuple[str, ...]]:
        """Of this process's share of the test images: how many are answered rightly, and which could not be read."""
        ...


@dataclass(frozen=True, eq=False)
class Start:
    """Weights that a training begins with."""

    text: str
    """As the user named them."""
    weights_hash: str
    """As records have it of the untouched weights."""
    tensors: Mapping[str, torch.Tensor]


@dataclass(frozen=True, eq=False)
class Job:
    """One training: what decides its weights."""

    spec: ModelSpec
    recipe: TrainingRecipe
    data: TrainingData
    seed: int
    start: Start | None = None

    @property
    def updates_per_epoch(self) -> int:
        """Whole batches only. Raises `UserError` if there is none."""
        updates = self.data.train_images // self.recipe.batch
        if not updates:
            raise UserError(
                f"Recipe {self.recipe.name}: its batch of {self.recipe.batch:,} is more than the "
                f"{self.data.train_images:,} training images.",
                "Take another --recipe (tiny, small), or a TOML file of your own with a smaller batch.",
            )
        return updates

    @property
    def updates(self) -> int:
        """Of the whole training."""
        return self.updates_per_epoch * self.recipe.epochs

    @property
    def statement(self) -> str:
        """What the weights state of their training: all but network, method and seed, in the form of a record.

        NAME-HASH, the hash being that of recipe, training images and start; behind it, of trained weights that were
        trained on, `.from-` and the hash of those.
        """
        said = {"recipe": self.recipe.hash, "data": self.data.fingerprint}
        began = f"{BEGAN_WITH}{self.start.weights_hash}" if self.start else ""
        own = f"{self.recipe.name[:30]}-{content_hash(said)}{began}"
        return _STATED_BEFORE.get(own, own)

    @property
    def identity(self) -> dict[str, str]:
        """Everything that decides the weights, field by field."""
        recipe = _flat(self.recipe.content)
        return {
            "network": self.spec.architecture,
            "attention": str(settled(self.spec.attention)),
            "seed": str(self.seed),
            "data": f"{self.data.name} {self.data.fingerprint}",
            "start": self.start.weights_hash if self.start else "random",
            **recipe,
        }


_STATED_BEFORE = {"digits-5007324c8dcf": "b205503b77e2"}
"""What the seeds that ship state of the recipe `digits`, from before recipes were files: the same training."""


class Equipment(NamedTuple):
    """With what a training is computed. On one process of a CPU nothing here but micro-batch and compiling changes a
    weight."""

    device: torch.device = torch.device("cpu")
    precision: Literal["float32", "bfloat16"] = "float32"
    micro_batch: int | None = None
    """Most images at once in one process; None for all of its part of the batch."""
    workers: int = 0
    compiles: bool = False
    """Compute with a network that torch.compile has translated, if that is measured to be faster."""
    checkpoint_seconds: float = 600.0
    """Between two checkpoints; 0 for one after every update."""

    @staticmethod
    def usual(device: torch.device, micro_batch: int | None = None, workers: int | None = None) -> "Equipment":
        """What is taken for a device unless somebody says otherwise."""
        most = micro_batch or (64 if device.type == "cpu" else 256)
        return Equipment(device, micro_batch=most, workers=min(usable_cores() - 1, 16) if workers is None else workers)


ONE_CPU = Equipment()


def share_of(job: Job, equipment: Equipment, rank: int = 0, world: int = 1) -> Share:
    """How the recipe's batch is divided among processes and into micro-batches of one size.

    Raises `UserError` if the processes cannot divide it, and if Mixup has an odd number of images.
    """
    batch = job.recipe.batch
    if batch % world:
        raise UserError(
            f"{world} processes cannot share the batch of {batch:,} of recipe {job.recipe.name}.",
            f"Take a number of processes that divides it: {_divisors(batch)}.",
        )
    own, paired = batch // world, 2 if job.recipe.mixing.active else 1
    most = min(equipment.micro_batch or own, own)
    fitting = [size for size in range(most, 0, -1) if own % size == 0 and size % paired == 0]
    if not fitting:
        raise UserError(
            f"Recipe {job.recipe.name} mixes images in pairs, and the {own:,} images of a process do not divide into "
            f"micro-batches of an even number, {most:,} at most.",
            "Take another --micro-batch, number of processes, or batch.",
        )
    return Share(batch // fitting[0], rank, world, equipment.workers)


def _divisors(batch: int) -> str:
    return ", ".join(str(number) for number in range(1, min(batch, 64) + 1) if batch % number == 0)


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = str(value)
    return found


def normalised(images: torch.Tensor, network: Any) -> torch.Tensor:
    """Images in [0, 1] as the network's configuration says that it takes them."""
    mean, std = _mean_and_std(images, network)
    return (images - mean) / std


def in_pixels(images: torch.Tensor, network: Any) -> torch.Tensor:
    """The other way round; what random erasing put outside of [0, 1] is clipped."""
    mean, std = _mean_and_std(images, network)
    return (images * std + mean).clamp(0, 1)


def _mean_and_std(images: torch.Tensor, network: Any) -> list[torch.Tensor]:
    settings = network.pretrained_cfg
    return [torch.tensor(settings[key], device=images.device).view(1, 3, 1, 1) for key in ("mean", "std")]
