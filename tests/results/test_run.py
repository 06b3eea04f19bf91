"""A run folder explains itself: reading it opens neither the catalog nor the working folder."""

from pathlib import Path

import pandas as pd
import pytest

from robustbench_twicing import evaluate
from robustbench_twicing.api import load_run
from robustbench_twicing.catalog.locate import definitions


def test_a_run_with_a_users_suite_reads_the_same_after_its_definition_was_edited_and_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own, shipped = Path("own.toml"), (definitions("corruptions") / "digits-c.toml").read_text()
    own.write_text(shipped.replace('denominator = "deit"', 'denominator = "alexnet"'))
    run = evaluate("deit", suites=["own.toml"], corruptions=["common"], limit=1, out="run")
    assert run.suites["mce"].notna().all()
    assert run.suites["denominator"].tolist() == ["AlexNet"]

    own.write_text(shipped)
    edited = load_run("run")
    own.unlink()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for again in (edited, load_run("../run")):
        pd.testing.assert_frame_equal(again.suites, run.suites)
        pd.testing.assert_frame_equal(again.summary, run.summary)
