"""What attacks ascend: one number per sample, larger means closer to a mistake."""

from torch.nn.functional import cross_entropy

from robustbench_twicing.tensors import Labels, Logits, Mask, PerSample


def cross_entropy_loss(logits: Logits, labels: Labels) -> PerSample:
    """Cross-entropy with the label, in nats."""
    return cross_entropy(logits, labels, reduction="none")


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


def fooled(logits: Logits, labels: Labels) -> Mask:
    """The model's answer is not `labels`. Ties break as `argmax` breaks them."""
    return logits.argmax(1) != labels


def _own(logits: Logits, labels: Labels) -> PerSample:
    return logits.gather(1, labels[:, None]).squeeze(1)


def _others(logits: Logits, labels: Labels) -> Logits:
    return logits.scatter(1, labels[:, None], float("-inf"))
