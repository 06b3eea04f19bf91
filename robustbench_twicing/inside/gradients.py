"""Checks of a model's gradient: is there one, is it the right one, and is it the same however it is computed.

Pintor et al. 2022 (arXiv 2106.09947) name unavailable gradients and unstable predictions among the indicators of attack
failure; Athalye et al. 2018 (arXiv 1802.00420) call them shattered, stochastic and vanishing.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from timm.models.vision_transformer import Attention as TimmAttention

from robustbench_twicing.attention.paths import MethodAttention, set_attention_path
from robustbench_twicing.engine.contract import NoGradientError, Queries
from robustbench_twicing.engine.losses import cross_entropy_loss, log_odds_against
from robustbench_twicing.errors import UserError
from robustbench_twicing.inside.diagnosis import Grade, Item
from robustbench_twicing.models.classifier import Classifier
from robustbench_twicing.models.faster.precision import in_precision
from robustbench_twicing.models.intake import OwnModel
from robustbench_twicing.tensors import Images, Labels

_REPEATABLE = 1e-4
"""Of the largest logit; what another order of sums does is below."""
_MOST = 0.5
"""Of the images: from this share on a finding is no exception any more."""
_WRONG = 0.05
"""Of the slope: float32 gradients were seen to miss float64 slopes by 1e-4."""
_DIRECTIONS = 4


def repeatable(model: Classifier, images: Images) -> Item:
    """The same images get the same logits."""
    queries = Queries(model, model.batch_size)
    one, other = queries(images), queries(images)
    gap = float((one - other).abs().max() / one.abs().max().clamp_min(1e-6))
    return Item(
        "repeatable",
        "same answer twice",
        gap,
        f"{gap:.1g}",
        "F" if gap > _REPEATABLE else "A",
        "Largest change of a logit between two evaluations of the same images. If it is not 0, the model draws at "
        "random, and an attack that fails may have met another draw.",
        "Take the stochastic layer out, or attack the expectation over it (Athalye et al. 2018).",
    )


def gradient_items(model: Classifier, images: Images, labels: Labels) -> tuple[list[Item], list[str]]:
    """Every check of the gradient, and what could not be checked."""
    queries, skipped = Queries(model, model.batch_size), []
    try:
        _, gradient = queries.gradient(images, labels, log_odds_against)
    except NoGradientError as error:
        return [_no_gradient(error.message)], []
    items = [_vanished(model, images, gradient)]
    zero = _zero(gradient)
    if not bool(zero.all()) and bool(gradient.isfinite().all()):
        items += [_saturated(queries, images, labels, zero), _derivative(model, images, labels, gradient)]
        for check in (_fused, _bfloat16):
            try:
                found = check(model, images, labels, gradient)
            except Exception as error:  # noqa: BLE001  # whatever a copy of the user's own model raises
                skipped.append(f"{check.__name__.removeprefix('_')}: {type(error).__name__}: {error}")
            else:
                items += [found] if found is not None else []
    return items, skipped


def _no_gradient(why: str) -> Item:
    return Item(
        "gradient",
        "gradient",
        1.0,
        "none",
        "F",
        f"{why} Gradient attacks find nothing.",
        "A model that can be derived.",
    )


def _vanished(model: Classifier, images: Images, gradient: Images) -> Item:
    broken = ~gradient.flatten(1).isfinite().all(1)
    share = float((_zero(gradient) | broken).double().mean())
    norms = gradient.flatten(1).norm(dim=1)
    pixels = float((gradient == 0).double().mean())
    return Item(
        "gradient",
        "gradient",
        share,
        f"{100 * share:.0f} % zero",
        "F" if share >= _MOST else "C" if share else "A",
        f"Share of images whose gradient is exactly zero, or not finite. Median norm {float(norms.median()):.2g}; "
        f"{100 * pixels:.0f} % of all entries are exactly zero. {_why_zero(model, images) if share else ''}".strip(),
        "Replace the step without a derivative in the backward pass by one that has (BPDA, Athalye et al. 2018).",
    )


def _why_zero(model: Classifier, images: Images) -> str:
    """Whether answers depend on what has no gradient."""
    queries = Queries(model, model.batch_size)
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(0)).to(images) * 0.5
    moved = bool((queries((images + noise).clamp(0, 1)) != queries(images)).any())
    if moved:
        return "The logits do depend on the images: some step has no derivative (rounding, a comparison, saturation)."
    return "The logits do not depend on the images."


def _saturated(queries: Queries, images: Images, labels: Labels, zero: torch.Tensor) -> Item:
    logits, gradient = queries.gradient(images, labels, cross_entropy_loss)
    share = float((_zero(gradient) & ~zero).double().mean())
    return Item(
        "saturation",
        "saturated logits",
        share,
        f"{100 * share:.0f} %",
        "F" if share >= _MOST else "C" if share > 0.1 else "A",
        "Share of images where the gradient of the cross-entropy is exactly zero and that of the log-odds is not: the "
        f"label leads by {float(_lead(logits, labels)):.3g} (median), where float32 rounds its probability to 1. "
        "Attacks on the cross-entropy see nothing there; this tool's own use the log-odds.",
        "Smaller logits, or attacks on a margin: pgd of this tool, apgd-dlr, apgd-t.",
    )


def _lead(logits: torch.Tensor, labels: Labels) -> torch.Tensor:
    own = logits.gather(1, labels[:, None]).squeeze(1)
    return (own - logits.scatter(1, labels[:, None], float("-inf")).amax(1)).median()


def _derivative(model: Classifier, images: Images, labels: Labels, gradient: Images) -> Item:
    """Slopes along random directions, by central differences in float64, beside those that the gradient says.

    The gradient is that of the same copy in float64, so that only a wrong backward pass can part them, or a kink.
    """
    exact, step, wrong = _in_float64(model)
    x = images.to(torch.float64 if wrong == _WRONG else torch.float32)
    if wrong == _WRONG:
        gradient = _of_copy(exact, x, labels, gradient)
    generator = torch.Generator().manual_seed(0)
    said, measured = [], []
    with torch.no_grad():
        for _ in range(_DIRECTIONS):
            direction = (torch.randint(0, 2, images.shape, generator=generator) * 2 - 1).to(x)
            plus, minus = (log_odds_against(exact(x + sign * step * direction), labels) for sign in (1, -1))
            measured.append((plus - minus).double() / (2 * step))
            said.append((gradient.double() * direction.double()).flatten(1).sum(1))
    slopes, claims = torch.stack(measured), torch.stack(said)
    gap = ((slopes - claims).norm(dim=0) / slopes.norm(dim=0).clamp_min(1e-12)).median()
    miss = float(gap)
    return Item(
        "derivative",
        "gradient against differences",
        miss,
        f"{miss:.1g}",
        "F" if not miss <= wrong else "A",
        "How far the gradient misses the slopes that are measured by finite differences along random directions, over "
        "these slopes; median of the images. A backward pass that is not the forward pass's leads attacks astray.",
        "Look for a custom backward, detach() or a straight-through step in some block.",
    )


def _in_float64(model: Classifier) -> tuple[Callable[[torch.Tensor], torch.Tensor], float, float]:
    """A copy in float64, the step that fits, and what counts as wrong; the model itself where it cannot be copied."""
    try:
        network = copy.deepcopy(model.network).double()
        for part in network.modules():
            if isinstance(part, OwnModel):
                part.answers_in = torch.float64  # rounded to float32, differences would need steps that meet kinks
        mean, std = model.mean.double(), model.std.double()
        answer = network((torch.zeros(1, 3, *_side(model)).to(mean) - mean) / std)
    except Exception:  # noqa: BLE001  # whatever the user's own model raises
        return model, 2e-3, 0.5
    # Of each value. At 1e-6 a network of 224 × 224 values crosses kinks, which was 13 % of a slope; at 1e-9 rounding is
    # about 1e-4 of it. A user's own model answers in float32.
    step = 1e-9 if answer.dtype == torch.float64 else 1e-4
    return lambda x: _as_float64(network((x - mean) / std)), step, _WRONG


def _of_copy(
    exact: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor, labels: Labels, gradient: Images
) -> torch.Tensor:
    """The gradient of the copy; `gradient` where it has none in float64."""
    asked = images.detach().requires_grad_()
    try:
        with torch.enable_grad():
            (found,) = torch.autograd.grad(log_odds_against(exact(asked), labels).sum(), asked)
    except Exception:  # noqa: BLE001  # whatever the user's own backward raises
        return gradient
    return found


def _as_float64(logits: torch.Tensor) -> torch.Tensor:
    return logits.double()


def _side(model: Classifier) -> tuple[int, int]:
    return model.card.image_size, model.card.image_size


def _fused(model: Classifier, images: Images, labels: Labels, gradient: Images) -> Item | None:
    if not any(isinstance(part, TimmAttention) for part in model.network.modules()):
        return None
    queries = Queries(model, model.batch_size)
    with _paths_as_they_were(model):
        found = []
        for path in ("explicit", "fused"):
            set_attention_path(model.network, path)
            found.append(queries.gradient(images, labels, log_odds_against)[1])
    least = float(_cosines(*found).min())
    return Item(
        "fused",
        "fused and explicit attention",
        least,
        f"cosine {least:.4f}",
        "F" if not least >= 0.99 else "A",
        "Least cosine between the gradients that the fused kernel and attention with A in memory give.",
        "--attention-path explicit, and a report to whoever wrote the kernel.",
    )


def _bfloat16(model: Classifier, images: Images, labels: Labels, gradient: Images) -> Item:
    rounded = in_precision(model, "bfloat16")
    _, other = Queries(rounded, model.batch_size).gradient(images, labels, log_odds_against)
    gone = float((_zero(other) & ~_zero(gradient)).double().mean())
    middle = float(_cosines(gradient, other).nan_to_num(0.0).median())
    grade: Grade = "F" if gone >= _MOST else "C" if gone or not middle >= 0.5 else "B" if not middle >= 0.9 else "A"
    return Item(
        "bfloat16",
        "bfloat16",
        gone,
        f"{100 * gone:.0f} % zero, cosine {middle:.2f}",
        grade,
        "Share of images whose gradient is exactly zero in bfloat16 and not in float32, and the median cosine between "
        "the two. An attack that computes in bfloat16 finds nothing there.",
        "--precision float32 for every attack on this model.",
    )


@contextmanager
def _paths_as_they_were(model: Classifier) -> Iterator[None]:
    parts = [part for part in model.network.modules() if isinstance(part, TimmAttention)]
    kept = [(part.path if isinstance(part, MethodAttention) else part.fused_attn) for part in parts]
    try:
        yield
    finally:
        for part, was in zip(parts, kept, strict=True):
            setattr(part, "path" if isinstance(part, MethodAttention) else "fused_attn", was)


def _cosines(one: Images, other: Images) -> torch.Tensor:
    return torch.cosine_similarity(one.double().flatten(1), other.double().flatten(1), dim=1, eps=0.0)


def _zero(gradient: Images) -> torch.Tensor:
    return (gradient == 0).flatten(1).all(1)


def require_right(count: int, name: str) -> None:
    """Raise `UserError` if no image is answered rightly."""
    if not count:
        raise UserError(f"{name} answers none of these images rightly.", "There is nothing to attack: raise --limit.")
