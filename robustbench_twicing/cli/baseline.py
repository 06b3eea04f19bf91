"""`twicing-bench baseline`: accept a run, and say what was accepted."""

import getpass
import subprocess
from pathlib import Path
from typing import Annotated

import typer

from robustbench_twicing import api
from robustbench_twicing.cli.once import App
from robustbench_twicing.cli.printing import Json, show_page
from robustbench_twicing.report.baseline import baseline_page
from robustbench_twicing.results.baselines import BASELINES, load_baseline
from robustbench_twicing.results.baselines import accept as make_baseline

app = App(help="Make a run the baseline that `gate` compares with, or show who did.", no_args_is_help=True)


@app.command()
def accept(
    run: Annotated[str, typer.Argument(help="The run to accept: its folder, its plan, or latest.")],
    why: Annotated[str, typer.Option("--why", help="The reason, for whoever reads it later.")],
    to: Annotated[
        Path | None, typer.Option("--to", help="Folder of the baseline. Default: results/baselines/NAME-OF-THE-PLAN.")
    ] = None,
    who: Annotated[str | None, typer.Option("--who", help="Default: git's user, or your login name.")] = None,
    as_machine: Json = False,
) -> None:
    """Make this run the baseline, with who, when and why. Commit the folder that it prints."""
    found = api.load_finished(run)
    place = to or BASELINES / (found.manifest.name or found.path.name)
    show_page(baseline_page(make_baseline(found, place, who=who or _user(), why=why)), as_machine)


@app.command()
def show(
    baseline: Annotated[Path, typer.Argument(help="The baseline: its name or its folder.")], as_machine: Json = False
) -> None:
    """Say who accepted a baseline, when and why, and who did before."""
    show_page(baseline_page(load_baseline(baseline)), as_machine)


def _user() -> str:
    try:
        asked = subprocess.run(["git", "config", "user.name"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        asked = None
    if asked and asked.stdout.strip():
        return asked.stdout.strip()
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "unknown"
