"""MI-FGSM against another library, a closed form and the paper's recursion."""

import numpy as np
import pytest
import torch
import torchattacks

from tests.engine.tiny import answers, attack, mifgsm_settings, random_images, small_net, threat
from tests.oracles.linear import Quadratic, TwoClassLinear, best_l2, best_linf

EPS = 8 / 255


@pytest.mark.parametrize("decay", [0.0, 0.5, 1.0])
def test_it_agrees_with_torchattacks(decay):
    model, images = small_net(), random_images(6)
    labels = answers(model, images)
    ours = attack(model, images, labels, threat(mifgsm_settings(10, "0.25 eps", decay))).images
    theirs = torchattacks.MIFGSM(model, eps=EPS, alpha=0.25 * EPS, steps=10, decay=decay)(images, labels)
    difference = (ours - theirs).abs()
    print(f"max {difference.max():.2e}, mean {difference.mean():.2e}")
    # Two roundings of numbers below 2 in float32.
    assert difference.max() <= 2.5e-7


def test_the_best_attacks_on_a_linear_model_are_found():
    model, images = TwoClassLinear((3, 8, 8)), random_images(4, low=0.3, high=0.7)
    weight, labels = model.weight.detach().numpy(), torch.zeros(4, dtype=torch.int64)
    linf = attack(model, images, labels, threat(mifgsm_settings())).images
    np.testing.assert_allclose(linf, best_linf(weight, images.numpy(), EPS, (0.0, 1.0)), rtol=0, atol=2.5e-7)
    l2 = attack(model, images, labels, threat(mifgsm_settings(norm="L2"), "0.5")).images
    # 10 steps, each with a norm over 192 values: a few dozen roundings of values below 1.
    np.testing.assert_allclose(l2, best_l2(weight, images.numpy(), 0.5), rtol=0, atol=3e-6)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_every_step_is_the_papers(norm):
    """On a quadratic in float64, whose cross-entropy has a gradient in closed form."""
    model, images = Quadratic(48), random_images(2, size=4, low=0.4, high=0.6).double()
    eps, size = ("0.2", 0.2) if norm == "Linf" else ("0.35", 0.35)
    what = threat(mifgsm_settings(5, "0.15 eps", 0.9, norm=norm), eps)
    found = attack(model, images, torch.tensor([0, 0]), what).images
    for image, mine in zip(images, found, strict=True):
        x, g = image, torch.zeros_like(image)
        for _ in range(5):  # 0.75 eps in all: nothing to project
            lead = model(x[None])[0, 0]
            gradient = -model.gradient(x[None])[0] * torch.sigmoid(-lead)
            g = 0.9 * g + gradient / gradient.abs().sum()
            x = x + 0.15 * size * (g.sign() if norm == "Linf" else g / g.norm())
        torch.testing.assert_close(mine, x, rtol=0, atol=1e-12)


def test_more_steps_never_make_a_model_look_more_robust():
    model, images = small_net(classes=3), random_images(60)
    labels = answers(model, images)
    robust, still = (
        answers(model, attack(model, images, labels, threat(each, "2/255", iterate="best")).images) == labels
        for each in (mifgsm_settings(3, "0.3 eps"), mifgsm_settings(12, "0.3 eps"))
    )
    assert 0 < robust.sum() < 60
    assert not (still & ~robust).any()
