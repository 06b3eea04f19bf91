"""A spec becomes the model it describes, or a clear error."""

import hashlib

import pytest
import timm
import torch
from safetensors import safe_open
from torch import nn

from robustbench_twicing.catalog.locate import package_file
from robustbench_twicing.catalog.zoo import model_spec, zoo
from robustbench_twicing.data.digits import digits
from robustbench_twicing.errors import UserError
from robustbench_twicing.models import build
from robustbench_twicing.models.build import load_model, new_network, wrap_model
from robustbench_twicing.models.convert import apply_twicing
from robustbench_twicing.specs import ModelSpec, Recipe

DIGITS = "deit_digits_patch8_32"
EMBEDDED = pytest.mark.parametrize(
    ("name", "blocks"), [("deit", ()), ("deit-tw", (0, 1, 2, 3, 4, 5)), ("deit-tw-last3", (3, 4, 5))]
)


def spec(**settings) -> ModelSpec:
    return ModelSpec(**{"name": "mine", "architecture": DIGITS, "weights": "file:nowhere.pth", **settings})


# --- the embedded models -----------------------------------------------------------------------------------------


@EMBEDDED
def test_embedded_models_are_what_the_zoo_says(name, blocks):
    model = load_model(model_spec(name, "digits"))
    card = model.card
    assert card.twicing_blocks == blocks
    assert (card.blocks, card.parameters, card.classes, card.image_size) == (6, 314_186, 10, 32)
    assert card.recipe == Recipe()
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert model.mean.flatten().tolist() == model.std.flatten().tolist() == [0.5, 0.5, 0.5]


@EMBEDDED
def test_embedded_models_read_digits(name, blocks):
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
def test_embedded_weights_are_small_and_say_where_they_are_from(name, blocks):
    path = package_file(f"weights/{name}-digits.safetensors")
    assert path.stat().st_size <= 1.5e6
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        assert {file.get_tensor(key).dtype for key in file.keys()} == {torch.float32}  # noqa: SIM118
    assert metadata["architecture"] == DIGITS
    assert metadata["twicing"] == zoo()[name].twicing
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
    model = load_model(spec(weights=f"file:{tmp_path / 'mine.pth'}", twicing=(0, 4)))
    assert model.card.twicing_blocks == (0, 4)
    assert model.card.weights_note == "key state_dict (not read: state_dict_ema)"
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    expected = apply_twicing(network.eval(), (0, 4))((images - 0.5) / 0.5)
    torch.testing.assert_close(model(images), expected, rtol=0, atol=0)


def test_the_same_weights_mean_another_model_with_twicing(tmp_path):
    """Nothing in a state dict says which attention it is for: only the spec does, and the card repeats it."""
    torch.save(new_network(DIGITS).state_dict(), tmp_path / "mine.pth")
    plain, twicing = (
        load_model(spec(weights=f"file:{tmp_path / 'mine.pth'}", twicing=layers)) for layers in ("none", "all")
    )
    assert plain.card.weights_hash == twicing.card.weights_hash
    assert (plain.card.twicing, twicing.card.twicing) == ("none", "all")
    images = torch.rand(1, 3, 32, 32)
    assert not torch.equal(plain(images), twicing(images))


def test_a_checkpoint_of_another_architecture(tmp_path):
    torch.save(timm.create_model("deit_tiny_patch16_224", depth=1).state_dict(), tmp_path / "tiny.pth")
    with pytest.raises(UserError, match=r"60 missing .*of another shape \(cls_token"):
        load_model(spec(weights=f"file:{tmp_path / 'tiny.pth'}"))


def test_an_architecture_that_twices_where_the_spec_does_not(tmp_path):
    name = "deit_tiny_twicing_patch16_224"
    torch.save(timm.create_model(name).state_dict(), tmp_path / "tiny.pth")
    with pytest.raises(UserError, match=r"twicing in no block, but was found to be in blocks 0 1 2"):
        load_model(spec(architecture=name, weights=f"file:{tmp_path / 'tiny.pth'}"))


def test_imagenet_models_bring_timms_preprocessing(tmp_path):
    torch.save(timm.create_model("deit_tiny_patch16_224").state_dict(), tmp_path / "tiny.pth")
    model = load_model(spec(architecture="deit_tiny_patch16_224", weights=f"file:{tmp_path / 'tiny.pth'}"))
    assert model.card.recipe.id == "resize248-bicubic-crop224"  # timm's crop ratio for DeiT is 0.9
    assert model.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert (model.card.classes, model.card.image_size, model.card.parameters) == (1000, 224, 5_717_416)


# --- errors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r"No checkpoint at nowhere\.pth"),
        ({"architecture": "deit_tiny_patch16_225"}, r"no architecture(.|\n)*deit_tiny_patch16_224"),
        ({"weights": "fiel:x.pth"}, r"Unknown source of weights 'fiel'(.|\n)*file"),
        ({"weights": "nowhere.pth"}, "Unknown source of weights"),
        ({"weights": "package:weights/none.safetensors"}, "No checkpoint at"),
        ({"weights": "package:weights/deit-digits.safetensors", "twicing": (6,)}, "No block 6"),
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


def test_downloaded_weights_must_be_of_the_named_architecture(monkeypatch):
    downloaded = new_network(DIGITS)
    monkeypatch.setattr(build.timm, "create_model", lambda name, pretrained: downloaded)
    with pytest.raises(UserError, match=f"are of {DIGITS}, not of deit_tiny_patch16_224"):
        load_model(spec(architecture="deit_tiny_patch16_224", weights="timm:deit_tiny_patch16_224.fb_in1k"))


def test_loading_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    load_model(model_spec("deit-tw", "digits"))
    assert torch.equal(torch.get_rng_state(), before)


# --- a module of the caller's own --------------------------------------------------------------------------------


def test_wrapping_finds_the_transformer_inside():
    network = apply_twicing(new_network(DIGITS), (2,))
    model = wrap_model("mine", nn.Sequential(nn.Identity(), network), 32)
    assert model.card.spec.twicing == model.card.twicing_blocks == (2,)
    assert (model.card.classes, model.card.image_size, model.card.blocks) == (10, 32, 6)
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(model(images), network(images), rtol=0, atol=0)


def test_wrapping_takes_any_module_that_gives_logits():
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 7))
    swin = timm.create_model(
        "swin_tiny_patch4_window7_224", depths=(1, 1), embed_dim=24, num_heads=(1, 1), num_classes=7
    )
    for module, size in ((pooled, 32), (swin, 224)):
        card = wrap_model("mine", module, size).card
        assert (card.classes, card.image_size, card.twicing) == (7, size, "none")
        assert card.spec.architecture == type(module).__name__


@pytest.mark.parametrize("module", [nn.Linear(5, 2), nn.Identity()], ids=["no_images", "no_logits"])
def test_wrapping_refuses_what_gives_no_logits(module):
    with pytest.raises(UserError, match="Model 'mine'"):
        wrap_model("mine", module, 32)
