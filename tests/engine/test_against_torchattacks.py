"""Ours and torchattacks' on an embedded model, verdict by verdict. docs/attacks-against-peers.md has more of both."""

import pytest
import torch

from robustbench_twicing.catalog.torchattacks import as_torchattacks
from robustbench_twicing.catalog.zoo import model_spec
from robustbench_twicing.data.digits import digits
from robustbench_twicing.models.build import load_model
from robustbench_twicing.spec.models import Recipe
from tests.engine.tiny import (
    answers,
    apgd_settings,
    apgd_t_settings,
    attack,
    mifgsm_settings,
    square_settings,
    threat,
)

COUNT = 16


@pytest.fixture(scope="module")
def model():
    return load_model(model_spec("deit-tw", "digits"))


@pytest.fixture(scope="module")
def samples():
    source = digits()
    images = source.read(range(COUNT), [Recipe()]).images[Recipe()]
    return images, torch.tensor(source.labels[:COUNT])


@pytest.mark.parametrize(
    ("settings", "eps"),
    [
        (mifgsm_settings(), "5/255"),
        (apgd_settings(8), "4/255"),
        (apgd_settings(8, loss="dlr"), "4/255"),
        (apgd_settings(8, norm="L2"), "0.5"),
        (apgd_t_settings(4, targets=3), "4/255"),
        (square_settings(60), "24/255"),
        (square_settings(60, norm="L2"), "3.5"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value.algorithm}-{value.norm}",
)
def test_the_same_samples_break(model, samples, settings, eps):
    images, labels = samples
    ours, theirs = (
        answers(model, attack(model, images, labels, threat(each, eps, iterate="best")).images) != labels
        for each in (settings, as_torchattacks(settings))
    )
    both, mine, peers = int((ours & theirs).sum()), int((ours & ~theirs).sum()), int((~ours & theirs).sum())
    print(f"both {both}, only ours {mine}, only theirs {peers}, neither {COUNT - both - mine - peers}")
    assert 0 < both + mine < COUNT
    # Draws differ, so samples near the edge may fall to either side: two in sixteen, as between two seeds of one.
    assert peers <= (0 if settings.algorithm == "mifgsm" else 2)
