"""Auto-PGD for one image, as algorithm 1 of Croce & Hein 2020 (arXiv 2003.01690) reads. No code of the package.

In float64, on the loss that is given; the names are the paper's. One thing is read as the authors' own code does it
(fra31/auto-attack, autoattack/autopgd_base.py): the step size is looked at right after the step that ends at a
checkpoint, not after one more.
"""

from collections.abc import Callable
from math import ceil

import numpy as np


def apgd(
    loss: Callable[[np.ndarray], float],
    gradient: Callable[[np.ndarray], np.ndarray],
    image: np.ndarray,
    start: np.ndarray,
    eps: float,
    norm: str,
    steps: int,
) -> np.ndarray:
    """The point of largest loss (x_max)."""

    def into_the_set(x: np.ndarray) -> np.ndarray:
        delta = x - image
        if norm == "Linf":
            delta = np.clip(delta, -eps, eps)
        elif np.linalg.norm(delta) > eps:
            delta = delta * eps / np.linalg.norm(delta)
        return np.clip(image + delta, 0.0, 1.0)

    def up(x: np.ndarray) -> np.ndarray:
        g = gradient(x)
        return np.sign(g) if norm == "Linf" else g / np.linalg.norm(g)

    p = [0.0, 0.22]
    while p[-1] < 1:
        p.append(p[-1] + max(p[-1] - p[-2] - 0.03, 0.06))
    w = [ceil(round(each * steps, 9)) for each in p]

    eta = 2 * eps
    x = [start, into_the_set(start + eta * up(start))]
    f = [loss(x[0]), loss(x[1])]
    f_max = max(f)
    x_max = x[int(f[1] > f[0])]
    etas, maxima, rises = {0: eta}, {0: f[0]}, [f[1] > f[0]]

    def check(k: int) -> None:
        nonlocal eta
        j = w.index(k)
        count = sum(rises[w[j - 1] : k])
        first = count < 0.75 * (k - w[j - 1])
        second = etas[w[j - 1]] == eta and maxima[w[j - 1]] == f_max
        etas[k], maxima[k] = eta, f_max
        if first or second:
            # The next check compares with the step size before this halving, so it sees that it changed.
            eta /= 2
            x[k], f[k] = x_max, f_max

    for k in range(1, steps):
        z = into_the_set(x[k] + eta * up(x[k]))
        x.append(into_the_set(x[k] + 0.75 * (z - x[k]) + 0.25 * (x[k] - x[k - 1])))
        f.append(loss(x[k + 1]))
        rises.append(f[k + 1] > f[k])
        if f[k + 1] > f_max:
            x_max, f_max = x[k + 1], f[k + 1]
        if k + 1 in w:
            check(k + 1)
    return x_max
