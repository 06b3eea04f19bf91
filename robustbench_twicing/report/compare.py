"""The page of models side by side."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from typing import Any

from robustbench_twicing.metrics.intervals import wilson_interval
from robustbench_twicing.metrics.paired import LeftOut, draws_spread
from robustbench_twicing.metrics.sequential import confidence_sequence
from robustbench_twicing.metrics.verdict import Comparison, not_worse_p, samples_needed
from robustbench_twicing.report.figures import FIGURE, level, shown
from robustbench_twicing.report.margins import margin_columns, margin_text
from robustbench_twicing.report.notes import ELSEWHERE, disagreement
from robustbench_twicing.report.numbers import count, eps, percent, rounded
from robustbench_twicing.report.page import Column, Curves, Graph, Into, Line, Page, Row, Table
from robustbench_twicing.report.slices import slice_parts, slices_facts
from robustbench_twicing.results.comparison import Comparisons, Curve
from robustbench_twicing.results.comparison import Row as Compared
from robustbench_twicing.results.suite_comparison import SuiteFigure
from robustbench_twicing.spec.values import Eps

_COLUMNS = (
    Column("threat", "threat"),
    Column("n", "n", "count", Into("threat", "\nn = ")),
    Column("baseline_accuracy", "baseline %", "percent", short="base %"),
    Column("candidate_accuracy", "candidate %", "percent", short="cand %"),
    Column("difference", "difference", "points"),
    Column("interval", "interval", "points interval", Into("difference", "\n(", ")")),
    Column("lost", "lost", "count", "drop"),
    Column("gained", "gained", "count", "drop"),
    Column("p", "p (Holm)", "p", "drop"),
    Column("said", "verdict", "prose", tones={"better": "good", "worse": "bad"}, toned_by="verdict"),
    Column("could_show", "could show", "at least points", "drop"),
)
_CURVE_COLUMNS = (
    Column("attack", "attack"),
    Column("model", "model"),
    Column("points", "eps: accuracy", "curve"),
    Column("n", "n", "count"),
    Column("area", "area %", "percent"),
    Column("half", "half at eps", "eps"),
    Column("difference", "difference of areas", "points", Into("points", "\narea ", " points")),
    Column("interval", "interval", "points interval", Into("points", " (", ")")),
)
_SUITE_COLUMNS = (
    Column("suite", "suite"),
    *FIGURE,
    Column("models", "models"),
    Column("n", "images", "part"),
    Column("baseline", "baseline", "figure", short="base → cand"),
    Column("candidate", "candidate", "figure", Into("baseline", " → ")),
    Column("difference", "difference", "signed figure"),
    Column("interval", "interval", "signed figure interval", Into("difference", "\n(", ")")),
)


CHECKPOINTS = (
    "Verdicts are about these weights, not about methods: another training seed may reverse them, however many images "
    "there are. Methods are judged by arms of three or more seeds each: compare RUN --arm NAME=PATTERN "
    "(docs/statistics.md)."
)
"""What a comparison of models cannot say."""

DRAWS = (
    "The same weights with two seeds: what differs is decided by the draws of attacks and of corruptions. ±: the "
    "standard deviation of the accuracy over seeds, which no interval of one seed holds."
)
"""What a comparison of a model with itself says."""


def compare_page(found: Comparisons, flips: bool = False, slices: bool = False) -> Page:
    """Everything that `compare` says; with `flips` also every sample that changed sides, with `slices` where models
    differ."""
    parts: list[Line | Table | Curves] = []
    columns = (*_at_level(_COLUMNS, found.alpha), *margin_columns(found.margin))
    columns = tuple(replace(one, heading=f"p ({_correction(found)})") if one.key == "p" else one for one in columns)
    for (baseline, candidate), rows in groupby(found.rows, key=lambda row: (row.baseline, row.candidate)):
        title = f"{baseline} (baseline) against {candidate}"
        parts.append(Table(f"{baseline} {candidate}", title, columns, tuple(_row(row, found) for row in rows)))
    if found.elsewhere:
        parts.append(Line(f"{', '.join(found.elsewhere)}: {ELSEWHERE}", "warning"))
    parts.append(Line(_legend(found), "note"))
    parts += [Line(line, "note") for line in _unit(found.rows)]
    parts += [Line(line, "warning") for line in _left_out(found.rows)]
    if found.not_compared:
        parts.append(Line("Not compared, " + "; ".join(found.not_compared), "warning"))
    parts.append(_curve_table(found.curves, found.alpha))
    parts += _drawn(found.curves)
    means = tuple(map(_mean, found.suites))
    parts.append(Table("suites compared", "Whole suites, compared", _at_level(_SUITE_COLUMNS, found.alpha), means))
    parts += [Line(line, "warning") for line in _other_order(found.suites)]
    parts += slice_parts(found) if slices else ()
    parts += [_flips(row) for row in found.rows if flips]
    return Page("Models on the same samples", tuple(parts), facts=_facts(found, flips, slices))


def _at_level(columns: Sequence[Column], alpha: float) -> tuple[Column, ...]:
    """The same, with the level of the intervals in their heading."""
    return tuple(replace(column, heading=level(alpha)) if column.key == "interval" else column for column in columns)


def verdict_text(outcome: Comparison, failed: int = 0) -> str:
    """`better` or `worse`, of what; or `no difference found` with the smallest difference that could have shown.

    `failed` samples are what an undecided one hangs on.
    """
    if outcome.verdict == "undecided":
        return f"undecided: {count(failed)} failed"
    if outcome.verdict == "same weights":
        turned, spread = outcome.flips.lost + outcome.flips.gained, draws_spread(outcome.flips)
        return f"the draws decide {count(turned)}" + (f" (± {percent(spread, 2)} points over seeds)" if turned else "")
    if outcome.verdict != "no difference found":
        return f"{outcome.verdict} (these weights)"
    if outcome.detectable_difference is None:
        return f"{outcome.verdict} (too few images for any)"
    return f"{outcome.verdict} (≥ {percent(outcome.detectable_difference)} points would have shown)"


def _unit(rows: Sequence[Compared]) -> list[str]:
    """What the verdicts are about, and for one model under two seeds what its rows say."""
    drawn = [row.outside is not None and row.outside.why == "draws" for row in rows]
    return ([DRAWS] if any(drawn) else []) + ([] if drawn and all(drawn) else [CHECKPOINTS])


def _row(row: Compared, found: Comparisons) -> Row:
    outcome = row.outcome
    return {
        **_margin(row, found),
        "threat": row.threat,
        "n": outcome.flips.n,
        "baseline_accuracy": row.baseline_accuracy,
        "candidate_accuracy": row.candidate_accuracy,
        "difference": outcome.difference,
        "interval": outcome.interval,
        "lost": outcome.flips.lost,
        "gained": outcome.flips.gained,
        "p": outcome.p if outcome.p_holm is None else outcome.p_holm,
        "said": verdict_text(outcome, _failed(row)) + _mark(row),
        "verdict": outcome.verdict,
        "could_show": outcome.detectable_difference,
    }


def _mark(row: Compared) -> str:
    return f" [{row.outside.why}]" if row.outside and row.outside.why != "draws" else ""


def _margin(row: Compared, found: Comparisons) -> Row:
    """Nothing without a margin, or where samples that failed decide."""
    flips, margin = row.outcome.flips, found.margin
    if margin is None or not flips.n or row.outcome.verdict == "undecided":
        return {}
    if found.sequential:
        low, high = confidence_sequence(flips, 1 - 2 * found.alpha)
        return {"margin": margin_text(low > -margin, high < margin, margin)}
    mirrored = flips._replace(lost=flips.gained, gained=flips.lost)
    not_worse, not_better = (not_worse_p(side, margin) <= found.alpha for side in (flips, mirrored))
    text = margin_text(not_worse, not_better, margin)
    if "not ruled out" in text:
        level = found.alpha / max(1, found.family)
        more = samples_needed(margin, max(flips.discordance, margin), level, found.power) - flips.n
        text += f" (a true one would show with about {count(rounded(more))} more images)" if more > 0 else ""
    return {"margin": text}


def _failed(row: Compared) -> int:
    """Samples that failed on a side, and were skipped or missing on none."""
    return row.pairs.bounds.against.n - len(row.pairs.labels)


def _legend(found: Comparisons) -> str:
    return (
        "Same samples on both sides; differences in percentage points, candidate minus baseline, with their "
        f"{100 * (1 - found.alpha):g} % intervals, each for a single row. lost / gained: samples that only the "
        "baseline / the candidate has right. "
        f"p: {_TESTS[found.sequential]}, {_correction(found)} over {_family(found)}; a verdict needs p "
        f"≤ {found.alpha:g}. "
        f"could show: the smallest true difference found with {100 * found.power:.0f} % probability."
    )


def _correction(found: Comparisons) -> str:
    return "max-T" if found.by_max_t else "Holm"


_TESTS = {
    False: "exact McNemar",
    True: "always valid, so intervals and verdicts hold over all looks together: evaluate more images and look again",
}


def _family(found: Comparisons) -> str:
    """Which rows Holm's correction is over, and why the others stand outside."""
    if found.family == len(found.rows):
        return f"all {found.family} row(s)"
    marks = {
        "derived": "derived rows follow from others",
        "control": "controls ask nothing of a model",
        "draws": "of the same weights no verdict is asked",
    }
    why = ", ".join(
        says for mark, says in marks.items() if any(r.outside and r.outside.why == mark for r in found.rows)
    )
    return f"{found.family} of {len(found.rows)} rows ({why}; each has the p and the verdict of a single test)"


