"""docs/add-a-metric.md: a figure of one's own."""

import json

import numpy as np
import pandas as pd
import pytest

from tests.additions.followed import Tree, blocks


@pytest.fixture(scope="module")
def tree(copied: Tree) -> Tree:
    copied.follow(*blocks("add-a-metric.md"))
    return copied


def test_it_takes_two_files_and_a_line_in_the_docs(tree: Tree) -> None:
    names = ("robustbench_twicing/metrics/overconfidence.py", "robustbench_twicing/metrics/table.py", "docs/records.md")
    assert tree.touched == set(names)


@pytest.mark.slow
def test_reports_show_it_computed_from_the_records(tree: Tree) -> None:
    asked = ("--suite", "digits-c", "--corruption", "fog", "--limit", "20", "--device", "cpu", "--out", "run")
    assert "overconfidence" in tree.tool("corrupt", "--model", "deit", *asked)
    (figures,) = json.loads(tree.tool("report", "run", "--json"))["suites"]
    records = pd.concat(map(pd.read_parquet, (tree.root / "run").rglob("*.parquet")))
    fog = records[records["corruption"] == "fog"]
    assert len(fog) == 100
    assert figures["overconfidence"] == pytest.approx(np.mean(fog["confidence"] - fog["correct"]))


@pytest.mark.slow
def test_the_line_is_what_the_docs_test_asks_for(tree: Tree) -> None:
    assert tree.passes("tests/spec/test_records.py", "tests/metrics/test_table.py") > 5
