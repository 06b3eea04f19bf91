"""A model beside its published accuracies: what is inside, what is outside, and which change explains it."""

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import typer
from PIL import Image
from scipy.stats import hypergeom
from statsmodels.stats.proportion import proportion_confint
from timm.models import register_model
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from typer.testing import CliRunner

from robustbench_twicing.attention.convert import apply_twicing
from robustbench_twicing.catalog.published import SETS, Figure
from robustbench_twicing.catalog.suites import class_list
from robustbench_twicing.cli.verify import verify
from robustbench_twicing.errors import UserError
from robustbench_twicing.runner.published import NUMERICS, TELLING, Count, check_of, interval
from tests.imagenet_trees import build_tree, photograph

HEADER = "model,dataset,img_size,crop_pct,interpolation,top1,top5\n"
WNIDS = [class_list("imagenet")[label] for label in (79, 107, 308)]
"""Classes of ImageNet-A and of ImageNet-R, so that one model can be asked about all sets."""


# --- the interval ------------------------------------------------------------------------------------------------


def test_of_few_images_the_interval_is_wilsons():
    low, high = interval(37, 50, 50_000)
    # statsmodels' own Wilson interval; 50 of 50,000 is not quite 50 of infinitely many, hence the tolerance.
    expected = proportion_confint(37, 50, alpha=0.01, method="wilson")
    assert (low + NUMERICS, high - NUMERICS) == pytest.approx(expected, abs=1e-3)


def test_of_all_images_only_numerics_are_left():
    assert interval(36_095, 50_000, 50_000) == pytest.approx((0.7219 - NUMERICS, 0.7219 + NUMERICS))
    assert interval(36_746, 50_900, 50_889)[1] - interval(36_746, 50_900, 50_889)[0] == pytest.approx(2 * NUMERICS)
    assert interval(0, 0, 50_000) == (0.0, 1.0)
    assert interval(10, 10, 10) == (1 - NUMERICS, 1.0)


@pytest.mark.parametrize("n", [100, 500, 900])
def test_of_a_part_of_the_images_it_covers_as_often_as_it_says(n):
    """Exactly, over all samples without replacement: 99 % less what a discrete count costs, `NUMERICS` taken off."""
    images, right = 1000, 720
    covered = 0.0
    for found in range(n + 1):
        low, high = interval(found, n, images)
        if low + NUMERICS <= right / images <= high - NUMERICS:
            covered += hypergeom.pmf(found, images, right, n)
    assert 0.985 < covered < 0.997


