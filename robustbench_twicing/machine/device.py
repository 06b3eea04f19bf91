"""Which device computes, and waiting for it."""

import torch

from robustbench_twicing.errors import UserError


def choose_device(name: str) -> torch.device:
    """`auto` takes a CUDA device if there is one, else the CPU. Raises `UserError` for a device this machine lacks."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"Unknown device {name!r}.", "Pass --device auto, cpu, cuda or cuda:0.") from None
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"Device {name!r} is not supported.", "Pass --device auto, cpu, cuda or cuda:0.")
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type == "cuda" and (device.index or 0) >= found:
        raise UserError(
            f"Device {name!r} was asked for, but torch finds {found} CUDA device(s) here.",
            "Pass --device cpu, or check the driver and run python -m torch.utils.collect_env",
        )
    return device


def wait_for(device: torch.device) -> None:
    """Until it has done what it was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
