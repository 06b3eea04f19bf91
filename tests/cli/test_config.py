"""`twicing-bench config show`."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from robustbench_twicing.cli.config import app


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")


def test_show_says_each_value_and_where_it_came_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "twicing-bench.toml").write_text('[data]\nimagenet-c = "c"\n')
    monkeypatch.setenv("TWICING_BENCH_MODELS_DEIT_TW", "/runs/checkpoint.pth")
    monkeypatch.setenv("COLUMNS", "300")
    shown = CliRunner().invoke(app, ["show"], catch_exceptions=False).stdout
    rows = {line.split()[0]: " ".join(line.split()[1:]) for line in shown.splitlines() if "." in line.split()[0]}
    assert rows["defaults.data"] == "digits default"
    assert rows["data.imagenet-c"] == f"{tmp_path / 'c'} (nothing there) {tmp_path / 'twicing-bench.toml'}"
    assert rows["data.imagenet-a"] == "- not set"
    assert rows["models.deit-tw"] == "/runs/checkpoint.pth (nothing there) TWICING_BENCH_MODELS_DEIT_TW"
    assert f"File {tmp_path / 'twicing-bench.toml'}: read" in shown
    assert f"File {tmp_path / 'home/twicing-bench/twicing-bench.toml'}: not there" in shown


def test_show_for_machines(tmp_path: Path) -> None:
    (tmp_path / "twicing-bench.toml").write_text('[defaults]\ndata = "imagenet"\n')
    content = json.loads(CliRunner().invoke(app, ["show", "--json"], catch_exceptions=False).stdout)
    expected = {"table": "defaults", "key": "data", "value": "imagenet", "from": str(tmp_path / "twicing-bench.toml")}
    assert expected in content["settings"]
    assert [file["read"] for file in content["files"]] == [True, False]
