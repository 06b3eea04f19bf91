"""The loop of training: a job into weights, resumable after any update.

All randomness is a function of seed, update, sample and repeat, so a state needs no generators: weights, optimizer,
average and a number of updates say where a training is. On one process of a CPU, one that was killed and went on ends
with the weights, bit for bit, of one that was not.
"""

import itertools
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from timm.utils import ModelEmaV3
from torch import nn

from robustbench_twicing.errors import UserError
from robustbench_twicing.machine.surroundings import left_alone, plain_torch
from robustbench_twicing.machine.timing import first_unless_slower
from robustbench_twicing.train.adversarial import attacked
from robustbench_twicing.train.checkpoints import (
    newest_checkpoint,
    newest_state,
    refuse_another,
    save_state,
)
from robustbench_twicing.train.compiled import COMPILED, compiled, faster
from robustbench_twicing.train.interrupts import Asked, asked_to_stop
from robustbench_twicing.train.job import ONE_CPU, Equipment, Job, MicroBatch, Share, share_of
from robustbench_twicing.train.parts import (
    Mix,
    average_of,
    begin_draws,
    learning_rates,
    loss_of,
    mixing_of,
    network_of,
    optimizer_of,
    ramp_of,
)
from robustbench_twicing.train.processes import ALONE, Processes

_LOOK_EVERY = 20
"""Updates between two looks at the loss on a device that would have to be waited for."""


class Progress(NamedTuple):
    """How far a training is."""

    update: int
    """Updates done."""
    updates: int
    epoch: int
    """Whole epochs done."""
    epochs: int
    loss: float
    """Mean over the epoch so far, in nats, of this process; of the last whole epoch at its end."""
    images_per_second: float
    """Since it began or went on."""

    @property
    def is_whole_epoch(self) -> bool:
        """An epoch has just ended, and the loss is of all of it."""
        return self.epoch > 0 and self.update * self.epochs == self.epoch * self.updates


class Outcome(NamedTuple):
    """What came of a training: the weights of the last update. None were chosen by test accuracy."""

    weights: dict[str, torch.Tensor]
    averaged: dict[str, torch.Tensor] | None
    """The moving average, if the recipe keeps one."""
    test_correct: int
    averaged_correct: int | None
    train_loss: float
    """Mean over the last epoch, in nats, as the recipe computes it; of this process's images."""
    unreadable: tuple[str, ...]
    """Files that could not be read, and why."""
    seconds: float
    """Of this process; not of those before it that were interrupted."""
    remarks: tuple[str, ...]


class _Setting(NamedTuple):
    """What stays as it is during a training."""

    job: Job
    equipment: Equipment
    folder: Path | None
    share: Share
    processes: Processes


@dataclass(eq=False)
class _State:
    """A training between two updates."""

    network: Any
    optimizer: torch.optim.Optimizer
    average: ModelEmaV3 | None
    update: int = 0
    epoch_loss: float = 0.0
    """Sum over the images of the epoch so far."""
    last_loss: float = math.nan
    """Mean of the last whole epoch."""
    unreadable: dict[str, None] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    compiled: bool | None = None
    """The network is compiled; None while nobody has measured."""
    pieces: int = 1
    """Parts that a micro-batch is cut into, because whole it does not fit into the device's memory."""


def train(
    job: Job,
    equipment: Equipment = ONE_CPU,
    folder: Path | None = None,
    progress: Callable[[Progress], None] | None = None,
    processes: Processes = ALONE,
) -> Outcome:
    """Train, going on from the newest checkpoint in `folder` if there is one.

    Global state (random numbers, dtypes, signal handlers) is the caller's again afterwards. Raises `UserError` for what
    the data set, the recipe or the machine cannot do, for a checkpoint of another training, and for a loss that is no
    number; `KeyboardInterrupt` after Ctrl-C, with the last update in a checkpoint.
    """
    started = time.perf_counter()
    with left_alone(), plain_torch(), asked_to_stop() as asked:
        share = share_of(job, equipment, processes.rank, processes.world)
        state = _begun(job, equipment.device, folder)
        _carry_on(_Setting(job, equipment, folder, share, processes), state, asked, _Following(progress, state.update))
        correct, averaged_correct = _tested(job, equipment.device, state, share, processes)
        return Outcome(
            weights=_copied(state.network),
            averaged=_copied(state.average.module) if state.average else None,
            test_correct=correct,
            averaged_correct=averaged_correct,
            train_loss=state.last_loss,
            unreadable=tuple(state.unreadable),
            seconds=time.perf_counter() - started,
            remarks=tuple(state.remarks),
        )