def _left_out(rows: Sequence[Compared]) -> list[str]:
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


def _curve_table(curves: Sequence[Curve], alpha: float) -> Table:
    rows: list[Row] = []
    for number, curve in enumerate(curves):
        common = {"pair": number, "attack": curve.attack, "n": curve.n}
        change = {"difference": curve.area_difference.value, "interval": curve.area_difference.interval}
        for name, accuracies, area, half, more in (
            (curve.baseline, curve.baseline_accuracies, curve.baseline_area, curve.baseline_half, {}),
            (curve.candidate, curve.candidate_accuracies, curve.candidate_area, curve.candidate_half, change),
        ):
            points = tuple(zip(curve.eps, accuracies, strict=True))
            last = curve.eps[-1]
            said = f"> {last}" if half is None else eps(half, last)
            rows.append({**common, "model": name, "points": points, "area": area, "half": said, **more})
    title = "Robustness curves: accuracy in % over eps"
    return Table("curves", title, _at_level(_CURVE_COLUMNS, alpha), tuple(rows), groups=("pair", "attack"))


def _drawn(curves: Sequence[Curve]) -> list[Curves]:
    """A drawing for each attack and its eps; a baseline that stands against several candidates is drawn once."""
    found: dict[tuple[str, tuple[str, ...]], dict[str, Graph]] = {}
    for curve in curves:
        graphs = found.setdefault((curve.attack, curve.eps), {})
        sides = ((curve.baseline, curve.baseline_accuracies), (curve.candidate, curve.candidate_accuracies))
        for name, accuracies in sides:
            ends = [wilson_interval(round(value * curve.n), curve.n) for value in accuracies]
            low, high = (tuple(end[side] for end in ends) for side in (0, 1))
            graphs.setdefault(name, Graph(name, accuracies, low, high))
    drawn = []
    for (attack, sizes), graphs in found.items():
        x = tuple(float(Eps.parse(text, norm="L2")) for text in sizes)
        drawn.append(Curves(attack, attack, "eps", x, sizes, tuple(graphs.values())))
    return drawn


