"""From a plan to a finished run folder."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any

from robustbench_twicing.catalog.suites import definition_of
from robustbench_twicing.data.dataset import Dataset
from robustbench_twicing.data.imagenet import ImageFiles
from robustbench_twicing.machine.device import choose_device
from robustbench_twicing.machine.surroundings import plain_torch
from robustbench_twicing.models.classifier import Classifier
from robustbench_twicing.results.acceptance import lacking_of, refuse_lacking
from robustbench_twicing.results.manifest import (
    DataUsed,
    Maker,
    Manifest,
    MeansUsed,
    ModelUsed,
    Shard,
)
from robustbench_twicing.results.store import RUNS, RunFolder
from robustbench_twicing.runner.environment import environment, made_by
from robustbench_twicing.runner.preflight import as_said, kept, look, taking_part
from robustbench_twicing.runner.prepare import Ready, prepare, with_frost
from robustbench_twicing.runner.resume import refuse_other_settings, take_over
from robustbench_twicing.spec.means import Means
from robustbench_twicing.spec.models import ModelSpec
from robustbench_twicing.spec.plan import Cell, Plan
from robustbench_twicing.tasks.task import Progress, evaluations_of


def default_folder(plan: Plan) -> Path:
    """Where a plan's run goes if the user names no folder: the same plan always goes to the same place, and resumes."""
    protocols = {threat.protocol: None for threat in plan.threats if threat.kind == "attack"}
    return RUNS / "-".join([plan.data.name, *protocols, plan.hash])


@plain_torch()
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
        old = folder.manifest() if folder.exists() else None
        draft = _draft(ready, old, maker, notes)
        pending, taken = _pending(ready, folder, draft, maker, not means.fresh)
        computes = any(pending.values())
        if computes or old is None:
            manifest = draft.model_copy(update=environment(device))
            if maker not in draft.made_by:
                manifest = manifest.model_copy(update={"made_by": (*draft.made_by, maker)})
            if len(manifest.made_by) > 1:
                folder.remarks.append(_several_makers(manifest.made_by))
        else:  # nothing is computed, so what was said about where it was computed stays
            manifest = draft
        to_do = {}
        for cell, entry in zip(plan.cells, ready.entries, strict=True):
            left = sum(shard.stop - shard.start for shard in pending[cell])
            to_do[cell] = (evaluations_of(cell, left), evaluations_of(cell, entry.samples))
        progress = (begin or without_progress)(to_do)
        looks = kept(ready, [*(RunFolder(RUNS / name).manifest() for name in taken), *([old] if old else [])])
        if not means.preflight:  # what is computed now, nobody looks at
            looks = {name: found for name, found in looks.items() if name not in taking_part(pending)}
        elif computes:
            new = look(ready, pending)  # before anything is measured, which a model may not survive
            for finding in chain.from_iterable(new.values()):
                progress.say(f"{finding.model}: {finding.says} {finding.remedy}")
            looks |= new
        if computes:
            # As before, if it is continued: another path or size would change the last bits of the logits.
            known = draft.means if old and maker in old.made_by else MeansUsed()
            if (known.compilation.choice == "compiled") if known.compilation else means.compiles:
                progress.say("Compiling each model first, which takes seconds to minutes.")
            used = ready.tune(means, known)
            warnings = dict.fromkeys(chain.from_iterable(part.warnings for part in manifest.data.values()))
            for warning in list(warnings)[:3]:  # the report says how many more
                progress.say(warning)
            manifest = manifest.model_copy(update={"means": used})
        manifest = manifest.model_copy(
            update={"means": manifest.means.model_copy(update={"preflight": as_said(ready, looks)})}
        )
        if computes or old is None:
            folder.write_manifest(manifest)
        ready.execute([ready.work(cell, some) for cell, some in pending.items() if some], folder, progress)
        refuse_lacking(
            f"The run in {folder.path} went to its end and",
            lacking_of(folder, manifest),
            "Something else changed the folder while it was running. The same command again computes them again.",
        )
        finished = _now() if computes or old is None or old.finished is None else old.finished
        folder.write_manifest(manifest.model_copy(update={"status": "finished", "finished": finished}))
    return folder


