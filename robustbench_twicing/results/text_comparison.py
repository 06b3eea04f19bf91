"""Language models on the same documents: bits per byte beside each other, threat by threat; arms of seeds. No torch."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from robustbench_twicing.errors import UserError, unknown_name
from robustbench_twicing.metrics.arms import FEWEST_SEEDS
from robustbench_twicing.metrics.perplexity import (
    Difference,
    arms_difference,
    bits_per_byte,
    paired_difference,
    token_perplexity,
)
from robustbench_twicing.metrics.verdict import holm
from robustbench_twicing.results.cells import of_model
from robustbench_twicing.results.of_plans import load_finished, run_folder
from robustbench_twicing.results.run import Run
from robustbench_twicing.results.scored_text import sums, targets_of
from robustbench_twicing.results.store import RunFolder
from robustbench_twicing.spec.arms import ArmPatterns, arms_in_names, members

Verdict = Literal["better", "worse", "no difference found"]
_UNDECIDED: Verdict = "no difference found"


class TextRow(NamedTuple):
    """One pair under one threat, over one choice of targets."""

    baseline: str
    candidate: str
    threat: str
    targets: str
    n: int
    """Documents; of arms the seeds of the smaller one."""
    baseline_bits: float
    """Bits per byte, as those of the candidate; of an arm the mean over its seeds."""
    candidate_bits: float
    tokens: tuple[float, float] | None
    """Both token perplexities; None where the tokenizers are two, and for arms."""
    difference: Difference
    p_holm: float
    verdict: Verdict


class TextComparisons(NamedTuple):
    """All of them."""

    rows: tuple[TextRow, ...]
    of_arms: bool
    alpha: float
    not_compared: tuple[str, ...]


def named_texts(
    places: Sequence[str], names: Sequence[str], arms: ArmPatterns | None, alpha: float
) -> TextComparisons | None:
    """What `compare` says of finished runs over texts; None where the first place is no such run. Raises `UserError`.

    `names`: models of the one run, the baseline first; none for all.
    """
    try:
        manifest = RunFolder(run_folder(places[0])).manifest() if places else None
    except UserError:  # said by who reads it as a run over images
        return None
    if manifest is None or manifest.plan.task != "text":
        return None
    runs = [load_finished(place) for place in places]
    if len({run.manifest.plan.task for run in runs}) > 1:
        raise UserError("One run is over a text, another over images.", "Compare two of a kind.")
    found = compare_texts(runs, names, arms, alpha)
    if found is None:
        raise UserError("There is nothing to compare.", "Name two models of one run, or two runs that share a model.")
    return found


def compared_texts(runs: Sequence[Run]) -> TextComparisons | None:
    """What there is to compare in runs that were read; None for those that are not whole, and for a single model."""
    if not all(run.is_whole for run in runs):
        return None
    return compare_texts(runs, arms=runs[0].manifest.arms or None)


def compare_texts(
    runs: Sequence[Run], names: Sequence[str] = (), arms: ArmPatterns | None = None, alpha: float = 0.05
) -> TextComparisons | None:
    """Models of one run beside its first, or what two runs share; arms of one run, if any are given or its names make.

    None where there is nothing to compare. Raises `UserError` for runs that were scored otherwise, and unknown names.
    """
    if len(runs) == 1:
        models = {name: _rows_of(runs[0], name) for name in _chosen(names, runs[0].models)}
        found = arms or arms_in_names(list(models), FEWEST_SEEDS)
        if found:
            return _arms(models, found, alpha)
        baseline, *others = models
        return _models([((baseline, models[baseline]), (name, models[name])) for name in others], alpha)
    pairs = [
        (
            (f"{name} in {runs[0].path.name}", _rows_of(runs[0], name)),
            (f"{name} in {run.path.name}", _rows_of(run, name)),
        )
        for run in runs[1:]
        for name in runs[0].models
        if name in run.models
    ]
    if not pairs:
        raise UserError("The runs share no model.", "Run the models together: lm --model ONE --model OTHER.")
    return _models(pairs, alpha)


def _rows_of(run: Run, model: str) -> pd.DataFrame:
    return pd.concat(of_model(run.cells, model).values(), ignore_index=True)


def _chosen(names: Sequence[str], known: Sequence[str]) -> list[str]:
    for name in names:
        if name not in known:
            raise unknown_name("model", name, known)
    return list(dict.fromkeys(names or known))


Named = tuple[str, pd.DataFrame]


def _models(pairs: Sequence[tuple[Named, Named]], alpha: float) -> TextComparisons | None:
    rows, left = list[TextRow](), dict[str, None]()
    for (baseline, one), (candidate, other) in pairs:
        for threat, both in _shared(one, other, (baseline, candidate)):
            if len(both) < 2:
                left[f"{threat}: {len(both)} document(s) that both answered"] = None
                continue
            rows += _pair(baseline, candidate, threat, both)
    return TextComparisons(_judged(rows, alpha), of_arms=False, alpha=alpha, not_compared=tuple(left)) if rows else None


def _shared(one: pd.DataFrame, other: pd.DataFrame, called: tuple[str, str]) -> Iterator[tuple[str, pd.DataFrame]]:
    """The answered documents of both under each threat, columns of the second behind `_other`."""
    for threat, rows in one.groupby("threat", sort=False):
        theirs = other[other["threat"] == threat]
        if theirs.empty:
            continue
        for column, what in (("data_fingerprint", "text"), ("protocol_hash", "window rule or corruption")):
            if rows[column].iloc[0] != theirs[column].iloc[0]:
                raise UserError(
                    f"{threat}: {called[0]} and {called[1]} were not scored alike: another {what}.",
                    "Score them together, in one run.",
                )
        both = rows[rows["status"] == "ok"].merge(
            theirs[theirs["status"] == "ok"], on="sample_id", suffixes=("", "_other")
        )
        yield str(threat), both


def _pair(baseline: str, candidate: str, threat: str, both: pd.DataFrame) -> Iterator[TextRow]:
    theirs = both[[name for name in both if str(name).endswith("_other")]].rename(
        columns=lambda name: name.removesuffix("_other")
    )
    same = both["tokenizer"].iloc[0] == theirs["tokenizer"].iloc[0]
    for targets in targets_of(both):
        left, right = sums(both, targets), sums(theirs, targets)
        if not np.array_equal(left["size"], right["size"]):
            # Tokenizers that cut differently: an untouched piece of one is not that of the other.
            if targets == "untouched":
                continue
            raise UserError(f"{threat}: {baseline} and {candidate} scored other bytes.", _PREFIXES)
        tokens = tuple(token_perplexity(side["nats"], side["tokens"]) for side in (left, right))
        difference = paired_difference(left["nats"], right["nats"], left["size"])
        bits = [bits_per_byte(side["nats"], side["size"]) for side in (left, right)]
        yield TextRow(
            baseline=baseline,
            candidate=candidate,
            threat=threat,
            targets=targets,
            n=len(both),
            baseline_bits=bits[0],
            candidate_bits=bits[1],
            tokens=(tokens[0], tokens[1]) if same else None,
            difference=difference,
            p_holm=difference.p,
            verdict=_UNDECIDED,
        )


_PREFIXES = "One has a token before each text, the other not: compare models that begin alike."


def _arms(models: Mapping[str, pd.DataFrame], arms: ArmPatterns, alpha: float) -> TextComparisons:
    (baseline, *others), rows = list(arms), list[TextRow]()
    seeds = {arm: members(patterns, list(models)) for arm, patterns in arms.items()}
    for arm, found in seeds.items():
        if len(found) < FEWEST_SEEDS:
            raise UserError(f"Arm {arm} has {len(found)} seed(s); a verdict needs {FEWEST_SEEDS} or more.",
                            "Train more: twicing-bench train --data text --seeds 0-4.")  # fmt: skip
    for candidate in others:
        first = models[seeds[baseline][0]]
        for threat in first["threat"].unique():
            for targets in targets_of(first[first["threat"] == threat]):
                sides = [[_bits(models[name], threat, targets) for name in seeds[arm]] for arm in (baseline, candidate)]
                difference = arms_difference(sides[0], sides[1])
                row = TextRow(
                    baseline=baseline,
                    candidate=candidate,
                    threat=str(threat),
                    targets=targets,
                    n=min(map(len, sides)),
                    baseline_bits=float(np.mean(sides[0])),
                    candidate_bits=float(np.mean(sides[1])),
                    tokens=None,
                    difference=difference,
                    p_holm=difference.p,
                    verdict=_UNDECIDED,
                )
                rows.append(row)
    return TextComparisons(_judged(rows, alpha), of_arms=True, alpha=alpha, not_compared=())


def _bits(rows: pd.DataFrame, threat: str, targets: str) -> float:
    here = rows[rows["threat"] == threat]
    if (here["status"] != "ok").any():
        raise UserError(f"{threat}: {here['model'].iloc[0]} failed on a document.", "Arms are compared on all of them.")
    parts = sums(here, targets)
    return bits_per_byte(parts["nats"], parts["size"])


def _judged(rows: Sequence[TextRow], alpha: float) -> tuple[TextRow, ...]:
    """With Holm's p over all rows, and what may then be said: fewer bits are better."""
    adjusted = holm(np.array([row.difference.p for row in rows], dtype=float))
    found = []
    for row, p in zip(rows, adjusted, strict=True):
        verdict: Verdict = _UNDECIDED
        if p <= alpha and (row.difference.interval.low > 0 or row.difference.interval.high < 0):
            verdict = "better" if row.difference.value < 0 else "worse"
        found.append(row._replace(p_holm=float(p), verdict=verdict))
    return tuple(found)
