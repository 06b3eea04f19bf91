"""Help texts: what, how, where and output of a command, a line for each option, and an example."""

import shutil
import textwrap
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import typer

from robustbench_twicing.cli.examples import EXAMPLES

WHAT, HOW, WHERE, OUTPUT_PANEL = "What", "How", "Where", "Output"
_ORDER = (WHAT, HOW, WHERE, OUTPUT_PANEL)

_WIDEST = 120
"""Columns: longer lines are hard to read."""
_NAMES = 25
"""Columns that the names of options take, with what follows them: no option of many commands is longer."""
_KINDS = {"float": "X", "int": "N", "path": "PATH", "str": "TEXT"}
"""What a value is called of which an option says no more, by typer's word for it."""

_ELSEWHERE = {
    WHAT: "model data text window suite severity limit seed seeds recipe from eps adversarial control run arm plan "
    "threat last baseline as published sample",
    WHERE: "data-dir out to weights-dir",
    OUTPUT_PANEL: "plot junit markdown flips slices with-names quiet",
}
"""Panels of options that a single command has; what is in none of these says how."""


def in_panel(panel: str, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same options, each in this panel of a help unless it names another."""
    for annotation in options.values():
        (option,) = annotation.__metadata__
        option.rich_help_panel = option.rich_help_panel or panel
    return options


def help_text(command: Any, ctx: Any, commands: Mapping[str, str] = MappingProxyType({})) -> str:
    """What `--help` says of a command, or of a group with these commands, as wide as the terminal."""
    width = min(shutil.get_terminal_size().columns - 1, _WIDEST)
    usage = [ctx.command_path, *command.collect_usage_pieces(ctx)]
    lines = [*_folded("Usage: " + " ".join(usage), width), "", *_paragraphs(command.help, width)]
    example = EXAMPLES.get(" ".join(ctx.command_path.split()[1:]))
    if example:
        lines += _folded(f"Example: twicing-bench {example}", width)
    lines.append("")
    panels = _panels(command, ctx)
    for panel, rows in {"Commands": [*commands.items()], **panels}.items():
        listed = [*commands.items()] if panel == "Commands" else [row for own in panels.values() for row in own]
        column = min(_NAMES, max((len(names) for names, _ in listed), default=0) + 4)
        lines += [typer.style(panel, bold=True)] if rows else []
        for names, says in rows:
            lines += _row(names, says, column, width)
    return "\n".join([*lines, *_paragraphs(command.epilog, width)]) + "\n"


def _panels(command: Any, ctx: Any) -> dict[str, list[tuple[str, str]]]:
    """The rows of each panel that has some, in the order of the panels. What `--help` does, everybody knows."""
    found: dict[str, list[tuple[str, str]]] = {panel: [] for panel in _ORDER}
    for param in command.get_params(ctx):
        if param.name != "help" and not getattr(param, "hidden", False):
            panel = getattr(param, "rich_help_panel", None) or _panel(command, param)
            found.setdefault(panel, []).append((_names(param, ctx), _says(param)))
    return {panel: rows for panel, rows in found.items() if rows}


def _panel(command: Any, param: Any) -> str:
    """Of an option that names none."""
    if param.param_type_name == "argument":
        return WHAT
    if hasattr(command, "commands"):
        return "Options"
    name = param.opts[0].removeprefix("--")
    return next((panel for panel, names in _ELSEWHERE.items() if name in names.split()), HOW)


def _names(param: Any, ctx: Any) -> str:
    """Short name, long name, and what is to be written behind them; … where it may be given again."""
    more = "…" if getattr(param, "multiple", False) or param.nargs == -1 else ""
    if param.param_type_name == "argument":
        return str(param.name or "").upper() + more
    short, long = ([name for name in param.opts if name.startswith("--") == is_long] for is_long in (False, True))
    names = ", ".join([*short, *long])
    if param.secondary_opts == [f"--no-{names[2:]}"]:
        return f"--[no-]{names[2:]}"
    if getattr(param, "is_flag", False):
        return names
    return f"{names} {param.metavar or _value(param.get_help_record(ctx)[0])}{more}"


def _value(record: str) -> str:
    """What is to be written behind an option, of typer's own help: `--alpha <float range>`, once `FLOAT RANGE`."""
    word = record.rpartition("--")[2].partition(" ")[2].strip("<>")
    return word if "|" in word else next((said for kind, said in _KINDS.items() if kind in word.lower()), "TEXT")


def _says(param: Any) -> str:
    says = " ".join((getattr(param, "help", None) or "").split())
    default = param.default
    shown = default is not None and not callable(default) and not isinstance(default, bool) and default not in ([], ())
    if shown and param.param_type_name == "option" and getattr(param, "show_default", False):
        return f"{says} [{default}]"
    return f"{says} [required]" if param.required and param.param_type_name == "option" else says


def _row(names: str, says: str, column: int, width: int) -> list[str]:
    """Names that are too long stand in a line of their own; none is cut."""
    first = f"  {names}"
    beside = len(first) < column
    lines = textwrap.wrap(
        says,
        width,
        initial_indent=first.ljust(column) if beside else " " * column,
        subsequent_indent=" " * column,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return lines if beside and lines else [first, *lines]


def _paragraphs(text: str | None, width: int) -> list[str]:
    return [line for one in (text or "").split("\n\n") for line in _folded(" ".join(one.split()), width)]


def _folded(text: str, width: int) -> list[str]:
    further = "  " * text.startswith(("Usage", "Example"))
    return textwrap.wrap(text, width, subsequent_indent=further, break_long_words=False, break_on_hyphens=False)
