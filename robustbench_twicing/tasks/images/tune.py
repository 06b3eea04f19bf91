"""How models run fastest on this device, found by a short warm-up. It changes the speed and no draw."""

import time
from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch

from robustbench_twicing.attention.paths import on_chip, set_attention_path
from robustbench_twicing.engine.contract import Queries
from robustbench_twicing.engine.losses import log_odds_against
from robustbench_twicing.errors import UserError
from robustbench_twicing.machine.device import wait_for
from robustbench_twicing.machine.timing import first_unless_slower, in_turns
from robustbench_twicing.models.classifier import Classifier
from robustbench_twicing.models.faster.attention_path import use_fastest_path
from robustbench_twicing.models.faster.compiled import cannot_be_compiled, compiled
from robustbench_twicing.models.faster.memory_format import MEMORY_FORMATS, convolves, set_memory_format
from robustbench_twicing.models.guard import behind
from robustbench_twicing.results.used import Settled

Key = TypeVar("Key")

_SMALL_IMAGE, _SMALL_IMAGE_ON_CPU = 64, 256
"""Small models on a CPU are not measured: they take so little time that the choice would change from run to run, and
with it the last bits of the logits. `benchmarks/attacks.py batches` measured the number."""

_FIRST, _MOST_ON_CPU, _MOST = 8, 128, 4096
_WORTH = 0.97
"""A larger batch is taken if it needs less than this part of the time for an image."""
_SECONDS = 10.0
"""For one model; a size that was begun is finished."""


def settle_attention(models: Sequence[Classifier], device: torch.device, gradients: bool, path: str | None) -> Settled:
    """Put all models on one path of attention, so that a comparison compares nothing else: `path`, or the fastest.

    Returns the path and the seconds that each took, if they were measured. Raises `UserError` for an unknown path, and
    for `triton` where it cannot compute.
    """
    if path == "triton" and device.type != "cuda" and not on_chip().INTERPRETED:
        raise UserError(
            f"The attention path triton computes on CUDA devices, and this is {device}.",
            "Pass --attention-path explicit or fused, or leave it away.",
        )
    sizes = {model.card.image_size for model in models}
    if path is None and device.type == "cpu" and max(sizes) <= _SMALL_IMAGE:
        path = "explicit"  # as benchmarks/attention.csv has it, and for the same reason as the batch size
    if path is None and len(sizes) == 1:
        images = _random_images(models[0], _FIRST, device)
        try:
            found = use_fastest_path([model.network for model in models], images, gradients)
            return Settled(choice=found["path"], seconds=found["seconds"])
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
    path = path or "auto"
    for model in models:
        set_attention_path(model.network, path)
    return Settled(choice=path)


def settle_memory_format(
    models: Sequence[Classifier], device: torch.device, gradients: bool, choice: str | None
) -> Settled:
    """Put all models with convolutions into one memory format: `choice`, or what they are faster in together.

    Returns the format and the seconds that each took, if they were measured. Raises `UserError` for an unknown format.
    """
    measured = [model for model in models if convolves(model.network)]
    large = [model for model in measured if device.type != "cpu" or model.card.image_size > _SMALL_IMAGE]
    if choice is None and not large:
        choice = "contiguous"
    networks = [model.network for model in measured]
    if choice is not None:
        set_memory_format(networks, choice)
        return Settled(choice=choice)

    def seconds(memory_format: str) -> float:
        set_memory_format(networks, memory_format)
        return sum(_seconds(model, _random_images(model, _FIRST, device), gradients, 1) for model in measured)

    try:
        fastest, _ = in_turns(list(MEMORY_FORMATS), seconds)
        found = Settled(choice=first_unless_slower(fastest), seconds=fastest)
    except (RuntimeError, UserError) as error:  # a view that this format does not allow, or too little memory
        torch.cuda.empty_cache()
        found = Settled(choice="contiguous", reason=str(behind(error)).strip().splitlines()[0])
    set_memory_format(networks, found.choice)
    return found


def settle_compilation(
    models: Mapping[Key, Classifier], device: torch.device, gradients: bool, choice: str | None
) -> tuple[Mapping[Key, Classifier], Settled]:
    """All `models` compiled, or all as they are, so that models compared differ in nothing else.

    `choice` is "compiled", "as loaded", or None for what a warm-up with batches of each model's size finds faster.
    Returns the models and what was found. Raises `UserError` for a model that cannot be compiled.
    """
    if choice == "as loaded" or not models:
        return models, Settled(choice="as loaded")
    shadows = {key: compiled(model) for key, model in models.items()}
    began = time.perf_counter()
    for model in shadows.values():
        images = _random_images(model, model.batch_size, device)
        try:
            for wanted in {False, gradients}:  # whatever an attack will ask of it
                _seconds(model, images, wanted)
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
            return models, Settled(choice="as loaded", reason="compiled, it runs out of memory")
        except Exception as error:
            raise cannot_be_compiled(model.card.spec.name, error) from error
    compiling, fastest = time.perf_counter() - began, dict[str, float]()
    if choice is None:
        ways = {"as loaded": models, "compiled": shadows}

        def seconds(way: str) -> float:
            some = ways[way].values()
            return sum(_seconds(m, _random_images(m, m.batch_size, device), gradients, 1) for m in some)

        fastest, _ = in_turns(list(ways), seconds)
        choice = first_unless_slower(fastest)
    found = Settled(choice=choice, seconds=fastest, compiling=compiling)
    return shadows if choice == "compiled" else models, found


def _random_images(model: Classifier, count: int, device: torch.device) -> torch.Tensor:
    return torch.rand(count, 3, model.card.image_size, model.card.image_size, device=device)


def find_batch_size(model: Classifier, device: torch.device, gradients: bool) -> int:
    """The smallest power of two beyond which a larger batch hardly saves time, on random images.

    `gradients`: time input gradients too. A size that the device has no memory for ends the search.
    """
    size = model.card.image_size
    if device.type == "cpu" and size <= _SMALL_IMAGE:
        return _SMALL_IMAGE_ON_CPU
    most = _MOST_ON_CPU if device.type == "cpu" else _MOST
    images = _random_images(model, _FIRST, device)
    deadline, best, least = time.perf_counter() + _SECONDS, _FIRST, float("inf")
    count = _FIRST
    while count <= most and time.perf_counter() < deadline:
        try:
            seconds = _seconds(model, images.repeat(count // _FIRST, 1, 1, 1), gradients) / count
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
            break
        if seconds >= _WORTH * least:
            break
        best, least, count = count, seconds, 2 * count
    return best


def _seconds(model: Classifier, images: torch.Tensor, gradients: bool, times: int = 2) -> float:
    """Of the fastest of some evaluations; the first one pays for what is set up once."""
    queries, labels = Queries(model, len(images)), torch.zeros(len(images), dtype=torch.int64, device=images.device)
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        if gradients:
            queries.gradient(images, labels, log_odds_against)
        else:
            queries(images)
        wait_for(images.device)
        taken.append(time.perf_counter() - began)
    return min(taken)
