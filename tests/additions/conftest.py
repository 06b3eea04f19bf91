"""A copy of the tree for each file of tests here."""

import pytest

from tests.additions.followed import Tree


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    return Tree(tmp_path_factory.mktemp("tree"))
