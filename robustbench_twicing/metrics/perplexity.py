"""How well a language model predicts a text, from sums over documents. Arrays in, numbers out.

Every number is a ratio of sums over all documents, never a mean of ratios: the nats of all tokens over how many there
are of tokens, words or bytes. An interval draws documents, since the tokens of one hang together.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import stdtr, stdtrit

from robustbench_twicing.errors import UserError
from robustbench_twicing.metrics.intervals import Interval

Sums = Float[np.ndarray, " documents"]
"""One number for each document: its nats, tokens, words or bytes."""

_DRAWS = 4000
_EXCHANGES = 20_000


def token_perplexity(nats: Sums, tokens: Sums) -> float:
    """exp(nats / tokens). It depends on the tokenizer: of two models only to be compared where they share one."""
    return _exp(_ratio(nats, tokens))


def word_perplexity(nats: Sums, words: Sums) -> float:
    """exp(nats / words), words being what stands between white space."""
    return _exp(_ratio(nats, words))


def bits_per_byte(nats: Sums, size: Sums) -> float:
    """nats / (ln 2 · bytes of UTF-8): comparable across tokenizers. Special tokens have no bytes."""
    return _ratio(nats, size) / math.log(2)


def bits_interval(nats: Sums, size: Sums, level: float = 0.95) -> Interval:
    """Bootstrap over documents (percentiles of 4,000 draws, the same every time). Raises `UserError` below two."""
    drawn = _weights(len(nats)) @ np.stack((nats, size), axis=1)
    return _ends(drawn[:, 0] / drawn[:, 1] / math.log(2), level)


class Difference(NamedTuple):
    """Bits per byte of a candidate minus those of the baseline, on the same documents: negative is better."""

    value: float
    interval: Interval
    p: float
    """Two-sided: how often exchanging the two models' answers document by document differs as much."""


def paired_difference(baseline: Sums, candidate: Sums, size: Sums, level: float = 0.95) -> Difference:
    """Of the nats of two models on the same documents of `size` bytes. Raises `UserError` below two documents."""
    change = candidate - baseline
    drawn = _weights(len(change)) @ np.stack((change, size), axis=1)
    value = _ratio(change, size) / math.log(2)
    return Difference(value, _ends(drawn[:, 0] / drawn[:, 1] / math.log(2), level), _exchange_p(change))


def arms_difference(baseline: Sequence[float], candidate: Sequence[float], level: float = 0.95) -> Difference:
    """Of the bits per byte of two arms' training seeds on the same documents: Welch's t, its interval and p.

    It speaks of other seeds on these documents. Raises `UserError` below two seeds of an arm.
    """
    value, error, df = _welch(baseline, candidate)
    if not error:
        return Difference(value, Interval(value, value), 1.0 if value == 0 else 0.0)
    half = float(stdtrit(df, (1 + level) / 2)) * error
    return Difference(value, Interval(value - half, value + half), float(2 * stdtr(df, -abs(value) / error)))


class Rise(NamedTuple):
    """Of bits per byte, beside a tolerance."""

    interval: Interval
    """Of the difference."""
    p_exceeded: float
    """One-sided p of "the rise is the tolerance at most"."""
    p_ruled_out: float
    """One-sided p of "the rise is the tolerance or more"."""


def paired_rise(baseline: Sums, tonight: Sums, size: Sums, tolerance: float, level: float) -> Rise:
    """Of the nats of two nights on the same documents of `size` bytes: Student's t of what each document's bits are
    above its share of the tolerance (Fieller 1954, of a ratio). Raises `UserError` below two documents.
    """
    above = (tonight - baseline) / math.log(2) - tolerance * size
    interval = paired_difference(baseline, tonight, size, level).interval
    error = float(above.std(ddof=1)) / math.sqrt(len(above))
    return Rise(interval, *_one_sided(float(above.mean()), error, float(len(above) - 1)))


def arms_rise(baseline: Sequence[float], tonight: Sequence[float], tolerance: float, level: float) -> Rise:
    """Of the bits per byte of an arm's training seeds on two nights, as `arms_difference`."""
    value, error, df = _welch(baseline, tonight)
    return Rise(arms_difference(baseline, tonight, level).interval, *_one_sided(value - tolerance, error, df))


def _one_sided(value: float, error: float, df: float) -> tuple[float, float]:
    """p of "the truth is 0 at most", and of "it is 0 or more"."""
    if not error:
        return (1.0, 0.0) if value < 0 else (0.0, 1.0) if value > 0 else (1.0, 1.0)
    below = float(stdtr(df, value / error))
    return 1 - below, below


def _welch(baseline: Sequence[float], candidate: Sequence[float]) -> tuple[float, float, float]:
    """The difference of two means, its standard error and degrees of freedom. Raises `UserError` below two values."""
    arms = [np.asarray(arm, dtype=float) for arm in (baseline, candidate)]
    if any(len(arm) < 2 for arm in arms):
        raise UserError("An arm needs two training seeds or more.", "Train more: twicing-bench train --seeds 0-4.")
    parts = [float(arm.var(ddof=1)) / len(arm) for arm in arms]
    error = math.sqrt(sum(parts))
    shares = sum(part**2 / (len(arm) - 1) for part, arm in zip(parts, arms, strict=True))
    return float(arms[1].mean() - arms[0].mean()), error, sum(parts) ** 2 / shares if error else math.inf


def _ratio(some: Sums, whole: Sums) -> float:
    total = float(whole.sum())
    return float(some.sum()) / total if total else math.nan


def _exp(nats: float) -> float:
    return math.exp(nats) if nats < 700 else math.inf


def _weights(documents: int) -> np.ndarray:
    """(draws, documents): how often each draw has each document."""
    if documents < 2:
        raise UserError(
            f"An interval needs at least 2 documents, not {documents}.", "Evaluate more documents: raise --limit."
        )
    random = np.random.Generator(np.random.Philox(key=0))
    return random.multinomial(documents, np.full(documents, 1 / documents), size=_DRAWS).astype(float)


def _ends(drawn: np.ndarray, level: float) -> Interval:
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def _exchange_p(change: np.ndarray) -> float:
    random = np.random.Generator(np.random.Philox(key=1))
    signs = random.integers(0, 2, (_EXCHANGES, len(change))) * 2.0 - 1
    sums = np.abs(signs @ change)
    return float((1 + (sums >= abs(change.sum()) * (1 - 1e-12)).sum()) / (1 + _EXCHANGES))
