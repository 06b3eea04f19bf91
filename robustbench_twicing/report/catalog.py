"""The pages of the catalog: what there is, and what a name stands for."""

from collections.abc import Iterable, Mapping
from typing import Any

from robustbench_twicing.attention.methods import METHODS, Row
from robustbench_twicing.catalog import datasets
from robustbench_twicing.catalog.plugged_attacks import plugged_attack
from robustbench_twicing.catalog.plugged_methods import known_methods
from robustbench_twicing.catalog.plugins import GROUPS, Group, Origin, origins, used
from robustbench_twicing.catalog.protocols import protocol, protocol_names
from robustbench_twicing.catalog.suites import shipped_names
from robustbench_twicing.catalog.torchattacks import torchattacks_table
from robustbench_twicing.catalog.zoo import ZooEntry, zoo
from robustbench_twicing.errors import unknown_name
from robustbench_twicing.metrics.table import METRICS
from robustbench_twicing.report.formats import FORMATS
from robustbench_twicing.report.page import Column, Line, Page, Table
from robustbench_twicing.spec.methods import Attention
from robustbench_twicing.spec.protocol import Protocol
from robustbench_twicing.spec.values import exact_text

_PLUGINS = (
    Column("name", "plugin"),
    Column("group", "adds to"),
    Column("package", "package"),
    Column("version", "version"),
    Column("state", "", "prose"),
)
_COLUMNS = (Column("name", ""), Column("what", "", "prose"))

_Part = Line | Table


def catalog_page() -> Page:
    """Models, methods of attention, protocols, attacks and data sets."""
    protocols = _protocols()
    attacks: dict[str, list[str]] = {}
    for name, content in protocols.items():
        for attack in content.attacks:
            attacks.setdefault(attack, []).append(name)
    more = sorted(torchattacks_table().attacks)
    plugins = [_plugin(origin) for group in GROUPS for origin in origins(group)]
    titles = {
        "models": {name: entry.title for name, entry in zoo().items()},
        "methods": {name: row.title for name, row in METHODS.items()},
        "protocols": {name: content.title for name, content in protocols.items()},
        "data": datasets.titles(),
    }
    return Page(
        "Catalog",
        (
            _table("models", "Models", titles["models"]),
            _table("methods", "Methods of attention", titles["methods"]),
            _table("protocols", "Protocols", titles["protocols"]),
            _table("attacks", "Attacks", {attack: "in " + ", ".join(names) for attack, names in attacks.items()}),
            Line("Also by name, run by torchattacks: " + ", ".join(more)),
            _table("data", "Data sets", titles["data"]),
            *([Table("plugins", "From other packages", _PLUGINS, tuple(plugins), framed=False)] if plugins else []),
        ),
        facts={**titles, "attacks": attacks, "torchattacks": more, "plugins": plugins},
    )


def entry_page(name: str) -> Page:
    """What a name stands for: a model, a method, a protocol, an attack, a data set, or several. Raises `UserError`."""
    protocols, models, there = _protocols(), zoo(), torchattacks_table().attacks
    parts: list[_Part] = []
    facts: dict[str, Any] = {"name": name}
    for origin in (origin for group in GROUPS for origin in origins(group) if origin.name == name):
        parts += _from_outside(origin)
        facts.setdefault("plugins", []).append(origin._asdict())
    if name in models:
        parts += _model(name, models[name])
        facts["model"] = models[name].model_dump(mode="json")
    if name in METHODS:
        about = _about(name, METHODS[name])
        parts += [Line(f"Method {name}: {METHODS[name].title}", "strong"), _table("method", "", about)]
        facts["method"] = about
    if name in protocols:
        parts += _protocol(protocols[name])
        facts["protocol"] = protocols[name].model_dump(mode="json")
    for content in protocols.values():
        if name in content.attacks:
            settings = content.attacks[name].model_dump(mode="json")
            parts += [Line(f"Attack {name} in protocol {content.name}", "strong"), _table(content.name, "", settings)]
            facts.setdefault("attack", {})[content.name] = settings
    if name in there:
        entry = there[name]
        title = f"Attack {name}, run by torchattacks.{entry.attack}: {entry.source}"
        parts += [Line(title, "strong"), _table("torchattacks", "", entry.arguments)]
        facts["torchattacks"] = entry.model_dump(mode="json")
    if name in datasets.titles():
        parts.append(Line(f"Data set {name}: {datasets.titles()[name]}", "strong"))
        facts["data"] = datasets.titles()[name]
    if name in (refused := torchattacks_table().refused) and not parts:
        parts.append(Line(f"Attack {name} of torchattacks cannot be run at an eps: {refused[name]}.", "strong"))
        facts["refused"] = refused[name]
    if not parts:
        attacks = (attack for content in protocols.values() for attack in content.attacks)
        raise unknown_name("name", name, {*models, *METHODS, *protocols, *datasets.titles(), *attacks})
    return Page(f"What {name} stands for", tuple(parts), facts=facts)


