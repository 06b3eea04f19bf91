"""The commands, each imported when it is given: help and completion of names need none of them.

A command NAME is the function of that name in `cli/NAME.py`, or the group `app` there.
"""

from importlib import import_module
from typing import Any

from typer.core import TyperCommand
from typer.main import get_command, get_group

from robustbench_twicing.cli.groups import Commands
from robustbench_twicing.cli.once import App

COMMANDS = {
    "attack": "Attack models and print their accuracy on clean and attacked images.",
    "corrupt": "Run models on corrupted or shifted data sets and print their accuracy, errors and mCE.",
    "lm": "Score language models on a text, clean and corrupted: perplexity, bits per byte, and how two models differ.",
    "run": "Carry out a plan.",
    "report": "Report a run again, or several beside each other: the verdict, tables, models compared, and where it "
    "comes from.",
    "compare": "Compare models on the same samples: better, worse, or no difference found, with what it would take to "
    "find one.",
    "gate": "Judge a run against a baseline: exit 0 pass, 3 regressed, 4 inconclusive.",
    "history": "Accuracy by night of every model under every threat, from the finished runs of plans under "
    "results/runs.",
    "cache": "Show what the runs under results/runs hold, and what of it no manifest names any more.",
    "train": "Train models, or arms of several seeds, by a recipe, and print clean accuracies.",
    "verify": "Compare a model with its published accuracies, and look for the cause of a miss.",
    "collapse": "Measure how alike tokens become from block to block, and what each attention matrix does to them.",
    "calibrate": "Fit a temperature on half of the clean images, and say what it does to NLL and ECE of the others.",
    "diagnose": "Grade from A to F whether the robustness of a model is real, with the evidence; of two, whether they "
    "differ.",
    "sweep": "Switch a method on block by block, from the end and by strength, on the same weights, and attack each "
    "setting.",
    "transfer": "Make attacked images on each model, have all of them judged by all, and print sources × targets.",
    "theory": "Compute the paper's idealised setting: how fast capacity falls with A and with 2A - A², and a "
    "smoother's bias.",
    "bundle": "A run as one file for others, and a check of such files.",
    "recheck": "Compute some records of a run again, from weights and data of your own, and bound how many are wrong.",
    "plan": "Write a plan to start from, or check one.",
    "baseline": "Make a run the baseline that `gate` compares with, or show who did.",
    "catalog": "List models, protocols, attacks and data sets; `catalog show NAME` explains one.",
    "config": "Where data sets and checkpoints lie, and defaults; `config show` lists them.",
    "info": "Versions, device and paths of this installation, to copy into a report of a fault.",
    "data": "Check a data set before hours are spent on it, or write a corrupted copy of one.",
}
"""Names in the order of the help, with the first sentence of each one's own help."""


def loaded(name: str) -> Any:
    """The command itself."""
    module = import_module(f"robustbench_twicing.cli.{name}")
    if hasattr(module, "app"):
        command: Any = get_group(module.app)
    else:
        alone = App(add_completion=False)
        alone.command(name)(getattr(module, name))
        command = get_command(alone)
    command.name = name
    return command


class LaterCommands(Commands):
    """The group of all of them. What it holds of a command is what help and completion need."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = {name: TyperCommand(name, help=says) for name, says in COMMANDS.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is given, itself; for TAB, which nothing follows, only what its options are called."""
        name, listed, rest = super().resolve_command(ctx, args)
        if not (name and listed):
            return name, None, rest
        if not ctx.resilient_parsing:
            return name, loaded(name), rest
        from robustbench_twicing.cli.completing import known

        return name, known(name), rest
