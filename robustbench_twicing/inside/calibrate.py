"""A temperature for a model's probabilities, and how well its scores tell other images from those that belong."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from robustbench_twicing.errors import UserError
from robustbench_twicing.inside.calibrated import Calibrated, Told, Value
from robustbench_twicing.metrics import outliers
from robustbench_twicing.metrics.table import METRICS, Metric, computed
from robustbench_twicing.metrics.table_intervals import interval

_OF_ANSWERS = ("mean_loss", "brier", "ece")
_OF_SCORES = ("auroc", "aupr", "fpr95")


class Said(NamedTuple):
    """What a model says of some images."""

    logits: np.ndarray
    """(samples, classes) float64, the classes that may answer."""
    labels: np.ndarray
    """True classes, by their place among these; -1 where it is none of them."""
    features: np.ndarray | None
    """(samples, features) float64: what the last layer is given, where there is one."""

    def take(self, rows: np.ndarray) -> "Said":
        """Some of the samples."""
        features = None if self.features is None else self.features[rows]
        return Said(self.logits[rows], self.labels[rows], features)


def last_layer(network: nn.Module) -> nn.Linear | None:
    """The linear layer that makes the logits, of a network that says which one it is, as timm's do."""
    asked = getattr(network, "get_classifier", None)
    found = asked() if callable(asked) else getattr(network, "fc", None)
    return found if isinstance(found, nn.Linear) else None


def answers(
    model: Callable[[torch.Tensor], torch.Tensor],
    layer: nn.Linear | None,
    batches: Iterator[tuple[torch.Tensor, torch.Tensor]],
    scored: tuple[int, ...] | None,
) -> Said:
    """What a model says of batches of images and labels. Raises `UserError` without any, and for logits of no use."""
    logits, labels, features = [], [], []
    heard: list[torch.Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, given: heard.append(given[0])) if layer is not None else None
    try:
        with torch.no_grad():
            for images, true in batches:
                heard.clear()
                logits.append(model(images).double().cpu().numpy())
                labels.append(true.cpu().numpy())
                features += [one[: len(images)].double().cpu().numpy() for one in heard[:1]]
    finally:
        if hook is not None:
            hook.remove()
    if not logits:
        raise UserError("There is no image to look at.", "Raise --limit, or choose another data set.")
    rows, true_labels = np.concatenate(logits), np.concatenate(labels)
    if not np.isfinite(rows).all():
        raise UserError("Some logits are not finite, and give no probabilities.", "`diagnose` says more of the model.")
    if scored is not None:
        places = {number: place for place, number in enumerate(scored)}
        rows, true_labels = rows[:, list(scored)], np.array([places.get(int(one), -1) for one in true_labels])
    seen = np.concatenate(features) if len(features) == len(logits) and features[0].ndim == 2 else None
    return Said(rows, true_labels, seen)


def halves(samples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to fit on and rows to judge on: a half each, drawn by the seed. Raises `UserError` below four."""
    if samples < 4:
        raise UserError(f"{samples} clean images cannot be fitted on and judged.", "Raise --limit.")
    drawn = np.random.default_rng([seed, samples]).permutation(samples)
    return np.sort(drawn[: samples // 2]), np.sort(drawn[samples // 2 :])


def calibrated(model: str, threat: str, fit: Said, judged: Said) -> Calibrated:
    """The temperature of one half, and what it makes of the other."""
    found = outliers.temperature(fit.logits, fit.labels)
    figures = {
        (metric.name, after): _value(metric, _inputs(judged, found if after else 1.0))
        for metric in _metrics(_OF_ANSWERS)
        for after in (False, True)
    }
    return Calibrated(model, threat, len(fit.labels), len(judged.labels), found, figures)


def told_apart(model: str, threat: str, fit: Said, judged: Said, others: Said, layer: nn.Linear | None) -> list[Told]:
    """How well each score tells the others from the half of the clean images that nothing was fitted on."""
    known = None
    if layer is not None and fit.features is not None:
        bias = layer.bias if layer.bias is not None else layer.weight.new_zeros(len(layer.weight))
        weight, offset = (one.detach().double().cpu().numpy() for one in (layer.weight, bias))
        known = outliers.Known(fit.logits, fit.features, weight, offset)
    here, there = (outliers.scores(one.logits, one.features, known) for one in (judged, others))
    found = []
    for name in here:
        inputs = {"outlier_scores": there[name], "inlier_scores": here[name]}
        figures = {metric.name: _value(metric, inputs) for metric in _metrics(_OF_SCORES)}
        found.append(Told(model, threat, len(judged.labels), len(others.labels), name, figures))
    return found


def _metrics(names: tuple[str, ...]) -> list[Metric]:
    return [next(metric for metric in METRICS if metric.name == name) for name in names]


def _inputs(said: Said, temperature: float) -> dict[str, Any]:
    """As the records state them, in order of rising confidence."""
    shares = outliers.probabilities(said.logits, temperature)
    rows = np.arange(len(said.labels))
    own = shares[rows, said.labels]
    found = {
        "loss": -np.log(np.maximum(own, np.finfo(float).tiny)),
        "brier": (shares**2).sum(1) - 2 * own + 1,
        "confidence": shares.max(1),
        "correct": said.logits.argmax(1) == said.labels,
    }
    order = np.argsort(found["confidence"], kind="stable")
    return {name: values[order] for name, values in found.items()}


def _value(metric: Metric, inputs: Mapping[str, Any]) -> Value:
    ends = interval(metric, inputs)
    return Value(float(computed(metric, inputs)), *(ends or (None, None)))
