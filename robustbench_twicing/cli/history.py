"""`twicing-bench history`."""

import sys
from typing import Annotated

import typer

from robustbench_twicing.cli.printing import Json, show_page
from robustbench_twicing.errors import UserError
from robustbench_twicing.report.history import history_page
from robustbench_twicing.results.history import rebuild as rebuild_index
from robustbench_twicing.results.history import series


def history(
    plan: Annotated[list[str] | None, typer.Option("--plan", help="Only runs of this plan; repeatable.")] = None,
    model: Annotated[list[str] | None, typer.Option("--model", "-m", help="Only this model; repeatable.")] = None,
    threat: Annotated[list[str] | None, typer.Option("--threat", help="Only this threat; repeatable.")] = None,
    last: Annotated[int | None, typer.Option(min=1, help="Only so many nights, the newest.")] = None,
    ad_hoc: Annotated[
        bool, typer.Option("--ad-hoc", help="Also runs that no plan began: those of attack, corrupt and evaluate.")
    ] = False,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Make the index anew from the run folders first.")] = False,
    as_machine: Json = False,
) -> None:
    """Accuracy by night of every model under every threat, from the finished runs of plans under results/runs."""
    if rebuild:
        count, left_out = rebuild_index()
        print(f"{count} run(s) in the index.", *(f"Left out: {why}" for why in left_out), sep="\n", file=sys.stderr)
    found = series(names=plan or (), models=model or (), threats=threat or (), last=last, ad_hoc=ad_hoc)
    if not found and not as_machine:
        raise UserError(
            "No finished run fits."
            if plan or model or threat
            else "There is no finished run of a plan in results/runs.",
            "Nights are what `run PLAN` made; --ad-hoc counts other commands' runs too. Runs with --out elsewhere are "
            "not in the history; `history --rebuild` reads every run folder again.",
        )
    show_page(history_page(found), as_machine)
