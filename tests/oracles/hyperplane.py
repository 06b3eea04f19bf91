"""The nearest point of a hyperplane in a box, by bisection on the dual variable in float64. Shares no code with us."""

import numpy as np


def nearest(point, normal, rise, norm, low, high):
    """Step of least norm with normal · step = rise and low ≤ point + step ≤ high; where there is none, the most."""
    point, normal = point.astype(np.float64).ravel(), normal.astype(np.float64).ravel()
    toward = np.sign(rise)

    def step(length):
        wish = length * toward * (np.sign(normal) if norm == "Linf" else normal)
        return np.clip(wish, low - point, high - point)

    short, long = 0.0, 1.0
    while abs(normal @ step(long)) < abs(rise) and long < 1e30:
        long *= 2
    for _ in range(200):
        middle = (short + long) / 2
        short, long = (middle, long) if abs(normal @ step(middle)) < abs(rise) else (short, middle)
    return step(long)
