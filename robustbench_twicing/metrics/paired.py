"""Which samples two models share. The only place that decides it, so that every comparison is like for like."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int

from robustbench_twicing.errors import UserError

MUST_AGREE = ("threat", "protocol_hash", "recipe", "data", "data_fingerprint", "seed")
"""Columns that must hold one value, the same on both sides; but for the seed, where both sides are the same weights."""

_ONE_MODEL = ("model", "attention", "weights_hash")


class LeftOut(NamedTuple):
    """Samples of one side that no comparison uses, by reason. Show them: they count neither as right nor as wrong."""

    failed: int
    skipped: int
    missing: int
    """On the other side only."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """Two models' outcomes under one threat on the samples that both answered, in the order of the sample ids."""

    sample_ids: np.ndarray
    labels: Int[np.ndarray, " samples"]
    baseline: Bool[np.ndarray, " samples"]
    """Whether the sample counts as right."""
    candidate: Bool[np.ndarray, " samples"]
    baseline_left_out: LeftOut
    candidate_left_out: LeftOut
    bounds: "Bounds"
    """What the flips would be, had no sample failed."""


@dataclass(frozen=True, eq=False)
class SuitePairs:
    """Two models' outcomes under several threats, on the samples that both answered under all of them."""

    threats: tuple[str, ...]
    sample_ids: np.ndarray
    labels: Int[np.ndarray, " samples"]
    baseline: Bool[np.ndarray, "samples threats"]
    candidate: Bool[np.ndarray, "samples threats"]
    incomplete: int
    """Samples that both models answered under some threat, but not under every one."""


@dataclass(frozen=True, eq=False)
class ArmPairs:
    """Two arms' outcomes under one threat, on the samples that all of their models answered."""

    sample_ids: np.ndarray
    labels: Int[np.ndarray, " samples"]
    baseline: Bool[np.ndarray, "seeds samples"]
    candidate: Bool[np.ndarray, "other_seeds samples"]
    left_out: int
    """Samples that some model did not answer."""
    failed: Bool[np.ndarray, "all_seeds failed_samples"]
    """Of the samples that failed for some model, and were skipped or missing for none: for which, baseline first."""
    right: Bool[np.ndarray, "all_seeds failed_samples"]
    """Of the same samples: which counts as right; False where it failed."""

    def with_failures(self, in_favour: bool) -> tuple[np.ndarray, np.ndarray]:
        """Both arms' outcomes on the failed samples too, all counted in favour of the candidate, or all against it."""
        split = len(self.baseline)
        fill = np.where(np.arange(len(self.failed)) < split, not in_favour, in_favour)
        filled = np.where(self.failed, fill[:, None], self.right)
        return np.hstack([self.baseline, filled[:split]]), np.hstack([self.candidate, filled[split:]])


class Flips(NamedTuple):
    """The 2 × 2 table of two models on the same samples."""

    both_right: int
    lost: int
    """Right for the baseline only."""
    gained: int
    """Right for the candidate only."""
    both_wrong: int

    @property
    def n(self) -> int:
        return sum(self)

    @property
    def discordance(self) -> float:
        """Share of samples that change sides. NaN without samples."""
        return (self.lost + self.gained) / self.n if self.n else float("nan")

    @property
    def difference(self) -> float:
        """Accuracy of the candidate minus that of the baseline. NaN without samples."""
        return (self.gained - self.lost) / self.n if self.n else float("nan")


class Bounds(NamedTuple):
    """Flips of all samples that were tried on both sides, failed ones included: no verdict may hang on these."""

    against: Flips
    """Wrong for the candidate and right for the baseline wherever they failed."""
    in_favour: Flips
    """The other way round."""


