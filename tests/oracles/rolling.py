"""What lm-evaluation-harness makes of two small models of transformers on two texts: log-likelihoods, rolled over them.

`python -m tests.oracles.rolling` makes `rolling.json`; it needs lm_eval 0.4.13, which is in no extra of ours. Weights
and texts follow from numpy alone, so that they are the same under every version of torch and transformers. The
harness puts the tokenizer's beginning (here: end) of text before a text, as we do. Its `loglikelihood_rolling` has
windows with one token of context; more of it is asked of the function that cuts its windows.
"""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

KINDS = ("gpt2", "llama")
WINDOW = 16
CONTEXTS = (1, 9)
"""Tokens that a window shares with what was predicted before, and one more: strides of 16 and 8."""
TEXTS = ("naïve", "The moth hath thirteen legs — or so the naïve think; they counted 13.\n" * 3)
"""Shorter than the window, and longer."""
FILE = Path(__file__).with_suffix(".json")


def save_model(kind: str, place: Path) -> None:
    """A causal model of random weights with 16 positions, three layers and a tokenizer of bytes, as a folder.

    The heads of `llama` share keys and values in pairs.
    """
    import tokenizers
    import transformers

    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate([*letters, "th", "<end>"])}
    inner = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=[("t", "h")]))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = tokenizers.decoders.ByteLevel()
    transformers.PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<end>").save_pretrained(place)
    said: dict[str, Any] = {"vocab_size": 258, "bos_token_id": 257, "eos_token_id": 257}
    if kind == "gpt2":
        config = transformers.GPT2Config(n_positions=WINDOW, n_embd=24, n_layer=3, n_head=3, **said)
    else:
        about = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2}
        config = transformers.LlamaConfig(num_hidden_layers=3, max_position_embeddings=WINDOW, **about, **said)
    model = transformers.AutoModelForCausalLM.from_config(config)
    random = np.random.Generator(np.random.Philox(key=19))
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            middle = 1.0 if "norm" in name or "ln_" in name else 0.0
            drawn = middle + 0.2 * random.standard_normal(tuple(parameter.shape))
            parameter.copy_(torch.from_numpy(drawn))
    model.save_pretrained(place)


def found(kind: str) -> dict[str, Sequence[float]]:
    """The harness's nats of each text, by how many tokens of context a window has."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    with tempfile.TemporaryDirectory() as folder:
        save_model(kind, Path(folder))
        model = HFLM(pretrained=folder, device="cpu", dtype="float32", batch_size=4)
        asked = [Instance("loglikelihood_rolling", {}, (text,), number) for number, text in enumerate(TEXTS)]
        answers = {str(CONTEXTS[0]): [-nats for nats in model.loglikelihood_rolling(asked, disable_tqdm=True)]}
        for context in CONTEXTS[1:]:
            sums = []
            for text in TEXTS:
                cut = get_rolling_token_windows(model.tok_encode(text), model.prefix_token_id, WINDOW, context)
                pieces = [("", *make_disjoint_window(pair)) for pair in cut]
                sums.append(-sum(nats for nats, _ in model._loglikelihood_tokens(pieces, disable_tqdm=True)))
            answers[str(context)] = sums
    return answers


if __name__ == "__main__":
    import lm_eval

    about = {"by": f"lm_eval {lm_eval.__version__}", "torch": torch.__version__}
    FILE.write_text(json.dumps({**about, "nats": {kind: found(kind) for kind in KINDS}}, indent=1) + "\n")
