"""`data make-corrupted`: pictures in a folder are of one set of settings, which lie beside them."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from robustbench_twicing.cli.app import app
from robustbench_twicing.engine.corruptions.frost import FROST_FILES

SUITE = """layout = "generated"
clean = "digits"
index = "digits"
classes = "digits"
common_of = "imagenet-c"
severities = [1]
jpeg_quality = 50
"""
IN_FOG = ["-c", "fog", "--limit", "2", "--severity", "1"]
IN_FROST = ["-c", "frost", "--limit", "2", "--severity", "1"]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.toml").write_text(SUITE)
    Path("frosty").mkdir()
    for name in FROST_FILES:
        Image.new("RGB", (80, 80), (90, 90, 90)).save(Path("frosty") / name)


def _make(*words: str, suite: str = "digits-c", code: int = 0) -> Any:
    command = ["data", "make-corrupted", "--suite", suite, "--out", "made", *words]
    result = CliRunner().invoke(app, command, catch_exceptions=False, env={"COLUMNS": "200"})
    assert result.exit_code == code, result.output
    return result.output


def _pictures(corruption: str = "fog") -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in Path("made", corruption).rglob("*.JPEG")}


@pytest.mark.parametrize(
    ("first", "then", "said"),
    [
        (IN_FOG, {"words": [*IN_FOG, "--seed", "7"]}, "seed 0, not 7"),
        (IN_FOG, {"words": IN_FOG, "suite": "own.toml"}, "quality 95, not 50"),
        (IN_FROST, {"words": [*IN_FROST, "--frost-dir", "frosty"]}, "frost "),
    ],
)
def test_pictures_of_other_settings_are_refused_by_name_and_written_anew_with_fresh(
    first: list[str], then: dict[str, Any], said: str
) -> None:
    corruption, words, suite = first[1], then["words"], then.get("suite", "digits-c")
    assert "2 pictures written" in _make(*first, "--frost-dir", "drawn")
    before = _pictures(corruption)
    output = _make(*words, "-c", "brightness", suite=suite, code=2)
    assert f"made/{corruption}/1 holds pictures of other settings: {said}" in output
    assert "--fresh" in output
    assert _pictures(corruption) == before
    assert not Path("made", "brightness").exists()
    assert "2 pictures written" in _make(*words, "--fresh", suite=suite)
    after = _pictures(corruption)
    assert after.keys() == before.keys()
    assert all(after[path] != before[path] for path in after)
    assert "0 pictures written" in _make(*words, suite=suite)


def test_the_same_command_continues_and_another_corruption_joins() -> None:
    assert "2 pictures written" in _make(*IN_FOG)
    before = _pictures()
    next(iter(before)).unlink()
    assert "1 pictures written" in _make(*IN_FOG)
    assert _pictures() == before
    assert "2 pictures written" in _make(*IN_FROST, "--seed", "7")
    assert json.loads(Path("made/fog/1.json").read_text())["seed"] == 0
    assert json.loads(Path("made/frost/1.json").read_text())["seed"] == 7
    assert not list(Path("made").rglob("*.part"))


@pytest.mark.parametrize("content", [None, b"\xff", b"[]", b"[" * 100_000])
def test_pictures_that_nothing_says_the_settings_of_are_refused(content: bytes | None) -> None:
    _make(*IN_FOG)
    settings = Path("made/fog/1.json")
    settings.unlink() if content is None else settings.write_bytes(content)
    assert "made/fog/1 holds pictures, and no 1.json says how they were made" in _make(*IN_FOG, code=2)
    assert "2 pictures written" in _make(*IN_FOG, "--fresh")


def test_fresh_leaves_what_is_no_picture_and_drops_those_of_a_larger_limit() -> None:
    _make("-c", "fog", "--limit", "3", "--severity", "1")
    note = Path("made/fog/1/note.txt")
    note.write_text("mine")
    assert "2 pictures written" in _make(*IN_FOG, "--seed", "7", "--fresh")
    assert len(_pictures()) == 2
    assert note.read_text() == "mine"
