"""Commands whose single options are said once: the last of two would win without a word."""

from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

from robustbench_twicing.cli.groups import Commands
from robustbench_twicing.cli.panels import help_text
from robustbench_twicing.errors import UserError

Function = TypeVar("Function", bound=Callable[..., Any])


class _Command(TyperCommand):
    def format_help(self, ctx: Any, formatter: Any) -> None:
        """In panels; the formatter's own width ends at 80 columns."""
        formatter.write(help_text(self, ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        options, _, order = self.make_parser(ctx).parse_args(args=list(args))
        for param, times in Counter(order).items():
            if times > 1 and param.param_type_name == "option" and not param.multiple and param.name in options:
                raise UserError(
                    f"{param.opts[0]} is given {times} times, and there is room for one.", "Leave the others away."
                )
        return super().parse_args(ctx, args)


class App(typer.Typer):
    """Typer, with such commands, and help texts that are text: `[gate]` is no markup."""

    def __init__(self, *, cls: type[TyperGroup] = Commands, **settings: Any) -> None:
        super().__init__(cls=cls, rich_markup_mode=None, **settings)

    def command(
        self, name: str | None = None, *, cls: type[TyperCommand] | None = None, **settings: Any
    ) -> Callable[[Function], Function]:
        """As typer's own."""
        return super().command(name, cls=cls or _Command, **settings)
