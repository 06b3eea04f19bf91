"""The runner's check finds every way in which an engine can be wrong."""

import math

import pytest
import torch

from robustbench_twicing.engine.contract import Perturbed
from robustbench_twicing.engine.measured import verify
from tests.engine.tiny import fgsm_settings, random_images, threat

EPS = 8 / 255


def check(images, perturbed, norm="Linf", eps="8/255", clip=True):
    counts = torch.zeros(len(images), dtype=torch.int64)
    return verify(Perturbed(perturbed, counts, counts), images, threat(fgsm_settings(norm), eps, clip=clip))


def test_what_is_fine_passes_and_is_measured():
    images = random_images(3, low=0.2, high=0.8)
    moved = images.clone()
    moved[0] += EPS
    moved[1, 0, 0, 0] -= 0.5 * EPS
    found = check(images, moved)
    assert found.reasons == ("", "", "")
    assert torch.equal(found.images, moved)
    expected = torch.tensor([EPS, 0.5 * EPS, 0.0], dtype=torch.float64)
    # float32 images of size one.
    torch.testing.assert_close(found.linf, expected, rtol=0, atol=1e-7)
    expected[0] *= math.sqrt(192)
    torch.testing.assert_close(found.l2, expected, rtol=0, atol=1e-6)


def spoil(how):
    def change(images):
        moved = images.clone()
        moved[1, 2, 3, 3] = how(moved[1, 2, 3, 3])
        return moved

    return change


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (spoil(lambda value: math.nan), "not finite"),
        (spoil(lambda value: math.inf), "not finite"),
        (spoil(lambda value: value + 1.001 * EPS), "more than eps"),
        (spoil(lambda value: value + 0.3), "more than eps"),
    ],
)
def test_one_wrong_value_condemns_its_sample_alone(change, word):
    images = random_images(3, low=0.2, high=0.8)
    found = check(images, change(images))
    assert found.reasons[0] == found.reasons[2] == ""
    assert word in found.reasons[1]
    assert torch.equal(found.images, images)  # what is condemned is never shown to the model


def test_leaving_the_range_is_wrong_where_the_protocol_clips():
    images = random_images(2, low=0.0, high=0.01)
    assert "leaves the range [0, 1]" in check(images, images - 0.5 * EPS).reasons[0]
    assert check(images, images - 0.5 * EPS, clip=False).reasons == ("", "")


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("size", [1.0, 3.0])
def test_rounding_is_no_offence(norm, size):
    """x + delta computed in float32 at the edge of the ball, for pixels and for normalised values."""
    images = size * (2 * random_images(50) - 1)
    delta = torch.randn(images.shape, generator=torch.Generator().manual_seed(0)).sign()
    delta *= EPS if norm == "Linf" else EPS / math.sqrt(192)
    perturbed = images + delta
    measured = (perturbed.double() - images.double()).abs().max() * (1 if norm == "Linf" else math.sqrt(192))
    assert measured > EPS  # without slack it would be refused
    assert set(check(images, perturbed, norm, "8/255", clip=False).reasons) == {""}


def test_one_strange_image_does_not_loosen_the_check_of_another():
    images = random_images(2, low=0.2, high=0.8)
    images[0, 0, 0, 0] = math.nan
    found = check(images, images + torch.tensor([0.0, 1.01 * EPS])[:, None, None, None], clip=False)
    assert "not finite" in found.reasons[0]
    assert "more than eps" in found.reasons[1]


@pytest.mark.parametrize(
    "wrong", [lambda x: x[:2], lambda x: x[..., :-1], lambda x: x.double(), lambda x: (x * 255).to(torch.uint8)]
)
def test_another_shape_or_type_condemns_all(wrong):
    images = random_images(3)
    found = check(images, wrong(images))
    assert all(reason.startswith("the engine returned") for reason in found.reasons)
    assert torch.equal(found.images, images)
    assert found.linf.isnan().all()
    assert found.l2.isnan().all()
