"""`report --layout model-card`: what the Hub's own library reads from the card is what summary.csv says."""

from pathlib import Path

import pandas as pd
import pytest
import yaml
from huggingface_hub import ModelCard
from typer.testing import CliRunner

from robustbench_twicing.cli.app import app
from tests.records_builder import records, run_folder, with_flips

BEFORE, AFTER = with_flips(200, right=150, lost=5, gained=40)
ATTACK = "fgsm-linf-1/255"
FOG = [f"imagenet-c:fog-{severity}" for severity in (1, 2)]


def test_the_hub_reads_the_figures_and_their_intervals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    hostile = "deit-tw: [x]\u202e"
    outcomes = {
        (model, threat): right
        for model, right in (("deit", BEFORE), (hostile, AFTER))
        for threat in ("clean", ATTACK, *FOG)
    }
    run_folder(Path("night"), records(outcomes))
    command = ["report", "night", "--layout", "model-card", "--to", "card.md"]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    text = Path("card.md").read_text("utf-8")
    front = yaml.safe_load(text.split("---\n")[1])
    assert [entry["name"] for entry in front["model-index"]] == ["deit", hostile]
    for entry in front["model-index"]:
        alone = {**front, "model-index": [entry]}  # the library knows one model to a card
        card = ModelCard(f"---\n{yaml.safe_dump(alone)}---\n{text}", ignore_metadata_errors=False)
        assert card.data.model_name == entry["name"]
        found = {(one.dataset_type, one.dataset_config, one.metric_type): one for one in card.data.eval_results}
        summary = pd.read_csv("night/summary.csv").set_index(["model", "threat"])
        for threat in ("clean", ATTACK):
            row = summary.loc[entry["name"], threat]
            one = found["digits", threat, "accuracy"]
            assert one.metric_value == row["accuracy"]
            assert one.metric_args["ci_low"] == pytest.approx(row["ci_low"])
            assert (one.metric_args["n"], one.metric_args["threat"]) == (200, threat)
        assert found["digits", ATTACK, "accuracy"].metric_args["eps"] == "1/255"
        whole = {
            metric: one for (data, of, metric), one in found.items() if (data, of) == ("imagenet-c", "whole suite")
        }
        assert "brier" in whole
    assert "| threat | model |" in text
