"""The caller's modules, as they were before anybody evaluated them."""

import operator
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from timm.models.vision_transformer import Attention
from torch import nn

from robustbench_twicing.models.guard import guarded
from robustbench_twicing.models.intake import modules_in

_REGISTRIES = (
    *("_modules", "_parameters", "_buffers"),
    *("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"),
    *("_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs", "_forward_hooks_always_called"),
    *("_state_dict_hooks", "_state_dict_pre_hooks", "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks"),
)
"""Where torch keeps what belongs to a module; the dictionaries are changed in place, so copies are kept."""
_WAYS = ("fused_attn", "path", "read")
"""How timm's attention and ours compute."""


class _Kept(NamedTuple):
    module: nn.Module
    kind: type[nn.Module]
    training: bool | None
    """None where it cannot be told, as of frozen TorchScript."""
    ways: dict[str, Any]
    registries: dict[str, dict[str, Any]]


class _KeptTensor(NamedTuple):
    tensor: torch.Tensor
    data: torch.Tensor
    requires_grad: bool
    grad: torch.Tensor | None


@contextmanager
def as_they_were(models: Iterable[Any]) -> Iterator[None]:
    """Whatever happens within, the caller's models are afterwards as they were before, also after an error.

    Put back are each module's class, mode, parts, hooks and `fused_attn`, and each parameter's values' place (device,
    memory format), `requires_grad` and `grad`. What the models' own code changes (counters, buffers) stays changed.
    """
    roots = [module for model in models for module in modules_in(model)]
    parts, parameters = _parts(roots)
    kept = [_keep(part) for part in parts]
    tensors = [
        _KeptTensor(tensor, tensor.data, tensor.requires_grad, tensor.grad if tensor.is_leaf else None)
        for tensor in parameters
        if not isinstance(tensor, nn.parameter.UninitializedParameter)
    ]
    try:
        yield
    finally:
        for one in kept:
            _put_back(one)
        for tensor, data, requires_grad, grad in tensors:
            if not _lies_like(tensor, data):
                tensor.data = data
            if tensor.is_leaf:
                with torch.inference_mode(tensor.is_inference()):  # one that was made there is changed there only
                    tensor.requires_grad_(requires_grad)
                tensor.grad = grad


def _parts(roots: Iterable[nn.Module]) -> tuple[list[nn.Module], list[torch.Tensor]]:
    """Every module and every parameter once. Both are asked of the user's class, which may answer anything."""
    parts: dict[int, nn.Module] = {}
    parameters: dict[int, torch.Tensor] = {}
    for root in roots:
        with guarded(type(root).__name__, "was asked for its parts and parameters"):
            parts |= {id(part): part for part in root.modules()}
            parameters |= {id(one): one for one in root.parameters()}
    return list(parts.values()), list(parameters.values())


def _keep(module: nn.Module) -> _Kept:
    held = vars(module)
    ways = {name: held.get(name) for name in _WAYS} if isinstance(module, Attention) else {}
    plain = not isinstance(module, torch.jit.ScriptModule)
    registries = {name: held[name].copy() for name in _REGISTRIES if plain and isinstance(held.get(name), dict)}
    return _Kept(module, type(module), getattr(module, "training", None), ways, registries)


def _put_back(kept: _Kept) -> None:
    module = kept.module
    if type(module) is not kept.kind:
        module.__class__ = kept.kind
    if kept.training is not None and module.training != kept.training:
        module.training = kept.training
    for name, way in kept.ways.items():
        if way is not None:
            setattr(module, name, way)
        elif name in vars(module):
            delattr(module, name)
    for name, before in kept.registries.items():
        now = vars(module)[name]
        same: Callable[[Any, Any], bool] = _lies_like if name == "_buffers" else operator.is_
        if now.keys() != before.keys() or not all(same(now[key], before[key]) for key in before):
            now.clear()
            now.update(before)


def _lies_like(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    """On the same device and in the same order in memory, so that neither was moved to be the other."""
    if one is None or other is None or one.layout != torch.strided:
        return True
    return one.device == other.device and one.shape == other.shape and one.stride() == other.stride()
