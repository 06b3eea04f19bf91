"""A method switched on block by block, from the end, and by strength, on the same weights."""

import copy
from collections.abc import Callable, Iterator
from fractions import Fraction

import torch

from robustbench_twicing.attention.convert import apply_method, blocks_of
from robustbench_twicing.attention.methods import settled_method
from robustbench_twicing.attention.paths import MethodAttention
from robustbench_twicing.catalog.zoo import is_drop_in
from robustbench_twicing.engine.algorithms import engine_of
from robustbench_twicing.engine.contract import Queries
from robustbench_twicing.engine.losses import fooled
from robustbench_twicing.engine.measured import verify
from robustbench_twicing.errors import UserError
from robustbench_twicing.inside.diagnose import Samples
from robustbench_twicing.inside.swept import Cell, Sweep
from robustbench_twicing.inside.watch import transformer_in
from robustbench_twicing.metrics.intervals import wilson_interval
from robustbench_twicing.models.classifier import Classifier
from robustbench_twicing.seeding import Draws
from robustbench_twicing.spec.methods import SOFTMAX, Attention, Method
from robustbench_twicing.spec.threats import AttackThreat

STRENGTHS = tuple(Fraction(quarter, 4) for quarter in (1, 2, 3, 4))


def sweep(
    model: Classifier, samples: Samples, threat: AttackThreat, seed: int, say: Callable[[str], None] = lambda what: None
) -> Sweep:
    """Accuracy, clean and under `threat`, with the model's method in some blocks and softmax attention in the others.

    Nothing is trained: a setting with another method than the weights were trained with is drop-in. The model stays as
    it is. Raises `UserError` for a model whose attention cannot be exchanged.
    """
    trained = _methods(model)
    count = len(trained)
    settings = _settings(trained)
    cells, drop_in = [], is_drop_in(model.card.spec)
    for way, name, wanted in settings:
        say(f"{model.card.spec.name}: {name} …")
        other = model.with_network(copy.deepcopy(model.network))
        _put(other, wanted)
        cells.append(_measured(other, samples, threat, seed, (way, name, wanted == trained and not drop_in)))
    return Sweep(model.card.spec.name, model.card.attention, threat.id, len(samples.ids), count, tuple(cells))


def _methods(model: Classifier) -> list[Method]:
    blocks = blocks_of(transformer_in(model.network))
    found = [getattr(getattr(block, "attn", None), "method", SOFTMAX) for block in blocks]
    if any(isinstance(block.attn, MethodAttention) and block.attn.mixing.needs_first for block in blocks):
        raise UserError("A method that reads the first block's values cannot be switched on alone.", "Name another.")
    return found


def _settings(trained: list[Method]) -> Iterator[tuple[str, str, list[Method]]]:
    """Way, name and the method of each block. A softmax model is swept with twicing."""
    count = len(trained)
    method = next((one for one in trained if one != SOFTMAX), Method("twicing"))

    def only(blocks: range) -> list[Method]:
        return [method if number in blocks else SOFTMAX for number in range(count)]

    yield "none", "no block", only(range(0))
    for number in range(count):
        yield "one block", f"block {number}", only(range(number, number + 1))
    for last in range(1, count + 1):
        yield "from the end", f"last {last}", only(range(count - last, count))
    if method.name == "twicing":
        for strength in STRENGTHS:
            yield "strength", f"strength {float(strength):g}", [settled_method(Method("twicing", (strength,)))] * count


def _put(model: Classifier, methods: list[Method]) -> None:
    apply_method(transformer_in(model.network), str(Attention.of_blocks(methods)))


def _measured(
    model: Classifier, samples: Samples, threat: AttackThreat, seed: int, about: tuple[str, str, bool]
) -> Cell:
    queries = Queries(model, model.batch_size)
    right = ~fooled(queries(samples.images), samples.labels)
    standing = right.clone()
    some = samples.take(right)
    if some.ids:
        draws = Draws(seed, some.ids, threat.id)
        perturbed = engine_of(threat.settings)(queries, some.images, some.labels, threat, draws)
        made = verify(perturbed, some.images, threat).images
        standing[right] = ~fooled(queries(made), some.labels)
    n = len(samples.ids)
    clean, robust = int(torch.count_nonzero(right)), int(torch.count_nonzero(standing))
    return Cell(*about, clean / n, wilson_interval(clean, n), robust / n, wilson_interval(robust, n))
