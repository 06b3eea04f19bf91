"""The page of a run, and tables of several: accuracy under every threat, corruptions by severity, whole suites."""

from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from robustbench_twicing.metrics.table import Metric, of
from robustbench_twicing.report.figures import FIGURE, shown
from robustbench_twicing.report.notes import model_line, notes, state, threat_model
from robustbench_twicing.report.numbers import is_missing
from robustbench_twicing.report.page import Column, Line, Page, Row, Sheet, Table
from robustbench_twicing.results.run import Run
from robustbench_twicing.results.sides import names_of_runs


def run_page(run: Run) -> Page:
    """The tables of a run, also of one that is not finished: threat model, tables, models, notes, folder."""
    missing = state(run)
    headline = Line(missing, "warning") if missing else None
    parts = (*run_tables([run]), *run_lines([run]), *folder_lines([run]))
    return Page(f"Run {run.path.name}", parts, headline=headline, facts=run_facts(run), sheet=run_sheet([run]))


def run_tables(runs: Sequence[Run]) -> tuple[Line | Table, ...]:
    """The threat model, and tables over all runs. Of several, a model's name says in which run it was evaluated."""
    summary = summary_of(runs)
    corruptions = summary["kind"] == "corruption"
    data = ", ".join(dict.fromkeys(run.manifest.plan.data.name for run in runs))
    decided = dict.fromkeys(decided for run in runs for decided in run.manifest.decided)
    return (
        *threat_lines(runs),
        *(Line(line, "warning") for line in decided),
        accuracy_table(summary[~corruptions], data),
        *(corruption_table(summary, str(suite)) for suite in summary.loc[corruptions, "suite"].unique()),
        suites_table(suites_of(runs)),
    )


def threat_lines(runs: Sequence[Run]) -> tuple[Line, ...]:
    """What the attacked numbers mean, once where it is the same in all runs."""
    models = [threat_model(run.manifest) for run in runs]
    return tuple(Line(line, "note") for line in _of_each(models, run_names(runs)))


def summary_of(runs: Sequence[Run]) -> pd.DataFrame:
    """The summaries of several runs as one, models named as in tables."""
    called = run_names(runs)
    return _together_in_one([_named(run.summary, name) for run, name in zip(runs, called, strict=True)])


def suites_of(runs: Sequence[Run]) -> pd.DataFrame:
    """The figures over whole suites of several runs, likewise."""
    called = run_names(runs)
    return _together_in_one([_named(run.suites, name) for run, name in zip(runs, called, strict=True)])


def run_lines(runs: Sequence[Run]) -> tuple[Line, ...]:
    """What stands below the tables: the models, and what is easily overlooked."""
    found: list[Line] = []
    for run, called in zip(runs, run_names(runs), strict=True):
        found += [Line(model_line(_in(name, called), model)) for name, model in run.manifest.models.items()]
        found += [Line(f"{called}: {note}" if called else note, "warning") for note in notes(run)]
    return tuple(found)


def folder_lines(runs: Sequence[Run]) -> tuple[Line, ...]:
    """Where the runs lie: the last lines of a page."""
    return tuple(Line(f"Run folder: {run.path}", unbroken=True) for run in runs)


def run_names(runs: Sequence[Run]) -> list[str]:
    """What each of several runs is called; a single one needs no name."""
    return names_of_runs(runs) if len(runs) > 1 else [""]


def _in(model: str, run: str) -> str:
    return f"{model} in {run}" if run else model


def _named(table: pd.DataFrame, run: str) -> pd.DataFrame:
    return table.assign(model=[_in(name, run) for name in table["model"]])


