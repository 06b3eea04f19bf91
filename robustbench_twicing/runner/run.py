"""From a plan to a finished run folder."""

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import chain, product
from pathlib import Path
from typing import Any

import torch

from robustbench_twicing.data.dataset import Dataset
from robustbench_twicing.data.imagenet import ImageFiles
from robustbench_twicing.engine.contract import Queries
from robustbench_twicing.engine.corruptions import frost_pictures
from robustbench_twicing.engine.preflight import SAMPLES, Finding
from robustbench_twicing.engine.preflight import preflight as look_at
from robustbench_twicing.errors import UserError
from robustbench_twicing.models.build import load_model
from robustbench_twicing.models.classifier import Classifier
from robustbench_twicing.models.precision import in_precision
from robustbench_twicing.plan import Cell, Plan
from robustbench_twicing.runner.attack import Roles, with_smaller_batches
from robustbench_twicing.runner.environment import environment, made_by
from robustbench_twicing.runner.execute import Progress, Source, Work, evaluations_of, execute
from robustbench_twicing.runner.resume import refuse_other_settings, take_over
from robustbench_twicing.runner.schedule import cell_shards, folder_of, shard_size
from robustbench_twicing.runner.sources import open_sources
from robustbench_twicing.runner.tune import find_batch_size, settle_attention, settle_compilation, settle_memory_format
from robustbench_twicing.specs import Threat
from robustbench_twicing.store import RUNS, RunFolder, Shard
from robustbench_twicing.tensors import Images, Labels

TUNED = ("memory_format", "attention", "compilation")
"""What the manifest says of how models are evaluated, beside their batch sizes."""


def default_folder(plan: Plan) -> Path:
    """Where a plan's run goes if the user names no folder: the same plan always goes to the same place, and resumes."""
    protocols = {threat.protocol: None for threat in plan.threats if threat.kind == "attack"}
    return RUNS / "-".join([plan.data.name, *protocols, plan.hash])


@dataclass(frozen=True, eq=False)
class Ready:
    """A plan with its models loaded and its data open: all that is left is to compute."""

    plan: Plan
    models: Mapping[str, Classifier]
    source: Callable[[Threat], Source]
    entries: list[dict[str, Any]]
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
            "twicing": model.card.twicing,
            "weights_hash": model.card.weights_hash,
            "data": source.dataset.name,
            "data_fingerprint": source.dataset.fingerprint,
            "recipe": source.recipe(model.card.recipe).id,
            **cell.threat.columns(),
            "seed": self.plan.seed,
            "device": self.device.type,
            "precision": cell.threat.precision if cell.threat.kind == "attack" else "float32",
            "source_weights_hash": source_model.card.weights_hash if source_model else "",
        }

    def tune(
        self, batch_size: int | None, path: str | None, compiles: bool, old: Mapping[str, Any]
    ) -> dict[str, dict[str, Any]]:
        """Settle how models are evaluated: as the user says, else as `old` (a manifest) has it, else as measured.

        Returns what the manifest says of it: `TUNED`. `compiles` allows a measurement, no more.
        """
        gradients = any(t.kind == "attack" and t.settings.gradients != 0 for t in self.plan.threats)
        known = old.get("attention", {}).get("path") if path is None else path
        models = list(self.models.values())
        memory_format = settle_memory_format(models, self.device, gradients, old.get("memory_format", {}).get("choice"))
        attention = settle_attention(models, self.device, gradients, known)
        for name, model in self.models.items():
            size = batch_size or old.get("batch_sizes", {}).get(name)
            model.batch_size = size or find_batch_size(model, self.device, gradients)
        choice = old.get("compilation", {}).get("choice", None if compiles else "as loaded")
        if choice != "as loaded":
            for cell in self.plan.cells:
                self._roles(cell)  # so that every model that attacks compute with is there
        crafting, compilation = settle_compilation(self._crafting, self.device, gradients, choice)
        self._crafting.update(crafting)
        return {"memory_format": memory_format, "attention": attention, "compilation": compilation}

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


