"""`tiny-lm`: a causal language model of bytes that minutes of one core can train.

A block as Llama has it: RMSNorm, rotary positions (Su et al. 2021, arXiv 2104.09864), SwiGLU (Shazeer 2020, arXiv
2002.05202), no biases, embedding and output tied. 4 blocks of width 128 with 4 heads: 824,448 parameters.
"""

import torch
from torch import nn
from torch.nn import functional as F

from robustbench_twicing.attention.methods import mixing_of
from robustbench_twicing.attention.paths import FirstValues, choose_path, explicit_attention, fused_attention
from robustbench_twicing.spec.methods import Attention, Method

NAME = "tiny-lm"
START = 0
"""The byte that stands before every document; it is no byte of any text."""
VOCABULARY = 256
WINDOW = 128
"""Tokens that it was trained to look at."""
BLOCKS = 4
_WIDTH, _HEADS, _HIDDEN = 128, 4, 344
_BASE = 10_000.0


class _CausalAttention(nn.Module):
    """Multi-head attention to a token and those before it, mixed by any method of the table."""

    def __init__(self, method: Method, first: FirstValues | None) -> None:
        super().__init__()
        self.qkv = nn.Linear(_WIDTH, 3 * _WIDTH, bias=False)
        self.proj = nn.Linear(_WIDTH, _WIDTH, bias=False)
        self.method, self.mixing, self.first = method, mixing_of(method), first

    def forward(self, x: torch.Tensor, turns: torch.Tensor, is_first: bool) -> torch.Tensor:
        batch, tokens, _ = x.shape
        q, k, v = self.qkv(x).view(batch, tokens, 3, _HEADS, _WIDTH // _HEADS).permute(2, 0, 3, 1, 4).unbind(0)
        if self.first is not None and is_first:
            self.first.values = v
        first_v = self.first.values if self.first is not None and self.mixing.needs_first and not is_first else None
        q, k = _turned(q, turns), _turned(k, turns)
        attend = explicit_attention if choose_path("auto", x.device, 0.0) == "explicit" else fused_attention
        mixed = attend(q, k, v, (_WIDTH // _HEADS) ** -0.5, self.mixing, mask="causal", first_v=first_v)
        projected: torch.Tensor = self.proj(mixed.transpose(1, 2).reshape(batch, tokens, _WIDTH))
        return projected


class _Block(nn.Module):
    def __init__(self, method: Method, first: FirstValues | None) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.RMSNorm(_WIDTH, eps=1e-6), nn.RMSNorm(_WIDTH, eps=1e-6)
        self.attn = _CausalAttention(method, first)
        self.up = nn.Linear(_WIDTH, 2 * _HIDDEN, bias=False)
        self.down = nn.Linear(_HIDDEN, _WIDTH, bias=False)

    def forward(self, x: torch.Tensor, turns: torch.Tensor, is_first: bool) -> torch.Tensor:
        x = x + self.attn(self.norm1(x), turns, is_first)
        gate, up = self.up(self.norm2(x)).chunk(2, dim=-1)
        out: torch.Tensor = x + self.down(F.silu(gate) * up)
        return out


class TinyLM(nn.Module):
    """Tokens (batch, tokens) int64 to logits (batch, tokens, 256): of what comes behind each."""

    def __init__(self, attention: Attention = Attention()) -> None:  # noqa: B008 - a frozen value
        super().__init__()
        methods = attention.methods(BLOCKS)
        first = FirstValues() if any(mixing_of(method).needs_first for method in methods) else None
        self.embedding = nn.Embedding(VOCABULARY, _WIDTH)
        self.blocks = nn.ModuleList(_Block(method, first) for method in methods)
        self.norm = nn.RMSNorm(_WIDTH, eps=1e-6)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
        for block in self.blocks:  # as GPT-2: what is added to the residual stream begins small
            for added in (block.attn.proj, block.down):  # type: ignore[union-attr]
                nn.init.normal_(added.weight, std=0.02 / (2 * BLOCKS) ** 0.5)  # type: ignore[union-attr, arg-type]

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        turns = _turns(tokens.shape[1], tokens.device)
        x = self.embedding(tokens)
        for number, block in enumerate(self.blocks):
            x = block(x, turns, number == 0)
        logits: torch.Tensor = F.linear(self.norm(x), self.embedding.weight)
        return logits


def new_tiny_lm(attention: Attention, seed: int) -> TinyLM:
    """With random weights that follow `seed`; torch's global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return TinyLM(attention)


def _turns(tokens: int, device: torch.device) -> torch.Tensor:
    """(2, tokens, head_dim / 2): cosine and sine of each pair's turn."""
    half = _WIDTH // _HEADS // 2
    rates = _BASE ** (-torch.arange(half, device=device, dtype=torch.float32) / half)
    angles = torch.outer(torch.arange(tokens, device=device, dtype=torch.float32), rates)
    return torch.stack((angles.cos(), angles.sin()))


def _turned(heads: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    cos, sin = turns
    one, other = heads.chunk(2, dim=-1)
    return torch.cat((one * cos - other * sin, one * sin + other * cos), dim=-1)
