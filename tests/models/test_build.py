"""A spec becomes the model it describes, or a clear error."""

import argparse
import copy
import hashlib
import math
import socket
import time
from functools import partial

import huggingface_hub.constants
import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors import safe_open
from timm.data import resolve_data_config
from torch import nn

from robustbench_twicing.attention.convert import apply_twicing
from robustbench_twicing.catalog.locate import package_file
from robustbench_twicing.catalog.suites import suite
from robustbench_twicing.catalog.zoo import model_spec, model_specs, zoo
from robustbench_twicing.data.digits import digits
from robustbench_twicing.data.transforms import recipe_named
from robustbench_twicing.errors import UserError
from robustbench_twicing.models import build
from robustbench_twicing.models.build import load_model, new_network
from robustbench_twicing.models.preprocessing import preprocessing_of
from robustbench_twicing.spec.models import ModelSpec, Recipe
from tests.oracles.attention import ByHand

DIGITS = "deit_digits_patch8_32"


def has_test_settings(name: str) -> bool:
    """timm evaluates these weights otherwise than they were trained."""
    settings = timm.get_pretrained_cfg(name)
    return bool(settings.test_input_size or settings.test_crop_pct)


EMBEDDED = pytest.mark.parametrize(
    ("name", "attention"), [("deit", "softmax"), ("deit-tw", "twicing"), ("deit-tw-last3", "twicing@3,4,5")]
)


def spec(**settings) -> ModelSpec:
    return ModelSpec(**{"name": "mine", "architecture": DIGITS, "weights": "file:nowhere.pth", **settings})


# --- the embedded models -----------------------------------------------------------------------------------------


@EMBEDDED
def test_embedded_models_are_what_the_zoo_says(name, attention):
    model = load_model(model_spec(name, "digits"))
    card = model.card
    assert card.attention == attention
    assert (card.training_recipe, card.training_seed) == ("", 0)
    assert (card.blocks, card.parameters, card.classes, card.image_size) == (6, 314_186, 10, 32)
    assert card.recipes == (Recipe(), Recipe())
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert model.mean.flatten().tolist() == model.std.flatten().tolist() == [0.5, 0.5, 0.5]


@EMBEDDED
def test_embedded_models_read_digits(name, attention):
    data = digits()
    images = data.read(range(597), [Recipe()]).images[Recipe()]
    with torch.no_grad():
        predictions = load_model(model_spec(name, "digits"))(images).argmax(dim=1)
    correct = int((predictions == torch.tensor(data.labels)).sum())
    assert correct >= 0.96 * 597
    with safe_open(package_file(f"weights/{name}-digits.safetensors"), "pt") as file:
        claimed = file.metadata()["clean_accuracy"]
    # The file says what its training measured; another machine's rounding may flip a borderline image.
    assert abs(int(claimed.partition("(")[2].partition("/")[0]) - correct) <= 2


@EMBEDDED
def test_embedded_weights_are_small_and_say_where_they_are_from(name, attention):
    path = package_file(f"weights/{name}-digits.safetensors")
    assert path.stat().st_size <= 1.5e6
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        assert {file.get_tensor(key).dtype for key in file.keys()} == {torch.float32}  # noqa: SIM118
    assert metadata["architecture"] == DIGITS
    layers = metadata["twicing"]  # as the version that trained them wrote it
    assert {"none": "softmax", "all": "twicing"}.get(layers, f"twicing@{layers}") == str(zoo()[name].attention)
    assert metadata["command"] == f"twicing-bench train --data digits --model {name} --seed {metadata['seed']}"


def test_weights_hash_is_sha256_over_sorted_names_and_bytes():
    model = load_model(model_spec("deit", "digits"))
    digest = hashlib.sha256()
    for key, tensor in sorted(model.network.state_dict().items()):
        digest.update(key.encode() + tensor.numpy().tobytes())
    assert model.card.weights_hash == digest.hexdigest()[:12]


# --- files -------------------------------------------------------------------------------------------------------


def test_a_checkpoint_of_ones_own(tmp_path):
    network = new_network(DIGITS, seed=5)
    torch.save({"state_dict": network.state_dict(), "state_dict_ema": {}}, tmp_path / "mine.pth")
    model = load_model(spec(weights=f"file:{tmp_path / 'mine.pth'}", attention="twicing@0,4"))
    assert model.card.attention == "twicing@0,4"
    assert model.card.weights_note == "key state_dict (not read: state_dict_ema)"
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    expected = apply_twicing(network.eval(), (0, 4))((images - 0.5) / 0.5)
    # A loaded model computes its last block for the class token alone, which rounds otherwise: logits of about 0.1.
    torch.testing.assert_close(model(images), expected, rtol=0, atol=1e-6)


