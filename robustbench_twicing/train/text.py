"""A text to train on: windows of its bytes, cut anew in every epoch."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from robustbench_twicing.data.texts import embedded_text, fingerprint
from robustbench_twicing.errors import UserError
from robustbench_twicing.models.tiny_lm import START, VOCABULARY
from robustbench_twicing.spec.text import EMBEDDED_TEXT
from robustbench_twicing.spec.training import Windows
from robustbench_twicing.train.job import Job, MicroBatch, Share


@dataclass(frozen=True, eq=False)
class TextData:
    """The embedded text. A sample is a window of tokens, and what comes behind each is its label."""

    name: str = "text"
    classes: int = VOCABULARY
    tokens: int = 128
    """Of a window."""
    unit: str = "bytes"

    @cached_property
    def fingerprint(self) -> str:
        return f"{EMBEDDED_TEXT}-{fingerprint(embedded_text('train'))}"

    @cached_property
    def train_images(self) -> int:
        """Windows of one epoch, whichever byte the first begins with."""
        return (len(self._stream("train")) - 1) // self.tokens - 1

    @cached_property
    def test_images(self) -> int:
        """Bytes that are predicted when all is done, each in the second half of a window."""
        return len(self._stream("test")) - 1

    def feed(self, job: Job, network: Any, share: Share, first: int) -> Iterator[MicroBatch]:
        """See `TrainingData`. Raises `UserError` for a recipe that is made for pictures."""
        said = job.recipe.augmentation
        if not isinstance(said, Windows) or said.tokens != self.tokens or job.recipe.mixing.active:
            raise UserError(
                f"Recipe {job.recipe.name} is made for pictures, and this is a text.",
                f'Take --recipe tiny-lm, or one of your own with kind = "windows" and tokens = {self.tokens}.',
            )
        return self._feed(job, share, first)

    def _feed(self, job: Job, share: Share, first: int) -> Iterator[MicroBatch]:
        stream = self._stream("train")
        generator = torch.Generator().manual_seed(job.seed)
        number = 0
        for _ in range(job.recipe.epochs):
            begin = int(torch.randint(self.tokens, (1,), generator=generator))
            order = torch.randperm(self.train_images, generator=generator)
            for rows in order[: job.updates_per_epoch * job.recipe.batch].split(job.recipe.batch):
                if number >= first:
                    places = begin + self.tokens * rows[:, None] + torch.arange(self.tokens + 1)
                    windows = stream[places]
                    for micro in share.own:
                        part = windows[micro :: share.micro_batches]
                        yield MicroBatch(part[:, :-1], part[:, 1:])
                number += 1

    def count_right(self, network: Any, device: torch.device, share: Share) -> tuple[int, tuple[str, ...]]:
        """See `TrainingData`: how often the likeliest byte is the next one, in disjoint windows."""
        stream = self._stream("test").to(device)
        right = 0
        for start in range(share.rank * self.tokens, len(stream) - 1, share.world * self.tokens):
            window = stream[start : start + self.tokens + 1]
            right += int((network(window[None, :-1])[0].argmax(-1) == window[1:]).sum())
        return right, ()

    def _stream(self, split: str) -> torch.Tensor:
        """All documents behind one another, each behind a start token; int64."""
        parts = (bytes([START]) + document.text.encode() for document in embedded_text(split))
        return torch.frombuffer(bytearray(b"".join(parts)), dtype=torch.uint8).long()
