"""Records of the task `text`: which of them cannot be, and what a report shows of them. No torch."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import pandas as pd

from robustbench_twicing.errors import UserError
from robustbench_twicing.metrics.perplexity import bits_interval, bits_per_byte, token_perplexity, word_perplexity
from robustbench_twicing.results.summary import SummaryColumn

SCORED = ("status", "error", "tokens", "words", "size", "nats", "untouched_tokens", "untouched_words",
          "untouched_size", "untouched_nats")  # fmt: skip
_ROUNDING = 1e-9

TARGETS = ("all", "untouched")
"""Every predicted token, and only those that no corruption touched: what a corrupted context costs."""


def targets_of(rows: pd.DataFrame) -> tuple[str, ...]:
    """The choices of targets for records of one threat: in clean text both are the same."""
    return TARGETS if rows["kind"].iloc[0] != "clean" else TARGETS[:1]


TEXT_SUMMARY: tuple[SummaryColumn, ...] = (
    SummaryColumn("model", "the model's name in the plan"),
    SummaryColumn("architecture", "tiny-lm, or the class of a Hugging Face model"),
    SummaryColumn("attention", "which method each block computes"),
    SummaryColumn("weights_hash", "first 12 hex digits of the SHA-256 of the weights"),
    SummaryColumn("tokenizer", "bytes, or the hash of the tokenizer"),
    SummaryColumn("data", "name of the text"),
    SummaryColumn("threat", "clean, or suite:corruption-severity"),
    SummaryColumn("kind", "clean or corruption"),
    SummaryColumn("suite", "suite of a corruption"),
    SummaryColumn("corruption", "name of the corruption"),
    SummaryColumn("severity", "1 to 5; 0 for the clean text"),
    SummaryColumn("protocol", "the window rule"),
    SummaryColumn("protocol_hash", "rows with different hashes are not comparable"),
    SummaryColumn("seed", "seed of the plan"),
    SummaryColumn("targets", "all predicted tokens, or those that the corruption left untouched"),
    SummaryColumn("n", "documents with status ok"),
    SummaryColumn("failed", "documents without an answer"),
    SummaryColumn("tokens", "that were predicted"),
    SummaryColumn("words", "between white space"),
    SummaryColumn("size", "bytes of UTF-8"),
    SummaryColumn("nats", "sum over the predicted tokens"),
    SummaryColumn("token_perplexity", "exp(nats / tokens): only comparable within one tokenizer"),
    SummaryColumn("word_perplexity", "exp(nats / words)"),
    SummaryColumn("bits_per_byte", "nats / (ln 2 · bytes)"),
    SummaryColumn("bits_per_byte_low", "lower end of its 95 % interval: bootstrap over documents"),
    SummaryColumn("bits_per_byte_high", "upper end"),
)


def scored_wrongly(rows: pd.DataFrame) -> list[tuple[str, "pd.Series[bool]"]]:
    """What a record of a text may not say, and which ones do."""
    ok, failed = rows["status"] == "ok", rows["status"] == "failed"
    parts = [rows[f"untouched_{name}"] > rows[name] for name in ("tokens", "words", "size")]
    more = rows["untouched_nats"] > rows["nats"] + _ROUNDING * rows["nats"].abs().clip(lower=1.0)
    return [
        ("with a status that no run gives", ~(ok | failed)),
        ("whose error does not fit the status", ok != (rows["error"] == "")),
        ("whose nats do not fit the status", ok != rows["nats"].notna()),
        ("with fewer than no nats", ok & ~(rows["nats"] >= -_ROUNDING)),
        ("with fewer than no tokens, words or bytes", (rows[["tokens", "words", "size"]] < 0).any(axis=1)),
        ("with more untouched than there is", parts[0] | parts[1] | parts[2] | (ok & more)),
    ]


def summarize_text(cells: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """One row per model, threat and choice of targets (`TARGETS`; only `all` for clean text, where both are the same),
    with the columns of `TEXT_SUMMARY`."""
    names = [column.name for column in TEXT_SUMMARY]
    return pd.DataFrame(list(_rows(cells)), columns=names)


def _rows(cells: Iterable[pd.DataFrame]) -> Iterator[dict[str, Any]]:
    about = [column.name for column in TEXT_SUMMARY][: [column.name for column in TEXT_SUMMARY].index("targets")]
    for group in cells:
        ok = group[group["status"] == "ok"]
        counts = {"n": len(ok), "failed": int((group["status"] == "failed").sum())}
        for targets in targets_of(group):
            yield {
                **{name: group[name].iloc[0] for name in about},
                "targets": targets,
                **counts,
                **figures(ok, targets),
            }


def sums(rows: pd.DataFrame, targets: str) -> Mapping[str, Any]:
    """Nats, tokens, words and bytes of each document, as arrays of floats."""
    of = "untouched_" if targets == "untouched" else ""
    return {name: rows[f"{of}{name}"].to_numpy(dtype=float) for name in ("nats", "tokens", "words", "size")}


def figures(rows: pd.DataFrame, targets: str) -> dict[str, Any]:
    """Every number of some answered documents."""
    parts = sums(rows, targets)
    nats, size = parts["nats"], parts["size"]
    low, high = math.nan, math.nan
    with suppress(UserError):  # one document
        low, high = bits_interval(nats, size)
    return {
        **{name: int(parts[name].sum()) for name in ("tokens", "words", "size")},
        "nats": float(nats.sum()),
        "token_perplexity": token_perplexity(nats, parts["tokens"]),
        "word_perplexity": word_perplexity(nats, parts["words"]),
        "bits_per_byte": bits_per_byte(nats, size),
        "bits_per_byte_low": low,
        "bits_per_byte_high": high,
    }


def refuse_text(task: str, what: str, instead: Sequence[str] = ("report", "compare", "lm")) -> None:
    """Raise `UserError` for a run over a text, of which `what` makes nothing yet."""
    if task == "text":
        raise UserError(
            f"{what} is made for images, and this is a run over a text.",
            f"A text run is read by {', '.join(instead)}.",
        )