def test_the_same_weights_mean_another_model_with_twicing(tmp_path):
    """Nothing in a state dict says which attention it is for: only the spec does, and the card repeats it."""
    torch.save(new_network(DIGITS).state_dict(), tmp_path / "mine.pth")
    plain, twicing = (
        load_model(spec(weights=f"file:{tmp_path / 'mine.pth'}", attention=text)) for text in ("softmax", "twicing")
    )
    assert plain.card.weights_hash == twicing.card.weights_hash
    assert (plain.card.attention, twicing.card.attention) == ("softmax", "twicing")
    images = torch.rand(1, 3, 32, 32)
    assert not torch.equal(plain(images), twicing(images))


def test_a_checkpoint_of_another_architecture(tmp_path):
    torch.save(timm.create_model("deit_tiny_patch16_224", depth=1).state_dict(), tmp_path / "tiny.pth")
    with pytest.raises(UserError, match=r"60 missing .*of another shape \(cls_token"):
        load_model(spec(weights=f"file:{tmp_path / 'tiny.pth'}"))


def test_an_architecture_that_twices_where_the_spec_does_not(tmp_path):
    name = "deit_tiny_twicing_patch16_224"
    torch.save(timm.create_model(name).state_dict(), tmp_path / "tiny.pth")
    with pytest.raises(UserError, match="brings twicing attention of its own"):
        load_model(spec(architecture=name, weights=f"file:{tmp_path / 'tiny.pth'}"))


@pytest.mark.parametrize("claimed", ["softmax", "twicing@0,1,2,3,4", "twicing(0.5)@5"])
def test_blocks_that_compute_what_nobody_claims_are_refused(monkeypatch, tmp_path, claimed):
    """The last block's class is nobody's, so it stays as it is; the probe finds what it does."""
    network = new_network(DIGITS)
    network.blocks[5].attn = ByHand(network.blocks[5].attn, power=2, strength=0.75)
    torch.save(network.state_dict(), tmp_path / "mine.pth")
    monkeypatch.setattr(build, "new_network", lambda architecture, **settings: copy.deepcopy(network))
    with pytest.raises(UserError, match=r"twicing\(0\.75\)@5|unknown block blocks\.5 .*ByHand"):
        load_model(spec(weights=f"file:{tmp_path / 'mine.pth'}", attention=claimed))


def test_imagenet_models_bring_timms_preprocessing(tmp_path):
    torch.save(timm.create_model("deit_tiny_patch16_224").state_dict(), tmp_path / "tiny.pth")
    tagged = "deit_tiny_patch16_224.fb_in1k"
    model = load_model(spec(architecture=tagged, weights=f"file:{tmp_path / 'tiny.pth'}"))
    assert model.card.recipes.evaluated.id == "resize248-bicubic-crop224"  # timm's crop ratio for DeiT is 0.9
    assert model.card.prepared_as == f"timm's {tagged}"
    assert model.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert (model.card.classes, model.card.image_size, model.card.parameters) == (1000, 224, 5_717_416)


def test_a_file_of_deits_family_is_prepared_as_its_authors_do_and_says_so(tmp_path):
    """facebookresearch/deit evaluates at 224 / 0.875 = 256, timm's table of the same networks at 224 / 0.9."""
    torch.save(timm.create_model("deit_tiny_patch16_224").state_dict(), tmp_path / "tiny.pth")
    card = load_model(spec(architecture="deit_tiny_patch16_224", weights=f"file:{tmp_path / 'tiny.pth'}")).card
    assert {recipe.id for recipe in card.recipes} == {"resize256-bicubic-crop224"}
    for name in ("imagenet", "imagenet-a", "imagenet-r", "imagenet-o"):
        assert recipe_named("model", card.recipes, suite(name)).id == "resize256-bicubic-crop224"
    assert card.prepared_as == "facebookresearch/deit"
    note = "resize 256 as DeiT's authors evaluate; timm's 248 goes by the name deit_tiny_patch16_224.fb_in1k"
    assert card.weights_note == note


