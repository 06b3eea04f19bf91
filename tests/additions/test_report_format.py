"""docs/add-a-report-format.md: a format of one's own."""

from pathlib import Path

import pytest

from tests.additions.followed import Tree, blocks
from tests.records_builder import cell, run_folder


@pytest.fixture(scope="module")
def tree(copied: Tree) -> Tree:
    copied.follow(*blocks("add-a-report-format.md", "A format"))
    return copied


def test_it_takes_two_files(tree: Tree) -> None:
    folder = "robustbench_twicing/report/formats"
    assert tree.touched == {f"{folder}/listing.py", f"{folder}/__init__.py"}


@pytest.mark.slow
def test_any_run_can_be_written_in_it(tree: Tree, tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", cell("deit", "clean", [True, True, True, False]))
    said = tree.tool("report", str(run), "--format", "listing")
    assert "threat clean; model deit; n 4; top-1 % 75.0; " in said
    assert "listing" in tree.tool("report", "--help")
