"""Images in files to train on: read and augmented by any number of workers, which change no number.

The random numbers of an image follow (seed, file, epoch, repeat), so the order in which images are read, and by whom,
plays no part. timm's transforms draw from the global generators of Python, numpy and torch; all are set for each image.
"""

import hashlib
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from timm.data import auto_augment, create_transform
from torch.utils.data import DataLoader

from robustbench_twicing.data.decode import Unreadable, decode
from robustbench_twicing.data.training import Split, TrainingFolder
from robustbench_twicing.errors import UserError, shown
from robustbench_twicing.spec.training import TimmAugmentation
from robustbench_twicing.train.job import Job, MicroBatch, Share

_MOST_UNREADABLE = 100
"""One after another: then it is the data set, not an image."""
_TEST_BATCH = 64


class Wanted(NamedTuple):
    """An image of a micro-batch."""

    position: int
    epoch: int
    repeat: int


@dataclass(frozen=True, eq=False)
class FolderData:
    """An image folder as `TrainingData`."""

    name: str
    folder: TrainingFolder

    @property
    def classes(self) -> int:
        """How many."""
        return len(self.folder.classes)

    @cached_property
    def fingerprint(self) -> str:
        """See `TrainingFolder`."""
        return self.folder.fingerprint

    @property
    def train_images(self) -> int:
        """In `train/`."""
        return len(self.folder.train.files)

    @property
    def test_images(self) -> int:
        """In `val/`."""
        return len(self.folder.val.files)

    def feed(self, job: Job, network: Any, share: Share, first: int) -> Iterator[MicroBatch]:
        """See `TrainingData`. Raises `UserError` for a recipe that is made for images in memory."""
        said = job.recipe.augmentation
        if not isinstance(said, TimmAugmentation):
            raise UserError(
                f"Recipe {job.recipe.name} augments images that lie in memory.",
                'Take --recipe deit, finetune, small or tiny, or one of your own with kind = "timm".',
            )
        samples = Augmented(self.folder.train, job.seed, augmentation_of(said, network))
        return iter(_loader(samples, wanted(job, said.repeats, share, first), share.workers))

    def count_right(self, network: Any, device: torch.device, share: Share) -> tuple[int, tuple[str, ...]]:
        """See `TrainingData`. A test image that cannot be read is answered wrongly, and named."""
        split, right, unreadable = self.folder.val, 0, []
        batches = [
            [Wanted(position, 0, 0) for position in range(start, min(start + _TEST_BATCH, len(split.files)))]
            for start in range(share.rank * _TEST_BATCH, len(split.files), share.world * _TEST_BATCH)
        ]
        for images, labels, errors in _loader(Plain(split, evaluation_of(network)), batches, share.workers):
            if len(labels):
                right += int((network(images.to(device)).argmax(dim=1).cpu() == labels).sum())
            unreadable += errors
        return right, tuple(unreadable)


