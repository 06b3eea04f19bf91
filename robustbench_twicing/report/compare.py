"""Models side by side: in the terminal and for machines."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from robustbench_twicing.metrics.intervals import Interval
from robustbench_twicing.metrics.paired import LeftOut
from robustbench_twicing.metrics.verdict import Comparison
from robustbench_twicing.report.console import percent
from robustbench_twicing.results.comparison import Comparisons, Curve, Row, SuiteMean

_WIDE = 130
"""Columns that the whole table needs; below, a shorter one is printed."""

_STYLES = {"better": "green", "worse": "red", "no difference found": ""}


def print_comparisons(console: Console, found: Comparisons, flips: bool = False) -> None:
    """Everything that `compare` says; with `flips` also every sample that changed sides."""
    wide = console.width >= _WIDE
    for (baseline, candidate), rows in groupby(found.rows, key=lambda row: (row.baseline, row.candidate)):
        table = _table if wide else _narrow_table
        console.print(table(baseline, candidate, list(rows)))
    console.print(Text(_legend(found, wide), style="dim"))
    for line in _left_out(found.rows):
        console.print(Text(line, style="yellow"))
    if found.one_sided:
        console.print(Text("Not compared, " + "; ".join(found.one_sided), style="yellow"))
    if found.curves:
        console.print(_curves(found.curves))
    if found.suites:
        console.print(_suites(found.suites, wide))
    for row in found.rows if flips else ():
        console.print(_flips(row))


def verdict_text(outcome: Comparison) -> str:
    """`better`, `worse`, or `no difference found` with the images it would take to find one."""
    if outcome.verdict != "no difference found":
        return outcome.verdict
    if outcome.more_samples is None:
        return f"{outcome.verdict} (as many gained as lost)"
    return f"{outcome.verdict} (needs about {_rounded(outcome.more_samples):,} more images)"


def signed_points(value: float) -> str:
    """A difference of fractions in percentage points with a sign and one decimal; two below half a point."""
    points = 100 * value
    text = f"{points:+.2f}" if 0 < abs(points) < 0.5 else f"{points:+.1f}"
    return text.replace("-", "−")


def p_value(p: float) -> str:
    """As usual in tables: three decimals, `< 0.001` below."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def as_json(found: Comparisons, flips: bool = False) -> dict[str, Any]:
    """Everything that `compare` says, for machines. Accuracies, differences and areas are fractions."""
    return {
        "alpha": found.alpha,
        "power": found.power,
        "family": len(found.rows),
        "rows": [_row_json(row, flips) for row in found.rows],
        "curves": [
            {
                **{name: value for name, value in vars(curve).items() if name != "area_difference"},
                **_estimate("area_difference", curve.area_difference.value, curve.area_difference.interval),
            }
            for curve in found.curves
        ],
        "suites": [
            {
                **{name: value for name, value in vars(mean).items() if name != "difference"},
                **_estimate("difference", mean.difference.value, mean.difference.interval),
            }
            for mean in found.suites
        ],
        "not_compared": list(found.one_sided),
    }


def _row_json(row: Row, flips: bool) -> dict[str, Any]:
    outcome = row.outcome
    content: dict[str, Any] = {
        "baseline": row.baseline,
        "candidate": row.candidate,
        "threat": row.threat,
        "n": outcome.flips.n,
        "baseline_accuracy": row.baseline_accuracy,
        "candidate_accuracy": row.candidate_accuracy,
        "difference": outcome.difference,
        "interval": list(outcome.interval),
        "lost": outcome.flips.lost,
        "gained": outcome.flips.gained,
        "p_exact": outcome.p_exact,
        "p_mid": outcome.p_mid,
        "p_holm": outcome.p_holm,
        "verdict": outcome.verdict,
        "detectable_difference": outcome.detectable_difference,
        "more_samples": outcome.more_samples,
        "baseline_left_out": row.pairs.baseline_left_out._asdict(),
        "candidate_left_out": row.pairs.candidate_left_out._asdict(),
    }
    if flips:
        content["flips"] = row.changed.to_dict("records")
    return content


def _estimate(name: str, value: float, interval: Interval) -> dict[str, Any]:
    return {name: value, f"{name}_interval": list(interval)}


def _table(baseline: str, candidate: str, rows: Sequence[Row]) -> Table:
    table = Table(title=f"{baseline} (baseline) against {candidate}", title_justify="left")
    table.add_column("threat", no_wrap=True)
    headers = ("n", "baseline %", "candidate %", "difference", "95 % interval", "lost", "gained", "p (Holm)")
    for name in headers:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict")
    table.add_column("could show", justify="right", no_wrap=True)
    for row in rows:
        outcome = row.outcome
        shown = outcome.detectable_difference
        table.add_row(
            row.threat,
            str(outcome.flips.n),
            percent(row.baseline_accuracy),
            percent(row.candidate_accuracy),
            signed_points(outcome.difference),
            _interval(outcome.interval),
            str(outcome.flips.lost),
            str(outcome.flips.gained),
            p_value(outcome.p_holm),
            Text(verdict_text(outcome), style=_STYLES[outcome.verdict]),
            "nothing" if shown is None else f"≥ {100 * shown:.1f}",
        )
    return table


