"""Every number that a report shows, computed from the records. No torch."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from robustbench_twicing.errors import UserError
from robustbench_twicing.metrics.calibration import (
    aupr,
    auroc,
    aurra,
    expected_calibration_error,
    fpr_at_recall,
    rms_calibration_error,
)
from robustbench_twicing.metrics.corruption_error import mce, mean_error, relative_mce
from robustbench_twicing.metrics.intervals import paired_difference_interval, wilson_interval
from robustbench_twicing.spec.suite import Denominator, SuiteDefinition


class SummaryColumn(NamedTuple):
    """A column of summary.csv."""

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
    SummaryColumn("kind", "clean, attack, corruption or shift"),
    SummaryColumn("suite", "suite of a corruption or shift"),
    SummaryColumn("corruption", "name of the corruption"),
    SummaryColumn("severity", "1 to 5; 0 for what is no corruption"),
    SummaryColumn("protocol", "attack protocol"),
    SummaryColumn("protocol_hash", "rows with different hashes are not comparable"),
    SummaryColumn("seed", "seed of the plan"),
    SummaryColumn("n", "samples with status ok: what the accuracy is a fraction of"),
    SummaryColumn("failed", "samples without an answer; neither right nor wrong"),
    SummaryColumn("accuracy", "fraction of n that counts as right, top-1, in [0, 1]"),
    SummaryColumn("ci_low", "lower end of the 95 % Wilson interval of accuracy"),
    SummaryColumn("ci_high", "upper end of the 95 % Wilson interval of accuracy"),
    SummaryColumn("accuracy_unmasked", "top-1 when all logits may answer, not only those of the suite's classes"),
    SummaryColumn("top5_accuracy", "fraction of n whose true class is among the five largest logits"),
    SummaryColumn(
        "accuracy_8bit", "accuracy with the judged images rounded to 8 bits; accuracy itself if not asked for"
    ),
    SummaryColumn("precision", "what the attack computed in; verdicts are always float32's"),
    SummaryColumn(
        "rejected", "fraction of the attack's successes, in that precision or compiled, that float32 did not confirm"
    ),
    SummaryColumn(
        "clean_accuracy",
        "the model's clean accuracy on the samples that both answered (a shifted data set: on its classes)",
    ),
    SummaryColumn("drop", "accuracy on those samples - clean_accuracy: negative is lost; empty if clean was not run"),
    SummaryColumn("mean_loss", "mean cross-entropy on the judged images, in nats"),
    SummaryColumn("max_linf_distance", "largest measured L∞ distance, in the units of eps"),
    SummaryColumn("forwards_per_sample", "mean evaluations of the model per sample"),
    SummaryColumn("backwards_per_sample", "mean input gradients per sample"),
)

_FIRST = (
    *("architecture", "attention", "weights_hash", "data", "recipe", "kind", "suite", "corruption", "severity"),
    *("protocol", "protocol_hash", "seed", "precision"),
)

_OF_THE_ANSWER = (
    *("accuracy", "ci_low", "ci_high", "accuracy_unmasked", "top5_accuracy", "accuracy_8bit"),
    *("clean_accuracy", "drop", "mean_loss"),
)

SUITE_COLUMNS: tuple[SummaryColumn, ...] = (
    SummaryColumn("model", "the model's name in the plan"),
    SummaryColumn("suite", "the suite"),
    SummaryColumn("mean_error", "mean top-1 error over the suite's common corruptions at its severities, in [0, 1]"),
    SummaryColumn("mce", "mean corruption error over exactly those, in percent of the denominator's, if there is one"),
    SummaryColumn("relative_mce", "the same for what the corruptions add to the clean error"),
    SummaryColumn("denominator", "whose errors mCE divides by: AlexNet, a file's, or a model of the same run"),
    SummaryColumn("ece", "expected calibration error over 15 equal bins, in [0, 1], on all samples of the suite"),
    SummaryColumn("rms_calibration_error", "root mean square calibration error, in [0, 1]"),
    SummaryColumn("aurra", "area under the response rate accuracy curve, in [0, 1]"),
    SummaryColumn("auroc", "outlier suites: how well confidence tells outliers from ImageNet's own classes"),
    SummaryColumn("aupr", "outlier suites: area under precision and recall, outliers positive"),
    SummaryColumn("fpr95", "outlier suites: false positive rate where 95 % of the outliers are found"),
    SummaryColumn("note", "why a figure is missing"),
)


def summarize(records: pd.DataFrame, suites: Mapping[str, SuiteDefinition]) -> pd.DataFrame:
    """One row per model and threat, in the order of the records, with the columns of `COLUMNS`.

    `suites` are the run's own, by the name that the records give them.

    Timing is left out on purpose: a run that was killed and resumed gives the same file as one that was not.
    """
    rows: list[dict[str, Any]] = []
    groups = {(str(key[0]), str(key[1])): group for key, group in records.groupby(["model", "threat"], sort=False)}
    for (model, threat), group in groups.items():
        ok = group[group["status"] == "ok"]
        right, n = int(ok["correct"].sum()), len(ok)
        low, high = wilson_interval(right, n)
        accuracy = right / n if n else np.nan
        is_clean = threat.startswith("clean")
        clean_accuracy, drop = (accuracy, accuracy - accuracy) if is_clean else _drop(groups, model, group)
        rows.append(
            {
                "model": model,
                "threat": threat,
                **{name: group[name].iloc[0] for name in _FIRST},
                "n": n,
                "failed": int((group["status"] == "failed").sum()),
                "accuracy": accuracy,
                "ci_low": low,
                "ci_high": high,
                "accuracy_unmasked": ok["correct_unmasked"].mean(),
                "top5_accuracy": ok["top5_correct"].mean(),
                "accuracy_8bit": ok["correct_8bit"].mean(),
                "rejected": _rejected(ok),
                "clean_accuracy": clean_accuracy,
                "drop": drop,
                "mean_loss": ok["loss"].mean(),
                "max_linf_distance": ok["linf_distance"].max(),
                "forwards_per_sample": ok["forwards"].mean(),
                "backwards_per_sample": ok["backwards"].mean(),
            }
        )
        suite = str(group["suite"].iloc[0])
        if suite and suites[suite].spec.labels == "outlier":  # no answer to an outlier is right
            rows[-1] |= dict.fromkeys(_OF_THE_ANSWER, np.nan)
    return pd.DataFrame(rows, columns=[column.name for column in COLUMNS])


def _drop(groups: Mapping[tuple[str, str], pd.DataFrame], model: str, group: pd.DataFrame) -> tuple[float, float]:
    """The clean accuracy beside a threat's, and the difference; nan if clean was not run.

    Over the samples that both answered, but for a shifted data set, which has photographs of its own.
    """
    kind, suite = group["kind"].iloc[0], group["suite"].iloc[0]
    clean = groups.get((model, f"clean[{suite}]"), groups.get((model, "clean")))
    if clean is None:
        return np.nan, np.nan
    clean, ok = (some[some["status"] == "ok"] for some in (clean, group))
    if kind != "shift":
        clean, ok = clean[clean["sample_id"].isin(ok["sample_id"])], ok[ok["sample_id"].isin(clean["sample_id"])]
    if clean.empty or ok.empty:
        return np.nan, np.nan
    before = float(clean["correct"].mean())
    return before, float(ok["correct"].mean()) - before


def _rejected(ok: pd.DataFrame) -> float:
    """Of the samples that the attack took for broken, the fraction that float32 judged otherwise.

    nan for attacks in float32, unless they were compiled and had such samples.
    """
    if ok.empty or (ok["precision"].iloc[0] == "float32" and not ok["rejected"].any()):
        return np.nan
    # A sample that was not attacked, being wrong already, took one evaluation.
    confirmed = ~ok["correct"] & ~ok["rejected"] & (ok["forwards"] > 1)
    rejected = int(ok["rejected"].sum())
    successes = rejected + int(confirmed.sum())
    return rejected / successes if successes else np.nan


def summarize_suites(records: pd.DataFrame, suites: Mapping[str, SuiteDefinition]) -> pd.DataFrame:
    """One row per model and suite of the records, with the columns of `SUITE_COLUMNS`; a figure without data is nan.

    `suites` are the run's own, by the name that the records give them; whose errors mCE divides by stands there.
    """
    ok = records[records["status"] == "ok"]
    rows = [_suite_row(ok, str(model), str(suite), suites[suite]) for model, suite in _pairs(ok)]
    return pd.DataFrame(rows, columns=[column.name for column in SUITE_COLUMNS])


def _pairs(records: pd.DataFrame) -> list[tuple[str, str]]:
    named = records[records["suite"] != ""]
    return [(model, suite) for model, suite in named[["model", "suite"]].drop_duplicates().itertuples(index=False)]


def _suite_row(ok: pd.DataFrame, model: str, suite: str, definition: SuiteDefinition) -> dict[str, Any]:
    mine = ok[ok["model"] == model]
    here = mine[mine["suite"] == suite]
    row: dict[str, Any] = {"model": model, "suite": suite, "note": ""}
    if definition.spec.labels == "outlier":
        clean = mine[mine["threat"] == f"clean[{suite}]"]
        if clean.empty:
            return row | {"note": "no clean run to tell the outliers from"}
        # The score of being an outlier is minus the confidence (Hendrycks & Gimpel 2017, arXiv 1610.02136).
        scores = -here["confidence"].to_numpy(), -clean["confidence"].to_numpy()
        return row | {"auroc": auroc(*scores), "aupr": aupr(*scores), "fpr95": fpr_at_recall(*scores)}
    answers = here["confidence"].to_numpy(), here["correct"].to_numpy(dtype=bool)
    row["ece"] = expected_calibration_error(*answers)
    row["rms_calibration_error"] = rms_calibration_error(*answers)
    row["aurra"] = aurra(*answers)
    if definition.spec.families:
        row |= _corruption_figures(ok, mine, here, definition)
    return row


def _corruption_figures(
    ok: pd.DataFrame, mine: pd.DataFrame, here: pd.DataFrame, definition: SuiteDefinition
) -> dict[str, Any]:
    errors, suite, denominator = _errors(here), here["suite"].iloc[0], definition.denominator
    over = definition.spec.families, definition.spec.severities
    figures: dict[str, Any] = {"denominator": denominator.name if denominator else ""}
    try:
        figures["mean_error"] = float(mean_error(errors, *over))
        if denominator is None:
            return figures
        denominators, clean_denominator = denominator.by_cell, denominator.clean
        if denominator.measured_here:
            baseline = ok[ok["model"] == denominator.name]
            if baseline.empty:
                return figures | {"note": _no_such_denominator(denominator)}
            denominators = _errors(baseline[baseline["suite"] == suite])
            clean_denominator = 1 - float(baseline.loc[baseline["threat"] == "clean", "correct"].mean())
        figures["mce"] = float(mce(errors, denominators, *over))
        clean_error = 1 - mine.loc[mine["threat"] == "clean", "correct"].mean()
        if clean_denominator is not None:
            figures["relative_mce"] = float(relative_mce(errors, clean_error, denominators, clean_denominator, *over))
    except UserError as missing:
        figures["note"] = missing.message
    return figures


def _no_such_denominator(denominator: Denominator) -> str:
    return f"no mCE: its denominator {denominator.name!r} is no model of this run"


def _errors(records: pd.DataFrame) -> dict[tuple[str, int], float]:
    right = records.groupby(["corruption", "severity"], sort=False)["correct"].mean()
    corruptions, severities = (right.index.get_level_values(level) for level in ("corruption", "severity"))
    return {
        (str(name), int(severity)): 1 - float(value)
        for name, severity, value in zip(corruptions, severities, right, strict=True)
    }


def generated_differences(records: pd.DataFrame, official: str, generated: str) -> pd.DataFrame:
    """For each corruption, severity and model: accuracy on the same photographs in both suites, and their difference.

    Columns corruption, severity, model, n, official, generated, difference (generated - official), low, high: the 95 %
    paired interval of `metrics.intervals.paired_difference_interval`. Only samples that both suites answered count.
    """
    ok = records[records["status"] == "ok"]
    keys = ["corruption", "severity", "model"]
    columns = [*keys, "sample_id", "correct"]
    both = ok.loc[ok["suite"] == official, columns].merge(
        ok.loc[ok["suite"] == generated, columns], on=[*keys, "sample_id"], suffixes=("_official", "_generated")
    )
    rows = []
    for _, group in both.groupby(keys, sort=False):
        theirs, ours = group["correct_official"].to_numpy(dtype=bool), group["correct_generated"].to_numpy(dtype=bool)
        lost, gained, n = int((theirs & ~ours).sum()), int((ours & ~theirs).sum()), len(group)
        low, high = paired_difference_interval(lost, gained, n)
        figures = {"n": n, "official": theirs.mean(), "generated": ours.mean(), "difference": (gained - lost) / n}
        rows.append({**{key: group[key].iloc[0] for key in keys}, **figures, "low": low, "high": high})
    return pd.DataFrame(rows, columns=[*keys, "n", "official", "generated", "difference", "low", "high"])
