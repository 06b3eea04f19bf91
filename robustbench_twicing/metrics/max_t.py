"""Many comparisons on the same images: adjusted p that know how the rows hang together.

Holm allows for any dependence and pays for it. Threats that fool a model on the same images repeat each other, and then
the largest of their statistics is not as large by chance as that of as many separate questions. Which it is can be
drawn: if the models are equally good on an image, exchanging their answers to it, under all threats at once, changes
nothing.
"""

import numpy as np
from jaxtyping import Float, Int

DRAWS = 9_999
"""Exchanges of the models' answers. An adjusted p is at least 1/10,000."""
_AT_ONCE = 500


def max_t(
    differences: Int[np.ndarray, "images rows"], *, draws: int = DRAWS, seed: int = 0
) -> Float[np.ndarray, " rows"]:
    """Adjusted p of each row by the step-down maximum of |t| (Westfall and Young 1993; Romano and Wolf 2005).

    `differences`: +1 where only the candidate is right, -1 where only the baseline is, 0 where both or none are, or
    where the image is not of that row. The statistic is McNemar's, |gained - lost|/√(gained + lost); its distribution
    is that of the maximum over the rows not yet decided when each image's sign is turned by a fair coin. That
    exchanging is under the hypothesis that both models' answers to an image may be exchanged as a whole, which for a
    single row is "gained as often as lost"; docs/statistics.md says how often it errs where rows differ in more.
    Seeded: the same answers give the same p.
    """
    changed = differences[differences.any(axis=1)].astype(np.float32)
    spread = np.sqrt((changed**2).sum(axis=0))
    scale = np.where(spread > 0, spread, np.inf)
    observed = np.abs(changed.sum(axis=0)) / scale
    order = np.argsort(-observed, kind="stable")
    exceeded = np.zeros(len(order), dtype=np.int64)
    random = np.random.Generator(np.random.PCG64(seed))
    for start in range(0, draws, _AT_ONCE):
        signs = random.integers(0, 2, (min(_AT_ONCE, draws - start), len(changed)), dtype=np.int8) * 2 - 1
        drawn = np.abs(signs.astype(np.float32) @ changed)[:, order] / scale[order]
        # Of a row and of all that stand behind it: the largest.
        largest = np.maximum.accumulate(drawn[:, ::-1], axis=1)[:, ::-1]
        exceeded += (largest >= observed[order] - 1e-5).sum(axis=0)
    adjusted = np.empty(len(order))
    adjusted[order] = np.maximum.accumulate((exceeded + 1) / (draws + 1))
    return adjusted