@pytest.mark.parametrize("name", [name for name in timm.list_pretrained() if has_test_settings(name)][::20])
def test_weights_are_evaluated_as_timm_evaluates_them(name):
    settings = timm.get_pretrained_cfg(name).to_dict()
    for use_test_size in (False, True):
        expected = resolve_data_config(pretrained_cfg=settings, use_test_size=use_test_size)
        found = preprocessing_of(spec(architecture=name, weights=f"timm:{name}"), settings).recipes[not use_test_size]
        size = expected["input_size"][-1]
        assert (found.crop, found.interpolation) == (size, expected["interpolation"])
        assert found.resize == math.floor(size / expected["crop_pct"])


def paper_checkpoint(weights: dict[str, torch.Tensor]) -> dict[str, object]:
    """What DeiT's main.py, and so the paper's code, saves: exactly these keys, `args` an argparse.Namespace."""
    network = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return {
        "model": weights,
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": {"base_values": [0.001], "t_in_epochs": True, "warmup_steps": [3e-5], "metric": None},
        "epoch": 299,
        "model_ema": {name: tensor + 0.01 for name, tensor in weights.items()},
        "scaler": torch.amp.GradScaler("cpu").state_dict(),
        "args": argparse.Namespace(model="deit_sharp_tiny_patch16_224", opt_betas=None, lr=5e-4, output_dir="out"),
    }


def deit_sharp_tiny_weights() -> dict[str, torch.Tensor]:
    """The tensors of the paper's deit_sharp_tiny_patch16_224: names and shapes written out, values random."""
    width = 192
    block = {"norm1": (width,), "attn.qkv": (3 * width, width), "attn.proj": (width, width), "norm2": (width,)}
    block |= {"mlp.fc1": (4 * width, width), "mlp.fc2": (width, 4 * width)}
    shapes = {"cls_token": (1, 1, width), "pos_embed": (1, 197, width)}
    modules = {"patch_embed.proj": (width, 3, 16, 16), "norm": (width,), "head": (1000, width)}
    modules |= {f"blocks.{number}.{name}": shape for number in range(12) for name, shape in block.items()}
    for name, shape in modules.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) * 0.1 for name, shape in shapes.items()}


def test_a_checkpoint_of_the_papers_code_loads_as_deit_tw_as_it_is(tmp_path):
    weights = deit_sharp_tiny_weights()
    torch.save(paper_checkpoint(weights), tmp_path / "checkpoint.pth")
    raw, ema = (
        load_model(spec).card
        for spec in model_specs(f"deit-tw={tmp_path / 'checkpoint.pth'}", "imagenet", weights="both")
    )
    assert (raw.attention, raw.blocks, raw.parameters) == ("twicing", 12, 5_717_416)
    assert raw.weights_note.startswith("key model (not read: model_ema); resize 256 as DeiT's authors evaluate")
    assert ema.weights_note.startswith("key model_ema (not read: model); ")
    assert raw.weights_hash != ema.weights_hash


# --- models without timm's attention -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv3_small_050"])
def test_models_without_attention_load_without_twicing(tmp_path, name):
    torch.save(new_network(name).state_dict(), tmp_path / "x.pth")
    model = load_model(model_spec(f"{name}={tmp_path / 'x.pth'}", "imagenet"))
    assert (model.card.attention, model.card.blocks) == ("", 0)
    assert model.card.weights_note.startswith("no attention block was probed")
    assert model(torch.zeros(1, 3, model.card.image_size, model.card.image_size)).shape == (1, 1000)
    with pytest.raises(UserError, match=r"no transformer blocks|unknown block"):
        load_model(spec(architecture=name, weights=f"file:{tmp_path / 'x.pth'}", attention="twicing"))


@pytest.mark.parametrize(
    ("name", "small"),
    [
        ("beit_base_patch16_224", {"depth": 1, "embed_dim": 24, "num_heads": 2}),
        ("swin_tiny_patch4_window7_224", {"depths": (1, 1), "embed_dim": 24, "num_heads": (1, 1)}),
    ],
)
def test_attention_that_is_not_timms_is_not_probed(monkeypatch, tmp_path, name, small):
    """BEiT has `blocks`, and in them an attention with a bias that no formula of ours has; Swin has no `blocks`."""
    torch.save(timm.create_model(name, **small).state_dict(), tmp_path / "x.pth")
    create = timm.create_model
    monkeypatch.setattr(build.timm, "create_model", lambda name: create(name, **small))
    card = load_model(model_spec(f"{name}={tmp_path / 'x.pth'}", "imagenet")).card
    assert (card.attention, card.blocks, card.weights_note) == ("", 0, "no attention block was probed")


