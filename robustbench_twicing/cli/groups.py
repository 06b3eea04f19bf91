"""Groups of commands whose help says each command's first sentence in full."""

from typing import Any

from typer.core import TyperGroup


class Commands(TyperGroup):
    """A group; its help cuts no sentence off."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Name and first sentence of each command, in the order in which they were added."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, first_sentence(command.help or "")) for name, command in commands if command is not None]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)


def first_sentence(text: str) -> str:
    """What a help text says first."""
    return " ".join(text.split("\n\n")[0].split()).partition(". ")[0].removesuffix(".") + "."
