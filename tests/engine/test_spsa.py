"""SPSA: an unbiased gradient, the best attack on a linear model, and the quirk of the paper's protocol."""

import numpy as np
import pytest
import torch
import torchattacks

from robustbench_twicing.catalog.protocols import attack_threat, protocol
from robustbench_twicing.engine import spsa
from robustbench_twicing.engine.contract import Queries
from robustbench_twicing.engine.spsa import estimate_gradient
from robustbench_twicing.seeding import Draws
from robustbench_twicing.spec.values import Eps
from tests.engine.tiny import answers, attack, ids, random_images, small_net, spsa_settings, threat
from tests.oracles.cleverhans_spsa import cleverhans_spsa
from tests.oracles.linear import Quadratic, TwoClassLinear, best_linf

EPS = 8 / 255


class Recorded(torch.nn.Module):
    """Keeps every batch that reaches the model."""

    def __init__(self, model):
        super().__init__()
        self.model, self.seen = model, []

    def forward(self, images):
        self.seen.append(images.clone())
        return self.model(images)


@pytest.mark.parametrize("kind", ["linear", "quadratic"])
def test_the_estimate_is_unbiased(kind):
    """Slopes of a linear or quadratic function along ±1 directions are exact, so the error is that of sampling alone:
    coordinate i of the mean over S directions has variance (|g|² - gᵢ²) / S."""
    samples, images = 4000, random_images(4).double()
    if kind == "linear":
        model = TwoClassLinear((3, 8, 8)).double()
        gradient = model.weight.detach().expand_as(images)
    else:
        model = Quadratic(192)
        gradient = model.gradient(images)
    labels = torch.zeros(4, dtype=torch.int64)  # the margin loss is minus class 0's lead
    queries = Queries(model, 4096)
    found = estimate_gradient(queries, images, labels, Draws(0, ids(4), "t"), 1, samples, 0.01, None)
    squares = gradient.square()
    deviation = ((squares.sum((1, 2, 3), keepdim=True) - squares) / samples).sqrt()
    z = (found + gradient) / deviation
    assert z.abs().max() < 5.0  # 768 standard normal numbers pass 5 with probability 4e-4
    # Squares of 768 normal numbers have mean 1 and standard deviation 0.05; six of them leave room for dependence.
    assert 0.7 < z.square().mean() < 1.3


