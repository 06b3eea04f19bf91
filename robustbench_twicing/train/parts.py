"""A recipe's parts, each timm's own: network, optimizer, learning rate, Mixup, moving average."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from timm.data import Mixup
from timm.loss import SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import ModelEmaV3
from torch.nn import functional as F

from robustbench_twicing.attention.convert import apply_method
from robustbench_twicing.attention.methods import METHODS, settled
from robustbench_twicing.attention.paths import MethodAttention
from robustbench_twicing.errors import UserError
from robustbench_twicing.models.build import new_network
from robustbench_twicing.models.tiny_lm import NAME as TINY_LM
from robustbench_twicing.models.tiny_lm import new_tiny_lm
from robustbench_twicing.spec.training import TrainingRecipe
from robustbench_twicing.tensors import Images, Labels
from robustbench_twicing.train.job import Job, Start

Mix = Callable[[Images, Labels], tuple[torch.Tensor, torch.Tensor]]
"""Images and labels into mixed images and targets (images, classes)."""


def network_of(job: Job) -> Any:
    """The network with its method of attention, in train mode: random weights that follow the seed, or the start's."""
    if job.spec.architecture == TINY_LM:
        return new_tiny_lm(settled(job.spec.attention), job.seed).train()
    drop_path = job.recipe.regularisation.drop_path
    network = new_network(job.spec.architecture, job.seed, job.data.classes, drop_path)
    if job.start is not None:
        network.load_state_dict({**network.state_dict(), **_that_fit(job.start, network)})
    return apply_method(network, job.spec.attention).train()


def _that_fit(start: Start, network: Any) -> dict[str, torch.Tensor]:
    """All but a head for other classes, which begins at random."""
    own = network.state_dict()
    return {name: tensor for name, tensor in start.tensors.items() if own[name].shape == tensor.shape}


def optimizer_of(recipe: TrainingRecipe, network: Any) -> torch.optim.Optimizer:
    """With weight decay for all parameters, or for matrices alone."""
    said = recipe.optimizer
    options: dict[str, Any] = {"momentum": said.betas[0]} if said.name == "sgd" else {"betas": said.betas}
    if said.name == "adamw":
        options["fused"] = True
    if said.name != "sgd":
        options["eps"] = said.eps
    matrices = said.decays == "matrices"  # given the network, timm leaves positions and class tokens out in any case
    optimizer: torch.optim.Optimizer = create_optimizer_v2(
        network if matrices else network.parameters(),
        opt=said.name,
        lr=said.learning_rate,
        weight_decay=said.weight_decay,
        filter_bias_and_bn=matrices,
        **options,
    )
    return optimizer


def learning_rates(
    recipe: TrainingRecipe, optimizer: torch.optim.Optimizer, updates_per_epoch: int
) -> Callable[[int], None]:
    """A function that sets the learning rate of an update, by its number from 0 alone: also of one that goes on."""
    said, highest = recipe.schedule, recipe.optimizer.learning_rate
    if said.name == "warmup-then-cosine":
        warmup = min(float(said.warmup_epochs), recipe.epochs / 2)

        def ours(update: int) -> None:
            epoch, number = divmod(update, updates_per_epoch)
            done = epoch + (number + 1) / updates_per_epoch
            for group in optimizer.param_groups:
                group["lr"] = highest * _warmup_then_cosine(done, warmup, recipe.epochs)

        return ours
    schedule, _ = create_scheduler_v2(
        optimizer,
        sched="cosine",
        num_epochs=max(recipe.epochs, 1),
        min_lr=said.last_learning_rate,
        warmup_lr=said.first_learning_rate,
        warmup_epochs=said.warmup_epochs,
        warmup_prefix=False,
        step_on_epochs=said.per == "epoch",
        updates_per_epoch=updates_per_epoch,
    )

    def timms(update: int) -> None:
        if said.per == "epoch":
            schedule.step(update // updates_per_epoch)
        else:
            schedule.step_update(update)

    return timms


def _warmup_then_cosine(epoch: float, warmup_epochs: float, epochs: int) -> float:
    """The learning rate's factor after `epoch` epochs: linear warm-up, then a cosine to zero."""
    if epoch < warmup_epochs:
        return epoch / warmup_epochs
    return 0.5 * (1 + math.cos(math.pi * (epoch - warmup_epochs) / (epochs - warmup_epochs)))


def ramp_of(job: Job, network: Any) -> Callable[[int], None]:
    """A function that sets the methods' strength for an update, by its number from 0 alone; full behind the ramp.

    Raises `UserError` for a method that has none.
    """
    length = job.recipe.ramp_epochs * job.updates_per_epoch if job.recipe.ramp_epochs else 0
    blocks = [part for part in network.modules() if isinstance(part, MethodAttention)]
    ramped = [(block, block.mixing) for block in blocks if block.mixing.numbers] if length else []
    for block, _ in ramped:
        if METHODS[block.method.name].parameters[0].name != "strength":
            raise UserError(
                f"Recipe {job.recipe.name} ramps the strength of a method up, and {block.method.name} has none.",
                "Take a method with a strength (twicing, neutreno), or a recipe without ramp_epochs.",
            )

    def set_strength(update: int) -> None:
        share = min(1.0, update / length) if length else 1.0
        for block, full in ramped:
            numbers = (share * full.numbers[0], *full.numbers[1:])
            block.mixing = full._replace(numbers=numbers, strengths=tuple(share * one for one in full.strengths))

    return set_strength


def mixing_of(job: Job) -> Mix | None:
    """timm's Mixup and CutMix, drawn from numpy's global generator; None for a recipe without."""
    said = job.recipe.mixing
    if not said.active:
        return None
    mix: Mix = Mixup(
        mixup_alpha=said.mixup,
        cutmix_alpha=said.cutmix,
        prob=said.probability,
        switch_prob=said.switch,
        mode="batch",
        label_smoothing=job.recipe.regularisation.label_smoothing,
        num_classes=job.data.classes,
    )
    return mix


def loss_of(recipe: TrainingRecipe, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy in nats; `targets` are labels, or shares of classes if the recipe mixes images."""
    if recipe.mixing.active:
        loss: torch.Tensor = SoftTargetCrossEntropy()(logits, targets)
        return loss
    if targets.ndim == 2:  # tokens of windows
        logits, targets = logits.flatten(0, 1), targets.flatten()
    return F.cross_entropy(logits, targets, label_smoothing=recipe.regularisation.label_smoothing)


def average_of(recipe: TrainingRecipe, network: Any) -> ModelEmaV3 | None:
    """The moving average of the weights, which begins as they are; None for a recipe without."""
    return ModelEmaV3(network, decay=recipe.average.decay, use_warmup=False) if recipe.average.decay else None


def begin_draws(seed: int, update: int, micro_batch: int) -> None:
    """Set torch's and numpy's global generators for one micro-batch: drop path and Mixup follow these numbers alone."""
    state = np.random.SeedSequence([seed, update, micro_batch]).generate_state(2)
    torch.manual_seed(int(state[0]))
    np.random.seed(int(state[1]))  # noqa: NPY002 - timm's Mixup draws from it
