"""What a method of attention costs: DeiT-tiny at 224 along each path against timm's own model, in one process.

    OMP_NUM_THREADS=2 OMP_WAIT_POLICY=active python benchmarks/attention.py         # writes benchmarks/attention.csv
    python benchmarks/attention.py --device cuda --dtype bfloat16 --out cuda.csv
    OMP_NUM_THREADS=1 python benchmarks/attention.py --methods --threads 1 --batch 4 --rounds 7

Every variant has the same random weights, frozen; gradients are for the images only, as in an attack. In each round
every variant runs once, in a changing order, so a busy machine slows all of them; a ratio is the median over rounds of
the time over that of timm's untouched model in the same round. The first rounds warm up. `logits_off` is the largest
distance of the logits from those of the same attention in float64, relative to the largest logit.

With `--methods`: every method of the table as a loaded model runs on a CPU, as a multiple of softmax, in seconds of the
processor, which other work on the machine changes little.
"""

import argparse
import csv
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import timm
import torch
from conditions import commit, processor
from torch import nn

from robustbench_twicing.attention.convert import apply_method, apply_softmax
from robustbench_twicing.attention.paths import set_attention_path
from robustbench_twicing.models.build import new_network
from robustbench_twicing.models.faster.last_block import read_tokens_only
from robustbench_twicing.models.faster.onednn_layers import use_onednn

HERE = Path(__file__).parent
WARM_UP = 2
REFERENCE = "timm"
# name -> (method, path or None for timm's own attention, the last block for the class token only, products by oneDNN)
VARIANTS: dict[str, tuple[str, str | None, bool, bool]] = {
    REFERENCE: ("softmax", None, False, False),
    "timm, read tokens only": ("softmax", None, True, False),
    "softmax explicit": ("softmax", "explicit", False, False),
    "softmax explicit, read tokens only": ("softmax", "explicit", True, False),
    "twicing fused": ("twicing", "fused", False, False),
    "twicing fused, read tokens only": ("twicing", "fused", True, False),
    "twicing explicit": ("twicing", "explicit", False, False),
    "twicing explicit, read tokens only": ("twicing", "explicit", True, False),
    "softmax as loaded": ("softmax", "explicit", True, True),
    "twicing as loaded": ("twicing", "explicit", True, True),
    "twicing fused as loaded": ("twicing", "fused", True, True),
}

METHODS_REFERENCE = "softmax"
METHODS: dict[str, tuple[str, str | None, bool, bool]] = {
    method: (method, "explicit", True, True)
    for method in (METHODS_REFERENCE, "twicing", "twicing(0.5)", "folded(3)", "neutreno(0.6)", "temperature(0.5)")
}


def build(architecture: str, method: str, path: str | None, read: bool, onednn: bool) -> nn.Module:
    """The variant's network, in float32 on the CPU, weights frozen."""
    network: nn.Module = new_network(architecture).eval().requires_grad_(False)
    if path:
        apply_softmax(apply_method(network, method))
    if read:
        assert read_tokens_only(network), "the head of this architecture reads other tokens"
    if onednn:
        use_onednn(network)
    set_attention_path(network, path or "fused")
    return network


def seconds(network: nn.Module, images: torch.Tensor, gradient: bool, clock: Callable[[], float]) -> float:
    """One forward, and one gradient of the images if `gradient`."""
    pixels = images.clone().requires_grad_(gradient)
    wait_for(images.device)
    start = clock()
    with torch.set_grad_enabled(gradient):
        logits = network(pixels)
    if gradient:
        torch.autograd.grad(logits.sum(), pixels)
    wait_for(images.device)
    return clock() - start


def wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def spread(values: list[float], digits: int) -> list[float]:
    """Median, lowest, highest."""
    return [round(value, digits) for value in (statistics.median(values), min(values), max(values))]


def conditions(arguments: argparse.Namespace, device: torch.device) -> dict[str, object]:
    """What the numbers depend on, for every row."""
    cuda = device.type == "cuda"
    return {
        "architecture": arguments.architecture,
        "batch": arguments.batch,
        "dtype": arguments.dtype,
        "rounds": arguments.rounds,
        "device": torch.cuda.get_device_name(device) if cuda else f"{processor()}, {os.cpu_count()} cores",
        "threads": torch.get_num_threads(),
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY", ""),
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "commit": commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "timm": timm.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", default="deit_tiny_patch16_224")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--methods", action="store_true", help="every method, beside softmax")
    parser.add_argument("--out", type=Path, help="CSV; without it attention.csv or attention-methods.csv")
    arguments = parser.parse_args()
    device, dtype = torch.device(arguments.device), getattr(torch, arguments.dtype)
    torch.set_num_threads(arguments.threads)
    load = [round(os.getloadavg()[0], 2)]
    variants, reference = (METHODS, METHODS_REFERENCE) if arguments.methods else (VARIANTS, REFERENCE)
    networks = {name: build(arguments.architecture, *variant) for name, variant in variants.items()}
    config = timm.get_pretrained_cfg(arguments.architecture)
    assert config, "timm knows no image size for this architecture"
    images = torch.rand(arguments.batch, *config.input_size, generator=torch.Generator().manual_seed(0))
    off = {}
    for name, network in networks.items():
        with torch.no_grad():
            exact = network.double()(images[:2].double())
            logits = network.to(device, dtype)(images[:2].to(device, dtype)).cpu().double()
        off[name] = ((logits - exact).abs().max() / exact.abs().max()).item()
    times = in_rounds(networks, images.to(device, dtype), arguments)
    load.append(round(os.getloadavg()[0], 2))

    table, over = [], "times_softmax" if arguments.methods else "times_timm"
    for (mode, name), each in times.items():
        ms, ms_low, ms_high = spread([1000 * value for value in each], 2)
        ratios = [value / other for value, other in zip(each, times[mode, reference], strict=True)]
        ratio, low, high = spread(ratios, 3)
        row = {"what": mode, "variant": name, over: ratio, "lowest": low, "highest": high}
        row |= {"ms": ms, "ms_lowest": ms_low, "ms_highest": ms_high, "logits_off": f"{off[name]:.1e}"}
        row |= {"seconds_of": "processor"} if arguments.methods else {}
        table.append(row | {"load_before": load[0], "load_after": load[1]} | conditions(arguments, device))
        print(
            f"{mode:25} {name:36} {ratio:6.3f} x {reference} ({low:.3f}-{high:.3f})  {ms:8.2f} ms ({ms_low}-{ms_high})"
        )
    out = arguments.out or HERE / ("attention-methods.csv" if arguments.methods else "attention.csv")
    with out.open("w", newline="") as file:
        writer = csv.DictWriter(file, table[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)


def in_rounds(
    networks: Mapping[str, nn.Module], images: torch.Tensor, arguments: argparse.Namespace
) -> dict[tuple[str, str], list[float]]:
    """(mode, name) -> the seconds of each round that counts."""
    modes = {"forward": False, "forward + input gradient": True}
    clock = time.process_time if arguments.methods else time.perf_counter
    times: dict[tuple[str, str], list[float]] = {(mode, name): [] for mode in modes for name in networks}
    for number in range(WARM_UP + arguments.rounds):
        for mode, gradient in modes.items():
            names = list(networks)
            shift = number % len(names)
            for name in names[shift:] + names[:shift]:
                taken = seconds(networks[name], images, gradient, clock)
                if number >= WARM_UP:
                    times[mode, name].append(taken)
    return times


if __name__ == "__main__":
    main()
