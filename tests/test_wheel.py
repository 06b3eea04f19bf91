"""The wheel that users install: complete, and independent of the source tree."""

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def _run(*command: str | Path, cwd: Path) -> str:
    clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=clean, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_wheel_runs_in_a_fresh_environment_from_another_folder(tmp_path: Path) -> None:
    wheels, elsewhere, home = tmp_path / "wheels", tmp_path / "elsewhere", tmp_path / "venv"
    elsewhere.mkdir()
    _run(
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-w",
        wheels,
        ROOT,
        cwd=tmp_path,
    )
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    # Torch and the rest are borrowed from the environment that runs this test. A plain path in a .pth file does not
    # bring that environment's own .pth files along, so its editable install of this package stays out of sight.
    site = _run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=elsewhere).strip()
    Path(site, "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    _run(python, "-m", "pip", "install", "--no-deps", "--no-index", next(wheels.glob("*.whl")), cwd=elsewhere)
    where = _run(python, "-c", "import robustbench_twicing as r; print(r.__file__)", cwd=elsewhere)
    assert where.startswith(str(home))

    command = home / "bin" / "twicing-bench"
    assert "standard" in _run(command, "catalog", cwd=elsewhere)
    listed = "from robustbench_twicing.catalog.recipes import recipe_names; print(recipe_names())"
    assert "deit" in _run(python, "-c", listed, cwd=elsewhere)
    assert "10 cells" in _run(command, "plan", "check", "nightly", cwd=elsewhere)
    options = ["--attack", "fgsm", "--limit", "40", "--json", "--quiet"]
    summary = json.loads(_run(command, "attack", "--model", "deit-tw", *options, cwd=elsewhere))
    assert [row["threat"] for row in summary["rows"]] == ["clean", "fgsm-linf-1/255"]
    assert summary["rows"][0]["accuracy"] > 0.9
    assert (elsewhere / summary["run"] / "summary.csv").is_file()
    _run(command, "report", "latest", "--to", "page.html", cwd=elsewhere)
    assert "</html>" in (elsewhere / "page.html").read_text("utf-8")


@pytest.mark.dear
def test_the_source_distribution_builds_a_wheel_and_tests_itself(tmp_path: Path) -> None:
    _run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", tmp_path, cwd=ROOT)
    (packed,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(packed) as file:
        file.extractall(tmp_path, filter="data")
    unpacked = tmp_path / packed.name.removesuffix(".tar.gz")
    _run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path, cwd=unpacked)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        assert "robustbench_twicing/_definitions/attacks/standard.toml" in file.namelist()
        assert "robustbench_twicing/cli/completed.txt" in file.namelist()
    some = ["tests/test_seeding.py", "tests/spec/test_values_and_threats.py"]
    said = _run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *some, cwd=unpacked)
    assert "failed" not in said
    assert "passed" in said or said.count(".") > 20
