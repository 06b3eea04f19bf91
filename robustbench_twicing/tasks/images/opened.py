"""The task `images`: a plan with its models loaded and its pictures found."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import pandas as pd
import torch

from robustbench_twicing.catalog.suites import definition_of
from robustbench_twicing.data.dataset import Dataset
from robustbench_twicing.data.imagenet import ImageFiles
from robustbench_twicing.data.passes import read_ahead
from robustbench_twicing.engine.corruptions import frost_pictures
from robustbench_twicing.errors import UserError
from robustbench_twicing.models.build import load_model
from robustbench_twicing.models.classifier import Classifier
from robustbench_twicing.models.faster.precision import in_precision, tensor_cores
from robustbench_twicing.models.plugged import load_plugged
from robustbench_twicing.results.manifest import Shard
from robustbench_twicing.results.used import DataUsed, MeansUsed, ModelUsed, Settled
from robustbench_twicing.spec.means import Means
from robustbench_twicing.spec.models import ModelSpec
from robustbench_twicing.spec.plan import EMBEDDED, EMBEDDED_SIDE, Cell, Plan
from robustbench_twicing.spec.records import COLUMNS
from robustbench_twicing.spec.suite import SuiteDefinition, SuiteSpec
from robustbench_twicing.spec.threats import Threat
from robustbench_twicing.spec.values import content_hash
from robustbench_twicing.tasks.images.agreement import compared
from robustbench_twicing.tasks.images.attack import Roles
from robustbench_twicing.tasks.images.block import Block, Redone, Work
from robustbench_twicing.tasks.images.kept import agreeing, files_of, joined
from robustbench_twicing.tasks.images.preflight import look
from robustbench_twicing.tasks.images.sources import Source, open_sources
from robustbench_twicing.tasks.images.tune import (
    find_batch_size,
    settle_attention,
    settle_compilation,
    settle_memory_format,
)
from robustbench_twicing.tasks.task import BLOCK, NOBODY, Disagreement, Looks, Progress, Samples, Task

_DEAR, _FEW, _SOME = 300, 8, 128
"""From this many evaluations per sample on, a shard is kept small: a kill then loses minutes, not an hour. It is
smallest where one sample's own evaluations fill a batch; other attacks need samples side by side to fill the device."""


