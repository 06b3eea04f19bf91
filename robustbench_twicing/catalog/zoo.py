"""Model name -> ModelSpec: names of the zoo, names of timm, and checkpoints for either. No torch."""

import difflib
import re
from collections.abc import Mapping
from functools import cache
from shlex import quote
from typing import Any, Literal, get_args

from robustbench_twicing.attention.methods import settled
from robustbench_twicing.catalog.locate import package_file
from robustbench_twicing.catalog.plugged_methods import known_methods
from robustbench_twicing.catalog.plugins import PREFIX, plugin_names
from robustbench_twicing.catalog.read_toml import read_toml, validated
from robustbench_twicing.errors import UserError, unknown_name
from robustbench_twicing.machine.remote import place_of_text
from robustbench_twicing.spec.methods import FORMS, Attention
from robustbench_twicing.spec.models import ModelSpec
from robustbench_twicing.spec.values import Frozen

WhichWeights = Literal["raw", "ema", "both"]
"""Of a training checkpoint: the weights of the last step, their moving average, or each as a model of its own."""

_PLAIN_WEIGHTS = ("timm:", "hf-hub:timm/")
"""Where timm publishes its weights, each named ARCHITECTURE.TAG. All of them were trained with softmax attention."""

_SOFTMAX = Attention()

SMALL = ("mnist", "cifar10", "cifar100")
"""Data sets of 32 x 32 pictures: names of the zoo are there the networks that they are on digits, without weights."""


class ZooWeights(Frozen):
    """What a model name stands for on one family of data sets."""

    architecture: str
    weights: str | None = None


class ZooEntry(Frozen):
    """One model name."""

    title: str
    attention: Attention
    digits: ZooWeights
    imagenet: ZooWeights


class ZooSeeds(Frozen):
    """Weights of several trainings of one method that ship with the tool, alike but for their seed."""

    architecture: str
    attention: Attention
    weights: str
    """With `{seed}` in it."""
    count: int

    def of(self, seed: int) -> str:
        """Where the weights of one are."""
        return self.weights.format(seed=seed)


class _Zoo(Frozen):
    models: dict[str, ZooEntry]
    seeds: tuple[ZooSeeds, ...]


def zoo() -> Mapping[str, ZooEntry]:
    """Every model name that ships with the tool."""
    return _zoo().models


def shipped_seeds() -> tuple[ZooSeeds, ...]:
    """The methods whose training seeds ship with the tool."""
    return _zoo().seeds


@cache
def _zoo() -> _Zoo:
    path = package_file("catalog/zoo.toml")
    return validated(_Zoo, read_toml(path), str(path))


def model_spec(text: str, data: str, **options: Any) -> ModelSpec:
    """The one model behind `text`, as `model_specs` finds it."""
    specs = model_specs(text, data, **options)
    if len(specs) > 1:
        raise UserError("Here is room for one model only.", "Name one seed, and pass --weights raw or --weights ema.")
    return specs[0]


def model_specs(
    text: str,
    data: str,
    weights: str = "raw",
    resample_pos_embed: bool = False,
    checkpoints: Mapping[str, str] | None = None,
) -> tuple[ModelSpec, ...]:
    """The models behind `NAME[+METHOD[(NUMBERS)][@LAYERS]][@LABEL][=CHECKPOINT]` on the data set `data`.

    The label `s0..s4` is five models, with `{seed}` in the CHECKPOINT standing for the number; without a checkpoint
    `s0`, `s1`, ... are the training seeds that ship with the tool.

    NAME is a name of the zoo, which brings an attention, or of timm (`deit_tiny_patch16_224.fb_in1k`), which has
    softmax attention; `+METHOD` puts another in its place (`deit+twicing(0.5)@last3`). CHECKPOINT is a file, or
    `timm:NAME` or `hf-hub:OWNER/NAME` for published weights; `python:MODULE:NAME` is what builds a model of the user's
    own, whose name is then free. `checkpoints` says which one a name has if the text does
    not. Of a training checkpoint, `weights` are read: "raw", "ema", or "both", as two models `NAME@raw` and `NAME@ema`.
    Weights known to be trained with another attention become `NAME@drop-in`. Whether timm has a name, and a file the
    weights, turns out when the model is loaded. Raises `UserError`.
    """
    if weights not in get_args(WhichWeights):
        raise unknown_name("choice of weights", weights, get_args(WhichWeights))
    several = seeds_of(text)
    if several:
        options = (data, weights, resample_pos_embed, checkpoints)
        return tuple(spec for one in several for spec in model_specs(one, *options))
    name, sign, checkpoint = text.partition("=")
    if name:  # which is unknown
        require_name(name)
    known, method, label = split_name(name)
    code = checkpoint or (checkpoints or {}).get(known, "")
    if code.startswith(PREFIX) or (not code and known in plugin_names("models", zoo())):
        return (_built_outside(name, known, method, code),)
    entry, own = _entry(known, data), _own_attention(known)
    attention = own if method is None else settled(known_methods(Attention.parse(method)))
    if sign and not checkpoint:  # such as --model deit-tw=$FILE with FILE not set: never the public weights instead
        raise UserError(f"{text!r} names no checkpoint.", f"Write {name}=path/to/checkpoint.pth, or {name} alone.")
    bare = known if method is None else f"{known}+{method}"
    checkpoint = checkpoint or (checkpoints or {}).get(bare, "")
    source = _source(checkpoint or (checkpoints or {}).get(known, ""))
    source = source or _shipped(name, label, entry, attention) or entry.weights
    if source is None:
        raise UserError(
            f"Model {known!r} has no public weights for {data}.",
            f"Pass a checkpoint of your own: --model {quote(f'{bare}=path/to/checkpoint.pth')}",
        )
    spec = ModelSpec(
        name=name,
        architecture=_architecture(source, entry),
        attention=attention,
        weights=source,
        resample_pos_embed=resample_pos_embed,
    )
    # A file that is set for NAME alone was not trained with the method that was put in its place, either.
    if not label and (is_drop_in(spec) or (attention != own and not checkpoint)):
        label, name = "drop-in", f"{name}@drop-in"
        spec = spec.model_copy(update={"name": name})
    return _with_averages(spec, weights, "-" if label else "@")


