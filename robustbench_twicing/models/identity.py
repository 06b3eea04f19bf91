"""What a model is known by."""

import hashlib

import torch
from torch import nn


def weights_hash(network: nn.Module) -> str:
    """First 12 hex digits of the SHA-256 over the state dict's names and bytes, sorted by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:12]
