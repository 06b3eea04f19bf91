"""What attacks ascend: one number per sample, larger means closer to a mistake."""

import torch
from torch.nn.functional import cross_entropy

from robustbench_twicing.tensors import Labels, Logits, PerSample


def cross_entropy_loss(logits: Logits, labels: Labels) -> PerSample:
    """Cross-entropy with the label, in nats."""
    return cross_entropy(logits, labels, reduction="none")


def margin(logits: Logits, labels: Labels) -> PerSample:
    """The label's logit minus the largest other logit: positive where the model answers `labels`."""
    own = logits.gather(1, labels[:, None]).squeeze(1)
    others = logits.scatter(1, labels[:, None], float("-inf")).amax(1)
    return own - others


def margin_loss(logits: Logits, labels: Labels) -> PerSample:
    """Largest other logit minus the label's (Carlini & Wagner 2017, arXiv 1608.04644, f6 without confidence)."""
    return -margin(logits, labels)


def fooled(logits: Logits, labels: Labels) -> torch.Tensor:
    """(batch,) bool: the model's answer is not `labels`. Ties break as `argmax` breaks them."""
    return logits.argmax(1) != labels
