"""The Square Attack against closed forms, and the protocol's rules."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustbench_twicing.engine.losses import margin
from robustbench_twicing.seeding import Draws
from robustbench_twicing.spec.threats import AttackThreat
from robustbench_twicing.spec.values import Eps
from tests.engine.tiny import Exact, answers, attack, ids, random_images, rules, small_net, square_settings, threat
from tests.oracles import square as oracle
from tests.oracles.linear import TwoClassLinear, best_linf

EPS = 8 / 255


class Asked(torch.nn.Module):
    """Never fooled, and remembers what it was asked."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, images):
        self.seen.append(images.clone())
        lead = 9.0 - (images.flatten(1) * torch.linspace(-1, 1, images[0].numel())).sum(1)
        return torch.stack((lead, torch.zeros_like(lead)), dim=1)


@pytest.mark.parametrize("clip", [True, False])
def test_the_best_linf_attack_on_a_linear_model_is_found(clip):
    """On 2 x 2 pixels there are 32 squares of one pixel: 600 tries leave one out once in four million runs."""
    model, images = TwoClassLinear((3, 2, 2)), random_images(3, size=2)
    what = threat(square_settings(600), clip=clip)
    found = attack(model, images, torch.zeros(3, dtype=torch.int64), what).images
    best = best_linf(model.weight.detach().numpy(), images.numpy(), EPS, (0.0, 1.0) if clip else None)
    # One rounding of numbers below 2 in float32, and one in the oracle.
    np.testing.assert_allclose(found, best, rtol=0, atol=2.5e-7)


def test_most_of_the_best_l2_attack_on_a_linear_model_is_found():
    model, images = TwoClassLinear((3, 8, 8)), random_images(4, size=8, low=0.3, high=0.7)
    found = attack(model, images, torch.zeros(4, dtype=torch.int64), threat(square_settings(400, norm="L2"), "0.5"))
    lost = (model(images) - model(found.images))[:, 0] / (0.5 * model.weight.norm())
    chance = 1 / 192**0.5  # standard deviation of what a random direction reaches, of 1
    assert (lost > 4 * chance).all()
    assert (lost <= 1 + 1e-5).all()  # the optimum, and float32


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_every_try_uses_the_whole_budget(norm):
    """In the middle of the range, where nothing is clipped: corners of the L∞ ball, the surface of the L2 ball."""
    model, images = Asked(), torch.full((2, 3, 16, 16), 0.5)
    eps, size = ("8/255", EPS) if norm == "Linf" else ("0.4", 0.4)
    attack(model, images, torch.tensor([0, 0]), threat(square_settings(150, norm=norm), eps), batch_size=2)
    assert len(model.seen) == 151
    for seen in model.seen:
        delta = seen - images
        if norm == "Linf":
            # One rounding of a number below 1.
            torch.testing.assert_close(delta.abs(), torch.full_like(delta, size), rtol=0, atol=6e-8)
        else:
            # A norm over 768 values, each with a rounding of 6e-8, a few times over.
            torch.testing.assert_close(delta.flatten(1).norm(dim=1), torch.full((2,), size), rtol=1e-5, atol=0)


def test_it_starts_with_stripes_and_puts_one_square_of_one_colour():
    model, images = Asked(), torch.full((4, 3, 16, 16), 0.5)
    attack(model, images, torch.zeros(4, dtype=torch.int64), threat(square_settings(300)), batch_size=4)
    first = model.seen[0] - images
    assert torch.equal(first, first[:, :, :1].expand_as(first))
    assert len(first[:, :, 0].unique(dim=0)) == 4  # each sample has stripes of its own
    best = model.seen[0]
    least = model(best)[:, 0]
    for query, seen in enumerate(model.seen[1:300]):
        share = 0.8 / 2 ** sum(query * 10_000 / 300 > at for at in (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000))
        side = max(1, round((share * 256) ** 0.5))
        for before, after in zip(best, seen, strict=True):
            rows, columns = torch.nonzero((before != after).any(0), as_tuple=True)
            if len(rows):  # it may have had that colour already
                assert rows.max() - rows.min() < side
                assert columns.max() - columns.min() < side
        lead = model(seen)[:, 0]
        best = torch.where((lead < least)[:, None, None, None], seen, best)
        least = torch.minimum(lead, least)


