"""Another method of attention into a model of Hugging Face's transformers, through its registry of attention functions.

Weights and modules stay: a model asks the registry by name for what mixes its values and gets ours, which reads from
each attention module which method it has. Two traps: a name without an entry in the registry of masks gets no mask, so
that padding is attended to; and a step of generation has one query, for which A is not square and A² means nothing.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import torch
from torch import nn

from robustbench_twicing.attention.methods import Mixing, mixing_of, settled
from robustbench_twicing.attention.paths import FirstValues, dropped_attention, fused_attention
from robustbench_twicing.errors import UserError
from robustbench_twicing.spec.methods import SOFTMAX, Attention, Method

M = TypeVar("M", bound=nn.Module)

NAME = "twicing_bench"
"""In transformers' registries, and of the attribute of an attention module. / @ : | would mean kernels of the hub."""
_TOKENS = 12
"""Of the text that a model is tried with."""
_AGREE = {torch.float64: 1e-9, torch.float32: 1e-4}
"""Logits of two ways to compute softmax attention may differ by this, over their largest modulus; else by 5 %."""
_WHAT_WORKS = (
    "Methods go into models that ask transformers' AttentionInterface: GPT-2, OPT, Llama, Mistral, Qwen, Phi, "
    "GPT-NeoX, ViT, DeiT and most others. BLOOM, Falcon, GPT-Neo, GPT-J, CodeGen, MPT, XLNet, RWKV and Mamba do not."
)
_UNKNOWN = ("softcap", "s_aux", "position_bias")
"""What some models hand their attention beside queries, keys, values and a mask, and a method does not know."""


def is_of_transformers(model: object) -> bool:
    """Whether `apply_in_transformers` takes it. Imports nothing."""
    return any(kind.__name__ == "PreTrainedModel" for kind in type(model).__mro__)


def apply_in_transformers(model: M, attention: str | Attention) -> M:
    """`model` itself, a `PreTrainedModel`, with this attention: `twicing`, `twicing(0.5)@last2`, `softmax`.

    In place; weights and state-dict keys stay. Layers are numbered from 0 in the order in which they compute. The model
    is tried on a dozen tokens, or an image: softmax attention must give what it gave before, another method something
    else, and in a causal model no position may see a later one. Raises `UserError`, with the model as it was, for a
    model that does not ask the registry, a method or a layer that there is not, and where the trial fails.
    """
    wanted = settled(Attention.parse(attention) if isinstance(attention, str) else attention)
    network: Any = model
    if getattr(network.config, "reorder_and_upcast_attn", False):
        raise UserError(
            "reorder_and_upcast_attn is computed by GPT-2's own attention only, and would be lost.",
            "Set it to False in the model's config.",
        )
    had = {module: vars(module)[NAME] for module in model.modules() if NAME in vars(module)}
    held = network.config._attn_implementation
    with _evaluated(model):
        try:
            layers = _layers(network)
            _put(layers, (SOFTMAX,) * len(layers))
            plain = _answer(network)
            if not had:
                _require_same(network, held, plain)
            _put(layers, wanted.methods(len(layers)))
            mixed = _answer(network)
            if wanted != Attention() and torch.equal(mixed, plain):
                what = f"{type(model).__name__}: {wanted} changes no logit."
                raise UserError(what, "Its attention is not what is computed.")
            _require_causal(network, layers, mixed)
        except UserError:
            for module in model.modules():
                vars(module).pop(NAME, None)
                vars(module).update({NAME: had[module]} if module in had else {})
            if network.config._attn_implementation != held:
                network.set_attn_implementation(held)
            raise
    return model


def require_causal(model: nn.Module) -> None:
    """Raise `UserError` for a language model of transformers in which a position sees later ones, such as BERT."""
    with _evaluated(model):
        one, other = (_answer(model, last)[0, :-1] for last in (0, 1))
    # Logits that are no numbers are a matter of the records: each says that it failed.
    if one.isfinite().all() and not torch.allclose(one, other, rtol=0, atol=1e-5 * one.abs().max().item()):
        raise UserError(
            f"{type(model).__name__} is no causal language model: a position sees later ones.",
            "What it says of a token would be told by the token itself.",
        )


# --- what transformers calls ------------------------------------------------------------------------------------------


class _Layer(NamedTuple):
    """What is tied to an attention module."""

    mixing: Mixing = mixing_of(SOFTMAX)
    first: FirstValues | None = None
    """Shared by the layers of a network of which some need the first one's values."""
    is_first: bool = False


_called: list[nn.Module] | None = None
"""While a model is tried: the attention modules that asked for ours, in their order."""


