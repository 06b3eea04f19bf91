"""`twicing-bench plan`: begin a plan, and check one."""

from pathlib import Path
from typing import Annotated

import typer

from robustbench_twicing.catalog.config import settings
from robustbench_twicing.catalog.plans import plan_path, read_plan
from robustbench_twicing.catalog.plugins import code_allowed
from robustbench_twicing.cli.once import App
from robustbench_twicing.cli.printing import AllowCode, Json, show_page
from robustbench_twicing.errors import UserError
from robustbench_twicing.report.plan import plan_page
from robustbench_twicing.results.store import write_whole

app = App(help="Write a plan to start from, or check one.", no_args_is_help=True)


@app.command()
def new(
    file: Annotated[Path, typer.Argument(help="Where to write it.")] = Path("plan.toml"),
    like: Annotated[str, typer.Option("--like", help="The plan that is copied: `start` explains every key.")] = "start",
) -> None:
    """Write a commented plan to start from. An existing file is never replaced."""
    if file.suffix != ".toml":
        raise UserError(f"A plan is a TOML file, and {file} does not end in .toml.", f"Write: plan new {file}.toml")
    if file.exists():
        raise UserError(f"{file} exists.", "Name another file.")
    write_whole(file, plan_path(like).read_bytes())
    print(f"Wrote {file}. Edit it, then: twicing-bench run {file} --dry-run")


@app.command()
def check(
    plan: Annotated[str, typer.Argument(help="A plan file, or a plan's name.")],
    allow_code: AllowCode = False,
    as_machine: Json = False,
) -> None:
    """Read a plan and name every mistake; without any, list its cells."""
    with code_allowed(allow_code):
        show_page(plan_page(read_plan(plan, settings()), plan), as_machine)
