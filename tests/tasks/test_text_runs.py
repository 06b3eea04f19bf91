"""Runs over a text through every door, `lm`, a plan file, Python, and what reads them: report, compare, gate."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from robustbench_twicing.api import evaluate, load_finished
from robustbench_twicing.catalog.locate import definitions
from robustbench_twicing.cli.app import app
from robustbench_twicing.data.texts import Document, embedded_text
from robustbench_twicing.errors import EXIT_OK, EXIT_REGRESSED, UserError
from robustbench_twicing.results import gate
from robustbench_twicing.results.cells import by_cell
from robustbench_twicing.results.gate_text import judge_texts
from robustbench_twicing.spec.policy import Policy

Command = Callable[..., str]
pytestmark = pytest.mark.dear
SWAP = "word-swap:fixed-word-5"
SAID = ("lm", "--text", "some.parquet", "--severity", "5", "--out", "run", "--quiet", "--json")


def command(*words: str, code: int = EXIT_OK) -> str:
    found = CliRunner().invoke(app, list(words))
    assert found.exit_code == code, found.output
    return found.output


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a text of eight documents and the run over it, `run`."""
    folder = tmp_path_factory.mktemp("text")
    whole = "".join(one.text for one in embedded_text())
    rows = [whole[start : start + 1200 + 10 * start // 1200] for start in range(0, 8 * 1200, 1200)]
    pq.write_table(pa.table({"text": rows}), folder / "some.parquet")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (folder / "said.json").write_text(command(*SAID))
    return folder


@pytest.fixture(autouse=True)
def _there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


def test_lm_is_a_run_that_report_compare_bundle_and_recheck_read() -> None:
    said = Path("said.json").read_text()
    facts = json.loads(said)
    rows = {(row["model"], row["threat"], row["targets"]): row for row in facts["rows"]}
    for model in ("tiny-lm", "tiny-lm+twicing"):
        clean, everything, untouched = (
            rows[model, *key]["bits_per_byte"] for key in (("clean", "all"), (SWAP, "all"), (SWAP, "untouched"))
        )
        assert clean < everything
        assert untouched < everything
    assert command(*SAID) == said
    assert json.loads(command("report", "run", "--json"))["rows"] == facts["rows"]
    assert "bits per byte" in command("report", "run")
    assert "tiny-lm+twicing" in command("compare", "run")
    assert "tiny-lm+twicing" in command("compare", "tiny-lm", "tiny-lm+twicing", "--run", "run")
    command("bundle", "make", "run", "--out", "it.zip")
    assert "follow" in command("bundle", "verify", "it.zip")
    assert "none is wrong" in command("recheck", "run", "--sample", "2", "--quiet")


def test_plan_file_and_python_mean_the_plan_of_the_command_line_and_the_gate_passes_the_same_weights() -> None:
    Path("nightly.toml").write_text(
        'title = "A text, each night"\ntext = "some.parquet"\nmodels = ["tiny-lm", "tiny-lm+twicing"]\n'
        'severities = [5]\n[means]\nout = "again"\n[gate]\ntolerance = 0.02\n'
    )
    assert "What a text costs" in command("run", "nightly.toml", "--quiet")
    hashes = {load_finished(name).manifest.plan_hash for name in ("run", "again")}
    names = ["tiny-lm", "tiny-lm+twicing"]
    mine = evaluate(names, text="some.parquet", severities=5, suites="word-swap", out="run")
    assert hashes == {mine.manifest.plan_hash}

    command("baseline", "accept", "run", "--to", "accepted", "--why", "looked at")
    page = command("gate", "again", "--baseline", "accepted")
    assert "6 passed" in page  # clean, and the corrupted text over both choices of targets
    found = json.loads(command("gate", "again", "--baseline", "accepted", "--json"))
    assert {cell["difference"] for cell in found["cells"]} == {0.0}
    assert {cell["n"] for cell in found["cells"]} == {8}
    command("gate", "again", "--baseline", "accepted", "--floor", "*:clean=0.9", code=2)


def judged(change: Callable[[pd.DataFrame], pd.DataFrame], **policy: float) -> gate.GateResult:
    """The gate on the run, some of whose records were changed, against itself."""
    records = load_finished("run").records
    return gate.check(by_cell(change(records.copy())), by_cell(records), Policy(**policy), {}, judge_texts)


def test_a_rise_of_bits_per_byte_beyond_the_tolerance_is_regressed_and_a_fall_passes() -> None:
    def by(share: float) -> Callable[[pd.DataFrame], pd.DataFrame]:
        return lambda rows: rows.assign(**{name: rows[name] * share for name in ("nats", "untouched_nats")})

    result = judged(by(1.1))
    assert (result.verdict, result.exit_code) == ("regressed", EXIT_REGRESSED)
    assert "a rise beyond the tolerance of 0.01 bits per byte" in result.cells[0].reason
    assert judged(by(0.9)).verdict == "pass"
    assert judged(by(1.001), tolerance=0.05).verdict == "pass"
    noise = np.random.default_rng(0).normal(1, 0.05, len(load_finished("run").records))
    assert judged(lambda rows: rows.assign(nats=rows["nats"] * noise)).verdict == "inconclusive"
    with pytest.raises(UserError, match="tokenizer"):
        judged(lambda rows: rows.assign(tokenizer="other"))


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ({"models": "tiny-lm", "text": "none.txt"}, "no text"),
        ({"models": "tiny-lm", "text": "some.parquet", "eps": "1/255"}, "eps"),
        ({"models": "tiny-lm", "text": "some.parquet", "suites": "digits-c"}, "suite of text"),
        ({"models": "tiny-lm", "text": "some.parquet", "window": "paper"}, "positions"),
        ({"models": "tiny-lm", "window": "sliding"}, "window rule"),
        ({"models": "tiny-lm@s9", "text": "some.parquet"}, "train --data text"),
        ({"models": {"mine": len}, "text": "some.parquet"}, "save_pretrained"),
    ],
)
def test_what_cannot_be_meant_of_a_text_is_refused(said: dict[str, object], says: str) -> None:
    with pytest.raises(UserError) as error:
        evaluate(**said)  # type: ignore[arg-type]
    assert says in f"{error.value.message} {error.value.hint}"


