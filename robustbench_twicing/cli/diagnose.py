"""`twicing-bench diagnose`."""

import sys
from typing import Annotated, Any

import typer

from robustbench_twicing.cli.looking import KEPT, LOOKED_AT, PRINTED, look_and_print
from robustbench_twicing.cli.options import taking
from robustbench_twicing.errors import EXIT_REGRESSED
from robustbench_twicing.report.diagnose import diagnose_page
from robustbench_twicing.report.page import Page
from robustbench_twicing.runner.inside import diagnose as look

_IMAGES = 32


@taking({**{key: value for key, value in LOOKED_AT.items() if key != "limit"}, **PRINTED, **KEPT})
def diagnose(
    eps: Annotated[str, typer.Option("--eps", help="Size of the perturbation (L∞), such as 4/255.")] = "4/255",
    limit: Annotated[
        int, typer.Option(min=1, help="Images; a difference of models wants more than a grade.")
    ] = _IMAGES,
    thorough: Annotated[bool, typer.Option("--thorough", help="Attack about ten times as hard.")] = False,
    **said: Any,
) -> None:
    """Grade from A to F whether the robustness of a model is real, with the evidence; of two, whether they differ.

    Exit codes: 0 no model has grade F; 2 wrong use; 3 one has.
    """
    grades: list[str] = []

    def looked(understood: Any, tell: Any) -> Page:
        found, differences = look(understood, tell, thorough, said["out"])
        grades.extend(one.grade for one in found)
        return diagnose_page(found, differences)

    look_and_print({**said, "eps": [eps], "attacks": ["pgd"], "limit": limit}, True, looked)
    if "F" in grades:
        sys.exit(EXIT_REGRESSED)
