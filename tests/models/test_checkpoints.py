"""Weights come in whole, from where they are said to, or not at all; and no file runs code."""

import argparse
import collections
import datetime as dt
import gzip
import io
import os
import pathlib
import pickle
import tarfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from robustbench_twicing.errors import UserError
from robustbench_twicing.models.checkpoints import Checkpoint, read_checkpoint
from robustbench_twicing.models.fit import fitted
from robustbench_twicing.models.identity import weights_hash


def network(width: int = 3, classes: int | None = None) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(width)
        return nn.Sequential(nn.Linear(2, width), nn.Linear(width, 2))


WEIGHTS = network().state_dict()
AVERAGED = {name: tensor + 1 for name, tensor in WEIGHTS.items()}


def saved(path: Path, content: object, **how) -> Path:
    torch.save(content, path, **how)
    return path


def same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def fits(tensors: dict[str, torch.Tensor], like: nn.Module | None = None, **how) -> tuple[nn.Module, str]:
    """The network that these tensors make, and what is said of them."""
    return fitted(lambda classes: like or network(), Checkpoint(tensors, "", **how), "a file")


def loaded(path: Path, prefer: str = "raw") -> tuple[dict[str, torch.Tensor], str]:
    """What a file puts into the small network, and what is said of it."""
    found, note = fitted(lambda classes: network(), read_checkpoint(path, prefer), str(path))
    return found.state_dict(), note


# --- what is read ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".pth", ".pt", ".bin", ".pth.tar", ".safetensors", ".model", ""])
@pytest.mark.parametrize("safe", [False, True], ids=["torch", "safetensors"])
def test_a_file_is_read_by_its_content_whatever_it_is_called(tmp_path, ending, safe):
    path = tmp_path / f"weights{ending}"
    (save_file if safe else torch.save)(dict(WEIGHTS), path)
    checkpoint = read_checkpoint(path)
    assert same(checkpoint.tensors, WEIGHTS)
    assert checkpoint.note == ""


def test_reads_the_format_of_torch_before_1_6(tmp_path):
    path = saved(tmp_path / "old.pth", dict(WEIGHTS), _use_new_zipfile_serialization=False)
    assert same(read_checkpoint(path).tensors, WEIGHTS)


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


@pytest.mark.parametrize(
    "content",
    [{"model": WEIGHTS}, WEIGHTS, {"net": WEIGHTS, "ema_decay": 0.9}],
    ids=["training", "bare", "only called so"],
)
def test_averaged_weights_that_are_not_there(tmp_path, content):
    with pytest.raises(UserError, match="no averaged"):
        loaded(saved(tmp_path / "raw.pth", content), prefer="ema")


class Settings(dict):
    """Stands for EasyDict: a class of dictionaries that is not installed where the file is read."""


Settings.__module__, Settings.__qualname__ = "easydict", "EasyDict"

HARMLESS = {
    "numbers": [3, 0.5, 2**70, True, None, "text", b"bytes", 1j],
    "containers": (1, [2], {3}, {"a": {"b": []}}, collections.OrderedDict(a=1)),
    "classes": (int, float, dict),
    "default": collections.defaultdict(dict, a=1),
    "counter": collections.Counter("aab"),
    "queue": collections.deque([1, 2]),
    "namespace": argparse.Namespace(lr=0.1, out=pathlib.PurePosixPath("out")),
    "numpy": [np.float64(0.5), np.int64(3), np.arange(3), np.dtype("float32")],
    "time": [dt.datetime(2024, 1, 1, tzinfo=dt.UTC), dt.timedelta(1)],
    "torch": [torch.Size([1, 2]), torch.float16, torch.device("cpu"), torch.__version__],
    "random": [torch.get_rng_state(), np.random.RandomState(0).get_state()],
}