def match(baseline: pd.DataFrame, candidate: pd.DataFrame, *, draws: bool = False) -> Pairs:
    """The samples with status ok in both frames of records, aligned by sample id.

    Each frame holds the records of one model under one threat (columns of `records.py`). Raises `UserError` if the two
    differ in a column of `MUST_AGREE`, naming each such column with both values (with `draws` not for two seeds of the
    same weights, which differ by the draws alone); if a frame is empty, mixes several models or threats, or holds a
    sample twice; if a sample's label differs; and if no sample is left.
    """
    _refuse_mixed(baseline, "baseline")
    _refuse_mixed(candidate, "candidate")
    if not (draws and draws_differ(baseline, candidate)):
        _refuse_other_settings(baseline, candidate)
    on_both_sides, ids = _on_both_sides(baseline, candidate)
    answered = ((on_both_sides["status"] == "ok") & (on_both_sides["status_candidate"] == "ok")).to_numpy(dtype=bool)
    both = on_both_sides if answered.all() else on_both_sides[answered]
    if both.empty:
        raise UserError(
            f"{_name(baseline)} and {_name(candidate)} share no sample that both answered.",
            "Look at the records' error column, or evaluate both with the same --limit.",
        )
    ids = ids if len(both) == len(ids) else ids[answered]
    labels = both["label"].to_numpy(dtype=np.int64)
    other_label = ids[labels != both["label_candidate"].to_numpy()]
    if other_label.size:
        raise UserError(
            f"{len(other_label)} sample(s) have another label on each side, the first being {other_label[0]}.",
            "The two runs did not read the same data set; evaluate both models in one run.",
        )
    return Pairs(
        sample_ids=ids,
        labels=labels,
        baseline=both["correct"].to_numpy(dtype=bool),
        candidate=both["correct_candidate"].to_numpy(dtype=bool),
        baseline_left_out=_left_out(baseline, missing=len(candidate) - len(on_both_sides)),
        candidate_left_out=_left_out(candidate, missing=len(baseline) - len(on_both_sides)),
        bounds=_bounds(on_both_sides),
    )


class _InOrder:
    """The ids of the cell before, put in order: mostly those of the next one, too."""

    def __init__(self) -> None:
        self._known: tuple[Any, np.ndarray, np.ndarray, bool] | None = None

    def __call__(self, ids: "pd.Series[str]") -> tuple[np.ndarray, np.ndarray, bool]:
        """Which row is where in the order of the ids, the ids in it, and whether each is there once."""
        known, here = self._known, ids.array
        if known is None or not (known[0] is here or (len(known[0]) == len(here) and known[0].equals(here))):
            order = ids.argsort(kind="stable").to_numpy()
            there = ids.to_numpy(dtype=object)[order]
            known = self._known = (here, order, there, not ids.duplicated().any())
        return known[1:]


_in_order = _InOrder()


