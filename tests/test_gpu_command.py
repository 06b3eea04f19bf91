"""The command that measures a GPU, in small and without one: steps give rows, and one that fails costs only its own."""

import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu

    return gpu


@pytest.mark.parametrize("step", ["attention", "corruptions", "attacks"])
def test_steps_run_on_a_cpu(step, gpu, tmp_path, monkeypatch) -> None:
    from gpu_steps import speed

    monkeypatch.setattr(speed, "ATTACKS", {speed.LEAVING: speed.ATTACKS[speed.LEAVING]})
    gpu.here(step, gpu.Job("cpu", gpu.REHEARSAL, tmp_path, 100.0), tmp_path / "rows")
    rows = [json.loads(line) for line in (tmp_path / "rows").read_text().splitlines()]
    whats = {row["what"] for row in rows}
    assert not [row for row in rows if "failed" in row]
    if step == "attention":
        assert {row["variant"] for row in rows} >= {"softmax, fused (SDPA)", "twicing, two fused calls"}
        assert all(float(row["error"]) < (1e-2 if row["dtype"] == "bfloat16" else 1e-5) for row in rows)
    elif step == "corruptions":
        assert {"gaussian_noise", "fog"} < whats
        assert {row["levels_off_at_most"] for row in rows if "levels_off_at_most" in row} == {0}
    else:
        assert whats == {"PGD-20", "PGD-20, samples leave"}
        assert {"ours, crafted in bfloat16", "torchattacks, bfloat16 autocast"} < {row["variant"] for row in rows}
        assert all(row["largest_change_over_eps"] <= 1.00001 for row in rows)


@pytest.mark.parametrize(
    ("then", "problem"), [("raise SystemExit(3)", "exit code 3"), ("import time; time.sleep(60)", "stopped after 2 s")]
)
def test_a_step_that_fails_or_hangs_loses_only_what_it_had_not_measured(then, problem, gpu, tmp_path) -> None:
    rows = tmp_path / "rows.jsonl"
    code = f'import pathlib; pathlib.Path({str(rows)!r}).write_text(\'{{"what": "first"}}\\n\'); {then}'
    found, said = gpu.apart([sys.executable, "-S", "-c", code], 2.0, rows)
    assert found == [{"what": "first"}]
    assert problem in said


def test_the_page_names_what_failed_and_says_no_number_that_was_not_measured(gpu, tmp_path) -> None:
    from gpu_steps.report import write

    rate = {"what": "PGD-20", "model": "tiny, twicing"}
    rows = [
        rate | {"variant": "torchattacks", "images_per_second": 10.0},
        rate | {"variant": "ours, crafted in bfloat16", "images_per_second": 45.0},
    ]
    write(
        tmp_path,
        {"attacks": rows, "decode": []},
        {"decode": "failed with exit code 1\nwhy"},
        {"device_type": "cuda"},
        "Title",
    )
    page = (tmp_path / "gpu.md").read_text()
    assert "tiny, twicing: 4.50" in page
    assert page.count("not measured") == 4
    assert "**failed with exit code 1**\n\n    why" in page
    assert (tmp_path / "gpu.csv").read_text().count("PGD-20") == 2


def test_every_step_is_one_that_exists_and_their_seconds_are_within_the_whole(gpu) -> None:
    for step in gpu.STEPS.values():
        assert f"\ndef {step.function}(job: Job)" in (BENCHMARKS / "gpu_steps" / f"{step.module}.py").read_text("utf-8")
    assert sum(step.seconds for step in gpu.STEPS.values()) <= gpu.SECONDS


def test_wheels_are_those_that_the_machine_lacks_and_nothing_that_torch_brings(gpu) -> None:
    from gpu_steps.wheels import missing

    found = missing()
    assert {"torchattacks", "pydantic", "pydantic-core", "jaxtyping", "pytest"} <= set(found)
    assert not {"torch", "numpy", "scipy", "timm", "pandas", "rich", "typing-extensions"} & set(found)


def test_the_card_is_busy_where_any_kernel_runs(gpu) -> None:
    from gpu_steps.profiles import covered

    assert covered([[5.0, 6.0], [0.0, 2.0], [1.0, 3.0], [1.0, 1.5]]) == (4.0, 6.0)
