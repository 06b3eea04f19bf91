"""The page of mechanisms side by side: arms of training seeds."""

import math
from collections.abc import Sequence
from functools import partial
from itertools import groupby
from statistics import mean, stdev, variance
from typing import Any

from robustbench_twicing.metrics.arms import margin_p, seeds_needed
from robustbench_twicing.report.figures import FIGURE, level, shown
from robustbench_twicing.report.margins import margin_columns, margin_text
from robustbench_twicing.report.notes import ELSEWHERE
from robustbench_twicing.report.numbers import count, points
from robustbench_twicing.report.page import Column, Into, Line, Page, Row, Table
from robustbench_twicing.report.slices import arm_slice_parts, slices_facts
from robustbench_twicing.results.arm_comparison import ArmComparisons, ArmRow
from robustbench_twicing.results.arm_figures import ArmFigure

_PILOT = (0.25, 0.5, 1, 2, 4, 16)
"""Numbers of images that seeds are reckoned for, in those of the run."""


def arms_page(found: ArmComparisons, difference: float | None = None, slices: bool = False) -> Page:
    """Everything that arms say about their mechanisms.

    With a `difference`, a fraction, also how many seeds and images would show it; with `slices`, where they
    differ.
    """
    columns = (*_columns(level(found.alpha)), *margin_columns(found.margin))
    parts: list[Line | Table] = []
    for (baseline, candidate), rows in groupby(found.rows, key=lambda row: (row.baseline, row.candidate)):
        some, pair = list(rows), f"{baseline} {candidate}"
        title = f"{baseline} (baseline) against {candidate}, as they were trained"
        parts.append(Table(pair, title, columns, tuple(_row(row, found) for row in some)))
        parts += [Line(_said(row, found.images)) for row in some]
        parts.append(_seeds_table(pair, some))
        parts.append(_figures_table(pair, [one for one in found.figures if one.candidate == candidate], found.alpha))
        if difference:
            parts.append(_needed_table(pair, some, found, difference))
    parts += arm_slice_parts(found) if slices else ()
    parts.append(Line(_legend(found), "note"))
    parts += [Line(line, "warning") for line in _caveats(found)]
    if found.elsewhere:
        parts.append(Line(ELSEWHERE, "warning"))
    return Page(
        "Mechanisms, by arms of training seeds",
        tuple(parts),
        facts={**_facts(found, difference), **(slices_facts(found.slices) if slices else {})},
    )


def _columns(interval: str) -> tuple[Column, ...]:
    return (
        Column("threat", "threat"),
        Column("n", "n", "count", Into("threat", "\nn = ")),
        Column("baseline_mean", "baseline %", "percent", short="base %"),
        Column("baseline_sd", "sd", "percent", Into("baseline_mean", "\n± ")),
        Column("candidate_mean", "candidate %", "percent", short="cand %"),
        Column("candidate_sd", "sd", "percent", Into("candidate_mean", "\n± ")),
        Column("difference", "difference", "points"),
        Column("interval", interval, "points interval", Into("difference", "\n(", ")")),
        Column("df", "df", "decimal", "drop"),
        Column("p_holm", "p (Holm)", "p", "drop"),
        Column("said", "verdict", "prose", tones={"better": "good", "worse": "bad"}, toned_by="verdict"),
        Column("seed_share", "from seeds %", "percent", "drop"),
        Column("could_show", "could show", "at least points", "drop"),
    )


def _row(row: ArmRow, found: ArmComparisons) -> Row:
    sides = [list(side.values()) for side in (row.baseline_accuracies, row.candidate_accuracies)]
    return {
        "threat": row.threat,
        "n": row.n,
        "baseline_mean": mean(sides[0]),
        "baseline_sd": stdev(sides[0]),
        "candidate_mean": mean(sides[1]),
        "candidate_sd": stdev(sides[1]),
        "difference": row.outcome.difference,
        "interval": row.outcome.interval,
        "df": row.outcome.df,
        "p_holm": row.p_holm,
        "said": _verdict(row) + (f" [{row.outside.why}]" if row.outside else ""),
        "verdict": row.verdict,
        "seed_share": row.outcome.seed_share,
        "could_show": row.outcome.detectable,
        **_margin(row, found),
    }


