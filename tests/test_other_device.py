"""Nothing is left behind on the CPU where another device computes."""

import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils import backend_registration


@pytest.mark.dear
@pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this torch cannot pretend to have another device",
)
def test_attacks_corruptions_and_runs_stay_on_their_device() -> None:
    file = Path(__file__).with_name("on_other_device.py")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(file)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=file.parents[1])
    assert run.returncode == 0, run.stdout + run.stderr
