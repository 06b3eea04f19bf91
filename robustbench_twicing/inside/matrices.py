"""Figures of matrices, a batch at a time: tokens in, or an operator that mixes them; a number for each image out.

All in float64. What has no value (a zero matrix, a cosine of a single token) is nan.
"""

import math

import torch
from jaxtyping import Float

Tokens = Float[torch.Tensor, "batch tokens width"]
"""Patch tokens, without class and register tokens."""
Operators = Float[torch.Tensor, "batch heads tokens tokens"]
PerImage = Float[torch.Tensor, " batch"]

CUT = 0.25
"""Cycles a patch, half of the highest frequency that a grid can hold: what is above is high."""


def token_figures(
    tokens: Tokens, grid: tuple[int, int] | None, class_token: Float[torch.Tensor, "batch width"] | None
) -> dict[str, PerImage]:
    """The figures of tokens, by the keys of `figures.FIGURES`. `grid`: rows and columns of patches, if they lie so."""
    x = tokens.double()
    found: dict[str, PerImage] = {}
    if x.shape[1] > 1:
        found["similarity"] = similarity(x)
        found["distance"] = distance_to_equal_rows(x)
        spectrum = torch.linalg.svdvals(x)
        found["effective_rank"] = effective_rank(spectrum)
        found["stable_rank"] = spectrum.square().sum(1) / spectrum[:, 0].square()
        if grid is not None:
            found["high_frequency"] = high_frequency(x, grid)
    if class_token is not None:
        found["class_similarity"] = torch.cosine_similarity(x, class_token.double()[:, None], dim=2, eps=0.0).mean(1)
    return found


def similarity(tokens: Tokens) -> PerImage:
    """Mean cosine over all pairs of different tokens."""
    directions = tokens / tokens.norm(dim=2, keepdim=True)
    count = tokens.shape[1]
    # The sum over all pairs is the squared length of the sum; each token's cosine with itself is 1.
    result: torch.Tensor = (directions.sum(1).square().sum(1) - count) / (count * (count - 1))
    return result


def distance_to_equal_rows(tokens: Tokens) -> PerImage:
    """‖X - 1x̄ᵀ‖ / ‖X‖ in the Frobenius norm, x̄ being the mean token: the nearest matrix of equal rows."""
    result: torch.Tensor = (tokens - tokens.mean(1, keepdim=True)).norm(dim=(1, 2)) / tokens.norm(dim=(1, 2))
    return result


def high_frequency(tokens: Tokens, grid: tuple[int, int]) -> PerImage:
    """Share of the energy at frequencies above `CUT` along rows or columns."""
    rows, columns = grid
    power = torch.fft.fft2(tokens.unflatten(1, grid), dim=(1, 2)).abs().square().sum(3)
    high = (torch.fft.fftfreq(rows).abs()[:, None] > CUT) | (torch.fft.fftfreq(columns).abs()[None, :] > CUT)
    result: torch.Tensor = (power * high.to(power.device)).sum((1, 2)) / power.sum((1, 2))
    return result


def effective_rank(spectrum: Float[torch.Tensor, "*batch values"]) -> Float[torch.Tensor, "*batch"]:
    """e to the entropy of the singular values over their sum (Roy & Vetterli 2007, eq. 4)."""
    shares = spectrum / spectrum.sum(-1, keepdim=True)
    result: torch.Tensor = torch.special.entr(shares).sum(-1).exp()
    return result


def row_entropy(attention: Operators) -> PerImage:
    """Mean entropy of a row over the logarithm of its length; nan for a single token."""
    count = attention.shape[-1]
    entropy: torch.Tensor = torch.special.entr(attention.double()).sum(-1).mean((1, 2))
    return entropy / math.log(count) if count > 1 else torch.full_like(entropy, torch.nan)


def operator_figures(operator: Operators, prefix: str) -> dict[str, PerImage]:
    """The figures of an operator, means over heads, by the keys of `figures.FIGURES` that begin with `prefix`."""
    m = operator.double()
    singular = torch.linalg.svdvals(m)
    moduli = torch.linalg.eigvals(m).abs().sort(-1, descending=True).values
    found = {
        "singular_1": singular[..., 0],
        "singular_mean": singular.mean(-1),
        "rank": effective_rank(singular),
        "eigenvalue_mean": moduli.mean(-1),
    }
    if prefix == "operator":  # softmax has no negative entry
        found["negative"] = (m < 0).double().mean((-1, -2))
    if m.shape[-1] > 1:
        found |= {"singular_2": singular[..., 1], "eigenvalue_2": moduli[..., 1]}
    return {f"{prefix}_{key}": values.mean(1) for key, values in found.items()}
