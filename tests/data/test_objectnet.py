"""ObjectNet: whose classes count, and what is cut off."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from robustbench_twicing import evaluate
from robustbench_twicing.catalog.suites import class_list, suite
from robustbench_twicing.data.check import check_suite
from robustbench_twicing.data.imagenet import ImageFiles, index_images
from robustbench_twicing.data.layout import find_suite
from robustbench_twicing.errors import UserError
from robustbench_twicing.spec.models import Recipe
from tests.imagenet_trees import LabelReader, picture_of

OBJECTS = {"Alarm clock": ("alarm_clock", "analog clock; digital clock"), "Desk lamp": ("desk_lamp", "table lamp")}
NAMES = {"analog clock": 409, "digital clock": 530, "table lamp": 846}


def _framed(number: int) -> Image.Image:
    """A picture within a red border."""
    inner = picture_of(number, size=(76, 56))
    framed = Image.new("RGB", (80, 60), (255, 0, 0))
    framed.paste(inner, (2, 2))
    return framed


def _objectnet(root: Path) -> Path:
    """Three images in two objects, and a third object that ImageNet does not know."""
    (root / "mappings").mkdir(parents=True)
    for folder, shown in (("alarm_clock", (409, 530)), ("desk_lamp", (846,)), ("air_freshener", (1,))):
        (root / "images" / folder).mkdir(parents=True)
        for number in shown:
            _framed(number).save(root / "images" / folder / f"{number:x}.png")
    lines = dict(enumerate([*NAMES, "tench"]))
    mappings = {
        "folder_to_objectnet_label.json": {folder: label for label, (folder, _) in OBJECTS.items()}
        | {"air_freshener": "Air freshener"},
        "objectnet_to_imagenet_1k.json": {label: classes for label, (_, classes) in OBJECTS.items()},
        "pytorch_to_imagenet_2012_id.json": {str({**NAMES, "tench": 0}[name]): line for line, name in lines.items()},
    }
    for name, content in mappings.items():
        (root / "mappings" / name).write_text(json.dumps(content))
    (root / "mappings" / "imagenet_to_label_2012_v2").write_text("".join(f"{name}\n" for name in lines.values()))
    return root


def _dataset(directory: Path) -> ImageFiles:
    return index_images(find_suite(suite("objectnet"), directory))


def test_objects_have_the_classes_that_the_download_gives_them(tmp_path: Path) -> None:
    read = _dataset(_objectnet(tmp_path / "objectnet-1.0").parent)
    wnids = class_list("imagenet")
    assert dict(zip(read.sample_ids, read.accepted or (), strict=True)) == {
        f"{wnids[409]}/alarm_clock-199": (409, 530),
        f"{wnids[409]}/alarm_clock-212": (409, 530),
        f"{wnids[846]}/desk_lamp-34e": (846,),
    }
    assert {*read.labels} == {409, 846}
    report = check_suite(suite("objectnet"), tmp_path, deep=True)
    assert [finding.message for finding in report.errors] == ["3 images, expected 18,574"]


def test_the_border_is_cut_off_and_nothing_else(tmp_path: Path) -> None:
    read = _dataset(_objectnet(tmp_path))
    position = read.sample_ids.index(f"{class_list('imagenet')[846]}/desk_lamp-34e")
    recipe = Recipe(resize=56, crop=56, interpolation="bicubic")
    image = read.read([position], [recipe]).images[recipe][0]
    inner = np.asarray(picture_of(846, size=(76, 56)).crop((10, 0, 66, 56)))
    torch.testing.assert_close(image, torch.from_numpy(inner.copy()).permute(2, 0, 1) / 255)


def test_any_of_an_objects_classes_is_right(tmp_path: Path) -> None:
    run = evaluate(
        {"reader": LabelReader()},
        suites="objectnet",
        directories={"objectnet": _objectnet(tmp_path / "data")},
        image_size=64,
        device="cpu",
        preflight=False,
        out=tmp_path / "run",
    )
    rows = run.records[run.records["threat"] == "objectnet"].set_index("sample_id")
    assert rows["correct"].all()
    assert sorted(rows["prediction"]) == [409, 530, 846]  # the second clock is no analog one, and right all the same


def _without(name: str) -> Callable[[Path], None]:
    return lambda root: (root / "mappings" / name).unlink()


def _other_label(root: Path) -> None:
    (root / "mappings" / "objectnet_to_imagenet_1k.json").write_text(json.dumps({"Alarm clock": "sundial"}))


def _no_object(root: Path) -> None:
    (root / "mappings" / "objectnet_to_imagenet_1k.json").write_text(json.dumps({"Teapot": "table lamp"}))


def _too_high(root: Path) -> None:
    path = root / "mappings" / "pytorch_to_imagenet_2012_id.json"
    path.write_text(path.read_text().replace('"846"', '"1846"'))


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (_without("folder_to_objectnet_label.json"), "cannot be read"),
        (_without("imagenet_to_label_2012_v2"), "cannot be read"),
        (_other_label, "do not fit together: no 'sundial'"),
        (_no_object, "do not fit together: no 'Teapot'"),
        (_too_high, "names no classes of ImageNet"),
        (lambda root: (root / "mappings").rename(root / "maps"), "with mappings/ beside it"),
    ],
)
def test_a_download_that_is_not_whole_is_refused_by_name(
    tmp_path: Path, harm: Callable[[Path], None], why: str
) -> None:
    harm(_objectnet(tmp_path))
    with pytest.raises(UserError) as refused:
        _dataset(tmp_path)
    assert why in refused.value.message
    assert str(tmp_path) in refused.value.message
