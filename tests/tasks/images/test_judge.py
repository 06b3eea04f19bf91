"""What a judgement says of probabilities, against other computations of the same."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from sklearn.metrics import log_loss

from robustbench_twicing.tasks.images.judge import judge

LOGITS = torch.from_numpy(np.random.default_rng(0).normal(0, 3, (60, 7))).float()
LABELS = torch.arange(60) % 7
RIGHT = torch.nn.functional.one_hot(LABELS, 7).bool()


@pytest.mark.parametrize("scored", [None, (0, 1, 2, 3, 4, 5, 6), (1, 2, 3)])
def test_loss_and_brier_are_of_the_scored_classes_only(scored: tuple[int, ...] | None) -> None:
    classes = list(scored or range(7))
    rows = np.flatnonzero(np.isin(LABELS.numpy(), classes))
    found = judge(LOGITS[rows], LABELS[rows], RIGHT[rows], scored)
    logs = log_softmax(LOGITS[rows].double().numpy()[:, classes], axis=1)
    truth = LABELS[rows].numpy()[:, None] == np.array(classes)
    assert found.brier == pytest.approx(((np.exp(logs) - truth) ** 2).sum(axis=1))
    assert found.loss.mean() == pytest.approx(log_loss(LABELS[rows].numpy(), np.exp(logs), labels=classes))


def test_brier_ends_at_0_and_2_and_is_none_without_finite_logits() -> None:
    certain = torch.tensor([[1e4, 0.0], [0.0, 1e4], [float("nan"), 0.0]])
    labels = torch.zeros(3, dtype=torch.int64)
    found = judge(certain, labels, torch.nn.functional.one_hot(labels, 2).bool())
    assert found.brier.tolist() == pytest.approx([0.0, 2.0, np.nan], nan_ok=True)
