"""How little an image seems to belong: scores of logits and features, larger for what belongs less; and a temperature.

As OpenOOD v1.5 defines them (github.com/Jingkang50/OpenOOD), with the sign turned.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.special import logsumexp

LogitRows = Float[np.ndarray, "samples classes"]
FeatureRows = Float[np.ndarray, "samples features"]
KnownRows = Float[np.ndarray, "known features"]
Scores = Float[np.ndarray, " samples"]

NEIGHBOURS = 50
_COLDEST, _HOTTEST = 0.01, 100.0


class Known(NamedTuple):
    """What a model says of images that belong, beside those that are judged, and its last layer."""

    logits: LogitRows
    features: FeatureRows
    """What the last layer is given."""
    weight: Float[np.ndarray, "classes features"]
    bias: Float[np.ndarray, " classes"]


def msp(logits: LogitRows) -> Scores:
    """Minus the largest softmax probability (Hendrycks and Gimpel 2017, arXiv 1610.02136)."""
    found: np.ndarray = -np.exp(logits.max(1) - logsumexp(logits, axis=1))
    return found


def max_logit(logits: LogitRows) -> Scores:
    """Minus the largest logit (Hendrycks et al. 2022, arXiv 1911.11132)."""
    found: np.ndarray = -logits.max(1)
    return found


def energy(logits: LogitRows) -> Scores:
    """-log Σ exp(logits), the free energy at temperature 1 (Liu et al. 2020, arXiv 2010.03759, eq. 4)."""
    found: np.ndarray = -logsumexp(logits, axis=1)
    return found


def knn(features: FeatureRows, known: KnownRows, neighbours: int = NEIGHBOURS) -> Scores:
    """Squared distance to the k-th nearest of the known features, all of length 1 (Sun et al. 2022, arXiv 2204.06507).

    k is 50 as in OpenOOD, or all of fewer known ones. Products of matrices, 1,024 samples at a time.
    """
    bank = _unit(known)
    last = min(neighbours, len(bank)) - 1
    parts = (_unit(features[start : start + 1024]) for start in range(0, len(features), 1024))
    found = [np.partition(2 - 2 * part @ bank.T, last, axis=1)[:, last] for part in parts]
    return np.concatenate([np.empty(0), *found])


def vim(logits: LogitRows, features: FeatureRows, known: Known) -> Scores:
    """Virtual-logit matching (Wang et al. 2022, arXiv 2203.10807): the feature's length outside of the principal
    subspace of the known ones, scaled to the size of their largest logits, plus the energy.

    The subspace has 1,000 dimensions of 2,048 and more features, 512 of 768 and more, else half of them (section 4.1
    and the authors' code). The origin is where the last layer's logits are nearest to 0.
    """
    origin = -np.linalg.pinv(known.weight) @ known.bias
    width = known.features.shape[1]
    kept = 1000 if width >= 2048 else 512 if width >= 768 else width // 2
    centred = known.features - origin
    _, directions = np.linalg.eigh(centred.T @ centred / len(centred))  # from the smallest
    rest = directions[:, : width - kept]
    scale = known.logits.max(1).mean() / np.linalg.norm(centred @ rest, axis=1).mean()
    found: np.ndarray = scale * np.linalg.norm((features - origin) @ rest, axis=1) + energy(logits)
    return found


OF_LOGITS: Mapping[str, Callable[[LogitRows], Scores]] = {"MSP": msp, "max-logit": max_logit, "energy": energy}
"""Scores that need a sample's logits only, by name."""


def scores(logits: LogitRows, features: FeatureRows | None, known: Known | None) -> dict[str, Scores]:
    """Every score of these samples, by name; those of features where there are some."""
    found = {name: score(logits) for name, score in OF_LOGITS.items()}
    if features is not None and known is not None:
        found |= {"kNN": knn(features, known.features), "ViM": vim(logits, features, known)}
    return found


def _unit(features: np.ndarray) -> np.ndarray:
    found: np.ndarray = features / (np.linalg.norm(features, axis=1, keepdims=True) + 1e-10)
    return found


def temperature(logits: LogitRows, labels: Int[np.ndarray, " samples"]) -> float:
    """The T in [0.01, 100] with the least cross-entropy of softmax(logits / T) (Guo et al. 2017, arXiv 1706.04599).

    The cross-entropy is convex in 1 / T, so its slope is bisected. 0.01 or 100 where the least lies outside: where
    every answer is right, for one, the colder the better. Raises `ValueError` without samples.
    """
    if not labels.size:
        raise ValueError("a temperature needs samples")
    own = logits[np.arange(len(labels)), labels]

    def slope(inverse: float) -> float:
        expected: np.ndarray = (probabilities(logits, 1 / inverse) * logits).sum(1)
        return float((expected - own).mean())

    low, high = np.log(1 / _HOTTEST), np.log(1 / _COLDEST)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(float(np.exp(middle))) < 0 else (low, middle)
    return float(np.exp(-(low + high) / 2))


def probabilities(logits: LogitRows, temperature: float = 1.0) -> LogitRows:
    """softmax(logits / temperature)."""
    scaled = logits / temperature
    found: np.ndarray = np.exp(scaled - logsumexp(scaled, axis=1, keepdims=True))
    return found
