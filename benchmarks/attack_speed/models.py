"""Weights, as timm and as the tool make networks of them, and images."""

from copy import deepcopy
from typing import NamedTuple

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.nn import functional as F

from attack_speed.task import Images
from robustbench_twicing.attention.convert import apply_softmax
from robustbench_twicing.catalog.zoo import model_spec
from robustbench_twicing.data.digits import digits
from robustbench_twicing.models.build import load_model, new_network
from robustbench_twicing.models.classifier import Classifier
from robustbench_twicing.models.faster.last_block import read_tokens_only
from robustbench_twicing.models.faster.onednn_layers import use_onednn
from robustbench_twicing.spec.models import Recipe
from robustbench_twicing.tasks.images.tune import settle_attention


class Counted(nn.Module):
    """The model as every candidate gets it: counts calls, images evaluated, and gradients that came back to images."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.calls = self.forwards = self.backwards = 0
        self.eval()

    def forward(self, images: Images) -> torch.Tensor:
        self.calls += 1
        self.forwards += len(images)
        if torch.is_grad_enabled() and images.requires_grad:
            images = images.view_as(images)  # a hook of its own for each call
            images.register_hook(self._gradient)
        logits: torch.Tensor = self.model(images)
        return logits

    def _gradient(self, gradient: torch.Tensor) -> None:
        self.backwards += len(gradient)


class Unbreakable(nn.Module):
    """A model that always answers class 0, at the cost of `model` and with its gradients.

    20 is more than these logits ever differ by, and little enough that e^-20, the gradient of the cross-entropy, is an
    ordinary float32 number.
    """

    lead: torch.Tensor

    def __init__(self, model: nn.Module, classes: int) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("lead", 20.0 * F.one_hot(torch.tensor(0), classes).float())
        self.eval()

    def forward(self, images: Images) -> torch.Tensor:
        logits: torch.Tensor = self.model(images) + self.lead
        return logits


class Pair(NamedTuple):
    """One set of weights, frozen."""

    timms: nn.Module
    """As timm makes a network of them."""
    own: nn.Module
    """As the tool evaluates them."""

    def unbreakable(self, classes: int) -> "Pair":
        device = next(self.own.parameters()).device
        return Pair(Unbreakable(self.timms, classes).to(device), Unbreakable(self.own, classes).to(device))


def digits_pair(device: torch.device) -> Pair:
    """The shipped `deit`."""
    own = load_model(model_spec("deit", "digits"), device)
    settle_attention([own], device, True, None)
    network = new_network(own.card.spec.architecture)
    network.load_state_dict(own.network.state_dict())
    timms = Classifier(network, own.card, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)).to(device).eval().requires_grad_(False)
    timms.mean, timms.std = own.mean, own.std
    return Pair(timms, own)


def digit_images(count: int, model: nn.Module, device: torch.device) -> tuple[Images, torch.Tensor]:
    """Those of the first `count` test images that `model` answers correctly, and their labels."""
    data, none = digits(), Recipe()
    images = data.read(range(count), [none]).images[none].to(device)
    labels = torch.tensor(data.labels[:count], device=device)
    right = answers(model, images) == labels
    return images[right], labels[right]


def as_loaded(network: nn.Module, device: torch.device) -> Pair:
    """A network of timm's, and a copy changed as `load_model` changes one, on the path a CPU or a GPU usually takes."""
    timms = network.eval().requires_grad_(False).to(device)
    own = apply_softmax(deepcopy(timms))
    read_tokens_only(own)
    use_onednn(own)
    return Pair(timms, own)


def vit_32(device: torch.device) -> Pair:
    """A ViT for 32 x 32 images with 65 tokens, random weights: width 96, 6 blocks of 3 heads."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = VisionTransformer(img_size=32, patch_size=4, embed_dim=96, depth=6, num_heads=3, num_classes=10)
    return as_loaded(model, device)


def deit_tiny(device: torch.device) -> Pair:
    """DeiT-tiny at 224, random weights."""
    return as_loaded(new_network("deit_tiny_patch16_224"), device)


def random_images(count: int, side: int, device: torch.device) -> Images:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1)).to(device)


def answers(model: nn.Module, images: Images) -> torch.Tensor:
    """The verdict that counts: float32, in batches of the same size whoever made the images."""
    with torch.no_grad():
        return torch.cat([model(part).argmax(1) for part in images.split(64)])
