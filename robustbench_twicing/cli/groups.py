"""Groups of commands whose help says each command's first sentence in full."""

from typing import Any

from typer.core import TyperGroup

from robustbench_twicing.cli.panels import help_text


class Commands(TyperGroup):
    """A group; its help cuts no sentence off."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Name and first sentence of each command, in the order in which they were added, before the options."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        said = {name: first_sentence(command.help or "") for name, command in commands if command is not None}
        formatter.write(help_text(self, ctx, said))


def first_sentence(text: str) -> str:
    """What a help text says first."""
    return " ".join(text.split("\n\n")[0].split()).partition(". ")[0].removesuffix(".") + "."
