"""What a model's name stands for, before any of it is loaded."""

import pytest

from robustbench_twicing.catalog.zoo import is_drop_in, known_model, labelled, model_spec, model_specs, zoo
from robustbench_twicing.errors import UserError

TAGGED = "deit_tiny_patch16_224.fb_in1k"


def facts(text: str, data: str = "imagenet", **options) -> tuple[str, str, str, str]:
    spec = model_spec(text, data, **options)
    return spec.name, spec.architecture, str(spec.attention), spec.weights


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("deit", ("deit", "deit_tiny_patch16_224", "softmax", f"timm:{TAGGED}")),
        ("deit-tw=runs/a=b.pth", ("deit-tw", "deit_tiny_patch16_224", "twicing", "file:runs/a=b.pth")),
        ("deit-tw-last3=x.pth", ("deit-tw-last3", "deit_tiny_patch16_224", "twicing@last3", "file:x.pth")),
        ("deit-tw@seed1=x.pth", ("deit-tw@seed1", "deit_tiny_patch16_224", "twicing", "file:x.pth")),
        # Any name of timm: the tag belongs to the weights, or with a file says which preprocessing is meant.
        (TAGGED, (TAGGED, "deit_tiny_patch16_224", "softmax", f"timm:{TAGGED}")),
        ("resnet18", ("resnet18", "resnet18", "softmax", "timm:resnet18")),
        ("nasnetalarge.tf_in1k", ("nasnetalarge.tf_in1k", "nasnetalarge", "softmax", "timm:nasnetalarge.tf_in1k")),
        ("resnet18=x.pth", ("resnet18", "resnet18", "softmax", "file:x.pth")),
        (f"{TAGGED}=x.pth", (TAGGED, TAGGED, "softmax", "file:x.pth")),
        # Published weights bring their architecture; the name brings the attention.
        (
            "deit-tw=timm:deit_small_patch16_224.fb_in1k",
            ("deit-tw@drop-in", "deit_small_patch16_224", "twicing", "timm:deit_small_patch16_224.fb_in1k"),
        ),
        (
            f"deit-tw-last3=hf-hub:timm/{TAGGED}",
            ("deit-tw-last3@drop-in", "deit_tiny_patch16_224", "twicing@last3", f"hf-hub:timm/{TAGGED}"),
        ),
        ("deit-tw@mine=timm:deit_tiny_patch16_224", None),
        ("deit-tw=hf-hub:lab/trained", ("deit-tw", "deit_tiny_patch16_224", "twicing", "hf-hub:lab/trained")),
        ("deit-tw=timm/x.pth", ("deit-tw", "deit_tiny_patch16_224", "twicing", "file:timm/x.pth")),
        # Our own registered architectures say in their name that they are twicing.
        (
            "deit_small_twicing_patch16_224=x.pth",
            ("deit_small_twicing_patch16_224", "deit_small_patch16_224", "twicing", "file:x.pth"),
        ),
    ],
)
def test_names(text, expected):
    expected = expected or ("deit-tw@mine", "deit_tiny_patch16_224", "twicing", "timm:deit_tiny_patch16_224")
    assert facts(text) == expected


def test_weights_known_to_be_trained_with_another_attention_are_a_drop_in():
    for text, data, expected in [
        (f"deit-tw=timm:{TAGGED}", "imagenet", True),
        (f"deit-tw=hf-hub:timm/{TAGGED}", "imagenet", True),
        (f"deit=timm:{TAGGED}", "imagenet", False),
        ("deit-tw=hf-hub:lab/trained", "imagenet", False),
        ("deit-tw=x.pth", "imagenet", False),
        ("deit-tw", "digits", False),
        ("deit+twicing", "digits", True),
        ("deit-tw+twicing(0.5)", "digits", True),
        ("deit-tw+twicing", "digits", False),
        ("deit+softmax@last3", "digits", False),
    ]:
        assert is_drop_in(model_spec(text, data)) == expected, text


DIGITS, EMBEDDED = "deit_digits_patch8_32", "package:weights/deit-digits.safetensors"
VIT = "vit_base_patch16_224.augreg_in1k"