def _draft(ready: Ready, old: Manifest | None, maker: Maker, notes: Mapping[str, Any]) -> Manifest:
    """The manifest before anything is computed: what was said of the run before, and what its plan says now."""
    suites = {name: definition_of(ready.suite(name)) for name in ready.plan.suites}
    before = {} if old is None else {key: getattr(old, key) for key in _OF_THE_SESSION}
    return Manifest(
        status="running",
        **{"started": _now(), **environment(ready.device), "made_by": (maker,), **before},
        **notes,
        plan=ready.plan,
        plan_hash=ready.plan.hash,
        data={threat.id: _data(ready.source(threat).dataset) for threat in ready.plan.threats},
        suites=suites,
        models={spec.name: _model(spec, ready.models[spec.name]) for spec in ready.plan.all_models},
        cells=tuple(ready.entries),
    )


_OF_THE_SESSION = ("started", "command", "versions", "device", "precision", "platform", "git", "made_by", "means",
                   "verification")  # fmt: skip
"""What a manifest says of how it was computed: it stays as long as nothing else is computed."""


def _pending(
    ready: Ready, folder: RunFolder, draft: Manifest, maker: Maker, reuse: bool
) -> tuple[dict[Cell, list[Shard]], list[str]]:
    """What is still to be computed of each cell, and the runs that finished shards were taken over from.

    Of a model whose code nobody can see or vouches for, that is all.
    """
    entries = dict(zip(ready.plan.cells, ready.entries, strict=True))
    left = _set_aside(folder, draft)
    taken: Counter[str] = Counter()
    if reuse and left:
        usable = {shard for cell, entry in entries.items() if cell.model.reusable for shard in entry.shards}
        taken = Counter(take_over(folder, left & usable, RUNS, maker).values())
        for name, count in taken.items():
            folder.remarks.append(f"{count} shard(s) were taken over from the run {name}.")
        left = _set_aside(folder, draft) if taken else left
    anew = {cell: entry for cell, entry in entries.items() if not cell.model.reusable}
    for name in dict.fromkeys(cell.model.name for cell, entry in anew.items() if not left.issuperset(entry.shards)):
        folder.remarks.append(f"{name} is in memory and has no version: it was computed anew.")
    pending = {
        cell: [shard for shard in entry.shards if shard in left or cell in anew] for cell, entry in entries.items()
    }
    return pending, list(taken)


def _set_aside(folder: RunFolder, draft: Manifest) -> set[Shard]:
    """The shards that do not count, after whatever lies in their place was renamed.

    Raises `UserError` where whole files contradict each other.
    """
    lacking = lacking_of(folder, draft)
    disputed = [lack for lack in lacking if lack.disputed]
    refuse_lacking(f"The run in {folder.path}", disputed, "Remove the files that are not this run's own.")
    for lack in lacking:
        for file in lack.files:
            aside = folder.set_aside(file)
            folder.remarks.append(f"A shard {lack.why} and is computed again; the old file is {aside}.")
    return {lack.shard for lack in lacking}


def _several_makers(makers: Sequence[Maker]) -> str:
    """What differs between the sessions that this run's records come from."""
    first, last = makers[0], makers[-1]
    packages = {**first.versions, **last.versions}
    differ = [
        f"{name} {first.versions.get(name)} → {last.versions.get(name)}"
        for name in packages
        if first.versions.get(name) != last.versions.get(name)
    ]
    for what, one, other in (("code", first.code, last.code), ("device", first.device, last.device)):
        differ += [f"{what} {one} → {other}"] if one != other else []
    return f"This run was begun and continued under different conditions: {', '.join(differ)}."


def _data(dataset: Dataset) -> DataUsed:
    return DataUsed(
        name=dataset.name,
        fingerprint=dataset.fingerprint,
        samples=len(dataset.labels),
        classes=dataset.classes,
        warnings=tuple(dataset.warnings) if isinstance(dataset, ImageFiles) else (),
    )


def _model(spec: ModelSpec, model: Classifier) -> ModelUsed:
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
        image_size=card.image_size,
        mean=tuple(model.mean.flatten().tolist()),
        std=tuple(model.std.flatten().tolist()),
    )


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
