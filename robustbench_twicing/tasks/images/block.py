"""Records of the samples of one block: read once, corrupted or attacked, judged."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from robustbench_twicing.data.dataset import Batch, Dataset
from robustbench_twicing.engine.contract import Queries
from robustbench_twicing.models.classifier import Classifier
from robustbench_twicing.results.manifest import Shard
from robustbench_twicing.spec.models import Recipe
from robustbench_twicing.spec.plan import Cell
from robustbench_twicing.spec.threats import Threat
from robustbench_twicing.tasks.images.attack import Attacks, Outcome, Roles, as_kept, with_smaller_batches
from robustbench_twicing.tasks.images.judge import Judgement, Samples
from robustbench_twicing.tasks.images.sources import Source
from robustbench_twicing.tasks.task import Progress, evaluations_of


@dataclass(frozen=True)
class Work:
    """One cell and the shards of it that are still to be done."""

    cell: Cell
    roles: Roles
    recipe: Recipe
    source: Source
    pending: Sequence[Shard]

    @property
    def model(self) -> Classifier:
        """The model whose cell this is."""
        return self.roles.judging


class Redone(NamedTuple):
    """Some samples of a cell, done again."""

    cell: Cell
    positions: tuple[int, ...]
    """Of the samples in the data set's order."""
    table: pd.DataFrame
    """A row for each, without the columns that are common to the cell."""
    images: torch.Tensor
    """(samples, 3, H, W) float32 on the CPU: what was judged, in the space of the threat."""
    clean: torch.Tensor
    """As `images`, in pixels: what the threat was done to."""
    samples: Samples
    """What may answer, and what is right."""
    model: Classifier
    """Who was judged."""

    def at(self, positions: Sequence[int]) -> "Redone":
        """Some of them."""
        rows = [row for row, position in enumerate(self.positions) if position in set(positions)]
        return self._replace(
            positions=tuple(self.positions[row] for row in rows),
            table=self.table.iloc[rows].reset_index(drop=True),
            images=self.images[rows],
            clean=self.clean[rows],
            samples=self.samples.take(rows),
        )


class Block:
    """Samples that were read together. What several models or threats need of them is computed once."""

    def __init__(
        self, batch: Batch, device: torch.device, seed: int, frost_dir: str | None, keeps_images: bool = False
    ) -> None:
        self.batch = batch
        self.device = device
        self.seed = seed
        self.frost_dir = frost_dir
        self._attacks = Attacks(seed, keeps_images)
        self._samples: dict[tuple[Source, Recipe], Samples] = {}
        self._clean: dict[tuple[Classifier, Source], Judgement] = {}
        self._corrupted: dict[tuple[Source, Threat, tuple[int, ...]], Samples] = {}

    def records(self, work: Work, shard: Shard, progress: Progress) -> pd.DataFrame:
        """Records of a shard, without the columns that are common to its cell."""
        began = time.perf_counter()
        here = range(shard.start, shard.stop)
        rows = [row for row, position in enumerate(self.batch.readable) if position in here]
        samples, judged = self._judged(work, rows)
        table = _table(samples, _evaluate(work, samples, judged, self._attacks, progress))
        unread = [position for position in here if position in self.batch.errors]
        table = _with_unreadable(table, work.source.dataset, unread, self.batch.errors)
        table = table.iloc[np.argsort([*(self.batch.readable[row] for row in rows), *unread])]  # in the data's order
        return table.assign(seconds=(time.perf_counter() - began) / len(table))

    def redone(self, work: Work, positions: Sequence[int], progress: Progress) -> Redone:
        """Some samples, at least one of which could be read, with their images. Only of a block that keeps images."""
        rows = [row for row, position in enumerate(self.batch.readable) if position in set(positions)]
        samples, judged = self._judged(work, rows)
        outcome = _evaluate(work, samples, judged, self._attacks, progress)
        attacked = work.cell.threat.kind == "attack"
        images = torch.from_numpy(outcome.images if attacked else as_kept(samples.images)).permute(3, 0, 1, 2)
        clean = self._samples[work.source, work.recipe].take(rows)
        return Redone(
            cell=work.cell,
            positions=tuple(self.batch.readable[row] for row in rows),
            table=_table(samples, outcome),
            images=images.contiguous(),
            clean=clean.images.cpu(),
            samples=samples,
            model=work.model,
        )

    def _judged(self, work: Work, rows: list[int]) -> tuple[Samples, Judgement]:
        """Some of the samples, corrupted if the threat says so, and what the model says of them."""
        source, threat = work.source, work.cell.threat
        if (source, work.recipe) not in self._samples:
            self._samples[source, work.recipe] = _read_samples(source, work.recipe, self.batch, self.device)
        whole = self._samples[source, work.recipe]
        if threat.kind == "corruption" and threat.generated:
            made = (source, threat, tuple(rows))
            if made not in self._corrupted:
                # Only the last one is kept: the work comes threat by threat, so it serves every model.
                self._corrupted = {made: whole.take(rows).corrupted(threat, self.seed, self.frost_dir)}
            samples = self._corrupted[made]
            return samples, _judge_all(work.model, samples)
        if (work.model, source) not in self._clean:
            self._clean[work.model, source] = _judge_all(work.model, whole)
        return whole.take(rows), self._clean[work.model, source].take(rows)


