"""Attack name -> settings of the torchattacks package, without importing it (it would import torch)."""

import json
from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

from robustbench_twicing.catalog.locate import package_file
from robustbench_twicing.catalog.read_toml import read_toml, validated
from robustbench_twicing.errors import UserError, unknown_name
from robustbench_twicing.spec.attacks import (
    ApgdTargetedSettings,
    AttackSettings,
    TorchattacksSettings,
)
from robustbench_twicing.spec.minimum_norm import FabTargetedSettings
from robustbench_twicing.spec.protocol import Rules
from robustbench_twicing.spec.values import Frozen, Length, Norm


class TorchattacksEntry(Frozen):
    """One attack of torchattacks: see the head of torchattacks.toml."""

    attack: str
    norms: tuple[Norm, ...]
    source: str
    arguments: dict[str, bool | int | float | str]
    suggested_limit: int | None = None


class TorchattacksTable(Frozen):
    """Every attack of torchattacks: what can be run, and why the others cannot."""

    attacks: dict[str, TorchattacksEntry]
    refused: dict[str, str]


@cache
def torchattacks_table() -> TorchattacksTable:
    """The table that ships with the tool; a test compares it with the installed torchattacks."""
    path = package_file("catalog/torchattacks.toml")
    return validated(TorchattacksTable, read_toml(path), str(path))


def torchattacks_settings(name: str, norm: Norm | None = None) -> TorchattacksSettings:
    """Settings of an attack by its name in any case, with every argument written out.

    `norm=None` takes the first that the attack knows. Raises `UserError` for an unknown name, an attack that takes no
    eps, and a norm that the attack cannot bound.
    """
    entry = _entry(name)
    settings = TorchattacksSettings(
        algorithm="torchattacks", attack=name, norm=norm or entry.norms[0], suggested_limit=entry.suggested_limit
    )
    return completed(settings)


def completed(settings: TorchattacksSettings) -> TorchattacksSettings:
    """The settings with the arguments that a protocol file left out. Raises `UserError` as `torchattacks_settings`
    does, and for an argument that the attack does not take or that is of another type.
    """
    entry = _entry(settings.attack)
    if settings.norm not in entry.norms:
        raise UserError(
            f"{entry.attack} cannot bound the {settings.norm} norm.", f"It bounds {', '.join(entry.norms)}."
        )
    for name, value in settings.arguments.items():
        if name not in entry.arguments:
            raise unknown_name(f"argument of {entry.attack}", name, entry.arguments)
        usual = entry.arguments[name]
        if not (type(value) is type(usual) or (isinstance(usual, float) and type(value) is int)):
            raise UserError(f"Argument {name} of {entry.attack} is {value!r}.", f"Write something like {usual!r}.")
    return settings.model_copy(update={"attack": entry.attack, "arguments": {**entry.arguments, **settings.arguments}})


def _entry(name: str) -> TorchattacksEntry:
    table = torchattacks_table()
    key = name.lower()
    if key in table.refused:
        raise UserError(
            f"Attack {name!r} of torchattacks cannot be run at an eps: {table.refused[key]}.",
            f"Available: {', '.join(sorted(table.attacks))}.",
        )
    if key not in table.attacks:
        raise unknown_name("attack", name, table.attacks)
    return table.attacks[key]


class Counterpart(NamedTuple):
    """One of our algorithms as torchattacks has it."""

    attack: str
    """Class in torchattacks."""
    norms: tuple[Norm, ...]
    """What it can bound."""
    carries: Mapping[str, str]
    """Setting -> argument. A setting that is not here must have its default."""
    fixed: Mapping[str, bool | int | float | str] = {}
    """Arguments that make it the same algorithm."""


