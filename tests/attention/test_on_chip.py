"""The Triton kernel: exact in Triton's interpreter, accepted by its compiler, and nobody's default."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from robustbench_twicing import attention
from robustbench_twicing.attention.paths import choose_path, set_attention_path
from robustbench_twicing.errors import UserError
from robustbench_twicing.tasks.images.tune import settle_attention
from tests.attention.small import small

ROOT = Path(__file__).resolve().parents[2]
WITH_TRITON = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")

COMPILING = """
import sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from robustbench_twicing.attention import on_chip

for name, pointers in (("_forward", "qkv out av"), ("_backward", "grad qkv av packed")):
    for strength in (1.0, 0.0):
        numbers = {"STRENGTH": strength, "TOKENS": 21, "HEAD_DIM": 16}
        kinds = dict.fromkeys(pointers.split(), "*bf16") | {"scale": "fp32"} | dict.fromkeys(numbers, "constexpr")
        source = ASTSource(fn=getattr(on_chip, name), signature=kinds, constexprs=numbers)
        made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 8, "num_stages": 1})
        assert made.asm["cubin"]
"""


def run(*arguments: str, cache: Path, **variables: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"} | variables
    environment |= {"TRITON_CACHE_DIR": str(cache)}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr


@WITH_TRITON
def test_the_kernel_computes_what_float64_computes(tmp_path) -> None:
    file = str(Path(__file__).with_name("in_interpreter.py"))
    # Without the options of this project: run-time type checks would wrap what triton reads as text.
    options = ("-q", "-x", "-p", "no:cacheprovider", "-o", "addopts=", "-o", "filterwarnings=", "--noconftest")
    run("-m", "pytest", *options, file, cache=tmp_path, TRITON_INTERPRET="1")


@WITH_TRITON
@pytest.mark.dear
def test_the_kernel_compiles_for_an_h100_without_one(tmp_path) -> None:
    script = tmp_path / "compiling.py"  # triton reads the source of what it compiles
    script.write_text(COMPILING)
    run(str(script), cache=tmp_path, PYTHONPATH=str(ROOT))


def test_nobody_takes_the_kernel_unless_told_to() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert {choose_path("auto", device, 0.0) for device in (cpu, cuda)} == {"explicit", "fused"}
    assert choose_path("triton", cuda, 0.0) == "triton"
    assert choose_path("triton", cuda, 0.1) == "explicit"


@WITH_TRITON
def test_on_a_cpu_it_is_refused() -> None:
    with pytest.raises(UserError, match="CUDA devices, and this is cpu"):
        settle_attention([], torch.device("cpu"), True, "triton")


def test_without_triton_it_is_refused(monkeypatch) -> None:
    monkeypatch.delitem(sys.modules, "robustbench_twicing.attention.on_chip", raising=False)
    monkeypatch.delattr(attention, "on_chip", raising=False)
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(UserError, match="needs the package triton"):
        set_attention_path(small(depth=1), "triton")
