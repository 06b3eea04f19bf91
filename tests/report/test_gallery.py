"""Kept images in the HTML report: clean, perturbed, the difference magnified, and every model's answer."""

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from robustbench_twicing import api
from robustbench_twicing.report.formats import FORMATS
from robustbench_twicing.report.full import full_page
from robustbench_twicing.report.page import Gallery, Page
from robustbench_twicing.report.plots import save_plots
from robustbench_twicing.results.compared import compared_runs
from tests.records_builder import records, run_folder

ATTACK = "fgsm-linf-8/255"
MEAN, STD = np.array([0.5, 0.4, 0.3]), np.array([0.2, 0.25, 0.5])


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """Of a run whose second model is worse on class 3, and kept two images of it, in normalised space; 160 pixels."""
    right = np.arange(400) % 50 > 0
    worse = right & (np.arange(400) % 10 != 3)
    outcomes = {(model, threat): right for model in ("deit", "<b>tw") for threat in ("clean", ATTACK)}
    path = run_folder(tmp_path_factory.mktemp("gallery") / "run", records(outcomes | {("<b>tw", ATTACK): worse}))
    run = api.load_run(path)
    (entry,) = [one for one in run.manifest.cells if (one.model, one.threat) == ("<b>tw", ATTACK)]
    place = path / "images" / entry.folder
    place.mkdir(parents=True)
    clean = np.full((2, 3, 160, 160), 0.4, dtype=np.float32)
    shown = clean.copy()
    shown[:, 0] += 8 / 255
    arrays = {"ids": np.array(["test-00003", "test-00004"]), "labels": np.array([3, 4]), "clean": clean}
    images = (shown - MEAN.reshape(1, 3, 1, 1)) / STD.reshape(1, 3, 1, 1)
    np.savez(place / "images.npz", images=images, space=np.array("normalized"), mean=MEAN, std=STD, **arrays)
    return full_page([run], compared_runs([run]))


def test_the_perturbed_image_is_that_of_who_kept_it_and_answers_are_those_of_all(page: Page) -> None:
    gallery, sheet = [part for part in page.parts if isinstance(part, Gallery)]
    three, four = gallery.pictures
    assert [said for said, _ in three.images] == ["clean", f"under {ATTACK}, for <b>tw", "difference × 15"]
    (_, clean), (_, image), (_, change) = three.images
    assert {clean.dtype, image.dtype} == {np.dtype("uint8")}
    assert (clean[0, 0].tolist(), image[0, 0].tolist()) == ([102] * 3, [110, 102, 102])
    assert change[0, 0].tolist() == pytest.approx([247.5, 127.5, 127.5], abs=1)
    assert three.said == ("deit: 3, right", "<b>tw: 4, wrong")
    assert four.said == ("deit: 4, right", "<b>tw: 4, right")
    assert sheet.title == "Images of the largest slice: class 3 under fgsm-linf"
    assert [picture.title for picture in sheet.pictures] == [three.title]


def test_html_holds_the_pictures_as_thumbs_with_their_words_and_other_formats_hold_none(page: Page) -> None:
    text = FORMATS["html"].write(page).decode()
    found = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)" alt="([^"]+)">', text)
    assert len(found) == 9
    assert all(Image.open(io.BytesIO(base64.b64decode(data))).size == (160, 160) for data, _ in found)
    assert found[0][1] == f"test-00003, class 3, under {ATTACK}: clean"
    assert "&lt;b&gt;tw: 4, wrong" in text
    assert "<b>tw" not in text
    for name in ("terminal", "markdown", "latex", "csv", "json"):
        assert b"largest slice" not in FORMATS[name].write(page)


def test_a_damaged_file_of_images_costs_the_gallery_only(tmp_path: Path) -> None:
    path = run_folder(tmp_path / "run", records({("deit", "clean"): [True], ("deit", ATTACK): [True]}))
    run = api.load_run(path)
    place = path / "images" / run.manifest.cells[1].folder
    place.mkdir(parents=True)
    (place / "images.npz").write_bytes(b"PK\x03\x04 cut short")
    assert not [part for part in full_page([run], None).parts if isinstance(part, Gallery)]


def test_plots_hold_an_image_sheet_of_the_largest_slice(page: Page, tmp_path: Path) -> None:
    sheets = tuple(part for part in page.parts if isinstance(part, Gallery))
    save_plots(Page("sheets", sheets), tmp_path)
    assert {path.stem for path in tmp_path.iterdir()} == {"gallery", "largest-slice"}
    with Image.open(tmp_path / "largest-slice.png") as image:
        assert image.width == 2070
    svg = (tmp_path / "largest-slice.svg").read_text("utf-8")
    assert "class 3 under fgsm-linf" in svg
    assert "&lt;b&gt;tw: 4, wrong" in svg