def _mix(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """(batch, heads, tokens, head_dim), of keys and values perhaps fewer heads -> (batch, tokens, heads, head_dim)."""
    if _called is not None:
        _called.append(module)
    if strange := [name for name in _UNKNOWN if others.get(name) is not None]:
        raise UserError(f"{type(module).__name__} has attention with {strange[0]}, which methods do not know.")
    layer: _Layer = vars(module).get(NAME, _Layer())
    mixing, queries = layer.mixing, query.shape[2]
    if queries != key.shape[2] and mixing.strength != 0:
        raise UserError(
            f"{queries} query(s) for {key.shape[2]} keys: A is not square, so that A² means nothing.",
            "Pass use_cache=False, so that every step computes all positions.",
        )
    groups = query.shape[1] // key.shape[1]
    key, value = (heads.repeat_interleave(groups, 1) if groups > 1 else heads for heads in (key, value))
    said = others.get("is_causal")
    causal = getattr(module, "is_causal", True) if said is None else said
    mask: Any = "causal" if attention_mask is None and causal and queries > 1 else attention_mask
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    first_v = _first_values(layer, value)
    if dropout > 0:
        mixed = dropped_attention(query, key, value, scale, mixing, dropout, mask, first_v)
    else:
        mixed = fused_attention(query, key, value, scale, mixing, None, mask, first_v)
    return mixed.transpose(1, 2).contiguous(), None


def _first_values(layer: _Layer, value: torch.Tensor) -> torch.Tensor | None:
    if layer.first is None:
        return None
    if layer.is_first:
        layer.first.values = value
        return None
    return layer.first.values if layer.mixing.needs_first else None


def _put(layers: Sequence[nn.Module], methods: Sequence[Method]) -> None:
    mixings = [mixing_of(method) for method in methods]
    first = FirstValues() if any(mixing.needs_first for mixing in mixings) else None
    for number, (module, mixing) in enumerate(zip(layers, mixings, strict=True)):
        setattr(module, NAME, _Layer(mixing, first, number == 0))


def _layers(model: Any) -> list[nn.Module]:
    """The attention modules that ask the registry, which from now on answers with `_mix`."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    global _called
    AttentionInterface.register(NAME, _mix)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    if model._can_set_attn_implementation():
        model.set_attn_implementation(NAME)
    _called = []
    try:
        _answer(model)
        found = list(dict.fromkeys(_called))
    finally:
        _called = None
    if not found:
        raise UserError(f"{type(model).__name__} computes attention by itself.", _WHAT_WORKS)
    return found


# --- the trial --------------------------------------------------------------------------------------------------------


@contextmanager
def _evaluated(model: nn.Module) -> Iterator[None]:
    """In eval mode and without gradients; afterwards every module is in the mode that it was in."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes.items():
            module.training = training


def _answer(model: Any, last: int = 0) -> torch.Tensor:
    """What the model says of a dozen tokens, the last of which is moved by `last`, or of an image."""
    if model.main_input_name == "pixel_values":
        side, channels = model.config.image_size, model.config.num_channels
        height, width = (side, side) if isinstance(side, int) else side
        ramp = torch.linspace(-1, 1, channels * height * width, dtype=model.dtype, device=model.device)
        output = model(ramp.sin().reshape(1, channels, height, width))
    elif model.main_input_name == "input_ids":
        tokens = 1 + torch.arange(_TOKENS, device=model.device)
        tokens[-1] += last
        settings = {"use_cache": False} if hasattr(model.config, "use_cache") else {}
        output = model(tokens.remainder(model.config.vocab_size)[None], **settings)
    else:
        raise UserError(f"{type(model).__name__} takes {model.main_input_name}, not tokens or images.", _WHAT_WORKS)
    answer: torch.Tensor = output[0]
    return answer


def _require_same(model: Any, held: str, ours: torch.Tensor) -> None:
    model.set_attn_implementation(held)
    theirs = _answer(model)
    model.set_attn_implementation(NAME)
    off = ((ours - theirs).abs().max() / theirs.abs().max()).item()
    if not off <= _AGREE.get(theirs.dtype, 0.05):
        raise UserError(
            f"{type(model).__name__}: softmax attention through the registry gives other logits (off by {off:.1e} of "
            "the largest).",
            "Its attention has a part that a method would lose. " + _WHAT_WORKS,
        )


def _require_causal(model: Any, layers: Sequence[nn.Module], answer: torch.Tensor) -> None:
    if model.main_input_name != "input_ids" or not all(getattr(module, "is_causal", True) for module in layers):
        return
    one, other = answer[0, :-1], _answer(model, last=1)[0, :-1]
    if not torch.allclose(one, other, rtol=0, atol=1e-5 * one.abs().max().item()):
        raise UserError(f"{type(model).__name__}: a position sees later ones.", "This is a fault of ours; report it.")
