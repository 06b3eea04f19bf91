"""Every figure of a report, on one screen: of the samples under one threat, or over a whole suite.

A metric is a function in this room (arrays in, a number out) and a row of `METRICS`. The columns of summary and suites,
the report's tables, JSON and `compare` follow from the row.
"""

from collections.abc import Callable, Mapping
from math import inf
from typing import Any, Literal, NamedTuple

from robustbench_twicing.errors import UserError
from robustbench_twicing.metrics.accuracy import (
    accuracy,
    accuracy_high,
    accuracy_low,
    change,
    change_high,
    change_low,
    largest,
    mean,
    unconfirmed,
)
from robustbench_twicing.metrics.calibration import (
    aupr,
    aurc,
    auroc,
    aurra,
    calibrated_ece,
    debiased_ece,
    expected_calibration_error,
    fpr_at_recall,
    published_rms_calibration_error,
    rms_calibration_error,
)
from robustbench_twicing.metrics.corruption_error import mce, mean_error, relative_mce

INPUTS: Mapping[str, str] = {
    # Columns of the records of the samples that were answered, under the threat or under all threats of the suite.
    "correct": "whether each sample counts as right; not of outliers, to which no answer is right",
    "correct_unmasked": "the same when all logits may answer",
    "correct_8bit": "the same with the judged images rounded to 8 bits",
    "top5_correct": "whether the true class is among the five largest logits",
    "confidence": "softmax probability of the predicted class",
    "loss": "cross-entropy with the true class, in nats",
    "brier": "sum over classes of (probability - 1 for the true class, 0 for others)²",
    "linf_distance": "largest change of a value, in the units of eps",
    "precision": "what the attack computed in",
    "rejected": "whether the attack took the sample for broken and float32 did not",
    "forwards": "evaluations of the model",
    "backwards": "input gradients",
    # Of a threat with a clean run beside it: the samples that both answered, or of a shifted data set all of either.
    "correct_here": "whether each counts as right under the threat",
    "correct_when_clean": "whether each counts as right in the clean run",
    "same_samples": "whether both are about the same samples in the same order, or about other photographs",
    # Of a suite of corruptions. Errors are fractions, or in `compare` arrays with one value for each image.
    "errors": "error by (corruption, severity)",
    "clean_error": "error in the clean run",
    "denominators": "the denominator's error by (corruption, severity)",
    "clean_denominator": "the denominator's clean error",
    "families": "the corruptions that a mean over the suite is taken over, by family",
    "severities": "the suite's severities",
    # Of a suite of outliers with a clean run of its classes: minus the confidence (Hendrycks and Gimpel 2017).
    "outlier_scores": "how little each outlier seems to belong",
    "inlier_scores": "how little each clean image seems to belong",
}
"""What a metric may need, by name. A metric whose needs are not all there is empty."""


class Metric(NamedTuple):
    """A row of the table."""

    name: str
    """The column."""
    compute: Callable[..., Any]
    """From its needs, in their order, to a number. NaN, or a `UserError` saying why, if there is none."""
    needs: tuple[str, ...]
    """Names of `INPUTS`."""
    holds: str
    """One line for docs/records.md."""
    of: Literal["threat", "suite", "both"] = "suite"
    title: str = ""
    """Heading in tables; figures of a threat without one are in files only."""
    short: str = ""
    """The heading where there is no room for it, if it is another one."""
    unit: str = ""
    """Of the figure as reports show it."""
    scale: Literal[1, 100] = 1
    """What it is multiplied with for that: 100 shows a fraction in %."""
    better: Literal["higher", "lower", ""] = ""
    interval: Literal["by image", "jackknife", "from zero", ""] = ""
    """How its interval is found, and that of a difference. By image: given arrays of errors with one value for each
    image, `compute` gives a value for each. Jackknife: a figure in [0, most], computed again without groups
    of images, so its needs are arrays of samples. From zero: of a calibration error of (confidence, correct), which
    cannot be negative (`jackknife.calibration_estimate`); its differences are not compared. Otherwise there is none."""
    most: float = 1.0
    """The largest value of a figure whose interval is jackknifed."""


_OVER = ("families", "severities")
_SCORES = ("outlier_scores", "inlier_scores")
_ANSWERS = ("confidence", "correct")

