"""Runs and comparisons in a notebook: the tables of their pages."""

from robustbench_twicing.report.arms import arms_page
from robustbench_twicing.report.compare import compare_page
from robustbench_twicing.report.formats import html
from robustbench_twicing.report.run import run_page
from robustbench_twicing.results.arm_comparison import ArmComparisons
from robustbench_twicing.results.comparison import Comparisons
from robustbench_twicing.results.run import Run
from robustbench_twicing.results.viewed import VIEWS


def show_in_notebooks() -> None:
    """From now on a notebook shows these results as tables."""
    VIEWS[Run] = lambda run: html.tables(run_page(run))
    VIEWS[ArmComparisons] = lambda found: html.tables(arms_page(found))
    VIEWS[Comparisons] = lambda found: html.tables(compare_page(found))
