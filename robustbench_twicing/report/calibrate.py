"""The page of `calibrate`: a temperature, calibration before and after, and which score tells other images."""

from typing import Any

from robustbench_twicing.inside.calibrated import Calibrated, Calibration, Value
from robustbench_twicing.metrics.table import METRICS
from robustbench_twicing.report.figures import shown
from robustbench_twicing.report.page import Column, Line, Page, Row, Table

_TITLES = {metric.name: metric.title for metric in METRICS}


def calibrate_page(found: Calibration) -> Page:
    """Headline: each model's temperature and what it does to ECE; then the tables."""
    said = [
        f"{one.model}: temperature {one.temperature:.3f}, ECE {one.figures['ece', False].value:.3f} → "
        f"{one.figures['ece', True].value:.3f} on {one.threat}."
        for one in found.models
    ]
    first = found.models[0]
    halves = (
        f"Fitted on {first.fitted} clean images drawn by the seed, measured on the other {first.judged}. "
        "A temperature changes no answer."
    )
    parts: list[Line | Table] = [_scaled(found), Line(halves, "note")]
    if found.told:
        parts.append(_told(found))
        parts.append(Line("kNN and ViM know the features of the fitted half; nothing was fitted on the rest.", "note"))
    parts += [Line(why, "note") for why in found.missing]
    return Page(
        f"Calibration on {found.data}",
        tuple(parts),
        headline=Line(" ".join(said)),
        facts={
            "data": found.data,
            "models": [_stated(one) for one in found.models],
            "told": [
                {**vars(one), "figures": {key: [*value] for key, value in one.figures.items()}} for one in found.told
            ],
            "missing": found.missing,
        },
    )


def _stated(one: Calibrated) -> dict[str, Any]:
    """Each figure as value and ends of its interval."""
    when = {"before": False, "after": True}
    figures = {
        key: {name: [*value] for (name, scaled), value in one.figures.items() if scaled is after}
        for key, after in when.items()
    }
    return {**{key: value for key, value in vars(one).items() if key != "figures"}, **figures}


def _scaled(found: Calibration) -> Table:
    names = list(dict.fromkeys(name for name, _ in found.models[0].figures))
    columns = [Column("threat", "images"), Column("model", "model"), Column("scaled", "scaled by"), *_columns(names)]
    rows: list[Row] = []
    for one in found.models:
        for after in (False, True):
            row: dict[str, Any] = {"threat": one.threat, "model": one.model}
            row["scaled"] = f"1 / {one.temperature:.3f}" if after else "nothing"
            rows.append(row | _cells({name: one.figures[name, after] for name in names}))
    return Table("temperature", "Temperature scaling", tuple(columns), tuple(rows), groups=("threat", "model"))


def _told(found: Calibration) -> Table:
    names = list(found.told[0].figures)
    columns = [
        Column("threat", "images"),
        Column("model", "model"),
        Column("score", "score"),
        *_columns(names),
        Column("clean", "n clean", "count", "last"),
        Column("others", "n others", "count", "last"),
    ]
    rows: list[Row] = [
        {
            **{key: getattr(one, key) for key in ("threat", "model", "score", "clean", "others")},
            **_cells(one.figures),
        }
        for one in found.told
    ]
    title = "Told from clean images: other images are the positives"
    return Table("told", title, tuple(columns), tuple(rows), groups=("threat", "model"))


def _columns(names: list[str]) -> list[Column]:
    found = []
    for name in names:
        found.append(Column(name, _TITLES[name], "figure"))
        found.append(Column(f"{name} interval", f"95 % interval of {_TITLES[name]}", "figure interval", "drop"))
    return found


def _cells(figures: Any) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name, value in figures.items():
        row[name] = shown(value.value, 1, "")
        row |= _ends(name, value)
    return row


def _ends(name: str, value: Value) -> dict[str, Any]:
    if value.low is None or value.high is None:
        return {}
    return {f"{name} interval": (shown(value.low, 1, ""), shown(value.high, 1, ""))}
