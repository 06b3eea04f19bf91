"""A random sample of a run's records, done again from the weights and data that the reviewer has."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from robustbench_twicing.catalog.places import require_places
from robustbench_twicing.errors import UserError, unknown_name
from robustbench_twicing.machine.device import choose_device
from robustbench_twicing.machine.remote import place_of_text
from robustbench_twicing.machine.surroundings import plain_torch
from robustbench_twicing.results.drawn import Differs, Rechecked, drawn, evidence
from robustbench_twicing.results.manifest import Manifest
from robustbench_twicing.runner.prepare import Ready, prepare
from robustbench_twicing.runner.run import without_progress
from robustbench_twicing.spec.means import Means
from robustbench_twicing.spec.plan import Cell, Plan
from robustbench_twicing.tasks.table import task_of
from robustbench_twicing.tasks.task import Progress, evaluations_of


@plain_torch()
def recheck(
    path: Path,
    sample: int,
    seed: int,
    means: Means,
    *,
    weights: Mapping[str, str] = MappingProxyType({}),
    models: Mapping[str, Any] = MappingProxyType({}),
    begin: Callable[[dict[Cell, tuple[int, int]]], Progress] | None = None,
) -> Rechecked:
    """Do `sample` random records of a finished run, or of a bundle, again, and compare.

    `weights` says for models of the plan where the reviewer has their weights, `means` where the data lies; `models`
    are those that were in memory. Raises `UserError` before anything is computed for what is no whole run, and for
    weights, data, suites or pictures of frost that are missing or are others than those of the run.
    """
    manifest, records = evidence(path)
    numbers = drawn(len(records), sample, seed)
    rows, places = records.iloc[numbers], _by_cell(manifest, numbers)
    plan = _of_the_reviewer(manifest.plan, weights, models)
    require_places(plan, means)
    ready = prepare(task_of(plan).settled(plan, means), means, choose_device(means.device), models)
    _refuse_others(ready, manifest)
    # As the run was computed, but for what needs a compiler.
    ready.opened.tune(means, manifest.means.model_copy(update={"compilation": None}))
    cells = dict(zip(((one.model, one.threat) for one in manifest.cells), ready.plan.cells, strict=True))
    recorded = {
        cells[key]: rows[(rows["model"] == key[0]) & (rows["threat"] == key[1])].set_axis(mine, axis="index")
        for key, mine in places.items()
    }
    to_do = {cell: evaluations_of(cell, len(mine)) for cell, mine in recorded.items()}
    progress = (begin or without_progress)({cell: (left, left) for cell, left in to_do.items()})
    found: dict[bool, list[Differs]] = {True: [], False: []}
    checked = 0
    for cell, place, others in ready.opened.checked(recorded, progress):
        checked += 1
        key = (cell.model.name, cell.threat.id, str(recorded[cell].loc[place, "sample_id"]))
        excused = all(one.near_a_tie for one in others)
        found[excused] += [Differs(*key, one.column, one.recorded, one.computed) for one in others]
    return Rechecked(path, manifest, len(records), checked, seed, tuple(found[False]), tuple(found[True]))


def _by_cell(manifest: Manifest, numbers: Sequence[int]) -> dict[tuple[str, str], list[int]]:
    """For each cell that some of these records are of, by model and threat, their places in the data set, in order."""
    ends = np.cumsum([entry.samples for entry in manifest.cells])
    found: dict[tuple[str, str], list[int]] = {}
    for number in numbers:
        cell = int(np.searchsorted(ends, number, side="right"))
        entry = manifest.cells[cell]
        found.setdefault((entry.model, entry.threat), []).append(number - int(ends[cell]) + entry.samples)
    return found


def _of_the_reviewer(plan: Plan, weights: Mapping[str, str], models: Mapping[str, Any]) -> Plan:
    """The plan with the reviewer's files. Raises `UserError` for a model that nobody has."""
    names = [spec.name for spec in plan.all_models]
    for name, file in weights.items():
        if name not in names:
            raise unknown_name("model of this run", name, names)
        if not place_of_text(file).is_file():
            raise UserError(f"No checkpoint at {file}.", "Check the path.")

    def mine(spec: Any) -> Any:
        return spec.model_copy(update={"weights": f"file:{weights[spec.name]}"}) if spec.name in weights else spec

    for spec in plan.all_models:
        kind, _, place = mine(spec).weights.partition(":")
        if spec.in_memory and spec.name not in models:
            what = f"{spec.name!r} was a module in the memory of whoever ran it: no file holds it."
            raise UserError(what, "Give the module in Python: robustbench_twicing.runner.recheck, models={name: …}.")
        if kind == "file" and not place_of_text(place).is_file():
            what = f"The weights of {spec.name!r} are not here: {place}."
            raise UserError(what, f"Say where you have them: --model {spec.name}=CHECKPOINT.")
    threats = [
        threat.model_copy(update={"source": mine(threat.source)})
        if threat.kind == "attack" and threat.source is not None
        else threat
        for threat in plan.threats
    ]
    return plan.model_copy(update={"models": tuple(map(mine, plan.models)), "threats": tuple(threats)})


def _refuse_others(ready: Ready, manifest: Manifest) -> None:
    """Raise `UserError` unless weights, data and settings are those of the run, each difference named."""
    used, found = ready.opened.models_used(), list[str]()
    for name, before in manifest.models.items():
        if (here := used[name].weights_hash) != before.weights_hash:
            found.append(f"the weights of {name!r} are {here}, and the run's {before.weights_hash}")
    data = {threat.id: ready.opened.data_used(threat) for threat in ready.plan.threats}
    seen = set[tuple[str, str]]()
    for threat, made_of in manifest.data.items():
        if threat not in data:
            found.append(f"the threat {threat} is another one here")
        elif data[threat].fingerprint != made_of.fingerprint and (made_of.name, made_of.fingerprint) not in seen:
            here = data[threat].fingerprint
            found.append(f"the images of {made_of.name} ({threat}) are {here}, and the run's {made_of.fingerprint}")
            seen.add((made_of.name, made_of.fingerprint))
    if not found:
        for mine, theirs in zip(ready.entries, manifest.cells, strict=True):
            differ = [key for key in ("threat_hash", "recipe", "samples_hash", "folder") if
                      getattr(mine, key) != getattr(theirs, key)]  # fmt: skip
            if differ:
                named = "settings, attention or scored classes" if differ == ["folder"] else ", ".join(differ)
                found.append(f"{theirs.model} under {theirs.threat} would have another {named}")
    if found:
        more = f"\n  and {len(found) - 5} more" if len(found) > 5 else ""
        raise UserError(
            "What is here is not what the run was made with:\n" + "\n".join(f"  {one}" for one in found[:5]) + more,
            "Nothing was computed. --model NAME=CHECKPOINT names other weights, --data-dir NAME=DIR other data.",
        )
