"""Causal language models of transformers, from a folder: a tiny one with random weights and a tokenizer of bytes."""

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

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("lm") / "tiny"
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate([*letters, "th", "<end>"])}
    inner = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=[("t", "h")]))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = tokenizers.decoders.ByteLevel()
    transformers.PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<end>").save_pretrained(place)
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=258, n_positions=16, n_embd=24, n_layer=3, n_head=3, eos_token_id=257)
    transformers.GPT2LMHeadModel(config).save_pretrained(place)
    return place


def test_a_folder_is_scored_token_by_token_and_twicing_is_a_drop_in(folder: Path) -> None:
    plain, twicing = (load_language_model(language_models(f"{folder}{more}")[0]) for more in ("", "+twicing@last2"))
    text = "the naïve moth hath thirteen legs"
    tokens = plain.tokens_of(text)
    assert "".join(text[slice(*span)] for span in dict.fromkeys(tokens.spans)) == text
    found = scored(plain, Edited(text, (), 0, 0), WindowRule.parse("disjoint(16)"), 4, torch.device("cpu"))
    assert (found.size, found.tokens) == (len(text.encode()), len(tokens.ids))
    assert found.nats == pytest.approx(found.tokens * math.log(258), rel=0.05)  # random weights know nothing
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
