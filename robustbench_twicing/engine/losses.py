"""What attacks ascend: one number per sample, larger means closer to a mistake."""

import torch
from jaxtyping import Float, Int
from torch.nn.functional import cross_entropy

from robustbench_twicing.errors import UserError
from robustbench_twicing.tensors import Labels, Logits, Mask, PerSample

# Keeps a ratio finite where all logits are equal; the value of fra31/auto-attack (autoattack/autopgd_base.py).
_NO_SPREAD = 1e-12


def cross_entropy_loss(logits: Logits, labels: Labels) -> PerSample:
    """Cross-entropy with the label, in nats."""
    return cross_entropy(logits, labels, reduction="none")


def brier_score(probabilities: Logits, labels: Labels) -> PerSample:
    """Sum over classes of (probability - 1 for the label, 0 for others)², in [0, 2] (Brier 1950, Monthly Weather Review
    78:1-3)."""
    return ((probabilities**2).sum(1) - 2 * _own(probabilities, labels) + 1).clamp(min=0)


def log_odds_against(logits: Logits, labels: Labels) -> PerSample:
    """log((1 - p) / p) for the label's probability p: the cross-entropy is softplus of this.

    So both rise in the same direction, which is all that a signed or normalised step uses. But the gradient of the
    cross-entropy is lost where the model is certain: in float32 p rounds to 1 as soon as the label leads by 17, and
    the attack then ignores the label's logit. This one never vanishes.
    """
    return _others(logits, labels).logsumexp(1) - _own(logits, labels)


def margin(logits: Logits, labels: Labels) -> PerSample:
    """The label's logit minus the largest other logit: positive where the model answers `labels`."""
    return _own(logits, labels) - _others(logits, labels).amax(1)


def margin_loss(logits: Logits, labels: Labels) -> PerSample:
    """Largest other logit minus the label's (Carlini & Wagner 2017, arXiv 1608.04644, f6 without confidence)."""
    return -margin(logits, labels)


def dlr(logits: Logits, labels: Labels) -> PerSample:
    """Difference of logits ratio (Croce & Hein 2020, arXiv 2003.01690, eq. 6): the margin loss over the distance from
    the largest to the third largest logit, so that neither adding to the logits nor scaling them changes it.

    Raises `UserError` for fewer than 3 classes.
    """
    first, _, third = _largest(logits, 3, "The DLR loss").unbind(1)
    return margin_loss(logits, labels) / (first - third + _NO_SPREAD)


def targeted_dlr(logits: Logits, labels: Labels, targets: Labels) -> PerSample:
    """DLR towards `targets` (Croce & Hein 2020, arXiv 2003.01690, eq. 7): the target's logit minus the label's, over
    the distance from the largest logit to the middle of the third and the fourth.

    Raises `UserError` for fewer than 4 classes.
    """
    first, _, third, fourth = _largest(logits, 4, "The targeted DLR loss").unbind(1)
    return lead_of_targets(logits, labels, targets) / (first - (third + fourth) / 2 + _NO_SPREAD)


def lead_of_targets(logits: Logits, labels: Labels, targets: Labels) -> PerSample:
    """The target's logit less the label's (MultiTargeted, Gowal et al. 2019, arXiv 1910.09338, eq. 6)."""
    return _own(logits, targets) - _own(logits, labels)


def fooled(logits: Logits, labels: Labels) -> Mask:
    """The model's answer is not `labels`. Ties break as `argmax` breaks them.

    Logits with a NaN are no answer at all: the attack may stop, and the runner records the sample as failed.
    """
    return (logits.argmax(1) != labels) | logits.isnan().any(1)


def wrong_classes(logits: Logits, labels: Labels, count: int) -> Int[torch.Tensor, "batch count"]:
    """(batch, count): the classes other than `labels`, those with the largest logits first."""
    return _others(logits, labels).topk(count, dim=1).indices


def _largest(logits: Logits, count: int, who: str) -> Float[torch.Tensor, "batch count"]:
    """The largest logits, descending."""
    classes = logits.shape[1]
    if classes < count:
        raise UserError(
            f"{who} needs at least {count} classes; the model has {classes}.",
            "Use an attack without it, such as apgd-ce, pgd or square.",
        )
    return logits.topk(count, dim=1).values


def _own(logits: Logits, labels: Labels) -> PerSample:
    return logits.gather(1, labels[:, None]).squeeze(1)


def _others(logits: Logits, labels: Labels) -> Logits:
    return logits.scatter(1, labels[:, None], float("-inf"))