@pytest.mark.parametrize("old", [False, True], ids=["zip", "before 1.6"])
@pytest.mark.parametrize("kind", [*HARMLESS, "all"])
def test_what_is_harmless_beside_weights_does_not_stop_them(tmp_path, kind, old):
    beside = HARMLESS if kind == "all" else {kind: HARMLESS[kind]}
    content = {"state_dict": WEIGHTS, **beside}
    path = saved(tmp_path / "x.pth", content, _use_new_zipfile_serialization=not old)
    assert same(loaded(path)[0], WEIGHTS)
    inside = saved(tmp_path / "y.pth", {**WEIGHTS, **beside}, _use_new_zipfile_serialization=not old)
    if "random" not in beside:
        assert same(loaded(inside)[0], WEIGHTS)


def test_settings_of_a_library_that_is_not_here_do_not_stop_the_weights(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "easydict", argparse.Namespace(EasyDict=Settings))
    path = saved(tmp_path / "x.pth", {"model": WEIGHTS, "args": Settings(lr=0.1)})
    monkeypatch.undo()
    assert same(loaded(path)[0], WEIGHTS)


def test_reading_leaves_what_torch_takes_for_safe_as_it_was(tmp_path):
    before = set(torch.serialization.get_safe_globals())
    read_checkpoint(saved(tmp_path / "x.pth", {"model": WEIGHTS, "args": argparse.Namespace()}))
    assert set(torch.serialization.get_safe_globals()) == before


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
    assert "mkdir" in caught.value.message or how.startswith("pickle")
    pickle.loads(pickle.dumps(Harmful(marker)))  # the file was as harmful as it claims
    assert marker.exists()


def test_a_whole_module_is_not_unpickled(tmp_path):
    with pytest.raises(UserError, match="Sequential, which could run code; it was not unpickled"):
        read_checkpoint(saved(tmp_path / "module.pth", network()))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kept", [1, 5, 60, 0.5, 0.99])
def test_truncated_files(tmp_path, suffix, kept):
    path = tmp_path / f"cut{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(dict(WEIGHTS), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    with pytest.raises(UserError, match=r"truncated or no checkpoint|it is a text file"):
        read_checkpoint(path)


def _zipped(names: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in names.items():
            archive.writestr(name, data)
    return content.getvalue()


def _tar() -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("weights.pth"))
    return content.getvalue()


def _npy() -> bytes:
    content = io.BytesIO()
    np.save(content, np.ones(3))
    return content.getvalue()


OTHERS = {
    "git-lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 22\n",
    "git-annex pointer": b"/annex/objects/SHA256E-s22--aa.pth\n",
    "HTML page": b"\r\n<!DOCTYPE html><html><head><title>404</title></head></html>",
    "XML document": b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
    r"text file \(JSON\)": b'{"error": "Repository not found"}',
    "list of a checkpoint's pieces": b'{"metadata": {}, "weight_map": {"a": "model-00001-of-00002.safetensors"}}',
    'text file that begins with "Not found"': b"Not found\n",
    "compressed by gzip": gzip.compress(b"weights"),
    "tar archive": _tar(),
    "numpy array": _npy(),
    "archive of numpy arrays": _zipped({"a.npy": _npy()}),
    r"zip archive that torch.save did not write; it holds a/weights.pth": _zipped({"a/weights.pth": b""}),
    "TorchScript program": _zipped({"m/constants.pkl": b"", "m/code/x.py": b"", "m/data.pkl": b""}),
    "HDF5 file": b"\x89HDF\r\n\x1a\n" + bytes(99),
    "ONNX program": b"\x08\x07\x12\x07pytorch\x1a\x032.0" + bytes(99),
    "GGUF file": b"GGUF" + bytes(99),
    "empty file": b"",
    "begins with zeros": bytes(1000),
    "the list of its contents": b"PK\x03\x04" + bytes(99),
    "begins with the bytes ff": b"\xff\x00\x01\x02" * 40,
}


