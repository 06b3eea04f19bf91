"""A model that draws at random is attacked over its draws, and what that costs is counted."""

from pathlib import Path

import pytest
import torch
from torch import nn

from robustbench_twicing import evaluate, load_model
from robustbench_twicing.engine.attacked import attacked
from robustbench_twicing.engine.contract import Queries
from robustbench_twicing.engine.losses import log_odds_against
from robustbench_twicing.errors import UserError
from robustbench_twicing.seeding import Draws
from tests.engine.tiny import fgsm_settings, ids, pgd_settings, random_images, small_net, square_settings, threat
from tests.oracles.linear import TwoClassLinear, best_linf

EPS = 8 / 255


class _Turning(nn.Module):
    """A linear model whose slope has the wrong sign in a quarter of its draws, image by image."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = TwoClassLinear((3, 8, 8))
        self.generator = torch.Generator().manual_seed(0)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        sign = torch.where(torch.rand(len(images), 1, generator=self.generator) < 0.25, -1.0, 1.0)
        logits: torch.Tensor = sign * self.linear(images)
        return logits


class _Noisy(nn.Module):
    def __init__(self, level: float) -> None:
        super().__init__()
        self.network, self.level = load_model("deit"), level

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(images + self.level * torch.randn_like(images))
        return logits


def _wrong_ways(eot: int) -> int:
    """Of 40 images, those that FGSM moves away from the best attack on the expected model."""
    model, images = _Turning(), random_images(40, low=0.3, high=0.7)
    labels, what = torch.zeros(40, dtype=torch.int64), threat(fgsm_settings())
    found, _ = attacked(Queries(model, 16, eot=eot), images, labels, what, Draws(0, ids(40), what.id))
    best = torch.from_numpy(best_linf(model.linear.weight.detach().numpy(), images.numpy(), EPS, (0.0, 1.0)))
    assert found.backwards.tolist() == [eot] * 40
    return int(((found.images - best).abs().amax((1, 2, 3)) > 1e-6).sum())


def test_the_expected_gradient_is_climbed() -> None:
    assert _wrong_ways(1) > 3  # P(fewer) = 2 %, and the generator is seeded
    assert _wrong_ways(51) == 0


def test_answers_and_gradients_are_means_over_draws() -> None:
    images, labels, seen = random_images(5), torch.zeros(5, dtype=torch.int64), []
    apart, together = _Turning(), _Turning()
    each = [Queries(apart, 8).gradient(images, labels, log_odds_against) for _ in range(4)]
    logits, gradient = Queries(together, 8, seen.append, eot=4).gradient(images, labels, log_odds_against)
    torch.testing.assert_close(logits, torch.stack([one for one, _ in each]).mean(0))
    torch.testing.assert_close(gradient, torch.stack([one for _, one in each]).mean(0))
    answers = Queries(together, 8, seen.append, eot=4)(images)
    torch.testing.assert_close(answers, torch.stack([Queries(apart, 8)(images) for _ in range(4)]).mean(0))
    assert seen == [20, 20]


@pytest.mark.parametrize("settings", [pgd_settings(3), square_settings(10)], ids=lambda one: one.algorithm)
def test_a_model_without_draws_is_attacked_as_ever_and_costs_more(settings) -> None:
    model, images, labels = small_net(), random_images(6), torch.zeros(6, dtype=torch.int64)
    what = threat(settings)
    once, _ = attacked(Queries(model, 4), images, labels, what, Draws(0, ids(6), what.id))
    four, _ = attacked(Queries(model, 4, eot=4), images, labels, what, Draws(0, ids(6), what.id))
    assert torch.equal(once.images, four.images)  # the mean of four equal numbers is exact
    assert torch.equal(4 * once.forwards, four.forwards)
    assert torch.equal(4 * once.backwards, four.backwards)


def test_a_random_defence_falls_further_to_an_attack_over_its_draws(tmp_path: Path) -> None:
    how = {"attacks": "pgd", "eps": "8/255", "limit": 30}
    with pytest.raises(UserError, match="--eot 20"):
        evaluate({"noisy": _Noisy(0.3)}, **how, out=tmp_path / "refused")
    found = {}
    for eot, checked in ((1, False), (8, True)):
        torch.manual_seed(0)
        run = evaluate({"noisy": _Noisy(0.3)}, **how, eot=eot, preflight=checked, out=tmp_path / f"{eot}")
        found[eot] = run.summary.set_index("threat")["accuracy"]["pgd-linf-8/255"]
    assert found[8] < found[1]
    assert any("average over 8 draws" in finding.text for finding in run.manifest.preflight.findings)


@pytest.mark.parametrize("asked", [{"attacks": "tgr"}, {"attacks": "pgd", "engine": "torchattacks"}])
def test_attacks_that_ask_the_model_themselves_are_refused(asked: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="asks the model itself"):
        evaluate("deit", **asked, eot=2, out=tmp_path)
