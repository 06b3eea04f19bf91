"""Every algorithm with a model that gives it nothing to work with: no crash, nothing that looks robust by mistake."""

import pytest
import torch

from robustbench_twicing.engine.measured import verify
from tests.engine.test_properties import ATTACKS
from tests.engine.tiny import answers, attack, random_images, small_vit, threat

OURS = [name for name in ATTACKS if name != "torchattacks"]


class Idle(torch.nn.Module):
    """With blocks for attacks that look inside, of which nothing comes out."""

    def __init__(self):
        super().__init__()
        self.inside = small_vit(classes=5)
        self.blocks = self.inside.blocks

    def nothing(self, images):
        return 0 * self.inside(images)


class Flat(Idle):
    """It ignores its input: every gradient is zero."""

    def forward(self, images):
        return torch.tensor([2.0, 1.0, 0.5, 0.1, 0.0]) + self.nothing(images)


class Broken(Idle):
    """NaN for every image but the clean one, or for its gradient alone."""

    def __init__(self, clean, label, gradient_only):
        super().__init__()
        self.clean, self.label, self.gradient_only = clean, label, gradient_only

    def forward(self, images):
        z = torch.tensor([2.0, 1.0, 0.5, 0.1, 0.0]).roll(self.label) + 0.01 * images.flatten(1)[:, :5]
        z = z + self.nothing(images)
        if self.gradient_only:
            return z + (images.sum((1, 2, 3)) * 0.0).sqrt()[:, None]  # the slope of a root at 0 is 0 x infinity
        known = (images[:, None] == self.clean).flatten(2).all(2).any(1)
        return torch.where(known[:, None], z, torch.nan)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("iterate", ["best", "last"])
@pytest.mark.parametrize("name", OURS)
def test_a_model_without_a_slope_gets_valid_images(name, iterate, count):
    images, what = random_images(count), threat(ATTACKS[name], iterate=iterate)
    found = attack(Flat(), images, torch.zeros(count, dtype=torch.int64), what)
    assert set(verify(found, images, what).reasons) == {""}


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("iterate", ["best", "last"])
@pytest.mark.parametrize("name", OURS)
def test_nan_logits_come_back_to_the_runner(name, iterate, label):
    """What comes back is either no image, or one whose logits are NaN: the runner records both as failed."""
    images, what = random_images(3), threat(ATTACKS[name], iterate=iterate)
    model = Broken(images, label, gradient_only=False)
    found = attack(model, images, torch.full((3,), label), what)
    checked = verify(found, images, what)
    logits = model(checked.images)
    assert all(reason or row.isnan().any() for reason, row in zip(checked.reasons, logits, strict=True))


@pytest.mark.parametrize("name", [name for name in OURS if ATTACKS[name].gradients])
def test_nan_gradients_come_back_as_no_image(name):
    images, what = random_images(2), threat(ATTACKS[name], iterate="best")
    model = Broken(images, 0, gradient_only=True)
    assert answers(model, images).tolist() == [0, 0]
    found = attack(model, images, torch.tensor([0, 0]), what)
    assert set(verify(found, images, what).reasons) == {"the perturbed image is not finite"}
