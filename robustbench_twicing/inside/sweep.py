"""A method switched on block by block, from the end, and by strength, on the same weights."""

import copy
from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import NamedTuple

import torch

from robustbench_twicing.attention.convert import apply_method, blocks_of
from robustbench_twicing.attention.methods import settled_method
from robustbench_twicing.attention.paths import MethodAttention
from robustbench_twicing.catalog.zoo import is_drop_in
from robustbench_twicing.errors import UserError
from robustbench_twicing.inside.broken import Samples, broken_by, right
from robustbench_twicing.inside.swept import Cell, Sweep
from robustbench_twicing.inside.watch import transformer_in
from robustbench_twicing.metrics.intervals import wilson_interval
from robustbench_twicing.models.classifier import Classifier
from robustbench_twicing.spec.methods import SOFTMAX, Attention, Method
from robustbench_twicing.spec.threats import AttackThreat

STRENGTHS = tuple(Fraction(quarter, 4) for quarter in (1, 2, 3, 4))


class Setting(NamedTuple):
    """Which blocks have the method."""

    way: str
    name: str
    attention: Attention


class Retrained(NamedTuple):
    """Weights that were trained for a setting."""

    setting: Setting
    seed: int
    model: Classifier


def sweep(
    model: Classifier, samples: Samples, threat: AttackThreat, seed: int, say: Callable[[str], None] = lambda what: None
) -> Sweep:
    """Accuracy, clean and under `threat`, with the model's method in some blocks and softmax attention in the others.

    Nothing is trained: a setting with another method than the weights were trained with is drop-in. The model stays as
    it is. Raises `UserError` for a model whose attention cannot be exchanged.
    """
    trained, drop_in = _methods(model), is_drop_in(model.card.spec)
    own, cells = Attention.of_blocks(trained), []
    for setting in settings_of(model):
        say(f"{model.card.spec.name}: {setting.name} …")
        other = model.with_network(copy.deepcopy(model.network))
        apply_method(transformer_in(other.network), setting.attention)
        as_trained = setting.attention == own and not drop_in
        cells.append(_measured(other, samples, threat, seed, setting, as_trained))
    return Sweep(model.card.spec.name, model.card.attention, threat.id, len(samples.ids), len(trained), tuple(cells))


def swept_again(given: Iterable[Retrained], samples: Samples, threat: AttackThreat, seed: int) -> tuple[Cell, ...]:
    """The same for weights that were trained for their setting."""
    return tuple(_measured(one.model, samples, threat, seed, one.setting, True, one.seed) for one in given)


def settings_of(model: Classifier) -> list[Setting]:
    """Every setting of a model's method; of twicing for a softmax model. Raises `UserError` as `sweep`."""
    trained = _methods(model)
    count = len(trained)
    method = next((one for one in trained if one != SOFTMAX), Method("twicing"))

    def only(blocks: range) -> Attention:
        return Attention.of_blocks([method if number in blocks else SOFTMAX for number in range(count)])

    found = [Setting("none", "no block", only(range(0)))]
    found += [Setting("one block", f"block {number}", only(range(number, number + 1))) for number in range(count)]
    found += [Setting("from the end", f"last {last}", only(range(count - last, count))) for last in range(1, count + 1)]
    if method.name == "twicing":
        for strength in STRENGTHS:
            attention = Attention.of_blocks([settled_method(Method("twicing", (strength,)))] * count)
            found.append(Setting("strength", f"strength {float(strength):g}", attention))
    return found


def _methods(model: Classifier) -> list[Method]:
    blocks = blocks_of(transformer_in(model.network))
    found = [getattr(getattr(block, "attn", None), "method", SOFTMAX) for block in blocks]
    if any(isinstance(block.attn, MethodAttention) and block.attn.mixing.needs_first for block in blocks):
        raise UserError("A method that reads the first block's values cannot be switched on alone.", "Name another.")
    return found


def _measured(
    model: Classifier,
    samples: Samples,
    threat: AttackThreat,
    seed: int,
    setting: Setting,
    as_trained: bool,
    training_seed: int | None = None,
) -> Cell:
    is_right = right(model, samples)
    broken, _ = broken_by(model, samples, threat, seed, is_right)
    n, clean = len(samples.ids), int(torch.count_nonzero(is_right))
    robust = clean - int(torch.count_nonzero(broken))
    accuracies = (clean / n, wilson_interval(clean, n), robust / n, wilson_interval(robust, n))
    ids = tuple(_named(samples, rows) for rows in (is_right, is_right & ~broken))
    return Cell(setting.way, setting.name, str(setting.attention), as_trained, training_seed, *accuracies, *ids)


def _named(samples: Samples, rows: torch.Tensor) -> tuple[str, ...]:
    return tuple(one for one, kept in zip(samples.ids, rows.tolist(), strict=True) if kept)
