"""Arms are trained by one command, which goes on where it was interrupted."""

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from robustbench_twicing.catalog.recipes import training_recipe
from robustbench_twicing.cli.app import app
from robustbench_twicing.errors import UserError
from robustbench_twicing.train import several
from robustbench_twicing.train.several import Training, still_to_train, train_several


@pytest.mark.dear
def test_trainings_side_by_side_are_each_their_own(tmp_path):
    untrained = training_recipe("digits").model_copy(update={"epochs": 0})
    wanted = [Training(name, 1, tmp_path / f"{name}.safetensors", untrained) for name in ("deit", "deit+neutreno")]
    done = dict(train_several(wanted, at_once=2))
    assert set(done) == set(wanted)
    assert still_to_train(wanted) == []
    one, other = (load_file(training.path) for training in wanted)
    assert all(torch.equal(one[name], other[name]) for name in one)  # not trained yet: one seed, one beginning


def test_what_is_there_and_is_something_else_is_refused(tmp_path):
    file = tmp_path / "x.safetensors"
    file.write_bytes(b"no weights")
    with pytest.raises(UserError, match="is not deit trained with seed 0"):
        still_to_train([Training("deit", 0, file, training_recipe("digits"))])


@pytest.fixture
def trained(monkeypatch):
    """Which trainings were asked for; none is carried out."""
    asked = []
    monkeypatch.setattr(several, "train_several", lambda left, at_once: iter(asked.extend(left) or ()))
    return asked


def test_arms_of_seeds_are_asked_for_in_one_line(tmp_path, monkeypatch, trained):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["train", "--model", "deit", "--model", "deit+neutreno(0.6)", "--seeds", "0-2,5"])
    assert result.exit_code == 0, result.output
    assert [(one.model, one.seed) for one in trained[:3]] == [("deit", 0), ("deit+neutreno(0.6)", 0), ("deit", 1)]
    assert len(trained) == 8
    assert "--model 'deit+neutreno(0.6)@s5=seeds/deit+neutreno(0.6)-s5.safetensors'" in result.output
    ranged = CliRunner().invoke(app, ["train", "--model", "deit", "--seeds", "1-3", "--out", "here"])
    assert "--model 'deit@s1..s3=here/deit-s{seed}.safetensors'" in ranged.output


@pytest.mark.parametrize("seeds", ["x", "4-0", "0-1000", "", "1,,2", "-3"])
def test_what_are_no_seeds_is_refused(seeds, tmp_path, monkeypatch, trained):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["train", "--model", "deit", "--seeds", seeds])
    assert result.exit_code == 2
    assert trained == []
