"""Means over images that come a batch at a time, with their intervals. Nothing is kept of an image."""

import math

import numpy as np
from scipy.special import stdtrit

from robustbench_twicing.inside.found import Measured


class Running:
    """A figure's mean and spread so far (Chan, Golub & LeVeque 1983, eq. 2.1). What is nan is left out."""

    def __init__(self) -> None:
        self.n = 0
        self._mean = 0.0
        self._squares = 0.0

    def add(self, values: np.ndarray) -> None:
        """Some images' values, (images,)."""
        values = values[~np.isnan(values)]
        more = len(values)
        if not more:
            return
        mean, total = float(values.mean()), self.n + more
        gap = mean - self._mean
        self._squares += float(np.square(values - mean).sum()) + gap * gap * self.n * more / total
        self._mean += gap * more / total
        self.n = total

    def measured(self, level: float = 0.95) -> Measured | None:
        """The mean with Student's interval; None if there was nothing."""
        if not self.n:
            return None
        if self.n < 2:
            return Measured(self._mean, None, None, self.n)
        half = float(stdtrit(self.n - 1, (1 + level) / 2)) * math.sqrt(self._squares / (self.n - 1) / self.n)
        return Measured(self._mean, self._mean - half, self._mean + half, self.n)
