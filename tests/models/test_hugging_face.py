"""Causal language models of transformers, from a folder: a tiny one with random weights and a tokenizer of bytes."""

import json
import math
from pathlib import Path

import pytest
import torch

from robustbench_twicing.catalog.language import language_models, longest_window
from robustbench_twicing.engine.text_corruptions import Edited
from robustbench_twicing.errors import UserError
from robustbench_twicing.models.language import load_language_model
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
    assert longest_window([str(folder)]) == 16


def test_what_is_no_causal_model_with_its_tokenizer_is_refused(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(UserError, match="cannot be loaded"):
            load_language_model(language_models(str(place))[0])
