"""An experiment: what a person says, the same on the command line, in Python and in a plan file. No torch, no files.

Its fields are the keys of a plan file (docs/plans.md). `catalog.resolve` turns the names in it into a `Plan`.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainValidator

from robustbench_twicing.spec.models import ModelSpec, RecipeName
from robustbench_twicing.spec.text import EMBEDDED_TEXT
from robustbench_twicing.spec.threats import Precision
from robustbench_twicing.spec.values import Frozen

Flag = Annotated[bool, Field(strict=True)]
"""True or false; no number and no word that could be taken for it."""
Count = Annotated[int, Field(strict=True, ge=1)]
Seed = Annotated[int, Field(strict=True, ge=0, lt=2**63)]
WhichWeights = Literal["raw", "ema", "both"]
"""Of a training checkpoint: the weights of the last step, their moving average, or each as a model of its own."""


def _text_or_spec(value: Any) -> str | ModelSpec:
    if not isinstance(value, str | ModelSpec):
        raise ValueError("a model is named by a text, such as deit or deit=checkpoint.pth")
    return value


Model = Annotated[str | ModelSpec, PlainValidator(_text_or_spec)]
"""`NAME[+METHOD][@LABEL][=CHECKPOINT]` (docs/checkpoints.md); a `ModelSpec` for a module that is in memory already."""


class AttackRow(Frozen):
    """Every attack at every eps."""

    names: tuple[str, ...] = ()
    """Left empty: the protocol's own list."""
    eps: tuple[str, ...] = Field(default=("1/255",), min_length=1)


class SuiteRow(Frozen):
    """A suite, or a part of one."""

    name: str
    corruptions: tuple[str, ...] = ()
    """Names, or `common`, `extra` or `all`; left empty: all."""
    severities: tuple[Annotated[int, Field(strict=True)], ...] = ()
    """1 to 5; left empty: all."""


class Experiment(Frozen):
    """Models × what is done to their images, in a person's words."""

    models: tuple[Model, ...] = ()
    weights: WhichWeights = "raw"
    resample_pos_embed: Flag = False
    """Interpolate position embeddings of another image size; otherwise they are refused."""
    checkpoints: Mapping[str, str] = Field(default_factory=dict)
    """Which checkpoint a model's name stands for where it is given alone."""
    data: str | None = None
    """What is attacked; left out: digits, or what the suites are made from."""
    ids: str | tuple[str, ...] = ()
    """Only these samples, by their ids, or a text file with one id a line."""
    limit: Count | None = None
    """Samples for each threat; left out: all, or what the protocol suggests for a dear attack."""
    seed: Seed = 0
    recipe: RecipeName | None = None
    """How images on disk are prepared; left out: the protocol's where something is attacked, else each suite's own."""
    protocol: str = "standard"
    engine: Literal["own", "torchattacks"] = "own"
    attacks: tuple[AttackRow, ...] = ()
    worst_case: Flag = False
    """Add, for each norm and eps, the row of all attacks together."""
    precision: Precision = "float32"
    """What attacks compute in; verdicts are float32's."""
    eot: Count = 1
    """Draws of a random model over which attacks average."""
    eight_bit: Flag = False
    """Judge attacked images a second time, rounded to 8 bits a pixel."""
    source_model: Annotated[
        tuple[str, ...], BeforeValidator(lambda said: (said,) if isinstance(said, str) else said)
    ] = ()
    """Another model that the attacked images are made on, or several: every attack is then made on each."""
    suites: tuple[SuiteRow, ...] = ()


class TextExperiment(Frozen):
    """Language models × what is done to a text, in a person's words."""

    models: tuple[Model, ...] = ("tiny-lm", "tiny-lm+twicing")
    """`NAME[+METHOD][@LABEL][=CHECKPOINT]`, NAME being tiny-lm, a folder or a file of Hugging Face's; a `ModelSpec` for
    what a plan trains."""
    text: str = EMBEDDED_TEXT
    """A file (text or parquet), or the name of the text that ships. Who names a text has this form."""
    window: str = "disjoint"
    """What a model sees when it predicts (`spec.text.WindowRule`)."""
    suites: Annotated[tuple[str, ...], BeforeValidator(lambda said: () if said in ("none", ["none"]) else said)] = (
        "word-swap",
    )
    """`none`, or an empty list: clean alone."""
    severities: tuple[Annotated[int, Field(strict=True, ge=1, le=5)], ...] = ()
    """1 to 5; left empty: all."""
    limit: Count | None = None
    """Documents for each threat; left out: all."""
    seed: Seed = 0
