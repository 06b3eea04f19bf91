"""What a run was made with: versions, device, source state. For the manifest."""

import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from robustbench_twicing import __version__
from robustbench_twicing.catalog.plugins import PREFIX, used
from robustbench_twicing.machine import onednn
from robustbench_twicing.results.used import Device, Git, Maker
from robustbench_twicing.spec.plan import Plan

_PACKAGES = ("torch", "torchvision", "timm", "torchattacks", "numpy", "scipy", "pandas", "pyarrow", "scikit-learn")


def environment(device: torch.device, plan: Plan) -> dict[str, Any]:
    """Fields of the manifest: versions, device and source state."""
    return {
        "command": tuple(sys.argv),
        "versions": {**versions_of_this(), **_versions(plan)},
        "device": Device(
            type=device.type,
            name=torch.cuda.get_device_name(device)
            if device.type == "cuda"
            else platform.processor() or platform.machine(),
            cuda=torch.version.cuda if device.type == "cuda" else None,
            threads=torch.get_num_threads(),
            products="oneDNN" if device.type == "cpu" and onednn.available() else "torch",
            cores=os.cpu_count(),
        ),
        "precision": "float32",
        "platform": platform.platform(),
        "git": _git(),
    }


def made_by(device: torch.device, plan: Plan) -> Maker:
    """What decides a number beside the settings: our code, the packages, plugins too, and the kind of device."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return Maker(code=_code(), versions=_versions(plan), device=name)


def code_and_versions() -> tuple[str, dict[str, str]]:
    """Of `made_by` what no plan and no device has a part in."""
    return _code(), _installed()


def versions_of_this() -> dict[str, str]:
    """Of Python and of this package."""
    return {"python": platform.python_version(), "twicing-bench": __version__}


@cache
def _code() -> str:
    """First 12 hex digits of the SHA-256 of the package's own source files, whatever git says."""
    root = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        digest.update(f"{file.relative_to(root).as_posix()}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:12]


def _versions(plan: Plan) -> dict[str, str]:
    return {**_plugins(plan), **_installed()}


def _installed() -> dict[str, str]:
    return versions_among(_PACKAGES)


def versions_among(packages: Sequence[str]) -> dict[str, str]:
    """The versions of those of the packages that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _plugins(plan: Plan) -> dict[str, str]:
    """The packages that something of a plan comes from; for `python:MODULE:NAME` the hash of the module's file."""
    models = plan.all_models
    names = {
        *(threat.attack for threat in plan.threats if threat.kind == "attack"),
        *(method.name for model in models for method, _ in model.attention.parts),
        *(model.weights.removeprefix("plugin:") for model in models),
        *plan.suites,
    }
    return {
        origin.name if origin.name.startswith(PREFIX) else origin.package: origin.version
        for origin in used()
        if origin.name in names
    }


def _git() -> Git | None:
    """Commit of the source tree the package runs from, and whether it was changed; None for an installed package."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None

    def ask(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        return Git(commit=ask("rev-parse", "HEAD"), changed=bool(ask("status", "--porcelain", "--untracked-files=no")))
    except (OSError, subprocess.SubprocessError):
        return None
