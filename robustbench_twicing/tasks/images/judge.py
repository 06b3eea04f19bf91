"""What a model says of images, compared with the truth."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from robustbench_twicing.engine.corruptions import corrupt
from robustbench_twicing.engine.losses import brier_score, cross_entropy_loss, margin
from robustbench_twicing.spec.threats import CorruptionThreat
from robustbench_twicing.tensors import Images, Labels, Logits


@dataclass
class Judgement:
    """What a model says of some images, sample by sample (numpy, on the CPU)."""

    prediction: np.ndarray
    correct: np.ndarray
    correct_unmasked: np.ndarray
    top5_correct: np.ndarray
    margin: np.ndarray
    loss: np.ndarray
    brier: np.ndarray
    confidence: np.ndarray
    error: np.ndarray
    """Empty where the logits are finite."""

    def take(self, rows: Sequence[int]) -> "Judgement":
        """The judgement of some of the samples, a copy."""
        return Judgement(**{name: column[rows] for name, column in vars(self).items()})


def judge(logits: Logits, labels: Labels, right: torch.Tensor, scored: Sequence[int] | None = None) -> Judgement:
    """Compare logits with the truth. Logits that are not finite give an error and no answer.

    `right` (batch, classes) bool: the answers that count as right. Of `scored` logits only, if it is given.
    """
    finite = logits.isfinite().all(1)
    all_safe = torch.where(finite[:, None], logits, torch.zeros_like(logits)).double()
    safe = all_safe
    if scored is not None:
        answers = torch.zeros(logits.shape[1], dtype=torch.bool, device=logits.device)
        answers[list(scored)] = True
        safe = all_safe.masked_fill(~answers, float("-inf"))
    prediction = safe.argmax(1)
    top5 = safe.topk(min(5, safe.shape[1]), dim=1).indices

    def counts(answer: torch.Tensor) -> torch.Tensor:
        return right.gather(1, answer).any(1)

    probabilities = safe.softmax(1)
    columns = {
        "prediction": torch.where(finite, prediction, -1),
        "correct": finite & counts(prediction[:, None]),
        "correct_unmasked": finite & counts(all_safe.argmax(1, keepdim=True)),
        "top5_correct": finite & counts(top5),
        "margin": torch.where(finite, margin(safe, labels), torch.nan),
        "loss": torch.where(finite, cross_entropy_loss(safe, labels), torch.nan),
        "brier": torch.where(finite, brier_score(probabilities, labels), torch.nan),
        "confidence": torch.where(finite, probabilities.amax(1), torch.nan),
    }
    error = np.where(finite.cpu().numpy(), "", "the model's logits are not finite").astype(object)
    return Judgement(**{name: column.cpu().numpy() for name, column in columns.items()}, error=error)


@dataclass(frozen=True)
class Samples:
    """Samples of one block that could be read, as one model's recipe makes them, on the model's device."""

    images: Images
    labels: Labels
    right: torch.Tensor
    ids: Sequence[str]
    scored: tuple[int, ...] | None

    def take(self, rows: Sequence[int]) -> "Samples":
        index = list(rows)
        if index == list(range(len(self.ids))):
            return self  # a copy of the images would take as long as a cheap model
        ids = [self.ids[row] for row in index]
        return Samples(self.images[index], self.labels[index], self.right[index], ids, self.scored)

    def judged(self, logits: Logits) -> Judgement:
        return judge(logits, self.labels, self.right, self.scored)

    def corrupted(self, threat: CorruptionThreat, seed: int, frost_dir: str | None) -> "Samples":
        images = self.images
        if len(images):
            images = corrupt(images, threat.corruption, threat.severity, seed, self.ids, threat.jpeg_quality, frost_dir)
        return replace(self, images=images)
