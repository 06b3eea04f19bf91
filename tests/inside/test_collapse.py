"""`collapse`: what is seen is what is computed, nothing is changed by looking, and what cannot be measured is said."""

import csv
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import timm
import torch
from torch import nn
from typer.testing import CliRunner

from robustbench_twicing.attention.convert import apply_method
from robustbench_twicing.attention.paths import set_attention_path
from robustbench_twicing.catalog.zoo import model_spec
from robustbench_twicing.cli.app import app
from robustbench_twicing.data.digits import digits
from robustbench_twicing.engine.corruptions import corrupt
from robustbench_twicing.errors import UserError
from robustbench_twicing.inside.collapse import Given, Subject, collapse
from robustbench_twicing.inside.running import Running
from robustbench_twicing.inside.watch import Mixed, parts_of, transformer_in, watching
from robustbench_twicing.models.build import load_model
from robustbench_twicing.models.faster.last_block import read_tokens_only
from robustbench_twicing.report.collapse import collapse_page
from robustbench_twicing.spec.models import Recipe
from robustbench_twicing.spec.threats import ShiftThreat
from robustbench_twicing.tasks.images.inside import require_pixels
from tests.attention.small import images, small


def _looked(network: nn.Module, given: torch.Tensor | None = None) -> Any:
    given = images() if given is None else given
    return collapse([Subject("it", network, transformer_in(network))], [Given("clean", {"it": given})], "noise")


@pytest.mark.parametrize("path", ["plain timm", "explicit", "fused", "read"])
def test_outputs_are_bit_identical_while_somebody_looks_and_hooks_are_gone_afterwards(path: str) -> None:
    network = small()
    if path != "plain timm":
        apply_method(network, "twicing")
        set_attention_path(network, "explicit" if path == "read" else path)
    if path == "read":
        assert read_tokens_only(network)
    seen: list[torch.Tensor] = []
    with torch.no_grad():
        before = network(images())
    found = collapse([Subject("it", lambda x: seen.append(network(x)) or seen[0], network)], _clean(), "noise")
    assert torch.equal(seen[0], before)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in network.modules())
    assert [place.name for place in found.looked[0].places] == ["input", *(f"block {n}" for n in range(4))]
    assert found.looked[0].missing == ()
    assert (4, "similarity") in found.looked[0].figures  # also where only the class token is computed


def _clean() -> list[Given]:
    return [Given("clean", {"it": images()})]


def test_a_block_that_computes_the_class_token_only_has_the_same_figures() -> None:
    whole = _looked(small()).looked[0].figures
    network = small()
    read_tokens_only(network)
    cut = _looked(network).looked[0].figures
    assert cut.keys() == whole.keys()
    assert [cut[key].value for key in whole] == pytest.approx([whole[key].value for key in whole], rel=1e-4)


@pytest.mark.parametrize("method", ["softmax", "twicing(0.5)", "folded(3)", "temperature(0.5)"])
def test_the_operator_is_what_the_method_applies_to_the_values(method: str) -> None:
    network = apply_method(small(), method)
    held: dict[str, torch.Tensor] = {}
    attention: Any = network.blocks[1].attn  # type: ignore[index]
    attention.qkv.register_forward_hook(lambda module, args, out: held.update(qkv=out))
    attention.proj.register_forward_pre_hook(lambda module, args: held.update(mixed=args[0]))
    operators: list[torch.Tensor] = []

    def heard(seen: Any) -> None:
        if isinstance(seen, Mixed) and seen.place.name == "block 1":
            assert seen.operator is not None
            operators.append(seen.operator)

    with torch.no_grad(), watching(network, parts_of(network), heard):
        network(images())
    v = held["qkv"].chunk(3, -1)[2].unflatten(-1, (2, -1)).transpose(1, 2).double()
    torch.testing.assert_close((operators[0] @ v).transpose(1, 2).flatten(2).float(), held["mixed"])


