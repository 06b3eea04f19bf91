"""Images made on one model and judged by the others: tables of sources × targets, and the page of `transfer`."""

from collections.abc import Iterator
from itertools import groupby

from robustbench_twicing.report.page import Column, Into, Line, Page, Row, Table
from robustbench_twicing.report.run import folder_lines, run_facts, run_lines, run_sheet, threat_lines
from robustbench_twicing.results.run import Run
from robustbench_twicing.spec.threats import AttackThreat


def transfer_page(run: Run) -> Page:
    """How much of every model's accuracy is left on images that were made on each of the sources."""
    parts: tuple[Line | Table, ...] = (
        *threat_lines([run]),
        *transfer_tables(run),
        Line(
            "Rows made the images, columns judge them. Every step is taken and the last iterate is judged, on one's "
            "own images too. A column's lowest accuracy should be that under its own images: where it is not, that "
            "model's gradient misleads the attack.",
            "note",
        ),
        *run_lines([run]),
        *folder_lines([run]),
    )
    return Page(f"Transfer {run.path.name}", parts, facts=run_facts(run), sheet=run_sheet([run]))


def transfer_tables(run: Run) -> Iterator[Table]:
    """A heat map for each attack at each eps that was made on several models."""
    made = [threat for threat in run.manifest.plan.threats if threat.kind == "attack" and threat.source]
    for title, threats in groupby(sorted(made, key=_without_source), key=_without_source):
        sources = list(threats)
        if len(sources) > 1:
            yield _table(run, title, sources)


def _without_source(threat: AttackThreat) -> str:
    return threat.model_copy(update={"source": None}).id


def _table(run: Run, title: str, threats: list[AttackThreat]) -> Table:
    targets = [model.name for model in run.manifest.plan.models]
    columns = [Column("source", "made on")]
    for number, target in enumerate(targets):
        columns.append(Column(f"accuracy {number}", target, "percent", shaded=True))
        interval = Column(f"interval {number}", f"95 % interval of {target}", "percent interval")
        columns.append(Column(interval.key, interval.heading, interval.kind, Into(f"accuracy {number}", "\n(", ")")))
    named = [("no model (clean)", "clean"), *((_source(threat), threat.id) for threat in threats)]
    rows = tuple({"source": source, **_row(run, threat, targets)} for source, threat in named)
    return Table(f"transfer {title}", f"Transfer of {title}: accuracy in %", tuple(columns), rows)


def _source(threat: AttackThreat) -> str:
    assert threat.source is not None
    return threat.source.name


def _row(run: Run, threat: str, targets: list[str]) -> Row:
    here = run.summary[run.summary["threat"] == threat].set_index("model")
    row: dict[str, object] = {}
    for number, target in enumerate(targets):
        if target in here.index:
            cell = here.loc[target]
            row[f"accuracy {number}"] = cell["accuracy"]
            row[f"interval {number}"] = (cell["ci_low"], cell["ci_high"])
    return row
