"""docs/add-a-method.md: a method of attention of one's own."""

import pandas as pd
import pytest

from tests.additions.followed import Tree, blocks

PAGE = "add-a-method.md"


@pytest.fixture(scope="module")
def tree(copied: Tree) -> Tree:
    copied.follow(*blocks(PAGE, "The row"), *blocks(PAGE, "The test"))
    return copied


def test_it_takes_one_file_and_its_test(tree: Tree) -> None:
    assert tree.touched == {"robustbench_twicing/attention/methods.py", "tests/attention/test_lazy.py"}


@pytest.mark.slow
def test_it_is_attacked_beside_the_others_and_the_probe_finds_it(tree: Tree) -> None:
    models = ("--model", "deit", "--model", "deit+lazy(0.25)@last3")
    tree.tool("attack", *models, "--attack", "fgsm", "--limit", "4", "--device", "cpu", "--out", "run")
    records = pd.concat(map(pd.read_parquet, (tree.root / "run").rglob("*.parquet")))
    assert set(records["attention"]) == {"softmax", "lazy(0.25)@3,4,5"}
    assert "((1 - stay) A + stay I)V" in tree.tool("catalog", "show", "lazy")


@pytest.mark.slow
def test_a_number_that_it_does_not_take_is_refused(tree: Tree) -> None:
    run = tree.run("robustbench_twicing", "attack", "--model", "deit+lazy(1)", "--data", "digits")
    assert run.returncode == 2
    assert "from 0.1 to 0.9 in steps of 0.01" in " ".join((run.stderr + run.stdout).split())


@pytest.mark.dear
@pytest.mark.slow
def test_one_row_holds_it_to_what_every_method_owes(tree: Tree) -> None:
    asked = ("tests/attention/test_methods.py", "tests/attention/test_lazy.py", "-k", "lazy and not gradient")
    assert tree.passes(*asked) > 5
