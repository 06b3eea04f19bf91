"""Weights come in whole, from where they are said to, or not at all; and no file runs code."""

import argparse
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from robustbench_twicing.errors import UserError
from robustbench_twicing.models.checkpoints import load_weights, read_checkpoint, weights_hash


def network(width: int = 3) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(width)
        return nn.Sequential(nn.Linear(2, width), nn.Linear(width, 2))


WEIGHTS = network().state_dict()
AVERAGED = {name: tensor + 1 for name, tensor in WEIGHTS.items()}


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


# --- what is read ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".pth.tar", ".safetensors"])
def test_round_trip(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(dict(WEIGHTS), path)
    checkpoint = read_checkpoint(path)
    assert same(checkpoint.tensors, WEIGHTS)
    assert checkpoint.note == ""


def test_reads_the_format_of_torch_before_1_6(tmp_path):
    torch.save(dict(WEIGHTS), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert same(read_checkpoint(tmp_path / "old.pth").tensors, WEIGHTS)


@pytest.mark.parametrize(("raw", "ema"), [("model", "model_ema"), ("state_dict", "state_dict_ema")])
def test_a_training_checkpoint_says_which_weights_were_read(tmp_path, raw, ema):
    """As DeiT's and the twicing authors' scripts write them, with `args` as a Namespace."""
    content = {
        ema: AVERAGED,
        raw: WEIGHTS,
        "epoch": 299,
        "optimizer": {"state": {}},
        "args": argparse.Namespace(lr=0.1),
    }
    path = saved(tmp_path / "checkpoint.pth", content)
    by_default, averaged = read_checkpoint(path), read_checkpoint(path, prefer="ema")
    assert same(by_default.tensors, WEIGHTS)
    assert by_default.note == f"key {raw} (not read: {ema})"
    assert same(averaged.tensors, AVERAGED)
    assert averaged.note == f"key {ema} (not read: {raw})"


def test_only_averaged_weights_are_read_with_a_note(tmp_path):
    checkpoint = read_checkpoint(saved(tmp_path / "ema.pth", {"model_ema": AVERAGED}))
    assert same(checkpoint.tensors, AVERAGED)
    assert checkpoint.note == "key model_ema"


@pytest.mark.parametrize(
    ("says", "recipe", "seed"),
    [
        ({"twicing_bench": {"seed": 3, "training_recipe": "0f3a"}, "args": {"seed": 9}}, "0f3a", 3),
        ({"args": argparse.Namespace(seed=7)}, "", 7),  # DeiT's and the twicing authors' scripts
        ({"args": {"seed": 42, "lr": 0.1}}, "", 42),
        ({"args": argparse.Namespace(lr=0.1)}, "", -1),
        ({"args": {"seed": -5}, "epoch": 3}, "", -1),
        ({"twicing_bench": {"seed": 2**63, "training_recipe": "=cmd|x"}}, "", -1),
        ({"twicing_bench": "0f3a"}, "", -1),
        ({}, "", -1),
    ],
)
def test_what_a_training_checkpoint_states_of_its_training(tmp_path, says, recipe, seed):
    checkpoint = read_checkpoint(saved(tmp_path / "x.pth", {"model": WEIGHTS, **says}))
    assert (checkpoint.training_recipe, checkpoint.training_seed) == (recipe, seed)
    assert same(checkpoint.tensors, WEIGHTS)


def test_what_the_metadata_of_safetensors_states_of_the_training(tmp_path):
    save_file(dict(WEIGHTS), tmp_path / "x.safetensors", {"seed": "11", "training_recipe": "0123456789ab"})
    checkpoint = read_checkpoint(tmp_path / "x.safetensors")
    assert (checkpoint.training_recipe, checkpoint.training_seed) == ("0123456789ab", 11)


@pytest.mark.parametrize("content", [{"model": WEIGHTS}, WEIGHTS], ids=["training", "bare"])
def test_averaged_weights_that_are_not_there(tmp_path, content):
    with pytest.raises(UserError, match="no averaged"):
        read_checkpoint(saved(tmp_path / "raw.pth", content), prefer="ema")


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod."])
def test_prefixes_of_wrappers_are_removed(tmp_path, prefix):
    path = saved(tmp_path / "wrapped.pth", {"model": {prefix + name: tensor for name, tensor in WEIGHTS.items()}})
    assert same(read_checkpoint(path).tensors, WEIGHTS)


def test_the_same_key_with_and_without_prefix_is_refused(tmp_path):
    path = saved(tmp_path / "both.pth", {"0.bias": torch.ones(1), "module.0.bias": torch.zeros(1)})
    with pytest.raises(UserError, match="with and without"):
        read_checkpoint(path)


# --- what is refused ---------------------------------------------------------------------------------------------


class Harmful:
    """Unpickling it creates a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("how", ["torch", "torch_old", "pickle", "pickle_2"])
def test_a_pickle_that_would_run_code_is_not_unpickled(tmp_path, how):
    marker, path = tmp_path / "marker", tmp_path / "harmful.pth"
    content = {"model": WEIGHTS, "extra": Harmful(marker)} if how.startswith("torch") else {"extra": Harmful(marker)}
    if how.startswith("torch"):
        torch.save(content, path, _use_new_zipfile_serialization=how == "torch")
    else:
        path.write_bytes(pickle.dumps(content, protocol=2 if how == "pickle_2" else 4))
    with pytest.raises(UserError, match="not unpickled") as caught:
        read_checkpoint(path)
    assert not marker.exists()
    assert str(path) in caught.value.message
    assert "mkdir" in caught.value.message or how == "pickle"
    pickle.loads(pickle.dumps(Harmful(marker)))  # the file was as harmful as it claims
    assert marker.exists()


def test_a_whole_module_is_not_unpickled(tmp_path):
    with pytest.raises(UserError, match="Sequential, which could run code; it was not unpickled"):
        read_checkpoint(saved(tmp_path / "module.pth", network()))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kept", [0, 5, 60, 0.5, 0.99])
def test_truncated_files(tmp_path, suffix, kept):
    path = tmp_path / f"cut{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(dict(WEIGHTS), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    with pytest.raises(UserError, match="truncated or no checkpoint"):
        read_checkpoint(path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_files_that_are_something_else(tmp_path, suffix):
    for number, content in enumerate(
        [b"<!DOCTYPE html><html>Not found</html>", bytes(1000), b"PK\x03\x04" + bytes(99)]
    ):
        path = tmp_path / f"{number}{suffix}"
        path.write_bytes(content)
        with pytest.raises(UserError, match="truncated or no checkpoint"):
            read_checkpoint(path)


def test_missing_files_folders_and_other_endings(tmp_path):
    for path in (tmp_path / "nowhere.pth", tmp_path):
        with pytest.raises(UserError, match="No checkpoint at"):
            read_checkpoint(path)
    (tmp_path / "weights.npz").write_bytes(b"")
    with pytest.raises(UserError, match=r"weights\.npz"):
        read_checkpoint(tmp_path / "weights.npz")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.ones(3), "holds a Tensor, not weights"),
        ({"epoch": 3}, r"not tensors \(epoch\)"),
        ({"model": 3}, "key model, has no weights"),
        ({"model": {}}, "key model, has no weights"),
        ({"model": {"a": torch.ones(1), "b": 2, "c": "x"}}, r"2 things that are not tensors \(b, c\)"),
    ],
)
def test_files_without_weights(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        read_checkpoint(saved(tmp_path / "odd.pth", content))


# --- into a network ----------------------------------------------------------------------------------------------


def test_weights_are_copied_and_cast():
    target = network()
    load_weights(target, {name: tensor.half() for name, tensor in AVERAGED.items()}, "a file")
    for name, tensor in target.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, AVERAGED[name].half().float())


def test_a_mismatch_lists_every_kind_of_key_and_loads_nothing():
    tensors = dict(AVERAGED) | {f"extra.{number}": torch.ones(1) for number in range(9)}
    del tensors["0.bias"]
    tensors["1.weight"] = torch.ones(7, 7)
    target = network()
    with pytest.raises(UserError) as caught:
        load_weights(target, tensors, "weights.pth")
    message = caught.value.message
    assert "weights.pth does not fit Sequential: of 4 tensors" in message
    assert "1 missing (0.bias)" in message
    assert "9 unexpected (extra.0, extra.1, extra.2, ...)" in message
    assert "1 of another shape (1.weight (7, 7) instead of (2, 3))" in message
    assert same(target.state_dict(), WEIGHTS)


def test_weights_hash_follows_names_and_values_only():
    same_again, other = network(), network()
    with torch.no_grad():
        other[0].bias[0] = torch.nextafter(other[0].bias[0], torch.tensor(np.inf))
    assert weights_hash(same_again) == weights_hash(network())
    assert weights_hash(same_again) != weights_hash(other)
    assert weights_hash(same_again) != weights_hash(nn.ModuleDict({"a": network()[0], "b": network()[1]}))
    assert len(weights_hash(other)) == 12
