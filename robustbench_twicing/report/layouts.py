"""What `report` lays runs out as: the whole report by the runs' task, or one of the other layouts."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from robustbench_twicing.errors import UserError
from robustbench_twicing.report.full import full_page
from robustbench_twicing.report.language import language_page
from robustbench_twicing.report.model_card import model_card_page
from robustbench_twicing.report.page import Page
from robustbench_twicing.report.paper import paper_page
from robustbench_twicing.results.compared import compared_runs
from robustbench_twicing.results.run import Run
from robustbench_twicing.results.scored_text import refuse_text
from robustbench_twicing.results.text_comparison import compared_texts

_PAGES: Mapping[str, tuple[Callable[..., Page], Callable[..., Any]]] = {
    "images": (full_page, compared_runs),
    "text": (language_page, compared_texts),
}
"""By task: the page, and what it compares."""


def report_page(runs: Sequence[Run]) -> Page:
    """Everything about runs of one task, and what a comparison says. Raises `UserError`."""
    page, compared = _PAGES[_task(runs)]
    try:
        return page(runs, compared(runs))
    except UserError as error:
        if len(runs) > 1:
            raise
        return page(runs, None, error.message)  # its own tables can be shown


def _paper(runs: Sequence[Run]) -> Page:
    refuse_text(_task(runs), "The layout of the paper")
    return paper_page(runs)


def _task(runs: Sequence[Run]) -> str:
    tasks = {run.manifest.plan.task for run in runs}
    if len(tasks) > 1:
        raise UserError("Some of these runs are over images and some over a text.", "Report them one by one.")
    return tasks.pop()


def _model_card(runs: Sequence[Run]) -> Page:
    refuse_text(_task(runs), "A model card")
    return model_card_page(runs)


LAYOUTS: Mapping[str, Callable[[Sequence[Run]], Page]] = {
    "full": report_page,
    "paper": _paper,
    "model-card": _model_card,
}
