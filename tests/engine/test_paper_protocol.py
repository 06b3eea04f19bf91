"""Two rules of the paper's protocol through the door that users use, on a model that is mostly wrong."""

import pytest
import torch
from torch import nn

from robustbench_twicing import evaluate
from robustbench_twicing.catalog.locate import definitions


@pytest.fixture(scope="module")
def guesser():
    """Ten random linear classes on the digits' 3 × 32 × 32 pixels."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))


@pytest.mark.parametrize("quirks", [True, False])
def test_only_predicted_labels_let_an_attack_repair_wrong_answers(guesser, quirks, tmp_path):
    # Without what needs iterate = "best": restarts, targets, trials and sequences.
    text = (definitions("attacks") / "standard.toml").read_text(encoding="utf-8").partition("[attacks.mifgsm]")[0]
    if quirks:
        text = text.replace('labels = "true"', 'labels = "predicted"').replace('iterate = "best"', 'iterate = "last"')
    own = tmp_path / "own.toml"
    own.write_text(text, encoding="utf-8")
    models = {"guesser": guesser}
    run = evaluate(
        models, attacks=["fgsm"], eps="64/255", protocol=str(own), limit=60, device="cpu", out=tmp_path / "run"
    )
    clean, attacked = (rows.set_index("sample_id") for _, rows in run.records.groupby("threat", sort=True))
    assert (clean["kind"] == "clean").all()
    wrong = ~clean["correct"]
    assert 10 < wrong.sum() < 60
    assert attacked.loc[wrong, "correct"].any() == quirks
    # Under "last" every sample is attacked, under "best" only what was right.
    assert (attacked.loc[wrong, "linf_distance"] > 0).all() == quirks
    assert (attacked.loc[~wrong, "linf_distance"] > 0).all()
