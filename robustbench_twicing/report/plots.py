"""A page's curves as a picture. Needs matplotlib: pip install 'twicing-bench[plots]'."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from robustbench_twicing.errors import UserError
from robustbench_twicing.report.page import Curves
from robustbench_twicing.results.store import explained, require_writable

FORMATS = (".png", ".svg", ".pdf")


def require_plots(path: Path) -> None:
    """Raise `UserError` now rather than after the work if no plot can be written as `path`."""
    if path.suffix.lower() not in FORMATS:
        raise UserError(f"Cannot write a plot as {path.suffix or path.name!r}.", f"End it in {', '.join(FORMATS)}.")
    try:
        import_module("matplotlib.figure")
    except ImportError:
        raise UserError("Plots need matplotlib.", "pip install 'twicing-bench[plots]'") from None
    require_writable(path.parent)


def plot_curves(curves: Sequence[Curves], path: Path) -> None:
    """Write a panel for each of the curves, with the intervals as bars. Raises `UserError`.

    `path` ends in .png, .svg or .pdf.
    """
    require_plots(path)
    if not curves:
        raise UserError("There is no curve to plot.", "A curve needs clean images and an attack at one eps or more.")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5 * len(curves), 3.6), layout="constrained")
    panels = figure.subplots(1, len(curves), sharey=True, squeeze=False)[0]
    for panel, drawn in zip(panels, curves, strict=True):
        for graph in drawn.graphs:
            # Rounding may put an end past the value by a hair; an error bar must not be negative.
            bars = [
                [max(value - low, 0) * 100 for value, low in zip(graph.values, graph.low, strict=True)],
                [max(high - value, 0) * 100 for value, high in zip(graph.values, graph.high, strict=True)],
            ]
            heights = [100 * value for value in graph.values]
            panel.errorbar(drawn.x, heights, yerr=bars, label=_literal(graph.name), marker="o", capsize=2)
        panel.set_xticks(drawn.x, drawn.x_labels)
        panel.set(title=_literal(drawn.title), xlabel=drawn.x_heading, ylim=(0, 102))
        panel.legend()
    panels[0].set_ylabel("accuracy in %")
    with explained(path):
        figure.savefig(path)


def _literal(name: str) -> str:
    """Text in which matplotlib sees no formula, and no label that it would hide."""
    literal = name.replace("$", r"\$")
    return f" {literal}" if literal.startswith("_") else literal
