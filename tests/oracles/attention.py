"""Attention as the papers write it: A in memory, A² formed, everything left to autograd."""

from torch import nn
from torch.nn import functional as F


class ByHand(nn.Module):
    """Attention of somebody else's making: under timm's names, of no class this package knows."""

    def __init__(self, attention: nn.Module, power: int = 2, strength: float = 1.0) -> None:
        """`power` 1 computes AV, 2 (A + strength (A - A²))V, 3 A²V, which no method of the table does."""
        super().__init__()
        for name, part in attention.named_children():
            setattr(self, name, part)
        self.num_heads, self.power, self.strength = attention.num_heads, power, strength

    def forward(self, x, attn_mask=None, is_causal=False):
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = self.q_norm(q), self.k_norm(k)
        attn = F.softmax(q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5, dim=-1)
        squared = attn @ attn
        mixed = {1: attn, 2: attn + self.strength * (attn - squared), 3: squared}[self.power] @ v
        mixed = mixed.transpose(1, 2).flatten(2)
        return self.proj(self.norm(mixed) if hasattr(self, "norm") else mixed)
