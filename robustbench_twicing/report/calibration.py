"""The table of what a model's probabilities are worth, under each threat that is no part of a suite of corruptions."""

import pandas as pd

from robustbench_twicing.metrics.table import of
from robustbench_twicing.report.figures import shown
from robustbench_twicing.report.numbers import is_missing
from robustbench_twicing.report.page import Column, Row, Table


def calibration_table(summary: pd.DataFrame) -> Table:
    """Every figure of a threat that has a title, models next to each other under each threat.

    Of suites of corruptions the table of whole suites says the same, and summary.csv has it for every threat.
    """
    metrics = of("threat")
    here = summary[(summary["kind"] != "corruption") & summary["ece"].notna()]
    shown_metrics = [metric for metric in metrics if metric.title and here[metric.name].notna().any()]
    columns = [Column("threat", "threat"), Column("model", "model")]
    for metric in shown_metrics:
        columns.append(Column(metric.name, metric.title, "figure", "keep" if metric.better else "last"))
        if metric.interval:
            columns.append(Column(f"{metric.name} interval", "95 % interval", "figure interval", "drop"))
    rows: list[Row] = []
    for threat in here["threat"].unique():
        for _, found in here[here["threat"] == threat].iterrows():
            row = {"threat": threat, "model": found["model"]}
            for metric in shown_metrics:
                row[metric.name] = shown(found[metric.name], metric.scale, metric.unit)
                if metric.interval and not is_missing(found[f"{metric.name}_low"]):
                    ends = (shown(found[f"{metric.name}_{end}"], metric.scale, metric.unit) for end in ("low", "high"))
                    row[f"{metric.name} interval"] = tuple(ends)
            rows.append(row)
    return Table("calibration", "Calibration", tuple(columns), tuple(rows), groups=("threat",), aside=True)
