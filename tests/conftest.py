"""For every test: nothing that whoever runs the tests has configured plays a part."""

import os
from datetime import UTC, datetime
from pathlib import Path
from zlib import crc32

if "PYTEST_XDIST_WORKER" in os.environ:  # before anything loads torch: workers that share the cores take one each
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from jaxtyping import install_import_hook

PACKAGE = Path(__file__).parents[1] / "robustbench_twicing"
TODAY = datetime.now(UTC).toordinal()
DEAR, ROOMS = 6, 3
"""In how many days all dear tests have run, and all rooms were checked."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--dear", action="store_true", help="Run every test that is marked dear, and check the types of every call."
    )


def pytest_configure(config: pytest.Config) -> None:
    """Types and shapes are checked at each call into a third of the package's rooms each day: it doubles the time."""
    rooms = sorted(place.stem for place in PACKAGE.iterdir() if not place.stem.startswith((".", "_")))
    checked = rooms if config.getoption("--dear") else rooms[TODAY % ROOMS :: ROOMS]
    install_import_hook([f"robustbench_twicing.{room}" for room in checked], "beartype.beartype")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of the dear tests a sixth each day, so that all have run within six."""
    for item in items:
        if "dear" in item.keywords and not config.getoption("--dear") and (crc32(item.nodeid.encode()) - TODAY) % DEAR:
            item.add_marker(pytest.mark.skip(reason="dear, and not of this day: --dear runs all"))


@pytest.fixture(autouse=True)
def _no_configuration_of_the_users(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(Path(tmp_path_factory.getbasetemp()) / "no-configuration"))
    for name in [name for name in os.environ if name.startswith("TWICING_BENCH_")]:
        monkeypatch.delenv(name)
