"""Step `attention`: one block's attention, softmax and twicing along each path; time, memory, error against float64."""

import statistics
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib.util import find_spec
from itertools import product

import torch
from attack_speed.memory import peak

from gpu_steps.job import Job, Row, milliseconds, spread
from robustbench_twicing.attention.methods import mixing_of
from robustbench_twicing.attention.packed import packed_attention
from robustbench_twicing.attention.paths import explicit_attention, fused_attention, on_chip
from robustbench_twicing.spec.methods import Method

Attend = Callable[[torch.Tensor], torch.Tensor]
"""(batch, tokens, 3, heads, head_dim) to (batch, tokens, heads, head_dim)."""

HEAD_DIM = 64
SCALE = HEAD_DIM**-0.5
REFERENCE = "softmax, fused (SDPA)"


def _by(attend: Callable[..., torch.Tensor], method: str, qkv: torch.Tensor) -> torch.Tensor:
    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    return attend(q, k, v, SCALE, mixing_of(Method(method))).transpose(1, 2)


def variants(qkv: torch.Tensor, compiles: bool) -> Mapping[str, tuple[Attend, float]]:
    """Name -> how, and its strength."""
    found: dict[str, tuple[Attend, float]] = {
        REFERENCE: (partial(_by, fused_attention, "softmax"), 0.0),
        "softmax, explicit (baddbmm)": (partial(packed_attention, scale=SCALE, strength=0.0), 0.0),
        "twicing, two fused calls": (partial(_by, fused_attention, "twicing"), 1.0),
        "twicing, explicit (baddbmm)": (partial(packed_attention, scale=SCALE, strength=1.0), 1.0),
    }
    if compiles:
        formula = torch.compile(partial(_by, explicit_attention, "twicing"), dynamic=False)
        found["twicing, explicit, compiled"] = (formula, 1.0)
    if qkv.is_cuda and find_spec("triton") and on_chip().fits(qkv):
        for name, strength in (("softmax, triton", 0.0), ("twicing, triton", 1.0)):
            found[name] = (partial(on_chip().on_chip_attention, scale=SCALE, strength=strength), strength)
    return found


def rows(job: Job) -> Iterator[Row]:
    sizes = product((torch.bfloat16, torch.float32), job.scale.tokens, job.scale.batches)
    for dtype, tokens, batch in sizes:
        shape = (batch, tokens, 3, job.scale.heads, HEAD_DIM)
        qkv = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(job.device, dtype)
        # Compiling takes seconds for each size and direction.
        compiles = job.is_cuda and dtype == torch.bfloat16 and tokens == job.scale.tokens[0]
        reference: dict[bool, float] = {}
        for (name, (attend, strength)), gradient in product(variants(qkv, compiles).items(), (False, True)):
            if job.is_late:
                return
            row: Row = {"what": "forward + input gradient" if gradient else "forward", "variant": name}
            row |= {"dtype": str(dtype).removeprefix("torch."), "tokens": tokens, "batch": batch}
            row |= {"heads": job.scale.heads}
            try:
                row |= _numbers(attend, strength, qkv, gradient)
            except Exception as error:  # noqa: BLE001 - out of memory, a kernel that does not launch: the others count
                yield row | {"failed": f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}"}
                continue
            if name == REFERENCE:
                reference[gradient] = statistics.median([float(str(row["ms"]))])
            if gradient in reference:
                row["times_softmax"] = round(float(str(row["ms"])) / reference[gradient], 3)
            yield row


def _numbers(attend: Attend, strength: float, qkv: torch.Tensor, gradient: bool) -> Row:
    def run() -> torch.Tensor:
        return _forward_and_gradient(attend, qkv) if gradient else _forward(attend, qkv)

    times = milliseconds(run, qkv.device)
    mib = round(peak(run, qkv.device) / 2**20, 1) if qkv.device.type == "cuda" else ""
    few = qkv[:2]
    exact = partial(packed_attention, scale=SCALE, strength=strength)
    way = _forward_and_gradient if gradient else _forward
    expected = way(exact, few.double())
    off = (way(attend, few).double() - expected).norm() / expected.norm()
    return {**spread("ms", times, 4), "peak_mib": mib, "error": f"{off.item():.1e}"}


def _forward(attend: Attend, qkv: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return attend(qkv)


def _forward_and_gradient(attend: Attend, qkv: torch.Tensor) -> torch.Tensor:
    """The gradient of qkv, for a direction that is the output itself."""
    given = qkv.detach().requires_grad_()
    out = attend(given)
    return torch.autograd.grad(out, given, out.detach())[0]
