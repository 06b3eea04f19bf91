"""Where the pictures of frost come from."""

import numpy as np
import pytest
import torch
from PIL import Image

from robustbench_twicing.engine.corruptions import corrupt, frost_pictures
from robustbench_twicing.engine.corruptions.frost import FROST_FILES
from robustbench_twicing.errors import UserError


@pytest.fixture
def folder(tmp_path):
    """Pictures of one colour each, named as the original's."""
    for index, name in enumerate(FROST_FILES):
        Image.new("RGB", (300, 260), (50 * index, 50 * index, 50 * index)).save(tmp_path / name, quality=100)
    return tmp_path


def test_a_named_folder_is_used(folder):
    pictures = frost_pictures(folder)
    assert pictures.source == str(folder)
    black = torch.zeros(64, 3, 128, 128)
    frosted = corrupt(black, "frost", 1, frost_dir=folder) * 255
    # 0.4 of each of the five pictures, truncated; all five turn up among 64 images.
    assert np.unique(frosted.round().numpy()).tolist() == [0, 20, 40, 60, 80]


def test_other_pictures_have_another_fingerprint(folder, tmp_path):
    before = frost_pictures(folder).fingerprint
    other = tmp_path / "other"
    other.mkdir()
    for name in FROST_FILES:
        Image.new("RGB", (300, 260), (1, 2, 3)).save(other / name)
    assert frost_pictures(other).fingerprint != before


def test_a_folder_that_lacks_a_picture_is_refused(folder):
    (folder / "frost4.jpg").unlink()
    with pytest.raises(UserError, match=r"No frost4\.jpg in"):
        frost_pictures(folder)


def test_without_photographs_frost_is_drawn(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert frost_pictures().source == "drawn"
    assert frost_pictures() is frost_pictures("drawn")


def test_photographs_of_an_installed_imagecorruptions_are_found(monkeypatch, folder):
    package = folder.parent / "package"
    package.mkdir()
    folder.rename(package / "frost")
    spec = type("Spec", (), {"origin": str(package / "__init__.py")})()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: spec if name == "imagecorruptions" else None)
    assert frost_pictures().source == str(package / "frost")


def test_drawn_frost_dims_and_whitens_like_the_originals_photographs():
    # Mean and standard deviation of red, green and blue, measured on the photographs.
    photographs = {
        0: ((77.7, 149.1, 165.7), (26.9, 16.5, 15.3)),
        1: ((200.8, 205.4, 214.5), (21.4, 22.1, 22.6)),
        3: ((137.6, 152.8, 165.2), (28.5, 28.5, 29.9)),
        4: ((112.4, 123.4, 134.8), (44.4, 43.3, 41.7)),
    }
    drawn = frost_pictures("drawn").pictures
    for index, (mean, deviation) in photographs.items():
        # Clipping to 255 takes a little from the brightest.
        torch.testing.assert_close(drawn[index].mean((1, 2)), torch.tensor(mean), atol=0.5, rtol=0)
        torch.testing.assert_close(drawn[index].std((1, 2)), torch.tensor(deviation), atol=0.5, rtol=0)


def test_an_image_larger_than_the_pictures_gets_them_enlarged():
    frosted = corrupt(torch.zeros(1, 3, 700, 1000), "frost", 5, frost_dir="drawn")
    assert frosted.amin() >= 0
    assert (frosted > 0).float().mean() > 0.95  # the overlay covers all of it
