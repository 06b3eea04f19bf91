"""A user's own model comes in however it is wrapped, or a message says why not; and nothing escapes from its code."""

import functools
import json
from inspect import signature
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import timm
import torch
import torchattacks
from torch import nn
from typer.testing import CliRunner

from robustbench_twicing.api import evaluate
from robustbench_twicing.attention.convert import apply_twicing
from robustbench_twicing.catalog.in_python import stated_in_python
from robustbench_twicing.cli.app import app
from robustbench_twicing.errors import UserError
from robustbench_twicing.models.build import new_network
from robustbench_twicing.models.intake import wrap_model
from tests.engine.tiny import small_net

DIGITS = "deit_digits_patch8_32"
IMAGES = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
NET = small_net()


class Around(nn.Module):
    """The small network with something done to what comes out."""

    def __init__(self, change=lambda logits: logits) -> None:
        super().__init__()
        self.net, self.change = small_net(), change

    def forward(self, images):
        return self.change(self.net(images))


class Silent(Around):
    def train(self, mode=True):
        super().train(mode)


class NoMode(Around):
    def train(self):
        raise AssertionError("never called without a mode")


class Other:
    """Holds a module, and is none."""

    def __init__(self) -> None:
        self.model = small_net()

    def __call__(self, images):
        return self.model(images)

    def predict(self, images):
        return self.model(images)


def closure():
    net = small_net()
    return lambda images: net(images)


class Named(NamedTuple):
    logits: torch.Tensor
    features: torch.Tensor


READ = {
    "a module": lambda: small_net(),
    "train() that returns nothing": Silent,
    "train() without a mode": NoMode,
    "an array": lambda: Around(lambda logits: logits.detach().numpy()),
    "a function": lambda: lambda images: NET(images),
    "a closure": closure,
    "a method": lambda: Other().predict,
    "forward": lambda: small_net().forward,
    "an object": Other,
    "partial": lambda: functools.partial(lambda net, images: net(images), small_net()),
    "DataParallel": lambda: nn.DataParallel(small_net()),
    "torch.compile": lambda: torch.compile(small_net(), backend="eager"),
    "a compiled function": lambda: torch.compile(lambda images: NET(images), backend="eager"),
    "TorchScript": lambda: torch.jit.trace(small_net(), IMAGES, check_trace=False),
    "an average": lambda: torch.optim.swa_utils.AveragedModel(small_net()),
    "double logits": lambda: Around(lambda logits: logits.double()),
    "(batch, classes, 1, 1)": lambda: Around(lambda logits: logits[:, :, None, None]),
    ".logits": lambda: Around(lambda logits: SimpleNamespace(logits=logits, hidden=None)),
    "a named tuple": lambda: Around(lambda logits: Named(logits, logits + 1)),
    "a dictionary with logits": lambda: Around(lambda logits: {"logits": logits, "features": logits}),
    "a dictionary with one tensor": lambda: Around(lambda logits: {"out": logits, "loss": None}),
    "a tuple with one tensor": lambda: Around(lambda logits: (logits, None)),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("how", READ)
def test_what_is_clear_is_understood(how):
    model = wrap_model("mine", READ[how](), 8)
    torch.testing.assert_close(model(IMAGES), NET(IMAGES), rtol=1e-5, atol=1e-6)
    assert model(IMAGES).dtype == torch.float32
    assert (model.card.classes, model.card.image_size) == (5, 8)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not any(part.training for part in model.modules())


def test_what_was_taken_off_is_said():
    assert wrap_model("mine", nn.DataParallel(small_net()), 8).card.weights_note == "DataParallel taken off"


def raising(error):
    def forward(images):
        raise error

    return forward


REFUSED = {
    "nothing": (lambda: None, "is a NoneType, which cannot be called"),
    "a class": (lambda: Around, r"is the class Around, not a model(.|\n)*Around\(\)"),
    "a builder": (lambda: lambda images: small_net(), "returned a module"),
    "a state dict": (lambda: small_net().state_dict(), "is a state dict"),
    "a pair": (lambda: (small_net(), 384), "is a tuple, which cannot be called"),
    "a list of layers": (lambda: nn.ModuleList([small_net()]), "cannot take images of 8 x 8 pixels"),
    "wrong pictures": (lambda: nn.Linear(5, 2), "cannot take images of 8 x 8 pixels: RuntimeError"),
    "another argument": (lambda: lambda images, labels: images, "TypeError"),
    "pictures": (lambda: nn.Identity(), r"returned \(2, 3, 8, 8\) for 2 images"),
    "one row": (lambda: Around(lambda logits: logits.mean(0, keepdim=True)), r"returned \(1, 5\) for 2 images"),
    "classes": (lambda: Around(lambda logits: logits.argmax(1, keepdim=True)), "int64"),
    "two tensors": (lambda: Around(lambda logits: (logits, logits)), "tuple with 2 tensors"),
    "text": (lambda: Around(str), "returned a str"),
    "exit": (lambda: raising(SystemExit(3)), "SystemExit: 3"),
    "an error without text": (lambda: raising(AssertionError()), "AssertionError"),
    "endless": (lambda: raising(RecursionError("too deep")), "RecursionError"),
    "half": (lambda: small_net().half(), r"float16(.|\n)*module\.float\(\)"),
    "lazy layers": (lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(5)), "lazy layer"),
    "the meta device": (lambda: small_net().to("meta"), "meta device"),
}


