"""What a report shows of each threat, computed from the records. No torch."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from robustbench_twicing.errors import UserError
from robustbench_twicing.metrics.intervals import paired_difference_interval
from robustbench_twicing.metrics.table import Metric, columns, computed, of
from robustbench_twicing.metrics.table_intervals import interval
from robustbench_twicing.results.cells import Cells, answered, same_samples, two_at_once, values
from robustbench_twicing.spec.suite import SuiteDefinition


class SummaryColumn(NamedTuple):
    """A column of summary.csv, or of the figures over whole suites."""

    name: str
    holds: str


COLUMNS: tuple[SummaryColumn, ...] = (
    SummaryColumn("model", "the model's name in the plan"),
    SummaryColumn("architecture", "timm architecture name"),
    SummaryColumn("attention", "which method each block computes: softmax, twicing, twicing@3,4,5; empty: not probed"),
    SummaryColumn("weights_hash", "first 12 hex digits of the SHA-256 of the weights"),
    SummaryColumn("data", "data set"),
    SummaryColumn("recipe", "preprocessing recipe"),
    SummaryColumn("threat", "clean, or attack-norm-eps"),
    SummaryColumn("kind", "clean, attack, corruption, shift, or other: done by another tool"),
    SummaryColumn("suite", "suite of a corruption or shift"),
    SummaryColumn("corruption", "name of the corruption"),
    SummaryColumn("severity", "1 to 5; 0 for what is no corruption"),
    SummaryColumn("protocol", "attack protocol"),
    SummaryColumn("protocol_hash", "rows with different hashes are not comparable"),
    SummaryColumn("seed", "seed of the plan"),
    SummaryColumn("precision", "what the attack computed in; verdicts are always float32's"),
    SummaryColumn("n", "samples with status ok: what the accuracy is a fraction of"),
    SummaryColumn("failed", "samples without an answer; neither right nor wrong"),
    *(SummaryColumn(name, holds) for metric in of("threat") for name, holds in columns(metric).items()),
)

_FIRST = (
    *("architecture", "attention", "weights_hash", "data", "recipe", "kind", "suite", "corruption", "severity"),
    *("protocol", "protocol_hash", "seed", "precision"),
)

SAMPLES = (
    *("correct", "correct_unmasked", "correct_8bit", "top5_correct", "confidence", "loss", "brier"),
    *("linf_distance", "precision", "rejected", "forwards", "backwards"),
)
"""Columns of records that metrics may need."""
_OF_THE_ANSWER = ("correct", "correct_unmasked", "correct_8bit", "top5_correct", "loss", "brier")
"""What an outlier has not: no answer to it is right."""


def summarize(cells: Cells, suites: Mapping[str, SuiteDefinition], lacks: Sequence[str] = ()) -> pd.DataFrame:
    """One row per model and threat, in the order of the cells, with the columns of `COLUMNS`.

    `suites` are the run's own, by the name that the records give them; what its records lack has no figures.

    Timing is left out on purpose: a run that was killed and resumed gives the same file as one that was not.
    """

    def row(key: tuple[str, str]) -> dict[str, Any]:
        (model, threat), rows = key, cells[key]
        suite = str(rows["suite"].iloc[0])
        outliers = bool(suite) and suites[suite].spec.labels == "outlier"
        ok = answered(rows)
        inputs, _ = by_confidence(sample_inputs([ok], outliers, lacks=lacks))
        if not outliers:
            inputs |= _beside_clean(cells, model, threat)
        first = {name: rows[name].iloc[0] for name in _FIRST}
        failed = int((rows["status"] == "failed").sum()) if len(ok) < len(rows) else 0
        return {"model": model, "threat": threat, **first, "n": len(ok), "failed": failed, **_figures(inputs)}

    rows = two_at_once(row, list(cells))
    table = pd.DataFrame(rows, columns=with_plugged(COLUMNS, "threat"))
    return table.astype({name: float for metric in of("threat") for name in columns(metric)})


def with_plugged(known: Sequence[SummaryColumn], what: Literal["threat", "suite"]) -> list[str]:
    """Names of the columns, and of metrics that joined the table later."""
    names = (name for metric in of(what) for name in columns(metric))
    return list(dict.fromkeys([*(column.name for column in known), *names]))


def _figures(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Every metric of one threat's samples, by column; nothing where it is undefined."""
    found: dict[str, Any] = {}
    for metric in of("threat"):
        with suppress(UserError):
            found[metric.name] = computed(metric, inputs)
            found |= ends(metric, inputs)
    return found