@pytest.mark.parametrize(
    ("text", "data", "expected"),
    [
        ("deit+twicing", "digits", ("deit+twicing@drop-in", DIGITS, "twicing", EMBEDDED)),
        (
            "deit-tw+softmax",
            "digits",
            ("deit-tw+softmax@drop-in", DIGITS, "softmax", "package:weights/deit-tw-digits.safetensors"),
        ),
        ("deit+twicing@mine", "digits", ("deit+twicing@mine", DIGITS, "twicing", EMBEDDED)),
        ("deit+twicing@last3", "digits", ("deit+twicing@last3@drop-in", DIGITS, "twicing@last3", EMBEDDED)),
        ("deit+twicing@last3=x.pth", "digits", ("deit+twicing@last3", DIGITS, "twicing@last3", "file:x.pth")),
        ("deit+twicing(1)=x.pth", "digits", ("deit+twicing(1)", DIGITS, "twicing", "file:x.pth")),
        ("deit+twicing(0.50)=x.pth", "digits", ("deit+twicing(0.50)", DIGITS, "twicing(0.5)", "file:x.pth")),
        ("deit+twicing(1/2)@0=x.pth", "digits", ("deit+twicing(1/2)@0", DIGITS, "twicing(0.5)@0", "file:x.pth")),
        (
            "deit+twicing@last3@seed0=a.pth",
            "digits",
            ("deit+twicing@last3@seed0", DIGITS, "twicing@last3", "file:a.pth"),
        ),
        ("deit+twicing@seed0=a=b.pth", "digits", ("deit+twicing@seed0", DIGITS, "twicing", "file:a=b.pth")),
        ("deit+twicing@all@last3=a.pth", "digits", ("deit+twicing@all@last3", DIGITS, "twicing", "file:a.pth")),
        ("deit+twicing@0,1@a+b@c=a.pth", "digits", ("deit+twicing@0,1@a+b@c", DIGITS, "twicing@0,1", "file:a.pth")),
        (
            "deit+twicing(0.5)@0-2+twicing@last2@s1=a.pth",
            "digits",
            ("deit+twicing(0.5)@0-2+twicing@last2@s1", DIGITS, "twicing(0.5)@0,1,2+twicing@last2", "file:a.pth"),
        ),
        ("deit@last3=a.pth", "digits", ("deit@last3", DIGITS, "softmax", "file:a.pth")),
        ("deit+twicing", "imagenet", ("deit+twicing@drop-in", TAGGED.partition(".")[0], "twicing", f"timm:{TAGGED}")),
        (f"{VIT}+twicing", "imagenet", (f"{VIT}+twicing@drop-in", VIT.partition(".")[0], "twicing", f"timm:{VIT}")),
        (f"{VIT}+twicing=x.pth", "imagenet", (f"{VIT}+twicing", VIT, "twicing", "file:x.pth")),
        ("deit+softmax", "digits", ("deit+softmax", DIGITS, "softmax", EMBEDDED)),
    ],
)
def test_a_method_behind_a_name(text, data, expected):
    assert facts(text, data) == expected


@pytest.mark.parametrize("label", ["mine", "last3", "9-11", "frist2", "s@0"])
@pytest.mark.parametrize("text", ["deit", "deit+twicing", "deit+twicing(0.5)@last2", "deit+twicing@0+twicing(0.5)@1"])
def test_any_label_can_be_put_behind_a_model(text, label):
    named, plain = (model_spec(each, "digits") for each in (labelled(f"{text}=a.pth", label), f"{text}=a.pth"))
    assert named.name.endswith(f"@{label}")
    assert named.model_copy(update={"name": plain.name}) == plain


def test_aliases_mean_what_they_spell_out():
    for alias, spelt in (("deit-tw", "deit+twicing"), ("deit-tw-last3", "deit+twicing@last3")):
        one, other = (model_spec(f"{name}=x.pth", "imagenet") for name in (alias, spelt))
        assert one.model_copy(update={"name": spelt}) == other


def test_a_checkpoint_that_is_set_for_a_name_was_not_trained_with_a_method_put_in_its_place():
    checkpoints = {"deit": "/runs/d.pth", "deit+twicing": "/runs/t.pth"}
    assert facts("deit+twicing@last3", checkpoints=checkpoints)[::3] == (
        "deit+twicing@last3@drop-in",
        "file:/runs/d.pth",
    )
    assert facts("deit+twicing", checkpoints=checkpoints)[::3] == ("deit+twicing", "file:/runs/t.pth")
    both = model_specs("deit+twicing@last3", "imagenet", "both", checkpoints=checkpoints)
    name = "deit+twicing@last3@drop-in"
    assert [(spec.name, spec.prefer) for spec in both] == [(f"{name}-raw", "raw"), (f"{name}-ema", "ema")]
    assert known_model("deit+twicing")
    assert not known_model("diet+twicing")


