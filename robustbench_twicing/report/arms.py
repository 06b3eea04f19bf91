"""The page of mechanisms side by side: arms of training seeds."""

from itertools import groupby
from statistics import mean, stdev

from robustbench_twicing.report.numbers import points
from robustbench_twicing.report.page import Column, Into, Line, Page, Row, Table
from robustbench_twicing.results.arms import ArmComparisons, ArmRow

_COLUMNS = (
    Column("threat", "threat"),
    Column("n", "n", "count", Into("threat", "\nn = ")),
    Column("baseline_mean", "baseline %", "percent", short="base %"),
    Column("baseline_sd", "sd", "percent", Into("baseline_mean", "\n± ")),
    Column("candidate_mean", "candidate %", "percent", short="cand %"),
    Column("candidate_sd", "sd", "percent", Into("candidate_mean", "\n± ")),
    Column("difference", "difference", "points"),
    Column("interval", "interval", "points interval", Into("difference", "\n(", ")")),
    Column("p_holm", "p (Holm)", "p", "drop"),
    Column("verdict", "verdict", "prose", tones={"better": "good", "worse": "bad"}),
    Column("seed_share", "from seeds %", "percent", "drop"),
    Column("could_show", "could show", "at least points", "drop"),
)


def arms_page(found: ArmComparisons) -> Page:
    """Everything that arms say about their mechanisms."""
    parts: list[Line | Table] = []
    for (baseline, candidate), rows in groupby(found.rows, key=lambda row: (row.baseline, row.candidate)):
        some = list(rows)
        title = f"{baseline} (baseline) against {candidate}, as they were trained"
        parts.append(Table(f"{baseline} {candidate}", title, _COLUMNS, tuple(map(_row, some))))
        parts += [Line(_headline(row, found.images)) for row in some]
    parts.append(Line(_legend(found), "note"))
    return Page("Mechanisms, by arms of training seeds", tuple(parts), facts=_facts(found))


def _row(row: ArmRow) -> Row:
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
        "p_holm": row.p_holm,
        "verdict": row.verdict,
        "seed_share": row.outcome.seed_share,
        "could_show": row.outcome.detectable,
    }


def _headline(row: ArmRow, images: str) -> str:
    """What may be said of the mechanisms under one threat."""
    test = row.outcome
    seeds = f"{len(row.baseline_accuracies)} and {len(row.candidate_accuracies)} seeds, {row.n} images"
    about = "" if images == "random" else ", on these images only"
    if row.verdict != "no difference found":
        ends = f"{points(test.interval.low)} to {points(test.interval.high)}"
        said = f"{row.candidate} {row.verdict} than {row.baseline} as trained by this recipe"
        return f"{row.threat}: {said}: {points(test.difference)} ({ends}), {seeds}{about}."
    shown = f"could have shown ≥ {100 * test.detectable:.1f} points"
    share = test.seed_share
    why = f"; {100 * share:.0f} % of the uncertainty is training seeds" if share == share else ""
    more = ": train more, not more images" if share > 0.5 else ""
    return f"{row.threat}: no difference found between the mechanisms; {seeds}{about} {shown}{why}{more}."


def _legend(found: ArmComparisons) -> str:
    drawn = "seeds and images are drawn at random" if found.images == "random" else "seeds alone are drawn at random"
    return (
        "Mean over seeds, sd between them; differences in percentage points, candidate minus baseline, with their "
        f"{100 * (1 - found.alpha):g} % intervals, each for a single row. The test takes it that {drawn} "
        f"(docs/statistics.md). p: Holm over {found.family} of {len(found.rows)} row(s), without controls and rows "
        f"that follow from others; a verdict needs p ≤ {found.alpha:g}. could show: found with "
        f"{100 * found.power:.0f} % probability."
    )


def _facts(found: ArmComparisons) -> dict[str, object]:
    return {
        "unit": "arms",
        "alpha": found.alpha,
        "power": found.power,
        "images": found.images,
        "family": found.family,
        "arms": {arm.name: list(arm.models) for arm in found.arms},
        "rows": [
            {
                "baseline": row.baseline,
                "candidate": row.candidate,
                **_row(row),
                "left_out": row.left_out,
                "t": row.outcome.t,
                "df": row.outcome.df,
                "p": row.outcome.p,
                "seed_variance": row.outcome.seed_variance,
                "image_variance": row.outcome.image_variance,
                "baseline_accuracies": dict(row.baseline_accuracies),
                "candidate_accuracies": dict(row.candidate_accuracies),
            }
            for row in found.rows
        ],
    }
