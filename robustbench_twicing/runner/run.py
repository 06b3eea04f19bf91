"""From a plan to a finished run folder."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from robustbench_twicing.catalog.suites import is_own, suite
from robustbench_twicing.machine.device import choose_device
from robustbench_twicing.machine.surroundings import plain_torch
from robustbench_twicing.results.acceptance import lacking_of, refuse_lacking
from robustbench_twicing.results.elsewhere import folder_of
from robustbench_twicing.results.manifest import Manifest, Shard
from robustbench_twicing.results.store import RUNS, RunFolder
from robustbench_twicing.results.used import Maker, MeansUsed
from robustbench_twicing.runner.environment import environment
from robustbench_twicing.runner.execute import execute
from robustbench_twicing.runner.executors.executor import Executor, chosen_executor, refuse_other_means
from robustbench_twicing.runner.executors.local import LocalExecutor
from robustbench_twicing.runner.keep_images import keep_images
from robustbench_twicing.runner.preflight import as_said, kept, taking_part
from robustbench_twicing.runner.prepare import Ready, prepare
from robustbench_twicing.runner.resume import refuse_other_settings, take_over
from robustbench_twicing.spec.means import Means
from robustbench_twicing.spec.plan import Cell, Plan
from robustbench_twicing.tasks.table import task_of
from robustbench_twicing.tasks.task import NOBODY, Looks, Progress, evaluations_of

Begin = Callable[[dict[Cell, tuple[int, int]]], Progress]
"""Who is told what is to be done, and follows it: see `run_plan`."""


def default_folder(plan: Plan) -> Path:
    """Where a plan's run goes if the user names no folder: the same plan always goes to the same place, and resumes."""
    protocols = {threat.protocol: None for threat in plan.threats if threat.kind == "attack"}
    name = plan.data.name
    return RUNS / "-".join([suite(name).name if is_own(name) else name, *protocols, plan.hash])


@plain_torch()
def run_plan(
    plan: Plan,
    means: Means,
    *,
    models: Mapping[str, Any] = MappingProxyType({}),
    begin: Begin | None = None,
    notes: Mapping[str, Any] = MappingProxyType({}),
    warnings: Sequence[str] = (),
) -> RunFolder:
    """Do what is still to be done of a plan and return its folder: `means.out`, or `default_folder`.

    `models` are those in memory. `begin` is told, for each cell with work left, (evaluations to do, in all), and
    returns who follows the progress. `notes` go into the manifest beside the plan; `warnings` are said first. Unless
    `means.fresh`, finished shards are taken over from the other runs under results/runs (`resume.take_over`); with it,
    a finished run is computed anew, and one that was stopped goes on. Raises `UserError` if the folder holds a run with
    other settings, for a model that no attack can say anything about, and as `prepare`.
    """
    refuse_other_means(means, [spec.name for spec in plan.all_models if spec.in_memory])
    # Where others compute, this process only looks at what it has: the machine that it is on may have no GPU.
    device = choose_device(means.device) if means.executor == "local" else torch.device("cpu")
    plan = task_of(plan).settled(plan, means)
    folder = folder_of(means.out or default_folder(plan))
    refuse_other_settings(folder, plan)
    ready = prepare(plan, means, device, models)
    with folder.locked():
        refuse_other_settings(folder, plan)  # once more, now that nobody else can begin a run here
        old = folder.manifest() if folder.exists() else None
        if old and old.status == "finished" and means.fresh:
            folder.retire(old.shards)
            old = None
        with _executor(ready, means, folder, old) as executor:
            manifest = _computed(ready, means, folder, old, executor, (begin, notes, warnings))
        keep_images(ready, folder, means, manifest)
    return folder


@contextmanager
def _executor(ready: Ready, means: Means, folder: RunFolder, old: Manifest | None) -> Iterator[Executor]:
    """Who computes. A cluster is not asked where nothing is left to compute."""
    if means.executor != "local" and old and not lacking_of(folder, _draft(ready, old, old.made_by[-1], {})):
        here = LocalExecutor(ready, means)
        here.maker = here.maker.model_copy(update={"device": old.made_by[-1].device})
        yield here
    else:
        with chosen_executor(ready, means) as executor:
            yield executor


