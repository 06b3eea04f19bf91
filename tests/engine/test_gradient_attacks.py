"""FGSM and PGD against closed forms, against two other libraries, and under the protocol's rules."""

import warnings

import numpy as np
import pytest
import torch
import torchattacks

from robustbench_twicing.engine.losses import cross_entropy_loss, log_odds_against
from robustbench_twicing.engine.projections import project, random_start, steepest
from robustbench_twicing.seeding import Draws
from robustbench_twicing.spec.values import Eps
from tests.engine.tiny import (
    answers,
    attack,
    fgsm_settings,
    pgd_settings,
    pgd_t_settings,
    random_images,
    small_net,
    threat,
)
from tests.oracles.linear import TwoClassLinear, best_l2, best_linf

with warnings.catch_warnings():  # foolbox 3.3.4 imports from a place that SciPy is about to remove
    warnings.simplefilter("ignore", DeprecationWarning)
    import foolbox

EPS = 8 / 255
# Two roundings of numbers below 2 in float32: 2 x 2^-24 x 2.
ROUNDING = 2.5e-7


@pytest.mark.parametrize("settings", [fgsm_settings(), pgd_settings(20, "0.125 eps")])
@pytest.mark.parametrize("clip", [True, False])
def test_the_best_linf_attack_on_a_linear_model_is_found(settings, clip):
    model, images = TwoClassLinear((3, 8, 8)), random_images(4)
    found = attack(model, images, torch.zeros(4, dtype=torch.int64), threat(settings, clip=clip)).images
    best = best_linf(model.weight.detach().numpy(), images.numpy(), EPS, (0.0, 1.0) if clip else None)
    np.testing.assert_allclose(found, best, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize(
    "settings", [fgsm_settings("L2"), pgd_settings(20, "0.125 eps", norm="L2", random_start=False)]
)
def test_the_best_l2_attack_on_a_linear_model_is_found(settings):
    model, images = TwoClassLinear((3, 8, 8)), random_images(4, low=0.3, high=0.7)
    found = attack(model, images, torch.zeros(4, dtype=torch.int64), threat(settings, "0.5")).images
    best = best_l2(model.weight.detach().numpy(), images.numpy(), 0.5)
    # 20 steps, each with a norm over 192 values: a few dozen roundings of values below 1.
    np.testing.assert_allclose(found, best, rtol=0, atol=3e-6)


@pytest.mark.parametrize(
    "settings",
    [fgsm_settings(), pgd_settings(5, random_start=False), pgd_settings(5, norm="L2", random_start=False)],
)
def test_a_model_that_is_certain_is_attacked_all_the_same(settings):
    """The label leads by thousands: the float32 gradient of its cross-entropy is exactly zero."""
    model = TwoClassLinear((3, 8, 8), scale=1000.0)
    images, labels = (model.weight.sign() * 0.25 + 0.5).detach()[None], torch.tensor([0])
    leaf = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(cross_entropy_loss(model(leaf), labels).sum(), leaf)
    assert gradient.abs().max() == 0
    eps = "8/255" if settings.norm == "Linf" else "0.5"
    found = attack(model, images, labels, threat(settings, eps)).images
    lost = (model(images) - model(found))[0, 0]
    most = EPS * model.weight.abs().sum() if settings.norm == "Linf" else 0.5 * model.weight.norm()
    # Leads of 1e5 are held to 0.01 in float32; what is lost is about 1e4.
    assert lost > 0.999 * most


def test_log_odds_rise_as_the_cross_entropy_does():
    logits = torch.randn(50, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 4
    labels = torch.arange(50) % 7
    expected = cross_entropy_loss(logits, labels)
    torch.testing.assert_close(torch.nn.functional.softplus(log_odds_against(logits, labels)), expected)


# --- the same attack elsewhere ------------------------------------------------------------------------------------


def report(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    difference = (ours - theirs).abs()
    print(f"max {difference.max():.2e}, mean {difference.mean():.2e}")
    return float(difference.max())


def test_fgsm_agrees_with_torchattacks_and_foolbox():
    model, images = small_net(), random_images(6)
    labels = answers(model, images)
    ours = attack(model, images, labels, threat(fgsm_settings())).images
    assert report(ours, torchattacks.FGSM(model, eps=EPS)(images, labels)) <= ROUNDING
    there = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    _, clipped, _ = foolbox.attacks.LinfFastGradientAttack()(there, images, labels, epsilons=EPS)
    assert report(ours, clipped) <= ROUNDING


@pytest.mark.parametrize("random_start", [False, True])
def test_linf_pgd_agrees_with_torchattacks_and_foolbox(random_start, monkeypatch):
    model, images = small_net(), random_images(6)
    labels = answers(model, images)
    what = threat(pgd_settings(10, "0.25 eps", random_start=random_start))
    ours = attack(model, images, labels, what).images
    uniform = Draws(0, tuple(f"sample-{row}" for row in range(6)), what.id).uniform(0, (3, 8, 8))
    start = (2 * uniform - 1) * EPS

    with monkeypatch.context() as patched:  # torchattacks draws its start with this
        patched.setattr(torch.Tensor, "uniform_", lambda self, low, high: start)
        theirs = torchattacks.PGD(model, eps=EPS, alpha=0.25 * EPS, steps=10, random_start=random_start)(images, labels)
    assert report(ours, theirs) <= ROUNDING

    class FromOurStart(foolbox.attacks.LinfProjectedGradientDescentAttack):
        def get_random_start(self, x0, epsilon):
            return x0 + type(x0)(start)

    there = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    elsewhere = FromOurStart(abs_stepsize=0.25 * EPS, steps=10, random_start=random_start)
    _, clipped, _ = elsewhere(there, images, labels, epsilons=EPS)
    assert report(ours, clipped) <= ROUNDING


def test_l2_pgd_agrees_with_foolbox():
    model, images = small_net(), random_images(6, low=0.2, high=0.8)
    labels = answers(model, images)
    settings = pgd_settings(10, "0.25 eps", norm="L2", random_start=False)
    ours = attack(model, images, labels, threat(settings, "0.5")).images
    there = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    elsewhere = foolbox.attacks.L2ProjectedGradientDescentAttack(abs_stepsize=0.125, steps=10, random_start=False)
    _, clipped, _ = elsewhere(there, images, labels, epsilons=0.5)
    # No sign absorbs rounding here: gradients of two losses, normalised, over ten steps that feed on each other.
    assert report(ours, clipped) <= 1e-5


# --- towards other classes ------------------------------------------------------------------------------------------


def _linear(classes: int, images: torch.Tensor) -> tuple[torch.nn.Module, torch.Tensor]:
    """A linear model, and how far each class falls short of the label by the best attack on it (images, classes)."""
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, classes))
    with torch.no_grad():
        model[1].weight.copy_(torch.randn(classes, 192, generator=torch.Generator().manual_seed(3)))
        model[1].bias.zero_()
    weight, logits = model[1].weight.detach(), model(images).detach()
    labels = logits.argmax(1)
    reach = EPS * (weight[None] - weight[labels][:, None]).abs().sum(2)
    return model, logits.gather(1, labels[:, None]) - logits - reach


def test_each_target_is_reached_that_can_be_reached():
    """On a linear model the best attack towards a class is known, and the walk towards it ends there."""
    images = random_images(60, low=0.2, high=0.8)
    model, short = _linear(6, images)
    labels = answers(model, images)
    can = (short < 0).scatter(1, labels[:, None], False).any(1)
    assert 0 < int(can.sum()) < 60
    what = threat(pgd_t_settings(20, targets=5), iterate="best")
    found = attack(model, images, labels, what)
    assert torch.equal(answers(model, found.images) != labels, can)
    held = ~can
    assert found.forwards[held].tolist() == [1 + 5 * 20 + 4] * int(held.sum())  # clean, steps, and looks between walks
    assert found.backwards[held].tolist() == [5 * 20] * int(held.sum())


def test_the_nearest_target_comes_first_and_any_mistake_counts():
    images = random_images(60, low=0.2, high=0.8)
    model, short = _linear(6, images)
    labels = answers(model, images)
    first = model(images).scatter(1, labels[:, None], -torch.inf).argmax(1)
    found = attack(model, images, labels, threat(pgd_t_settings(20, targets=1), iterate="last"))
    with torch.no_grad():
        lead = model(found.images).gather(1, labels[:, None]) - model(found.images).gather(1, first[:, None])
    # Sums of 192 products of numbers below 4 in float32.
    torch.testing.assert_close(lead.squeeze(1), short.gather(1, first[:, None]).squeeze(1), rtol=0, atol=2e-5)


def test_with_two_classes_it_is_pgd():
    model, images = TwoClassLinear((3, 8, 8)), random_images(4)
    labels = torch.zeros(4, dtype=torch.int64)
    other = attack(model, images, labels, threat(pgd_settings(5, random_start=False))).images
    ours = attack(model, images, labels, threat(pgd_t_settings(5, random_start=False))).images
    assert torch.equal(ours, other)


# --- the protocol's rules -----------------------------------------------------------------------------------------


class Islands(torch.nn.Module):
    """Class 1 only where the first value lies between 0.5 and 0.52: a walk with larger steps passes over it."""

    def forward(self, images):
        lead = 50 * (images[:, 0, 0, 0] - 0.51).abs() - 0.5
        # A slope that leads upwards everywhere, seen by the gradient only.
        hill = images[:, 0, 0, 0] * 1.0
        return torch.stack((lead - 1000 * (hill - hill.detach()), torch.zeros_like(lead)), dim=1)


@pytest.mark.parametrize(("iterate", "robust"), [("best", False), ("last", True)])
def test_an_iterate_on_the_way_counts_only_under_best(iterate, robust):
    images = torch.full((1, 3, 2, 2), 0.41)
    settings = pgd_settings(4, "0.1", random_start=False)  # 0.41, 0.51 (fools), 0.61, 0.71, 0.81
    found = attack(Islands(), images, torch.tensor([0]), threat(settings, "0.5", iterate=iterate))
    assert (answers(Islands(), found.images) == 0).all() == robust
    assert found.forwards.tolist() == ([4] if robust else [2])


@pytest.mark.parametrize("more", [{"steps": 12}, {"restarts": 4}])
def test_more_work_never_makes_a_model_look_more_robust(more):
    model, images = small_net(classes=3), random_images(60)
    labels = answers(model, images)
    few = {"steps": 3, "step_size": "0.3 eps"}
    settings, stronger = pgd_settings(**few), pgd_settings(**{**few, **more})
    # The eps at which the weaker attack splits the samples, so that there is something to win.
    weak, strong = (
        attack(model, images, labels, threat(each, "2/255", iterate="best")).images for each in (settings, stronger)
    )
    robust, still = answers(model, weak) == labels, answers(model, strong) == labels
    assert 0 < robust.sum() < 60
    assert not (still & ~robust).any()
    assert still.sum() < robust.sum()


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("iterate", ["best", "last"])
def test_pgd_is_its_definition_bit_by_bit(norm, clip, iterate):
    """Sample by sample, projecting to the ball and then to the valid range, as the definition says."""
    model, images = small_net().double(), random_images(10).double()
    labels = answers(model, images)
    what = threat(
        pgd_settings(6, norm=norm, restarts=2 if iterate == "best" else 1), "2/255", clip=clip, iterate=iterate
    )
    if norm == "L2":
        what = what.model_copy(update={"eps": Eps.parse("0.3", "L2")})
    found = attack(model, images, labels, what)
    left = 0
    for row in range(10):
        expected, forwards = slow_pgd(model, images[row : row + 1], labels[row : row + 1], what, f"sample-{row}")
        # float64 logits of another batch size differ in the last bits, which no sign sees; the L2 step carries them on.
        assert (found.images[row] - expected[0]).abs().max() <= (0 if norm == "Linf" else 1e-14)
        assert found.forwards[row] == forwards
        left += forwards < 6
    assert (0 < left < 10) == (iterate == "best")


def slow_pgd(model, image, label, what, sample_id):
    """One sample's PGD as a plain loop, and how often it asks the model."""
    settings, eps, forwards = what.settings, float(what.eps), 0
    for restart in range(settings.restarts):
        draws = Draws(0, (sample_id,), what.id)
        current = random_start(image, eps, settings.norm, what.bounds, draws, restart)
        for _ in range(settings.steps):
            leaf = current.clone().requires_grad_()
            logits = model(leaf)
            forwards += 1
            if what.rules.iterate == "best" and logits.argmax(1) != label:
                return current, forwards
            (gradient,) = torch.autograd.grad(log_odds_against(logits, label).sum(), leaf)
            moved = current + settings.step_size.at(what.eps) * steepest(gradient, settings.norm)
            current = project(moved, image, eps, settings.norm, what.bounds)
        if restart + 1 < settings.restarts:
            forwards += 1
            if answers(model, current) != label:
                return current, forwards
    return current, forwards


def test_a_fooled_sample_costs_nothing_more():
    model, images = small_net(), random_images(8)
    labels = (answers(model, images) + 1) % 5  # every sample is fooled from the start
    found = attack(model, images, labels, threat(pgd_settings(10, random_start=False, restarts=3), iterate="best"))
    assert torch.equal(found.images, images)
    assert found.forwards.tolist() == found.backwards.tolist() == [1] * 8


def test_the_random_start_is_uniform_and_depends_on_the_restart():
    model, images = small_net(), torch.full((16, 3, 8, 8), 0.5)
    labels = answers(model, images)
    first = attack(model, images, labels, threat(pgd_settings(1, "0.000001 eps"))).images - images
    assert first.abs().max() <= EPS
    # The mean of 3072 uniform numbers on ±eps has standard deviation eps / sqrt(3 x 3072); five of them.
    assert abs(first.mean()) < 5 * EPS / (3 * 3072) ** 0.5
    # A standard uniform variable on ±1 has variance 1/3; that of its square is 4/45.
    assert abs((first / EPS).square().mean() - 1 / 3) < 5 * (4 / 45 / 3072) ** 0.5


def test_predicted_labels_can_repair_a_wrong_answer():
    """Why the paper's protocol can overstate robustness: the attack moves away from the wrong class."""
    model, images = TwoClassLinear((3, 8, 8)), random_images(20, low=0.4, high=0.6)
    truth = torch.zeros(20, dtype=torch.int64)
    model.bias.data -= model(images)[:, 0].median()  # half of them are wrong
    predicted = answers(model, images)
    wrong = predicted != truth
    assert 0 < wrong.sum() < 20
    quirk = attack(model, images, predicted, threat(fgsm_settings(), labels="predicted")).images
    honest = attack(model, images, truth, threat(fgsm_settings())).images
    assert (answers(model, quirk)[wrong] == 0).any()
    assert not (answers(model, honest)[wrong] == 0).any()


def test_weights_get_no_gradient_and_the_callers_modes_stay():
    model, images = small_net().train(), random_images(2)
    with torch.no_grad():
        attack(model, images, torch.tensor([0, 1]), threat(pgd_settings(2)))
        assert not torch.is_grad_enabled()
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert model.training
    assert not images.requires_grad
