"""The page of what is installed, and on what machine."""

from collections.abc import Mapping

from robustbench_twicing.report.page import Line, Page


def info_page(found: Mapping[str, str]) -> Page:
    """One line for each thing, to be copied into a report of a fault."""
    width = max(map(len, found))
    return Page(
        "Installation",
        tuple(Line(f"{name:<{width}}  {value}", unbroken=True) for name, value in found.items()),
        facts=dict(found),
    )
