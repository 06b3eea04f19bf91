"""For every test: nothing that whoever runs the tests has configured plays a part."""

import os
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # before anything loads torch: workers that share the cores take one each
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest


@pytest.fixture(autouse=True)
def _no_configuration_of_the_users(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(Path(tmp_path_factory.getbasetemp()) / "no-configuration"))
    for name in [name for name in os.environ if name.startswith("TWICING_BENCH_")]:
        monkeypatch.delenv(name)
