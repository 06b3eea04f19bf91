"""What every step is given: the device, how much to measure, where files go and until when."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch  # importing it takes seconds, which not every step needs

Row = dict[str, object]
"""One line of a step's table. Every row of a step says in `what` and `variant` what was measured."""


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    architectures: tuple[str, ...]
    """The first one is what steps with one model take."""
    side: int
    images: int
    """In a batch of an attack."""
    steps: int | None
    """Of each attack; None: as many as the table says."""
    turns: int
    batches: tuple[int, ...]
    """Of attention alone."""
    tokens: tuple[int, ...]
    heads: int
    pictures: int
    """To be corrupted."""
    severities: tuple[int, ...]
    corruptions: tuple[str, ...] | None
    """None: all."""
    jpegs: int
    workers: int


CARD = Scale(
    architectures=("deit_tiny_patch16_224", "deit_small_patch16_224"),
    side=224,
    images=256,
    steps=None,
    turns=2,
    batches=(64, 256),
    tokens=(197, 577),
    heads=6,
    pictures=1000,
    severities=(1, 2, 3, 4, 5),
    corruptions=None,
    jpegs=8192,
    workers=16,
)
REHEARSAL = Scale(
    architectures=("deit_digits_patch8_32",),
    side=32,
    images=4,
    steps=2,
    turns=1,
    batches=(2,),
    tokens=(17,),
    heads=1,
    pictures=4,
    severities=(3,),
    corruptions=("gaussian_noise", "fog"),
    jpegs=32,
    workers=1,
)
"""Every line of code in small, on a CPU. Its numbers mean nothing."""


@dataclass(frozen=True)
class Job:
    on: str
    """Name of the device."""
    scale: Scale
    out: Path
    """The folder for profiles."""
    seconds: float
    """That the step may take; it is killed then, and rows that it gave are kept."""
    began: float = field(default_factory=time.monotonic)

    @property
    def is_late(self) -> bool:
        """Nothing long should be begun."""
        return time.monotonic() - self.began > 0.8 * self.seconds

    @cached_property
    def device(self) -> "torch.device":
        import torch

        return torch.device(self.on)

    @property
    def is_cuda(self) -> bool:
        return self.on == "cuda"


def milliseconds(
    run: Callable[[], object], device: "torch.device", times: int = 10, seconds: float = 0.5
) -> list[float]:
    """Of single runs after a warm-up, at most `times`, and for about `seconds` at most."""
    from robustbench_twicing.machine.device import wait_for

    taken: list[float] = []
    for _ in range(2):
        run()
    began = time.perf_counter()
    while len(taken) < 2 or (len(taken) < 10 and time.perf_counter() - began < 0.5):
        wait_for(device)
        start = time.perf_counter()
        run()
        wait_for(device)
        taken.append(1000 * (time.perf_counter() - start))
    return taken


def spread(what: str, values: list[float], digits: int) -> Row:
    """Median, lowest and highest."""
    return {
        what: round(statistics.median(values), digits),
        f"{what}_lowest": round(min(values), digits),
        f"{what}_highest": round(max(values), digits),
    }
