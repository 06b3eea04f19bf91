"""What can be wrong with a model so that its accuracy would mean nothing, found before hours are spent.

Most of it is from Carlini et al. 2019 (arXiv 1902.06705, section 5) and from what users of attack libraries report.
"""

from typing import NamedTuple

import torch
from scipy.special import bdtrc

from robustbench_twicing.engine.contract import NoGradientError, Queries
from robustbench_twicing.engine.losses import log_odds_against
from robustbench_twicing.errors import UserError
from robustbench_twicing.tensors import Images, Labels

SAMPLES = 64
"""Samples to look at: with them, an accuracy of 5 % shows beside the 0.1 % of chance in 1,000 classes."""

_SURPRISE = 0.01
"""Accuracy is called no better than chance if guessing does as well with more than this probability. Nothing is said of
samples so few that guessing gets all of them right with more than that."""

_REPEATABLE = 1e-3
"""Largest difference between two evaluations of the same images, relative to the largest logit. Sums in another order
give 1e-6 in float32; dropout and batch statistics give more than a hundredth."""


class Finding(NamedTuple):
    """Something wrong with a model."""

    check: str
    refuses: bool
    """Such a model is not worth running; otherwise it is a warning."""
    says: str
    """What was found and what it means."""
    remedy: str


def preflight(
    model: Queries,
    images: Images,
    labels: Labels,
    gradients: bool,
    attacked: bool = True,
    usual: bool = True,
    draws: int = 1,
) -> list[Finding]:
    """Look at a model with some clean images (at least one) and their labels.

    `images` (batch, 3, H, W) are pixels; `gradients` says whether an attack will use them, `attacked` whether there is
    one at all, `usual` whether they are images on which better than guessing is expected, `draws` over how many
    draws of a random model attacks average (1: a random model is refused). The model is evaluated twice on each image,
    and once with its gradient.
    """
    found: list[Finding] = []

    def add(check: str, refuses: bool, says: str, remedy: str) -> None:
        found.append(Finding(check, refuses, says, remedy))

    low, high = images.min().item(), images.max().item()
    if not (low >= 0 and high <= 1):
        says = f"The images hold values from {low:.3g} to {high:.3g}, outside of [0, 1], where attacks clip them."
        add("range", True, says, "Give pixels divided by 255 and put the normalisation inside the model.")
        return found
    logits = model(images)
    if logits.shape[1] <= int(labels.max()):
        says = f"The model has {logits.shape[1]} classes, and a label is {int(labels.max())}."
        add("classes", True, says, "Use a model that was trained for this data set.")
        return found
    finite = logits.isfinite().all(1)
    if not finite.all():
        says = f"The logits of {int((~finite).sum())} of {len(images)} clean images are not finite."
        remedy = "Check the weights; such samples are recorded as failed."
        add("finite", not finite.any(), says, remedy)
        if not finite.any():
            return found
    images, labels, logits = images[finite], labels[finite], logits[finite]
    found += _probabilities(logits, attacked) + _repeatable(model, images, logits, draws)
    if gradients:
        found += _gradients(model, images, labels)
    return found + (_accuracy(logits, labels) if usual else [])


def _accuracy(logits: torch.Tensor, labels: Labels) -> list[Finding]:
    right, count, chance = int((logits.argmax(1) == labels).sum()), len(labels), 1 / logits.shape[1]
    if chance**count > _SURPRISE:  # too few: not even all right would tell a model from guessing
        return []
    if bdtrc(right - 1, count, chance) <= _SURPRISE:
        return []
    says = f"Only {right} of {count} clean images are answered rightly, which guessing does as well."
    return [Finding("accuracy", False, says, "Check the order of the classes, the preprocessing and the weights.")]


def _probabilities(logits: torch.Tensor, attacked: bool) -> list[Finding]:
    sums = logits.double().sum(1)
    if logits.shape[1] < 2 or logits.min() < 0 or (sums - 1).abs().max() > 1e-3:
        return []
    says = "The model returns probabilities: no value is negative and every row adds up to 1. "
    if attacked:
        says += "Their gradient vanishes where the model is certain, so attacks look weaker than they are."
    else:
        says += "Right answers are counted all the same; confidence, loss and calibration are of other values."
    return [Finding("logits", attacked, says, "Take the softmax off the model's end.")]


def _repeatable(model: Queries, images: Images, logits: torch.Tensor, draws: int) -> list[Finding]:
    scale = logits.abs().max().clamp_min(1e-6)
    if (model(images) - logits).abs().max() > _REPEATABLE * scale:
        if draws > 1:
            says = f"The model draws at random. Attacks average over {draws} draws; a verdict is that of one more: "
            remedy = "Read intervals as being over draws, too."
            return [Finding("repeatable", False, f"{says}the same run again gives others.", remedy)]
        says = "The same images give other logits each time: the model draws at random, and verdicts would be luck."
        remedy = "Call model.eval(); a random defence is attacked over its draws: --eot 20."
        return [Finding("repeatable", True, says, remedy)]
    if len(images) > 1:
        try:
            alone = torch.cat([model(image) for image in images[:4].split(1)])
        except UserError as error:
            says = f"An image without images beside it is not answered: {error.message}"
            return [Finding("batch", True, says, "Call model.eval().")]
        if (alone - logits[:4]).abs().max() > _REPEATABLE * scale:
            says = "An image's logits depend on the images beside it, as with batch statistics in training mode."
            return [Finding("batch", True, says, "Call model.eval().")]
    return []


def _gradients(model: Queries, images: Images, labels: Labels) -> list[Finding]:
    try:
        _, gradient = model.gradient(images, labels, log_odds_against)
    except UserError as raised:  # what raises only where a gradient is asked for, such as numpy()
        error = raised if isinstance(raised, NoGradientError) else NoGradientError(raised.message.rstrip("."))
        return [Finding("gradient", True, error.message, error.hint)]
    flat = gradient.flatten(1)
    broken = int((~flat.isfinite().all(1)).sum())
    zero = int((flat == 0).all(1).sum())
    if broken:
        says = f"The input gradient of {broken} of {len(images)} images is not finite, so attacks go nowhere."
        return [
            Finding("gradient", broken == len(images), says, "Look for a division by zero or a square root at zero.")
        ]
    if zero:
        says = f"The input gradient of {zero} of {len(images)} images is zero: a gradient attack finds nothing there, "
        says += "which is not robustness."
        remedy = "Look for rounding, a detached tensor or an ignored input; or attack without gradients: "
        return [Finding("gradient", zero == len(images), says, remedy + "--attack square, --attack spsa.")]
    return []