@pytest.mark.parametrize("name", ["x.pth", "x.safetensors", "x.bin", "x.ckpt"])
@pytest.mark.parametrize("what", OTHERS)
def test_what_is_no_checkpoint_is_called_what_it_is(tmp_path, what, name):
    path = tmp_path / name
    path.write_bytes(OTHERS[what])
    with pytest.raises(UserError, match=what) as caught:
        read_checkpoint(path)
    assert caught.value.hint
    assert "weights_only" not in str(caught.value)


@given(
    st.binary(max_size=300),
    st.sampled_from([b"", b"PK\x03\x04", b"\x80\x02", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."]),
)
@settings(max_examples=100, deadline=None)
def test_any_bytes_end_in_a_message_without_advice_against_our_own_rule(tmp_path_factory, content, start):
    path = tmp_path_factory.mktemp("any") / "x.pth"
    path.write_bytes(start + content)
    with pytest.raises(UserError) as caught:
        read_checkpoint(path)
    assert "weights_only" not in str(caught.value)
    assert str(caught.value).isprintable() or "\n" in str(caught.value)


@given(st.integers(0, 10_000), st.integers(0, 255), st.booleans())
@example(441, 141, True).via("a text of 2^60 characters")
@example(71, 150, True).via("an array of as many bytes")
@settings(max_examples=100, deadline=None)
def test_a_changed_byte_ends_in_weights_or_in_a_message(tmp_path_factory, place, value, old):
    path = saved(tmp_path_factory.mktemp("byte") / "x.pth", dict(WEIGHTS), _use_new_zipfile_serialization=not old)
    content = bytearray(path.read_bytes())
    content[place % len(content)] = value
    path.write_bytes(content)
    try:
        loaded(path)
    except UserError as error:
        assert "weights_only" not in str(error)  # noqa: PT017


def test_a_pickle_protocol_that_cannot_be_read_is_named(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = saved(tmp_path / "x.pth", dict(WEIGHTS), pickle_protocol=4)
    with pytest.raises(UserError, match="pickle protocol 4"):
        read_checkpoint(path)


def test_missing_files_folders_and_links_that_lead_nowhere(tmp_path):
    with pytest.raises(UserError, match="No checkpoint at"):
        read_checkpoint(tmp_path / "nowhere.pth")
    with pytest.raises(UserError, match="it is a folder, and no checkpoint is in it"):
        read_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(UserError, match=r"it is a folder(.|\n)*model\.safetensors"):
        read_checkpoint(tmp_path)
    (tmp_path / "link.pth").symlink_to(tmp_path / "gone")
    with pytest.raises(UserError, match="the link leads nowhere"):
        read_checkpoint(tmp_path / "link.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.ones(3), "holds a Tensor, not weights"),
        ({"epoch": 3}, r"holds epoch, which are not tensors"),
        ({"model": 3}, "key model, has no weights"),
        ({"model": {}}, "key model, has no weights"),
        ({"model": {"a": np.ones(3)}}, r"a \(numpy\)(.|\n)*torch\.from_numpy"),
    ],
)
def test_files_without_weights(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        read_checkpoint(saved(tmp_path / "odd.pth", content))


# --- into a network: names ---------------------------------------------------------------------------------------


def test_weights_are_copied_and_cast():
    found, note = fits({name: tensor.half() for name, tensor in AVERAGED.items()})
    assert note == ""
    for name, tensor in found.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, AVERAGED[name].half().float())


PARTS = st.lists(st.sampled_from(["module", "_orig_mod", "model", "net", "0", "backbone"]), min_size=1, max_size=3)


@given(PARTS, st.booleans())
@settings(max_examples=50, deadline=None)
def test_one_common_prefix_is_removed_and_said(parts, beside):
    prefix = ".".join(parts) + "."
    tensors = {prefix + name: tensor for name, tensor in WEIGHTS.items()}
    extra = {"criterion.weight": torch.ones(2)} if beside else {}
    found, note = fits(tensors | extra)
    assert same(found.state_dict(), WEIGHTS)
    assert all(part in note for part in parts)
    assert not beside or "criterion.weight" in note


def test_wrappers_in_the_middle_of_names_are_removed():
    """As VGG has it whose features alone were put into DataParallel, and a block that was compiled by itself."""
    found, note = fits({name.replace(".", ".module._orig_mod."): tensor for name, tensor in WEIGHTS.items()})
    assert same(found.state_dict(), WEIGHTS)
    assert note == "module and _orig_mod removed from the names"


def test_a_lightning_checkpoint_is_read_and_its_prefix_said(tmp_path):
    state = {f"model.{name}": tensor for name, tensor in WEIGHTS.items()}
    path = saved(tmp_path / "pl.ckpt", {"epoch": 3, "state_dict": state})
    weights, note = loaded(path)
    assert same(weights, WEIGHTS)
    assert note == "key state_dict; prefix model. removed"


@pytest.mark.parametrize("key", ["net", "model_state_dict", "params", "weights"])
def test_weights_under_any_one_key_are_found(tmp_path, key):
    optimizer = torch.optim.Adam(network().parameters()).state_dict()
    weights, note = loaded(saved(tmp_path / "x.pth", {key: WEIGHTS, "acc": 93.1, "optimizer": optimizer}))
    assert same(weights, WEIGHTS)
    assert key in note


def test_the_average_beside_the_weights_is_told_by_its_prefix(tmp_path):
    state = {f"model.{name}": tensor for name, tensor in WEIGHTS.items()}
    state |= {f"model_ema.module.{name}": tensor for name, tensor in AVERAGED.items()}
    path = saved(tmp_path / "pl.ckpt", {"state_dict": state})
    assert same(loaded(path)[0], WEIGHTS)
    assert same(loaded(path, "ema")[0], AVERAGED)
    assert "prefix model_ema.module. removed" in loaded(path, "ema")[1]


def test_two_networks_in_one_file_are_refused_unless_they_are_equal():
    student = {f"student.{name}": tensor for name, tensor in WEIGHTS.items()}
    teacher = {f"teacher.{name}": tensor for name, tensor in AVERAGED.items()}
    with pytest.raises(UserError, match=r"holds several networks: student\., teacher\."):
        fits(student | teacher)
    again = {f"attacker.model.{name}": tensor for name, tensor in WEIGHTS.items()}
    assert same(fits(student | again)[0].state_dict(), WEIGHTS)


def test_the_same_key_with_and_without_prefix_is_refused():
    with pytest.raises(UserError, match="twice, with and without"):
        fits({"0.bias": torch.ones(1), "module.0.bias": torch.zeros(1)})


def test_buffers_that_no_training_decides_may_be_missing_or_extra():
    state = timm.create_model("resnet10t").state_dict()
    bare = {name: tensor for name, tensor in state.items() if "num_batches" not in name}
    target = timm.create_model("resnet10t")
    found, note = fits(bare | {"conv1.total_ops": torch.zeros(1), "fc.total_params": torch.zeros(1)}, target)
    assert same({name: found.state_dict()[name] for name in bare}, bare)
    assert note == "16 buffers that no training decides left as they are (num_batches_tracked, total_ops, total_params)"


def test_statistics_of_training_may_not_be_missing():
    state = timm.create_model("resnet10t").state_dict()
    with pytest.raises(UserError, match=r"12 missing \(conv1\.1\.running_mean|24 missing|missing \(.*running_"):
        fits({name: tensor for name, tensor in state.items() if "running_" not in name}, timm.create_model("resnet10t"))


def test_names_of_the_authors_are_converted_as_timm_converts_them():
    """Microsoft's files of Swin halve the picture at the end of a stage, and hold indices that timm computes."""
    small = {"depths": (1, 1), "embed_dim": 24, "num_heads": (1, 1)}
    state = timm.create_model("swin_tiny_patch4_window7_224", **small).state_dict()
    old = {name.replace("head.fc.", "head."): tensor for name, tensor in state.items()}
    old = {name.replace("layers.1.downsample", "layers.0.downsample"): tensor for name, tensor in old.items()}
    old["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(49, 49, dtype=torch.int64)
    found, note = fits(old, timm.create_model("swin_tiny_patch4_window7_224", **small))
    assert same(found.state_dict(), state)
    assert "timm's checkpoint_filter_fn" in note


# --- into a network: why not -------------------------------------------------------------------------------------


def test_a_mismatch_lists_every_kind_of_key_and_loads_nothing():
    tensors = dict(AVERAGED) | {f"extra.{number}": torch.ones(1) for number in range(9)}
    del tensors["0.bias"]
    tensors["1.weight"] = torch.ones(7, 7)
    target = network()
    with pytest.raises(UserError) as caught:
        fits(tensors, target)
    message = caught.value.message
    assert "a file does not fit Sequential: of 4 tensors" in message
    assert "1 missing (0.bias)" in message
    assert "9 unexpected (extra.0, extra.1, extra.2, ...)" in message
    assert "1 of another shape (1.weight (7, 7) instead of (2, 3))" in message
    assert same(target.state_dict(), WEIGHTS)


def test_the_same_shapes_under_other_names_are_said_to_be_so():
    with pytest.raises(
        UserError, match=r"same shapes come in the same order under other names \(a\.w in the file, 0\.w"
    ):
        fits(dict(zip(["a.w", "a.b", "z.w", "z.b"], WEIGHTS.values(), strict=True)))


def test_the_same_shapes_in_the_order_of_the_alphabet_are_no_other_architecture():
    """Safetensors sort their names, so that a block of another name comes at another place."""
    target = timm.create_model("vit_tiny_patch16_224", depth=2, embed_dim=24, num_heads=2)
    state = {name.replace("blocks.", "layers."): tensor for name, tensor in sorted(target.state_dict().items())}
    with pytest.raises(UserError, match=r"same shapes come under other names \(layers\.0\.attn") as caught:
        fits(state, target)
    assert "another architecture" not in str(caught.value)


def test_a_file_without_a_head_is_said_to_have_none():
    target = timm.create_model("resnet10t")
    state = {name: tensor for name, tensor in target.state_dict().items() if not name.startswith("fc.")}
    with pytest.raises(UserError, match=r"It has no classifier \(fc\.weight, fc\.bias\)"):
        fits(state, target)


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        (lambda t: t.to_sparse(), "sparse tensors instead of plain weights: 0.weight"),
        (lambda t: t.to("meta"), "tensors without values"),
        (lambda t: torch.complex(t, t), "complex tensors"),
        (lambda t: (100 * t).to(torch.int8), r"whole numbers \(torch.int8\)"),
        (lambda t: torch.nested.nested_tensor([t]), "nested tensors"),
    ],
    ids=["sparse", "meta", "complex", "int8", "nested"],
)
def test_tensors_that_are_no_plain_weights_are_refused_by_name(tmp_path, odd, message):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = saved(tmp_path / "x.pth", {name: odd(tensor) for name, tensor in WEIGHTS.items()})
        with pytest.raises(UserError, match=message):
            loaded(path)


@pytest.mark.filterwarnings("ignore")
def test_quantised_weights_are_refused_by_name(tmp_path):
    state = {name: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8) for name, tensor in WEIGHTS.items()}
    with pytest.raises(UserError, match=r"quantised tensors \(qint8\)"):
        loaded(saved(tmp_path / "x.pth", state))


def test_weights_hash_follows_names_and_values_only():
    same_again, other = network(), network()
    with torch.no_grad():
        other[0].bias[0] = torch.nextafter(other[0].bias[0], torch.tensor(np.inf))
    assert weights_hash(same_again) == weights_hash(network())
    assert weights_hash(same_again) != weights_hash(other)
    assert weights_hash(same_again) != weights_hash(nn.ModuleDict({"a": network()[0], "b": network()[1]}))
    assert len(weights_hash(other)) == 12
