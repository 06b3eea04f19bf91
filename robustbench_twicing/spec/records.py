"""The columns of a record: one row per (model, threat, sample). Every number in every report comes from these.

`docs/records.md` is made from this table (a test holds the two together). Changing a column raises `SCHEMA_VERSION`.
"""

from typing import Literal, NamedTuple

SCHEMA_VERSION = 4

_READ_BY = {2: "twicing-bench 0.1"}


def reader_of(schema: object) -> str:
    """Which version reads the records of another schema, as a message names it."""
    known = _READ_BY.get(schema) if isinstance(schema, int) else None
    return known or "the version of twicing-bench that made it"


Status = Literal["ok", "failed", "skipped"]
"""`failed` counts neither as right nor as wrong, and is always shown; `skipped` was left out on purpose."""

ColumnType = Literal["string", "int64", "float64", "bool"]


class Column(NamedTuple):
    """One column: its name, its type, and one line saying what it holds."""

    name: str
    type: ColumnType
    holds: str


COLUMNS: tuple[Column, ...] = (
    Column("model", "string", "the model's name in the plan, as the user wrote it"),
    Column("architecture", "string", "timm architecture name; says nothing about the attention"),
    Column(
        "attention",
        "string",
        "which method each block computes, found by the numerical probe, such as twicing@3,4,5; empty: not probed",
    ),
    Column(
        "weights_hash",
        "string",
        "first 12 hex digits of the SHA-256 of all weights; of a module in memory, of its answers too",
    ),
    Column("training_recipe", "string", "hash of the recipe that trained the weights; empty unless the file states it"),
    Column("training_seed", "int64", "seed of the training; -1 unless the file of the weights states it"),
    Column("data", "string", "data set name"),
    Column("data_fingerprint", "string", "hash of the data set's samples: ids, labels and pixels or file sizes"),
    Column("recipe", "string", "preprocessing recipe; 'none' for embedded data sets"),
    Column("threat", "string", "canonical id of the threat, such as pgd-linf-1/255"),
    Column("kind", "string", "clean, attack, corruption, shift, or other: done by another tool"),
    Column("attack", "string", "the attack's name; empty for other threats"),
    Column("eps", "string", "size of the perturbation as papers write it; empty for other threats"),
    Column("suite", "string", "the suite of a corruption or shift; empty for other threats"),
    Column("corruption", "string", "the corruption's name; empty for other threats"),
    Column("severity", "int64", "1 to 5; 0 for threats that are no corruption"),
    Column("protocol", "string", "name of the attack protocol; empty for other threats"),
    Column(
        "protocol_hash",
        "string",
        "hash of the threat's settings, eps excepted: rows with two hashes are not comparable",
    ),
    Column("seed", "int64", "the plan's seed"),
    Column("device", "string", "type of the device that computed the row: cpu or cuda"),
    Column(
        "precision", "string", "what the attack computed in: float32, tf32 or bfloat16; verdicts are always float32's"
    ),
    Column("sample_id", "string", "stable id of the sample in its data set"),
    Column("label", "int64", "true class"),
    Column("status", "string", "ok, failed or skipped"),
    Column("error", "string", "why the status is not ok; else empty"),
    Column("prediction", "int64", "class with the largest logit on the judged image; -1 if failed"),
    Column("correct", "bool", "the sample counts as right under this threat"),
    Column("correct_unmasked", "bool", "right when all logits may answer, not only those of the suite's classes"),
    Column("top5_correct", "bool", "the true class is among the five largest logits on the judged image"),
    Column(
        "correct_8bit", "bool", "as correct, the judged image rounded to 8 bits; the same as correct if not asked for"
    ),
    Column("margin", "float64", "true class's logit minus the largest other logit, on the judged image"),
    Column("loss", "float64", "cross-entropy with the true class, on the judged image, in nats"),
    Column(
        "brier",
        "float64",
        "sum over classes of (probability - 1 for the true class, 0 for others)², on the judged image, in [0, 2]",
    ),
    Column("confidence", "float64", "softmax probability of the predicted class on the judged image"),
    Column("linf_distance", "float64", "largest change of a value, in the units of eps"),
    Column("l2_distance", "float64", "Euclidean norm of the change, in the units of eps"),
    Column(
        "rejected",
        "bool",
        "broken as the attack computes (precision, compiled), not as float32 judges, so attacked again in float32",
    ),
    Column("forwards", "int64", "evaluations of the model spent on this sample by the threat, without those in vain"),
    Column("backwards", "int64", "input gradients spent on this sample by the threat"),
    Column("seconds", "float64", "the shard's time for this cell divided by its samples"),
)


_OF_BOTH = {
    *("model", "attention", "weights_hash", "training_recipe", "training_seed", "data", "data_fingerprint", "threat"),
    *("kind", "suite", "corruption", "severity", "protocol_hash", "seed", "device", "precision", "status", "error"),
    "seconds",
}
_OF_TEXT = {
    "architecture": Column("architecture", "string", "tiny-lm, or the class of a Hugging Face model"),
    "protocol": Column("protocol", "string", "the window rule, such as strided(128,64)"),
    "sample_id": Column("sample_id", "string", "stable id of the document in its text, or of the stream"),
    "label": Column("tokenizer", "string", "bytes, or the hash of the tokenizer: tokens of two are not comparable"),
    "forwards": Column("tokens", "int64", "tokens that were predicted"),
    "backwards": Column("words", "int64", "words of the text as it was scored: what stands between white space"),
}
TEXT_COLUMNS: tuple[Column, ...] = (
    *(_OF_TEXT.get(column.name, column) for column in COLUMNS if column.name in _OF_BOTH | _OF_TEXT.keys()),
    Column("size", "int64", "bytes of the predicted tokens, in UTF-8"),
    Column("nats", "float64", "sum over the predicted tokens of -ln of their probability"),
    Column("untouched_tokens", "int64", "of the tokens those that no corruption touched; all in clean text"),
    Column("untouched_words", "int64", "of the words, likewise"),
    Column("untouched_size", "int64", "of the bytes, likewise"),
    Column("untouched_nats", "float64", "of the nats, likewise"),
)
"""One row per (model, threat, document) of the task `text`."""

RECORDS: dict[str, tuple[Column, ...]] = {"images": COLUMNS, "text": TEXT_COLUMNS}
"""The columns of a record, by task."""
