"""Protocol name -> Protocol, and protocol × attack × eps -> threat."""

from collections.abc import Callable
from pathlib import Path

from robustbench_twicing.catalog.locate import definitions
from robustbench_twicing.catalog.plugged_attacks import plugged_attack
from robustbench_twicing.catalog.plugins import plugin_names
from robustbench_twicing.catalog.read_toml import read_toml, validated
from robustbench_twicing.catalog.torchattacks import (
    as_torchattacks,
    completed,
    refuse_other_spaces,
    torchattacks_settings,
    torchattacks_table,
)
from robustbench_twicing.errors import UserError, unknown_name
from robustbench_twicing.spec.attacks import AttackSettings, PythonSettings, SequenceSettings, TorchattacksSettings
from robustbench_twicing.spec.protocol import Protocol
from robustbench_twicing.spec.threats import AttackThreat
from robustbench_twicing.spec.values import Eps

_HINT = "attacks/README.md lists every key, its unit and its allowed values."


def protocol_names() -> list[str]:
    """Names of the protocols that ship with the tool."""
    return sorted(path.stem for path in definitions("attacks").glob("*.toml"))


def protocol(name: str) -> Protocol:
    """A protocol by name, or from a TOML file of the user's own. Raises `UserError` if there is none or it is wrong."""
    own = Path(name)
    if own.suffix == ".toml":
        path = own
    elif name in protocol_names():
        path = definitions("attacks") / f"{name}.toml"
    else:
        raise unknown_name("protocol", name, protocol_names())
    read = validated(Protocol, {"name": path.stem, **read_toml(path)}, str(path), _HINT)
    for key, attack in read.attacks.items():
        if isinstance(attack, PythonSettings):  # which only a plan that was carried out holds
            what = f"{path}: attacks.{key} names a function, and a protocol file cannot."
            raise UserError(what, "Name it as an attack: --attack python:MODULE:NAME (docs/plugins.md).")
    return read.model_copy(update={"attacks": {key: _completed(attack) for key, attack in read.attacks.items()}})


def _completed(settings: AttackSettings) -> AttackSettings:
    """With every argument of torchattacks written out."""
    if isinstance(settings, SequenceSettings):
        return _of_members(settings, _completed)
    return completed(settings) if isinstance(settings, TorchattacksSettings) else settings


def _of_members(settings: SequenceSettings, change: Callable[[AttackSettings], AttackSettings]) -> SequenceSettings:
    return settings.model_copy(update={"members": {name: change(one) for name, one in settings.members.items()}})


def attack_threat(protocol: Protocol, attack: str, eps: Eps, engine: str = "own") -> AttackThreat:
    """One attack at one eps under a protocol's rules.

    A name that the protocol does not define is looked up among the attacks of torchattacks, in any case, and then among
    those that other packages register; `python:MODULE:NAME` is a user's own (docs/plugins.md).
    `engine="torchattacks"` runs the protocol's own attack in torchattacks. Raises `UserError` for an unknown name, and
    for what torchattacks cannot do under these rules.
    """
    name = attack if attack in protocol.attacks else attack.lower()
    if name in protocol.attacks:
        settings = protocol.attacks[name]
        if engine == "torchattacks":
            if isinstance(settings, SequenceSettings):
                settings = _of_members(settings, as_torchattacks)
            else:
                settings = as_torchattacks(settings)
    elif name in (table := torchattacks_table()).attacks or name in table.refused:
        settings = torchattacks_settings(attack)
    elif (plugged := plugged_attack(attack)) is not None:
        name, settings = plugged
        if name in protocol.attacks or name in table.attacks:
            raise UserError(f"{attack} cannot be called {name!r}, which is an attack already.", "Give it another name.")
    else:
        known = {*protocol.attacks, *table.attacks, *plugin_names("attacks")}
        raise unknown_name("attack", attack, known)
    threat = AttackThreat(protocol=protocol.name, attack=name, eps=eps, rules=protocol.rules, settings=settings)
    if any(isinstance(member.settings, TorchattacksSettings) for member in threat.members):
        refuse_other_spaces(protocol.rules)
    return threat