@pytest.mark.parametrize(("norm", "largest"), [("Linf", Fraction(1, 30)), ("L2", Fraction(2))])
@given(
    share=st.fractions(min_value=Fraction(1, 20), max_value=1, max_denominator=20),
    seed=st.integers(0, 2**31),
    queries=st.sampled_from([1, 33, 150]),
    p_init=st.sampled_from([0.05, 0.8]),
    iterate=st.sampled_from(["best", "last"]),
)
@settings(max_examples=6, deadline=None)
def test_a_batch_finds_what_one_image_and_one_query_at_a_time_find(
    norm, largest, share, seed, queries, p_init, iterate
):
    model, images = Exact(small_net(seed=seed % 7)), random_images(3, seed=seed)
    labels = answers(model, images)
    what = AttackThreat(
        protocol="test",
        attack="square",
        eps=Eps(largest * share),
        rules=rules(iterate=iterate),
        settings=square_settings(queries, p_init, norm=norm),
    )
    model.asked = 0
    found = attack(model, images, labels, what, seed=seed)
    assert int(found.forwards.sum()) <= model.asked
    values = margin(model(found.images), labels)
    for row, label in enumerate(labels.tolist()):
        draws = Draws(seed, (ids(3)[row],), what.id)
        expected = oracle.square(
            lambda image: model(image[None])[0],
            images[row],
            label,
            float(what.eps),
            norm,
            queries,
            p_init,
            iterate == "best",
            (
                lambda shape, draws=draws: draws.signs(0, shape)[0],
                lambda query, draws=draws: draws.uniform(1 + query // 32, (32, 8))[0, query % 32],
            ),
        )
        assert torch.equal(found.images[row], expected.image)
        assert values[row] == expected.margin
        assert (values[row] < 0) == expected.fooled
        assert found.forwards[row] == expected.evaluations


def test_squares_lie_everywhere_alike():
    model, images = Asked(), torch.full((200, 3, 8, 8), 0.5)
    what = threat(square_settings(1, p_init=0.2))
    attack(model, images, torch.zeros(200, dtype=torch.int64), what, batch_size=200)
    changed = (model.seen[0] != model.seen[1]).any(1)  # side 4, so begins at 0 to 4 in each direction
    first_row = changed.any(2).float().argmax(1)
    begins = torch.bincount(first_row[changed.flatten(1).any(1)], minlength=5)
    # Uniform over five places: 40 each with standard deviation 5.7; a colour may hide a row, which moves a few.
    assert begins.min() > 40 - 4 * 5.7
    assert begins.max() < 40 + 4 * 5.7


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_the_margin_of_what_comes_back_never_rises(norm):
    model, images = small_net(size=16), random_images(6, size=16)
    labels = answers(model, images)
    eps = "4/255" if norm == "Linf" else "0.5"
    settings = square_settings(200, norm=norm)
    leads = []
    with torch.no_grad():
        for queries in (1, 200):
            what = threat(settings.model_copy(update={"queries": queries}), eps)
            z = model(attack(model, images, labels, what).images)
            own = z.gather(1, labels[:, None])[:, 0]
            leads.append(own - z.scatter(1, labels[:, None], -torch.inf).amax(1))
    assert (leads[1] < leads[0]).all()


def test_queries_are_counted_and_a_fooled_sample_leaves():
    model, images = small_net(size=16), random_images(20, size=16)
    labels = answers(model, images)
    found = attack(model, images, labels, threat(square_settings(100), "6/255", iterate="best"))
    broken = answers(model, found.images) != labels
    assert 0 < broken.sum() < 20
    assert (found.forwards[~broken] == 101).all()
    assert (found.forwards[broken] < 101).any()
    assert (found.backwards == 0).all()


def test_a_few_images_are_tried_with_several_squares_in_a_call():
    model, images = Asked(), torch.full((2, 3, 16, 16), 0.5)
    found = attack(model, images, torch.tensor([0, 0]), threat(square_settings(300)), batch_size=16)
    assert found.forwards.tolist() == [301, 301]
    assert len(model.seen) < 150
    assert 602 <= sum(map(len, model.seen)) < 1204  # fewer in vain than of use
    assert max(map(len, model.seen)) <= 16


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (3, 9), (9, 3), (5, 7)])
def test_small_and_oblong_images(norm, shape):
    images = torch.rand(2, 3, *shape, generator=torch.Generator().manual_seed(0))
    model = Asked()
    found = attack(model, images, torch.tensor([0, 0]), threat(square_settings(80, norm=norm), "0.25")).images
    delta = found - images
    size = delta.abs().amax((1, 2, 3)) if norm == "Linf" else delta.flatten(1).norm(dim=1)
    assert (size > 0).all()
    assert (size <= 0.25 + 1e-6).all()  # float32