def _plugin(origin: Origin) -> dict[str, str]:
    """Where it comes from, and whether it can be had: nothing is imported for the list."""
    taken = origin.name in _built_in(origin.group)
    return {**origin._asdict(), "state": "refused: a built-in name" if taken else ""}


def _from_outside(origin: Origin) -> list[_Part]:
    """What a package registers, loaded as if it were used. Raises `UserError` if it cannot be."""
    said: list[_Part] = [
        Line(f"{origin.name} of {origin.group}, from the package {origin.package} {origin.version}", "strong")
    ]
    if origin.name in _built_in(origin.group):
        return [*said, Line("Refused: the name is the tool's own.")]
    if origin.group == "methods":
        known_methods(Attention.parse(origin.name))
    if origin.group == "attacks" and (found := plugged_attack(origin.name)):
        said.append(_table("settings", "", found[1].model_dump(mode="json")))
    return said


def _built_in(group: Group) -> set[str]:
    """The names of a group that are the tool's own."""
    attacks = {*torchattacks_table().attacks, *(name for one in _protocols().values() for name in one.attacks)}
    own: dict[Group, Iterable[str]] = {
        "attacks": attacks,
        "methods": METHODS.keys() - {one.name for one in used() if one.group == "methods"},
        "models": zoo(),
        "suites": shipped_names(),
        "metrics": (metric.name for metric in METRICS),
        "formats": FORMATS,
    }
    return set(own[group])


def _protocols() -> dict[str, Protocol]:
    return {name: protocol(name) for name in protocol_names()}


def _model(name: str, entry: ZooEntry) -> list[_Part]:
    lines: list[_Part] = [
        Line(f"Model {name}: {entry.title}", "strong"),
        Line(f"attention: {entry.attention}"),
    ]
    for family, weights in (("digits", entry.digits), ("imagenet", entry.imagenet)):
        behind = weights.weights or f"none public; pass --model {name}=CHECKPOINT"
        lines.append(Line(f"on {family}: {weights.architecture}, weights {behind}"))
    return lines


def _about(name: str, row: Row) -> dict[str, str]:
    about = {"computes": row.equation, "source": row.source, "as a model": f"--model deit+{name}"}
    for parameter in row.parameters:
        low, high, usual = (exact_text(value) for value in (parameter.low, parameter.high, parameter.usual))
        about[parameter.name] = f"{parameter.holds}: {low} to {high}, {usual} unless said"
    return about


def _protocol(content: Protocol) -> list[_Part]:
    rules = {**content.rules.model_dump(mode="json"), "recipe": content.recipe}
    return [
        Line(f"Protocol {content.name}: {content.title}", "strong"),
        Line(f"Source: {content.source}"),
        _table("rules", "Rules of every attack", rules),
        *(_table(attack, attack, settings.model_dump(mode="json")) for attack, settings in content.attacks.items()),
    ]


def _table(key: str, title: str, entries: Mapping[str, Any]) -> Table:
    rows = tuple({"name": name, "what": str(what)} for name, what in entries.items())
    return Table(key, title, _COLUMNS, rows, framed=False)
