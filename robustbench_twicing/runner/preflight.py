"""The preflight of a run: which of its models somebody looked at, and what was found."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from robustbench_twicing.engine.contract import Queries
from robustbench_twicing.engine.preflight import SAMPLES, Finding
from robustbench_twicing.engine.preflight import preflight as look_at
from robustbench_twicing.errors import UserError
from robustbench_twicing.models.classifier import Classifier
from robustbench_twicing.results.manifest import Manifest, ModelFinding, Preflight, Shard
from robustbench_twicing.runner.prepare import Ready
from robustbench_twicing.spec.plan import Cell
from robustbench_twicing.spec.threats import Threat
from robustbench_twicing.tasks.images.attack import with_smaller_batches

Looks = dict[str, list[ModelFinding]]
"""For each model that somebody looked at what was found."""

_TELLING = {"attack": 0, "clean": 1, "corruption": 2, "shift": 3}
"""On which images a model is looked at, if there are several kinds: the first of these."""


def look(ready: Ready, pending: Mapping[Cell, Sequence[Shard]]) -> Looks:
    """Look at every model of which something is still to be computed, with gradients if it is attacked by them.

    A model none of whose images can be read is left out. Raises `UserError` if some number would mean nothing.
    """
    attacks = [threat for threat in ready.plan.threats if threat.kind == "attack"]
    gradients = any(threat.settings.gradients != 0 for threat in attacks)
    looks: Looks = {}
    for cell in _one_of_each_model([cell for cell, shards in pending.items() if shards]):
        source, attacked = ready.source(cell.threat), cell.threat.kind == "attack"
        recipe = source.recipe(ready.models[cell.model.name].card.recipe)
        first = range(ready.plan.samples_for(cell.threat, len(source.dataset.labels)))[:SAMPLES]
        batch = source.dataset.read(first, [recipe])
        if not batch.readable:
            continue
        labels = torch.tensor([source.dataset.labels[position] for position in batch.readable], device=ready.device)
        images = batch.images[recipe].to(ready.device)
        how = (images, labels, attacked and gradients, attacked, _is_usual(cell.threat))
        for name in _models_of(cell):
            if name not in looks:
                looks[name] = [ModelFinding(model=name, **f._asdict()) for f in _look(ready.models[name], *how)]
    _refuse(finding for found in looks.values() for finding in found)
    return looks


def _look(model: Classifier, *how: Any) -> list[Finding]:
    return with_smaller_batches(lambda size: look_at(Queries(model, size), *how), model)


def kept(ready: Ready, manifests: Iterable[Manifest]) -> Looks:
    """What earlier runs said of the models that this one has, the last one winning: samples keep the look taken."""
    looks: Looks = {}
    for manifest in manifests:
        said = manifest.means.preflight
        for name in said.models:
            model = ready.models.get(name)
            if model and name in manifest.models and manifest.models[name].weights_hash == model.card.weights_hash:
                looks[name] = [finding for finding in said.findings if finding.model == name]
    return looks


def as_said(ready: Ready, looks: Looks) -> Preflight:
    """What run.json says."""
    findings = tuple(finding for found in looks.values() for finding in found)
    return Preflight(ran=all(name in looks for name in ready.models), models=tuple(looks), findings=findings)


def _one_of_each_model(cells: Sequence[Cell]) -> list[Cell]:
    telling = sorted(cells, key=lambda cell: _TELLING[cell.threat.kind], reverse=True)
    return list({cell.model.name: cell for cell in telling}.values())


def taking_part(pending: Mapping[Cell, Sequence[Shard]]) -> set[str]:
    """The models that something is still to be computed with."""
    return {name for cell, shards in pending.items() if shards for name in _models_of(cell)}


def _models_of(cell: Cell) -> list[str]:
    """The model that is judged, and the one that the images are made on."""
    source = cell.threat.source if cell.threat.kind == "attack" else None
    return [cell.model.name, *([source.name] if source else [])]


def _is_usual(threat: Threat) -> bool:
    """Better than guessing is expected on these images as they are read: corruptions are generated later."""
    return threat.kind in ("attack", "clean") or (threat.kind == "corruption" and threat.generated)


def _refuse(findings: Iterable[ModelFinding]) -> None:
    refused = [finding for finding in findings if finding.refuses]
    if refused:
        raise UserError(
            "The preflight check found what would make every number meaningless:\n"
            + "\n".join(f"  {f.model}: {f.says} {f.remedy}" for f in refused),
            "Put it right, or pass --no-preflight to run all the same (the run folder will say so).",
        )