def prepare(
    plan: Plan,
    directories: Mapping[str, Path],
    device: torch.device,
    models: Mapping[str, Classifier],
    frost_dir: str | None,
) -> Ready:
    """Load the models and open the data. `models` holds those that are already in memory.

    `directories` says where each suite on disk lies. Raises `UserError`.
    """
    source = open_sources(plan, directories)
    datasets = [source(threat).dataset for threat in plan.threats]  # a missing folder is said before weights are loaded
    loaded = {spec.name: models.get(spec.name) or load_model(spec, device) for spec in plan.all_models}
    if device.type != "cuda" and any(t.kind == "attack" and t.precision == "tf32" for t in plan.threats):
        raise UserError("TF32 is a mode of NVIDIA cards; this is a CPU.", "Pass --precision float32 or bfloat16.")
    for dataset, (name, model) in product(datasets, loaded.items()):
        if model.card.classes != dataset.classes:
            raise UserError(
                f"Model {name!r} has {model.card.classes} classes, data set {dataset.name!r} has {dataset.classes}.",
                "Choose a model that was trained for this data set.",
            )
    ready = Ready(plan, loaded, source, [], device, frost_dir)
    for cell in plan.cells:
        common = ready.common(cell)
        ready.entries.append(
            {
                "model": cell.model.name,
                "threat": cell.threat.id,
                "threat_hash": cell.threat.hash,
                "recipe": common["recipe"],
                "folder": folder_of(cell, common),
                "samples": plan.samples_for(cell.threat, len(source(cell.threat).dataset.labels)),
                "shard_size": shard_size(cell.threat),
            }
        )
    return ready


def run_plan(
    plan: Plan,
    out: Path | None,
    directories: Mapping[str, Path],
    device: torch.device,
    batch_size: int | None,
    models: Mapping[str, Classifier],
    begin: Callable[[dict[Cell, tuple[int, int]]], Progress],
    frost_dir: str | None = None,
    notes: Mapping[str, Any] | None = None,
    reuse: bool = True,
    preflight: bool = True,
    attention_path: str | None = None,
    compiles: bool = False,
) -> RunFolder:
    """Do what is still to be done of a plan and return its folder.

    `begin` is told, for each cell with work left, (evaluations to do, evaluations in all), and returns who follows the
    progress. `notes` go into the manifest beside the plan. `reuse` takes finished shards over from the other runs under
    results/runs (`resume.take_over`). `preflight` looks at each model that is to be attacked before anything is
    computed. `attention_path` forces "explicit" or "fused" instead of the fastest. `compiles`: let attacks compute with
    models that torch.compile has translated, if a warm-up finds them faster. Raises `UserError` if `out` holds a
    run with other settings, for a model that no attack can say anything about, and as `prepare`.
    """
    plan = with_frost(plan, frost_dir)
    folder = RunFolder(out or default_folder(plan))
    refuse_other_settings(folder, plan)
    ready = prepare(plan, directories, device, models, frost_dir)
    maker = made_by(device)
    with folder.locked():
        refuse_other_settings(folder, plan)  # once more, now that nobody else can begin a run here
        old = folder.manifest() if folder.exists() else {}
        pending = {
            cell: [shard for shard in cell_shards(entry) if folder.shard_file(shard) is None]
            for cell, entry in zip(plan.cells, ready.entries, strict=True)
        }
        if reuse:
            taken = take_over(folder, chain(*pending.values()), RUNS, maker)
            for name, count in Counter(taken.values()).items():
                folder.remarks.append(f"{count} shard(s) were taken over from the run {name}.")
            pending = {cell: [shard for shard in some if shard not in taken] for cell, some in pending.items()}
        makers, surroundings = list(old.get("made_by", [])), environment(device)
        computes = any(pending.values())
        if computes or not old:
            if maker not in makers:
                makers.append(maker)
            if len(makers) > 1:
                folder.remarks.append(_several_makers(makers))
        else:  # nothing is computed, so what was said about where it was computed stays
            surroundings |= {key: old[key] for key in surroundings if key in old}
        to_do = {}
        for cell, entry in zip(plan.cells, ready.entries, strict=True):
            left = sum(shard.stop - shard.start for shard in pending[cell])
            to_do[cell] = (evaluations_of(cell, left), evaluations_of(cell, entry["samples"]))
        progress = begin(to_do)
        tuned, sizes = {key: old.get(key, {}) for key in TUNED}, old.get("batch_sizes", {})
        if computes:
            # As before, if it is continued: another path or size would change the last bits of the logits.
            known = old if maker in old.get("made_by", ()) else {}
            if known.get("compilation", {}).get("choice", "compiled" if compiles else "as loaded") == "compiled":
                progress.say("Compiling each model first, which takes seconds to minutes.")
            tuned = ready.tune(batch_size, attention_path, compiles, known)
            sizes = {name: model.batch_size for name, model in ready.models.items()}
        data = {t.id: _data(ready.source(t).dataset) for t in plan.threats}
        if computes:
            warnings = dict.fromkeys(chain.from_iterable(part["warnings"] for part in data.values()))
            for warning in list(warnings)[:3]:  # the report says how many more
                progress.say(warning)
        checked = old.get("preflight", {"ran": False, "findings": []})
        if computes:
            checked = _preflight(ready, pending) if preflight else {"ran": False, "findings": []}
            for finding in checked["findings"]:
                progress.say(f"{finding['model']}: {finding['says']} {finding['remedy']}")
        manifest = {
            "started": old.get("started", _now()),
            **(notes or {}),
            "plan": plan.model_dump(mode="json"),
            "plan_hash": plan.hash,
            "batch_sizes": sizes,
            **surroundings,
            **tuned,
            "made_by": makers,
            "preflight": checked,
            "data": data,
            "models": {name: _card(model) for name, model in ready.models.items()},
            "cells": ready.entries,
        }
        if computes or not old:
            folder.write_manifest({**manifest, "status": "running"})
        ready.execute([ready.work(cell, some) for cell, some in pending.items() if some], folder, progress)
        finished = _now() if computes else old.get("finished", _now())
        folder.write_manifest({**manifest, "status": "finished", "finished": finished})
    return folder


