"""Protocol name -> Protocol, and protocol × attack × eps -> threat."""

from pathlib import Path

from robustbench_twicing.catalog.locate import definitions
from robustbench_twicing.catalog.read_toml import read_toml, validated
from robustbench_twicing.errors import unknown_name
from robustbench_twicing.specs import AttackThreat, Eps, Protocol

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
    return validated(Protocol, {"name": path.stem, **read_toml(path)}, str(path), _HINT)


def attack_threat(protocol: Protocol, attack: str, eps: Eps) -> AttackThreat:
    """One attack of a protocol at one eps. Raises `UserError` for an attack the protocol does not define."""
    if attack not in protocol.attacks:
        raise unknown_name(f"attack in protocol {protocol.name!r}", attack, protocol.attacks)
    return AttackThreat(
        protocol=protocol.name, attack=attack, eps=eps, rules=protocol.rules, settings=protocol.attacks[attack]
    )
