"""Model name -> ModelSpec."""

from pathlib import Path

from robustbench_twicing.catalog.locate import package_file
from robustbench_twicing.catalog.read_toml import read_toml, validated
from robustbench_twicing.errors import UserError, unknown_name
from robustbench_twicing.specs import Frozen, Layers, ModelSpec


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


def model_spec(text: str, data: str) -> ModelSpec:
    """The model behind `NAME` or `NAME=CHECKPOINT` on the data set `data`. Raises `UserError`.

    `NAME=CHECKPOINT` keeps the architecture and the attention of NAME and takes its weights from a file.
    """
    name, _, checkpoint = text.partition("=")
    entries = zoo()
    if name not in entries:
        raise unknown_name("model", name, entries)
    entry = entries[name].digits if data == "digits" else entries[name].imagenet
    weights = f"file:{Path(checkpoint).expanduser()}" if checkpoint else entry.weights
    if weights is None:
        raise UserError(
            f"Model {name!r} has no public weights for {data}.",
            f"Pass a checkpoint of your own: --model {name}=path/to/checkpoint.pth",
        )
    return ModelSpec(name=name, architecture=entry.architecture, twicing=entries[name].twicing, weights=weights)
