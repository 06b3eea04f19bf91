"""A device beside the CPU, for machines that have none: its tensors lie in main memory but refuse to meet the CPU's.

What a GPU's user would meet first is a tensor made on the wrong device. Here that raises as on CUDA: operations on
tensors of both devices, `.numpy()` on one that is not on the CPU. Values are the CPU's, so results can be compared bit
by bit. It says nothing of CUDA's kernels, streams or speed.

Import it before anything takes a gradient, in a process of its own: from then on torch knows one device more.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self
from unittest import mock

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode

NAME = "other"

# Operations that CUDA, too, takes with tensors of both devices.
_MIXING = {"aten::copy_", "aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}


class OtherTensor(torch.Tensor):
    """A tensor of the other device, with a CPU tensor inside."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> Self:
        made: Self = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=torch.device(NAME, 0),
        )
        made.inner = inner
        return made

    def __repr__(self, *args: Any, **kwargs: Any) -> str:
        return f"{self.inner!r} on the other device"

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return _compute(func, args, dict(kwargs or {}))


def _compute(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """An operation on the CPU tensors inside; its results are on the device on which it was asked for."""
    tensors = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    others = [tensor for tensor in tensors if isinstance(tensor, OtherTensor)]
    name = func._schema.name
    if others and name not in _MIXING:
        strangers = [t for t in tensors if not isinstance(t, OtherTensor) and t.dim()]  # numbers may be on the CPU
        if strangers:
            shapes = ", ".join(str(tuple(stranger.shape)) for stranger in strangers)
            raise RuntimeError(f"Expected all tensors on one device: {func} got {shapes} on the CPU.")
    asked = kwargs.get("device")
    on_other = bool(others) if asked is None else torch.device(asked).type == NAME
    if name == "aten::copy_":
        on_other = isinstance(args[0], OtherTensor)

    def inside(leaf: Any) -> Any:
        if isinstance(leaf, OtherTensor):
            return leaf.inner
        return torch.device("cpu") if isinstance(leaf, torch.device) else leaf

    outside = {id(tensor.inner): tensor for tensor in others}

    def outer(leaf: Any) -> Any:
        if not on_other or not isinstance(leaf, torch.Tensor):
            return leaf
        return outside[id(leaf)] if id(leaf) in outside else OtherTensor(leaf)

    inner_args, inner_kwargs = pytree.tree_map(inside, (args, kwargs))
    return pytree.tree_map(outer, func(*inner_args, **inner_kwargs))


class _Operations(TorchDispatchMode):
    """For operations without a tensor, such as `torch.zeros(3, device=...)`."""

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return _compute(func, args, dict(kwargs or {}))


class _Functions(TorchFunctionMode):
    """For what torch does not hand on as an operation."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        options = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor) and options.get("device") is not None:
            return func(*args, **{**options, "device": "cpu"}).to(options["device"])
        if args and isinstance(args[0], OtherTensor):
            if func is torch.Tensor.tolist:
                return args[0].inner.tolist()
            if func is torch.Tensor.__getitem__ and isinstance(args[1], list | np.ndarray):
                return args[0][torch.as_tensor(args[1])]
            if func is torch.Tensor.new_tensor:
                dtype = options.pop("dtype", args[0].dtype)
                return torch.tensor(*args[1:], dtype=dtype, **options).to(args[0].device)
        return func(*args, **options)


class _Module:
    """What torch wants to know of a device."""

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return False  # nobody shall choose it by himself

    def device_count(self) -> int:
        return 0  # of those that have random generators of their own

    def current_device(self) -> int:
        return 0

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        pass


backend_registration._setup_privateuseone_for_python_backend(NAME, _Module())


@contextmanager
def other_device() -> Iterator[torch.device]:
    """The device, which exists within this block."""
    swapping = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)  # `module.to` would leave the CPU tensor inside behind
    try:
        with _Operations(), _Functions(), mock.patch.object(torch.accelerator, "synchronize"):
            yield torch.device(NAME, 0)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(swapping)
