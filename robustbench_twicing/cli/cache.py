"""`twicing-bench cache`."""

from typing import Annotated

import typer

from robustbench_twicing.cli.printing import Json, show_page
from robustbench_twicing.report.leftovers import holdings_page, pruned_page
from robustbench_twicing.results.leftovers import prune as prune_runs
from robustbench_twicing.results.leftovers import survey, thin_out
from robustbench_twicing.results.store import RUNS


def cache(
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove shards that no manifest names, damaged ones and half-written files.")
    ] = False,
    keep: Annotated[
        int | None,
        typer.Option(
            "--keep", min=1, metavar="N", help="Remove all runs but the N newest of each plan, and of no plan."
        ),
    ] = None,
    as_machine: Json = False,
) -> None:
    """Show what the runs under results/runs hold, and what of it no manifest names any more.

    Baselines hold their own records, so a run that was accepted may go.
    """
    if keep is None and not prune:
        show_page(holdings_page(survey(), RUNS), as_machine)
        return
    runs, in_use = thin_out(keep) if keep else ([], [])
    stray, left_alone = prune_runs() if prune else ([], [])
    show_page(pruned_page(stray, list(dict.fromkeys([*in_use, *left_alone])), runs), as_machine)
