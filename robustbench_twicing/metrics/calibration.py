"""Does the confidence of a model mean anything? `confidence` is the softmax probability of the predicted class."""

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import ndtr

Confidence = Float[np.ndarray, " samples"]
Hits = Bool[np.ndarray, " samples"]
Positives = Float[np.ndarray, " positives"]
Negatives = Float[np.ndarray, " negatives"]


def expected_calibration_error(confidence: Confidence, correct: Hits, bins: int = 15) -> float:
    """Mean |accuracy - mean confidence| over bins of equal width, weighted by the samples in each. In [0, 1].

    Naeini, Cooper and Hauskrecht (2015, AAAI); 15 bins, closed on the right, as Guo et al. (2017, arXiv 1706.04599).
    Depends on the number of bins and is biased upward for few samples: see `calibrated_ece`. NaN without samples.
    """
    if not correct.size:
        return float("nan")
    gap = np.bincount(equal_bins(confidence, bins), weights=correct - confidence, minlength=bins)
    return float(np.abs(gap).sum() / len(correct))


def calibrated_ece(confidence: Confidence, bins: int = 15) -> float:
    """What `expected_calibration_error` of these samples is on average for a model that is calibrated: its null level.

    Every sample right with the probability of its confidence; a bin's gap is then about normal, and the mean of its
    absolute value √(2/π) times its standard deviation. Not 0, and the larger the fewer samples. NaN without samples.
    """
    return calibrated_gaps(confidence, bins)[0]


def calibrated_gaps(confidence: Confidence, bins: int = 15) -> tuple[float, float]:
    """Mean and standard deviation of `expected_calibration_error` of a calibrated model, see `calibrated_ece`."""
    if not confidence.size:
        return float("nan"), float("nan")
    variance = np.bincount(equal_bins(confidence, bins), weights=confidence * (1 - confidence), minlength=bins)
    mean, spread = np.sqrt(2 / np.pi * variance).sum(), np.sqrt((1 - 2 / np.pi) * variance.sum())
    return float(mean / len(confidence)), float(spread / len(confidence))


def debiased_ece(confidence: Confidence, correct: Hits, bins: int = 15) -> float:
    """`expected_calibration_error` less an estimate of its bias (Kumar, Liang and Ma 2019, arXiv 1909.10155, app. D).

    Twice the error, minus its mean if the accuracy of each bin were drawn again, normal around the one observed. That
    mean has a closed form (of the folded normal distribution), where the authors simulate. May be negative. Takes away
    about 40 % of a calibrated model's bias, and most of others' (docs/statistics.md). NaN without samples.
    """
    if not correct.size:
        return float("nan")
    index = equal_bins(confidence, bins)
    sizes = np.bincount(index, minlength=bins)
    kept = sizes > 0
    sizes, gap, right = (
        found[kept]
        for found in (
            sizes,
            np.bincount(index, weights=correct - confidence, minlength=bins),
            np.bincount(index, weights=correct.astype(float), minlength=bins),
        )
    )
    spread = np.sqrt(right * (1 - right / sizes))  # of the number right in a bin
    ratio = np.divide(gap, spread, out=np.zeros_like(gap), where=spread > 0)
    again = np.where(
        spread > 0,
        spread * np.sqrt(2 / np.pi) * np.exp(-(ratio**2) / 2) + gap * (2 * ndtr(ratio) - 1),
        np.abs(gap),
    )
    return float((2 * np.abs(gap) - again).sum() / len(correct))


def equal_bins(confidence: Confidence, bins: int) -> Int[np.ndarray, " samples"]:
    """The bin of each sample, from 0: of equal width, closed on the right."""
    index: np.ndarray = np.searchsorted(np.arange(1, bins) / bins, confidence, side="left")
    return index


