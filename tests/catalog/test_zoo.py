"""What a model's name stands for, before any of it is loaded."""

import pytest

from robustbench_twicing.catalog.zoo import is_drop_in, model_spec, model_specs, zoo
from robustbench_twicing.errors import UserError

TAGGED = "deit_tiny_patch16_224.fb_in1k"


def facts(text: str, data: str = "imagenet", **options) -> tuple[str, str, object, str]:
    spec = model_spec(text, data, **options)
    return spec.name, spec.architecture, spec.twicing, spec.weights


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("deit", ("deit", "deit_tiny_patch16_224", "none", f"timm:{TAGGED}")),
        ("deit-tw=runs/a=b.pth", ("deit-tw", "deit_tiny_patch16_224", "all", "file:runs/a=b.pth")),
        ("deit-tw-last3=x.pth", ("deit-tw-last3", "deit_tiny_patch16_224", "last3", "file:x.pth")),
        ("deit-tw@seed1=x.pth", ("deit-tw@seed1", "deit_tiny_patch16_224", "all", "file:x.pth")),
        # Any name of timm: the tag belongs to the weights, or with a file says which preprocessing is meant.
        (TAGGED, (TAGGED, "deit_tiny_patch16_224", "none", f"timm:{TAGGED}")),
        ("resnet18", ("resnet18", "resnet18", "none", "timm:resnet18")),
        ("nasnetalarge.tf_in1k", ("nasnetalarge.tf_in1k", "nasnetalarge", "none", "timm:nasnetalarge.tf_in1k")),
        ("resnet18=x.pth", ("resnet18", "resnet18", "none", "file:x.pth")),
        (f"{TAGGED}=x.pth", (TAGGED, TAGGED, "none", "file:x.pth")),
        # Published weights bring their architecture; the name brings the attention.
        (
            "deit-tw=timm:deit_small_patch16_224.fb_in1k",
            ("deit-tw@drop-in", "deit_small_patch16_224", "all", "timm:deit_small_patch16_224.fb_in1k"),
        ),
        (
            f"deit-tw-last3=hf-hub:timm/{TAGGED}",
            ("deit-tw-last3@drop-in", "deit_tiny_patch16_224", "last3", f"hf-hub:timm/{TAGGED}"),
        ),
        ("deit-tw@mine=timm:deit_tiny_patch16_224", None),
        ("deit-tw=hf-hub:lab/trained", ("deit-tw", "deit_tiny_patch16_224", "all", "hf-hub:lab/trained")),
        ("deit-tw=timm/x.pth", ("deit-tw", "deit_tiny_patch16_224", "all", "file:timm/x.pth")),
        # Our own registered architectures say in their name that they are twicing.
        (
            "deit_small_twicing_patch16_224=x.pth",
            ("deit_small_twicing_patch16_224", "deit_small_patch16_224", "all", "file:x.pth"),
        ),
    ],
)
def test_names(text, expected):
    expected = expected or ("deit-tw@mine", "deit_tiny_patch16_224", "all", "timm:deit_tiny_patch16_224")
    assert facts(text) == expected


def test_only_plain_published_weights_under_a_twicing_name_are_a_drop_in():
    for text, expected in [
        (f"deit-tw=timm:{TAGGED}", True),
        (f"deit-tw=hf-hub:timm/{TAGGED}", True),
        (f"deit=timm:{TAGGED}", False),
        ("deit-tw=hf-hub:lab/trained", False),
        ("deit-tw=x.pth", False),
    ]:
        assert is_drop_in(model_spec(text, "imagenet")) == expected, text


def test_weights_of_a_checkpoint_are_raw_unless_asked():
    assert model_spec("deit-tw=x.pth", "imagenet").prefer == "raw"
    assert [(s.name, s.prefer) for s in model_specs("deit-tw=x.pth", "imagenet", "ema")] == [("deit-tw", "ema")]
    both = model_specs("deit-tw=x.pth", "imagenet", "both")
    assert [(s.name, s.prefer) for s in both] == [("deit-tw@raw", "raw"), ("deit-tw@ema", "ema")]
    assert {(s.architecture, s.weights, s.twicing) for s in both} == {("deit_tiny_patch16_224", "file:x.pth", "all")}
    labelled = model_specs("deit-tw@seed1=x.pth", "imagenet", "both")
    assert [spec.name for spec in labelled] == ["deit-tw@seed1-raw", "deit-tw@seed1-ema"]


@pytest.mark.parametrize("weights", ["ema", "both"])
def test_published_weights_have_one_kind_only(weights):
    assert model_specs("deit", "imagenet", weights) == model_specs("deit", "imagenet")
    assert model_specs("deit-tw", "digits", weights) == model_specs("deit-tw", "digits")


def test_checkpoints_that_are_set_stand_in_where_the_text_names_none():
    checkpoints = {"deit-tw": "/runs/c.pth", "deit": "timm:deit_small_patch16_224"}
    assert facts("deit-tw", checkpoints=checkpoints)[3] == "file:/runs/c.pth"
    assert facts("deit-tw@again", checkpoints=checkpoints)[3] == "file:/runs/c.pth"
    assert facts("deit-tw=other.pth", checkpoints=checkpoints)[3] == "file:other.pth"
    assert facts("deit", checkpoints=checkpoints)[1] == "deit_small_patch16_224"


@pytest.mark.parametrize(
    ("text", "options", "says"),
    [
        ("diet", {}, "Did you mean deit"),
        ("deit_tw", {}, "Did you mean deit-tw"),
        ("deit_tw_last3=x.pth", {}, "Did you mean deit-tw-last3"),
        ("Resnet18", {}, r"Unknown model(.|\n)*Names of timm work too"),
        ("resnet-18", {}, "Unknown model"),
        ("", {}, "Unknown model ''"),
        ("deit-tw", {}, r"no public weights for imagenet(.|\n)*--model deit-tw=path"),
        ("deit_tiny_twicing_patch16_224", {}, "no public weights"),
        ("hf-hub:timm/resnet18.a1_in1k", {}, r"not which model(.|\n)*NAME=hf-hub"),
        ("deit", {"weights": "averaged"}, "Available: both, ema, raw"),
        ("deit=x.pth", {"weights": "both"}, "one model only"),
    ],
)
def test_mistakes(text, options, says):
    with pytest.raises(UserError, match=says):
        model_spec(text, "imagenet", **options)


def test_every_entry_of_the_zoo_has_a_model_for_digits():
    for name, entry in zoo().items():
        assert model_spec(name, "digits").weights == entry.digits.weights
