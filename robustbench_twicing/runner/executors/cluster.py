"""A Ray cluster: one that is there, or one that is started on this machine, and how many workers it has room for."""

import logging
import math
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from robustbench_twicing.errors import UserError
from robustbench_twicing.spec.means import Means

ANSWER_SECONDS = 10.0
"""For which an address is waited for."""


@contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """The module `ray`, connected. What the caller has connected himself stays so. Raises `UserError`."""
    try:
        import ray
    except ImportError:
        raise UserError(
            "Ray is not installed.", "Install it: pip install 'twicing-bench[ray]'; or leave --executor ray away."
        ) from None
    if ray.is_initialized():
        yield ray
        return
    if address is not None:
        address = _found(ray, address)
        _require_answer(ray, address)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        _begin(ray, address)
        with _quiet(ray):
            yield ray
    finally:
        ray.shutdown()
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)


def _begin(ray: Any, address: str | None) -> None:
    try:
        ray.init(
            address=address or "local",
            include_dashboard=None if address else False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            # Ray's workers are nice (15) to everybody else on the machine; a run in this process is not.
            _system_config=None if address else {"worker_niceness": 0},
        )
    except (KeyboardInterrupt, MemoryError):
        raise
    except Exception as error:  # of many kinds: ConnectionError, RuntimeError, RayError, ValueError
        said = next(iter(str(error).strip().splitlines()), type(error).__name__)
        where = f"The Ray cluster at {address} cannot be joined" if address else "Ray cannot be started here"
        raise UserError(
            f"{where}: {said}",
            "A run is started on one of the cluster's machines, with the same version of Ray and Python, and the "
            "cluster's token in RAY_AUTH_TOKEN if it has one (docs/scale.md)."
            if address
            else "Check that /tmp and /dev/shm have room; docs/scale.md says what Ray needs.",
        ) from error


@contextmanager
def _quiet(ray: Any) -> Iterator[None]:
    """Ray prints the death of workers on standard output, which is for results; the run says itself what happened."""
    module = sys.modules.get("ray._private.worker")
    own = getattr(module, "print_to_stdstream", None)
    if own is not None:
        setattr(module, "print_to_stdstream", lambda *arguments, **options: None)  # noqa: B010 - not mypy's matter
    try:
        yield
    finally:
        if own is not None:
            setattr(module, "print_to_stdstream", own)  # noqa: B010


def _found(ray: Any, address: str) -> str:
    """HOST:PORT of an address. Raises `UserError` for `auto` where no cluster runs, and for what is no address."""
    if "://" in address:
        raise UserError(
            f"{address} is Ray's client, which is not used here.",
            "Start the run on one of the cluster's machines, with --address auto.",
        )
    if address == "auto":
        from ray._private import services

        address = os.environ.get("RAY_ADDRESS") or ""
        with suppress(ConnectionError):
            address = address or services.canonicalize_bootstrap_address("auto") or ""
        if not address:
            raise UserError(
                "No Ray cluster runs on this machine.",
                "Start one (ray start --head), or leave --address away: then a cluster of this machine alone is used.",
            )
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"{address!r} is no address of a Ray cluster.", "Write auto, or HOST:PORT, such as head:6379.")
    return address


def _require_answer(ray: Any, address: str) -> None:
    """Raise `UserError` unless a Ray cluster answers there soon. Ray itself would wait for minutes."""
    host, _, port = address.rpartition(":")
    silent = UserError(
        f"No Ray cluster answers at {address} within {ANSWER_SECONDS:g} s.",
        "Check the address (`ray status` on the head node), the firewall, and that the cluster still runs.",
    )
    try:
        socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise UserError(f"{silent.message[:-1]}: {error}.", silent.hint) from None
    client = getattr(sys.modules.get("ray._raylet"), "GcsClient", None)
    if client is None:
        return
    answered = threading.Event()

    def ask() -> None:
        try:
            client(address=address)
        except Exception as error:  # noqa: BLE001 - what is wrong with a cluster that answers, joining it says
            if "Authentication" not in type(error).__name__:
                return
        answered.set()

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(ANSWER_SECONDS)
    if not answered.is_set():
        raise silent


class Places(NamedTuple):
    """What workers there are, all alike."""

    workers: int
    cores: int
    """Of each."""
    gpus: float
    """Of each; 0 on a CPU."""


def places_of(nodes: Sequence[dict[str, Any]], means: Means) -> Places:
    """Room for workers on the nodes of a cluster (`ray.nodes()`), as the means ask for it. Raises `UserError`."""
    alive = [node.get("Resources", {}) for node in nodes if node.get("Alive", True)]
    cards = sum(node.get("GPU", 0.0) for node in alive)
    if means.device.startswith("cuda:"):
        raise UserError(f"Workers find their own GPUs; {means.device} names one.", "Pass --device cuda, or leave it.")
    if not cards and (means.device == "cuda" or means.gpus_per_model):
        raise UserError(
            f"A GPU was asked for, and none of the {len(alive)} machine(s) of the cluster has one.",
            "Leave --device and --gpus-per-model away, or start Ray where `nvidia-smi` shows a card.",
        )
    gpus = 0.0 if means.device == "cpu" or not cards else means.gpus_per_model or 1.0
    most = _room(alive, 1, gpus)
    workers = means.workers or most
    if not 0 < workers <= most:
        each = f"{gpus:g} GPU and a core" if gpus else "a core"
        raise UserError(
            f"{workers} worker(s) need {each} each, and the cluster has room for {most}.",
            f"Pass --workers {most} or less." if most else "Start Ray with cores: ray start --num-cpus.",
        )
    return Places(workers, _cores(alive, workers, gpus), gpus)


def _cores(nodes: Sequence[dict[str, float]], workers: int, gpus: float) -> int:
    """As many for each worker as let all of them run at once."""
    for cores in range(int(max(node.get("CPU", 0.0) for node in nodes)), 1, -1):
        if _room(nodes, cores, gpus) >= workers:
            return cores
    return 1


def _room(nodes: Sequence[dict[str, float]], cores: int, gpus: float) -> int:
    """How many workers that take so much each fit on the nodes."""
    room = 0
    for node in nodes:
        fit = int(node.get("CPU", 0.0)) // cores
        room += min(fit, math.floor(node.get("GPU", 0.0) / gpus + 1e-9)) if gpus else fit
    return room