def _preflight(ready: Ready, pending: Mapping[Cell, Sequence[Shard]]) -> dict[str, Any]:
    """What run.json says of the models that are still to be attacked. Raises `UserError` if one is not worth it."""
    attacked = {
        cell.model.name: (cell, cell.threat)
        for cell, shards in pending.items()
        if shards and cell.threat.kind == "attack"
    }
    gradients = any(threat.settings.gradients != 0 for threat in ready.plan.threats if threat.kind == "attack")
    findings: list[dict[str, Any]] = []
    for cell, threat in attacked.values():
        work = ready.work(cell, ())
        first = range(ready.plan.samples_for(threat, len(work.source.dataset.labels)))[:SAMPLES]
        batch = work.source.dataset.read(first, [work.recipe])
        if not batch.readable:
            continue
        labels = torch.tensor([work.source.dataset.labels[p] for p in batch.readable], device=ready.device)
        for model in {work.roles.judging, work.roles.fallback}:
            images = batch.images[work.recipe].to(ready.device)
            found = _look(model, images, labels, gradients)
            findings += [{"model": model.card.spec.name, **finding._asdict()} for finding in found]
    refused = [finding for finding in findings if finding["refuses"]]
    if refused:
        raise UserError(
            "The preflight check found what would make every number meaningless:\n"
            + "\n".join(f"  {f['model']}: {f['says']} {f['remedy']}" for f in refused),
            "Put it right, or pass --no-preflight to run all the same (the run folder will say so).",
        )
    return {"ran": True, "findings": findings}


def _look(model: Classifier, images: Images, labels: Labels, gradients: bool) -> list[Finding]:
    return with_smaller_batches(lambda size: look_at(Queries(model, size), images, labels, gradients), model)


def _several_makers(makers: Sequence[Mapping[str, Any]]) -> str:
    """What differs between the sessions that this run's records come from."""
    first, last = makers[0], makers[-1]
    packages = {**first["versions"], **last["versions"]}
    differ = [
        f"{name} {first['versions'].get(name)} → {last['versions'].get(name)}"
        for name in packages
        if first["versions"].get(name) != last["versions"].get(name)
    ]
    differ += [f"{key} {first[key]} → {last[key]}" for key in ("code", "device") if first[key] != last[key]]
    return f"This run was begun and continued under different conditions: {', '.join(differ)}."


def with_frost(plan: Plan, frost_dir: str | None) -> Plan:
    """The plan with the fingerprint of the frost pictures that this machine has in each threat that uses them."""

    def resolved(threat: Threat) -> Threat:
        if threat.kind == "corruption" and threat.generated and threat.corruption == "frost":
            return threat.model_copy(update={"frost": frost_pictures(frost_dir).fingerprint})
        return threat

    return plan.model_copy(update={"threats": tuple(resolved(threat) for threat in plan.threats)})


def _data(dataset: Dataset) -> dict[str, Any]:
    return {
        "name": dataset.name,
        "fingerprint": dataset.fingerprint,
        "samples": len(dataset.labels),
        "classes": dataset.classes,
        "warnings": list(dataset.warnings) if isinstance(dataset, ImageFiles) else [],
    }


def _card(model: Classifier) -> dict[str, Any]:
    card = model.card
    return {
        **{key: value for key, value in asdict(card).items() if key not in ("spec", "recipe")},
        **card.spec.model_dump(mode="json"),
        "twicing": card.twicing,
        "std": model.std.flatten().tolist(),
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


class _Silent:
    def advance(self, cell: Cell, evaluations: int) -> None:
        pass

    def finish(self, cell: Cell) -> None:
        pass

    def say(self, remark: str) -> None:
        pass


def without_progress(to_do: dict[Cell, tuple[int, int]]) -> Progress:
    """Follow nothing."""
    return _Silent()