def _read_samples(source: Source, recipe: Recipe, batch: Batch, device: torch.device) -> Samples:
    dataset = source.dataset
    labels = torch.tensor([dataset.labels[p] for p in batch.readable], dtype=torch.int64)
    right = torch.zeros(len(labels), dataset.classes, dtype=torch.bool)
    for row, position in enumerate(batch.readable):
        right[row, list(source.accepted[position]) if source.accepted else dataset.labels[position]] = True
    ids = [dataset.sample_ids[position] for position in batch.readable]
    images = batch.images[recipe].to(device, non_blocking=True)
    return Samples(images, labels.to(device), right.to(device), ids, source.scored)


def _judge_all(model: Classifier, samples: Samples) -> Judgement:
    if not samples.ids:  # no image of the block could be read, and no model takes an empty batch
        return samples.judged(samples.images.new_empty((0, model.card.classes)))

    def judged(size: int) -> Judgement:
        return samples.judged(Queries(model, size)(samples.images))

    return with_smaller_batches(judged, model)


def _evaluate(work: Work, samples: Samples, clean: Judgement, attacks: Attacks, progress: Progress) -> Outcome:
    """What becomes of some samples under one threat."""
    threat, count = work.cell.threat, len(samples.ids)
    if threat.kind != "attack":
        outcome = Outcome.untouched(clean)
        outcome.spent[0] = 1
        progress.advance(work.cell, count)
        if threat.kind == "corruption":
            outcome.distances[:] = np.nan
        return outcome

    worst_case = threat.rules.iterate == "best"
    attacked = np.flatnonzero(clean.correct if worst_case else clean.error == "")
    total, done = evaluations_of(work.cell, count), 0

    def tick(evaluations: int) -> None:
        nonlocal done
        step = min(evaluations, total - done)
        done += step
        progress.advance(work.cell, step)

    outcome = attacks.untouched(work.roles, threat, samples, clean.take(range(count)))
    outcome.spent[0] = 1
    if len(attacked):
        rows = attacked.tolist()
        outcome.put(attacked, attacks(work.roles, threat, samples.take(rows), clean.take(rows), tick))
    if worst_case:
        outcome.judgement.correct &= clean.correct
        outcome.judgement.correct_unmasked &= clean.correct_unmasked
        outcome.correct_8bit &= clean.correct
    progress.advance(work.cell, total - done)
    return outcome


def _table(samples: Samples, outcome: Outcome) -> pd.DataFrame:
    judged = outcome.judgement
    failed = judged.error != ""
    return pd.DataFrame(
        {
            "sample_id": pd.array(list(samples.ids), dtype=object),
            "label": samples.labels.cpu().numpy(),
            "status": np.where(failed, "failed", "ok").astype(object),
            "error": judged.error,
            "prediction": np.where(failed, -1, judged.prediction),
            "correct": judged.correct & ~failed,
            "correct_unmasked": judged.correct_unmasked & ~failed,
            "top5_correct": judged.top5_correct & ~failed,
            "correct_8bit": outcome.correct_8bit & ~failed,
            "margin": judged.margin,
            "loss": judged.loss,
            "brier": judged.brier,
            "confidence": judged.confidence,
            "linf_distance": outcome.distances[0],
            "l2_distance": outcome.distances[1],
            "rejected": outcome.rejected,
            "forwards": outcome.spent[0],
            "backwards": outcome.spent[1],
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
            "correct_8bit": False,
            "margin": nothing,
            "loss": nothing,
            "brier": nothing,
            "confidence": nothing,
            "linf_distance": nothing,
            "l2_distance": nothing,
            "rejected": False,
            "forwards": 0,
            "backwards": 0,
        }
    )
    return pd.concat([table, rows], ignore_index=True) if len(table) else rows
