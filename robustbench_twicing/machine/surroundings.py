"""Python's and torch's global state: what evaluation needs of it, and the caller's own back again afterwards."""

import os
import random
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any


@contextmanager
def left_alone() -> Iterator[None]:
    """Whatever happens within: random numbers of Python and numpy, warning filters and environment stay the caller's.

    Libraries set variables when they are imported: scikit-learn KMP_*, for OpenMP, torch TORCHINDUCTOR_CACHE_DIR.

    torch is not imported by this; its state is left alone by `plain_torch`.
    """
    numpy: Any = sys.modules.get("numpy")
    environment = dict(os.environ)
    state, array_state = random.getstate(), numpy.random.get_state() if numpy else None
    with warnings.catch_warnings():
        try:
            yield
        finally:
            random.setstate(state)
            if numpy:
                numpy.random.set_state(array_state)
            for key in os.environ.keys() - environment.keys():
                del os.environ[key]
            os.environ.update(environment)


@contextmanager
def plain_torch() -> Iterator[None]:
    """torch as every number here is computed with: float32 and on the CPU unless said, no autocast, gradients allowed.

    What surrounds the caller's call (`torch.autocast`, `inference_mode`, `no_grad`, default dtype and device) holds
    again afterwards, and its random numbers go on where they stopped.
    """
    import torch

    cards = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    dtype = torch.get_default_dtype()
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=list(cards)))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)
