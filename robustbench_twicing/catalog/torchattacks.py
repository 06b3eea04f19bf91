"""Attack name -> settings of the torchattacks package, without importing it (it would import torch)."""

from functools import cache

from robustbench_twicing.catalog.locate import package_file
from robustbench_twicing.catalog.read_toml import read_toml, validated
from robustbench_twicing.errors import UserError, unknown_name
from robustbench_twicing.spec.attacks import (
    ApgdSettings,
    ApgdTargetedSettings,
    AttackSettings,
    FgsmSettings,
    MifgsmSettings,
    NoiseSettings,
    PgdSettings,
    Rules,
    SpsaSettings,
    SquareSettings,
    TorchattacksSettings,
)
from robustbench_twicing.spec.values import Frozen, Norm


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


def as_torchattacks(settings: AttackSettings) -> TorchattacksSettings:
    """A protocol's own attack as torchattacks would run it.

    Raises `UserError` naming every setting that torchattacks cannot express. Two things differ silently in SPSA, and
    that is what the comparison is for: one direction is shared by all images, and probes may leave [0, 1].
    """
    cannot: list[str] = []
    attack = settings.algorithm.upper()
    arguments: dict[str, bool | int | float | str | None] = {"eps": "1 eps"}
    bounds_l2 = False
    match settings:
        case TorchattacksSettings():
            return settings
        case NoiseSettings():
            raise UserError("torchattacks draws no uniform points of a ball.", "Run this attack with --engine own.")
        case FgsmSettings():
            pass
        case PgdSettings():
            arguments |= {
                "alpha": str(settings.step_size),
                "steps": settings.steps,
                "random_start": settings.random_start,
            }
            if settings.norm == "L2":
                attack, bounds_l2 = "PGDL2", True
                arguments["eps_for_division"] = 1e-10
            if settings.restarts > 1:
                cannot.append(f"restarts = {settings.restarts}")
        case MifgsmSettings():
            arguments |= {"alpha": str(settings.step_size), "steps": settings.steps, "decay": settings.decay}
        case ApgdSettings() | ApgdTargetedSettings():
            bounds_l2 = True
            arguments |= {"steps": settings.steps, "n_restarts": settings.restarts, "eot_iter": 1, "rho": 0.75}
            if isinstance(settings, ApgdSettings):
                arguments["loss"] = settings.loss
            else:
                attack = "APGDT"
                arguments["n_classes"] = settings.targets + 1
        case SquareSettings():
            attack, bounds_l2 = "Square", True
            arguments |= {"n_queries": settings.queries, "n_restarts": 1, "p_init": settings.p_init}
            arguments |= {"loss": "margin", "resc_schedule": True}
        case SpsaSettings():
            arguments |= {
                "delta": str(settings.probe_distance),
                "lr": str(settings.step_size),
                "nb_iter": settings.steps,
                "nb_sample": settings.samples,
                "max_batch_size": 64,
            }
            if settings.random_start:
                cannot.append("random_start = true")
            if settings.probe_center != "current":
                cannot.append(f'probe_center = "{settings.probe_center}"')
    if settings.norm != "Linf" and not bounds_l2:
        cannot.append(f'norm = "{settings.norm}"')
    if cannot:
        raise UserError(
            f"torchattacks' {attack} cannot be given {' and '.join(cannot)}.", "Run this protocol with --engine own."
        )
    return TorchattacksSettings(
        algorithm="torchattacks",
        attack=attack,
        norm=settings.norm,
        arguments=arguments,
        suggested_limit=settings.suggested_limit,
    )


def refuse_other_spaces(rules: Rules) -> None:
    """Raises `UserError` unless the images are clipped pixels: torchattacks clamps whatever it gets to [0, 1]."""
    if rules.space != "pixel" or not rules.clip:
        raise UserError(
            "torchattacks clamps every image to [0, 1], which destroys normalised or unclipped images.",
            "Use a protocol with space = 'pixel' and clip = true, such as standard.",
        )
