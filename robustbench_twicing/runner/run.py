"""From a plan to a finished run folder."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from robustbench_twicing.catalog.suites import suite_definition
from robustbench_twicing.data.dataset import Dataset
from robustbench_twicing.data.imagenet import ImageFiles
from robustbench_twicing.engine.contract import Queries
from robustbench_twicing.engine.preflight import SAMPLES, Finding
from robustbench_twicing.engine.preflight import preflight as look_at
from robustbench_twicing.errors import UserError
from robustbench_twicing.machine.device import choose_device
from robustbench_twicing.models.classifier import Classifier
from robustbench_twicing.results.manifest import cell_shards
from robustbench_twicing.results.store import RUNS, RunFolder, Shard
from robustbench_twicing.runner.environment import environment, made_by
from robustbench_twicing.runner.prepare import TUNED, Ready, prepare, with_frost
from robustbench_twicing.runner.resume import refuse_other_settings, take_over
from robustbench_twicing.spec.means import Means
from robustbench_twicing.spec.plan import Cell, Plan
from robustbench_twicing.tasks.images.attack import with_smaller_batches
from robustbench_twicing.tasks.images.sources import EMBEDDED
from robustbench_twicing.tasks.task import Progress, evaluations_of
from robustbench_twicing.tensors import Images, Labels


def default_folder(plan: Plan) -> Path:
    """Where a plan's run goes if the user names no folder: the same plan always goes to the same place, and resumes."""
    protocols = {threat.protocol: None for threat in plan.threats if threat.kind == "attack"}
    return RUNS / "-".join([plan.data.name, *protocols, plan.hash])


def run_plan(
    plan: Plan,
    means: Means,
    *,
    models: Mapping[str, Classifier] = MappingProxyType({}),
    begin: Callable[[dict[Cell, tuple[int, int]]], Progress] | None = None,
    notes: Mapping[str, Any] = MappingProxyType({}),
) -> RunFolder:
    """Do what is still to be done of a plan and return its folder: `means.out`, or `default_folder`.

    `models` are those that are in memory already. `begin` is told, for each cell with work left, (evaluations to do,
    evaluations in all), and returns who follows the progress. `notes` go into the manifest beside the plan. Unless
    `means.fresh`, finished shards are taken over from the other runs under results/runs (`resume.take_over`). Raises
    `UserError` if the folder holds a run with other settings, for a model that no attack can say anything about, and as
    `prepare`.
    """
    device = choose_device(means.device)
    plan = with_frost(plan, means.frost_dir)
    folder = RunFolder(means.out or default_folder(plan))
    refuse_other_settings(folder, plan)
    ready = prepare(plan, means, device, models)
    maker = made_by(device)
    with folder.locked():
        refuse_other_settings(folder, plan)  # once more, now that nobody else can begin a run here
        old = folder.manifest() if folder.exists() else {}
        pending = {
            cell: [shard for shard in cell_shards(entry) if folder.shard_file(shard) is None]
            for cell, entry in zip(plan.cells, ready.entries, strict=True)
        }
        if not means.fresh:
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
        progress = (begin or without_progress)(to_do)
        tuned, sizes = {key: old.get(key, {}) for key in TUNED}, old.get("batch_sizes", {})
        if computes:
            # As before, if it is continued: another path or size would change the last bits of the logits.
            known = old if maker in old.get("made_by", ()) else {}
            if known.get("compilation", {}).get("choice", "compiled" if means.compiles else "as loaded") == "compiled":
                progress.say("Compiling each model first, which takes seconds to minutes.")
            tuned = ready.tune(means, known)
            sizes = {name: model.batch_size for name, model in ready.models.items()}
        data = {t.id: _data(ready.source(t).dataset) for t in plan.threats}
        if computes:
            warnings = dict.fromkeys(chain.from_iterable(part["warnings"] for part in data.values()))
            for warning in list(warnings)[:3]:  # the report says how many more
                progress.say(warning)
        checked = old.get("preflight", {"ran": False, "findings": []})
        if computes:
            checked = _preflight(ready, pending) if means.preflight else {"ran": False, "findings": []}
            for finding in checked["findings"]:
                progress.say(f"{finding['model']}: {finding['says']} {finding['remedy']}")
        manifest = {
            "started": old.get("started", _now()),
            **notes,
            "plan": plan.model_dump(mode="json"),
            "plan_hash": plan.hash,
            "batch_sizes": sizes,
            **surroundings,
            **tuned,
            "made_by": makers,
            "preflight": checked,
            "data": data,
            "suites": {name: suite_definition(name).model_dump(mode="json") for name in _suites(plan)},
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


def _suites(plan: Plan) -> list[str]:
    """Every suite that something in the plan is read or scored by, the base data set's included."""
    named = [threat.classes_of if threat.kind == "clean" else getattr(threat, "suite", None) for threat in plan.threats]
    base = [] if plan.data.name == EMBEDDED else [plan.data.name]
    return list(dict.fromkeys([*base, *(name for name in named if name)]))


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
        "attention": card.attention,
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