def _mean(mean: SuiteFigure) -> Row:
    in_unit = partial(shown, scale=mean.scale, unit=mean.unit)
    return {
        "suite": mean.suite,
        "figure": f"{mean.figure} {mean.unit}".strip(),
        "better": mean.better,
        "models": f"{mean.baseline} → {mean.candidate}",
        "n": (mean.n, max(mean.n, mean.images)),
        "baseline": in_unit(mean.baseline_value),
        "candidate": in_unit(mean.candidate_value),
        "difference": in_unit(mean.difference.value),
        "interval": tuple(map(in_unit, mean.difference.interval)),
    }


def _other_order(suites: Sequence[SuiteFigure]) -> list[str]:
    """A line for each pair of models that mCE puts into another order than their mean error does."""
    by_pair: dict[tuple[str, str, str], dict[str, SuiteFigure]] = {}
    for one in suites:
        by_pair.setdefault((one.suite, one.baseline, one.candidate), {})[one.figure] = one
    lines = []
    for (suite, baseline, candidate), figures in by_pair.items():
        if not {"mean error", "mCE"} <= figures.keys():
            continue
        errors, mce = (figures[title].difference.value for title in ("mean error", "mCE"))
        if errors * mce < 0:
            lower, higher = (candidate, baseline) if errors < 0 else (baseline, candidate)
            lines.append(disagreement(suite, lower, higher, figures["mCE"].denominator))
    return lines


