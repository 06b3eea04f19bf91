"""A plan with its models loaded and its data open."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import torch

from robustbench_twicing.engine.corruptions import frost_pictures
from robustbench_twicing.errors import UserError
from robustbench_twicing.models.build import load_model
from robustbench_twicing.models.classifier import Classifier
from robustbench_twicing.models.faster.precision import in_precision
from robustbench_twicing.results.manifest import CellEntry, MeansUsed, Settled, Shard, samples_hash
from robustbench_twicing.results.store import RunFolder
from robustbench_twicing.runner.execute import execute
from robustbench_twicing.runner.schedule import folder_of, shard_size
from robustbench_twicing.runner.tune import find_batch_size, settle_attention, settle_compilation, settle_memory_format
from robustbench_twicing.spec.means import Means
from robustbench_twicing.spec.plan import Cell, Plan
from robustbench_twicing.spec.suite import SuiteSpec
from robustbench_twicing.spec.threats import Threat
from robustbench_twicing.spec.values import content_hash
from robustbench_twicing.tasks.images.attack import Roles
from robustbench_twicing.tasks.images.block import Work
from robustbench_twicing.tasks.images.sources import Source, open_sources
from robustbench_twicing.tasks.task import Progress


@dataclass(frozen=True, eq=False)
class Ready:
    """A plan with its models loaded and its data open: all that is left is to compute."""

    plan: Plan
    models: Mapping[str, Classifier]
    source: Callable[[Threat], Source]
    suite: Callable[[str], SuiteSpec]
    """A suite of the plan, with its classes."""
    entries: list[CellEntry]
    """For each of the plan's cells what the manifest says of it, shards included."""
    device: torch.device
    frost_dir: str | None
    _crafting: dict[tuple[str, str], Classifier] = field(default_factory=dict)

    def work(self, cell: Cell, pending: Sequence[Shard]) -> Work:
        """Some shards of a cell, to be done."""
        model, source = self.models[cell.model.name], self.source(cell.threat)
        return Work(cell, self._roles(cell), source.recipe(model.card.recipe), source, pending)

    def _roles(self, cell: Cell) -> Roles:
        model, threat = self.models[cell.model.name], cell.threat
        if threat.kind != "attack":
            return Roles(model, model, model)
        made_on = self.models[threat.source.name] if threat.source else model
        key = (made_on.card.spec.name, threat.precision)
        if key not in self._crafting:
            self._crafting[key] = in_precision(made_on, threat.precision)
        return Roles(judging=model, crafting=self._crafting[key], fallback=made_on)

    def common(self, cell: Cell) -> dict[str, Any]:
        """The columns that are the same in every record of a cell."""
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
            "recipe": source.recipe(model.card.recipe).id,
            **cell.threat.columns(),
            "seed": self.plan.seed,
            "device": self.device.type,
            "precision": cell.threat.precision if cell.threat.kind == "attack" else "float32",
            "source_weights_hash": source_model.card.weights_hash if source_model else "",
            "scored": content_hash([source.scored, source.accepted]),
        }

    def tune(self, means: Means, old: MeansUsed) -> MeansUsed:
        """Settle how models are evaluated: as the user says, else as `old` has it, else as measured.

        `means.compiles` allows a measurement, no more.
        """
        gradients = any(t.kind == "attack" and t.settings.gradients != 0 for t in self.plan.threats)
        models = list(self.models.values())
        memory_format = settle_memory_format(models, self.device, gradients, _choice(old.memory_format))
        attention = settle_attention(models, self.device, gradients, means.attention_path or _choice(old.attention))
        for name, model in self.models.items():
            size = means.batch_size or old.batch_sizes.get(name)
            model.batch_size = size or find_batch_size(model, self.device, gradients)
        choice = _choice(old.compilation) or (None if means.compiles else "as loaded")
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

    def execute(self, work: list[Work], folder: RunFolder, progress: Progress) -> None:
        """Do the work and keep its shards in `folder`."""
        # Threat by threat, so that what is computed once for a threat (a corruption) serves every model.
        work = sorted(work, key=lambda item: self.plan.threats.index(item.cell.threat))
        workers = os.cpu_count() or 1
        execute(
            work,
            folder,
            self.common,
            self.plan.seed,
            workers,
            self.device,
            self.frost_dir,
            progress,
        )


def prepare(plan: Plan, means: Means, device: torch.device, models: Mapping[str, Classifier]) -> Ready:
    """Load the models and open the data. `models` holds those that are already in memory. Raises `UserError`."""
    opened = open_sources(plan, means.directories)
    datasets = [
        opened.source(threat).dataset for threat in plan.threats
    ]  # a missing folder is said before weights are loaded
    loaded = {spec.name: models.get(spec.name) or load_model(spec, device) for spec in plan.all_models}
    if device.type != "cuda" and any(t.kind == "attack" and t.precision == "tf32" for t in plan.threats):
        raise UserError("TF32 is a mode of NVIDIA cards; this is a CPU.", "Pass --precision float32 or bfloat16.")
    for dataset, (name, model) in product(datasets, loaded.items()):
        if model.card.classes != dataset.classes:
            raise UserError(
                f"Model {name!r} has {model.card.classes} classes, data set {dataset.name!r} has {dataset.classes}.",
                "Choose a model that was trained for this data set.",
            )
    ready = Ready(plan, loaded, opened.source, opened.suite, [], device, means.frost_dir)
    ready.entries.extend(_entry(ready, cell) for cell in plan.cells)
    return ready


def _entry(ready: Ready, cell: Cell) -> CellEntry:
    common, dataset = ready.common(cell), ready.source(cell.threat).dataset
    samples = ready.plan.samples_for(cell.threat, len(dataset.labels))
    return CellEntry(
        model=cell.model.name,
        threat=cell.threat.id,
        threat_hash=cell.threat.hash,
        recipe=common["recipe"],
        folder=folder_of(cell, common),
        samples=samples,
        shard_size=shard_size(cell.threat),
        samples_hash=samples_hash(dataset.sample_ids[:samples], dataset.labels[:samples]),
    )


def _choice(settled: Settled | None) -> str | None:
    return settled.choice if settled else None


def with_frost(plan: Plan, frost_dir: str | None) -> Plan:
    """The plan with the fingerprint of the frost pictures that this machine has in each threat that uses them."""

    def resolved(threat: Threat) -> Threat:
        if threat.kind == "corruption" and threat.generated and threat.corruption == "frost":
            return threat.model_copy(update={"frost": frost_pictures(frost_dir).fingerprint})
        return threat

    return plan.model_copy(update={"threats": tuple(resolved(threat) for threat in plan.threats)})