def _with_averages(spec: ModelSpec, weights: str, between: str) -> tuple[ModelSpec, ...]:
    """The model with the weights that are asked for: raw, their moving average, or both; named with a sign between."""
    if weights == "raw" or not spec.weights.startswith("file:"):  # published weights come without a moving average
        return (spec,)
    if weights == "ema":
        return (spec.model_copy(update={"prefer": "ema"}),)
    both = ("raw", "ema")
    return tuple(spec.model_copy(update={"name": f"{spec.name}{between}{which}", "prefer": which}) for which in both)


def seeds_of(text: str) -> list[str]:
    """The texts of every seed of a label such as `s0..s4`; none for any other text."""
    name, sign, checkpoint = text.partition("=")
    found = _SEVERAL.fullmatch(name)
    if found is None:
        return []
    first, last = int(found[2]), int(found[3])
    if not first < last < first + _MOST_SEEDS:
        raise UserError(
            f"{name!r} counts from seed {first} to seed {last}.", f"Write s0..s4: upward, {_MOST_SEEDS} at most."
        )
    if sign and "{seed}" not in checkpoint:
        raise UserError(
            f"{text!r} gives all seeds the same weights.", f"Write {{seed}} for the number: {name}=runs/s{{seed}}.pth"
        )
    return [f"{found[1]}@s{seed}{sign}{checkpoint.replace('{seed}', str(seed))}" for seed in range(first, last + 1)]


_SEVERAL = re.compile(r"(.+)@s(\d{1,4})\.\.s?(\d{1,4})")
_MOST_SEEDS = 100


def _shipped(name: str, label: str, entry: ZooWeights, attention: Attention) -> str | None:
    """The weights of a training seed that ships; None for a label that names none.

    Raises `UserError` for a seed that does not ship, since the weights of the bare name are not meant.
    """
    found = re.fullmatch(r"s(\d+)", label)
    if found is None or entry.weights is None or not entry.weights.startswith("package:"):
        return None
    for seeds in shipped_seeds():
        if (seeds.architecture, seeds.attention) == (entry.architecture, attention):
            if int(found[1]) < seeds.count:
                return seeds.of(int(found[1]))
            ships = f"There are s0 to s{seeds.count - 1}."
            break
    else:
        ships = f"There are seeds of {', '.join(str(seeds.attention) for seeds in shipped_seeds())}."
    raise UserError(
        f"{name!r}: no weights of that training seed ship with the tool. {ships}",
        f"Train it: twicing-bench train --model {quote(name.removesuffix('@' + label))} --seed {found[1]}, and pass "
        f"{name}=FILE.",
    )


def _built_outside(name: str, known: str, method: str | None, code: str) -> ModelSpec:
    """A model that a function of the user's, or of another package, builds (docs/plugins.md)."""
    if code and (known in zoo() or _timm_name(known)):
        raise UserError(f"{known!r} is a model already.", f"Give yours another name: --model mine={code}")
    if method is not None:
        raise UserError(
            f"{name!r}: a model of your own brings its own attention.",
            "Call robustbench_twicing.apply_method in the function that builds it.",
        )
    return ModelSpec(name=name, architecture=code or known, weights=code or f"plugin:{known}")


def require_name(name: str) -> None:
    """Raise `UserError` unless `name` can stand in tables, records and messages: the rule for models' names."""
    if not name or not name.isprintable() or name != name.strip() or len(name) > _LONGEST_NAME:
        raise UserError(
            f"{name!r} is no name of a model.",
            f"Names have 1 to {_LONGEST_NAME} printable characters, and no space at either end.",
        )


_LONGEST_NAME = 100


