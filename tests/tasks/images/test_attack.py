"""Crafting, judging and composing attacks, with models whose answers are known."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from robustbench_twicing.models.classifier import Classifier
from robustbench_twicing.models.faster.precision import in_precision, tensor_cores
from robustbench_twicing.models.intake import wrap_model
from robustbench_twicing.spec.attacks import SequenceSettings
from robustbench_twicing.spec.threats import AttackThreat
from robustbench_twicing.spec.values import Eps
from robustbench_twicing.tasks.images.attack import Attacks, Outcome, Roles
from robustbench_twicing.tasks.images.judge import Samples
from tests.engine.tiny import fgsm_settings, ids, pgd_settings, random_images, rules, small_net

COUNT = 24


def _threat(attack: str, settings: Any, eps: str = "8/255", **changes: Any) -> AttackThreat:
    return AttackThreat(
        protocol="test", attack=attack, eps=Eps.parse(eps), rules=rules(iterate="best"), settings=settings, **changes
    )


PGD = _threat("pgd", pgd_settings())
MEMBERS = {"weak": pgd_settings(steps=1), "strong": pgd_settings()}
WORST = _threat("worst-case", SequenceSettings(algorithm="sequence", members=MEMBERS))


def _model(module: nn.Module | None = None) -> Classifier:
    return wrap_model("m", module or small_net(), 8)


def _samples(model: Classifier, images: torch.Tensor) -> Samples:
    """Samples that the model answers rightly."""
    with torch.no_grad():
        logits = model(images)
    labels = logits.argmax(1)
    return Samples(images, labels, torch.nn.functional.one_hot(labels, logits.shape[1]).bool(), ids(len(images)), None)


def _run(roles: Roles, threat: AttackThreat, samples: Samples, attacks: Attacks | None = None) -> Outcome:
    with torch.no_grad():
        clean = samples.judged(roles.judging(samples.images))
    return (attacks or Attacks(seed=0))(roles, threat, samples, clean, lambda evaluations: None)


def _same(one: Outcome, other: Outcome) -> bool:
    pairs = [(getattr(one, name), getattr(other, name)) for name in vars(one) if name != "judgement"]
    pairs += [(column, getattr(other.judgement, name)) for name, column in vars(one.judgement).items()]
    return all(np.array_equal(mine, theirs) for mine, theirs in pairs)


def test_a_worst_case_is_robust_only_where_every_member_is() -> None:
    model = _model()
    roles, samples, attacks = Roles(model, model, model), _samples(model, random_images(COUNT)), Attacks(0)
    each = [_run(roles, member, samples, attacks) for member in WORST.members]
    worst = _run(roles, WORST, samples, attacks)
    survives = np.logical_and(*(outcome.judgement.correct for outcome in each))
    assert 0 < survives.sum() < each[0].judgement.correct.sum()  # both break some, and not the same
    assert (worst.judgement.correct == survives).all()
    assert (worst.judgement.margin[survives] == np.minimum(*(o.judgement.margin for o in each))[survives]).all()
    by_first = ~each[0].judgement.correct
    assert (worst.spent[:, by_first] == each[0].spent[:, by_first]).all()
    assert (worst.spent[:, ~by_first] == (each[0].spent + each[1].spent)[:, ~by_first]).all()


def test_members_that_ran_for_their_own_row_give_the_same_worst_case() -> None:
    model = _model()
    roles, samples, attacks = Roles(model, model, model), _samples(model, random_images(COUNT)), Attacks(0)
    for member in WORST.members:
        _run(roles, member, samples, attacks)
    evaluated: list[int] = []
    clean = samples.judged(model(samples.images).detach())
    remembered = attacks(roles, WORST, samples, clean, evaluated.append)
    assert evaluated == []
    assert _same(remembered, _run(roles, WORST, samples))


class _Contrary(nn.Module):
    """Takes every image for something else than the network does."""

    def __init__(self) -> None:
        super().__init__()
        self.net = small_net()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return -self.net(images)


def test_what_float32_does_not_confirm_is_attacked_again_in_float32() -> None:
    model = _model()
    samples = _samples(model, random_images(COUNT))
    threat = PGD.model_copy(update={"precision": "bfloat16"})
    # The contrary model is "fooled" by the random start already, which does next to nothing to the real one.
    misled = _run(Roles(model, crafting=_model(_Contrary()), fallback=model), threat, samples)
    alone = _run(Roles(model, model, model), PGD, samples)
    assert misled.rejected.sum() >= COUNT - 2
    assert (misled.judgement.correct == alone.judgement.correct)[misled.rejected].all()
    assert (misled.judgement.margin == alone.judgement.margin)[misled.rejected].all()
    assert (misled.spent[0] > alone.spent[0])[misled.rejected].all()


def test_bfloat16_decides_nothing() -> None:
    model = _model()
    samples = _samples(model, random_images(COUNT))
    threat = PGD.model_copy(update={"precision": "bfloat16"})
    outcome = _run(Roles(model, in_precision(model, "bfloat16"), model), threat, samples)
    alone = _run(Roles(model, model, model), PGD, samples)
    assert (outcome.distances[0] <= 8 / 255 + 1e-6).all()
    # No sample counts as robust only because bfloat16 took it for broken and stopped: at most ties differ.
    assert (outcome.judgement.correct != alone.judgement.correct).sum() <= 1
    assert not outcome.judgement.correct.all()


def test_a_bfloat16_model_differs_by_its_rounding_only() -> None:
    model = _model()
    images = random_images(4)
    rounded = in_precision(model, "bfloat16")
    assert in_precision(model, "float32") is model
    difference = (rounded(images) - model(images)).abs().max()
    assert rounded(images).dtype == torch.float32
    # Three layers, each with factors of 8 bits: a few times 2^-8 of the largest logit, and not nothing.
    assert 0 < difference < 8 * 2**-8 * model(images).abs().max()
    assert next(model.parameters()).dtype == torch.float32


def test_tensor_cores_are_set_and_put_back() -> None:
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    with tensor_cores(allowed=True):
        assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == ("high", True)
        with tensor_cores(allowed=False):
            assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == ("highest", False)
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before


def test_a_transfer_takes_every_step_on_the_source_and_is_judged_on_the_target() -> None:
    target, source = _model(), _model(small_net(seed=3))
    samples = _samples(target, random_images(COUNT))
    threat = PGD.model_copy(update={"source": source.card.spec})
    transferred = _run(Roles(target, crafting=source, fallback=source), threat, samples)
    direct = _run(Roles(target, target, target), PGD, samples)
    assert (transferred.spent[1] == 10).all()  # it does not stop where the source is fooled
    assert transferred.judgement.correct.sum() > direct.judgement.correct.sum()
    itself = _run(Roles(target, target, target), threat, samples)
    assert itself.judgement.correct.sum() <= direct.judgement.correct.sum() + 1


class _Threshold(nn.Module):
    """Class 0 up to a mean pixel of 100.2 of 255, class 1 above."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        above = images.mean((1, 2, 3)) * 255 - 100.2
        return torch.stack((-above, above), dim=1)


@pytest.mark.parametrize("eight_bit", [False, True])
def test_rounding_to_eight_bits_gives_a_verdict_of_its_own(eight_bit: bool) -> None:
    model = _model(_Threshold())
    samples = _samples(model, torch.full((3, 3, 8, 8), 100 / 255))
    threat = _threat("fgsm", fgsm_settings(), "0.4/255", eight_bit=eight_bit)
    outcome = _run(Roles(model, model, model), threat, samples)
    assert not outcome.judgement.correct.any()  # at 100.4
    assert (outcome.correct_8bit == eight_bit).all()  # back at 100; without being asked, as judged