def _begun(job: Job, device: torch.device, folder: Path | None) -> _State:
    """At the beginning, or as the newest checkpoint has it."""
    network = network_of(job).to(device)
    optimizer = optimizer_of(job.recipe, network)
    state = _State(network, optimizer, average_of(job.recipe, network))
    found = newest_state(folder) if folder else None
    if found is None:
        return state
    path, saved, damaged = found
    refuse_another(path, saved, job.identity)
    network.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    if state.average:
        state.average.module.load_state_dict(saved["model_ema"])
    state.update, state.epoch_loss, state.last_loss = saved["update"], saved["epoch_loss"], saved["last_loss"]
    state.unreadable, state.compiled = dict.fromkeys(saved["unreadable"]), saved.get("compiled")
    state.remarks += [f"{one} is damaged; went on from {path}" for one in damaged]
    return state


def _saved(job: Job, folder: Path, state: _State) -> None:
    if not all(bool(tensor.isfinite().all()) for tensor in state.network.state_dict().values()):
        raise _no_number(job, folder, state)
    content = {
        "model": state.network.state_dict(),
        **({"model_ema": state.average.module.state_dict()} if state.average else {}),
        "optimizer": state.optimizer.state_dict(),
        "update": state.update,
        "epoch_loss": state.epoch_loss,
        "last_loss": state.last_loss,
        "unreadable": list(state.unreadable),
        "compiled": state.compiled,
        "job": json.dumps(job.identity),
        "twicing_bench": {"training_recipe": job.statement, "seed": job.seed},
    }
    save_state(folder, state.update, content)


class _Following:
    """Tells a caller how far a training is."""

    def __init__(self, progress: Callable[[Progress], None] | None, first: int) -> None:
        self._progress, self._first, self._began = progress, first, time.perf_counter()

    def say(self, setting: _Setting, state: _State) -> None:
        if self._progress is None:
            return
        job = setting.job
        epoch, number = divmod(state.update, job.updates_per_epoch)
        mean = state.epoch_loss / (number * setting.share.images_of(job.recipe.batch)) if number else state.last_loss
        seconds = max(time.perf_counter() - self._began, 1e-9)
        speed = (state.update - self._first) * job.recipe.batch / seconds
        self._progress(Progress(state.update, job.updates, epoch, job.recipe.epochs, mean, speed))


def _carry_on(setting: _Setting, state: _State, asked: Asked, following: _Following) -> None:
    """Update after update to the end, with a checkpoint from time to time."""
    job, equipment, folder, share, processes = setting
    rates = learning_rates(job.recipe, state.optimizer, job.updates_per_epoch)
    ramp = ramp_of(job, state.network)
    mix, feed = mixing_of(job), job.data.feed(job, state.network, share, state.update)
    network = state.network
    if equipment.compiles and state.update < job.updates:
        first = next(feed)
        network, feed = _perhaps_compiled(setting, state, first), itertools.chain((first,), feed)
    model = processes.shared(network)
    device, saved_at = equipment.device, time.monotonic()
    pending = torch.zeros((), dtype=torch.float64, device=device)
    while state.update < job.updates:
        rates(state.update)
        ramp(state.update)
        pending += _updated(setting, state, model, mix, [next(feed) for _ in share.own])
        state.update += 1
        ends = state.update % job.updates_per_epoch == 0
        if device.type == "cpu" or ends or state.update % _LOOK_EVERY == 0:
            _look(setting, state, pending)
        if ends:
            state.last_loss = state.epoch_loss / (job.updates_per_epoch * share.images_of(job.recipe.batch))
            state.epoch_loss = 0.0
        following.say(setting, state)
        stop = asked()
        if stop or time.monotonic() - saved_at >= equipment.checkpoint_seconds:
            _look(setting, state, pending)
            if folder and processes.rank == 0:
                _saved(job, folder, state)
            saved_at = time.monotonic()
        if stop:
            raise KeyboardInterrupt
    ramp(job.updates)  # full, though the ramp be as long as the training


