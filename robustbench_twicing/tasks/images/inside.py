"""The pictures of a plan's threats for whoever looks into its models: a batch at a time, attacked or corrupted."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from robustbench_twicing.engine.attacked import attacked
from robustbench_twicing.engine.contract import Queries
from robustbench_twicing.engine.corruptions import corrupt
from robustbench_twicing.errors import UserError
from robustbench_twicing.models.classifier import Classifier
from robustbench_twicing.models.faster.precision import in_precision, tensor_cores
from robustbench_twicing.seeding import Draws
from robustbench_twicing.spec.attacks import SequenceSettings
from robustbench_twicing.spec.threats import AttackThreat, CorruptionThreat, Threat
from robustbench_twicing.tasks.images.attack import with_smaller_batches
from robustbench_twicing.tasks.images.opened import OpenedImages

BATCH = 32
"""Images at a time: what is held of the tokens of a block is small beside the network's own."""


class Pictures(NamedTuple):
    """Some samples under a threat, for each model its own images."""

    threat: str
    ids: tuple[str, ...]
    images: dict[str, torch.Tensor]
    """By model, (batch, 3, height, width) pixels in [0, 1]."""
    labels: torch.Tensor


def require_pixels(threats: Sequence[Threat]) -> None:
    """Raise `UserError` for a threat whose images cannot be handed on."""
    for threat in threats:
        if threat.kind == "shift" or (threat.kind == "corruption" and not threat.generated):
            raise UserError(
                f"{threat.id} has other pictures than the clean run, which every figure is compared with.",
                "Name a generated suite, such as digits-c or imagenet-c-generated, or an attack.",
            )
        if isinstance(threat, AttackThreat):
            if threat.rules.space != "pixel":
                raise UserError(
                    f"Protocol {threat.protocol!r} attacks normalised images, which are no pictures.",
                    "Use a protocol with space = 'pixel', such as standard.",
                )
            if isinstance(threat.settings, SequenceSettings):
                raise UserError(f"{threat.attack} is several attacks.", "Name one of its members.")


def pictures(opened: OpenedImages, threat: Threat) -> Iterator[Pictures]:
    """Every sample of the plan's limit that can be read, in the data set's order; attacked for each model."""
    source, plan = opened.source(threat), opened.plan
    dataset = source.dataset
    count = plan.samples_for(threat, len(dataset.labels))
    recipes = {name: source.recipe(opened.models[name].card.recipes) for name in (spec.name for spec in plan.models)}
    for start in range(0, count, BATCH):
        batch = dataset.read(range(start, min(start + BATCH, count)), list(dict.fromkeys(recipes.values())))
        if not batch.readable:
            continue
        ids = tuple(dataset.sample_ids[position] for position in batch.readable)
        labels = torch.tensor([dataset.labels[position] for position in batch.readable], device=opened.device)
        images = {
            name: _under(threat, opened, name, batch.images[recipe].to(opened.device), labels, ids)
            for name, recipe in recipes.items()
        }
        yield Pictures(threat.id, ids, images, labels)


def _under(
    threat: Threat, opened: OpenedImages, name: str, images: torch.Tensor, labels: torch.Tensor, ids: tuple[str, ...]
) -> torch.Tensor:
    if isinstance(threat, CorruptionThreat):
        how = (threat.corruption, threat.severity, opened.plan.seed, ids, threat.jpeg_quality, opened.frost_dir)
        return corrupt(images, *how)
    if not isinstance(threat, AttackThreat):
        return images
    model = opened.models[name]
    crafting = in_precision(opened.models[threat.source.name] if threat.source else model, threat.precision)
    draws = Draws(opened.plan.seed, ids, threat.id)
    with tensor_cores(threat.precision == "tf32"):
        return with_smaller_batches(lambda size: _attacked(crafting, images, labels, threat, draws, size), model)


def _attacked(
    model: Classifier, images: torch.Tensor, labels: torch.Tensor, threat: AttackThreat, draws: Draws, size: int
) -> torch.Tensor:
    queries = Queries(model, size)
    targets = labels if threat.rules.labels == "true" else queries(images).argmax(1)
    _, checked = attacked(queries, images, targets, threat, draws)
    if wrong := next(filter(None, checked.reasons), ""):
        raise UserError(f"{threat.attack} of {model.card.spec.name}: {wrong}.", "Choose another attack.")
    return checked.images
