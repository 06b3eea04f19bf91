"""The ball: what is projected lies in it, and stays where it is when projected again."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustbench_twicing.engine.projections import lengths, project, random_start, steepest
from robustbench_twicing.seeding import Draws
from tests.engine.tiny import ids, random_images

sizes = st.integers(min_value=1, max_value=9)
seeds = st.integers(min_value=0, max_value=2**31)
radii = st.floats(min_value=0.0, max_value=2.0, width=32)


def size_of(change, norm):
    return change.abs().flatten(1).amax(1) if norm == "Linf" else change.flatten(1).norm(dim=1)


@given(size=sizes, seed=seeds, eps=radii, norm=st.sampled_from(["Linf", "L2"]), clip=st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_projected_image_is_in_the_ball_and_in_range_and_stays(size, seed, eps, norm, clip):
    bounds = (0.0, 1.0) if clip else None
    center = random_images(2, size=size, seed=seed).double()
    images = center + 3 * torch.randn(center.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    once = project(images, center, eps, norm, bounds)
    # float64: numbers below 8, up to 243 of them under one root.
    assert (size_of(once - center, norm) <= eps + 1e-13).all()
    if clip:
        assert once.min() >= 0.0
        assert once.max() <= 1.0
    again = project(once, center, eps, norm, bounds)
    if norm == "Linf":
        assert torch.equal(again, once)
    else:
        torch.testing.assert_close(again, once, rtol=0, atol=1e-13)


@given(size=sizes, seed=seeds, eps=radii, norm=st.sampled_from(["Linf", "L2"]))
@settings(max_examples=30, deadline=None)
def test_an_image_in_the_ball_is_left_alone(size, seed, eps, norm):
    center = random_images(2, size=size, seed=seed).double()
    delta = torch.randn(center.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    inside = center + 0.5 * eps * delta / size_of(delta, norm)[:, None, None, None]
    assert torch.equal(project(inside, center, eps, norm, None), inside)


def test_linf_projection_is_the_nearest_point():
    center, images = random_images(3, seed=1).double(), 2 * random_images(3, seed=2).double()
    nearest = project(images, center, 0.1, "Linf", (0.0, 1.0))
    for seed in range(20):
        other = random_images(3, seed=100 + seed).double().clamp(center - 0.1, center + 0.1)
        assert (lengths(other - images) >= lengths(nearest - images)).all()


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_the_steepest_direction_rises_most(norm):
    gradient = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 1e-25  # its square underflows
    best = steepest(gradient, norm)
    torch.testing.assert_close(size_of(best, norm), torch.ones(4))
    rise = (best * gradient * 1e25).sum((1, 2, 3))
    for seed in range(20):
        other = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1 + seed))
        other = other / size_of(other, norm)[:, None, None, None]
        assert ((other * gradient * 1e25).sum((1, 2, 3)) < rise).all()
    assert steepest(torch.zeros(1, 3, 2, 2), norm).abs().max() == 0


def test_the_l2_start_is_uniform_in_the_ball():
    count, size = 2000, 3 * 2 * 2
    center = torch.zeros(count, 3, 2, 2)
    start = random_start(center, 0.5, "L2", None, Draws(0, ids(count), "t"), 0)
    radius = (lengths(start) / 0.5).double()
    assert radius.max() <= 1 + 1e-6  # float32
    # P(radius <= r) = r^d, so r^d is uniform on [0, 1]: mean 1/2, variance 1/12; five standard deviations.
    assert abs((radius**size).mean() - 0.5) < 5 * (1 / 12 / count) ** 0.5
    # Each direction is as likely as its opposite: E[x_i] = 0, E[x_i²] = eps² / (d + 2).
    variance = 0.25 / (size + 2)
    assert (start.mean(0).abs() < 5 * (variance / count) ** 0.5).all()
    assert ((start.square().mean(0) / variance - 1).abs() < 5 * (3 / count) ** 0.5).all()


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_a_start_depends_on_its_index_only(norm):
    center, draws = random_images(3), Draws(0, ids(3), "t")
    first = random_start(center, 0.1, norm, (0.0, 1.0), draws, 0)
    assert torch.equal(first, random_start(center, 0.1, norm, (0.0, 1.0), draws, 0))
    assert not torch.equal(first, random_start(center, 0.1, norm, (0.0, 1.0), draws, 1))
    assert torch.equal(first[1:], random_start(center[1:], 0.1, norm, (0.0, 1.0), draws.take([1, 2]), 0))