def _together_in_one(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    held = [table for table in tables if len(table)]
    return pd.concat(held, ignore_index=True) if len(held) > 1 else (held or list(tables))[0]


def _of_each(lines: Sequence[str], called: Sequence[str]) -> Iterator[str]:
    """A line of every run, once where they say the same."""
    if len(set(lines)) == 1:
        yield lines[0]
    else:
        yield from (f"{name}: {line}" for name, line in zip(called, lines, strict=True))


def accuracy_table(summary: pd.DataFrame, data: str) -> Table:
    """Accuracy of every model under every threat, models next to each other under each threat."""
    dropped = summary["drop"].notna().any()
    rounded = (summary["accuracy"] != summary["accuracy_8bit"])[summary["accuracy_8bit"].notna()].any()
    columns = (
        Column("threat", "threat"),
        Column("model", "model"),
        Column("part", "n", "part"),
        *([Column("failed", "failed", "count")] if summary["failed"].any() else []),
        Column("accuracy", "top-1 %", "percent"),
        Column("interval", "95 % interval", "percent interval"),
        *(_DROP if dropped else ()),
        *([Column("paired", "drop of", "prose")] if (summary["kind"] == "shift").any() else []),
        *([Column("accuracy_8bit", "8-bit %", "percent")] if rounded else []),
    )
    clean = {row["model"]: row["n"] for row in _rows(summary) if row["threat"] == "clean"}
    rows = tuple(_accuracy(row, clean) for row in _together(_rows(summary), "threat"))
    return Table("accuracy", f"Accuracy on {data}", columns, rows, groups=("threat",))


_DROP = (
    Column("drop", "drop", "points"),
    Column("drop_interval", "95 % interval of drop", "points interval", "drop"),
)
_OF_A_DROP = ("drop", "drop_interval", "paired")


def _together(rows: Sequence[Row], key: str) -> list[Row]:
    """Rows with the same value side by side, else in their order."""
    first = {value: place for place, value in enumerate(dict.fromkeys(row[key] for row in rows))}
    return sorted(rows, key=lambda row: first[row[key]])


def _accuracy(row: Row, clean: Mapping[str, int]) -> Row:
    """`clean`: on how many samples each model was run without an attack; an attacked row says so if it has fewer."""
    of = clean.get(row["model"], row["n"]) if row["kind"] == "attack" else row["n"]
    shown = {
        **row,
        "interval": (row["ci_low"], row["ci_high"]),
        "part": (row["n"], of),
        "drop_interval": (row["drop_low"], row["drop_high"]),
        "paired": "other photographs" if row["kind"] == "shift" else "the same",
    }
    return {key: value for key, value in shown.items() if row["kind"] != "clean" or key not in _OF_A_DROP}


def corruption_table(summary: pd.DataFrame, suite: str) -> Table:
    """Accuracy by corruption and severity, models next to each other under each corruption."""
    here = summary[summary["suite"] == suite]
    severities = [str(severity) for severity in sorted(here["severity"].unique())]
    columns = (
        Column("corruption", "corruption"),
        Column("model", "model"),
        *(Column(severity, severity, "percent", shaded=True) for severity in severities),
        Column("mean", "mean", "percent", shaded=True),
    )
    rows: list[Row] = []
    for (corruption, model), cells in here.groupby(["corruption", "model"], sort=False):
        by_severity = dict(zip(cells["severity"].astype(str), cells["accuracy"], strict=True))
        known = dict.fromkeys(severities) | by_severity
        rows.append({"corruption": corruption, "model": model, **known, "mean": cells["accuracy"].mean()})
    title, together = f"Accuracy on {suite}, %, by severity", tuple(_together(rows, "corruption"))
    return Table(f"corruptions {suite}", title, columns, together, groups=("corruption",))


def suites_table(suites: pd.DataFrame) -> Table:
    """The figures over whole suites, models next to each other under each figure; only figures that there are.

    Where a model answered fewer images than the suite has, its row says so: an mCE of twenty photographs is not the
    published one.
    """
    columns = (
        Column("suite", "suite"),
        *FIGURE,
        Column("model", "model"),
        Column("part", "images", "part"),
        Column("value", "value", "figure"),
        Column("interval", "95 % interval", "figure interval"),
    )
    rows = tuple(
        {
            "suite": suite,
            "figure": f"{metric.title} {metric.unit}".strip(),
            "better": metric.better,
            "model": row["model"],
            "part": (row["n"], max(row["n"], row["images"])),
            "value": shown(row[metric.name], metric.scale, metric.unit),
            **_ends(metric, row),
        }
        for suite, models in suites.groupby("suite", sort=False)
        for metric in of("suite")
        if models[metric.name].notna().any()
        for row in _rows(models)
    )
    return Table("suites", "Whole suites", columns, rows, groups=("suite", "figure", "better"))


def _ends(metric: Metric, row: Row) -> Row:
    if not metric.interval or is_missing(row[f"{metric.name}_low"]):
        return {}
    return {"interval": tuple(shown(row[f"{metric.name}_{end}"], metric.scale, metric.unit) for end in ("low", "high"))}


def _rows(table: pd.DataFrame) -> tuple[Row, ...]:
    return tuple({str(key): value for key, value in row.items()} for row in table.to_dict("records"))


_ABOUT = ("run", "model", "threat", "kind", "suite", "corruption", "severity", "seed")


def run_sheet(runs: Sequence[Run]) -> Sheet:
    """The rows of every summary.csv, and a row for each model on each whole suite, of the kind `suite`."""
    rows = tuple(
        {"run": called or run.path.name, **row}
        for run, called in zip(runs, run_names(runs), strict=True)
        for row in (*_rows(run.summary), *(_suite_row(row) for row in _rows(run.suites)))
    )
    return Sheet(rows, _ABOUT)


def _suite_row(row: Row) -> Row:
    """Without what is no single value."""
    return {"kind": "suite", **{key: value for key, value in row.items() if key != "family_errors"}}


def run_facts(run: Run) -> Row:
    """What was run, and the rows."""
    manifest = run.manifest
    return {
        "run": run.path,
        "plan_hash": manifest.plan_hash,
        "status": manifest.status,
        "lacking": [str(lack) for lack in run.lacking],
        "seed": manifest.plan.seed,
        **manifest.model_dump(mode="json", include={"device", "data", "models"}),
        "threats": manifest.plan.model_dump(mode="json")["threats"],
        "rows": _rows(run.summary),
        "suites": _rows(run.suites),
        "notes": notes(run),
    }
