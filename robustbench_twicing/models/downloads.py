"""Published weights, downloaded and cached by timm; without a network the answer comes within seconds."""

import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import timm
import torch

from robustbench_twicing.errors import UserError
from robustbench_twicing.spec.models import ModelSpec

_SECONDS = 3.0
"""For a name to be looked up and a connection to be made. Hugging Face's own client tries three files for 23 s each."""


def downloaded(spec: ModelSpec, name: str) -> Any:
    """timm's network `name` with its published weights; from the cache, without asking anybody, if they are there.

    Raises `UserError` if they cannot be had, or are of another architecture than `spec` says.
    """
    unreachable = ""
    try:
        try:
            network = _created(name, offline=True)
        except Exception:
            unreachable = _unreachable()
            if unreachable:
                raise
            network = _created(name, offline=False)
    except MemoryError:
        raise
    except Exception as error:  # timm, huggingface_hub, requests, httpx and urllib each have errors of their own
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"The weights {name!r} could not be downloaded: {type(error).__name__}: {reason}{unreachable}",
            "Check the name and the network. Without a network, pass a file: "
            f"--model {spec.name}=path/to/weights.safetensors",
        ) from error
    architecture = network.pretrained_cfg.get("architecture")
    if architecture != spec.architecture:
        raise UserError(
            f"The weights {name!r} are of {architecture}, not of {spec.architecture}.",
            "Name weights of the same architecture.",
        )
    return network


def _created(name: str, offline: bool) -> Any:
    with _hub(offline), torch.random.fork_rng(devices=[]):
        network: Any = timm.create_model(name, pretrained=True)
    return network


@contextmanager
def _hub(offline: bool) -> Iterator[None]:
    """Whether Hugging Face's client may ask its server; no connection that is waited for without an end."""
    settings: Any = import_module("huggingface_hub.constants")
    before, patience = settings.HF_HUB_OFFLINE, socket.getdefaulttimeout()
    settings.HF_HUB_OFFLINE = before or offline
    socket.setdefaulttimeout(patience or 10 * _SECONDS)
    try:
        yield
    finally:
        settings.HF_HUB_OFFLINE = before
        socket.setdefaulttimeout(patience)


def _unreachable() -> str:
    """What to say if neither Hugging Face nor the proxy on the way answers in time; empty if one does."""
    settings: Any = import_module("huggingface_hub.constants")
    if settings.HF_HUB_OFFLINE:
        return " (HF_HUB_OFFLINE is set)"
    address = urlsplit(settings.ENDPOINT)
    proxy = urllib.request.getproxies().get(address.scheme)
    if proxy and not urllib.request.proxy_bypass(address.hostname or ""):
        address = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    place = (address.hostname or "", address.port or (443 if address.scheme == "https" else 80))
    answered: list[bool] = []

    def ask() -> None:
        with suppress(OSError), socket.create_connection(place, timeout=_SECONDS):
            answered.append(True)

    # In a thread of its own: looking up a name knows no limit of time.
    asking = Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_SECONDS)
    return "" if answered else f" ({place[0]} cannot be reached)"
