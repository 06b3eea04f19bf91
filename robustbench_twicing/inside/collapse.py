"""How alike tokens become from block to block, and what each block's attention does to them."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from robustbench_twicing.errors import UserError
from robustbench_twicing.inside.found import Collapse, Keep, Looked, Measured, Place, nobody
from robustbench_twicing.inside.matrices import operator_figures, row_entropy, token_figures
from robustbench_twicing.inside.running import Running
from robustbench_twicing.inside.watch import Mixed, Parts, Seen, parts_of, require_open, watching


class Subject(NamedTuple):
    """A model that is looked into."""

    name: str
    model: Callable[[torch.Tensor], torch.Tensor]
    """Images to logits."""
    network: nn.Module
    """What has the blocks, within the model."""
    attention: str = ""


class Given(NamedTuple):
    """Some images under one threat, for each model its own."""

    threat: str
    images: Mapping[str, torch.Tensor]
    """By the models' names, (batch, 3, height, width), row by row of the same samples."""
    ids: tuple[str, ...] = ()
    """Of the samples, for whoever keeps their values."""


Values = dict[tuple[int, str], np.ndarray]
"""By number of the place and key of the figure, one value for each image."""


def collapse(subjects: Iterable[Subject], given: Iterable[Given], data: str, keep: Keep = nobody) -> Collapse:
    """Every figure of `figures.FIGURES` at every place of every model, and differences from the first model.

    Images come and go a batch at a time; of an image nothing is kept here, so memory does not grow with their number:
    `keep` is told each one's values. Models
    stay as they are, and so do their outputs. Raises `UserError` for a network whose parts cannot be looked at, or do
    not compute, and if there is no image.
    """
    looks = [_Look(subject) for subject in subjects]
    means: dict[tuple[str, str], dict[tuple[int, str], Running]] = {}
    gaps: dict[tuple[str, str], dict[tuple[int, str], Running]] = {}
    images: dict[str, int] = {}
    for threat, by_model, ids in given:
        seen = [look.values(by_model[look.subject.name]) for look in looks]
        images[threat] = images.get(threat, 0) + len(next(iter(by_model.values())))
        for look, values in zip(looks, seen, strict=True):
            name = (look.subject.name, threat)
            for (number, key), found in values.items():
                keep(*name, look.parts.places[number].name, key, ids, found)
            _add(means.setdefault(name, {}), values)
            if look is not looks[0]:
                shared = values.keys() & seen[0].keys()
                _add(gaps.setdefault(name, {}), {key: values[key] - seen[0][key] for key in shared})
    if not images:
        raise UserError("There is no image to look at.", "Raise --limit, or choose another data set.")
    looked = tuple(look.looked(threat, means[look.subject.name, threat]) for threat in images for look in looks)
    differences = {
        (*name, *key): found for name, held in gaps.items() for key, found in _measured(held) if found is not None
    }
    return Collapse(max(images.values()), data, looked, differences)


def _add(held: dict[tuple[int, str], Running], values: Values) -> None:
    for key, found in values.items():
        held.setdefault(key, Running()).add(found)


def _measured(held: Mapping[tuple[int, str], Running]) -> Iterator[tuple[tuple[int, str], Measured | None]]:
    return ((key, running.measured()) for key, running in held.items())


class _Look:
    """One model, looked into batch by batch."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        if isinstance(subject.model, nn.Module):
            require_open(subject.model)
        self.parts: Parts = parts_of(subject.network)
        self._no_operator: set[int] = set()
        self._patches: dict[int, int] = {}

    def values(self, images: torch.Tensor) -> Values:
        """Every figure of a batch of images."""
        found: Values = {}

        def put(place: Place, figures: Mapping[str, torch.Tensor]) -> None:
            for key, values in figures.items():
                found[place.number, key] = values[: len(images)].cpu().numpy()  # a model may fill batches up

        def heard(seen: Seen | Mixed) -> None:
            if isinstance(seen, Mixed):
                put(
                    seen.place, operator_figures(seen.attention, "attention") | {"entropy": row_entropy(seen.attention)}
                )
                if seen.operator is not None:
                    put(seen.place, operator_figures(seen.operator, "operator"))
                else:
                    self._no_operator.add(seen.place.number)
            elif seen.tokens.numel():
                self._patches[seen.place.number] = seen.tokens.shape[1]
                put(seen.place, token_figures(seen.tokens, seen.grid, seen.class_token))

        with ExitStack() as within:
            within.enter_context(torch.no_grad())
            within.enter_context(watching(self.subject.network, self.parts, heard))
            self.subject.model(images)
        if not found:
            raise UserError(
                f"Nothing was seen inside of {self.subject.name}: none of its parts computes tokens or feature maps.",
                "Pass the module itself, not one that torch.compile or torch.export has made of it.",
            )
        return found

    def looked(self, threat: str, held: Mapping[tuple[int, str], Running]) -> Looked:
        """What was found under a threat."""
        figures = {key: found for key, found in _measured(held) if found is not None}
        seen = {number for number, _ in figures}
        places = tuple(place for place in self.parts.places if place.number in seen)
        return Looked(
            self.subject.name, threat, self.subject.attention, places, figures, (*self.parts.missing, *self._missing())
        )

    def _missing(self) -> Iterator[str]:
        names = {place.number: place.name for place in self.parts.places}
        if self._no_operator:
            blocks = ", ".join(names[number] for number in sorted(self._no_operator))
            yield f"The method of {blocks} is no matrix that is applied to the values: figures of A only, none of it."
        if single := [names[number] for number, count in sorted(self._patches.items()) if count == 1]:
            yield f"One patch in {', '.join(single)}: nothing to compare it with, so no similarity, rank or frequency."