@pytest.mark.filterwarnings("ignore:Lazy modules")
@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_model_is_refused_with_what_a_model_is(what):
    make, message = REFUSED[what]
    with pytest.raises(UserError, match=message) as caught:
        wrap_model("mine", make(), 8)
    assert "'mine'" in caught.value.message
    assert caught.value.hint


def _raising(*arguments, **named):
    raise RuntimeError("not for you")


_PARTS = ("parameters", "named_parameters", "modules", "named_modules", "state_dict", "buffers")


@pytest.mark.parametrize("method", _PARTS)
@pytest.mark.parametrize("answer", [lambda *_, **__: None, _raising], ids=["nothing", "an error"])
def test_a_class_that_hides_its_parts_runs_or_is_refused_by_name(tmp_path, monkeypatch, method, answer):
    monkeypatch.chdir(tmp_path)
    kind = type("Hiding", (nn.Sequential,), {method: answer})
    said = "'Hiding' runs"
    try:
        evaluate({"mine": kind(small_net(32, classes=10))}, attacks=["noise"], limit=4)
    except UserError as refusal:
        said = refusal.message
    assert "'Hiding'" in said or "'mine'" in said


def test_an_error_of_the_users_code_in_mid_run_is_a_message(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    class Later(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = small_net(32, classes=10)

        def forward(self, images):
            if len(images) > 64:
                raise KeyError("no such layer")
            return self.net(images)

    with pytest.raises(UserError, match=r"'mine' raised an error when it was given 100 images: KeyError"):
        evaluate({"mine": Later()}, attacks=["noise"], limit=100)


# --- what it is --------------------------------------------------------------------------------------------------


def test_wrapping_finds_the_transformer_inside():
    network = apply_twicing(new_network(DIGITS), (2,))
    model = wrap_model("mine", nn.Sequential(nn.Identity(), network))
    assert str(model.card.spec.attention) == model.card.attention == "twicing@2"
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
        assert (card.classes, card.image_size, card.attention) == (7, size, "")
        assert card.spec.architecture == type(module).__name__


class Sized(nn.Module):
    """Takes images of one size alone, and may say which."""

    def __init__(self, size: int, **says) -> None:
        super().__init__()
        self.head = nn.Linear(3 * size, 5)
        for name, value in says.items():
            setattr(self, name, value)

    def forward(self, images):
        return self.head(images.mean(3).flatten(1))


@pytest.mark.parametrize(
    ("module", "size", "note"),
    [
        (Sized(224), 224, ""),
        (Sized(384), 384, "the first of the usual ones"),
        (Sized(32), 32, "the first of the usual ones"),
        (Sized(160, pretrained_cfg={"input_size": (3, 160, 160)}), 160, "as the model says"),
        (Sized(176, img_size=(176, 176)), 176, "as the model says"),
        (Sized(208, config=SimpleNamespace(image_size=208)), 208, "as the model says"),
        (
            Sized(192, patch_embed=SimpleNamespace(img_size=(192, 192)), default_cfg={"input_size": (3, 224, 224)}),
            192,
            "",
        ),
        (nn.Sequential(Sized(160, image_size=160)), 160, "as the model says"),
        (Sized(224, image_size=(1, 2)), 224, ""),
        (Sized(224, image_size=384), 224, "the first of the usual ones"),
    ],
)
def test_the_size_of_a_models_images_is_found(module, size, note):
    card = wrap_model("mine", module).card
    assert card.image_size == card.recipes.evaluated.crop == size
    assert note in card.weights_note


def test_a_size_that_is_given_is_the_only_one_that_is_tried():
    assert wrap_model("mine", Sized(100), 100).card.image_size == 100
    with pytest.raises(UserError, match=r"cannot take images of 32 x 32 pixels(.|\n)*says that it takes 100 pixels"):
        wrap_model("mine", Sized(100, image_size=100), 32)
    with pytest.raises(UserError, match=r"cannot take images of 224 x 224 pixels(.|\n)*pass image_size"):
        wrap_model("mine", Sized(100))


@pytest.mark.parametrize("sizes", [100, {"mine": 100}])
def test_a_size_is_given_for_all_or_by_name(tmp_path, monkeypatch, sizes):
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    for number, wnid in enumerate(("n01440764", "n01443537")):
        (tmp_path / "data" / wnid).mkdir(parents=True)
        Image.new("RGB", (120, 120)).save(tmp_path / "data" / wnid / f"ILSVRC2012_val_{number + 1:08d}.JPEG")
    model = Sized(100)
    model.head = nn.Linear(300, 1000)
    how = {"data": "imagenet", "directories": {"imagenet": tmp_path / "data"}, "attacks": ["noise"]}
    run = evaluate({"mine": model}, **how, image_size=sizes)
    assert run.manifest.models["mine"].image_size == 100
    assert set(run.records["status"]) == {"ok"}
    with pytest.raises(UserError, match=r"image_size=…: Unknown model of your own 'nine'(.|\n)*mine"):
        evaluate({"mine": model}, **how, image_size={"nine": 100})


def test_digits_have_one_size():
    with pytest.raises(UserError, match="digits have 32 pixels a side"):
        evaluate({"mine": small_net(32)}, image_size=64)


# --- doors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"mine": small_net(32, classes=10), "theirs": "deit"}, {"mine", "deit@theirs"}),
        ([small_net(32, classes=10), "deit"], {"Sequential", "deit"}),
    ],
)
def test_modules_stand_beside_names(tmp_path, monkeypatch, given, names):
    monkeypatch.chdir(tmp_path)
    run = evaluate(given, attacks=["noise"], limit=4)
    assert set(run.records["model"]) == names


