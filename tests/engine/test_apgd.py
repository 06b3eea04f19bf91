"""APGD against closed forms, a plain version of the paper's algorithm, and the protocol's rules."""

import numpy as np
import pytest
import torch

from robustbench_twicing.engine.losses import dlr, targeted_dlr
from robustbench_twicing.engine.projections import random_start
from robustbench_twicing.errors import UserError
from robustbench_twicing.seeding import Draws
from tests.engine.tiny import (
    Exact,
    answers,
    apgd_settings,
    apgd_t_settings,
    attack,
    ids,
    random_images,
    small_net,
    threat,
)
from tests.oracles import apgd as paper
from tests.oracles.linear import Quadratic, TwoClassLinear, best_l2, best_linf

EPS = 8 / 255


def logits(*rows):
    return torch.tensor(rows, dtype=torch.float64)


# --- independent truth --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clip", [True, False])
def test_the_best_linf_attack_on_a_linear_model_is_found(clip):
    model, images = TwoClassLinear((3, 8, 8)), random_images(4)
    found = attack(model, images, torch.zeros(4, dtype=torch.int64), threat(apgd_settings(), clip=clip)).images
    best = best_linf(model.weight.detach().numpy(), images.numpy(), EPS, (0.0, 1.0) if clip else None)
    # Two roundings of numbers below 2 in float32: 2 x 2^-24 x 2.
    np.testing.assert_allclose(found, best, rtol=0, atol=2.5e-7)


def test_the_best_l2_attack_on_a_linear_model_is_found():
    model, images = TwoClassLinear((3, 8, 8)), random_images(4, low=0.3, high=0.7)
    what = threat(apgd_settings(40, norm="L2"), "0.5")
    found = attack(model, images, torch.zeros(4, dtype=torch.int64), what).images
    best = torch.from_numpy(best_l2(model.weight.detach().numpy(), images.numpy(), 0.5))
    # The lead is held to 2^-24 of itself, and flat at the top: an angle of 2^-11.5 goes unnoticed.
    torch.testing.assert_close(model(found), model(best), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found, best, rtol=0, atol=0.5 * 2**-11.5)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("steps", [7, 20, 100])
def test_every_step_is_the_papers(norm, steps):
    """On a quadratic, in float64. The oracle climbs the cross-entropy itself, ours the log odds."""
    model = Quadratic(48)
    eps, size = ("0.25", 0.25) if norm == "Linf" else ("1.5", 1.5)
    images = random_images(3, size=4, seed=3).double()
    what = threat(apgd_settings(steps, norm=norm), eps)
    found = attack(model, images, torch.zeros(3, dtype=torch.int64), what).images
    starts = random_start(images, size, norm, (0.0, 1.0), Draws(0, ids(3), what.id), 0)

    def lead(x):
        return float(model(torch.from_numpy(x)[None])[0, 0])

    def cross_entropy(x):
        return np.logaddexp(0.0, -lead(x))

    def gradient(x):
        return -model.gradient(torch.from_numpy(x)[None])[0].numpy() / (1 + np.exp(lead(x)))

    for image, start, mine in zip(images.numpy(), starts.numpy(), found.numpy(), strict=True):
        theirs = paper.apgd(cross_entropy, gradient, image, start, size, norm, steps)
        # float64 roundings, 100 steps that feed on each other.
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-9)


def test_the_dlr_losses_are_the_papers():
    z = logits([5.0, 2.0, 1.0, -1.0], [0.0, 4.0, 3.0, 1.0])
    labels, targets = torch.tensor([0, 0]), torch.tensor([3, 1])
    # Eq. 6: -(z_y - max other) / (largest - third). Eq. 7: -(z_y - z_t) / (largest - (third + fourth) / 2).
    expected = logits([-(5 - 2) / (5 - 1), -(0 - 4) / (4 - 1)])[0]
    torch.testing.assert_close(dlr(z, labels), expected)
    expected = logits([-(5 + 1) / (5 - (1 - 1) / 2), -(0 - 4) / (4 - (1 + 0) / 2)])[0]
    torch.testing.assert_close(targeted_dlr(z, labels, targets), expected)


