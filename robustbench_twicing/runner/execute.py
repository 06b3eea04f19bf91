"""Carry out a plan: read each sample once, feed every model and every threat that needs it, keep finished shards."""

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import pandas as pd
import torch

from robustbench_twicing.data.dataset import Batch, Dataset
from robustbench_twicing.data.passes import read_ahead
from robustbench_twicing.engine.algorithms import ALGORITHMS
from robustbench_twicing.engine.contract import Queries
from robustbench_twicing.engine.corruptions import corrupt
from robustbench_twicing.engine.losses import cross_entropy_loss, margin
from robustbench_twicing.engine.verify import verify
from robustbench_twicing.errors import UserError
from robustbench_twicing.models.classifier import Classifier
from robustbench_twicing.plan import Cell
from robustbench_twicing.runner.schedule import BLOCK
from robustbench_twicing.seeding import Draws
from robustbench_twicing.specs import AttackThreat, CorruptionThreat, Recipe, Threat
from robustbench_twicing.store import RunFolder, Shard
from robustbench_twicing.tensors import Images, Labels, Logits

Result = TypeVar("Result")


@runtime_checkable  # the test run checks types at run time
class Progress(Protocol):
    """Who wants to know how far the work is."""

    def advance(self, cell: Cell, evaluations: int) -> None:
        """Some of the cell's evaluations are done (of `evaluations_of` in all)."""

    def finish(self, cell: Cell) -> None:
        """The cell's last shard is on the disk."""


@dataclass(frozen=True, eq=False)
class Source:
    """Where the images of a threat come from, and who may answer."""

    dataset: Dataset
    recipe: Callable[[Recipe], Recipe]
    """The recipe for a model, given the model's own."""
    scored: tuple[int, ...] | None = None
    """The logits that may answer, ascending; None for all of them."""
    accepted: tuple[tuple[int, ...], ...] | None = None
    """Classes that count as right for each sample; None where only its label does."""


@dataclass(frozen=True)
class Work:
    """One cell and the shards of it that are still to be done."""

    cell: Cell
    model: Classifier
    recipe: Recipe
    source: Source
    pending: Sequence[Shard]


@dataclass
class Judgement:
    """What a model says of some images, sample by sample (numpy, on the CPU)."""

    prediction: np.ndarray
    correct: np.ndarray
    correct_unmasked: np.ndarray
    top5_correct: np.ndarray
    margin: np.ndarray
    loss: np.ndarray
    confidence: np.ndarray
    error: np.ndarray
    """Empty where the logits are finite."""

    def take(self, rows: Sequence[int]) -> "Judgement":
        """The judgement of some of the samples, a copy."""
        return Judgement(**{name: column[rows] for name, column in vars(self).items()})


def evaluations_of(cell: Cell, samples: int) -> int:
    """Evaluations of the model that a cell costs at most; for progress and estimates."""
    threat = cell.threat
    return samples * (threat.settings.evaluations if threat.kind == "attack" else 1)


def judge(logits: Logits, labels: Labels, right: torch.Tensor, scored: Sequence[int] | None = None) -> Judgement:
    """Compare logits with the truth. Logits that are not finite give an error and no answer.

    `right` (batch, classes) bool: the answers that count as right. Of `scored` logits only, if it is given.
    """
    finite = logits.isfinite().all(1)
    all_safe = torch.where(finite[:, None], logits, torch.zeros_like(logits)).double()
    safe = all_safe
    if scored is not None:
        answers = torch.zeros(logits.shape[1], dtype=torch.bool, device=logits.device)
        answers[list(scored)] = True
        safe = all_safe.masked_fill(~answers, float("-inf"))
    prediction = safe.argmax(1)
    top5 = safe.topk(min(5, safe.shape[1]), dim=1).indices

    def counts(answer: torch.Tensor) -> torch.Tensor:
        return right.gather(1, answer).any(1)

    columns = {
        "prediction": torch.where(finite, prediction, -1),
        "correct": finite & counts(prediction[:, None]),
        "correct_unmasked": finite & counts(all_safe.argmax(1, keepdim=True)),
        "top5_correct": finite & counts(top5),
        "margin": torch.where(finite, margin(safe, labels), torch.nan),
        "loss": torch.where(finite, cross_entropy_loss(safe, labels), torch.nan),
        "confidence": torch.where(finite, safe.softmax(1).amax(1), torch.nan),
    }
    error = np.where(finite.cpu().numpy(), "", "the model's logits are not finite").astype(object)
    return Judgement(**{name: column.cpu().numpy() for name, column in columns.items()}, error=error)


@dataclass(frozen=True)
class _Samples:
    """Samples of one block that could be read, as one model's recipe makes them, on the model's device."""

    images: Images
    labels: Labels
    right: torch.Tensor
    ids: Sequence[str]
    scored: tuple[int, ...] | None

    def take(self, rows: Sequence[int]) -> "_Samples":
        index = list(rows)
        ids = [self.ids[row] for row in index]
        return _Samples(self.images[index], self.labels[index], self.right[index], ids, self.scored)

    def judged(self, logits: Logits) -> Judgement:
        return judge(logits, self.labels, self.right, self.scored)

    def corrupted(self, threat: CorruptionThreat, seed: int, frost_dir: str | None) -> "_Samples":
        images = self.images
        if len(images):
            images = corrupt(images, threat.corruption, threat.severity, seed, self.ids, threat.jpeg_quality, frost_dir)
        return replace(self, images=images)