def labelled(text: str, label: str) -> str:
    """The text of the same model with a label, which is not taken for layers."""
    name, sign, checkpoint = text.partition("=")
    layers = "@all" if _lacks_layers(_split(name)[1]) and _like_layers(label) else ""
    return f"{name}{layers}@{label}{sign}{checkpoint}"


def is_drop_in(spec: ModelSpec) -> bool:
    """Weights that were trained with one attention, to be run with another."""
    trained = trained_with(spec.weights)
    return trained is not None and trained != spec.attention


def trained_with(weights: str) -> Attention | None:
    """The attention that weights of timm, or that ship with the tool, were trained with.

    None for a file or somebody's repository: nothing can tell.
    """
    if weights.startswith(_PLAIN_WEIGHTS):
        return _SOFTMAX
    shipped = {seeds.of(seed): seeds.attention for seeds in shipped_seeds() for seed in range(seeds.count)}
    shipped |= {entry.digits.weights: entry.attention for entry in zoo().values() if entry.digits.weights}
    return shipped.get(weights)


def known_model(name: str) -> bool:
    """`name` is in the zoo, or could be a name of timm; a method may follow it."""
    known = name.partition("+")[0]
    return known in zoo() or _timm_name(known)


def split_name(name: str) -> tuple[str, str | None, str]:
    """NAME, METHOD with its layers, and LABEL of `NAME[+METHOD[(NUMBERS)][@LAYERS]][@LABEL]`.

    Behind a method an `@x` in the form of layers is layers, anything else is the label.
    """
    known, methods, rest = _split(name)
    at, label = rest[:1], rest[1:]
    if at and at != "@":
        raise UserError(f"{name!r} has {rest!r} behind its method.", f"{_GRAMMAR} {FORMS}")
    if at and not label:
        raise UserError(f"{name!r} has no label behind the @.", f"Write {known}@LABEL=path/to/checkpoint.pth.")
    if _lacks_layers(methods) and _like_layers(label):  # else a slip would give the method to all blocks
        raise UserError(
            f"{name!r}: {label!r} is neither layers nor clearly a label.",
            f"Layers are all, last3, first3, 0,1,5 or 9-11. If it is a label, name the layers too: +METHOD@all@{label}",
        )
    return known, methods[1:] if methods else None, label


def _split(name: str) -> tuple[str, str, str]:
    """NAME, every +METHOD with its layers, and what is behind them."""
    found = _FORM.fullmatch(name)
    assert found is not None  # what has no other form is the last
    return found[1], found[2], found[3]


def _lacks_layers(methods: str) -> bool:
    """Whether what is behind these methods could be meant to be the layers of the last."""
    return bool(methods) and "@" not in methods.rpartition("+")[2]


# A method's layers end where another method, a label or the text begins; what is no layers is left to the label.
_LAYERS = r"(?:all|last\d+|first\d+|\d+(?:-\d+)?(?:,\d+(?:-\d+)?)*)(?=[@+]|\Z)"
_FORM = re.compile(rf"([^+@]*)((?:\+[^+@(]*(?:\([^)]*\))?(?:@{_LAYERS})?)*)(.*)", re.DOTALL)
_GRAMMAR = "A model is NAME[+METHOD[(NUMBERS)][@LAYERS]][@LABEL][=CHECKPOINT]."


def _like_layers(label: str) -> bool:
    likely = difflib.get_close_matches(re.sub(r"\d+", "3", label.lower()), ("last3", "first3", "all"), cutoff=0.75)
    return bool(likely or re.fullmatch(r"[\d,\s-]+", label))


def _timm_name(name: str) -> bool:
    """Such as `resnet18` or `deit_tiny_patch16_224.fb_in1k`; a slip in a name of the zoo is none."""
    # Of the 1,000 and more names in timm 1.0.31, two have neither a digit nor an underline; they need their tag.
    form = re.fullmatch(r"(?=.*[0-9_.])[a-z][a-z0-9_]*(\.[a-z0-9_]+)?", name)
    return form is not None and not difflib.get_close_matches(name, zoo(), cutoff=0.8)


def _entry(name: str, data: str) -> ZooWeights:
    entries = zoo()
    if name in entries:
        entry = entries[name]
        if data in SMALL:
            return ZooWeights(architecture=entry.digits.architecture)
        return entry.digits if data == "digits" else entry.imagenet
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


def _own_attention(name: str) -> Attention:
    """What a name has without a method behind it."""
    entries = zoo()
    if name in entries:
        return entries[name].attention
    return Attention.parse("softmax" if _plain(name) == name else "twicing")


def _source(checkpoint: str) -> str | None:
    if not checkpoint:
        return None
    if checkpoint.startswith(("timm:", "hf-hub:")):
        return checkpoint
    return f"file:{place_of_text(checkpoint)}"


def _architecture(source: str, entry: ZooWeights) -> str:
    """What the weights name, or the entry; without the tag of weights, with which the preprocessing comes too."""
    named = source.rpartition(":")[2].rpartition("/")[2] if source.startswith(_PLAIN_WEIGHTS) else ""
    name = named or entry.architecture
    return name if source.startswith("file:") else name.partition(".")[0]
