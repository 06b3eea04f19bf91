"""The figures that `collapse` measures, one row each. No torch: pages read it."""

from typing import Literal, NamedTuple

Of = Literal["tokens", "attention", "operator"]
"""Of which matrix: the tokens behind a block, its attention matrix A, or what its method puts in the place of A."""


class Figure(NamedTuple):
    """One figure of a block."""

    key: str
    of: Of
    heading: str
    meaning: str
    """In a sentence: what it is, which values it can have and what they stand for."""
    reach: tuple[float, float] | None = None
    """The least and the largest value, where both are the same for every matrix."""


FIGURES = (
    Figure(
        "similarity",
        "tokens",
        "similarity",
        "Mean cosine of the angle between two different patch tokens, from -1 to 1; 1: all point the same way.",
        (-1.0, 1.0),
    ),
    Figure(
        "distance",
        "tokens",
        "distance",
        "Distance to the nearest matrix whose rows are all equal, over the tokens' own size, from 0 to 1 (Dong et al. "
        "2021, arXiv 2103.03404, with the Frobenius norm); 0: all patch tokens are the same.",
        (0.0, 1.0),
    ),
    Figure(
        "high_frequency",
        "tokens",
        "high freq.",
        "Share of the patch tokens' energy, by a 2-D discrete Fourier transform over the grid of patches, above a "
        "quarter cycle a patch along rows or columns, from 0 to 1. The class token plays no part.",
        (0.0, 1.0),
    ),
    Figure(
        "effective_rank",
        "tokens",
        "eff. rank",
        "e to the entropy of the patch tokens' singular values over their sum (Roy & Vetterli 2007, EUSIPCO): from 1, "
        "all tokens are multiples of one, to the number of patches or of dimensions.",
    ),
    Figure(
        "stable_rank",
        "tokens",
        "stable rank",
        "Sum of the squared singular values over the largest of them: from 1 up, at most the rank.",
    ),
    Figure(
        "class_similarity",
        "tokens",
        "class token",
        "Mean cosine of the angle between the class token and a patch token.",
        (-1.0, 1.0),
    ),
    Figure(
        "entropy",
        "attention",
        "row entropy",
        "Mean entropy of a row of A over that of a uniform row, from 0, a row looks at one token, to 1.",
        (0.0, 1.0),
    ),
    *(
        Figure(f"{of}_{key}", of, heading, meaning)
        for of in ("attention", "operator")
        for key, heading, meaning in (
            ("singular_1", "σ₁", "Largest singular value."),
            ("singular_2", "σ₂", "Second largest singular value; 0 where all rows are equal."),
            ("singular_mean", "σ mean", "Mean of the singular values."),
            ("rank", "eff. rank", "Effective rank, as of tokens."),
            ("eigenvalue_2", "|λ₂|", "Second largest modulus of an eigenvalue: what the slowest part shrinks by."),
            ("eigenvalue_mean", "|λ| mean", "Mean modulus of the eigenvalues."),
            ("negative", "negative", "Share of negative entries."),
        )
        if (of, key) != ("attention", "negative")
    ),
)
"""Of matrices of attention a figure is the mean over a block's heads."""

BY_KEY = {figure.key: figure for figure in FIGURES}