def test_mistakes_in_a_plan_over_a_text_are_said_with_their_lines() -> None:
    Path("wrong.toml").write_text(
        'text = "some.parquet"\nmodels = ["tiny-lm", "tiny-lm@s9"]\nsuites = ["digits-c"]\n'
        '[train]\nmodels = ["tiny-lm+nonsense"]\nseeds = [0]\n'
    )
    said = command("run", "wrong.toml", "--quiet", code=2)
    assert all(f"line {number}" in said for number in (2, 3, 5))


def test_a_plan_over_a_text_trains_the_seeds_that_it_names_and_compares_their_arms(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    little = (Document("some", "".join(one.text for one in embedded_text())[:5000]),)
    monkeypatch.setattr("robustbench_twicing.train.text.embedded_text", lambda split: little)
    recipe = (definitions("recipes") / "tiny-lm.toml").read_text("utf-8")
    Path("short.toml").write_text(recipe.replace("epochs = 7", "epochs = 1").replace("_epochs = 1", "_epochs = 0"))
    Path("arms.toml").write_text(_ARMS)
    assert "as trained by this recipe" in " ".join(command("run", "arms.toml", "--quiet").split())
    (first, *_) = json.loads(command("compare", "arms.toml", "--json"))["rows"]
    assert (first["baseline"], first["candidate"], first["n"]) == ("plain", "tw", 3)


_ARMS = """
text = "some.parquet"
suites = []
limit = 2
models = []
[arms]
plain = ["tiny-lm@*"]
tw = ["tiny-lm+twicing@*"]
[train]
models = ["tiny-lm", "tiny-lm+twicing"]
seeds = [0, 1, 2]
recipe = "short.toml"
"""


def test_documents_whose_logits_are_no_numbers_are_named_and_the_command_fails() -> None:
    from safetensors.torch import save_file

    from robustbench_twicing.models.tiny_lm import new_tiny_lm
    from robustbench_twicing.spec.methods import Attention

    weights = {name: tensor * float("nan") for name, tensor in new_tiny_lm(Attention(), 0).state_dict().items()}
    save_file(weights, "nan.safetensors")
    words = ("--model", "tiny-lm@nan=nan.safetensors", "--text", "some.parquet", "--suite", "none", "--limit", "1")
    said = command("lm", *words, "--quiet", code=1)
    assert "not finite" in said