@pytest.mark.parametrize(("n", "verdict"), [(20, "too few to tell"), (1000, "too few to tell"), (5000, "inside")])
def test_an_interval_tells_something_only_if_it_is_narrow(n, verdict):
    """That the published 80 % are in it says nothing of 20 images, which 70 and 90 % would fit as well."""
    figure = Figure(80.0, 224, 0.9, "bicubic")
    found = check_of("imagenet-val", figure, Count(right=n * 4 // 5, right_unmasked=0, n=n, failed=0))
    assert found.verdict == verdict
    assert (found.high - found.low < TELLING) == (verdict == "inside")
    far = check_of("imagenet-val", figure, Count(right=n // 5, right_unmasked=0, n=n, failed=0))
    assert far.verdict == "outside"


# --- a model that senses how its images were prepared -------------------------------------------------------------


def sensor_picture(shown: int, size: tuple[int, int]) -> Image.Image:
    """A block of one colour, the class number in its digits, on black; half as wide as the shorter side."""
    image = Image.new("RGB", size)
    side = min(size) // 2
    block = Image.new(
        "RGB", (side, side), (15 + 25 * (shown // 100), 15 + 25 * (shown // 10 % 10), 15 + 25 * (shown % 10))
    )
    image.paste(block, ((size[0] - side) // 2, (size[1] - side) // 2))
    return image


class Sensor(nn.Module):
    """Answers the class that is shown if the images were prepared as its weights say, else the class after it."""

    def __init__(self) -> None:
        super().__init__()
        settings = {"block": 124.0, "bicubic": 1.0, "offset": 0.0, "favourite": 0.0, "mean": 0.0, "std": 1.0}
        for name, value in settings.items():
            self.register_buffer(name, torch.tensor(value))
        self.num_classes = 1000

    def forward(self, normalised: torch.Tensor) -> torch.Tensor:
        images = normalised * self.std + self.mean
        middle = images[..., 104:120, 104:120].mean((-1, -2))
        levels = ((middle * 255 - 15) / 25).round()
        brightest = middle.amax(1)
        block = (images[:, :, 112].amax(1) > brightest[:, None] / 2).sum(1)
        # Bicubic interpolation overshoots at an edge by several percent, bilinear never does.
        bicubic = (images.amax((1, 2, 3)) > 1.03 * brightest).float()
        off = ((block - self.block).abs() > 1.5) | (bicubic != self.bicubic)
        answer = levels @ images.new_tensor([100.0, 10.0, 1.0]) + self.offset + off
        logits = -(torch.arange(1000.0, device=images.device) - answer[:, None]).abs()
        logits[:, 0] += 2000 * self.favourite
        return logits


@register_model
def verify_sensor(pretrained: bool = False, **settings: Any) -> nn.Module:
    network = Sensor()
    network.pretrained_cfg = _configuration(mean=(0.0,) * 3, std=(1.0,) * 3)
    return network


@register_model
def verify_tested_larger(pretrained: bool = False, **settings: Any) -> nn.Module:
    network = Sensor()
    larger = {"test_input_size": (3, 288, 288), "test_crop_pct": 1.0}
    network.pretrained_cfg = _configuration(mean=(0.0,) * 3, std=(1.0,) * 3, **larger)
    return network


@register_model
def verify_vit(pretrained: bool = False, **settings: Any) -> nn.Module:
    network = VisionTransformer(img_size=224, patch_size=56, embed_dim=16, depth=2, num_heads=2)
    network.pretrained_cfg = _configuration(mean=(0.5,) * 3, std=(0.5,) * 3)
    return network


def _configuration(**settings: Any) -> dict[str, Any]:
    return {"input_size": (3, 224, 224), "crop_pct": 0.9, "interpolation": "bicubic", "classifier": "head", **settings}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "160")


def plant(name: str) -> list[str]:
    """A tree of suite `name` with two pictures of each class; its `--data-dir`."""
    for planted in build_tree(Path("data") / name, name, WNIDS, per_class=2):
        size = (100, 80) if planted.path.stat().st_size % 2 else (80, 100)
        sensor_picture(planted.shown, size).save(planted.path, "PNG")
    return ["--data-dir", f"{name}=data/{name}"]


def write_table(**top1: float) -> None:
    rows = [f"sensor,{name.replace('_', '-')},224,0.9,bicubic,{value},0\n" for name, value in top1.items()]
    Path("published.csv").write_text(HEADER + "".join(rows))


def checkpoint(**settings: float) -> dict[str, torch.Tensor]:
    return {**Sensor().state_dict(), **{name: torch.tensor(value) for name, value in settings.items()}}


def run(*arguments: str, model: str = "verify_sensor=sensor.pth") -> Any:
    app = typer.Typer()
    app.command()(verify)
    fixed = ["--model", model, "--as", "sensor", "--published", "published.csv", "--quiet", "--out", "run"]
    return CliRunner().invoke(app, [*fixed, *arguments])


def checked(result: Any) -> dict[str, Any]:
    """What --json printed: the checks by data set, and the rest."""
    content = json.loads(result.stdout)
    return {**content, "checks": {check["dataset"]: check for check in content["checks"]}}


def test_a_model_that_reproduces_its_numbers(monkeypatch):
    """Every set, with the number that arithmetic says: all right, but for ReaL, whose labels timm's file holds."""
    folders = [plant(name) for name in ("imagenet", "imagenet-v2", "imagenet-sketch", "imagenet-a", "imagenet-r")]
    torch.save(checkpoint(), "sensor.pth")
    file = Path(timm.__file__).parent / "data" / "_info" / "imagenet_real_labels.json"
    real = json.loads(file.read_text())
    pictures = [(label, real[label * 50 + number]) for label in (79, 107, 308) for number in (0, 1)]
    labelled = [label in labels for label, labels in pictures if labels]
    write_table(
        **{name.replace("-", "_"): 100.0 for name in SETS} | {"imagenet_real": 100 * sum(labelled) / len(labelled)}
    )
    for name, images in SETS.items():  # published on as many images as there are here
        monkeypatch.setitem(SETS, name, images._replace(images=len(labelled) if name == "imagenet-real" else 6))
    result = run("--json", *(flag for flags in folders for flag in flags))
    assert result.exit_code == 0, result.output
    content = checked(result)
    assert content["verdict"] == "inside"
    assert content["prepared"] == "resize248-bicubic-crop224, as timm's verify_sensor says"
    assert {check["verdict"] for check in content["checks"].values()} == {"inside"}
    assert content["not_checked"] == {}
    assert list(content["checks"]) == list(SETS)
    for name, check in content["checks"].items():
        assert check["n"] == (len(labelled) if name == "imagenet-real" else 6)
        assert check["measured"] == pytest.approx(check["published"], abs=1e-9)
        assert check["images"] == SETS[name].images
    manifest = json.loads(Path("run/run.json").read_text())
    assert manifest["verification"] == {key: json.loads(result.stdout)[key] for key in manifest["verification"]}
    assert not list(Path("run").glob("causes-*"))


def test_a_file_in_the_working_folder_that_decided_the_weights_is_named():
    torch.save(checkpoint(), "sensor.pth")
    Path("twicing-bench.toml").write_text('[models]\nverify_sensor = "sensor.pth"\n')
    write_table(imagenet_a=100.0)
    result = run(*plant("imagenet-a"), model="verify_sensor")
    assert result.exit_code == 4, result.output
    said = f"verify_sensor: its weights, file:{Path('sensor.pth').resolve()}, are named by"
    assert said in result.stdout.replace("\n", " ")
    (line,) = json.loads(Path("run/run.json").read_text())["decided"]
    assert line.startswith(said)
    assert line.endswith("twicing-bench.toml.")


def test_numbers_that_another_library_made_say_so_when_they_are_shown_again():
    torch.save(checkpoint(), "sensor.pth")
    write_table(imagenet_a=100.0)
    where = plant("imagenet-a")
    assert "other conditions" not in run(*where).output
    manifest = json.loads(Path("run/run.json").read_text())
    manifest["made_by"][0]["versions"]["torch"] = "1.0"
    Path("run/run.json").write_text(json.dumps(manifest))
    assert "made under other conditions: torch 1.0 → " in run(*where).stdout


def test_sets_without_data_or_figure_are_listed():
    torch.save(checkpoint(), "sensor.pth")
    write_table(imagenet_a=100.0, imagenet_v2=100.0)
    result = run(*plant("imagenet-a"))
    assert result.exit_code == 4, result.output
    assert "imagenet-v2: not checked, no folder: --data-dir imagenet-v2=DIR" in result.stdout
    assert "imagenet-val: not checked, no published figure" in result.stdout
    assert "6 of 7,500" in result.stdout
    assert "outside" not in result.stdout
    assert "imagenet-a: 6 images are too few to tell: of all 7,500, " in result.stdout
    assert "Images: resize248-bicubic-crop224, as timm's verify_sensor says. Published: 224 pixels" in result.stdout
    assert "The rule: inside: the published accuracy lies in the 99% Wilson interval" in result.stdout


def test_a_folder_without_the_classes_of_a_set_is_listed_and_80_columns_cut_nothing(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    torch.save(checkpoint(), "sensor.pth")
    build_tree(Path("val"), "imagenet", ["n01440764"], per_class=2)  # no class of ImageNet-A
    write_table(imagenet_val=50.0, imagenet_a_clean=100.0)
    result = run("--data-dir", "imagenet=val", "--no-explain")
    assert result.exit_code == 4, result.output
    assert "imagenet-a-clean: not checked, no image of its classes is in the folder" in result.stdout
    assert "…" not in result.stdout
    write_table(imagenet_a_clean=100.0)
    nothing = run("--data-dir", "imagenet=val", "--out", "other")
    assert isinstance(nothing.exception, UserError)
    assert "Nothing can be checked" in str(nothing.exception)


@pytest.mark.parametrize(
    ("weights", "published", "cause"),
    [
        ({"block": 128.0}, 100.0, "crop: resize256-bicubic-crop224 instead of resize248-bicubic-crop224"),
        ({"block": 112.0}, 100.0, "crop: resize224-bicubic-crop224 instead of resize248-bicubic-crop224"),
        ({"bicubic": 0.0}, 100.0, "interpolation: resize248-bilinear-crop224 instead of resize248-bicubic-crop224"),
        (
            {"block": 128.0, "bicubic": 0.0},
            100.0,
            "crop and interpolation: resize256-bilinear-crop224 instead of resize248-bicubic-crop224",
        ),
        ({"favourite": 1.0}, 0.0, "class mask: all logits may answer, not only those of the suite's classes"),
        ({"mean": 0.5, "std": 0.5}, 100.0, "normalisation: mean 0.5 and std 0.5 instead of the model's"),
        ({"offset": 7.0}, 100.0, ""),
    ],
)
def test_the_cause_of_a_miss_is_found_by_trying_it(weights, published, cause):
    torch.save(checkpoint(**weights), "sensor.pth")
    write_table(imagenet_a=published)
    result = run("--json", *plant("imagenet-a"))
    assert result.exit_code == 1, result.output
    check = checked(result)["checks"]["imagenet-a"]
    assert check["verdict"] == "outside"
    assert check["cause"] == cause
    assert json.loads(Path("run/run.json").read_text())["verification"]["checks"] == [check]


def test_another_recipe_than_the_published_one_is_the_first_thing_named():
    torch.save(checkpoint(), "sensor.pth")
    write_table(imagenet_a=100.0)
    result = run("--json", "--recipe", "paper", *plant("imagenet-a"))
    expected = "crop: resize248-bicubic-crop224 instead of resize256-bicubic-crop224"
    assert checked(result)["checks"]["imagenet-a"]["cause"] == expected


def test_averaged_weights_are_tried_in_both_directions():
    torch.save({"model": checkpoint(offset=50.0), "model_ema": checkpoint()}, "sensor.pth")
    write_table(imagenet_a=100.0)
    folder = plant("imagenet-a")
    result = run(*folder)
    assert result.exit_code == 1
    assert "outside" in result.stdout
    assert "imagenet-a: likeliest cause: weights: the moving average (EMA) instead of the last step's" in result.stdout
    assert run("--weights", "ema", "--out", "ema", *folder).exit_code == 4  # of six images nobody can tell
    write_table(imagenet_a=0.0)
    result = run("--json", "--weights", "ema", "--out", "ema", *folder)
    assert checked(result)["checks"]["imagenet-a"]["cause"] == (
        "weights: the last step's instead of the moving average (EMA)"
    )


def test_nothing_is_tried_when_not_asked():
    torch.save(checkpoint(offset=1.0), "sensor.pth")
    write_table(imagenet_a=100.0)
    result = run("--no-explain", *plant("imagenet-a"))
    assert result.exit_code == 1
    assert "cause" not in result.stdout
    assert not list(Path("run").glob("causes-*"))


def test_the_wrong_attention_is_found():
    """The weights of a twicing model, run without it: nothing in the file tells, the numbers do."""
    torch.manual_seed(0)
    network = timm.create_model("verify_vit").eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.5)
    torch.save(network.state_dict(), "vit.pth")
    # timm's own evaluation transform says what the two models see.
    transform = timm.data.create_transform(224, crop_pct=0.9, interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3)
    pictures = [photograph(number, (90, 60)) for number in range(24)]
    with torch.no_grad():
        images = torch.stack([transform(picture) for picture in pictures])
        plain = network(images).argmax(1)
        twicing = apply_twicing(network)(images).argmax(1)
    apart = [number for number in range(24) if plain[number] != twicing[number]]
    assert len(apart) >= 6
    for number in apart:
        path = Path("val", class_list("imagenet")[twicing[number]], f"ILSVRC2012_val_{number + 1:08d}.JPEG")
        path.parent.mkdir(parents=True, exist_ok=True)
        pictures[number].save(path, "PNG")
    write_table(imagenet_val=100.0)
    result = run("--json", "--data-dir", "imagenet=val", model="verify_vit=vit.pth")
    check = checked(result)["checks"]["imagenet-val"]
    assert (check["measured"], check["n"]) == (0.0, len(apart))
    assert check["cause"] == "attention: twicing instead of softmax"


# --- bad input ---------------------------------------------------------------------------------------------------


def test_an_unreadable_image_is_counted_and_ends_in_1():
    torch.save(checkpoint(), "sensor.pth")
    write_table(imagenet_a=100.0)
    folder = plant("imagenet-a")
    next(Path("data/imagenet-a").glob("*/*.jpg")).write_bytes(b"no image")
    result = run("--json", *folder)
    assert result.exit_code == 1
    check = checked(result)["checks"]["imagenet-a"]
    assert (check["n"], check["failed"], check["verdict"]) == (5, 1, "too few to tell")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], r"Nothing can be checked(.|\n)*imagenet-a: no folder: --data-dir imagenet-a=DIR"),
        (["--data-dir", "data"], "could belong to any"),
        (["--data-dir", "imagenet-a=nowhere"], "Nothing at nowhere"),
        (["--as", "sensr"], "Did you mean sensor"),
        (["--published", "nowhere.csv"], r"nowhere\.csv cannot be read"),
        (["--weights", "both"], "one model only"),
        (["--model", "verify_sensor"], "Unknown published model|no weights named"),
        (["--model", "deit-tw"], "no public weights"),
        (["--model", "verify_sensor=gone.pth"], r"No checkpoint at gone\.pth"),
        (["--recipe", "papre"], "papre"),
    ],
)
def test_mistakes_are_the_users(arguments, says):
    torch.save(checkpoint(), "sensor.pth")
    write_table(imagenet_a=100.0)
    if "--recipe" in arguments:
        arguments = [*arguments, *plant("imagenet-a")]
    result = run(*arguments)
    assert isinstance(result.exception, UserError)
    with pytest.raises(UserError, match=says):
        raise result.exception


def test_a_figure_for_another_image_size_is_not_compared():
    torch.save(checkpoint(), "sensor.pth")
    Path("published.csv").write_text(f"{HEADER}sensor,imagenet-a,384,1.0,bicubic,100,0\n")
    result = run(*plant("imagenet-a"))
    with pytest.raises(UserError, match=r"Nothing can be checked(.|\n)*published at 384 pixels, measured at 224"):
        raise result.exception


def test_a_figure_at_the_models_other_size_is_offered_by_its_option():
    torch.save(checkpoint(), "sensor.pth")
    where = plant("imagenet-a")
    for published, recipe, offered in ((224, [], "train-size"), (288, ["--recipe", "train-size"], "model")):
        Path("published.csv").write_text(f"{HEADER}sensor,imagenet-a,{published},1.0,bicubic,100,0\n")
        result = run(*where, *recipe, model="verify_tested_larger=sensor.pth")
        with pytest.raises(UserError, match=rf"published at {published} (.|\n)*--recipe {offered} for {published}\)"):
            raise result.exception


@pytest.mark.parametrize(("recipe", "size"), [([], 288), (["--recipe", "train-size"], 224)])
def test_the_models_line_says_the_size_that_its_images_had(recipe, size):
    torch.save(checkpoint(), "sensor.pth")
    Path("published.csv").write_text(f"{HEADER}sensor,imagenet-a,{size},1.0,bicubic,100,0\n")
    result = run(*plant("imagenet-a"), *recipe, model="verify_tested_larger=sensor.pth")
    assert f"verify_tested_larger at {size} × {size}, " in result.stdout
    assert "timm evaluates it at 288 pixels, trained at 224" in " ".join(result.stdout.split())
