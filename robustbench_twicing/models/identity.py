"""What a model is known by: its weights and, of a model in memory, what it answers."""

import hashlib
from typing import Any

import torch
from torch import nn

_GRID = 1000
"""Answers are compared to a thousandth of the largest: other threads and batch sizes move them by a millionth."""


def weights_hash(network: nn.Module) -> str:
    """First 12 hex digits of the SHA-256 over the state dict's names and bytes, sorted by name.

    What is no tensor in it (a module's extra state) counts by its text.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()[:12]


def identity(weights: str, kind: str, answers: torch.Tensor, version: str) -> str:
    """12 hex digits for a model in memory: its weights, its class, its answers (images, classes) to noise, its version.

    The same weights behind another normalisation are another model, and only the answers can tell.
    """
    scale = answers.abs().nan_to_num(0, 0, 0).max().clamp_min(1e-12)
    rounded = (answers / scale * _GRID).nan_to_num(_GRID + 1, _GRID + 2, -_GRID - 2).round().to(torch.int64)
    text = f"{weights}\0{kind}\0{version}\0{rounded.tolist()}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _bytes(value: Any) -> bytes:
    if not isinstance(value, torch.Tensor):
        return repr(value).encode()
    tensor = value.detach()
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    plain: bytes = tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    return plain
