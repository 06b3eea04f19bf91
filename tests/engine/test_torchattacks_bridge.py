"""torchattacks behind our contract: every attack runs, is checked, counted and kept away from the weights."""

import pytest
import torch
import torchattacks

from robustbench_twicing.catalog.protocols import attack_threat, protocol
from robustbench_twicing.catalog.torchattacks import as_torchattacks, torchattacks_settings, torchattacks_table
from robustbench_twicing.engine.measured import verify
from robustbench_twicing.errors import UserError
from robustbench_twicing.spec.values import Eps
from tests.engine.tiny import answers, attack, fgsm_settings, ids, pgd_settings, random_images, small_net, threat
from tests.oracles.linear import TwoClassLinear, best_linf

EPS = 8 / 255
CASES = [(name, norm) for name, entry in torchattacks_table().attacks.items() for norm in entry.norms]


class Counted(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model, self.forwards = model, 0

    def forward(self, images):
        self.forwards += len(images)
        return self.model(images)


def quick(name, norm):
    """Settings that take a second: the number of steps is not what is tested here."""
    settings = torchattacks_settings(name, norm)
    fewer = {
        key: value
        for key, value in {"steps": 3, "num_iter_set": 3, "n_queries": 20}.items()
        if key in settings.arguments
    }
    return settings.model_copy(update={"arguments": {**settings.arguments, **fewer}})


def test_another_seed_draws_something_else():
    model, images, what = small_net(), random_images(3), threat(torchattacks_settings("eotpgd"))
    labels = answers(model, images)
    first, again, other = (attack(model, images, labels, what, seed=seed).images for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_every_attack_stays_in_the_ball_and_does_harm(name, norm, capfd):
    model, images = small_net(size=16), random_images(5, size=16)
    labels = answers(model, images)
    what = threat(quick(name, norm), "16/255" if norm == "Linf" else "1.0", iterate="best")
    with torch.no_grad():  # as the runner might call it
        found = attack(model, images, labels, what, batch_size=3)
    checked = verify(found, images, what)
    assert set(checked.reasons) == {""}
    with torch.no_grad():
        before = model(images).log_softmax(1).gather(1, labels[:, None]).sum()
        after = model(checked.images).log_softmax(1).gather(1, labels[:, None]).sum()
    assert after < before
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert capfd.readouterr() == ("", "")


def test_the_state_around_it_stays():
    model, images = small_net().train(), random_images(3)
    before = torch.random.get_rng_state()
    with torch.autocast("cpu", torch.bfloat16):
        found = attack(model, images, torch.tensor([0, 1, 2]), threat(torchattacks_settings("apgd")))
        assert torch.is_autocast_enabled("cpu")
    assert torch.equal(torch.random.get_rng_state(), before)
    assert model.training
    assert not found.images.requires_grad
    assert found.images.dtype == torch.float32


@pytest.mark.parametrize("name", ["apgd", "fab", "eotpgd", "square"])
def test_evaluations_are_counted(name):
    model, images = Counted(small_net()), random_images(5)
    labels = answers(model, images)
    model.forwards = 0
    found = attack(model, images, labels, threat(quick(name, "Linf")))
    assert found.forwards.sum() == model.forwards
    assert found.forwards.max() - found.forwards.min() <= 1
    assert (found.backwards.sum() == 0) == (name == "square")


@pytest.mark.parametrize("name", ["eotpgd", "jitter", "apgd", "square", "fab"])
def test_the_batch_size_changes_nothing(name):
    """Even where torchattacks draws for all images at once: it gets the same images whatever the batch size."""
    model, images = small_net(), random_images(5)
    labels, what = answers(model, images), threat(quick(name, "Linf"))
    whole, chunked = (attack(model, images, labels, what, batch_size=size) for size in (64, 2))
    torch.testing.assert_close(chunked.images, whole.images, rtol=0, atol=1e-5)  # logits differ by 1e-7
    assert torch.equal(chunked.forwards, whole.forwards)
    assert torch.equal(chunked.backwards, whole.backwards)


def test_more_samples_than_go_together_are_attacked_in_turn():
    model, images = small_net(size=4), random_images(70, size=4)
    labels, what = answers(model, images), threat(torchattacks_settings("eotpgd"))
    found = attack(model, images, labels, what)
    first = attack(model, images[:64], labels[:64], what)
    rest = attack(model, images[64:], labels[64:], what, sample_ids=ids(70)[64:])
    torch.testing.assert_close(found.images, torch.cat((first.images, rest.images)), rtol=0, atol=1e-6)
    assert len(found.forwards) == 70


class Spike(torch.nn.Module):
    """Class 1 only while the first value is near 0.51; the gradient leads on past it."""

    def forward(self, images):
        value = images[:, 0, 0, 0]
        lead = (50 * (value - 0.51).abs() - 0.5).detach() - 1000 * (value - value.detach())
        return torch.stack((lead, torch.zeros_like(lead)), dim=1)


@pytest.mark.parametrize(("iterate", "answer"), [("best", 1), ("last", 0)])
def test_the_iterate_rule_holds_although_torchattacks_keeps_the_last(iterate, answer):
    images = torch.full((2, 3, 2, 2), 0.41)
    settings = as_torchattacks(pgd_settings(4, "0.1", random_start=False))
    found = attack(Spike(), images, torch.tensor([0, 0]), threat(settings, "0.5", iterate=iterate))
    assert answers(Spike(), found.images).tolist() == [answer] * 2


@pytest.mark.parametrize("settings", [fgsm_settings(), pgd_settings(20, "0.125 eps")])
def test_a_protocols_own_settings_run_in_torchattacks(settings):
    model, images = TwoClassLinear((3, 8, 8)), random_images(3)
    found = attack(model, images, torch.zeros(3, dtype=torch.int64), threat(as_torchattacks(settings))).images
    best = torch.from_numpy(best_linf(model.weight.detach().numpy(), images.numpy(), EPS, (0.0, 1.0)))
    torch.testing.assert_close(found, best, rtol=0, atol=2.5e-7)  # two roundings of numbers below 2


def test_arguments_reach_torchattacks(monkeypatch):
    given = {}

    class Spy(torchattacks.APGDT):
        def __init__(self, model, norm, eps, steps, n_restarts, seed, eot_iter, rho, verbose, n_classes):
            given.update(locals())
            super().__init__(model, norm, eps, steps, n_restarts, seed, eot_iter, rho, verbose, n_classes)

    monkeypatch.setattr(torchattacks, "APGDT", Spy)
    settings = torchattacks_settings("apgdt", "L2")
    attack(small_net(classes=6), random_images(1), torch.tensor([0]), threat(settings, "0.5"))
    assert (given["eps"], given["norm"], given["verbose"]) == (0.5, "L2", False)
    assert given["n_classes"] == 6  # the table's 10, lowered to what there is
    assert given["steps"] == settings.arguments["steps"]
    attack(small_net(classes=12), random_images(1), torch.tensor([0]), threat(settings, "0.5"))
    assert given["n_classes"] == 10


@pytest.mark.parametrize(("name", "eps"), [("fab-t", "16/255"), ("fab-t-l2", "1.0")])
def test_fab_runs_with_its_targets_stated(monkeypatch, name, eps):
    given = []

    class Spy(torchattacks.FAB):
        def __init__(self, *arguments, **named):
            super().__init__(*arguments, **named)
            given.append((self.multi_targeted, self.n_target_classes, self.steps))

    monkeypatch.setattr(torchattacks, "FAB", Spy)
    for classes, targets in ((6, 5), (12, 9)):
        model, images = small_net(classes=classes), random_images(4)
        labels = answers(model, images)
        what = attack_threat(protocol("standard"), name, Eps.parse(eps), "torchattacks")
        fewer = {**what.settings.arguments, "steps": 3}
        what = what.model_copy(update={"settings": what.settings.model_copy(update={"arguments": fewer})})
        found = attack(model, images, labels, what)
        assert given.pop() == (True, targets, 3)
        assert set(verify(found, images, what).reasons) == {""}
        assert (answers(model, found.images) != labels).any()


def test_too_few_classes_are_refused():
    with pytest.raises(UserError, match="needs at least 4 classes; the model has 3"):
        attack(small_net(classes=3), random_images(1), torch.tensor([0]), threat(torchattacks_settings("autoattack")))


def test_other_spaces_are_refused():
    with pytest.raises(UserError, match="clamps every image"):
        attack(small_net(), random_images(1), torch.tensor([0]), threat(torchattacks_settings("apgd"), clip=False))
    for name, engine in (("apgd", "own"), ("pgd", "torchattacks")):
        with pytest.raises(UserError, match="clamps every image"):
            attack_threat(protocol("paper"), name, Eps.parse("1/255"), engine)