METRICS: list[Metric] = [
    Metric("accuracy", accuracy, ("correct",), "fraction of n that counts as right, top-1, in [0, 1]", "threat"),
    Metric("ci_low", accuracy_low, ("correct",), "lower end of the 95 % Wilson interval of accuracy", "threat"),
    Metric("ci_high", accuracy_high, ("correct",), "upper end of the 95 % Wilson interval of accuracy", "threat"),
    Metric(
        "accuracy_unmasked",
        accuracy,
        ("correct_unmasked",),
        "top-1 when all logits may answer, not only those of the suite's classes",
        "threat",
    ),
    Metric(
        "top5_accuracy",
        accuracy,
        ("top5_correct",),
        "fraction of n whose true class is among the five largest logits",
        "threat",
    ),
    Metric(
        "accuracy_8bit",
        accuracy,
        ("correct_8bit",),
        "accuracy with the judged images rounded to 8 bits; accuracy itself if not asked for",
        "threat",
    ),
    Metric(
        "rejected",
        unconfirmed,
        ("correct", "rejected", "forwards", "precision"),
        "fraction of the attack's successes, in that precision or compiled, that float32 did not confirm",
        "threat",
    ),
    Metric(
        "clean_accuracy",
        accuracy,
        ("correct_when_clean",),
        "the model's clean accuracy on the samples that both answered (a shifted data set: on its classes)",
        "threat",
    ),
    Metric(
        "drop",
        change,
        ("correct_here", "correct_when_clean"),
        "accuracy on those samples - clean_accuracy: negative is lost; empty if clean was not run",
        "threat",
    ),
    Metric(
        "drop_low",
        change_low,
        ("correct_here", "correct_when_clean", "same_samples"),
        "lower end of drop's 95 % interval: paired, but for a shifted data set, which has photographs of its own",
        "threat",
    ),
    Metric(
        "drop_high",
        change_high,
        ("correct_here", "correct_when_clean", "same_samples"),
        "upper end of drop's 95 % interval",
        "threat",
    ),
    Metric(
        "mean_loss",
        mean,
        ("loss",),
        "negative log-likelihood (NLL): mean cross-entropy on the judged images, in nats",
        "both",
        title="NLL",
        better="lower",
        interval="jackknife",
        most=inf,
    ),
    Metric(
        "brier",
        mean,
        ("brier",),
        "Brier score over all classes, in [0, 2]",
        "both",
        title="Brier",
        better="lower",
        interval="jackknife",
        most=2.0,
    ),
    Metric(
        "max_linf_distance",
        largest,
        ("linf_distance",),
        "largest measured L∞ distance, in the units of eps",
        "threat",
    ),
    Metric("forwards_per_sample", mean, ("forwards",), "mean evaluations of the model per sample", "threat"),
    Metric("backwards_per_sample", mean, ("backwards",), "mean input gradients per sample", "threat"),
    Metric(
        "mean_error",
        mean_error,
        ("errors", *_OVER),
        "mean top-1 error over the suite's common corruptions at its severities, in [0, 1]",
        title="mean error",
        unit="%",
        scale=100,
        better="lower",
        interval="by image",
    ),
    Metric(
        "mce",
        mce,
        ("errors", "denominators", *_OVER),
        "mean corruption error over exactly those, in percent of the denominator's, if there is one",
        title="mCE",
        unit="%",
        better="lower",
        interval="by image",
    ),
    Metric(
        "relative_mce",
        relative_mce,
        ("errors", "clean_error", "denominators", "clean_denominator", *_OVER),
        "the same for what the corruptions add to the clean error",
        title="relative mCE",
        short="rel. mCE",
        unit="%",
        better="lower",
        interval="by image",
    ),
    Metric(
        "ece",
        expected_calibration_error,
        _ANSWERS,
        "expected calibration error over 15 equal bins, in [0, 1]",
        "both",
        title="ECE",
        better="lower",
        interval="from zero",
    ),
    Metric(
        "ece_debiased",
        debiased_ece,
        _ANSWERS,
        "ece less an estimate of its bias (Kumar et al. 2019); may be negative",
        title="ECE debiased",
        better="lower",
    ),
    Metric(
        "ece_if_calibrated",
        calibrated_ece,
        ("confidence",),
        "mean ece of a calibrated model with as many samples and these confidences: what ece is to be measured against",
        "both",
        title="ECE if calibrated",
    ),
    Metric(
        "rms_calibration_error",
        rms_calibration_error,
        _ANSWERS,
        "root mean square calibration error, in [0, 1]",
        title="RMS CE",
        better="lower",
        interval="from zero",
    ),
    Metric(
        "published_rms_calibration_error",
        published_rms_calibration_error,
        _ANSWERS,
        "the same without the most confident bin, as the scripts behind the published figures of ImageNet-A and -R",
        title="published RMS CE",
        short="publ. RMS CE",
        better="lower",
    ),
    Metric(
        "aurra",
        aurra,
        _ANSWERS,
        "area under the response rate accuracy curve, in [0, 1]",
        title="AURRA",
        better="higher",
        interval="jackknife",
    ),
    Metric(
        "aurc",
        aurc,
        _ANSWERS,
        "area under the risk-coverage curve: mean error of the k most confident, over all k, in [0, 1]",
        "threat",
        title="AURC",
        better="lower",
        interval="jackknife",
    ),
    Metric(
        "auroc",
        auroc,
        _SCORES,
        "outlier suites: how well confidence tells outliers from ImageNet's own classes",
        title="AUROC",
        better="higher",
        interval="jackknife",
    ),
    Metric(
        "aupr",
        aupr,
        _SCORES,
        "outlier suites: area under precision and recall, outliers positive",
        title="AUPR",
        better="higher",
        interval="jackknife",
    ),
    Metric(
        "fpr95",
        fpr_at_recall,
        _SCORES,
        "outlier suites: false positive rate where 95 % of the outliers are found",
        title="FPR95",
        better="lower",
        interval="jackknife",
    ),
]


_ENDS = (("low", "lower"), ("high", "upper"))


def add_metric(metric: Metric) -> None:
    """A row from outside. Raises `UserError` for needs that nobody meets."""
    unknown = [name for name in metric.needs if name not in INPUTS]
    if unknown:
        raise UserError(f"Metric {metric.name!r} needs {unknown[0]!r}.", f"What there is: {', '.join(INPUTS)}.")
    METRICS.append(metric)


def columns(metric: Metric) -> dict[str, str]:
    """The metric's columns, and what they hold: its value, and the ends of its interval."""
    ends = {f"{metric.name}_{end}": f"{name} end of its 95 % interval" for end, name in _ENDS if metric.interval}
    return {metric.name: metric.holds, **ends}


def of(what: Literal["threat", "suite"]) -> tuple[Metric, ...]:
    """The metrics of a threat's samples, or of a whole suite."""
    return tuple(metric for metric in METRICS if metric.of in (what, "both"))


def computed(metric: Metric, inputs: Mapping[str, Any]) -> Any:
    """A metric of some inputs; None if they are not all there. Raises `UserError` as its function does."""
    if not all(name in inputs for name in metric.needs):
        return None
    return metric.compute(*(inputs[name] for name in metric.needs))
