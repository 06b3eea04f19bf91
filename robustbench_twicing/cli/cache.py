"""`twicing-bench cache`."""

from typing import Annotated

import typer

from robustbench_twicing.cli.printing import Json, show_page
from robustbench_twicing.report.leftovers import holdings_page, pruned_page
from robustbench_twicing.results.leftovers import prune as prune_runs
from robustbench_twicing.results.leftovers import survey
from robustbench_twicing.results.store import RUNS


def cache(
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove shards that no manifest names, damaged ones and half-written files.")
    ] = False,
    as_machine: Json = False,
) -> None:
    """Show what the runs under results/runs hold, and what of it no manifest names any more."""
    show_page(pruned_page(*prune_runs()) if prune else holdings_page(survey(), RUNS), as_machine)
