"""FAB-T against closed forms, torchattacks' FAB sample by sample, and the protocol's rules."""

import numpy as np
import pytest
import torch
import torchattacks
from hypothesis import given, settings
from hypothesis import strategies as st

from robustbench_twicing.engine.hyperplane import to_hyperplane
from robustbench_twicing.engine.measured import distances
from tests.engine.tiny import answers, attack, fab_t_settings, random_images, small_net, threat
from tests.oracles.hyperplane import nearest
from tests.oracles.linear import TwoClassLinear


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@given(seed=st.integers(0, 2**31), share=st.floats(-1.5, 1.5), bounded=st.booleans(), sparse=st.booleans())
@settings(max_examples=40, deadline=None)
def test_the_step_to_a_hyperplane_is_the_shortest_within_the_range(norm, seed, share, bounded, sparse):
    """`share` of what the range allows: beyond 1 the hyperplane is out of reach."""
    generator = np.random.default_rng(seed)
    points = generator.random((3, 3, 4, 4)).astype(np.float32)
    normal = generator.normal(size=points.shape).astype(np.float32)
    if sparse:
        points[points < 0.4] = 0.0
        normal[generator.random(points.shape) < 0.3] = 0.0
    most = np.where(normal * share > 0, 1 - points, points) * np.abs(normal)
    rise = (share * most.sum((1, 2, 3))).astype(np.float32)
    bounds = (0.0, 1.0) if bounded else None
    found = to_hyperplane(*map(torch.from_numpy, (points, normal, rise)), norm, bounds).numpy()
    for point, slope, wanted, mine in zip(points, normal, rise, found, strict=True):
        expected = nearest(point, slope, float(wanted), norm, *(bounds or (-np.inf, np.inf)))
        # float32: 48 products, and a step that one of them alone decides where all others are at their bounds.
        np.testing.assert_allclose(mine.ravel(), expected, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_the_nearest_mistake_of_a_linear_model_is_found(norm):
    model, images = TwoClassLinear((3, 8, 8)), random_images(4, low=0.45, high=0.55)
    labels = answers(model, images)
    what = threat(fab_t_settings(20, norm=norm, keeps="closest"), "0.4" if norm == "Linf" else "6", iterate="best")
    found = distances(attack(model, images, labels, what).images, images)[0 if norm == "Linf" else 1]
    gap = (model(images)[:, 0] - model(images)[:, 1]).abs().double()
    slope = model.weight.double()
    nearest_mistake = gap / (slope.abs().sum() if norm == "Linf" else slope.norm())
    # Each iterate oversteps by 5 %, and the last ones come from either side.
    assert (found >= nearest_mistake * (1 - 1e-5)).all()
    assert (found <= nearest_mistake * 1.06).all()


@pytest.mark.parametrize(("norm", "eps"), [("Linf", "3/255"), ("L2", "0.3")])
def test_every_sample_that_torchattacks_breaks_is_broken(norm, eps):
    """Neither draws: the same walk, in other sums."""
    model, images = small_net(), random_images(50, seed=3)
    labels = answers(model, images)
    what = threat(fab_t_settings(8, norm=norm), eps, iterate="best")
    ours = answers(model, attack(model, images, labels, what, batch_size=100).images) != labels
    peer = torchattacks.FAB(model, norm, float(what.eps), steps=8, multi_targeted=True, n_classes=5)
    theirs = answers(model, peer(images, labels)) != labels
    alone = int((ours & ~theirs).sum())
    print(f"broken {int(ours.sum())}, by ours alone {alone}")
    assert 0 < ours.sum() < 50
    assert not (theirs & ~ours).any()
    assert alone <= 1


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_the_closest_is_as_close_as_torchattacks(norm):
    model, images = small_net(), random_images(12)
    labels = answers(model, images)
    what = threat(fab_t_settings(8, norm=norm, keeps="closest"), "0.9" if norm == "Linf" else "12", iterate="best")
    ours = distances(attack(model, images, labels, what, batch_size=100).images, images)
    peer = torchattacks.FAB(model, norm, 100.0, steps=8, multi_targeted=True)
    peer.seed, theirs = 0, []
    for peer.target_class in range(2, 6):
        found = peer.attack_single_run_targeted(images, labels)
        each = distances(found, images)[0 if norm == "Linf" else 1]
        theirs.append(each.where(answers(model, found) != labels, torch.inf))
    ratio = ours[0 if norm == "Linf" else 1] / torch.stack(theirs).amin(0)
    print(f"ours over theirs: {ratio.min():.6f} to {ratio.max():.6f}")
    assert ((ratio - 1).abs() < 2e-3).all()  # float32, in 8 steps that feed on each other


def test_all_targets_are_counted_and_a_fooled_sample_leaves():
    model, images = small_net(), random_images(20)
    labels = answers(model, images)
    what = threat(fab_t_settings(6, targets=3), "6/255", iterate="best")
    found = attack(model, images, labels, what)
    broken = answers(model, found.images) != labels
    assert 0 < broken.sum() < 20
    assert (found.forwards[~broken] == 1 + 2 * 3 * 6).all()
    assert (found.backwards[~broken] == 3 * 6).all()
    assert (found.forwards[broken] < 1 + 2 * 3 * 6).any()
    assert what.settings.evaluations == 2 + 2 * 3 * 6
    assert what.settings.gradients == 3 * 6


def test_a_restart_breaks_no_fewer():
    model, images = small_net(), random_images(20)
    labels = answers(model, images)
    robust, still = (
        answers(model, attack(model, images, labels, threat(each, "3/255", iterate="best")).images) == labels
        for each in (fab_t_settings(4), fab_t_settings(4, restarts=2))
    )
    assert not (still & ~robust).any()


@pytest.mark.parametrize(("norm", "eps"), [("Linf", "8/255"), ("L2", "0.4")])
def test_a_restart_begins_half_of_eps_away_where_its_draw_says(norm, eps):
    model, images, seen = small_net(), random_images(2, low=0.3, high=0.7), []
    labels, what = answers(model, images), threat(fab_t_settings(1, targets=2, restarts=2, norm=norm), eps)
    model.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach().clone()))
    for seed in (0, 1):
        attack(model, images, labels, what, seed=seed)
    starts = [queried for queried in seen if len(queried) == 4][2::4]  # gradient, verdict; of the image, of the start
    away = distances(torch.cat(starts), images.repeat_interleave(2, 0).repeat(2, 1, 1, 1))[0 if norm == "Linf" else 1]
    assert ((away / float(what.eps) - 0.5).abs() < 1e-4).all()
    assert len(torch.cat(starts).unique(dim=0)) == 8


def test_how_far_the_nearest_mistake_is_does_not_depend_on_eps():
    """What lies within the smaller of two eps is what the larger one finds as well; all else is outside of it."""
    model, images = small_net(), random_images(20)
    labels = answers(model, images)
    near, far = (
        attack(model, images, labels, threat(fab_t_settings(6, keeps="closest"), eps, iterate="best")).images
        for eps in ("4/255", "64/255")
    )
    closer = distances(far, images)[0] <= 4 / 255
    assert (answers(model, far) != labels).all()
    assert 0 < closer.sum() < 20
    assert torch.equal(near[closer], far[closer])
