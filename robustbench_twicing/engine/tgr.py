"""Token gradient regularisation: MI-FGSM along gradients without their extreme tokens."""

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float

from robustbench_twicing.attention.altered import Alterations, altered
from robustbench_twicing.engine.contract import Perturbed, Queries
from robustbench_twicing.engine.mifgsm import mifgsm
from robustbench_twicing.seeding import Draws
from robustbench_twicing.spec.attention_attacks import TgrSettings
from robustbench_twicing.spec.threats import AttackThreat
from robustbench_twicing.tensors import Images, Labels

Scores = Float[torch.Tensor, "batch heads rows tokens"]
Tokens = Float[torch.Tensor, "batch tokens width"]


def tgr(model: Queries, images: Images, labels: Labels, threat: AttackThreat, draws: Draws) -> Perturbed:
    """Steps as `mifgsm` takes them, with the gradients in every block regularised (Zhang et al. 2023, arXiv 2303.15754,
    section 3.3): scaled, and zero where a token has the largest or the smallest of a head or channel.

    Of attention's scores, whole rows and columns of those tokens; of queries, keys and values and of the MLP's output,
    channel by channel. What is regularised, and by how much, is as in github.com/jpzhang1810/TGR at 97665de
    (methods.py, `vit_base_patch16_224`); but the extreme tokens are each image's own, where that code takes those of
    the first of a batch. Raises `UserError` for a network without such attention.
    """
    settings = threat.settings
    assert isinstance(settings, TgrSettings)
    changes = Alterations(
        lambda scores: _with_gradient(scores, partial(without_extreme_rows_and_columns, settings.attention)),
        partial(without_extreme_tokens, settings.qkv),
        partial(without_extreme_tokens, settings.mlp),
    )
    with altered(model.network(), changes):
        return mifgsm(model, images, labels, threat, draws)


def without_extreme_rows_and_columns(left: float, gradient: Scores) -> Scores:
    """`left` times the gradient of the scores, without the rows and columns of each head's largest and smallest."""
    columns = gradient.shape[3]
    rows, across = (torch.arange(count, device=gradient.device) for count in gradient.shape[2:])
    flat, result = gradient.flatten(2), left * gradient
    for place in (flat.argmax(2), flat.argmin(2)):
        row, column = place[:, :, None] // columns, place[:, :, None] % columns
        result = result * (rows != row)[..., None] * (across != column)[..., None, :]
    return result


def without_extreme_tokens(left: float, gradient: Tokens) -> Tokens:
    """`left` times the gradient of the tokens, in each channel without the largest and the smallest."""
    result = left * gradient
    for place in (gradient.argmax(1, keepdim=True), gradient.argmin(1, keepdim=True)):
        result = result.scatter(1, place, 0.0)
    return result


def _with_gradient(scores: torch.Tensor, change: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    if scores.requires_grad:
        scores.register_hook(change)
    return scores
