"""`twicing-bench catalog`: what there is, and what a name stands for."""

from typing import Annotated, Any

import typer

from robustbench_twicing.cli.groups import Commands
from robustbench_twicing.cli.once import App
from robustbench_twicing.cli.printing import Json, show_page
from robustbench_twicing.report.catalog import catalog_page, entry_page


class _ListByDefault(Commands):
    """`catalog` alone is `catalog list`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        alone = all(word.startswith("-") and word != "--help" for word in args)
        return super().parse_args(ctx, ["list", *args] if alone else args)


app = App(cls=_ListByDefault, help="List models, protocols, attacks and data sets; `catalog show NAME` explains one.")


@app.command("list")
def everything(as_machine: Json = False) -> None:
    """List models, methods of attention, protocols, attacks and data sets."""
    show_page(catalog_page(), as_machine)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Of a model, method, protocol, attack or data.")],
    as_machine: Json = False,
) -> None:
    """Explain one name."""
    show_page(entry_page(name), as_machine)
