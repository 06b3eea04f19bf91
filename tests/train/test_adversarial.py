"""Adversarial training: the attack is the one that evaluates, and the recipe says so."""

import pytest
import torch

from robustbench_twicing.errors import UserError
from robustbench_twicing.spec.training import Adversarial
from robustbench_twicing.train.adversarial import attacked
from robustbench_twicing.train.job import Share, in_pixels
from robustbench_twicing.train.loop import train
from robustbench_twicing.train.parts import network_of
from tests.train.small import small_job, write_pictures


def test_images_move_within_eps_towards_errors_and_the_recipe_is_another(tmp_path):
    root, against = write_pictures(tmp_path), Adversarial.parse("pgd-3", "8/255").model_dump()
    plain, job = small_job(root), small_job(root, adversarial=against)
    assert plain.statement != job.statement
    assert job.identity["adversarial.eps"] == "8/255"
    network = network_of(job)
    batch = next(iter(job.data.feed(job, network, Share(), 0)))
    moved = attacked(job, network, batch.images, batch.labels, (0, 0), 2)
    assert network.training
    assert torch.equal(moved, attacked(job, network, batch.images, batch.labels, (0, 0), 2))
    distance = (in_pixels(moved, network) - in_pixels(batch.images, network)).abs().amax((1, 2, 3))
    # Normalised and back: rounding of float32 near 1.
    assert ((distance > 7 / 255) & (distance <= 8 / 255 + 1e-6)).all()
    network.eval()
    before, after = (torch.nn.functional.cross_entropy(network(some), batch.labels) for some in (batch.images, moved))
    assert after > before
    few = {"epochs": 1, "schedule": {"warmup_epochs": 0}}
    against_it, without = (train(small_job(root, adversarial=some, **few)).weights for some in (against, None))
    assert not torch.equal(against_it["head.weight"], without["head.weight"])


@pytest.mark.parametrize(("attack", "eps"), [("fgsm", "4/255"), ("pgd-0", "4/255"), ("pgd-2", "0")])
def test_what_is_no_attack_to_train_against_is_refused(attack, eps):
    with pytest.raises(UserError, match="is no attack to train against"):
        Adversarial.parse(attack, eps)
