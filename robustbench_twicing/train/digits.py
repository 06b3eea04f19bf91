"""The recipe that made the embedded digits weights: one for every model.

A seed gives the same weights again on the same machine with the same number of threads; elsewhere float sums differ in
their last bit, and training amplifies that.
"""

import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from shlex import quote
from typing import NamedTuple

import timm
import torch
from safetensors.torch import save
from torch import nn
from torch.nn import functional as F

from robustbench_twicing.attention.convert import apply_method
from robustbench_twicing.catalog.zoo import model_spec
from robustbench_twicing.data.digits import digits
from robustbench_twicing.models.build import new_network
from robustbench_twicing.spec.models import ModelSpec, Recipe
from robustbench_twicing.spec.values import content_hash
from robustbench_twicing.tensors import Images, Labels

EPOCHS = 100
_WARMUP_EPOCHS = 5
_BATCH_SIZE = 60  # 20 equal batches of the 1,200 training images
_LEARNING_RATE = 1e-3
_WEIGHT_DECAY = 0.05
_LABEL_SMOOTHING = 0.1
_CLIP_GRADIENT_NORM = 1.0
# Augmentation, uniform in plus or minus: degrees, a factor, a fraction of the image's width.
_ROTATE_DEGREES, _SCALE, _SHIFT = 12.0, 0.1, 0.08


class TrainingMetrics(NamedTuple):
    """What came of a training run. The weights are those of the last epoch: none was chosen by test accuracy."""

    spec: ModelSpec
    seed: int
    epochs: int
    train_images: int
    test_images: int
    test_correct: int
    train_loss: float
    """Mean over the last epoch, with label smoothing and augmentation, in nats."""
    seconds: float

    @property
    def clean_accuracy(self) -> float:
        """Top-1 on the test split, in [0, 1]."""
        return self.test_correct / self.test_images


def train_digits(
    model_name: str,
    seed: int,
    epochs: int = EPOCHS,
    progress: Callable[[int, int, float], None] | None = None,
) -> tuple[dict[str, torch.Tensor], TrainingMetrics]:
    """The weights of a model of the zoo trained from scratch on the digits' train split, and how it went.

    AdamW (weight decay 0.05, also on biases and norms), one cosine cycle after a linear warm-up, random rotation,
    scale and shift, label smoothing. `progress(epochs done, epochs, mean loss)` is called after every epoch. All
    randomness follows `seed`; torch's global generator is left as it was. Raises `UserError` for an unknown model.
    """
    started = time.perf_counter()
    spec = model_spec(model_name, "digits")
    spec = spec.model_copy(update={"name": spec.name.removesuffix("@drop-in")})  # the weights come from here
    network = apply_method(new_network(spec.architecture, seed), spec.attention)
    images, labels = _all_images("train")
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY, fused=True)
    batches = math.ceil(len(labels) / _BATCH_SIZE)

    network.train()
    mean_loss = math.nan
    for epoch in range(epochs):
        total = 0.0
        for number, rows in enumerate(torch.randperm(len(labels), generator=generator).split(_BATCH_SIZE)):
            for group in optimizer.param_groups:
                group["lr"] = _LEARNING_RATE * _schedule(epoch + (number + 1) / batches, epochs)
            logits = network(_normalized(augment(images[rows], generator)))
            loss = F.cross_entropy(logits, labels[rows], label_smoothing=_LABEL_SMOOTHING)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), _CLIP_GRADIENT_NORM)
            optimizer.step()
            total += loss.item() * len(rows)
        mean_loss = total / len(labels)
        if progress is not None:
            progress(epoch + 1, epochs, mean_loss)

    network.eval()
    test_images, test_labels = _all_images("test")
    with torch.no_grad():
        correct = int((network(_normalized(test_images)).argmax(dim=1) == test_labels).sum())
    metrics = TrainingMetrics(
        spec=spec,
        seed=seed,
        epochs=epochs,
        train_images=len(labels),
        test_images=len(test_labels),
        test_correct=correct,
        train_loss=mean_loss,
        seconds=time.perf_counter() - started,
    )
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}, metrics


def training_recipe(epochs: int = EPOCHS) -> str:
    """Hash of all that trains a model beside its method, its network and its seed: what arms must have in common."""
    return content_hash(
        {
            "data": "digits",
            "optimizer": "AdamW",
            "epochs": epochs,
            "warmup_epochs": _WARMUP_EPOCHS,
            "batch_size": _BATCH_SIZE,
            "learning_rate": _LEARNING_RATE,
            "weight_decay": _WEIGHT_DECAY,
            "label_smoothing": _LABEL_SMOOTHING,
            "clip_gradient_norm": _CLIP_GRADIENT_NORM,
            "augmentation": [_ROTATE_DEGREES, _SCALE, _SHIFT],
        }
    )


def save_trained(path: Path, state_dict: dict[str, torch.Tensor], metrics: TrainingMetrics) -> None:
    """Write the weights as .safetensors, with what made them as metadata. Never half a file under the final name."""
    metadata = {
        "architecture": metrics.spec.architecture,
        "attention": str(metrics.spec.attention),
        "data": "digits",
        "seed": str(metrics.seed),
        "epochs": str(metrics.epochs),
        "training_recipe": training_recipe(metrics.epochs),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "clean_accuracy": f"{metrics.clean_accuracy:.4f} ({metrics.test_correct}/{metrics.test_images})",
        "command": f"twicing-bench train --data digits --model {quote(metrics.spec.name)} --seed {metrics.seed}",
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    unfinished.write_bytes(save(state_dict, metadata))
    unfinished.replace(path)


def augment(images: Images, generator: torch.Generator) -> Images:
    """Each image turned by up to 12 degrees, scaled by 0.9 to 1.1 and shifted by up to 8 % of its width."""
    uniform = torch.rand(4, len(images), generator=generator) * 2 - 1
    angle = uniform[0] * math.radians(_ROTATE_DEGREES)
    scale = 1 + uniform[1] * _SCALE
    # affine_grid spans -1 to 1, twice the fraction.
    shift_x, shift_y = uniform[2] * 2 * _SHIFT, uniform[3] * 2 * _SHIFT
    cos, sin = angle.cos() / scale, angle.sin() / scale
    matrices = torch.stack((torch.stack((cos, -sin, shift_x), 1), torch.stack((sin, cos, shift_y), 1)), 1)
    grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _schedule(epoch: float, epochs: int) -> float:
    """The learning rate's factor after `epoch` epochs: linear warm-up, then a cosine to zero."""
    warmup = min(_WARMUP_EPOCHS, epochs / 2)
    if epoch < warmup:
        return epoch / warmup
    return 0.5 * (1 + math.cos(math.pi * (epoch - warmup) / (epochs - warmup)))


def _normalized(images: torch.Tensor) -> torch.Tensor:
    return (images - 0.5) / 0.5  # as registry.default_cfgs says


def _all_images(split: str) -> tuple[Images, Labels]:
    data = digits(split)
    none = Recipe()
    return data.read(range(len(data.labels)), [none]).images[none], torch.tensor(data.labels)
