"""docs/corruptions.md: a corruption of one's own."""

import json

import pytest

from tests.additions.followed import Tree, blocks


@pytest.fixture(scope="module")
def tree(copied: Tree) -> Tree:
    copied.follow(*blocks("corruptions.md", "Add a corruption"))
    return copied


def test_it_takes_two_files(tree: Tree) -> None:
    names = ("spec/corruptions.py", "engine/corruptions/vignette.py")
    assert tree.touched == {f"robustbench_twicing/{name}" for name in names}


@pytest.mark.slow
def test_it_joins_generated_suites_as_an_extra_one(tree: Tree) -> None:
    asked = ("--suite", "digits-c", "--corruption", "vignette", "--limit", "8", "--device", "cpu", "--json")
    found = json.loads(tree.tool("corrupt", "--model", "deit", *asked))
    threats = [row["threat"] for row in found["rows"]]
    assert threats == ["clean", *(f"digits-c:vignette-{severity}" for severity in range(1, 6))]
    (figures,) = found["suites"]
    assert figures["mean_error"] is None  # which is over the suite's own fifteen
    assert list(figures["family_errors"]) == ["lens"]


@pytest.mark.slow
def test_one_row_holds_it_to_what_every_corruption_owes(tree: Tree) -> None:
    assert tree.passes("tests/engine/corruptions/test_properties.py", "-k", "vignette") >= 4
