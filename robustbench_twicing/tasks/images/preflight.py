"""A look at every model before it is evaluated, on the first images that it will be given."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch

from robustbench_twicing.attention.altered import require_attention
from robustbench_twicing.engine.contract import Queries
from robustbench_twicing.engine.preflight import SAMPLES, Finding
from robustbench_twicing.engine.preflight import preflight as look_at
from robustbench_twicing.errors import UserError
from robustbench_twicing.models.classifier import Classifier
from robustbench_twicing.results.manifest import Shard
from robustbench_twicing.results.used import ModelFinding
from robustbench_twicing.spec.plan import Cell, Plan
from robustbench_twicing.spec.threats import Threat
from robustbench_twicing.tasks.images.attack import with_smaller_batches
from robustbench_twicing.tasks.images.sources import Source
from robustbench_twicing.tasks.task import Looks

_TELLING = {"attack": 0, "clean": 1, "corruption": 2, "shift": 3}
"""On which images a model is looked at, if there are several kinds: the first of these."""


def look(
    plan: Plan,
    models: Mapping[str, Classifier],
    source_of: Callable[[Threat], Source],
    device: torch.device,
    pending: Mapping[Cell, Sequence[Shard]],
) -> Looks:
    """Look at every model of which something is still to be computed, with gradients if it is attacked by them.

    A model none of whose images can be read is left out. Raises `UserError` if some number would mean nothing.
    """
    attacks = [threat for threat in plan.threats if threat.kind == "attack"]
    gradients = any(threat.settings.gradients != 0 for threat in attacks)
    draws = max((threat.eot for threat in attacks), default=1)
    looks: Looks = {}
    _require_attention(models, [cell for cell, shards in pending.items() if shards])
    for cell in _one_of_each_model([cell for cell, shards in pending.items() if shards]):
        source, attacked = source_of(cell.threat), cell.threat.kind == "attack"
        recipe = source.recipe(models[cell.model.name].card.recipes)
        first = range(plan.samples_for(cell.threat, len(source.dataset.labels)))[:SAMPLES]
        batch = source.dataset.read(first, [recipe])
        if not batch.readable:
            continue
        labels = torch.tensor([source.dataset.labels[position] for position in batch.readable], device=device)
        how = (batch.images[recipe].to(device), labels, attacked and gradients, attacked, _is_usual(cell.threat), draws)
        for name in cell.models:
            if name not in looks:
                looks[name] = [ModelFinding(model=name, **f._asdict()) for f in _look(models[name], *how)]
    _refuse(finding for found in looks.values() for finding in found)
    return looks


def _require_attention(models: Mapping[str, Classifier], cells: Sequence[Cell]) -> None:
    """Raise `UserError` if an attack is to look into a model in which it will find nothing."""
    for cell in cells:
        threat = cell.threat
        if threat.kind == "attack" and any(member.settings.looks_inside for member in threat.members):
            name = (threat.source or cell.model).name
            try:
                require_attention(models[name])
            except UserError as error:
                raise UserError(f"{threat.attack} on {name}: {error.message}", error.hint) from None


def _look(model: Classifier, *how: Any) -> list[Finding]:
    return with_smaller_batches(lambda size: look_at(Queries(model, size), *how), model)


def _one_of_each_model(cells: Sequence[Cell]) -> list[Cell]:
    telling = sorted(cells, key=lambda cell: _TELLING[cell.threat.kind], reverse=True)
    return list({cell.model.name: cell for cell in telling}.values())


def _is_usual(threat: Threat) -> bool:
    """Better than guessing is expected on these images as they are read: corruptions are generated later."""
    return threat.kind in ("attack", "clean") or (threat.kind == "corruption" and threat.generated)


def _refuse(findings: Iterable[ModelFinding]) -> None:
    refused = [finding for finding in findings if finding.refuses]
    if refused:
        raise UserError(
            "The preflight check found what would make every number meaningless:\n"
            + "\n".join(f"  {finding.text}" for finding in refused),
            "Put it right, or pass --no-preflight to run all the same (the run folder will say so).",
        )
