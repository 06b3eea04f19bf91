"""`twicing-bench run`."""

from typing import Annotated, Any

import typer

from robustbench_twicing import api
from robustbench_twicing.catalog.plugins import code_allowed
from robustbench_twicing.cli.options import (
    COMPUTING,
    EVALUATING,
    FROST,
    OUTPUT,
    followed,
    means_of,
    print_evaluated,
    taking,
)
from robustbench_twicing.cli.printing import show_page
from robustbench_twicing.cli.progress import loading
from robustbench_twicing.report.estimate import estimate_page


@taking({**COMPUTING, **EVALUATING, **FROST, **OUTPUT})
def run(
    plan: Annotated[str, typer.Argument(help="A plan file (TOML), or the name of a plan that ships: nightly.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what is left to do: evaluations, time by a short probe, disk.")
    ] = False,
    **said: Any,
) -> None:
    """Carry out a plan. The same command again continues where it stopped, or shows the finished run.

    What another run under results/runs has finished with the same code, versions and device is taken over. An option
    wins over the plan's [means].
    """
    quiet, as_machine, skip_bad, allow_code = (said.pop(name) for name in OUTPUT)
    means = means_of(said)
    with code_allowed(allow_code):
        if dry_run:
            loading(quiet)
            cost, folder, warnings = api.estimate_plan_file(plan, means)
            show_page(estimate_page(cost, str(folder), warnings), as_machine)
            return
        found = followed(quiet, lambda begin: api.run_plan_file(plan, means, begin))
        print_evaluated(found, as_machine, skip_bad)