@dataclass(frozen=True, eq=False)
class OpenedImages:
    """A plan with its models loaded and its data open. An `Opened`."""

    plan: Plan
    models: Mapping[str, Classifier]
    source: Callable[[Threat], Source]
    suite: Callable[[str], SuiteSpec]
    """A suite of the plan, with its classes."""
    device: torch.device
    frost_dir: str | None
    _crafting: dict[tuple[str, str], Classifier] = field(default_factory=dict)

    def samples(self, threat: Threat) -> Samples:
        """As `Opened.samples`."""
        dataset = self.source(threat).dataset
        return Samples(dataset.sample_ids, dataset.labels)

    def shard_size(self, threat: Threat) -> int:
        """As `Opened.shard_size`; divides `BLOCK`."""
        if threat.kind != "attack" or threat.evaluations < _DEAR:
            return BLOCK
        return _FEW if threat.settings.side_by_side >= _FEW else _SOME

    def common(self, cell: Cell) -> dict[str, Any]:
        """As `Opened.common`."""
        model, source = self.models[cell.model.name], self.source(cell.threat)
        made_on = cell.threat.source if cell.threat.kind == "attack" else None
        source_model = self.models[made_on.name] if made_on else None
        return {
            "model": cell.model.name,
            "architecture": cell.model.architecture,
            "attention": model.card.attention,
            "weights_hash": model.card.weights_hash,
            "training_recipe": model.card.training_recipe,
            "training_seed": model.card.training_seed,
            "data": source.dataset.name,
            "data_fingerprint": source.dataset.fingerprint,
            "recipe": source.recipe(model.card.recipes).id,
            **cell.threat.columns(),
            "seed": self.plan.seed,
            "device": self.device.type,
            "precision": cell.threat.precision if cell.threat.kind == "attack" else "float32",
            "source_weights_hash": source_model.card.weights_hash if source_model else "",
            "scored": content_hash([source.scored, source.accepted]),
        }

    def data_used(self, threat: Threat) -> DataUsed:
        """As `Opened.data_used`."""
        return _data(self.source(threat).dataset)

    def models_used(self) -> dict[str, ModelUsed]:
        """As `Opened.models_used`."""
        return {
            spec.name: _model(spec, self.models[spec.name], self._image_size(spec.name))
            for spec in self.plan.all_models
        }

    def _image_size(self, model: str) -> int:
        """Width of the images that it is given: its recipe's crop, or else the size that it takes."""
        card = self.models[model].card
        return self.source(self.plan.threats[0]).recipe(card.recipes).crop or card.image_size

    def suites_used(self) -> dict[str, SuiteDefinition]:
        """As `Opened.suites_used`."""
        return {name: definition_of(self.suite(name)) for name in self.plan.suites}

    def tune(self, means: Means, known: MeansUsed) -> MeansUsed:
        """As `Opened.tune`; `means.compiles` allows a measurement, no more."""
        attacks = [threat for threat in self.plan.threats if threat.kind == "attack"]
        if self.device.type != "cuda" and any(threat.precision == "tf32" for threat in attacks):
            raise UserError("TF32 is a mode of NVIDIA cards; this is a CPU.", "Pass --precision float32 or bfloat16.")
        gradients = any(threat.settings.gradients != 0 for threat in attacks)
        models = list(self.models.values())
        memory_format = settle_memory_format(models, self.device, gradients, _choice(known.memory_format))
        attention = settle_attention(models, self.device, gradients, means.attention_path or _choice(known.attention))
        for name, model in self.models.items():
            size = means.batch_size or known.batch_sizes.get(name)
            model.batch_size = size or find_batch_size(model, self.device, gradients)
        choice = _choice(known.compilation) or (None if means.compiles else "as loaded")
        if choice != "as loaded":
            for cell in self.plan.cells:
                self._roles(cell)  # so that every model that attacks compute with is there
        crafting, compilation = settle_compilation(self._crafting, self.device, gradients, choice)
        self._crafting.update(crafting)
        return MeansUsed(
            batch_sizes={name: model.batch_size for name, model in self.models.items()},
            attention=attention,
            memory_format=memory_format,
            compilation=compilation,
        )

    def preflight(self, pending: Mapping[Cell, Sequence[Shard]]) -> Looks:
        """As `Opened.preflight`: on the first images that each model will be given."""
        return look(self.plan, self.models, self.source, self.device, pending)

    def records(
        self, pending: Mapping[Cell, Sequence[Shard]], progress: Progress, whole: bool = False
    ) -> Iterator[tuple[Cell, Shard, pd.DataFrame]]:
        """As `Opened.records`: a picture is decoded once however many models and threats need it."""
        # Threat by threat, so that what is computed once for a threat (a corruption) serves every model.
        cells = sorted(pending, key=lambda cell: self.plan.threats.index(cell.threat))
        work = [self._work(cell, pending[cell]) for cell in cells if pending[cell]]
        for dataset in {id(item.source.dataset): item.source.dataset for item in work}.values():
            some = [item for item in work if item.source.dataset is dataset]
            yield from self._of_one_dataset(dataset, some, progress, self._end(dataset) if whole else 0)

    def checked(
        self, recorded: Mapping[Cell, pd.DataFrame], progress: Progress
    ) -> Iterator[tuple[Cell, int, tuple[Disagreement, ...]]]:
        """As `Opened.checked`."""
        wanted = {cell: [int(position) for position in rows.index] for cell, rows in recorded.items()}
        for cell, done, errors in self._redone(wanted, progress):
            yield from compared(cell, recorded[cell], done, errors)

    def kept(self, recorded: Mapping[Cell, pd.DataFrame]) -> Iterator[tuple[Cell, int, Iterator[tuple[str, bytes]]]]:
        """As `Opened.kept`."""
        wanted = {cell: [int(position) for position in rows.index] for cell, rows in recorded.items()}
        parts: dict[Cell, list[Redone]] = {}
        left = {cell: len(places) for cell, places in wanted.items()}
        for cell, done, errors in self._redone(wanted, NOBODY):
            left[cell] -= len(errors) + (len(done.positions) if done else 0)
            parts.setdefault(cell, []).extend([agreeing(done, recorded[cell])] if done else [])
            if left[cell] == 0:
                found = parts.pop(cell)
                count = sum(len(part.positions) for part in found)
                yield cell, len(wanted[cell]) - count, files_of(joined(found, wanted[cell])) if count else iter(())

    def _redone(
        self, wanted: Mapping[Cell, Sequence[int]], progress: Progress
    ) -> Iterator[tuple[Cell, Redone | None, Mapping[int, str]]]:
        """The samples at these positions done again, block by block: those that can be read, and why others cannot."""
        left = {cell: len(positions) for cell, positions in wanted.items()}
        due: dict[tuple[int, int], dict[Cell, list[int]]] = {}
        for cell in sorted(wanted, key=lambda cell: self.plan.threats.index(cell.threat)):
            for place in sorted(wanted[cell]):
                block = (id(self.source(cell.threat).dataset), place // BLOCK)
                due.setdefault(block, {}).setdefault(cell, []).append(place)
        for asked in due.values():
            work = {cell: self._work(cell, ()) for cell in asked}
            needs = {cell: self._with_those_beside(cell, places) for cell, places in asked.items()}
            dataset = next(iter(work.values())).source.dataset
            recipes = list(dict.fromkeys(item.recipe for item in work.values()))
            with tensor_cores(allowed=False):
                batch = dataset.read(sorted(set().union(*needs.values())), recipes)
                made = Block(batch, self.device, self.plan.seed, self.frost_dir, keeps_images=True)
                for cell, places in asked.items():
                    can_be_read = [place for place in needs[cell] if place not in batch.errors]
                    done = made.redone(work[cell], can_be_read, progress).at(places) if can_be_read else None
                    yield cell, done, {place: batch.errors[place] for place in places if place in batch.errors}
                    left[cell] -= len(places)
                    if left[cell] == 0:
                        progress.finish(cell)

    def _with_those_beside(self, cell: Cell, positions: Sequence[int]) -> list[int]:
        """The positions, and those of the samples that these cannot be done without, in order."""
        settings = [member.settings for member in cell.threat.members] if cell.threat.kind == "attack" else []
        if not any(one.together for one in settings):
            return list(positions)
        size = self.shard_size(cell.threat)
        last = self.plan.samples_for(cell.threat, len(self.samples(cell.threat).labels))
        starts = dict.fromkeys(place // size * size for place in positions)
        return [place for start in starts for place in range(start, min(start + size, last))]

    def _end(self, dataset: Dataset) -> int:
        """How many samples of a data set the plan needs."""
        needs = (threat for threat in self.plan.threats if self.source(threat).dataset is dataset)
        return max(self.plan.samples_for(threat, len(dataset.labels)) for threat in needs)

    def _of_one_dataset(
        self, dataset: Dataset, work: Sequence[Work], progress: Progress, least: int
    ) -> Iterator[tuple[Cell, Shard, pd.DataFrame]]:
        """`least`: up to which sample at least a block is read."""
        recipes = list(dict.fromkeys(item.recipe for item in work))
        due: dict[int, list[tuple[Work, Shard]]] = {}
        for item in work:
            for shard in item.pending:
                due.setdefault(shard.start // BLOCK, []).append((item, shard))
        spans = [
            range(block * BLOCK, max(min(least, (block + 1) * BLOCK), *(shard.stop for _, shard in due[block])))
            for block in sorted(due)
        ]
        pin = self.device.type == "cuda"
        ahead = read_ahead(dataset, spans, recipes, os.cpu_count() or 1, pin_memory=pin)
        with closing(ahead) as batches, tensor_cores(allowed=False):
            for number, batch in zip(sorted(due), batches, strict=True):
                block = Block(batch, self.device, self.plan.seed, self.frost_dir)
                for item, shard in due[number]:
                    yield item.cell, shard, block.records(item, shard, progress)

    def _work(self, cell: Cell, pending: Sequence[Shard]) -> Work:
        """Some shards of a cell, to be done."""
        model, source = self.models[cell.model.name], self.source(cell.threat)
        return Work(cell, self._roles(cell), source.recipe(model.card.recipes), source, pending)

    def _roles(self, cell: Cell) -> Roles:
        model, threat = self.models[cell.model.name], cell.threat
        if threat.kind != "attack":
            return Roles(model, model, model)
        made_on = self.models[threat.source.name] if threat.source else model
        key = (made_on.card.spec.name, threat.precision)
        if key not in self._crafting:
            self._crafting[key] = in_precision(made_on, threat.precision)
        return Roles(judging=model, crafting=self._crafting[key], fallback=made_on)


def open_images(plan: Plan, means: Means, device: torch.device, models: Mapping[str, Classifier]) -> OpenedImages:
    """Load the models and find the pictures. `models` are those that are in memory already. Raises `UserError`."""
    sources = open_sources(plan, means.directories)
    # A missing folder is said before weights are loaded.
    datasets = [sources.source(threat).dataset for threat in plan.threats]
    side = EMBEDDED_SIDE if plan.data.name == EMBEDDED else None
    loaded = {
        spec.name: models.get(spec.name)
        or (load_plugged(spec, side, device) if spec.is_plugged else load_model(spec, device))
        for spec in plan.all_models
    }
    for dataset, (name, model) in product(datasets, loaded.items()):
        if model.card.classes != dataset.classes:
            raise UserError(
                f"Model {name!r} has {model.card.classes} classes, data set {dataset.name!r} has {dataset.classes}.",
                "Choose a model that was trained for this data set. NAME=CHECKPOINT makes a network with as many "
                "classes as the file has. Class folders that are some of ImageNet's: docs/add-a-suite.md.",
            )
    return OpenedImages(plan, loaded, sources.source, sources.suite, device, means.frost_dir)


def settled(plan: Plan, means: Means) -> Plan:
    """The plan with the fingerprint of the frost pictures that this machine has in each threat that uses them."""

    def resolved(threat: Threat) -> Threat:
        if threat.kind == "corruption" and threat.generated and threat.corruption == "frost":
            return threat.model_copy(update={"frost": frost_pictures(means.frost_dir).fingerprint})
        return threat

    return plan.model_copy(update={"threats": tuple(resolved(threat) for threat in plan.threats)})


def _choice(settled: Settled | None) -> str | None:
    return settled.choice if settled else None


def _data(dataset: Dataset) -> DataUsed:
    return DataUsed(
        name=dataset.name,
        fingerprint=dataset.fingerprint,
        samples=len(dataset.labels),
        classes=dataset.classes,
        warnings=tuple(dataset.warnings) if isinstance(dataset, ImageFiles) else (),
    )


def _model(spec: ModelSpec, model: Classifier, image_size: int) -> ModelUsed:
    card = model.card
    return ModelUsed(
        spec=spec,
        attention=card.attention,
        blocks=card.blocks,
        parameters=card.parameters,
        weights_hash=card.weights_hash,
        weights_note=card.weights_note,
        training_recipe=card.training_recipe,
        training_seed=card.training_seed,
        classes=card.classes,
        image_size=image_size,
        prepared_as=card.prepared_as,
        mean=tuple(model.mean.flatten().tolist()),
        std=tuple(model.std.flatten().tolist()),
    )


IMAGES = Task("images", COLUMNS, settled, open_images)
"""A sample is a picture with a class; it is right if the largest logit is an accepted class."""
