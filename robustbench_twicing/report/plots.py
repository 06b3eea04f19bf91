"""Robustness curves as a picture. Needs matplotlib: pip install 'twicing-bench[plots]'."""

from collections.abc import Sequence
from pathlib import Path

from robustbench_twicing.errors import UserError
from robustbench_twicing.metrics.intervals import wilson_interval
from robustbench_twicing.results.comparison import Curve
from robustbench_twicing.results.store import explained
from robustbench_twicing.spec.values import Eps

FORMATS = (".png", ".svg", ".pdf")


def plot_curves(curves: Sequence[Curve], path: Path) -> None:
    """Write accuracy over eps, a panel for each attack, with 95 % Wilson intervals. Raises `UserError`.

    `path` ends in .png, .svg or .pdf.
    """
    if path.suffix.lower() not in FORMATS:
        raise UserError(f"Cannot write a plot as {path.suffix or path.name!r}.", f"End it in {', '.join(FORMATS)}.")
    if not curves:
        raise UserError("There is no curve to plot.", "A curve needs clean images and an attack at one eps or more.")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("Plots need matplotlib.", "pip install 'twicing-bench[plots]'") from None
    attacks = list(dict.fromkeys(curve.attack for curve in curves))
    figure = Figure(figsize=(4.5 * len(attacks), 3.6), layout="constrained")
    panels = figure.subplots(1, len(attacks), sharey=True, squeeze=False)[0]
    for panel, attack in zip(panels, attacks, strict=True):
        drawn: set[str] = set()
        for curve in (curve for curve in curves if curve.attack == attack):
            eps = [float(Eps.parse(text, norm="L2")) for text in curve.eps]
            for name, accuracies in (
                (curve.baseline, curve.baseline_accuracies),
                (curve.candidate, curve.candidate_accuracies),
            ):
                if name in drawn:  # one baseline stands against several candidates
                    continue
                drawn.add(name)
                ends = [wilson_interval(round(value * curve.n), curve.n) for value in accuracies]
                # Rounding may put an end past the value by a hair; an error bar must not be negative.
                bars = [
                    [max(value - end.low, 0) * 100 for value, end in zip(accuracies, ends, strict=True)],
                    [max(end.high - value, 0) * 100 for value, end in zip(accuracies, ends, strict=True)],
                ]
                panel.errorbar(eps, [100 * value for value in accuracies], yerr=bars, label=name, marker="o", capsize=2)
            panel.set_xticks(eps, curve.eps)
        panel.set(title=attack, xlabel="eps", ylim=(0, 102))
        panel.legend()
    panels[0].set_ylabel("accuracy in %")
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
