"""The page of `report --layout model-card`: tables for a model card, and Hugging Face's model-index above them.

The index is that of https://github.com/huggingface/hub-docs/blob/main/modelcard.md: a result for each (task, data set,
configuration), with metrics. Intervals, samples and the threat stand in a metric's `args`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from robustbench_twicing.metrics.table import of
from robustbench_twicing.report.notes import state
from robustbench_twicing.report.numbers import interval, is_missing, percent
from robustbench_twicing.report.page import Line, Page, Row
from robustbench_twicing.report.provenance import provenance_table
from robustbench_twicing.report.run import run_facts, run_lines, run_names, run_sheet, run_tables, suites_of, summary_of
from robustbench_twicing.results.run import Run
from robustbench_twicing.spec.threats import Threat

_TASK = "image-classification"


def model_card_page(runs: Sequence[Run]) -> Page:
    """Markdown of this page is a card, or the part of one that says how robust the models are."""
    missing = [Line(f"{name} {said}".strip(), "warning") for run, name in _called(runs) if (said := state(run))]
    parts = (
        *missing,
        *run_tables(runs),
        *run_lines(runs),
        *(provenance_table(run, name) for run, name in _called(runs)),
    )
    facts = [run_facts(run) for run in runs]
    return Page(
        "Robustness",
        parts,
        facts=facts[0] if len(runs) == 1 else {"runs": facts},
        sheet=run_sheet(runs),
        front={"pipeline_tag": _TASK, "tags": ["robustness", "twicing-bench"], "model-index": _index(runs)},
    )


def _called(runs: Sequence[Run]) -> list[tuple[Run, str]]:
    return list(zip(runs, run_names(runs), strict=True))


def _index(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """A model each: clean, attacked and shifted accuracy, and the figures over whole suites of corruptions."""
    threats = {threat.id: threat for run in runs for threat in run.manifest.plan.threats}
    summary, suites = summary_of(runs), suites_of(runs)
    found: dict[str, list[dict[str, Any]]] = {model: [] for model in dict.fromkeys(summary["model"])}
    for _, row in summary[(summary["kind"] != "corruption") & (summary["n"] > 0)].iterrows():
        found[row["model"]].append(_of_threat(row, threats[row["threat"]]))
    for _, row in suites.iterrows():
        if metrics := list(_of_suite(row)):
            found[row["model"]].append(_result(row["suite"], "whole suite", metrics))
    return [{"name": model, "results": results} for model, results in found.items() if results]


def _of_threat(row: Any, threat: Threat) -> dict[str, Any]:
    said: dict[str, Any] = {"threat": row["threat"]}
    if threat.kind == "attack":
        said |= {
            "attack": threat.attack,
            "norm": threat.settings.norm,
            "eps": str(threat.eps),
            "protocol": threat.protocol,
        }
    ends = interval((row["ci_low"], row["ci_high"]), percent, " to ")
    metric = {
        "type": "accuracy",
        "name": f"top-1 accuracy, {row['threat']} (95 % interval: {ends} %)",
        "value": float(row["accuracy"]),
        "args": {**_args(row["ci_low"], row["ci_high"], row["n"]), **said, "protocol_hash": row["protocol_hash"]},
    }
    data = row["suite"] if row["kind"] == "shift" else row["data"]
    return _result(data, row["threat"], [metric])


def _of_suite(row: Any) -> Iterator[Row]:
    for metric in of("suite"):
        if metric.title and not is_missing(row[metric.name]):
            unit = f" in {metric.unit}" if metric.unit else ""
            low, high = (row.get(f"{metric.name}_{end}") for end in ("low", "high"))
            known = not is_missing(low) and not is_missing(high)
            yield {
                "type": metric.name,
                "name": f"{metric.title}{unit}",
                "value": metric.scale * float(row[metric.name]),
                "args": _args(metric.scale * low, metric.scale * high, row["n"]) if known else {"n": int(row["n"])},
            }


def _args(low: float, high: float, n: int) -> Mapping[str, Any]:
    return {"ci_low": float(low), "ci_high": float(high), "confidence": 0.95, "n": int(n)}


def _result(data: str, configuration: str, metrics: Sequence[Row]) -> dict[str, Any]:
    return {
        "task": {"type": _TASK, "name": "Image Classification"},
        "dataset": {"type": data, "name": data, "config": configuration},
        "metrics": list(metrics),
    }