def _margin(row: ArmRow, found: ArmComparisons) -> Row:
    """Nothing without a margin, or where samples that failed decide."""
    if found.margin is None or row.verdict == "undecided":
        return {}
    not_worse, not_better = (p <= found.alpha for p in margin_p(row.outcome, found.margin, row.n))
    return {"margin": margin_text(not_worse, not_better, found.margin)}


def _verdict(row: ArmRow) -> str:
    return f"undecided: {count(row.failed)} failed" if row.verdict == "undecided" else row.verdict


def _said(row: ArmRow, images: str) -> str:
    """What may be said of the mechanisms under one threat."""
    test = row.outcome
    if row.verdict == "undecided":
        return f"{row.threat}: undecided: {count(row.failed)} sample(s) failed, and would turn the verdict either way."
    on = f", {count(row.n)} images" if images == "random" else f" on these {count(row.n)} images only"
    seeds = f"{len(row.baseline_accuracies)} and {len(row.candidate_accuracies)} seeds{on}"
    if row.verdict != "no difference found":
        ends = f"{points(test.interval.low)} to {points(test.interval.high)}"
        said = f"{row.candidate} {row.verdict} than {row.baseline} as trained by this recipe"
        return f"{row.threat}: {said}: {points(test.difference)} ({ends}), {seeds}."
    shown = f"could have shown ≥ {100 * test.detectable:.1f} points"
    share = test.seed_share
    why = f"; {100 * share:.0f} % of the uncertainty is training seeds" if share == share and images == "random" else ""
    more = ": train more, not more images" if why and share > 0.5 else ""
    return f"{row.threat}: no difference found between the mechanisms; {seeds} {shown}{why}{more}."


def _figures_table(pair: str, figures: Sequence[ArmFigure], alpha: float) -> Table:
    columns = (
        Column("over", "over"),
        *FIGURE,
        Column("n", "images", "count"),
        Column("baseline_mean", "baseline", "figure", short="base → cand"),
        Column("baseline_sd", "sd", "figure", Into("baseline_mean", " ± ")),
        Column("candidate_mean", "candidate", "figure", Into("baseline_mean", " → ")),
        Column("candidate_sd", "sd", "figure", Into("baseline_mean", " ± ")),
        Column("difference", "difference", "signed figure"),
        Column("interval", level(alpha), "signed figure interval", Into("difference", "\n(", ")")),
        Column("p", "p (single)", "p", "drop"),
    )
    return Table(f"figures {pair}", "Whole curves and suites", columns, tuple(map(_figure, figures)))


def _figure(one: ArmFigure) -> Row:
    in_unit = partial(shown, scale=one.scale, unit=one.unit)
    sides = (list(one.baseline_values.values()), list(one.candidate_values.values()))
    return {
        "over": one.over,
        "figure": f"{one.figure} {one.unit}".strip(),
        "better": one.better,
        "n": one.n,
        "baseline_mean": in_unit(mean(sides[0])),
        "baseline_sd": in_unit(stdev(sides[0])),
        "candidate_mean": in_unit(mean(sides[1])),
        "candidate_sd": in_unit(stdev(sides[1])),
        "difference": in_unit(one.outcome.difference),
        "interval": tuple(map(in_unit, one.outcome.interval)),
        "p": one.outcome.p,
    }


def _seeds_table(pair: str, rows: Sequence[ArmRow]) -> Table:
    columns = (
        Column("threat", "threat"),
        Column("arm", "arm"),
        Column("accuracies", "seed: accuracy %", "curve"),
    )
    sides = [
        {"threat": row.threat, "arm": arm, "accuracies": tuple(_seeds(accuracies).items())}
        for row in rows
        for arm, accuracies in ((row.baseline, row.baseline_accuracies), (row.candidate, row.candidate_accuracies))
    ]
    return Table(f"seeds {pair}", "Every seed", columns, tuple(sides), groups=("threat",), aside=True)


def _seeds(accuracies: Any) -> dict[str, float]:
    """By the labels of the models, where these tell them apart."""
    labels = {name.rpartition("@")[2]: value for name, value in accuracies.items()}
    return labels if len(labels) == len(accuracies) else dict(accuracies)


