"""Figures of matrices: exact on hand-made ones, and the same as numpy's and scipy's on random ones."""

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch

from robustbench_twicing.inside.matrices import operator_figures, row_entropy, token_figures

N = 4
IDENTITY = torch.eye(N)
UNIFORM = torch.full((N, N), 1 / N)
PERMUTATION = torch.eye(N)[[1, 2, 3, 0]]
# Symmetric and doubly stochastic: a circulant, whose eigenvalues are 1/2 + 1/2 cos(2πk/4) = 1, 1/2, 0, 1/2.
SMOOTHING = torch.tensor([[2.0, 1, 0, 1], [1, 2, 1, 0], [0, 1, 2, 1], [1, 0, 1, 2]]) / 4


def _figures(matrix: torch.Tensor) -> dict[str, float]:
    found = operator_figures(matrix[None, None], "operator") | {"entropy": row_entropy(matrix[None, None])}
    return {key.removeprefix("operator_"): float(value) for key, value in found.items()}


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        (
            IDENTITY,
            {"singular_1": 1, "singular_2": 1, "rank": N, "eigenvalue_2": 1, "eigenvalue_mean": 1, "entropy": 0},
        ),
        (PERMUTATION, {"singular_1": 1, "singular_mean": 1, "rank": N, "eigenvalue_2": 1, "entropy": 0}),
        (
            UNIFORM,
            {"singular_1": 1, "singular_2": 0, "rank": 1, "eigenvalue_2": 0, "singular_mean": 1 / N, "entropy": 1},
        ),
        (
            SMOOTHING,
            {"singular_1": 1, "singular_2": 0.5, "singular_mean": 0.5, "rank": 2 * 2**0.5, "eigenvalue_2": 0.5},
        ),
        # 2A - A² maps λ to 2λ - λ²: 1, 3/4, 0, 3/4. Its rows: 5/8, 1/4, -1/8, 1/4.
        (2 * SMOOTHING - SMOOTHING @ SMOOTHING, {"eigenvalue_2": 0.75, "singular_mean": 0.625, "negative": 0.25}),
    ],
    ids=["identity", "permutation", "uniform", "smoothing", "twicing"],
)
def test_operators_with_known_spectra_have_exactly_these_figures(
    matrix: torch.Tensor, expected: dict[str, float]
) -> None:
    found = _figures(matrix)
    assert {key: found[key] for key in expected} == pytest.approx(expected, abs=1e-7)


def test_tokens_that_are_all_equal_have_collapsed_and_orthogonal_ones_have_not() -> None:
    same, apart = torch.ones(1, 4, 6), torch.eye(4, 6)[None]
    known = {"similarity": 1, "distance": 0, "effective_rank": 1, "stable_rank": 1, "high_frequency": 0}
    found = token_figures(same, (2, 2), same[:, 0])
    assert {key: float(found[key]) for key in known} == pytest.approx(known, abs=1e-6)
    assert float(found["class_similarity"]) == pytest.approx(1)
    known = {"similarity": 0, "distance": (3 / 4) ** 0.5, "effective_rank": 4, "stable_rank": 4}
    found = token_figures(apart, None, None)
    assert {key: float(found[key]) for key in known} == pytest.approx(known)
    assert "high_frequency" not in found
    assert "class_similarity" not in found


def test_a_checkerboard_is_all_high_frequency_and_a_slow_wave_none() -> None:
    rows, columns = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    board = (-1.0) ** (rows + columns)
    slow = torch.cos(2 * torch.pi * columns / 8)
    for pattern, share in ((board, 1.0), (slow, 0.0), (board + 2**0.5 * slow, 0.5)):
        found = token_figures(pattern.reshape(1, 64, 1).float(), (8, 8), None)
        assert float(found["high_frequency"]) == pytest.approx(share, abs=1e-6)


def test_random_matrices_agree_with_numpy_and_scipy() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(3, 2, 9, 9))
    attention = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    found = operator_figures(torch.from_numpy(attention), "attention") | {
        "entropy": row_entropy(torch.from_numpy(attention))
    }
    for image in range(3):
        singular = [scipy.linalg.svdvals(head) for head in attention[image]]
        moduli = [np.sort(np.abs(scipy.linalg.eigvals(head)))[::-1] for head in attention[image]]
        theirs = {
            "attention_singular_2": np.mean([values[1] for values in singular]),
            "attention_rank": np.mean([np.exp(scipy.stats.entropy(values)) for values in singular]),
            "attention_eigenvalue_2": np.mean([values[1] for values in moduli]),
            "attention_eigenvalue_mean": np.mean(moduli),
            "entropy": scipy.stats.entropy(attention[image], axis=-1, base=9).mean(),
        }
        assert {key: float(found[key][image]) for key in theirs} == pytest.approx(theirs)

    tokens = rng.normal(size=(2, 12, 5)) + 0.5
    ours = token_figures(torch.from_numpy(tokens), (3, 4), torch.from_numpy(tokens[:, 0]))
    for image, x in enumerate(tokens):
        cosines = (x / np.linalg.norm(x, axis=1, keepdims=True)) @ (x / np.linalg.norm(x, axis=1, keepdims=True)).T
        power = np.abs(np.fft.fft2(x.reshape(3, 4, 5), axes=(0, 1))) ** 2
        high = (np.abs(np.fft.fftfreq(3)) > 0.25)[:, None] | (np.abs(np.fft.fftfreq(4)) > 0.25)[None, :]
        values = np.linalg.svd(x, compute_uv=False)
        theirs = {
            "similarity": cosines[~np.eye(12, dtype=bool)].mean(),
            "distance": np.linalg.norm(x - x.mean(0)) / np.linalg.norm(x),
            "high_frequency": power[high].sum() / power.sum(),
            "effective_rank": np.exp(scipy.stats.entropy(values)),
            "stable_rank": np.linalg.norm(x) ** 2 / np.linalg.norm(x, 2) ** 2,
            "class_similarity": cosines[0].mean(),
        }
        assert {key: float(ours[key][image]) for key in theirs} == pytest.approx(theirs)
