"""Model name -> ModelSpec: names of the zoo, names of timm, and checkpoints for either. No torch."""

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from robustbench_twicing.catalog.locate import package_file
from robustbench_twicing.catalog.read_toml import read_toml, validated
from robustbench_twicing.errors import UserError, unknown_name
from robustbench_twicing.spec.models import Layers, ModelSpec
from robustbench_twicing.spec.values import Frozen

WhichWeights = Literal["raw", "ema", "both"]
"""Of a training checkpoint: the weights of the last step, their moving average, or each as a model of its own."""

_PLAIN_WEIGHTS = ("timm:", "hf-hub:timm/")
"""Where timm publishes its weights, each named ARCHITECTURE.TAG. None of them has seen twicing."""


class ZooWeights(Frozen):
    """What a model name stands for on one family of data sets."""

    architecture: str
    weights: str | None = None


class ZooEntry(Frozen):
    """One model name."""

    title: str
    twicing: Layers
    digits: ZooWeights
    imagenet: ZooWeights


class _Zoo(Frozen):
    models: dict[str, ZooEntry]


def zoo() -> dict[str, ZooEntry]:
    """Every model name that ships with the tool."""
    path = package_file("catalog/zoo.toml")
    return validated(_Zoo, {"models": read_toml(path)}, str(path)).models


def model_spec(text: str, data: str, **options: Any) -> ModelSpec:
    """The one model behind `text`, as `model_specs` finds it."""
    specs = model_specs(text, data, **options)
    if len(specs) > 1:
        raise UserError("Here is room for one model only.", "Pass --weights raw or --weights ema.")
    return specs[0]


def model_specs(
    text: str,
    data: str,
    weights: str = "raw",
    resample_pos_embed: bool = False,
    checkpoints: Mapping[str, str] | None = None,
) -> tuple[ModelSpec, ...]:
    """The models behind `NAME`, `NAME=CHECKPOINT` or `NAME@LABEL=CHECKPOINT` on the data set `data`.

    NAME is a name of the zoo, which brings an attention, or of timm (`deit_tiny_patch16_224.fb_in1k`), which has
    softmax attention. CHECKPOINT is a file, or `timm:NAME` or `hf-hub:OWNER/NAME` for published weights. `checkpoints`
    says which one a name has if the text does not. Of a training checkpoint, `weights` are read: "raw", "ema", or
    "both", as two models `NAME@raw` and `NAME@ema`. Plain published weights under a twicing name become
    `NAME@drop-in`. Whether timm has a name, and a file the weights, turns out when the model is loaded.
    Raises `UserError`.
    """
    if weights not in get_args(WhichWeights):
        raise unknown_name("choice of weights", weights, get_args(WhichWeights))
    name, sign, checkpoint = text.partition("=")
    known, at, label = name.partition("@")
    entry = _entry(known, data)
    if sign and not checkpoint:  # such as --model deit-tw=$FILE with FILE not set: never the public weights instead
        raise UserError(f"{text!r} names no checkpoint.", f"Write {name}=path/to/checkpoint.pth, or {name} alone.")
    if at and not label:
        raise UserError(f"{text!r} has no label behind the @.", f"Write {known}@LABEL=path/to/checkpoint.pth.")
    checkpoint = checkpoint or (checkpoints or {}).get(known, "")
    source = _source(checkpoint) if checkpoint else entry.weights
    if source is None:
        raise UserError(
            f"Model {known!r} has no public weights for {data}.",
            f"Pass a checkpoint of your own: --model {known}=path/to/checkpoint.pth",
        )
    architecture = _architecture_of(source) or entry.architecture
    if not source.startswith("file:"):  # the architecture and the preprocessing come with the weights
        architecture = architecture.partition(".")[0]
    spec = ModelSpec(
        name=name,
        architecture=architecture,
        twicing=_twicing(known),
        weights=source,
        resample_pos_embed=resample_pos_embed,
    )
    if is_drop_in(spec) and not label:
        return (spec.model_copy(update={"name": f"{name}@drop-in"}),)
    if weights == "raw" or not source.startswith("file:"):  # published weights come without a moving average
        return (spec,)
    if weights == "ema":
        return (spec.model_copy(update={"prefer": "ema"}),)
    between = "-" if label else "@"
    both = ("raw", "ema")
    return tuple(spec.model_copy(update={"name": f"{name}{between}{which}", "prefer": which}) for which in both)


def is_drop_in(spec: ModelSpec) -> bool:
    """Weights that were published for softmax attention, to be run with twicing attention.

    Of a file, or of somebody's repository, nothing can tell.
    """
    return spec.twicing != "none" and spec.weights.startswith(_PLAIN_WEIGHTS)


def known_model(name: str) -> bool:
    """`name` is in the zoo, or could be a name of timm."""
    return name in zoo() or _timm_name(name)


def _timm_name(name: str) -> bool:
    """Such as `resnet18` or `deit_tiny_patch16_224.fb_in1k`; a slip in a name of the zoo is none."""
    # Of the 1,000 and more names in timm 1.0.31, two have neither a digit nor an underline; they need their tag.
    form = re.fullmatch(r"(?=.*[0-9_.])[a-z][a-z0-9_]*(\.[a-z0-9_]+)?", name)
    return form is not None and not difflib.get_close_matches(name, zoo(), cutoff=0.8)


def _entry(name: str, data: str) -> ZooWeights:
    entries = zoo()
    if name in entries:
        return entries[name].digits if data == "digits" else entries[name].imagenet
    if name.startswith(("timm:", "hf-hub:")):
        raise UserError(
            f"{name!r} says where weights are, not which model they are for.",
            f"Write --model NAME={name}, NAME being deit, deit-tw or an architecture of timm.",
        )
    if not _timm_name(name):
        error = unknown_name("model", name, entries)
        raise UserError(error.message, f"{error.hint} Names of timm work too, such as deit_tiny_patch16_224.fb_in1k.")
    if _plain(name) != name:
        return ZooWeights(architecture=_plain(name))
    return ZooWeights(architecture=name, weights=f"timm:{name}")


def _plain(name: str) -> str:
    """The timm architecture that one of our registered twicing architectures is made from."""
    return name.replace("_twicing_", "_", 1)


def _twicing(name: str) -> Layers:
    entries = zoo()
    if name in entries:
        return entries[name].twicing
    return "none" if _plain(name) == name else "all"


def _source(checkpoint: str) -> str:
    if checkpoint.startswith(("timm:", "hf-hub:")):
        return checkpoint
    return f"file:{Path(checkpoint).expanduser()}"


def _architecture_of(source: str) -> str | None:
    if source.startswith(_PLAIN_WEIGHTS):
        return source.rpartition(":")[2].rpartition("/")[2]
    return None