def execute(
    work: Sequence[Work],
    folder: RunFolder,
    common: Callable[[Cell], dict[str, Any]],
    seed: int,
    batch_size: int,
    workers: int,
    device: torch.device,
    frost_dir: str | None,
    progress: Progress,
) -> None:
    """Do all pending shards. `common(cell)` gives the columns that are the same in every record of a cell.

    Each source is read once: a sample is decoded once however many models and threats need it. A shard is written as
    soon as it is finished, so a stop at any moment loses at most the shard at work.
    """
    left = {item.cell: len(item.pending) for item in work}
    for dataset in {id(item.source.dataset): item.source.dataset for item in work}.values():
        mine = [item for item in work if item.source.dataset is dataset]
        recipes = list(dict.fromkeys(item.recipe for item in mine))
        due: dict[int, list[tuple[Work, Shard]]] = {}
        for item in mine:
            for shard in item.pending:
                due.setdefault(shard.start // BLOCK, []).append((item, shard))
        spans = [range(block * BLOCK, max(shard.stop for _, shard in due[block])) for block in sorted(due)]
        with closing(read_ahead(dataset, spans, recipes, workers, pin_memory=device.type == "cuda")) as batches:
            for number, batch in zip(sorted(due), batches, strict=True):
                block = _Block(batch, device, seed, batch_size, frost_dir)
                for item, shard in due[number]:
                    folder.write_shard(shard, block.records(item, shard, progress).assign(**common(item.cell)))
                    left[item.cell] -= 1
                    if left[item.cell] == 0:
                        progress.finish(item.cell)


class _Block:
    """Samples that were read together. What several models or threats need of them is computed once."""

    def __init__(self, batch: Batch, device: torch.device, seed: int, batch_size: int, frost_dir: str | None) -> None:
        self.batch = batch
        self.device = device
        self.seed = seed
        self.batch_size = batch_size
        self.frost_dir = frost_dir
        self._samples: dict[tuple[Source, Recipe], _Samples] = {}
        self._clean: dict[tuple[Classifier, Source], Judgement] = {}
        self._corrupted: dict[tuple[Source, Threat, Shard], _Samples] = {}

    def records(self, work: Work, shard: Shard, progress: Progress) -> pd.DataFrame:
        """Records of a shard, without the columns that are common to its cell."""
        began = time.perf_counter()
        here = range(shard.start, shard.stop)
        rows = [row for row, position in enumerate(self.batch.readable) if position in here]
        samples, judged = self._judged(work, shard, rows)
        table = _evaluate(work, samples, judged, self.seed, self.batch_size, progress)
        unread = [position for position in here if position in self.batch.errors]
        table = _with_unreadable(table, work.source.dataset, unread, self.batch.errors)
        return table.assign(seconds=(time.perf_counter() - began) / len(table))

    def _judged(self, work: Work, shard: Shard, rows: list[int]) -> tuple["_Samples", Judgement]:
        """The samples of a shard, corrupted if the threat says so, and what the model says of them."""
        source, threat = work.source, work.cell.threat
        if (source, work.recipe) not in self._samples:
            self._samples[source, work.recipe] = _samples(source, work.recipe, self.batch, self.device)
        whole = self._samples[source, work.recipe]
        if threat.kind == "corruption" and threat.generated:
            made = (source, threat, shard._replace(cell=""))
            if made not in self._corrupted:
                # Only the last one is kept: the work comes threat by threat, so it serves every model.
                self._corrupted = {made: whole.take(rows).corrupted(threat, self.seed, self.frost_dir)}
            samples = self._corrupted[made]
            return samples, _judge_all(work.model, samples, self.batch_size)
        if (work.model, source) not in self._clean:
            self._clean[work.model, source] = _judge_all(work.model, whole, self.batch_size)
        return whole.take(rows), self._clean[work.model, source].take(rows)


def _samples(source: Source, recipe: Recipe, batch: Batch, device: torch.device) -> _Samples:
    dataset = source.dataset
    labels = torch.tensor([dataset.labels[p] for p in batch.readable], dtype=torch.int64)
    right = torch.zeros(len(labels), dataset.classes, dtype=torch.bool)
    for row, position in enumerate(batch.readable):
        right[row, list(source.accepted[position]) if source.accepted else dataset.labels[position]] = True
    ids = [dataset.sample_ids[position] for position in batch.readable]
    images = batch.images[recipe].to(device, non_blocking=True)
    return _Samples(images, labels.to(device), right.to(device), ids, source.scored)


def _judge_all(model: Classifier, samples: _Samples, batch_size: int) -> Judgement:
    def judged(size: int) -> Judgement:
        return samples.judged(Queries(model, size)(samples.images))

    return _with_smaller_batches(judged, batch_size)


def _evaluate(
    work: Work, samples: _Samples, clean: Judgement, seed: int, batch_size: int, progress: Progress
) -> pd.DataFrame:
    """Records of some samples under one threat, without the columns that are common to the cell."""
    threat, count = work.cell.threat, len(samples.ids)
    distances, spent = np.full((2, count), 0.0 if threat.kind != "corruption" else np.nan), np.zeros((2, count), int)
    spent[0] = 1
    if threat.kind != "attack":
        progress.advance(work.cell, count)
        return _table(samples, clean, distances, spent)

    worst_case = threat.rules.iterate == "best"
    attacked = np.flatnonzero(clean.correct if worst_case else clean.error == "").tolist()
    total, done = evaluations_of(work.cell, count), 0

    def tick(evaluations: int) -> None:
        nonlocal done
        step = min(evaluations, total - done)
        done += step
        progress.advance(work.cell, step)

    outcome = clean
    if len(attacked):
        some = samples.take(attacked)
        draws = Draws(seed, tuple(some.ids), threat.id)
        verdict, some_distances, some_spent = _with_smaller_batches(
            lambda size: _attack(work.model, some, threat, draws, size, tick), batch_size
        )
        outcome = clean.take(range(count))
        for name, column in vars(verdict).items():
            getattr(outcome, name)[attacked] = column
        distances[:, attacked] = some_distances
        spent[:, attacked] += some_spent
    if worst_case:
        outcome.correct &= clean.correct
        outcome.correct_unmasked &= clean.correct_unmasked
    progress.advance(work.cell, total - done)
    return _table(samples, outcome, distances, spent)


def _attack(
    model: Classifier,
    samples: _Samples,
    threat: AttackThreat,
    draws: Draws,
    batch_size: int,
    tick: Callable[[int], None],
) -> tuple[Judgement, np.ndarray, np.ndarray]:
    """Attack, trust nothing of what came back, and judge it: (judgement, (linf, l2), (forwards, backwards))."""
    space = threat.rules.space
    queries = Queries(model.in_space(space), batch_size, tick)
    inputs = samples.images if space == "pixel" else model.normalize(samples.images)
    targets = samples.labels if threat.rules.labels == "true" else queries(inputs).argmax(1)
    perturbed = ALGORITHMS[threat.settings.algorithm](queries, inputs, targets, threat, draws)
    checked = verify(perturbed, inputs, threat)
    verdict = samples.judged(queries(checked.images))
    broken = np.array(checked.reasons, dtype=object)
    verdict.error = np.where(verdict.error == "", broken, verdict.error)
    distances = torch.stack((checked.linf, checked.l2)).cpu().numpy()
    return verdict, distances, torch.stack((perturbed.forwards, perturbed.backwards)).cpu().numpy()


def _table(samples: _Samples, outcome: Judgement, distances: np.ndarray, spent: np.ndarray) -> pd.DataFrame:
    """`distances` (linf, l2) and `spent` (forwards, backwards) have a column for each sample."""
    failed = outcome.error != ""
    return pd.DataFrame(
        {
            "sample_id": pd.array(list(samples.ids), dtype=object),
            "label": samples.labels.cpu().numpy(),
            "status": np.where(failed, "failed", "ok").astype(object),
            "error": outcome.error,
            "prediction": np.where(failed, -1, outcome.prediction),
            "correct": outcome.correct & ~failed,
            "correct_unmasked": outcome.correct_unmasked & ~failed,
            "top5_correct": outcome.top5_correct & ~failed,
            "margin": outcome.margin,
            "loss": outcome.loss,
            "confidence": outcome.confidence,
            "linf_distance": distances[0],
            "l2_distance": distances[1],
            "forwards": spent[0],
            "backwards": spent[1],
        }
    )


def _with_unreadable(table: pd.DataFrame, dataset: Dataset, positions: list[int], errors: Any) -> pd.DataFrame:
    """Add a `failed` record for each sample that could not be read."""
    if not positions:
        return table
    nothing = float("nan")
    rows = pd.DataFrame(
        {
            "sample_id": [dataset.sample_ids[p] for p in positions],
            "label": [dataset.labels[p] for p in positions],
            "status": "failed",
            "error": [errors[p] for p in positions],
            "prediction": -1,
            "correct": False,
            "correct_unmasked": False,
            "top5_correct": False,
            "margin": nothing,
            "loss": nothing,
            "confidence": nothing,
            "linf_distance": nothing,
            "l2_distance": nothing,
            "forwards": 0,
            "backwards": 0,
        }
    )
    return pd.concat([table, rows], ignore_index=True) if len(table) else rows


def _with_smaller_batches(compute: Callable[[int], Result], batch_size: int) -> Result:
    """`compute(batch_size)`, halving the batch as often as the device runs out of memory. Draws do not change."""
    while True:
        try:
            return compute(batch_size)
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
            if batch_size == 1:
                raise UserError(
                    "The device runs out of memory with a single image.",
                    "Close other programs that use it, choose a smaller model, or pass --device cpu.",
                ) from None
            batch_size = max(1, batch_size // 2)
