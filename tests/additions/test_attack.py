"""docs/add-an-attack.md: an algorithm of one's own."""

import pytest

from tests.additions.followed import Tree, blocks

ATTACK = ["attack", "--model", "deit", "--protocol", "mine.toml", "--eps", "16/255", "--limit", "2"]


@pytest.fixture(scope="module")
def tree(copied: Tree) -> Tree:
    page = "add-an-attack.md"
    *code, attack, in_test, row_of_test = blocks(page, "A new algorithm")
    copied.follow(*code, in_test, row_of_test)
    rules = blocks(page, "The same algorithm")[0].shown.split("[attacks.pgd]")[0].replace('["pgd"]', '["corners"]')
    (copied.root / "mine.toml").write_text(rules + attack.shown, encoding="utf-8")
    return copied


def test_it_takes_five_files(tree: Tree) -> None:
    package = ("spec/attacks.py", "engine/corners.py", "engine/algorithms.py")
    files = {f"robustbench_twicing/{name}" for name in package}
    assert tree.touched == files | {"mine.toml", "tests/engine/test_properties.py"}


@pytest.mark.slow
def test_it_attacks_and_the_report_says_how(tree: Tree) -> None:
    said = tree.tool(*ATTACK, "--device", "cpu", "--out", "run")
    assert "corners 50 random corners" in said
    assert "corners-linf-16/255" in said


@pytest.mark.slow
def test_torchattacks_refuses_it_by_name(tree: Tree) -> None:
    run = tree.run("robustbench_twicing", *ATTACK, "--engine", "torchattacks")
    assert run.returncode == 2
    assert "no counterpart of the algorithm 'corners'" in run.stderr + run.stdout


@pytest.mark.slow
def test_one_row_holds_it_to_what_every_algorithm_owes(tree: Tree) -> None:
    assert tree.passes("tests/engine/test_properties.py", "-k", "corners or covered") > 5