# --- names, tags and sizes ---------------------------------------------------------------------------------------


def test_a_tag_says_which_preprocessing_a_file_has(tmp_path):
    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "x.pth")
    for tag, recipe, size in (
        ("a1_in1k", "resize288-bicubic-crop288", 288),
        ("tv_in1k", "resize256-bilinear-crop224", 224),
    ):
        card = load_model(model_spec(f"resnet18.{tag}={tmp_path / 'x.pth'}", "imagenet")).card
        assert card.recipes.evaluated.id == recipe
        assert card.image_size == size
        assert ("--recipe train-size" in card.weights_note) == (size == 288)
    with pytest.raises(UserError, match=r"no weights named .*unheard(.|\n)*resnet18\.a1_in1k"):
        load_model(model_spec(f"resnet18.unheard={tmp_path / 'x.pth'}", "imagenet"))


def test_plain_weights_with_twicing_are_called_a_drop_in(monkeypatch):
    monkeypatch.setattr(build.timm, "create_model", lambda name, pretrained: new_deit_tiny())
    card = load_model(model_spec("deit-tw=timm:deit_tiny_patch16_224", "imagenet")).card
    assert (card.spec.name, card.attention) == ("deit-tw@drop-in", "twicing")
    assert card.weights_note == "timm's default tag fb_in1k; drop-in: trained with softmax, run with twicing"
    plain = load_model(model_spec("deit=timm:deit_tiny_patch16_224", "imagenet")).card
    assert plain.weights_note == "timm's default tag fb_in1k"
    assert plain.attention == "softmax"


new_deit_tiny = partial(timm.create_model, "deit_tiny_patch16_224")


def test_another_crop_than_a_centre_crop_is_said(tmp_path):
    name = "convnext_atto_ols.a2_in1k"
    network = new_network(name)
    assert network.pretrained_cfg["crop_mode"] == "center"
    network.pretrained_cfg["crop_mode"] = "squash"
    torch.save(network.state_dict(), tmp_path / "x.pth")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "new_network", lambda architecture, classes: network)
        note = load_model(model_spec(f"{name}={tmp_path / 'x.pth'}", "imagenet")).card.weights_note
    assert "crop mode for this model is 'squash'; here it is a centre crop" in note


def test_position_embeddings_of_another_size_are_resampled_only_when_asked(tmp_path):
    larger = timm.create_model(DIGITS, img_size=48)  # 6 x 6 patches instead of 4 x 4
    torch.save({"model": larger.state_dict()}, tmp_path / "large.pth")
    weights = f"file:{tmp_path / 'large.pth'}"
    with pytest.raises(UserError, match=r"pos_embed \(1, 37, 64\) instead of \(1, 17, 64\)") as caught:
        load_model(spec(weights=weights))
    assert "--resample-pos-embed" in caught.value.hint
    model = load_model(spec(weights=weights, resample_pos_embed=True))
    assert model.card.weights_note == "key model; position embeddings resampled from 6 x 6 to 4 x 4"
    before, after = larger.pos_embed.detach()[0], model.network.pos_embed[0]
    assert torch.equal(after[0], before[0]), "the class token's embedding is not an image"
    grid = before[1:].T.reshape(64, 6, 6).numpy()
    # PIL's bicubic is the same filter (a = -0.5, widened when shrinking), in float32 as ours.
    resized = [np.asarray(Image.fromarray(channel).resize((4, 4), Image.Resampling.BICUBIC)) for channel in grid]
    np.testing.assert_allclose(after[1:].T.reshape(64, 4, 4).numpy(), resized, atol=1e-6)
    for name, tensor in larger.state_dict().items():
        assert name == "pos_embed" or torch.equal(model.network.state_dict()[name], tensor)


def test_asking_for_resampling_changes_nothing_where_sizes_agree(tmp_path):
    network = new_network(DIGITS, seed=3)
    torch.save(network.state_dict(), tmp_path / "x.pth")
    weights = f"file:{tmp_path / 'x.pth'}"
    cards = [load_model(spec(weights=weights, resample_pos_embed=asked)).card for asked in (False, True)]
    assert cards[0].weights_hash == cards[1].weights_hash
    assert cards[1].weights_note == ""


