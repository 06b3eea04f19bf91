"""The last block for the tokens that the head reads, and for no other: exact, and a twelfth of a DeiT less to compute.

Queries, the projection, both norms' outputs and the MLP of a token reach the logits only through that token, and of the
last block's output the head reads one token (class) or two (class and distillation). Keys and values of all tokens are
needed still, and for twicing the whole of A.
"""

from typing import Any

import torch
from timm.layers import DropPath, GluMlp, LayerNorm, Mlp, RmsNorm, SwiGLU
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Attention, Block, LayerScale, VisionTransformer
from torch import nn

from robustbench_twicing.attention.paths import MethodAttention
from robustbench_twicing.spec.methods import SOFTMAX

_READ_BY_HEAD = {VisionTransformer: 1, VisionTransformerDistilled: 2}
_TOKEN_BY_TOKEN = (nn.Identity, nn.LayerNorm, LayerNorm, RmsNorm, LayerScale, DropPath, Mlp, GluMlp, SwiGLU)
_BLOCK_PARTS = {"norm1", "attn", "ls1", "drop_path1", "norm2", "mlp", "ls2", "drop_path2"}


def read_tokens_only(network: nn.Module) -> int:
    """Make the last block of `network` compute only the tokens that its head reads; how many, 0 if it was left alone.

    In place and in eval mode only; logits stay the same but for rounding, weights and state-dict keys stay altogether.
    Works before and after `apply_twicing`. It is done where it is known to be exact: timm's own `VisionTransformer`
    that pools by its class token, or its distilled form, whose last block has timm's or our attention and otherwise
    parts that treat each token alone. From then on `forward_features`, and hooks behind that attention, see only the
    tokens that are read; `forward_intermediates` of the last block does not work.
    """
    count = _tokens_read(network)
    if count:
        last: Any = network.blocks[-1]  # type: ignore[index]
        if type(last.attn) is Attention:
            last.attn = MethodAttention.of(last.attn, SOFTMAX)
        last.attn.read = count
        last.__class__ = ReadTokensBlock
    return count


class ReadTokensBlock(Block):
    """timm's block where the attention returns only the first tokens. Made by `read_tokens_only`."""

    def forward(self, x: torch.Tensor, attn_mask: torch.Tensor | None = None, is_causal: bool = False) -> torch.Tensor:
        """(batch, tokens, width) to as many of the first tokens as the attention computes."""
        mixed = self.attn(self.norm1(x), attn_mask=attn_mask, is_causal=is_causal)
        read: torch.Tensor = x[:, : mixed.shape[1]] + self.drop_path1(self.ls1(mixed))
        result: torch.Tensor = read + self.drop_path2(self.ls2(self.mlp(self.norm2(read))))
        return result


def _tokens_read(network: Any) -> int:
    """How many tokens the head reads, all of them in front; 0 unless the last block can be cut to them."""
    if type(network) not in _READ_BY_HEAD or network.attn_pool is not None or network.global_pool != "token":
        return 0
    if not isinstance(network.blocks, nn.Sequential) or not len(network.blocks):
        return 0
    last = network.blocks[-1]
    if type(last) not in (Block, ReadTokensBlock) or {name for name, _ in last.named_children()} != _BLOCK_PARTS:
        return 0
    if type(last.attn) not in (Attention, MethodAttention):
        return 0
    others = [part for name, part in last.named_children() if name != "attn"]
    if any(type(part) not in _TOKEN_BY_TOKEN for part in [network.norm, *others]):
        return 0
    patched = {"forward", "forward_features", "forward_head", "pool"}
    if any(patched & vars(module).keys() for module in (network, last, last.attn, network.norm, *others)):
        return 0
    return _READ_BY_HEAD[type(network)]
