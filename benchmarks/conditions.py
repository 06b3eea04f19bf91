"""What every measurement says of where it was made."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch


def commit() -> str:
    """Of the repository that this file lies in; "" outside of one."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    found = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return found.stdout.strip()


def installed(package: str) -> str:
    """Version of a package; "" if it is not there."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def processor() -> str:
    """The CPU's name where Linux tells it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def device_name(device: str) -> str:
    """The GPU's name, or the processor's."""
    return processor() if device == "cpu" else torch.cuda.get_device_name(device)
