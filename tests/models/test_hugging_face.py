"""Causal language models of transformers, from a folder: a tiny one with random weights and a tokenizer of bytes."""

import json
import math
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

from robustbench_twicing.catalog.language import language_models, longest_window
from robustbench_twicing.cli.app import app
from robustbench_twicing.engine.text_corruptions import Edited
from robustbench_twicing.errors import UserError
from robustbench_twicing.models.language import Tokens, load_language_model
from robustbench_twicing.spec.text import WindowRule
from robustbench_twicing.tasks.text.score import scored
from tests.oracles import rolling

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model of each kind of the oracle."""
    places = {kind: tmp_path_factory.mktemp("lm") / kind for kind in rolling.KINDS}
    for kind, place in places.items():
        rolling.save_model(kind, place)
    return places


@pytest.fixture
def folder(folders: dict[str, Path]) -> Path:
    return folders["gpt2"]


@pytest.mark.parametrize("kind", rolling.KINDS)
def test_bits_per_byte_are_those_of_lm_evaluation_harness(kind: str, folders: dict[str, Path]) -> None:
    model = load_language_model(language_models(str(folders[kind]))[0])
    theirs = json.loads(rolling.FILE.read_text())["nats"][kind]
    assert set(theirs) == {str(context) for context in rolling.CONTEXTS}
    for context in rolling.CONTEXTS:
        stride = rolling.WINDOW - context + 1
        rule = WindowRule.parse(f"strided({rolling.WINDOW},{stride})")
        for text, nats in zip(rolling.TEXTS, theirs[str(context)], strict=True):
            ours = scored(model, Edited(text, (), 0, 0), rule, 4, torch.device("cpu"))
            assert ours.size == len(text.encode())
            # the harness adds a window's log-likelihoods in float32
            bits = nats / math.log(2) / ours.size
            assert ours.nats / math.log(2) / ours.size == pytest.approx(bits, rel=0, abs=1e-6)


def test_a_folder_is_scored_token_by_token_and_twicing_is_a_drop_in(folder: Path) -> None:
    plain, twicing = (load_language_model(language_models(f"{folder}{more}")[0]) for more in ("", "+twicing@last2"))
    text = "the naïve moth hath thirteen legs"
    tokens = plain.tokens_of(text)
    assert "".join(text[slice(*span)] for span in dict.fromkeys(tokens.spans)) == text
    found = scored(plain, Edited(text, (), 0, 0), WindowRule.parse("disjoint(16)"), 4, torch.device("cpu"))
    assert (found.size, found.tokens) == (len(text.encode()), len(tokens.ids))
    assert twicing.card.attention == "twicing@1,2"
    assert twicing.card.spec.name.endswith("@drop-in")
    assert twicing.card.tokenizer == plain.card.tokenizer
    other = scored(twicing, Edited(text, (), 0, 0), WindowRule.parse("disjoint(16)"), 4, torch.device("cpu"))
    assert other.nats != found.nats
    assert longest_window([plain.card.spec]) == 16


def test_what_is_no_causal_model_with_its_tokenizer_is_refused(folder: Path, tmp_path: Path) -> None:
    alone, bert, picture = (tmp_path / name for name in ("alone", "bert", "picture"))
    shutil.copytree(folder, alone, ignore=shutil.ignore_patterns("token*"))
    for place in (bert, picture):
        shutil.copytree(folder, place, ignore=shutil.ignore_patterns("model*", "config*", "generation*"))
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    seeing_all = transformers.BertConfig(vocab_size=258, max_position_embeddings=16, **small)
    transformers.BertLMHeadModel(seeing_all).save_pretrained(bert)
    transformers.ViTConfig(**small).save_pretrained(picture)
    for place, says in (
        (tmp_path, "cannot be loaded"),
        (tmp_path / "nothing", "cannot be loaded"),
        (alone, "no tokenizer"),
        (picture, "cannot be loaded"),
        (bert, "a position sees later ones"),
    ):
        with pytest.raises(UserError, match=says):
            load_language_model(language_models(str(place))[0])


def test_a_word_that_no_token_has_is_scored_as_the_unknown_one_and_never_left_out(folder: Path, tmp_path: Path) -> None:
    words = {"the": 0, "moth": 1, "<unk>": 2, "<end>": 3}
    level, whitespace = tokenizers.models.WordLevel, tokenizers.pre_tokenizers.Whitespace
    kinds = {
        "knows": level(vocab=words, unk_token="<unk>"),
        "stops": level(vocab={"the": 0, "<end>": 3}, unk_token="<none>"),
        "drops": tokenizers.models.BPE(vocab={"t": 0, "h": 1, "e": 2, "<end>": 3}, merges=[]),
    }

    def tokens(name: str) -> Tokens:
        place, inner = tmp_path / name, tokenizers.Tokenizer(kinds[name])
        shutil.copytree(folder, place, ignore=shutil.ignore_patterns("token*"))
        inner.pre_tokenizer = whitespace()
        transformers.PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<end>").save_pretrained(place)
        return load_language_model(language_models(str(place))[0]).tokens_of("the zebra moth")

    assert tokens("knows") == Tokens((0, 2, 1), ((0, 3), (4, 9), (10, 14)))
    for name, says in (("stops", "cannot cut"), ("drops", "drops")):
        with pytest.raises(UserError, match=says):
            tokens(name)


def test_token_perplexities_of_two_tokenizers_are_never_beside_each_other(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder, "other")
    pq.write_table(pa.table({"text": ["the naïve moth hath thirteen legs", "and no wing"]}), "some.parquet")

    def run(*words: str, code: int = 0) -> str:
        found = CliRunner().invoke(app, list(words))
        assert found.exit_code == code, found.output
        return found.output

    words = ("lm", "--model", "tiny-lm", "--text", "some.parquet", "--suite", "none", "--quiet")
    both = run(*words, "--model", "./other", "--window", "disjoint(16)", "--out", "run")
    assert "token ppl" not in both
    assert "Token perplexities are left out: the models have different tokenizers" in " ".join(both.split())
    (row,) = json.loads(run("compare", "run", "--json"))["rows"]
    assert row["tokens"] is None
    assert row["n"] == 2
    assert "token ppl" in run(*words, "--out", "alone")
    assert "16 positions" in run(*words, "--model", "./other", "--window", "disjoint(32)", code=2)