def _perhaps_compiled(setting: _Setting, state: _State, micro: MicroBatch) -> Any:
    """The network that computes: compiled where every process is faster so, or where the training has begun so."""
    if state.compiled is None:
        seconds = faster(setting.job, setting.equipment, state.network, micro)
        wanted = torch.tensor(float(first_unless_slower(seconds) == COMPILED), device=setting.equipment.device)
        state.compiled = int(setting.processes.summed(wanted).item()) == setting.processes.world
        said = ", ".join(f"{way} {1000 * took:.1f} ms" for way, took in seconds.items())
        state.remarks.append(f"{'compiled' if state.compiled else 'not compiled'}: a micro-batch took {said}")
    return compiled(state.network) if state.compiled else state.network


def _look(setting: _Setting, state: _State, pending: torch.Tensor) -> None:
    """Add the losses that the device has summed, which is waited for. Raises `UserError` if they are no number."""
    state.epoch_loss += pending.item()
    pending.zero_()
    if not math.isfinite(state.epoch_loss):
        raise _no_number(setting.job, setting.folder, state)


def _updated(
    setting: _Setting, state: _State, model: nn.Module, mix: Mix | None, micros: list[MicroBatch]
) -> torch.Tensor:
    """One update of the weights; returns the sum of the losses of this process's images."""
    state.unreadable.update(dict.fromkeys(file for micro in micros for file in micro.unreadable))
    recipe = setting.job.recipe
    while True:
        try:
            total = _gradients(setting, state, model, mix, micros)
            break
        except torch.OutOfMemoryError as error:
            if setting.processes.world > 1 or state.pieces >= len(micros[0].labels):
                raise UserError(
                    f"The device has no memory for {max(1, len(micros[0].labels) // state.pieces)} image(s) at once.",
                    "Pass a smaller --micro-batch; the batch stays the recipe's.",
                ) from error
            state.pieces *= 2
        state.optimizer.zero_grad()
        state.remarks.append(f"out of memory: micro-batches went through in {state.pieces} parts from then on")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    if recipe.optimizer.clip_norm:
        nn.utils.clip_grad_norm_(state.network.parameters(), recipe.optimizer.clip_norm)
    state.optimizer.step()
    if state.average:
        state.average.update(state.network)
    return total


def _gradients(
    setting: _Setting, state: _State, model: nn.Module, mix: Mix | None, micros: list[MicroBatch]
) -> torch.Tensor:
    """The mean gradient over the batch into the parameters; returns the sum of the losses."""
    job, equipment, _, share, processes = setting
    device, bfloat16 = equipment.device, equipment.precision == "bfloat16"
    whole = sum(len(micro.labels) for micro in micros)
    total = torch.zeros((), dtype=torch.float64, device=device)
    state.optimizer.zero_grad()
    for number, micro in zip(share.own, micros, strict=True):
        begin_draws(job.seed, state.update, number)
        images, targets = micro.images.to(device, non_blocking=True), micro.labels.to(device, non_blocking=True)
        if job.recipe.adversarial is not None:
            images = attacked(job, state.network, images, targets, (state.update, number), state.pieces)
        if mix is not None:
            images, targets = mix(images, targets)
        parts = list(zip(images.chunk(state.pieces), targets.chunk(state.pieces), strict=True))
        for place, (some, theirs) in enumerate(parts, start=1):
            last = micro is micros[-1] and place == len(parts)
            with processes.gathering(model, last), torch.autocast(device.type, torch.bfloat16, bfloat16):
                loss = loss_of(job.recipe, model(some), theirs)
                (loss * (len(some) / whole)).backward()
            total += loss.detach().double() * len(some)
    return total


def _no_number(job: Job, folder: Path | None, state: _State) -> UserError:
    last = newest_checkpoint(folder) if folder else None
    return UserError(
        f"{job.spec.name}, seed {job.seed}: the loss, or a weight, is no number after update {state.update} of "
        f"{job.updates} (epoch {(state.update - 1) // job.updates_per_epoch + 1}).",
        (f"The last good checkpoint is {last}. " if last else "")
        + "Lower the recipe's learning_rate, set its clip_norm, or leave --precision bfloat16 away.",
    )


def _tested(
    job: Job, device: torch.device, state: _State, share: Share, processes: Processes
) -> tuple[int, int | None]:
    """Right answers of the weights and of their average on the test images."""
    found: list[int | None] = []
    for network in (state.network, state.average.module if state.average else None):
        if network is None:
            found.append(None)
            continue
        network.eval()
        with torch.no_grad():
            correct, unreadable = job.data.count_right(network, device, share)
        state.unreadable.update(dict.fromkeys(unreadable))
        found.append(int(processes.summed(torch.tensor(float(correct), device=device)).item()))
    return found[0] or 0, found[1]


def _copied(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}
