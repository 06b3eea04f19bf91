"""What holds for every algorithm, whatever the images, eps and seed."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustbench_twicing.catalog.protocols import attack_threat, protocol
from robustbench_twicing.catalog.torchattacks import torchattacks_settings
from robustbench_twicing.engine.algorithms import ALGORITHMS
from robustbench_twicing.engine.measured import verify
from robustbench_twicing.seeding import Draws
from robustbench_twicing.spec.attacks import SETTINGS
from robustbench_twicing.spec.threats import AttackThreat
from robustbench_twicing.spec.values import Eps
from tests.engine.tiny import (
    answers,
    apgd_settings,
    apgd_t_settings,
    att_settings,
    attack,
    ddn_settings,
    deepfool_settings,
    fab_t_settings,
    fgsm_settings,
    fmn_settings,
    hop_skip_jump_settings,
    ids,
    mifgsm_settings,
    noise_settings,
    patch_fool_settings,
    pgd_settings,
    pgd_t_settings,
    pna_patchout_settings,
    random_images,
    rules,
    small_net,
    small_vit,
    spsa_settings,
    square_settings,
    tgr_settings,
    threat,
)

ATTACKS = {
    "fgsm": fgsm_settings(),
    "fgsm-l2": fgsm_settings("L2"),
    "pgd": pgd_settings(3, restarts=2),
    "pgd-l2": pgd_settings(3, norm="L2", restarts=2),
    "pgd-t": pgd_t_settings(3, targets=2),
    "pgd-t-l2": pgd_t_settings(3, targets=2, norm="L2", restarts=2),
    "spsa": spsa_settings(2, 4),
    "spsa-from-a-random-start": spsa_settings(2, 4, random_start=True),
    "spsa-twice-clean": spsa_settings(2, 4, random_start=True, probe_center="twice_clean", step_size="0.01"),
    "apgd": apgd_settings(4, restarts=2),
    "apgd-dlr-l2": apgd_settings(4, loss="dlr", norm="L2"),
    "apgd-l1": apgd_settings(4, norm="L1", restarts=2),
    "apgd-t": apgd_t_settings(4, targets=2),
    "apgd-t-l1": apgd_t_settings(4, targets=2, norm="L1"),
    "apgd-t-l2": apgd_t_settings(4, targets=2, norm="L2"),
    "fab-t": fab_t_settings(4, targets=2),
    "fab-t-l2": fab_t_settings(4, norm="L2", keeps="closest"),
    "fmn": fmn_settings(4),
    "fmn-l2": fmn_settings(4, norm="L2"),
    "ddn-l2": ddn_settings(4),
    "deepfool": deepfool_settings(4, targets=2),
    "deepfool-l2": deepfool_settings(4, norm="L2"),
    "hop-skip-jump": hop_skip_jump_settings(2, directions=4, trials=8),
    "hop-skip-jump-l2": hop_skip_jump_settings(2, norm="L2", directions=4, trials=8),
    "mifgsm": mifgsm_settings(3),
    "mifgsm-l2": mifgsm_settings(3, norm="L2"),
    "noise": noise_settings(3),
    "noise-l2": noise_settings(3, norm="L2"),
    "att": att_settings(3),
    "patch-fool": patch_fool_settings(3, patches=2),
    "pna-patchout": pna_patchout_settings(3),
    "tgr": tgr_settings(3),
    "square": square_settings(34),  # more than one draw's worth of squares
    "square-l2": square_settings(34, norm="L2"),
    "torchattacks": torchattacks_settings("mifgsm"),
}
eps_values = st.fractions(min_value=0, max_value=Fraction(1, 2), max_denominator=1000).map(Eps)


def net_for(name, size=8, seed=0):
    return (small_vit if ATTACKS[name].looks_inside else small_net)(size, seed=seed)


def test_every_algorithm_is_covered():
    assert {each.algorithm for each in ATTACKS.values()} == set(ALGORITHMS) == SETTINGS.keys() - {"python", "sequence"}


@pytest.mark.parametrize("name", ATTACKS)
@given(
    eps=eps_values,
    seed=st.integers(0, 2**31),
    count=st.integers(1, 5),
    size=st.sampled_from([2, 4, 8]),
    clip=st.booleans(),
    iterate=st.sampled_from(["best", "last"]),
)
@settings(max_examples=12, deadline=None)
def test_every_result_passes_the_runners_check(name, eps, seed, count, size, clip, iterate):
    model, images = net_for(name, size, seed % 7), random_images(count, size, seed=seed)
    clip = clip or name == "torchattacks"
    what = AttackThreat(
        protocol="test", attack=name, eps=eps, rules=rules(clip=clip, iterate=iterate), settings=ATTACKS[name]
    )
    found = attack(model, images, answers(model, images), what, seed=seed)
    checked = verify(found, images, what)
    assert set(checked.reasons) == {""}
    if clip:
        assert found.images.min() >= 0.0
        assert found.images.max() <= 1.0
    assert found.forwards.shape == found.backwards.shape == (count,)


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("iterate", ["best", "last"])
def test_eps_zero_is_the_identity(name, iterate):
    model, images = net_for(name), random_images(3)
    found = attack(model, images, torch.tensor([0, 1, 2]), threat(ATTACKS[name], "0", iterate=iterate))
    assert torch.equal(found.images, images)
    assert found.images is not images


# The bridge is not here: torchattacks draws for all images of a call at once.
PER_SAMPLE = [name for name in ATTACKS if name != "torchattacks"]


@pytest.mark.parametrize("iterate", ["best", "last"])
@pytest.mark.parametrize("name", PER_SAMPLE)
def test_batch_size_order_and_company_change_nothing(name, iterate):
    model, images = net_for(name), random_images(7)
    labels, what = answers(model, images), threat(ATTACKS[name], "2/255", iterate=iterate)
    together = attack(model, images, labels, what, batch_size=100)
    order = torch.tensor([4, 2, 6, 0, 5, 1, 3])
    shuffled = attack(
        model, images[order], labels[order], what, batch_size=3, sample_ids=tuple(ids(7)[row] for row in order)
    )
    alone = [
        attack(model, images[row : row + 1], labels[row : row + 1], what, batch_size=1, sample_ids=(ids(7)[row],))
        for row in range(7)
    ]
    for other in (shuffled.images[order.argsort()], torch.cat([each.images for each in alone])):
        # Logits of size one differ by 1e-7 between batch sizes; Adam divides by the gradient's size and lets some of it
        # through, relative to steps of at most 0.01.
        torch.testing.assert_close(other, together.images, rtol=0, atol=1e-5)
        torch.testing.assert_close(model(other), model(together.images), rtol=0, atol=1e-3)
        assert torch.equal(answers(model, other), answers(model, together.images))
    assert torch.equal(shuffled.forwards[order.argsort()], together.forwards)


@pytest.mark.parametrize("name", PER_SAMPLE)
def test_another_seed_draws_something_else_wherever_something_is_drawn(name, monkeypatch):
    drawn, words = [], Draws.words
    monkeypatch.setattr(Draws, "words", lambda *given: drawn.append(given) or words(*given))
    model, images = net_for(name), random_images(3)
    labels, what = answers(model, images), threat(ATTACKS[name])
    first, again, other = (attack(model, images, labels, what, seed=seed).images for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (not drawn)


@pytest.mark.parametrize("name", ["fgsm", "pgd", "spsa"])
def test_the_shipped_protocols_attack_within_their_rules(name):
    model = small_net()
    for rule_set, images in (("standard", random_images(2)), ("paper", random_images(2, low=-2.0, high=2.0))):
        what = attack_threat(protocol(rule_set), name, Eps.parse("4/255"))
        if name == "spsa":
            what = what.model_copy(update={"settings": what.settings.model_copy(update={"steps": 2})})
        found = attack(model, images, answers(model, images), what)
        assert set(verify(found, images, what).reasons) == {""}
        assert (found.images != images).any()
