"""The random control: as often right as chance says."""

import pytest
import torch

from tests.engine.tiny import answers, attack, noise_settings, random_images, small_net, threat


class Cap(torch.nn.Module):
    """Fooled where the first value of an image of one pixel rises by more than `height`."""

    def __init__(self, height):
        super().__init__()
        self.height = height

    def forward(self, images):
        lead = 0.5 + self.height - images[:, 0, 0, 0]
        return torch.stack((lead, torch.zeros_like(lead)), dim=1)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("trials", [1, 4])
def test_it_fools_a_model_as_often_as_the_volume_says(norm, trials):
    """One pixel has three values. Beyond half of eps lie a quarter of the cube and 5/32 of the ball."""
    count, chance = 4000, 0.25 if norm == "Linf" else 5 / 32
    model, images = Cap(0.05), torch.full((count, 3, 1, 1), 0.5)
    labels = torch.zeros(count, dtype=torch.int64)
    what = threat(noise_settings(trials, norm=norm), "0.1", iterate="best")
    found = attack(model, images, labels, what, batch_size=count)
    expected = 1 - (1 - chance) ** trials
    fooled = (answers(model, found.images) != labels).float().mean()
    # Four standard deviations of a binomial share.
    assert abs(fooled - expected) < 4 * (expected * (1 - expected) / count) ** 0.5
    # A trial costs one evaluation, but the last is left for the runner.
    assert found.forwards.max() == trials - 1
    assert found.backwards.max() == 0


def test_more_trials_never_make_a_model_look_more_robust():
    model, images = small_net(classes=3), random_images(100)
    labels = answers(model, images)
    robust, still = (
        answers(model, attack(model, images, labels, threat(noise_settings(trials), "0.2", iterate="best")).images)
        == labels
        for trials in (1, 30)
    )
    assert not (still & ~robust).any()
    assert still.sum() < robust.sum() < 100


def test_the_last_trial_is_the_same_under_both_rules():
    model, images = Cap(9.0), random_images(3, size=1)
    best, last = (
        attack(model, images, torch.zeros(3, dtype=torch.int64), threat(noise_settings(3), iterate=rule)).images
        for rule in ("best", "last")
    )
    assert torch.equal(best, last)