def _needed(row: ArmRow, found: ArmComparisons, difference: float) -> dict[int, int | None]:
    sides = (row.baseline_accuracies, row.candidate_accuracies)
    spread = sum(variance(side.values()) for side in sides)
    fixed = found.images == "fixed"
    images = [row.n] if fixed else list(dict.fromkeys(max(2, round(row.n * scale)) for scale in _PILOT))
    image_spread = row.outcome.image_variance * row.n
    return seeds_needed(difference, spread, image_spread, images, alpha=found.alpha, power=found.power)


def _needed_table(pair: str, rows: Sequence[ArmRow], found: ArmComparisons, difference: float) -> Table:
    columns = (
        Column("threat", "threat"),
        Column("images", "images", "count"),
        Column("seeds", "seeds of each arm", "name"),
    )
    sides = [
        {"threat": row.threat, "images": n, "seeds": "> 200" if seeds is None else str(seeds)}
        for row in rows
        for n, seeds in _needed(row, found, difference).items()
    ]
    title = f"Seeds that would show a true difference of {100 * difference:g} points"
    return Table(f"needed {pair}", title, columns, tuple(sides), groups=("threat",))


def _legend(found: ArmComparisons) -> str:
    drawn = "seeds and images are drawn at random" if found.images == "random" else "seeds alone are drawn at random"
    return (
        "Mean over seeds, sd between them; differences in percentage points, candidate minus baseline, with their "
        f"{100 * (1 - found.alpha):g} % intervals, each for a single row. The test takes it that {drawn} "
        f"(docs/statistics.md). p: Holm over {found.family} of {len(found.rows)} row(s), without controls and rows "
        f"that follow from others; a verdict needs p ≤ {found.alpha:g}. from seeds: of the variance; the rest is the "
        f"images'. could show: found with {100 * found.power:.0f} % probability."
    )


def _caveats(found: ArmComparisons) -> list[str]:
    lines = [
        f"{row.threat}, {row.baseline} against {row.candidate}: {count(row.left_out)} sample(s) left out that some "
        "model did not answer."
        for row in found.rows
        if row.left_out
    ]
    silent = [arm.name for arm in found.arms if not arm.states_recipe]
    if silent:
        lines.append(
            f"The weights of {', '.join(silent)} do not say what trained them: that all arms were trained alike is for "
            "you to know."
        )
    return lines


def _facts(found: ArmComparisons, difference: float | None) -> dict[str, Any]:
    return {
        "unit": "arms",
        "alpha": found.alpha,
        "power": found.power,
        "images": found.images,
        "family": found.family,
        "margin": found.margin,
        "elsewhere": found.elsewhere,
        "arms": {arm.name: list(arm.models) for arm in found.arms},
        "rows": [_row_facts(row, found) | _plan_facts(row, found, difference) for row in found.rows],
        "figures": [_figure_facts(one) for one in found.figures],
        "notes": _caveats(found),
    }


def _row_facts(row: ArmRow, found: ArmComparisons) -> dict[str, Any]:
    return {
        "baseline": row.baseline,
        "candidate": row.candidate,
        **_row(row, found),
        "outside": row.outside.why if row.outside else None,
        "left_out": row.left_out,
        "t": _finite(row.outcome.t),
        "df": _finite(row.outcome.df),
        "p": row.outcome.p,
        "seed_variance": row.outcome.seed_variance,
        "image_variance": row.outcome.image_variance,
        "baseline_accuracies": dict(row.baseline_accuracies),
        "candidate_accuracies": dict(row.candidate_accuracies),
    }


def _figure_facts(one: ArmFigure) -> dict[str, Any]:
    """Areas are fractions; mCE is in percent."""
    return {
        **{name: getattr(one, name) for name in ("baseline", "candidate", "over", "figure", "better", "n")},
        "baseline_values": dict(one.baseline_values),
        "candidate_values": dict(one.candidate_values),
        "difference": one.outcome.difference,
        "interval": one.outcome.interval,
        "df": _finite(one.outcome.df),
        "p": one.outcome.p,
        "seed_share": one.outcome.seed_share,
    }


def _finite(value: float) -> float | None:
    """JSON has no infinity."""
    return value if math.isfinite(value) else None


def _plan_facts(row: ArmRow, found: ArmComparisons, difference: float | None) -> dict[str, Any]:
    if not difference:
        return {}
    needed = [{"images": n, "seeds": seeds} for n, seeds in _needed(row, found, difference).items()]
    return {"planned_difference": difference, "needed": needed}
