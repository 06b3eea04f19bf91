"""FMN, DDN and DeepFool: against foolbox sample by sample, and the closest mistake of a linear model."""

import warnings

import pytest
import torch

from robustbench_twicing.engine.projections import distance
from tests.engine.tiny import (
    answers,
    attack,
    ddn_settings,
    deepfool_settings,
    fmn_settings,
    random_images,
    small_net,
    threat,
)
from tests.oracles.linear import TwoClassLinear

with warnings.catch_warnings():  # foolbox 3.3.4 imports from a place that SciPy is about to remove
    warnings.simplefilter("ignore", DeprecationWarning)
    import foolbox

FAR = "1000"
"""In L2 every image of the range lies within it, so what counts is how close the walk comes."""


class _Projecting(foolbox.attacks.L2FMNAttack):
    """Its own projection divides a norm by itself (fast_minimum_norm.py, L2FMNAttack.project), so it never projects."""

    def project(self, x, x0, epsilon):
        delta = x - x0
        length = delta.reshape((len(x), -1)).norms.l2(axis=-1).maximum(1e-12)
        return x0 + delta * (epsilon / length).minimum(1).reshape((len(x), 1, 1, 1))


COUNTERPARTS = {
    "fmn-l2": (fmn_settings(40, norm="L2"), _Projecting(steps=40)),
    "ddn-l2": (ddn_settings(40), foolbox.attacks.DDNAttack(steps=40)),
    "deepfool-l2": (
        deepfool_settings(20, norm="L2"),
        foolbox.attacks.L2DeepFoolAttack(steps=20, candidates=10, loss="logits"),
    ),
    "fmn": (fmn_settings(40), foolbox.attacks.LInfFMNAttack(steps=40, max_stepsize=1.0)),
    "deepfool": (deepfool_settings(20), foolbox.attacks.LinfDeepFoolAttack(steps=20, candidates=10, loss="logits")),
}


@pytest.mark.parametrize("name", COUNTERPARTS)
def test_each_sample_comes_as_close_as_with_foolbox(name):
    settings, theirs = COUNTERPARTS[name]
    model, images = small_net(8, seed=3), random_images(24, 8, seed=5)
    labels = answers(model, images)
    ours = attack(model, images, labels, threat(settings, FAR if settings.norm == "L2" else "1", iterate="best"))
    there, _, fooled = theirs(foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu"), images, labels, epsilons=None)
    assert fooled.sum() > 12  # of 24; foolbox's L2FMN creeps up to the boundary of the others
    assert (answers(model, ours.images) != labels).all()
    close = distance(ours.images - images, settings.norm)
    torch.testing.assert_close(close[fooled], distance(there - images, settings.norm)[fooled], rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize("name", COUNTERPARTS)
def test_the_closest_mistake_of_a_linear_model_is_found(name):
    """Its distance is |lead| over the dual norm of the weight, where no bound is in the way. A radius that shrinks and
    grows by gamma finds it no nearer than that."""
    settings, _ = COUNTERPARTS[name]
    model = TwoClassLinear((3, 4, 4), seed=2)
    images = random_images(6, 4, low=0.4, high=0.6, seed=1)
    labels = answers(model, images)
    found = attack(model, images, labels, threat(settings, FAR if settings.norm == "L2" else "1", iterate="best"))
    lead, weight = model(images)[:, 0].detach().abs(), model.weight.detach()
    expected = lead / (weight.abs().sum() if settings.norm == "Linf" else weight.norm())
    close = distance(found.images - images, settings.norm)
    assert (close >= expected * (1 - 1e-4)).all()
    torch.testing.assert_close(
        close, expected, rtol=settings.overshoot if "deepfool" in name else settings.gamma, atol=1e-3
    )


def test_eps_only_says_which_mistakes_count():
    model, images = small_net(8, seed=3), random_images(24, 8, seed=5)
    labels = answers(model, images)
    settings = fmn_settings(30)
    far = attack(model, images, labels, threat(settings, "1", iterate="best"))
    close = distance(far.images - images, "Linf")
    eps = float(f"{close.sort().values[11:13].mean().item():.6f}")  # between two of them
    some = attack(model, images, labels, threat(settings, f"{eps}", iterate="best"))
    assert ((answers(model, some.images) != labels) == (close <= eps)).all()
    assert 0 < (close <= eps).sum() < 24