def _on_both_sides(baseline: pd.DataFrame, candidate: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
    """Label, status and correct of the samples that both sides hold, in the order of their ids; and these ids."""
    columns, suffix = ["label", "status", "correct"], "_candidate"
    one, other = baseline["sample_id"].array, candidate["sample_id"].array
    if one is other or (len(one) == len(other) and one.equals(other)):
        order, ids, once = _in_order(baseline["sample_id"])
        if not once:
            _refuse_repeated(baseline, "baseline")
        found = {name: baseline[name].array.take(order) for name in columns}
        found |= {f"{name}{suffix}": candidate[name].array.take(order) for name in columns}
        return pd.DataFrame(found, copy=False), ids
    _refuse_repeated(baseline, "baseline")
    _refuse_repeated(candidate, "candidate")
    columns = ["sample_id", *columns]
    both = baseline[columns].merge(candidate[columns], on="sample_id", suffixes=("", suffix)).sort_values("sample_id")
    return both, both["sample_id"].to_numpy(dtype=object)


def match_suite(
    baseline: Mapping[str, pd.DataFrame], candidate: Mapping[str, pd.DataFrame], *, draws: bool = False
) -> SuitePairs:
    """The samples that both models answered under every threat, aligned by sample id: for mCE and curves over eps.

    Each mapping goes from threat to that threat's records; the keys name the columns of the result, in the order of
    `baseline`. Pass the same mapping twice for the samples of one model. Raises `UserError` as `match` does, for
    threats that one side lacks, and if a sample id stands for another label under another threat.
    """
    one_sided = sorted(set(baseline) ^ set(candidate))
    if one_sided or not baseline:
        raise UserError(
            f"Only one of the two models has records under {', '.join(one_sided) or 'any threat'}.",
            "A suite is compared over the same threats: evaluate both models under all of them.",
        )
    pairs = {threat: match(baseline[threat], candidate[threat], draws=draws) for threat in baseline}
    first = next(iter(pairs.values()))
    if all(p.sample_ids is first.sample_ids and np.array_equal(p.labels, first.labels) for p in pairs.values()):
        return SuitePairs(
            threats=tuple(pairs),
            sample_ids=first.sample_ids,
            labels=first.labels,
            baseline=np.column_stack([p.baseline for p in pairs.values()]),
            candidate=np.column_stack([p.candidate for p in pairs.values()]),
            incomplete=0,
        )
    columns = {
        threat: pd.DataFrame({"label": p.labels, "baseline": p.baseline, "candidate": p.candidate}, index=p.sample_ids)
        for threat, p in pairs.items()
    }
    # The outer level of the columns is the threat; only samples answered under every threat survive the inner join.
    joined = pd.concat(columns, axis=1, join="inner").sort_index()
    if joined.empty:
        raise UserError(
            "No sample was answered by both models under every threat of the suite.",
            "The threats must be made from the same images, with the same --limit.",
        )
    labels = joined.xs("label", axis=1, level=1).to_numpy(dtype=np.int64)
    differing = [threat for threat, column in zip(pairs, labels.T, strict=True) if (column != labels[:, 0]).any()]
    if differing:
        raise UserError(
            f"Sample ids do not stand for the same images under {differing[0]} and {next(iter(pairs))}: labels differ.",
            "A suite must be made from one set of images.",
        )
    return SuitePairs(
        threats=tuple(pairs),
        sample_ids=joined.index.to_numpy(),
        labels=labels[:, 0],
        baseline=joined.xs("baseline", axis=1, level=1).to_numpy(dtype=bool),
        candidate=joined.xs("candidate", axis=1, level=1).to_numpy(dtype=bool),
        incomplete=len(set().union(*(p.sample_ids for p in pairs.values()))) - len(joined),
    )


def match_arms(baseline: Mapping[str, pd.DataFrame], candidate: Mapping[str, pd.DataFrame]) -> ArmPairs:
    """The samples that every model of two arms answered under one threat, aligned by sample id.

    Each mapping goes from a model's name to its records under that threat. Raises `UserError` as `match` does, for
    records of any two of the models.
    """
    frames = {**baseline, **candidate}
    first = next(iter(frames.values()))
    for name, frame in frames.items():
        _refuse_mixed(frame, name)
        _refuse_other_settings(first, frame)
    ids, rows = _tried_by_all(frames)
    labels, right, failed = (
        np.stack([values[kept] for values, kept in zip(found, rows, strict=True)])
        for found in (
            [frame["label"].to_numpy(dtype=np.int64) for frame in frames.values()],
            [frame["correct"].to_numpy(dtype=bool) for frame in frames.values()],
            [(frame["status"] == "failed").to_numpy(dtype=bool) for frame in frames.values()],
        )
    )
    right &= ~failed
    answered = ~failed.any(axis=0)
    if not answered.any():
        raise UserError(
            f"No sample was answered by all of {', '.join(frames)}.",
            "Look at the records' error column, or evaluate all with the same --limit.",
        )
    if (labels != labels[:1]).any():
        raise UserError(
            "Sample ids do not stand for the same images in all models of the arms: labels differ.",
            "The runs did not read the same data set; evaluate all models in one run.",
        )
    return ArmPairs(
        sample_ids=ids[answered],
        labels=labels[0, answered],
        baseline=right[: len(baseline), answered],
        candidate=right[len(baseline) :, answered],
        left_out=max(len(frame) for frame in frames.values()) - int(answered.sum()),
        failed=failed[:, ~answered],
        right=right[:, ~answered],
    )


def _tried_by_all(frames: Mapping[str, pd.DataFrame]) -> tuple[np.ndarray, list[np.ndarray]]:
    """The ids, sorted, of the samples that no frame skipped or lacks; and for each frame in which rows they are."""
    of = [frame["sample_id"].to_numpy() for frame in frames.values()]
    tried = [(frame["status"] != "skipped").to_numpy(dtype=bool) for frame in frames.values()]
    alike = [np.array_equal(ids, of[0]) for ids in of]
    for place, (name, frame) in enumerate(frames.items()):
        if place == 0 or not alike[place]:
            _refuse_repeated(frame, name)
    if all(alike) and all(some.all() for some in tried):
        order = np.argsort(of[0], kind="stable")  # mostly all frames are about the same samples in the same order
        return of[0][order], [order] * len(of)
    columns = [pd.Series(np.flatnonzero(some), ids[some]) for ids, some in zip(of, tried, strict=True)]
    joined = pd.concat(columns, axis=1, join="inner").sort_index()
    return joined.index.to_numpy(), list(joined.to_numpy(dtype=np.int64).T)


def draws_differ(baseline: pd.DataFrame, candidate: pd.DataFrame) -> bool:
    """Two cells' records differ in their seed, and in nothing else that matters, weights and attention included."""
    columns = ("weights_hash", "attention", *MUST_AGREE)
    return [name for name in columns if baseline[name].iloc[0] != candidate[name].iloc[0]] == ["seed"]


def draws_spread(flips: Flips) -> float:
    """Standard deviation of the accuracy over seeds of the draws, in [0, 1], from the flips between two of them.

    A sample that is right under a share q of the seeds flips with probability 2 q (1 - q), and adds q (1 - q)/n² to the
    variance: √(flips/2)/n.
    """
    return math.sqrt((flips.lost + flips.gained) / 2) / flips.n if flips.n else float("nan")


def count_flips(baseline: Bool[np.ndarray, " samples"], candidate: Bool[np.ndarray, " samples"]) -> Flips:
    """How often both, one or none of two models were right."""
    return Flips(
        both_right=int((baseline & candidate).sum()),
        lost=int((baseline & ~candidate).sum()),
        gained=int((~baseline & candidate).sum()),
        both_wrong=int((~baseline & ~candidate).sum()),
    )


def _bounds(on_both_sides: pd.DataFrame) -> Bounds:
    if not (on_both_sides["status"].ne("ok") | on_both_sides["status_candidate"].ne("ok")).any():
        flips = count_flips(*(on_both_sides[side].to_numpy(dtype=bool) for side in ("correct", "correct_candidate")))
        return Bounds(flips, flips)
    tried = on_both_sides[on_both_sides["status"].ne("skipped") & on_both_sides["status_candidate"].ne("skipped")]

    def outcomes(suffix: str, failed_are: bool) -> np.ndarray:
        right = tried[f"correct{suffix}"].where(tried[f"status{suffix}"] == "ok", failed_are)
        return right.to_numpy(dtype=bool)

    return Bounds(
        against=count_flips(outcomes("", True), outcomes("_candidate", False)),
        in_favour=count_flips(outcomes("", False), outcomes("_candidate", True)),
    )


def _refuse_other_settings(baseline: pd.DataFrame, candidate: pd.DataFrame) -> None:
    """Both frames hold the records of one cell each."""
    differing = [
        f"  {column}: {baseline[column].iloc[0]!s} | {candidate[column].iloc[0]!s}"
        for column in MUST_AGREE
        if baseline[column].iloc[0] != candidate[column].iloc[0]
    ]
    if differing:
        raise UserError(
            f"{_name(baseline)} and {_name(candidate)} cannot be compared; these differ (baseline | candidate):\n"
            + "\n".join(differing),
            "Evaluate both models in one run, or repeat one of them with the settings of the other."
            + (
                " Two seeds can be compared of the same weights only."
                if any(line.startswith("  seed:") for line in differing)
                else ""
            ),
        )


def _name(frame: pd.DataFrame) -> str:
    return str(frame["model"].iloc[0])


def _refuse_mixed(frame: pd.DataFrame, side: str) -> None:
    if frame.empty:
        raise UserError(f"The {side} has no records.", "Name a model and a threat that the run contains.")
    for column in (*_ONE_MODEL, *MUST_AGREE):
        array = frame[column].array
        if isinstance(array, pd.Categorical) and len(array.categories) == 1 and array.codes.min() == 0:
            continue  # as records of a run are read
        values = frame[column].unique()
        if len(values) > 1:
            raise UserError(
                f"The {side}'s records mix several values of {column}: {', '.join(map(str, values[:4]))}.",
                "Compare one model under one threat at a time.",
            )


def _refuse_repeated(frame: pd.DataFrame, side: str) -> None:
    repeated = frame.loc[frame["sample_id"].duplicated(), "sample_id"]
    if not repeated.empty:
        raise UserError(
            f"The {side} holds {len(repeated)} sample(s) more than once, the first being {repeated.iloc[0]}.",
            "The records of two runs were put together; compare one run with another.",
        )


def _left_out(frame: pd.DataFrame, missing: int) -> LeftOut:
    return LeftOut(
        failed=int((frame["status"] == "failed").sum()),
        skipped=int((frame["status"] == "skipped").sum()),
        missing=missing,
    )