@pytest.mark.parametrize("change", [lambda z: z + 3, lambda z: 7 * z])
def test_dlr_is_blind_to_shift_and_scale(change):
    z = torch.randn(20, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels, targets = torch.arange(20) % 6, (torch.arange(20) + 2) % 6
    torch.testing.assert_close(dlr(change(z), labels), dlr(z, labels))
    torch.testing.assert_close(targeted_dlr(change(z), labels, targets), targeted_dlr(z, labels, targets))


# --- what is asked of it ------------------------------------------------------------------------------------------


def test_targets_are_the_wrong_classes_in_the_order_of_the_clean_logits():
    """Class k + 1 needs the k-th value to go up; with one target only the strongest rival's may rise."""

    class Values(torch.nn.Module):
        def forward(self, images):
            first = images.flatten(1)[:, :5]
            return torch.cat((torch.full_like(first[:, :1], 9.0), first), dim=1)

    images = torch.full((1, 3, 2, 2), 0.5)
    images.flatten()[:5] = torch.tensor([0.4, 0.5, 0.46, 0.44, 0.42])
    images = images.reshape(1, 3, 2, 2)
    label = torch.tensor([0])
    for targets in (1, 2, 3):
        what = threat(apgd_t_settings(1, targets=targets), iterate="last")
        moved = attack(Values(), images, label, what).images - images
        values = moved.flatten()[:5]
        aimed = [1, 2, 3][targets - 1]  # the last walk's: the second value is the largest, then the third, the fourth
        assert values[aimed] == pytest.approx(EPS)


def test_any_wrong_answer_counts_not_only_the_target():
    model, images = small_net(), random_images(30)
    labels = answers(model, images)
    what = threat(apgd_t_settings(10, targets=1), "16/255", iterate="best")
    found = attack(model, images, labels, what)
    broken = answers(model, found.images) != labels
    assert broken.any()
    # One evaluation of the clean image, one of each iterate, none after the one that fooled the model.
    assert (found.forwards[~broken] == 12).all()
    assert (found.forwards[broken] < 12).any()


@pytest.mark.parametrize("settings", [apgd_settings(6, restarts=3), apgd_t_settings(6, targets=3)])
def test_a_sample_that_stands_costs_all_steps(settings):
    class Wall(torch.nn.Module):
        def forward(self, images):
            values = images.flatten(1)[:, :5]
            return values + torch.tensor([9.0, 0, 0, 0, 0])

    images = random_images(2)
    found = attack(Wall(), images, torch.tensor([0, 0]), threat(settings, iterate="best"))
    clean = 1 if settings.algorithm == "apgd-t" else 0
    assert found.forwards.tolist() == [3 * 7 + clean] * 2
    assert found.backwards.tolist() == [3 * 6] * 2
    assert settings.evaluations == 3 * 7 + clean + 1
    assert settings.gradients == 3 * 6


@pytest.mark.parametrize("restarts", [1, 2])
def test_targets_side_by_side_find_what_one_after_the_other_finds(restarts):
    """Whoever breaks by the first targets comes back as the same image, however many more go beside them."""
    model, images = Exact(small_net(size=16, seed=3)), random_images(24, size=16)
    labels, model.asked = answers(model, images), 0
    before, broken_before = images, torch.zeros(24, dtype=torch.bool)
    for targets in (1, 2, 3, 4):
        what = threat(apgd_t_settings(8, targets=targets, restarts=restarts), "6/255", iterate="best")
        found = attack(model, images, labels, what, batch_size=100)
        assert int(found.forwards.sum()) == model.asked
        parted = attack(model, images, labels, what, batch_size=3)
        assert torch.equal(parted.images, found.images)
        assert torch.equal(parted.forwards, found.forwards)
        broken = answers(model, found.images) != labels
        if restarts == 1:
            assert torch.equal(found.images[broken_before], before[broken_before])
            assert (broken | ~broken_before).all()
        before, broken_before, model.asked = found.images, broken, 0
    assert 0 < broken.sum() < 24


def test_a_fooled_sample_costs_nothing_more():
    model, images = small_net(), random_images(8)
    labels = (answers(model, images) + 1) % 5  # every sample is fooled from the start
    found = attack(model, images, labels, threat(apgd_settings(10, restarts=3), "0.0001/255", iterate="best"))
    assert found.forwards.tolist() == found.backwards.tolist() == [1] * 8


@pytest.mark.parametrize(
    ("few", "more"),
    [
        (apgd_settings(3), apgd_settings(3, restarts=4)),
        (apgd_t_settings(3, targets=1), apgd_t_settings(3, targets=1, restarts=4)),
        (apgd_t_settings(3, targets=1), apgd_t_settings(3, targets=4)),
        (apgd_t_settings(3, targets=1, restarts=2), apgd_t_settings(3, targets=4, restarts=2)),
    ],
)
def test_more_walks_never_make_a_model_look_more_robust(few, more):
    model, images = small_net(), random_images(80)
    labels = answers(model, images)
    robust, still = (
        answers(model, attack(model, images, labels, threat(each, "3/255", iterate="best")).images) == labels
        for each in (few, more)
    )
    assert 0 < robust.sum() < 80
    assert not (still & ~robust).any()


def test_more_steps_break_at_least_as_many():
    """Not sample by sample: the checkpoints move with the number of steps."""
    model, images = small_net(), random_images(80)
    labels = answers(model, images)
    robust = []
    for steps in (1, 10, 50):
        found = attack(model, images, labels, threat(apgd_settings(steps, norm="L2"), "0.3", iterate="best"))
        robust.append(int((answers(model, found.images) == labels).sum()))
    assert robust == sorted(robust, reverse=True)
    assert robust[0] > robust[-1]


def test_too_few_classes_are_refused():
    images, label = random_images(1), torch.tensor([0])
    with pytest.raises(UserError, match="needs at least 3 classes; the model has 2"):
        attack(small_net(classes=2), images, label, threat(apgd_settings(loss="dlr")))
    with pytest.raises(UserError, match="needs at least 4 classes; the model has 3"):
        attack(small_net(classes=3), images, label, threat(apgd_t_settings()))
    attack(small_net(classes=3), images, label, threat(apgd_settings(loss="dlr")))
    attack(small_net(classes=4), images, label, threat(apgd_t_settings()))