def rms_calibration_error(
    confidence: Confidence, correct: Hits, bin_size: int = 100, omit_last_bin: bool = False
) -> float:
    """Root of the mean squared (accuracy - mean confidence) over bins of `bin_size` samples of neighbouring confidence.

    Hendrycks, Mazeika and Dietterich (2019, arXiv 1812.04606). The last bin also takes the remainder.
    `omit_last_bin=True` repeats the scripts behind the published figures of ImageNet-A and -R, whose loop leaves out
    the last, most confident bin but divides by all samples (natural-adv-examples `calibration_tools.py`, imagenet-r
    `utils.py`): use it beside those figures only. Samples of equal confidence share their mean correctness, so the
    order of the rows does not matter; the scripts leave that to the sorting. NaN without samples.
    """
    if not correct.size:
        return float("nan")
    confidence, correctness = _by_confidence(confidence, correct)
    bins = max(1, len(confidence) // bin_size)
    starts = np.arange(bins) * bin_size
    sizes = np.diff(np.append(starts, len(confidence)))
    gaps = np.add.reduceat(correctness - confidence, starts) / sizes
    kept = slice(0, bins - 1) if omit_last_bin else slice(None)
    return float(np.sqrt((sizes * gaps**2)[kept].sum() / len(confidence)))


def published_rms_calibration_error(confidence: Confidence, correct: Hits, bin_size: int = 100) -> float:
    """`rms_calibration_error` as the scripts behind the published figures of ImageNet-A and -R compute it.

    They leave out the last bin, so that fewer than two bins leave nothing: NaN (the scripts say 0).
    """
    if len(correct) < 2 * bin_size:
        return float("nan")
    return rms_calibration_error(confidence, correct, bin_size, omit_last_bin=True)


def aurra(confidence: Confidence, correct: Hits) -> float:
    """Area under the response rate accuracy curve: mean accuracy of the k most confident samples, over k = 1 … n.

    Hendrycks et al. (2021, arXiv 1907.07174; natural-adv-examples `calibration_tools.py`). In [0, 1], higher
    is better; mixes accuracy with calibration. Samples of equal confidence share their mean correctness, so the
    order of the rows does not matter. NaN without samples.
    """
    if not correct.size:
        return float("nan")
    correctness = _by_confidence(confidence, correct)[1][::-1]
    return float((np.cumsum(correctness) / np.arange(1, len(correctness) + 1)).mean())


def aurc(confidence: Confidence, correct: Hits) -> float:
    """Area under the risk-coverage curve: mean error of the k most confident samples, over k = 1 … n; 1 - `aurra`.

    Geifman, Uziel and El-Yaniv (2019, arXiv 1805.08206). In [0, 1], lower is better. NaN without samples.
    """
    return 1 - aurra(confidence, correct)


def _by_confidence(confidence: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both in order of rising confidence; `correct` as the mean over the samples that share a confidence."""
    if (confidence[1:] < confidence[:-1]).any():
        order = np.argsort(confidence, kind="stable")
        confidence, correct = confidence[order], correct[order]
    other = confidence[1:] != confidence[:-1]
    if other.all():
        return confidence, correct.astype(float)
    group = np.cumsum(np.append(False, other))
    shared = np.bincount(group, weights=correct) / np.bincount(group)
    return confidence, shared[group]


# --- out-of-distribution detection (ImageNet-O) --------------------------------------------------------------------
# The positives are the out-of-distribution samples, and a score is larger the less the sample seems to belong: minus
# the largest softmax probability (Hendrycks and Gimpel 2017, arXiv 1610.02136). ImageNet-O's own scripts do
# the same (natural-adv-examples `eval.py`, `calibration_tools.py`). With the positives the other way round, AUROC is
# the same if the scores change sign, but AUPR and FPR95 are other quantities.


def auroc(positives: Positives, negatives: Negatives) -> float:
    """Probability that a random positive scores above a random negative, ties counting half (Mann and Whitney 1947).

    0.5 is chance. NaN if either side is empty.
    """
    if not positives.size or not negatives.size:
        return float("nan")
    ordered = np.sort(negatives)
    below, up_to = (np.searchsorted(ordered, positives, side=side).sum() for side in ("left", "right"))
    return float((below + up_to) / 2 / (len(positives) * len(negatives)))


def aupr(positives: Positives, negatives: Negatives) -> float:
    """Average precision: sum over thresholds of (rise in recall) × precision, without interpolation.

    Chance is the share of positives, so values from sets of other proportions are not comparable. NaN if a side is
    empty.
    """
    if not positives.size or not negatives.size:
        return float("nan")
    true, false = _counts_above(positives, negatives)
    return float((np.diff(true, prepend=0) / len(positives) * true / (true + false)).sum())


def fpr_at_recall(positives: Positives, negatives: Negatives, recall: float = 0.95) -> float:
    """Share of negatives at or above the threshold whose recall is nearest to `recall` (FPR95 by default).

    The nearest recall, not the first that reaches it, and of several thresholds with that recall the lowest: as in the
    ImageNet-O scripts. Lower is better. NaN if a side is empty.
    """
    if not positives.size or not negatives.size:
        return float("nan")
    true, false = _counts_above(positives, negatives)
    full = int(np.argmax(true == len(positives)))  # a lower threshold than this only adds negatives
    # From low thresholds to high, so that argmin takes the lowest of several with one recall.
    nearest = np.argmin(np.abs(true[full::-1] / len(positives) - recall))
    return float(false[full - nearest] / len(negatives))


def _counts_above(positives: np.ndarray, negatives: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positives and negatives at or above each distinct score, from the largest score down."""
    thresholds = np.unique(np.concatenate([positives, negatives]))[::-1]
    true = len(positives) - np.searchsorted(np.sort(positives), thresholds, side="left")
    false = len(negatives) - np.searchsorted(np.sort(negatives), thresholds, side="left")
    return true, false
