"""`twicing-bench catalog`: what there is, and what a name stands for."""

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from robustbench_twicing.catalog import datasets
from robustbench_twicing.catalog.protocols import protocol, protocol_names
from robustbench_twicing.catalog.torchattacks import torchattacks_table
from robustbench_twicing.catalog.zoo import zoo
from robustbench_twicing.cli.once import App
from robustbench_twicing.errors import unknown_name
from robustbench_twicing.spec.protocol import Protocol


class _ListByDefault(TyperGroup):
    """`catalog` alone is `catalog list`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args or ["list"])


app = App(cls=_ListByDefault, help="List models, protocols, attacks and data sets; `catalog show NAME` explains one.")


@app.command("list")
def everything() -> None:
    """List models, protocols, attacks and data sets."""
    console = Console()
    console.print(_table("Models", {name: entry.title for name, entry in zoo().items()}))
    protocols = {name: protocol(name) for name in protocol_names()}
    console.print(_table("Protocols", {name: content.title for name, content in protocols.items()}))
    attacks: dict[str, list[str]] = {}
    for name, content in protocols.items():
        for attack in content.attacks:
            attacks.setdefault(attack, []).append(name)
    console.print(_table("Attacks", {attack: "in " + ", ".join(names) for attack, names in attacks.items()}))
    console.print(Text("Also by name, run by torchattacks: " + ", ".join(sorted(torchattacks_table().attacks))))
    console.print(_table("Data sets", datasets.titles()))


@app.command()
def show(name: Annotated[str, typer.Argument(help="A model, protocol, attack or data set.")]) -> None:
    """Explain one name."""
    console = Console()
    protocols = {key: protocol(key) for key in protocol_names()}
    models = zoo()
    found = False
    if name in models:
        found = True
        entry = models[name]
        console.print(Text(f"Model {name}: {entry.title}", style="bold"))
        console.print(f"twicing in blocks: {entry.twicing}", highlight=False)
        for family, weights in (("digits", entry.digits), ("imagenet", entry.imagenet)):
            behind = weights.weights or f"none public; pass --model {name}=CHECKPOINT"
            console.print(f"on {family}: {weights.architecture}, weights {behind}", highlight=False, markup=False)
    if name in protocols:
        found = True
        _show_protocol(console, protocols[name])
    for content in protocols.values():
        if name in content.attacks:
            found = True
            console.print(Text(f"Attack {name} in protocol {content.name}", style="bold"))
            console.print(_table("", {k: str(v) for k, v in content.attacks[name].model_dump(mode="json").items()}))
    if name in torchattacks_table().attacks:
        found = True
        entry_there = torchattacks_table().attacks[name]
        console.print(
            Text(f"Attack {name}, run by torchattacks.{entry_there.attack}: {entry_there.source}", style="bold")
        )
        console.print(_table("", {key: str(value) for key, value in entry_there.arguments.items()}))
    if name in datasets.titles():
        found = True
        console.print(Text(f"Data set {name}: {datasets.titles()[name]}", style="bold"))
    if not found:
        raise unknown_name(
            "name", name, {*models, *protocols, *datasets.titles(), *(a for p in protocols.values() for a in p.attacks)}
        )


def _show_protocol(console: Console, content: Protocol) -> None:
    console.print(Text(f"Protocol {content.name}: {content.title}", style="bold"))
    console.print(Text(f"Source: {content.source}"))
    console.print(_table("Rules of every attack", {**content.rules.model_dump(mode="json"), "recipe": content.recipe}))
    for attack, settings in content.attacks.items():
        console.print(_table(attack, {key: str(value) for key, value in settings.model_dump(mode="json").items()}))


def _table(title: str, rows: dict[str, str]) -> Table:
    table = Table(title=title or None, title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in rows.items():
        table.add_row(name, Text(str(text)))
    return table