def test_weights_of_a_checkpoint_are_raw_unless_asked():
    assert model_spec("deit-tw=x.pth", "imagenet").prefer == "raw"
    assert [(s.name, s.prefer) for s in model_specs("deit-tw=x.pth", "imagenet", "ema")] == [("deit-tw", "ema")]
    both = model_specs("deit-tw=x.pth", "imagenet", "both")
    assert [(s.name, s.prefer) for s in both] == [("deit-tw@raw", "raw"), ("deit-tw@ema", "ema")]
    assert {(s.architecture, s.weights, str(s.attention)) for s in both} == {
        ("deit_tiny_patch16_224", "file:x.pth", "twicing")
    }
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
        ("deit+twicng", {}, r"Unknown method 'twicng'(.|\n)*Did you mean twicing(.|\n)*twicing@last3"),
        ("deit+=x.pth", {}, "'' is no method"),
        ("deit+Twicing", {}, "'Twicing' is no method"),
        ("deit+twicing(0)", {}, r"strength .* cannot be 0(.|\n)*from 0.001 to 1"),
        ("deit+twicing(1.5)", {}, "cannot be 1.5"),
        ("deit+twicing(1/3)", {}, "steps of 0.001"),
        ("deit+twicing(0.5,2)", {}, r"has 2 number\(s\); twicing takes strength"),
        ("deit+softmax(1)", {}, "softmax takes no number"),
        ("deit+twicing(half)", {}, "no number"),
        ("deit+twicing(0.5", {}, "behind its method"),
        ("deit+twicing(0.5)x", {}, "behind its method"),
        ("deit+twicing@", {}, "no label behind the @"),
        ("deit+twicing@lats3=x.pth", {}, r"neither layers nor clearly a label(.|\n)*@all@lats3"),
        ("deit+twicing@11-9=x.pth", {}, "Unknown layers '11-9'"),
        ("deit+twicing@9-=x.pth", {}, "neither layers nor clearly a label"),
        ("deit+twicing@0+twicing@0,1", {}, "block 0"),
        ("deit+twicing+twicing(0.5)", {}, "all blocks|last blocks"),
        ("diet+twicing", {}, "Did you mean deit"),
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


def test_seeds_that_ship_are_found_by_what_a_name_comes_to():
    def shipped(text: str) -> tuple[str, str]:
        spec = model_spec(text, "digits")
        return str(spec.attention), spec.weights.removeprefix("package:weights/seeds/")

    assert shipped("deit@s3") == ("softmax", "softmax-s3.safetensors")
    assert shipped("deit-tw@s0") == shipped("deit+twicing@s0") == ("twicing", "twicing-s0.safetensors")
    assert shipped("deit+neutreno(0.6)@s4") == shipped("deit+neutreno@s4") == ("neutreno", "neutreno-s4.safetensors")
    assert model_spec("deit@seed3", "digits").weights == EMBEDDED
    assert model_spec("deit@s3=x.pth", "digits").weights == "file:x.pth"
    assert model_spec("deit@s3", "imagenet").weights == f"timm:{TAGGED}"


def test_a_range_of_seeds_is_a_model_each():
    names = [spec.name for spec in model_specs("deit-tw@s0..s4", "digits")]
    assert names == [f"deit-tw@s{seed}" for seed in range(5)]
    files = [spec.weights for spec in model_specs("deit@s1..3=runs/{seed}/x.pth", "imagenet")]
    assert files == [f"file:runs/{seed}/x.pth" for seed in (1, 2, 3)]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("deit@s5", "There are s0 to s4"),
        ("deit-tw-last3@s0", "There are seeds of softmax, twicing, neutreno"),
        ("deit@s4..s0", "from seed 4 to seed 0"),
        ("deit@s0..s0", "from seed 0 to seed 0"),
        ("deit@s0..s4=x.pth", "all seeds the same weights"),
    ],
)
def test_seeds_that_there_are_not_are_refused(text, says):
    with pytest.raises(UserError, match=says):
        model_specs(text, "digits")
