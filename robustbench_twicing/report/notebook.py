"""Runs and comparisons in a notebook: the tables of their pages, and the progress of what is computed."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from robustbench_twicing.report.arms import arms_page
from robustbench_twicing.report.compare import compare_page
from robustbench_twicing.report.formats import html
from robustbench_twicing.report.run import run_page
from robustbench_twicing.report.text import console
from robustbench_twicing.results.arm_comparison import ArmComparisons
from robustbench_twicing.results.comparison import Comparisons
from robustbench_twicing.results.run import Run
from robustbench_twicing.results.viewed import VIEWS


def show_in_notebooks() -> None:
    """From now on a notebook shows these results as tables."""
    VIEWS[Run] = lambda run: html.tables(run_page(run))
    VIEWS[ArmComparisons] = lambda found: html.tables(arms_page(found))
    VIEWS[Comparisons] = lambda found: html.tables(compare_page(found))


@contextmanager
def followed_in_notebooks(begin: Any) -> Iterator[Any]:
    """`begin`, if there is one: who follows a run. Else, in a notebook, a bar; and elsewhere nobody, None."""
    if begin is not None or not console(stderr=True).is_jupyter:
        yield begin
        return
    from robustbench_twicing.report.progress import following

    with following() as bar:
        yield bar