def wanted(job: Job, repeats: int, share: Share, first: int) -> Iterator[list[Wanted]]:
    """Which images each micro-batch of this process holds, from update `first` to the end.

    An epoch is a permutation of the images, each `repeats` times in a row: with repeats it shows a part of them.
    """
    batch = job.recipe.batch
    for epoch in range(first // job.updates_per_epoch, job.recipe.epochs):
        order = np.random.Generator(np.random.PCG64([job.seed, epoch])).permutation(job.data.train_images)
        done = max(0, first - epoch * job.updates_per_epoch)
        for update in range(done, job.updates_per_epoch):
            for micro in share.own:
                places = range(update * batch + micro, (update + 1) * batch, share.micro_batches)
                yield [Wanted(int(order[place // repeats]), epoch, place % repeats) for place in places]


Transform = Callable[[Image.Image], torch.Tensor]
"""A picture into (3, height, width), normalised."""


def augmentation_of(said: TimmAugmentation, network: Any) -> Transform:
    """timm's training transform, every argument as the recipe says; size, mean and deviation are the network's."""
    settings = network.pretrained_cfg
    none: Any = None
    transform: Transform = create_transform(
        settings["input_size"],
        is_training=True,
        scale=said.crop_area,
        ratio=said.crop_ratio,
        hflip=said.flip,
        vflip=0.0,
        color_jitter=said.color_jitter or none,
        auto_augment=said.auto_augment or None,
        interpolation=said.interpolation,
        mean=tuple(settings["mean"]),
        std=tuple(settings["std"]),
        re_prob=said.erase,
        re_mode=said.erase_with,
        re_count=said.erase_count,
    )
    for part in getattr(transform, "transforms", ()):
        for op in getattr(part, "ops", ()):
            if getattr(op, "aug_fn", None) is auto_augment.posterize:
                op.aug_fn = _posterized
    return transform


def _posterized(image: Image.Image, bits_to_keep: int, **options: Any) -> Image.Image:
    """timm's `posterize`, which may be asked to keep no bit: black. Pillow 13 refuses that, older ones do it."""
    if bits_to_keep < 1:
        return Image.new(image.mode, image.size)
    posterized: Image.Image = auto_augment.posterize(image, bits_to_keep, **options)
    return posterized


def evaluation_of(network: Any) -> Transform:
    """timm's transform for the network's own crop."""
    settings = network.pretrained_cfg
    transform: Transform = create_transform(
        settings["input_size"],
        is_training=False,
        interpolation=settings["interpolation"],
        mean=tuple(settings["mean"]),
        std=tuple(settings["std"]),
        crop_pct=settings["crop_pct"],
    )
    return transform


class Augmented:
    """Micro-batches of training images, as torch's `DataLoader` asks for them."""

    def __init__(self, split: Split, seed: int, transform: Transform) -> None:
        self._split, self._seed, self._transform = split, seed, transform

    def __len__(self) -> int:
        return len(self._split.files)

    def __getitems__(self, images: Sequence[Wanted]) -> MicroBatch:
        """Where one cannot be read, the next one in the list of files that can stands in its place."""
        tensors, labels = [], []
        unreadable: list[str] = []
        for image in images:
            position, picture = self._readable(image.position, unreadable)
            _begin_draws(self._seed, self._split.files[position], image.epoch, image.repeat)
            tensors.append(self._transform(picture))
            labels.append(self._split.labels[position])
        return MicroBatch(torch.stack(tensors), torch.tensor(labels), tuple(unreadable))

    def _readable(self, position: int, unreadable: list[str]) -> tuple[int, Image.Image]:
        for further in range(_MOST_UNREADABLE):
            place = (position + further) % len(self._split.files)
            picture = read(self._split, place)
            if isinstance(picture, Image.Image):
                return place, picture
            unreadable.append(picture)
        raise UserError(
            f"{_MOST_UNREADABLE} images in a row cannot be read, from {unreadable[0]} on.", "Check the data set."
        )


class Plain:
    """Batches of test images, without those that cannot be read."""

    def __init__(self, split: Split, transform: Transform) -> None:
        self._split, self._transform = split, transform

    def __len__(self) -> int:
        return len(self._split.files)

    def __getitems__(self, images: Sequence[Wanted]) -> MicroBatch:
        read_ones = [(read(self._split, image.position), image.position) for image in images]
        good = [(self._transform(one), at) for one, at in read_ones if isinstance(one, Image.Image)]
        tensors = [tensor for tensor, _ in good]
        return MicroBatch(
            torch.stack(tensors) if tensors else torch.empty(0, 3, 1, 1),
            torch.tensor([self._split.labels[at] for _, at in good], dtype=torch.int64),
            tuple(one for one, _ in read_ones if isinstance(one, str)),
        )


def read(split: Split, position: int) -> Image.Image | str:
    """The picture, or, in a text that names the file, why it cannot be read."""
    if split.levels is not None:
        return Image.fromarray(split.levels[position])
    path = split.path(position)
    try:
        return decode(path.read_bytes())
    except Unreadable as error:
        return f"{shown(str(path))}: {error}"
    except OSError as error:
        return f"{shown(str(path))}: {error.strerror}"


def _loader(samples: Any, batches: Iterator[list[Wanted]] | list[list[Wanted]], workers: int) -> Any:
    loader: Any = DataLoader  # its annotations know neither `__getitems__` nor batches that are no lists of numbers
    return loader(
        samples,
        batch_sampler=batches,
        collate_fn=_as_it_is,
        num_workers=workers,
        worker_init_fn=_begin_worker,
        pin_memory=torch.cuda.is_available(),
    )


def _as_it_is(batch: MicroBatch) -> MicroBatch:
    return batch


def _begin_worker(number: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that trains
    torch.set_num_threads(1)


def _begin_draws(seed: int, file: str, epoch: int, repeat: int) -> None:
    text = f"{seed}\0{file}\0{epoch}\0{repeat}".encode("utf-8", "surrogateescape")
    words = np.frombuffer(hashlib.blake2b(text, digest_size=24).digest(), dtype="<u8")
    random.seed(int(words[0]))
    np.random.seed(int(words[1]) % 2**32)  # noqa: NPY002 - timm's transforms draw from it
    torch.default_generator.manual_seed(int(words[2]) >> 1)
