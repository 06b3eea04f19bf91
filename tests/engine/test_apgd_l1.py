"""Auto-PGD in the L1 ball: the projection, the best attack on a linear model, and the reference where it is."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import nn

from robustbench_twicing.engine.measured import verify
from robustbench_twicing.engine.projections import project_l1
from robustbench_twicing.seeding import Draws
from tests.engine.tiny import (
    answers,
    apgd_settings,
    apgd_t_settings,
    attack,
    ids,
    pgd_settings,
    random_images,
    small_net,
    threat,
)
from tests.oracles.linear import TwoClassLinear


@pytest.mark.parametrize("bounds", [(0.0, 1.0), None])
@pytest.mark.parametrize("eps", [0.3, 1.0, 3.0])
def test_the_projection_is_the_nearest_point(bounds, eps):
    center = random_images(4, 2)
    point = center + 2 * random_images(4, 2, seed=2) - 1
    found = project_l1(point, center, eps, bounds)
    for row in range(4):
        c, p = (images[row].flatten().double().numpy() for images in (center, point))
        # Positive and negative parts of the change, so that the problem is smooth.
        room = [(0, 1 - v) for v in c] + [(0, v) for v in c] if bounds else [(0, None)] * 24
        best = minimize(
            lambda parts, c=c, p=p: ((c + parts[:12] - parts[12:] - p) ** 2).sum(),
            np.zeros(24),
            jac=lambda parts, c=c, p=p: np.concatenate([d := 2 * (c + parts[:12] - parts[12:] - p), -d]),
            bounds=room,
            constraints={"type": "ineq", "fun": lambda parts: eps - parts.sum(), "jac": lambda parts: -np.ones(24)},
            options={"maxiter": 500, "ftol": 1e-14},
        )
        np.testing.assert_allclose(found[row].flatten(), c + best.x[:12] - best.x[12:], rtol=0, atol=2e-5)


def test_what_lies_inside_stays_and_the_image_is_its_own_projection():
    center = random_images(3)
    near = (center + 1e-4 * (random_images(3, seed=2) - 0.5)).clamp(0, 1)
    torch.testing.assert_close(project_l1(near, center, 1.0, (0.0, 1.0)), near)
    far = project_l1(center + 5, center, 2.0, (0.0, 1.0))
    assert torch.equal(project_l1(center, center, 0.5, (0.0, 1.0)), center)
    torch.testing.assert_close((far - center).abs().sum((1, 2, 3)), torch.full((3,), 2.0))


@pytest.mark.parametrize("eps", ["2", "12"])
def test_the_best_attack_on_a_linear_model_is_found_nearly(eps):
    """It spends eps on the largest weights first, each as far as its pixel goes."""
    model, images = TwoClassLinear((3, 8, 8)), random_images(10)
    labels = torch.zeros(10, dtype=torch.int64)
    found = attack(model, images, labels, threat(apgd_settings(100, norm="L1"), eps, iterate="last"))
    weight = model.weight.detach().flatten()
    pixels = images.flatten(1)
    room = torch.where(weight > 0, pixels, 1 - pixels)
    order = weight.abs().argsort(descending=True)
    spent = room[:, order].cumsum(1).clamp(max=float(eps)).diff(dim=1, prepend=torch.zeros(10, 1))
    best = (spent * weight.abs()[order]).sum(1)
    lost = (model(images) - model(found.images))[:, 0].detach()
    assert (lost <= best * (1 + 1e-5)).all()
    assert (lost >= 0.97 * best).all()


@pytest.mark.parametrize("settings", [apgd_settings(20, norm="L1"), apgd_t_settings(20, norm="L1", targets=2)])
def test_only_points_of_the_ball_of_eps_are_judged(settings):
    model, images = small_net(), random_images(24)
    labels, what = answers(model, images), threat(settings, "3", iterate="best")
    found = attack(model, images, labels, what)
    broken = answers(model, found.images) != labels
    assert 0 < int(broken.sum()) < 24
    assert set(verify(found, images, what).reasons) == {""}
    asked = found.forwards - int(settings.algorithm == "apgd-t")
    assert (asked[broken] >= 7 + 7 + 1).all()  # both larger balls come first: 6 steps each, and their starts
    targets = 2 if settings.algorithm == "apgd-t" else 1
    assert (asked[~broken] == 23 * targets).all()  # 20 steps, three starts


def test_a_sum_above_eps_is_seen():
    images, what = random_images(2, low=0.2, high=0.8), threat(apgd_settings(1, norm="L1"), "1")
    found = attack(small_net(), images, torch.zeros(2, dtype=torch.int64), what)
    moved = images + 0.006  # 1.15 in L1 over 192 values, 0.083 in L2
    assert (
        verify(found._replace(images=moved), images, what).reasons
        == ("the perturbation has L1 norm 1.152, more than eps 1",) * 2
    )


def test_a_norm_that_an_attack_does_not_know_is_refused():
    with pytest.raises(ValueError, match="norm = 'L1', but pgd knows Linf and L2"):
        pgd_settings(3, norm="L1")


@pytest.mark.parametrize("steps", [10, 40])
def test_the_same_samples_break_as_with_the_reference(steps, monkeypatch):
    """github.com/fra31/auto-attack, which is on no registry: put its folder `autoattack` into PYTHONPATH."""
    there = pytest.importorskip("autoattack.autopgd_base")
    model, images = small_net(), random_images(24)
    labels, what = answers(model, images), threat(apgd_settings(steps, norm="L1"), "3", iterate="best")
    ours = attack(model, images, labels, what).images
    start = Draws(0, ids(24), what.id).normal(0, (3, 8, 8))
    monkeypatch.setattr(torch, "randn_like", lambda images: start)
    options = {"n_iter": steps, "norm": "L1", "eps": 3.0, "loss": "ce", "device": "cpu", "use_largereps": True}
    theirs = there.APGDAttack(model, seed=0, **options).perturb(images, labels)
    assert torch.equal(answers(model, ours) != labels, answers(model, theirs) != labels)


class _Blind(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.stack((images.sum((1, 2, 3)) * torch.nan, images.sum((1, 2, 3))), dim=1)


def test_a_gradient_that_is_no_number_comes_back_as_one():
    found = attack(
        _Blind(), random_images(2), torch.zeros(2, dtype=torch.int64), threat(apgd_settings(3, norm="L1"), "1")
    )
    assert not found.images.isfinite().all()