def ends(metric: Metric, inputs: Mapping[str, Any], images: np.ndarray | None = None) -> dict[str, float]:
    """The ends of the metric's interval, by column; nothing without one, or below two images."""
    found = interval(metric, inputs, images)
    return {} if found is None else {f"{metric.name}_low": found.low, f"{metric.name}_high": found.high}


def sample_inputs(
    ok: Sequence[pd.DataFrame], outliers: bool, what: Literal["threat", "suite"] = "threat", lacks: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """What metrics need of the answered samples of some cells, by the names of `metrics.table.INPUTS`."""
    needed = {need for metric in of(what) for need in metric.needs}
    names = [name for name in SAMPLES if name in needed and not (outliers and name in _OF_THE_ANSWER)]
    names = [name for name in names if name not in lacks]
    return {name: values(ok, name) for name in names}


def by_confidence(
    inputs: Mapping[str, Any], images: np.ndarray | None = None
) -> tuple[dict[str, Any], np.ndarray | None]:
    """The same samples, the least confident first: most of the time would go into sorting them figure by figure."""
    if "confidence" not in inputs:
        return dict(inputs), images
    order = np.argsort(inputs["confidence"], kind="stable")
    ordered = {name: one[order] if name in SAMPLES else one for name, one in inputs.items()}
    return ordered, None if images is None else images[order]


def _beside_clean(cells: Cells, model: str, threat: str) -> dict[str, Any]:
    """The outcomes under a threat and in the clean run that its drop is measured from; nothing without one.

    Of the samples that both answered, but for a shifted data set, which has photographs of its own.
    """
    here = cells[model, threat]
    kind, suite = here["kind"].iloc[0], here["suite"].iloc[0]
    partner = threat if kind == "clean" else f"clean[{suite}]"
    clean = cells.get((model, partner), cells.get((model, "clean")))
    if clean is None:
        return {}
    clean, here = answered(clean), answered(here)
    same = kind != "shift"
    if same and not same_samples([clean, here]):
        columns = ["sample_id", "correct"]
        both = here[columns].merge(clean[columns], on="sample_id", suffixes=("", "_clean"))
        outcomes = both["correct_clean"], both["correct"]
    else:
        outcomes = clean["correct"], here["correct"]
    before, after = (one.to_numpy(dtype=bool) for one in outcomes)
    return {"correct_when_clean": before, "correct_here": after, "same_samples": same}


def generated_differences(records: pd.DataFrame, official: str, generated: str) -> pd.DataFrame:
    """For each corruption, severity and model: accuracy on the same photographs in both suites, and their difference.

    Columns corruption, severity, model, n, official, generated, difference (generated - official), low, high: the 95 %
    paired interval of `metrics.intervals.paired_difference_interval`. Only samples that both suites answered count.
    """
    ok = records[records["status"] == "ok"]
    keys = ["corruption", "severity", "model"]
    read = [*keys, "sample_id", "correct"]
    both = ok.loc[ok["suite"] == official, read].merge(
        ok.loc[ok["suite"] == generated, read], on=[*keys, "sample_id"], suffixes=("_official", "_generated")
    )
    rows = []
    for _, group in both.groupby(keys, sort=False):
        theirs, ours = group["correct_official"].to_numpy(dtype=bool), group["correct_generated"].to_numpy(dtype=bool)
        lost, gained, n = int((theirs & ~ours).sum()), int((ours & ~theirs).sum()), len(group)
        low, high = paired_difference_interval(lost, gained, n)
        figures = {"n": n, "official": theirs.mean(), "generated": ours.mean(), "difference": (gained - lost) / n}
        rows.append({**{key: group[key].iloc[0] for key in keys}, **figures, "low": low, "high": high})
    return pd.DataFrame(rows, columns=[*keys, "n", "official", "generated", "difference", "low", "high"])