def test_a_method_that_is_no_matrix_and_networks_without_attention_or_with_one_patch_say_what_is_missing() -> None:
    looked = _looked(apply_method(small(), "neutreno")).looked[0]
    assert (1, "operator_rank") in looked.figures  # in the first block it is softmax
    assert (2, "attention_rank") in looked.figures
    assert (2, "operator_rank") not in looked.figures
    assert "The method of block 1, block 2, block 3 is no matrix" in looked.missing[0]

    looked = _looked(timm.create_model("resnet10t", num_classes=5).eval(), torch.rand(2, 3, 64, 64)).looked[0]
    assert [place.name for place in looked.places][-1] == "layer4"
    assert {key for _, key in looked.figures} == {
        *("similarity", "distance", "high_frequency", "effective_rank", "stable_rank")
    }
    assert "no transformer blocks: figures of feature maps only" in looked.missing[0]

    looked = _looked(small(patch_size=32)).looked[0]
    assert {key for _, key in looked.figures if key.startswith(("sim", "dist", "eff"))} == set()
    assert (4, "class_similarity") in looked.figures
    assert "One patch in input" in looked.missing[0]


def test_modules_that_cannot_be_looked_into_are_refused_and_a_single_image_has_no_interval() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 30 * 30, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, of its way to trace
        traced = torch.jit.trace(network, images())
    with pytest.raises(UserError, match="scripted or traced"):
        _looked(traced)
    compiled = nn.Module()  # as torch.compile wraps a module
    compiled.add_module("_orig_mod", small())
    with pytest.raises(UserError, match="compiled, scripted or traced"):
        _looked(compiled)
    with pytest.raises(UserError, match="Nothing was seen inside"):
        _looked(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 2)))
    with pytest.raises(UserError, match="no image"):
        collapse([Subject("it", network, network)], [], "noise")
    found = _looked(network, images()[:1])
    assert found.looked[0].figures[0, "similarity"].low is None
    assert "An interval needs 2 images at least" in " ".join(line.text for line in collapse_page(found).parts[-2:])


def test_running_means_are_those_of_all_values_at_once() -> None:
    values = np.random.default_rng(0).normal(5, 2, size=37)
    running = Running()
    for part in np.split(np.append(values, np.nan), [3, 4, 20]):
        running.add(part)
    found = running.measured()
    assert found is not None
    theirs = scipy.stats.t.interval(0.95, 36, values.mean(), scipy.stats.sem(values))
    assert found.n == 37
    assert (found.value, found.low, found.high) == pytest.approx((values.mean(), *theirs))


def test_the_command_measures_pairs_and_writes_every_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    models = ["--model", "deit", "--model", "deit-tw"]
    files = [word for form in ("json", "csv", "html") for word in ("--to", f"it.{form}")]
    arguments = ["collapse", *models, "--limit", "12", "--attack", "fgsm", "--eps", "4/255", "--quiet", *files]
    arguments += ["--suite", "digits-c", "--corruption", "brightness", "--severity", "3"]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    facts = json.loads(Path("it.json").read_text())
    assert facts["images"] == 12
    values = {(row["model"], row["threat"], row["number"], row["figure"]): row["value"] for row in facts["figures"]}
    assert {threat for _, threat, _, _ in values} == {"clean", "fgsm-linf-4/255", "digits-c:brightness-3"}
    pictures, deit = digits().read(range(12), [Recipe()]).images[Recipe()], load_model(model_spec("deit", "digits"))
    brighter = corrupt(pictures, "brightness", 3, 0, digits().sample_ids[:12])
    subject = Subject("deit", deit, transformer_in(deit.network))
    for row in collapse_page(collapse([subject], [Given("brighter", {"deit": brighter})], "digits")).facts["figures"]:
        there = values["deit", "digits-c:brightness-3", row["number"], row["figure"]]
        assert there == pytest.approx(row["value"], rel=1e-4, abs=1e-6)
    differences = [row for row in facts["differences"] if row["figure"] == "similarity" and row["number"] == 6]
    assert [row["threat"] for row in differences] == ["clean", "digits-c:brightness-3", "fgsm-linf-4/255"]
    for row in differences:
        where = row["threat"], 6, "similarity"
        assert row["value"] == pytest.approx(values["deit-tw", *where] - values["deit", *where])
        assert row["low"] < row["value"] < row["high"]
        assert row["n"] == 12
    rows = list(csv.DictReader(Path("it.csv").read_text().splitlines()))
    assert len(rows) == len(facts["figures"]) + len(facts["differences"])
    page = Path("it.html").read_text()
    assert "similarity in % over behind block" in page
    refused = CliRunner().invoke(app, ["collapse", "-m", "deit", "-a", "pgd", "--protocol", "paper"])
    assert "normalised images" in refused.output
    with pytest.raises(UserError, match="imagenet-a has other pictures than the clean run"):
        require_pixels([ShiftThreat(suite="imagenet-a")])
