"""How fast texts are scored: beside lm-evaluation-harness, with twicing beside softmax, and `lm` as a newcomer runs it.

    pip install lm-eval==0.4.13                   # in an environment that need not be kept
    python benchmarks/language.py                 # five minutes on two quiet cores; writes language.csv

The harness and ours score the same documents with the same network of transformers (a Llama of eight blocks of width
256 with grouped heads and random weights, tokens of bytes), in the same windows, as many at once, in turns in one
process; nats must agree to 1e-6. Twicing takes turns with softmax, in that network and in tiny-lm. A figure is the
median over turns of seconds by the clock for each token.
"""

import argparse
import csv
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import transformers
from conditions import commit, installed, processor

from robustbench_twicing.catalog.language import language_models
from robustbench_twicing.data.texts import embedded_text
from robustbench_twicing.engine.text_corruptions import Edited
from robustbench_twicing.models.language import LanguageModel, load_language_model
from robustbench_twicing.spec.text import WindowRule
from robustbench_twicing.tasks.text.score import scored
from tests.oracles.rolling import save_model

OUT = Path(__file__).with_suffix(".csv")
WINDOW, AT_ONCE = 256, 16
CPU = torch.device("cpu")
Scorer = Callable[[], float]
"""Scores all documents once; returns their nats."""


def save_llama(place: Path) -> None:
    """A Llama of 6.8 million random parameters with a tokenizer of bytes, as a folder."""
    save_model("llama", place)
    about = {"hidden_size": 256, "intermediate_size": 688, "num_attention_heads": 8, "num_key_value_heads": 4}
    said = {"vocab_size": 258, "bos_token_id": 257, "eos_token_id": 257}
    config = transformers.LlamaConfig(num_hidden_layers=8, max_position_embeddings=WINDOW, **about, **said)
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(place)


def ours(model: LanguageModel, texts: list[str], window: int) -> Scorer:
    rule = WindowRule.parse(f"disjoint({window})")
    return lambda: sum(scored(model, Edited(text, (), 0, 0), rule, AT_ONCE, CPU).nats for text in texts)


def harness(place: Path, texts: list[str]) -> Scorer:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    model = HFLM(pretrained=str(place), device="cpu", dtype="float32", batch_size=AT_ONCE, max_length=WINDOW)
    asked = [Instance("loglikelihood_rolling", {}, (text,), number) for number, text in enumerate(texts)]
    return lambda: -sum(model.loglikelihood_rolling(asked, disable_tqdm=True))


def in_turns(scorers: dict[str, Scorer], turns: int) -> tuple[dict[str, float], dict[str, float]]:
    """Median seconds of each, and the nats that it found. The first turn warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in scorers}
    nats: dict[str, float] = {}
    for turn in range(turns + 1):
        for name, scorer in scorers.items():
            began = time.perf_counter()
            nats[name] = scorer()
            if turn:
                seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(some) for name, some in seconds.items()}, nats


def loaded(text: str) -> LanguageModel:
    (spec,) = language_models(text)
    return load_language_model(spec)


def rows(turns: int, letters: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []

    def note(what: str, value: float) -> None:
        found.append({"what": what, "value": f"{value:.5g}"})
        print(f"{what}: {value:.5g}", flush=True)

    documents = [document.text for document in embedded_text()]
    texts = [text for number, text in enumerate(documents) if sum(map(len, documents[:number])) < letters]
    tokens = sum(len(text.encode()) for text in texts)
    note("tokens", tokens)
    with TemporaryDirectory() as folder:
        place = Path(folder) / "llama"
        save_llama(place)
        models = {name: loaded(f"{place}{method}") for name, method in (("softmax", ""), ("twicing", "+twicing"))}
        llama = {f"llama, {name}": ours(model, texts, WINDOW) for name, model in models.items()}
        seconds, nats = in_turns({**llama, "lm-evaluation-harness": harness(place, texts)}, turns)
        for name, value in seconds.items():
            note(f"{name}, tokens/s", tokens / value)
        note("ours / harness, tokens/s", seconds["lm-evaluation-harness"] / seconds["llama, softmax"])
        note("nats apart, of the harness's", abs(nats["llama, softmax"] / nats["lm-evaluation-harness"] - 1))
        note("llama, twicing / softmax, seconds", seconds["llama, twicing"] / seconds["llama, softmax"])
    tiny = {name: ours(loaded(name), texts, 128) for name in ("tiny-lm", "tiny-lm+twicing")}
    seconds, _ = in_turns(tiny, turns)
    note("tiny-lm, tokens/s", tokens / seconds["tiny-lm"])
    note("tiny-lm, twicing / softmax, seconds", seconds["tiny-lm+twicing"] / seconds["tiny-lm"])
    with TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "robustbench_twicing", "lm", "--quiet", "--fresh", "--out", "run"]
        began = time.perf_counter()
        subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, check=True)
        note("twicing-bench lm, s", time.perf_counter() - began)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--letters", type=int, default=60_000, help="Documents are taken until there are so many.")
    given, load = parser.parse_args(), round(os.getloadavg()[0], 1)
    about = {
        "threads": torch.get_num_threads(),
        "processor": processor(),
        **{name.replace("-", "_"): installed(name) for name in ("torch", "transformers", "lm-eval")},
        "commit": commit(),
        "load_before": load,
    }
    table = [{**row, **about} for row in rows(given.turns, given.letters)]
    with OUT.open("w") as file:
        writer = csv.DictWriter(file, table[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)


if __name__ == "__main__":
    main()
