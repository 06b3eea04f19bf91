"""`twicing-bench bundle`: a run as evidence for others, and evidence of others, recomputed."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from robustbench_twicing import api
from robustbench_twicing.catalog.plugins import code_allowed
from robustbench_twicing.cli.groups import Commands
from robustbench_twicing.cli.once import App
from robustbench_twicing.cli.printing import AllowCode, Json, show_page
from robustbench_twicing.errors import EXIT_DISPROVED, EXIT_INCONCLUSIVE
from robustbench_twicing.machine.remote import place_of_text
from robustbench_twicing.report.bundle import bundled_page, verified_page
from robustbench_twicing.results.bundle import write_bundle
from robustbench_twicing.results.verified import verify_bundle


class _OfARun(Commands):
    """`bundle RUN` is `bundle make RUN`; a run that is called like a command is named as `./verify`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["make", *args]
        return super().parse_args(ctx, args)


app = App(cls=_OfARun, help="A run as one file for others, and a check of such files.", no_args_is_help=True)


@app.command("make")
def make(
    run: Annotated[str, typer.Argument(help="The run: its folder, its plan, or latest.")],
    out: Annotated[Path, typer.Option("--out", help="The file to write, such as evidence.zip.")],
    with_names: Annotated[
        bool, typer.Option("--with-names", help="Keep home folders, and the names of user and host, as they are.")
    ] = False,
    images: Annotated[
        bool, typer.Option("--images", help="With the images that the run kept (--keep-images), PNG and .npz.")
    ] = False,
    allow_code: AllowCode = False,
    as_machine: Json = False,
) -> None:
    """Write a run as one file that a stranger can check: manifest, records, summary, checksums.

    `bundle RUN` says the same.
    """
    with code_allowed(allow_code):
        found = api.load_run(api.run_folder(run))
    show_page(bundled_page(write_bundle(found, place_of_text(out), with_names, images)), as_machine)


@app.command("verify")
def verify(
    bundle: Annotated[Path, typer.Argument(help="The file that `bundle` wrote.")],
    as_machine: Json = False,
) -> None:
    """Compute every number of a bundle's summary again from its records: exit 0 if all follow, 5 if one does not.

    4 if a column is of a metric that is not installed here.
    """
    found = verify_bundle(place_of_text(bundle))
    show_page(verified_page(found), as_machine)
    if found.contradictions:
        sys.exit(EXIT_DISPROVED)
    if found.unknown:
        sys.exit(EXIT_INCONCLUSIVE)
