"""Two folders of measurements, or the models of one: each figure beside the other's, image by image. No torch."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from robustbench_twicing.errors import UserError, unknown_name
from robustbench_twicing.metrics.intervals import paired_difference_interval
from robustbench_twicing.results.measured import Measured, is_measured, load_measured
from robustbench_twicing.results.sides import shared_models

_BY = ["threat", "place", "figure"]


class MeasuredRow(NamedTuple):
    """One figure of a pair of models, at one place under one threat."""

    baseline: str
    candidate: str
    threat: str
    place: str
    figure: str
    n: int
    """Images in which both have it."""
    baseline_value: float
    candidate_value: float
    difference: float
    """Candidate minus baseline."""
    low: float | None
    """Ends of its 95 % interval: Student's over images, of what is 0 or 1 Tango's. None below two images."""
    high: float | None


class MeasuredComparison(NamedTuple):
    """All of them."""

    command: str
    data: str
    rows: tuple[MeasuredRow, ...]
    grades: tuple[tuple[str, str], ...]
    """Of `diagnose`: what a model is called here, and its grade."""
    not_compared: tuple[str, ...]
    """In sentences, what only one side has."""


class _Side(NamedTuple):
    name: str
    manifest: Measured
    rows: pd.DataFrame


def named_measurements(places: Sequence[str | Path], names: Sequence[str] = ()) -> MeasuredComparison | None:
    """The comparison of what is named, if it is measurements; None if nothing of it is.

    Two folders: the models that both have, or the only one of each. One folder: its models, or those in `names`, with
    the first. Raises `UserError` for other data, another threat of the same name, another command, and a run beside.
    """
    found = [is_measured(place) for place in places]
    if not any(found):
        return None
    if not all(found) or len(places) > 2:
        raise UserError(
            "Measurements are compared with measurements of the same command, two folders at a time.",
            "Name two folders that collapse, diagnose or sweep wrote with --out.",
        )
    pairs = _pairs([(str(place), *load_measured(place)) for place in places], names)
    rows = [row for pair in pairs for row in _compared(*pair)]
    missing = tuple(dict.fromkeys(said for pair in pairs for said in _only_one(*pair)))
    sides = list({side.name: side for pair in pairs for side in pair}.values())
    grades = [(side.name, side.manifest.grades.get(_model(side), "")) for side in sides]
    first = pairs[0][0].manifest
    return MeasuredComparison(
        first.command, first.data.name, tuple(rows), tuple(one for one in grades if one[1]), missing
    )


def _pairs(loaded: Sequence[tuple[str, Measured, pd.DataFrame]], names: Sequence[str]) -> list[tuple[_Side, _Side]]:
    if len(loaded) == 1:
        ((place, manifest, rows),) = loaded
        for name in names:
            if name not in manifest.models:
                raise unknown_name("model", name, list(manifest.models))
        chosen = list(dict.fromkeys(names or manifest.models))
        if len(chosen) < 2:
            raise UserError(
                f"{place} holds {', '.join(manifest.models)}.", "Name another folder, or two of its models."
            )
        baseline, *others = (_Side(name, manifest, rows[rows["model"] == name]) for name in chosen)
        return [(baseline, other) for other in others]
    (place, manifest, rows), (other_place, other, other_rows) = loaded
    _require_alike(manifest, other)
    called = [Path(one).name or one for one in (place, other_place)]
    if called[0] == called[1]:
        called = [place, other_place]
    return [
        (
            _Side(f"{left} in {called[0]}", manifest, rows[rows["model"] == left]),
            _Side(f"{right} in {called[1]}", other, other_rows[other_rows["model"] == right]),
        )
        for left, right in shared_models(list(manifest.models), list(other.models))
    ]


def _require_alike(one: Measured, other: Measured) -> None:
    """Raise `UserError` that names what is not the same."""
    if one.command != other.command:
        raise UserError(f"One folder is of {one.command}, the other of {other.command}.", "Compare two of one command.")
    if (one.data.name, one.data.fingerprint) != (other.data.name, other.data.fingerprint):
        said = " and ".join(f"{each.data.name} ({each.data.fingerprint})" for each in (one, other))
        raise UserError(f"They were measured on other images: {said}.", "Measure both on the same data.")
    for threat in one.threats.keys() & other.threats.keys():
        if one.threats[threat] != other.threats[threat]:
            raise UserError(f"{threat} is another threat in the other folder: its settings differ.", "Measure again.")
    if one.seed != other.seed and set(one.threats) & set(other.threats) - {"clean"}:
        raise UserError(f"They were attacked with seeds {one.seed} and {other.seed}.", "Measure with one seed.")


def _model(side: _Side) -> str:
    return str(side.rows["model"].iloc[0]) if len(side.rows) else ""


def _compared(baseline: _Side, candidate: _Side) -> list[MeasuredRow]:
    on = [*_BY, "sample_id"]
    both = baseline.rows.merge(candidate.rows, on=on, suffixes=("", "_other"), validate="one_to_one")
    rows = []
    for key, group in both.groupby(_BY, sort=False, observed=True):
        one, other = group["value"].to_numpy(), group["value_other"].to_numpy()
        ends = _interval(one, other)
        means = float(one.mean()), float(other.mean()), float((other - one).mean())
        threat, place, figure = map(str, key)
        rows.append(MeasuredRow(baseline.name, candidate.name, threat, place, figure, len(one), *means, *ends))
    if not rows:
        raise UserError(
            f"{baseline.name} and {candidate.name} have no figure of the same image in common.",
            "Measure both with the same threats, on images of the same data.",
        )
    return rows


def _interval(one: np.ndarray, other: np.ndarray) -> tuple[float | None, float | None]:
    gaps, n = other - one, len(one)
    if n < 2:
        return None, None
    if np.isin(one, (0.0, 1.0)).all() and np.isin(other, (0.0, 1.0)).all():
        low, high = paired_difference_interval(int((gaps < 0).sum()), int((gaps > 0).sum()), n)
        return low, high
    half = float(stdtrit(n - 1, 0.975)) * float(gaps.std(ddof=1)) / math.sqrt(n)
    return float(gaps.mean()) - half, float(gaps.mean()) + half


def _only_one(baseline: _Side, candidate: _Side) -> list[str]:
    """What is not compared, since the other side lacks it."""
    said = []
    for side, other in ((baseline, candidate), (candidate, baseline)):
        for word in ("threat", "place"):
            alone = [name for name in side.rows[word].unique() if name not in set(other.rows[word])]
            if alone:
                said.append(f"Only {side.name} has the {word}: {', '.join(map(str, alone))}.")
        more = len(set(side.rows["sample_id"]) - set(other.rows["sample_id"]))
        if more:
            said.append(f"{more} image(s) are in {side.name} alone.")
    return said