_PGD = {"step_size": "alpha", "steps": "steps", "random_start": "random_start"}
_APGD = {"steps": "steps", "restarts": "n_restarts"}
_FAB = {
    "steps": "steps",
    "restarts": "n_restarts",
    "targets": "n_classes",
    "alpha_max": "alpha_max",
    "eta": "eta",
    "beta": "beta",
}
_SPSA = {"probe_distance": "delta", "step_size": "lr", "steps": "nb_iter", "samples": "nb_sample"}
_BOTH: tuple[Norm, ...] = ("Linf", "L2")

COUNTERPARTS: dict[str, tuple[Counterpart, ...]] = {
    "fgsm": (Counterpart("FGSM", ("Linf",), {}),),
    "pgd": (
        Counterpart("PGD", ("Linf",), _PGD),
        Counterpart("PGDL2", ("L2",), _PGD, {"eps_for_division": 1e-10}),
    ),
    "mifgsm": (Counterpart("MIFGSM", ("Linf",), {"step_size": "alpha", "steps": "steps", "decay": "decay"}),),
    "apgd": (Counterpart("APGD", _BOTH, {**_APGD, "loss": "loss"}, {"eot_iter": 1, "rho": 0.75}),),
    "apgd-t": (Counterpart("APGDT", _BOTH, {**_APGD, "targets": "n_classes"}, {"eot_iter": 1, "rho": 0.75}),),
    "fab-t": (Counterpart("FAB", _BOTH, _FAB, {"multi_targeted": True}),),
    "square": (
        Counterpart(
            "Square",
            _BOTH,
            {"queries": "n_queries", "p_init": "p_init"},
            {"n_restarts": 1, "loss": "margin", "resc_schedule": True},
        ),
    ),
    "spsa": (Counterpart("SPSA", ("Linf",), _SPSA, {"max_batch_size": 64}),),
}
"""Our algorithm -> what `--engine torchattacks` runs. One that is not here is refused by name."""


def as_torchattacks(settings: AttackSettings) -> TorchattacksSettings:
    """A protocol's own attack as torchattacks would run it.

    Raises `UserError` for an algorithm that is not in `COUNTERPARTS`, and naming every setting that torchattacks cannot
    express. Two things differ silently in SPSA, and that is what the comparison is for: one direction is shared by all
    images, and probes may leave [0, 1].
    """
    if isinstance(settings, TorchattacksSettings):
        return settings
    hint = "Run this attack with --engine own."
    if settings.algorithm not in COUNTERPARTS:
        raise UserError(f"torchattacks has no counterpart of the algorithm {settings.algorithm!r}.", hint)
    several = COUNTERPARTS[settings.algorithm]
    chosen = next((one for one in several if settings.norm in one.norms), several[0])
    cannot = [] if settings.norm in chosen.norms else [f'norm = "{settings.norm}"']
    arguments: dict[str, bool | int | float | str | None] = {"eps": "1 eps", **chosen.fixed}
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if name in chosen.carries:
            arguments[chosen.carries[name]] = str(value) if isinstance(value, Length) else value
        elif name not in AttackSettings.model_fields and value != field.get_default(call_default_factory=True):
            cannot.append(f"{name} = {json.dumps(value, default=str)}")
    if isinstance(settings, ApgdTargetedSettings | FabTargetedSettings):
        arguments["n_classes"] = settings.targets + 1  # with the label's own
    if cannot:
        raise UserError(f"torchattacks' {chosen.attack} cannot be given {' and '.join(cannot)}.", hint)
    return TorchattacksSettings(
        attack=chosen.attack, norm=settings.norm, arguments=arguments, suggested_limit=settings.suggested_limit
    )


def refuse_other_spaces(rules: Rules) -> None:
    """Raises `UserError` unless the images are clipped pixels: torchattacks clamps whatever it gets to [0, 1]."""
    if rules.space != "pixel" or not rules.clip:
        raise UserError(
            "torchattacks clamps every image to [0, 1], which destroys normalised or unclipped images.",
            "Use a protocol with space = 'pixel' and clip = true, such as standard.",
        )