@pytest.mark.parametrize("given", [nn.Sequential(small_net(32, classes=10)), small_net(32, classes=10)])
def test_a_bare_module_is_one_model_even_if_it_can_be_iterated(tmp_path, monkeypatch, given):
    monkeypatch.chdir(tmp_path)
    run = evaluate(given, attacks=["noise"], limit=4)
    assert set(run.records["model"]) == {"Sequential"}


def test_two_modules_of_one_name_are_told_to_have_names():
    with pytest.raises(UserError, match=r"'Sequential' is given twice; write \{'one': module"):
        evaluate([small_net(), small_net()])


@pytest.mark.parametrize("how", [{"image_size": 5000}, {"image_size": 0}, {"versions": {"other": "v2"}}])
def test_what_is_said_of_a_module_is_checked_before_it_is_called(how):
    with pytest.raises(UserError, match=r"(image_size|versions)=…: .*(is no side|Unknown model of your own)"):
        evaluate({"mine": small_net()}, **how)


@pytest.mark.parametrize("name", ["", "\ud800", "a\x1b[31m", "two\nlines", " mine", "x" * 101])
def test_a_name_that_cannot_be_printed_is_refused(name):
    with pytest.raises(UserError, match=r"models=…: .* is no name of a model"):
        evaluate({name: small_net()})


@pytest.mark.parametrize("name", ["\ud800", "a\x1b[31m", "two\nlines", "mine ", "x" * 101])
def test_the_command_line_and_plans_have_the_same_rule_for_names(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("p.toml").write_text(f"models = [{json.dumps(f'deit@{name}')}]\n")
    for words in (["attack", "-m", f"deit@{name}", "-q"], ["run", "p.toml", "-q"]):
        ended = CliRunner().invoke(app, words, catch_exceptions=False)
        assert ended.exit_code == 2, ended.output
        refused = "not a Unicode scalar" if name == "\ud800" and words[0] == "run" else "is no name of a model"
        assert refused in ended.output
        assert "\x1b" not in ended.output


def an_attack(images, labels):
    return images


@pytest.mark.parametrize(
    ("attacks", "says"),
    [
        (
            torchattacks.PGD(small_net()),
            r"\(PGD\)(.|\n)*attacks=\['pgd'\], engine='torchattacks'",
        ),
        ([torchattacks.FGSM(small_net())], r"Write attacks=\['fgsm'\]"),
        (an_attack, r"'an_attack' is an object; attacks are named(.|\n)*python:MODULE:NAME"),
        (["pgd", an_attack], r"'an_attack' is an object"),
    ],
)
def test_an_attack_that_is_no_name_is_refused_with_what_to_write(attacks, says):
    said = {name: one.default for name, one in signature(evaluate).parameters.items() if name != "begin"}
    with pytest.raises(UserError, match=says):  # behind evaluate, whose types the tests hold
        stated_in_python({**said, "models": "deit", "attacks": attacks})
