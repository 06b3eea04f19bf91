"""docs/add-a-suite.md: images of one's own, checked, attacked and corrupted by the commands that the page shows."""

import re
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from tests.additions.followed import Tree, blocks
from tests.imagenet_trees import picture_of

NAMES = ("cat", "dog")


@pytest.fixture(scope="module")
def tree(copied: Tree, tmp_path_factory: pytest.TempPathFactory) -> Tree:
    pets = tmp_path_factory.mktemp("data") / "pets"
    for label, name in enumerate(NAMES):
        (pets / name).mkdir(parents=True)
        for number in range(2):
            picture_of(label, 10 * label + number, (80, 60)).save(pets / name / f"{number}.png")
    for block in blocks("add-a-suite.md", "Images of your own, described"):
        shown = block.shown.replace("/data/pets", str(pets))
        if "layout" in shown:
            (name,) = re.findall(r"^# ([\w-]+\.toml)", shown, re.MULTILINE) or re.findall(r"`(pets\.toml)`", block.said)
            (copied.root / name).write_text(shown, encoding="utf-8")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = timm.create_model("vit_tiny_patch16_224", num_classes=len(NAMES))
    save_file(network.state_dict(), copied.root / "pets.safetensors")
    return copied


def commands(pets: Path) -> list[list[str]]:
    shown = [block.shown for block in blocks("add-a-suite.md", "Images of your own, described")]
    found = re.findall(r"^twicing-bench (.*)", "\n".join(shown), re.MULTILINE)
    return [command.replace("/data/pets", str(pets)).split() for command in found]


def test_it_takes_one_file_for_each_suite(tree: Tree) -> None:
    assert tree.touched == {"pets.toml", "pets-c.toml"}


@pytest.mark.dear
@pytest.mark.slow
def test_the_commands_of_the_page_check_attack_and_corrupt_it(tree: Tree) -> None:
    (place,) = re.findall(r'directory = "(.*)"', (tree.root / "pets.toml").read_text())
    check, attack, corrupt = commands(Path(place))
    assert "4" in tree.tool(*check)
    some = ("--limit", "2", "--device", "cpu")
    assert "pgd-linf-1/255" in tree.tool(*attack, *some)
    assert "fog" in tree.tool(*corrupt, *some, "--corruption", "fog", "--severity", "3")