@pytest.mark.parametrize("values_at_once", [1, 2**20])
def test_the_estimate_does_not_depend_on_how_images_and_directions_are_grouped(values_at_once, monkeypatch):
    monkeypatch.setattr(spsa, "_VALUES_AT_ONCE", values_at_once)
    model, images, labels = small_net().double(), random_images(5).double(), torch.arange(5)
    found = [
        estimate_gradient(Queries(model, size), images, labels, Draws(0, ids(5), "t"), 1, 8, 0.01, (0.0, 1.0))
        for size in (1, 16, 48, 1000)
    ]
    for other in found[1:]:
        # float64, and slopes are differences of logits of size one over 0.02.
        torch.testing.assert_close(other, found[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("batch_size", "chunks"),
    [
        (64, [64, 64, 16]),  # 64 / (2 x 8) images fill a chunk
        (6, [6, 6, 4] * 9),  # some of the directions of one image do
        (1, [1] * 144),
    ],
)
def test_probes_are_made_for_one_chunk_at_a_time(batch_size, chunks):
    model = Recorded(small_net())
    estimate_gradient(
        Queries(model, batch_size),
        random_images(9),
        torch.zeros(9, dtype=torch.int64),
        Draws(0, ids(9), "t"),
        1,
        8,
        0.1,
        None,
    )
    assert [len(batch) for batch in model.seen] == chunks


@pytest.mark.parametrize("bounds", [(0.0, 1.0), None])
@pytest.mark.parametrize("size", [5, 8])  # 75 values: a direction ends inside a byte
@pytest.mark.parametrize("values_at_once", [1, 2**20])
def test_probes_are_the_drawn_directions_bit_by_bit(bounds, size, values_at_once, monkeypatch):
    monkeypatch.setattr(spsa, "_VALUES_AT_ONCE", values_at_once)
    model, images, draws = Recorded(small_net(size)), random_images(3, size), Draws(0, ids(3), "t")
    estimate_gradient(Queries(model, 6), images, torch.zeros(3, dtype=torch.int64), draws, 2, 7, 0.01, bounds)
    steps = draws.signs(2, (7, 3, size, size)) * 0.01
    pairs = torch.stack((images[:, None] + steps, images[:, None] - steps), dim=2)
    assert torch.equal(torch.cat(model.seen), (pairs if bounds is None else pairs.clamp(*bounds)).flatten(0, 2))


@pytest.mark.parametrize("clip", [True, False])
def test_the_best_attack_on_a_linear_model_is_found(clip):
    """2048 directions for 48 values: every sign of the estimate is right, and four steps reach the corner."""
    model, images = TwoClassLinear((3, 4, 4)), random_images(3, size=4)
    what = threat(spsa_settings(steps=12, samples=2048), clip=clip)
    found = attack(model, images, torch.zeros(3, dtype=torch.int64), what, batch_size=4096).images
    best = best_linf(model.weight.detach().numpy(), images.numpy(), EPS, (0.0, 1.0) if clip else None)
    np.testing.assert_allclose(found, best, rtol=0, atol=2.5e-7)  # two roundings of numbers below 2


def test_probes_stay_in_the_valid_range_and_around_the_current_point():
    model, images = Recorded(small_net()), random_images(2)
    settings = spsa_settings(steps=3, samples=8, probe_distance="1 eps")
    attack(model, images, answers(model.model, images), threat(settings))
    seen = torch.cat(model.seen)
    assert seen.min() >= 0.0
    assert seen.max() <= 1.0
    assert [len(batch) for batch in model.seen] == [32, 32, 32]  # both images fit one chunk
    last = model.seen[-1].reshape(2, 16, 3, 8, 8)
    # Within probe distance of a point within eps of the image, but further from the image than the probes alone go.
    away = (last - images[:, None]).abs().amax((1, 2, 3, 4))
    assert (away > 1.2 * EPS).all()
    assert (away < 2 * EPS + 1e-6).all()


def test_evaluations_are_counted():
    model, images = Recorded(small_net()), random_images(3)
    labels = answers(model.model, images)
    last = attack(model, images, labels, threat(spsa_settings(steps=3, samples=8)))
    assert last.forwards.tolist() == [48] * 3
    assert sum(len(batch) for batch in model.seen) == 144
    assert last.backwards.tolist() == [0] * 3
    best = attack(model.model, images, labels, threat(spsa_settings(steps=3, samples=8), "0.000001", iterate="best"))
    assert best.forwards.tolist() == [50] * 3  # the clean image and the last iterate are judged by the runner


def test_a_sample_leaves_as_soon_as_it_is_fooled():
    model, images = small_net(), random_images(12)
    labels = answers(model, images)
    what = threat(spsa_settings(steps=6, samples=16), iterate="best")
    best = attack(model, images, labels, what)
    early = best.forwards < 6 * 32 + 5
    assert 0 < early.sum() < 12
    assert (answers(model, best.images) != labels)[early].all()
    # Those who stay go on as if they had been alone, Adam's memory included.
    for row in (~early).nonzero().flatten().tolist():
        here = slice(row, row + 1)
        alone = attack(model, images[here], labels[here], what, sample_ids=(f"sample-{row}",))
        torch.testing.assert_close(alone.images, best.images[here], rtol=0, atol=1e-5)  # rounding, through Adam


def test_a_random_start_is_judged_too():
    model, images = small_net(), random_images(4)
    fooled_already = (answers(model, images) + 1) % 5
    what = threat(spsa_settings(random_start=True), "1/255", iterate="best")
    assert attack(model, images, fooled_already, what).forwards.tolist() == [1] * 4


def test_it_agrees_with_torchattacks_given_the_same_directions(monkeypatch):
    """One image well inside [0, 1]: torchattacks shares directions between images and does not clip probes."""
    model, image = small_net(), random_images(1, low=0.3, high=0.7)
    labels = answers(model, image)
    what = threat(spsa_settings(steps=4, samples=16))
    ours = attack(model, image, labels, what).images
    draws = Draws(0, ids(1), what.id)
    directions = iter([(draws.signs(step, (16, 3, 8, 8))[0][:, None] + 1) / 2 for step in range(1, 5)])
    with monkeypatch.context() as patched:
        patched.setattr(torch.Tensor, "bernoulli_", lambda self: self.copy_(next(directions)))
        elsewhere = torchattacks.SPSA(
            model, eps=EPS, delta=0.32 * EPS, lr=0.32 * EPS, nb_iter=4, nb_sample=16, max_batch_size=16
        )
        theirs = elsewhere(image, labels)
    difference = (ours - theirs).abs()
    print(f"max {difference.max():.2e}, mean {difference.mean():.2e}")
    # Adam divides a gradient by its own size, so rounding of the slopes (1e-7 / probe distance 0.01) comes through.
    assert difference.max() < 1e-4 * EPS + 1e-6


# --- the paper's protocol -----------------------------------------------------------------------------------------


def test_the_paper_protocol_probes_around_twice_the_clean_image():
    model, images = Recorded(small_net()), random_images(2, low=-2.0, high=2.0)
    what = attack_threat(protocol("paper"), "spsa", Eps.parse("4/255"))
    settings = what.settings.model_copy(update={"steps": 3})
    attack(model, images, answers(model.model, images), what.model_copy(update={"settings": settings}), batch_size=256)
    assert len(model.seen) == 6  # 2 images x 3 steps, 256 evaluations each
    for call, batch in enumerate(model.seen):
        assert len(batch) == 256
        noise = batch - 2 * images[call % 2]
        # 0.01 with the rounding of numbers below 8.
        torch.testing.assert_close(noise.abs(), torch.full_like(noise, 0.01), rtol=0, atol=1e-6)


def test_probes_around_twice_the_image_are_never_clipped():
    model, images = Recorded(small_net()), random_images(1, low=0.6, high=0.9)
    what = threat(spsa_settings(steps=1, probe_center="twice_clean"), clip=True)
    attack(model, images, torch.tensor([0]), what)
    assert model.seen[0].min() > 1.0


@pytest.mark.parametrize("eps", ["1/255", "0.1"])
def test_the_paper_protocol_is_what_cleverhans_computes(eps):
    """Against a rewriting of cleverhans; the original routine was run once too: see docs/known-traps.md."""
    model, images = small_net(), random_images(3, low=-2.0, high=2.0)
    labels = answers(model, images)
    what = attack_threat(protocol("paper"), "spsa", Eps.parse(eps))
    settings = what.settings.model_copy(update={"steps": 8})
    ours = attack(model, images, labels, what.model_copy(update={"settings": settings})).images
    for row in range(3):
        draws = Draws(0, (f"sample-{row}",), what.id)
        start = (2 * draws.uniform(0, (3, 8, 8))[0] - 1) * float(what.eps)
        signs = [draws.signs(step, (128, 3, 8, 8))[0] for step in range(1, 9)]
        theirs = cleverhans_spsa(model, images[row], int(labels[row]), float(what.eps), start, signs)
        # Slopes are differences of logits over 0.02, so 1e-6 in the logits is 1e-4 of a gradient that Adam scales to
        # steps of 0.01.
        torch.testing.assert_close(ours[row], theirs, rtol=0, atol=3e-5)


def test_the_paper_protocol_neither_clips_nor_ties_its_step_to_eps():
    what = attack_threat(protocol("paper"), "spsa", Eps.parse("1/255"))
    images = random_images(2, low=-2.0, high=2.0)
    settings = what.settings.model_copy(update={"steps": 1})
    found = attack(small_net(), images, torch.tensor([0, 1]), what.model_copy(update={"settings": settings})).images
    assert found.min() < 0.0
    assert found.max() > 1.0
    # Adam's first step is the learning rate, 0.01: from anywhere in the ball of 0.0039 it leads to the edge.
    torch.testing.assert_close((found - images).abs(), torch.full_like(images, 1 / 255), rtol=0, atol=2.5e-7)