def _narrow_table(baseline: str, candidate: str, rows: Sequence[Row]) -> Table:
    """What has room in 80 columns, the verdict before all."""
    table = Table(title=f"{baseline} (baseline) against {candidate}", title_justify="left")
    table.add_column("threat", overflow="fold")
    for name in ("base %", "cand %", "difference"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict")
    for row in rows:
        outcome = row.outcome
        table.add_row(
            f"{row.threat}\nn = {outcome.flips.n}",
            percent(row.baseline_accuracy),
            percent(row.candidate_accuracy),
            f"{signed_points(outcome.difference)}\n({_interval(outcome.interval)})",
            Text(verdict_text(outcome), style=_STYLES[outcome.verdict]),
        )
    return table


def _legend(found: Comparisons, wide: bool) -> str:
    shown = (
        "lost / gained: samples that only the baseline / only the candidate has right. "
        if wide
        else "In brackets the 95 % interval. "
    )
    power = f"could show: the smallest true difference found with {100 * found.power:.0f} % probability. "
    more = (
        power if wide else f"A terminal of {_WIDE} columns, or --json, shows flips, p and what could have been found. "
    )
    return (
        f"Same samples on both sides; differences in percentage points, candidate minus baseline. {shown}"
        f"p: exact McNemar, Holm over all {len(found.rows)} row(s); a verdict needs p ≤ {found.alpha:g}. {more}"
        "Intervals are for a single row."
    )


def _left_out(rows: Sequence[Row]) -> list[str]:
    """A line for each model that left samples unanswered, with the threats where it did."""
    found: dict[tuple[str, LeftOut], list[str]] = {}
    for row in rows:
        for name, left in ((row.baseline, row.pairs.baseline_left_out), (row.candidate, row.pairs.candidate_left_out)):
            if any(left):
                found.setdefault((name, left), []).append(row.threat)
    return [
        f"{name} left out: {left.failed} failed, {left.skipped} skipped, {left.missing} missing under "
        + ", ".join(dict.fromkeys(threats))
        for (name, left), threats in found.items()
    ]


def _curves(curves: Sequence[Curve]) -> Table:
    table = Table(title="Robustness curves: accuracy in % over eps", title_justify="left")
    for name in ("attack", "model"):
        table.add_column(name, overflow="fold")
    table.add_column("eps: accuracy")
    for name in ("n", "area %", "half at eps"):
        table.add_column(name, justify="right", no_wrap=True)
    for curve in curves:
        table.add_section()
        sides = (
            (curve.baseline, curve.baseline_accuracies, curve.baseline_area, curve.baseline_half),
            (curve.candidate, curve.candidate_accuracies, curve.candidate_area, curve.candidate_half),
        )
        for position, (model, accuracies, area, half) in enumerate(sides):
            points = "  ".join(f"{eps}: {percent(value)}" for eps, value in zip(curve.eps, accuracies, strict=True))
            table.add_row(
                curve.attack if position == 0 else "",
                model,
                points,
                str(curve.n),
                percent(area),
                f"> {curve.eps[-1]}" if half is None else _eps(half, curve.eps[-1]),
            )
        change = curve.area_difference
        table.add_row(
            "", "difference", f"area {signed_points(change.value)} points, 95 % interval {_interval(change.interval)}"
        )
    return table


def _eps(value: float, like: str) -> str:
    """A measured eps in the notation of another one."""
    return f"{255 * value:.2f}/255" if like.endswith("/255") else f"{value:.3g}"


def _suites(means: Sequence[SuiteMean], wide: bool) -> Table:
    table = Table(title="Suites of corruptions; lower is better", title_justify="left")
    for name in ("suite", "figure", "models"):
        table.add_column(name, overflow="fold")
    apart = ("baseline", "candidate", "difference", "95 % interval")
    for name in ("images", *(apart if wide else ("base → cand", "difference"))):
        table.add_column(name, justify="right", no_wrap=True)
    for mean in means:
        scale = 100 if mean.figure == "mean error" else 1  # the others are in percent already
        baseline, candidate = (f"{scale * value:.2f}" for value in (mean.baseline_value, mean.candidate_value))
        change = f"{scale * mean.difference.value:+.2f}".replace("-", "−")
        interval = " to ".join(f"{scale * end:+.2f}" for end in mean.difference.interval).replace("-", "−")
        together = (f"{baseline} → {candidate}", f"{change}\n({interval})")
        table.add_row(
            mean.suite,
            f"{mean.figure} %",
            f"{mean.baseline} → {mean.candidate}",
            str(mean.n),
            *((baseline, candidate, change, interval) if wide else together),
        )
    return table


def _flips(row: Row) -> Table:
    table = Table(title=f"{row.threat}: {len(row.changed)} samples changed sides", title_justify="left")
    for name in ("sample", "label", "change", row.baseline, row.candidate):
        table.add_column(name, overflow="fold")
    for sample in row.changed.itertuples(index=False):
        table.add_row(*map(str, sample))
    return table


def _interval(interval: Interval) -> str:
    return f"{signed_points(interval.low)} to {signed_points(interval.high)}"


def _rounded(count: int) -> int:
    """Two leading digits: the estimate is no better."""
    scale = 10 ** max(0, len(str(count)) - 2)
    result: int = round(count / scale) * scale
    return result