def _flips(row: Compared) -> Table:
    columns = (
        Column("sample_id", "sample"),
        Column("label", "label"),
        Column("change", "change"),
        Column("baseline_prediction", row.baseline),
        Column("candidate_prediction", row.candidate),
    )
    title = f"{row.threat}: {len(row.changed)} samples changed sides"
    return Table(f"flips {row.baseline} {row.candidate} {row.threat}", title, columns, _records(row), aside=True)


def _records(row: Compared) -> tuple[Row, ...]:
    return tuple({str(key): value for key, value in record.items()} for record in row.changed.to_dict("records"))


def _facts(found: Comparisons, flips: bool, slices: bool) -> Row:
    """Accuracies, differences and areas are fractions."""
    return {
        "unit": "checkpoints",
        "alpha": found.alpha,
        "power": found.power,
        "family": found.family,
        "margin": found.margin,
        "always_valid": found.sequential,
        "correction": _correction(found),
        "rows": [
            _row_facts(row) | dict(_margin(row, found)) | ({"flips": _records(row)} if flips else {})
            for row in found.rows
        ],
        "curves": [_with_interval(curve, "area_difference") for curve in found.curves],
        "suites": [_with_interval(mean, "difference") for mean in found.suites],
        **(slices_facts(found.slices) if slices else {}),
        "not_compared": found.not_compared,
    }


def _row_facts(row: Compared) -> dict[str, Any]:
    outcome = row.outcome
    return {
        **{name: getattr(row, name) for name in ("baseline", "candidate", "threat")},
        "n": outcome.flips.n,
        **{name: getattr(row, name) for name in ("baseline_accuracy", "candidate_accuracy")},
        "difference": outcome.difference,
        "interval": outcome.interval,
        "lost": outcome.flips.lost,
        "gained": outcome.flips.gained,
        **{name: getattr(outcome, name) for name in ("p", "p_mid", "p_holm", "verdict")},
        "in_family": row.outside is None,
        "outside": row.outside.why if row.outside else None,
        "follows_from": row.outside.follows_from if row.outside else (),
        "detectable_difference": outcome.detectable_difference,
        "baseline_left_out": row.pairs.baseline_left_out._asdict(),
        "candidate_left_out": row.pairs.candidate_left_out._asdict(),
    }


def _with_interval(found: Curve | SuiteFigure, name: str) -> Row:
    """The fields, the estimate's two parts apart."""
    estimate = getattr(found, name)
    rest = {key: value for key, value in vars(found).items() if key != name}
    return {**rest, name: estimate.value, f"{name}_interval": estimate.interval}
