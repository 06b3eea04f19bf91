"""What collapse, diagnose and sweep keep, and what `compare` makes of two folders of it."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from robustbench_twicing.cli.app import app
from robustbench_twicing.errors import UserError
from robustbench_twicing.results.measured import MEASURED, load_measured
from robustbench_twicing.results.measured_comparison import named_measurements


def _said(*words: str) -> Result:
    return CliRunner().invoke(app, list(words), catch_exceptions=False)


def _json(*words: str) -> Any:
    result = _said(*words, "--json")
    assert result.exit_code in (0, 3), result.output
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("measured")
    for name, limit in (("deit", "6"), ("deit-tw", "5")):
        words = ["collapse", "-m", name, "--limit", limit, "-q", "--out", str(place / name)]
        assert _said(*words).exit_code == 0
    return place


def test_two_folders_differ_by_what_one_command_over_both_models_says(places: Path) -> None:
    together = _json("collapse", "-m", "deit", "-m", "deit-tw", "--limit", "5", "-q", "--out", str(places / "both"))
    expected = {(row["place"], row["figure"]): row for row in together["differences"]}
    found = _json("compare", str(places / "deit"), str(places / "deit-tw"))
    assert found["not_compared"] == ["1 image(s) are in deit in deit alone."]
    of_one = _json("compare", "--run", str(places / "both"), "deit", "deit-tw")
    for rows in (found["rows"], of_one["rows"]):
        assert {(row["place"], row["figure"]) for row in rows} == expected.keys()
        for row in rows:
            there = expected[row["place"], row["figure"]]
            assert row["n"] == there["n"]
            given = [row[key] for key in ("difference", "low", "high")]
            assert given == pytest.approx([there[key] for key in ("value", "low", "high")], rel=1e-4, abs=1e-6)
    page = _said("compare", str(places / "deit"), str(places / "deit-tw")).stdout
    assert "deit-tw in deit-tw (candidate) minus deit in deit" in page


def test_other_data_threats_seeds_and_files_are_refused_by_name(places: Path, tmp_path: Path) -> None:
    said = json.loads((places / "deit" / MEASURED).read_text())
    assert "is not empty" in _said("collapse", "-m", "deit", "--limit", "1", "--out", str(places / "deit")).output
    changes = {
        "other images: digits": {"data": {**said["data"], "fingerprint": "other"}},
        "clean is another threat": {"threats": {"clean": "other"}},
        "One folder is of collapse, the other of sweep": {"command": "sweep"},
        "was altered: it has a key 'more'": {"more": 1},
    }
    for number, (message, change) in enumerate(changes.items()):
        place = tmp_path / str(number)
        place.mkdir()
        (place / MEASURED).write_text(json.dumps({**said, **change}))
        (place / "measured.parquet").write_bytes((places / "deit" / "measured.parquet").read_bytes())
        with pytest.raises(UserError, match=message):
            named_measurements([places / "deit", place])
    (tmp_path / "0" / "measured.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match="cannot be read"):
        load_measured(tmp_path / "0")
    with pytest.raises(UserError, match="compared with measurements"):
        named_measurements([places / "deit", tmp_path])
    with pytest.raises(UserError, match="holds deit"):
        named_measurements([places / "deit"])
    assert named_measurements([tmp_path]) is None
