"""Protocol name -> Protocol, and protocol × attack × eps -> threat."""

from pathlib import Path

from robustbench_twicing.catalog.locate import definitions
from robustbench_twicing.catalog.read_toml import read_toml, validated
from robustbench_twicing.catalog.torchattacks import (
    as_torchattacks,
    completed,
    refuse_other_spaces,
    torchattacks_settings,
    torchattacks_table,
)
from robustbench_twicing.errors import unknown_name
from robustbench_twicing.specs import AttackSettings, AttackThreat, Eps, Protocol, TorchattacksSettings

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
    attacks: dict[str, AttackSettings] = {
        key: completed(settings) if isinstance(settings, TorchattacksSettings) else settings
        for key, settings in read.attacks.items()
    }
    return read.model_copy(update={"attacks": attacks})


def attack_threat(protocol: Protocol, attack: str, eps: Eps, engine: str = "own") -> AttackThreat:
    """One attack at one eps under a protocol's rules.

    A name that the protocol does not define is looked up among the attacks of torchattacks, in any case.
    `engine="torchattacks"` runs the protocol's own attack in torchattacks. Raises `UserError` for an unknown name, and
    for what torchattacks cannot do under these rules.
    """
    name = attack if attack in protocol.attacks else attack.lower()
    if name in protocol.attacks:
        settings = protocol.attacks[name]
        if engine == "torchattacks":
            settings = as_torchattacks(settings)
    elif name in (table := torchattacks_table()).attacks or name in table.refused:
        settings = torchattacks_settings(attack)
    else:
        raise unknown_name("attack", attack, {*protocol.attacks, *table.attacks})
    if isinstance(settings, TorchattacksSettings):
        refuse_other_spaces(protocol.rules)
    return AttackThreat(protocol=protocol.name, attack=name, eps=eps, rules=protocol.rules, settings=settings)