@pytest.mark.parametrize("name", [DIGITS, "resnet10t"])
def test_a_head_of_another_number_of_classes_makes_a_network_of_that_number(tmp_path, name):
    state = timm.create_model(name, num_classes=7).state_dict()
    torch.save(state, tmp_path / "x.pth")
    model = load_model(spec(architecture=name, weights=f"file:{tmp_path / 'x.pth'}"))
    assert model.card.classes == 7
    assert model.card.weights_note.startswith(
        f"7 classes, where the architecture has {10 if name == DIGITS else '1,000'}"
    )
    assert all(torch.equal(model.network.state_dict()[key], tensor) for key, tensor in state.items())
    assert model(torch.zeros(1, 3, model.card.image_size, model.card.image_size)).shape == (1, 7)


def test_a_head_of_no_plain_classes_is_no_other_number_of_classes(tmp_path):
    state = timm.create_model(DIGITS).state_dict()
    torch.save(state | {"head.weight": torch.ones(7, 64), "head.bias": torch.ones(8)}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"2 of another shape \(head\.weight"):
        load_model(spec(weights=f"file:{tmp_path / 'x.pth'}"))


def test_averaged_weights_that_a_file_does_not_have(tmp_path):
    torch.save({"model": new_network(DIGITS).state_dict()}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"no averaged(.|\n)*--weights raw"):
        load_model(spec(weights=f"file:{tmp_path / 'x.pth'}", prefer="ema"))


# --- errors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r"No checkpoint at nowhere\.pth"),
        ({"architecture": "deit_tiny_patch16_225"}, r"no architecture(.|\n)*deit_tiny_patch16_224"),
        ({"weights": "fiel:x.pth"}, r"Unknown source of weights 'fiel'(.|\n)*file"),
        ({"weights": "nowhere.pth"}, "Unknown source of weights"),
        ({"weights": "package:weights/none.safetensors"}, "No checkpoint at"),
        ({"weights": "package:weights/deit-digits.safetensors", "attention": "twicing@6"}, "No block 6"),
        ({"weights": "timm:deit_tiny_patch16_224.unheard_of"}, "no weights named"),
    ],
)
def test_specs_that_cannot_be_met(settings, message):
    with pytest.raises(UserError, match=message):
        load_model(spec(**settings))


@pytest.mark.parametrize("weights", ["timm:deit_tiny_patch16_224.fb_in1k", "hf-hub:timm/deit_tiny_patch16_224.fb_in1k"])
def test_no_network_is_a_clear_error_and_never_random_weights(weights, monkeypatch):
    def unreachable(*args, **settings):
        assert settings["pretrained"] is True
        raise ConnectionError("Name or service not known\nand much more")

    monkeypatch.setattr(build.timm, "create_model", unreachable)
    with pytest.raises(
        UserError, match="could not be downloaded: ConnectionError: Name or service not known"
    ) as caught:
        load_model(spec(architecture="deit_tiny_patch16_224", weights=weights))
    assert "--model mine=" in caught.value.hint
    assert "and much more" not in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "weights"),
    [
        (OSError("Temporary failure in name resolution"), "timm:resnet10t.c3_in1k"),
        (OSError("Temporary failure in name resolution"), "hf-hub:timm/resnet10t.c3_in1k"),
        (None, "timm:resnet10t.c3_in1k"),
    ],
    ids=["refused", "hub", "silent"],
)
def test_without_a_network_the_answer_comes_within_seconds(monkeypatch, tmp_path, answer, weights):
    """Not after the retries of Hugging Face's client, which take over a minute."""
    began, asked = time.monotonic(), []

    def connect(place, *args, **settings):
        asked.append(place)
        if answer:
            raise answer
        time.sleep(30)
        raise TimeoutError

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "https://huggingface.co")
    monkeypatch.setattr("urllib.request.getproxies", dict)
    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(UserError, match=r"could not be downloaded: .* \(huggingface.co cannot be reached\)"):
        load_model(spec(architecture="resnet10t", weights=weights))
    assert asked
    assert time.monotonic() - began < 10
    assert not huggingface_hub.constants.HF_HUB_OFFLINE
    assert socket.getdefaulttimeout() is None


def test_downloaded_weights_must_be_of_the_named_architecture(monkeypatch):
    downloaded = new_network(DIGITS)
    monkeypatch.setattr(build.timm, "create_model", lambda name, pretrained: downloaded)
    with pytest.raises(UserError, match=f"are of {DIGITS}, not of deit_tiny_patch16_224"):
        load_model(spec(architecture="deit_tiny_patch16_224", weights="timm:deit_tiny_patch16_224.fb_in1k"))


def test_loading_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    load_model(model_spec("deit-tw", "digits"))
    assert torch.equal(torch.get_rng_state(), before)
