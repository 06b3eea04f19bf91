"""A model in another precision, for attacks to compute in. Verdicts are never taken from it."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from robustbench_twicing.errors import UserError
from robustbench_twicing.models.classifier import Classifier
from robustbench_twicing.spec.threats import Precision


def in_precision(model: Classifier, precision: Precision) -> Classifier:
    """`model` as an attack computes it: itself for float32 and TF32, a copy with bfloat16 weights for bfloat16.

    The copy takes and returns float32, so that images, steps and losses stay exact; only the network is rounded. TF32
    is a mode of the device, see `tensor_cores`. Raises `UserError` if the network cannot be copied.
    """
    if precision != "bfloat16":
        return model
    try:
        network = copy.deepcopy(model.network).to(torch.bfloat16)
    except Exception as error:
        raise UserError(
            f"Model {model.card.spec.name!r} cannot be copied to bfloat16: {error}.", "Leave --precision away."
        ) from error
    return model.with_network(_Rounded(network))


class _Rounded(nn.Module):
    """A bfloat16 network between float32 images and float32 logits."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(images.to(torch.bfloat16))
        return logits.float()


@contextmanager
def tensor_cores(allowed: bool) -> Iterator[None]:
    """Whether CUDA may round the factors of float32 products to TF32 (10 bits) within this block.

    torch allows it for convolutions unless told otherwise, so what must be float32 has to say so. No effect on a CPU.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    try:
        with torch.backends.cudnn.flags(
            enabled=torch.backends.cudnn.enabled,
            benchmark=torch.backends.cudnn.benchmark,
            deterministic=torch.backends.cudnn.deterministic,
            allow_tf32=allowed,
        ):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