def _computed(
    ready: Ready,
    means: Means,
    folder: RunFolder,
    old: Manifest | None,
    executor: Executor,
    said: tuple[Begin | None, Mapping[str, Any], Sequence[str]],
) -> Manifest:
    """Do what is left, as `old` has it; returns the manifest of the finished run. `said` is as in `run_plan`."""
    (begin, notes, warnings), maker = said, executor.maker
    draft = _draft(ready, old, maker, notes)
    pending, taken = _pending(ready, folder, draft, maker, not means.fresh)
    computes = any(pending.values())
    # Where nothing is computed, what was said about where it was computed stays.
    manifest = _of_this_session(draft, executor, folder) if computes or old is None else draft
    progress = (begin or without_progress)(_to_do(ready, pending))
    for line in (*manifest.decided, *warnings):
        progress.say(line)
    before = [*(RunFolder(RUNS / name).manifest() for name in taken), *([old] if old else [])]
    looks, remarks = _looks(ready, before, pending, executor if means.preflight else None, progress)
    folder.remarks += [*warnings, *remarks] if begin is None else []  # where nobody follows, it is said afterwards
    used = draft.means
    if computes:
        # As before, if it is continued: another path or size would change the last bits of the logits.
        known = draft.means if old and maker in old.made_by else MeansUsed()
        used = _warmed_up(ready, means, known, executor, progress)
    manifest = manifest.model_copy(update={"means": used, "preflight": as_said(ready.opened, looks)})
    if computes or old is None:
        folder.write_manifest(manifest)
    elif maker not in old.made_by:
        folder.remarks.append(_made_otherwise(old, maker))
    execute(executor, pending, folder, progress)
    refuse_lacking(
        f"The run in {folder.path} went to its end and",
        lacking_of(folder, manifest),
        "Something else changed the folder while it was running. The same command again computes them again.",
    )
    finished = _now() if computes or old is None or old.finished is None else old.finished
    manifest = manifest.model_copy(update={"status": "finished", "finished": finished})
    folder.write_manifest(manifest)
    folder.remove_retired()
    return manifest


def _draft(ready: Ready, old: Manifest | None, maker: Maker, notes: Mapping[str, Any]) -> Manifest:
    """The manifest before anything is computed: what was said of the run before, and what its plan says now."""
    before = {} if old is None else {key: getattr(old, key) for key in _OF_THE_SESSION}
    return Manifest(
        status="running",
        **{"started": _now(), **environment(ready.device, ready.plan), "made_by": (maker,), **before},
        **notes,
        plan=ready.plan,
        plan_hash=ready.plan.hash,
        data={threat.id: ready.opened.data_used(threat) for threat in ready.plan.threats},
        suites=ready.opened.suites_used(),
        models=ready.opened.models_used(),
        cells=ready.entries,
    )


def _of_this_session(draft: Manifest, executor: Executor, folder: RunFolder) -> Manifest:
    """The manifest of a session that computes, beside those that did before; what differs is said."""
    maker = executor.maker
    made_by = draft.made_by if maker in draft.made_by else (*draft.made_by, maker)
    if len(made_by) > 1:
        differ = _differences(made_by[0], made_by[-1])
        folder.remarks.append(f"This run was begun and continued under different conditions: {differ}.")
    return draft.model_copy(update={**executor.environment(), "made_by": made_by})


def _to_do(ready: Ready, pending: Mapping[Cell, Sequence[Shard]]) -> dict[Cell, tuple[int, int]]:
    """Evaluations that are left of each cell, and in all."""
    found = {}
    for cell, entry in zip(ready.plan.cells, ready.entries, strict=True):
        left = sum(shard.stop - shard.start for shard in pending[cell])
        found[cell] = (evaluations_of(cell, left), evaluations_of(cell, entry.samples))
    return found


def _looks(
    ready: Ready,
    before: Sequence[Manifest],
    pending: Mapping[Cell, Sequence[Shard]],
    executor: Executor | None,
    progress: Progress,
) -> tuple[Looks, list[str]]:
    """What is known of the models: from runs `before`, and by a new look of who computes, if that is wanted.

    Also what the new look found, in lines.
    """
    looks = kept(ready.opened, before)
    if executor is None:  # what is computed now, nobody looks at
        return {name: found for name, found in looks.items() if name not in taking_part(pending)}, []
    if not any(pending.values()):
        return looks, []
    new = executor.preflight(pending)  # before anything is measured, which a model may not survive
    remarks = [finding.text for finding in chain.from_iterable(new.values())]
    for remark in remarks:
        progress.say(remark)
    return looks | new, remarks


def _warmed_up(ready: Ready, means: Means, known: MeansUsed, executor: Executor, progress: Progress) -> MeansUsed:
    """How the models are evaluated, settled before the work begins; what a user should know is said."""
    if (known.compilation.choice == "compiled") if known.compilation else means.compiles:
        progress.say("Compiling each model first, which takes seconds to minutes.")
    used = executor.tune(known)
    data = [ready.opened.data_used(threat) for threat in ready.plan.threats]
    warnings = dict.fromkeys(chain.from_iterable(part.warnings for part in data))
    for warning in list(warnings)[:3]:  # the report says how many more
        progress.say(warning)
    return used


def _made_otherwise(old: Manifest, maker: Maker) -> str:
    made = _differences(old.made_by[-1], maker)
    return f"This run was made under other conditions: {made}. Nothing is computed; --fresh computes it anew."


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


def _differences(one: Maker, other: Maker) -> str:
    """What differs between two sessions, such as `torch 2.8.0 → 2.9.0`."""
    packages = {**one.versions, **other.versions}
    pairs = {name: (one.versions.get(name), other.versions.get(name)) for name in packages}
    pairs |= {"code": (one.code, other.code), "device": (one.device, other.device)}
    return ", ".join(f"{name} {before} → {now}" for name, (before, now) in pairs.items() if before != now)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def without_progress(to_do: dict[Cell, tuple[int, int]]) -> Progress:
    """Follow nothing."""
    return NOBODY
