"""The gate of a text: whether bits per byte rose by more than the tolerance, on the same documents. No torch."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from robustbench_twicing.errors import UserError
from robustbench_twicing.metrics.perplexity import arms_rise, bits_per_byte, paired_rise
from robustbench_twicing.results.gate_cells import Cell, CellResult, Frames, Measure, TextAnswers, judge
from robustbench_twicing.results.scored_text import sums, targets_of
from robustbench_twicing.spec.policy import Policy

_ALIKE = {
    "data_fingerprint": "another text",
    "protocol_hash": "another window rule or corruption",
    "seed": "another seed",
    "tokenizer": "another tokenizer",
}


def judge_texts(cells: Sequence[Cell], policy: Policy) -> list[CellResult]:
    """The verdict on every cell, under a corruption both over all targets and over the untouched ones.

    Raises `UserError` for a floor, and for a cell that was not run alike on both sides.
    """
    if policy.floors:
        raise UserError("Floors are accuracies, and this is a text.", "Leave floors away; its tolerance is a rise.")
    return judge([one for cell in cells for one in _by_targets(cell)], policy, BITS)


def _by_targets(cell: Cell) -> Iterator[Cell]:
    """The cell, and of a corrupted text a second one over the untouched targets, which its threat's name then says."""
    yield cell
    if "untouched" not in targets_of(next(iter(cell.tonight.values()))):
        return
    baseline = None if cell.baseline is None else _untouched(cell.baseline)
    yield Cell(cell.model, f"{cell.threat} untouched", _untouched(cell.tonight), baseline, cell.is_arm)


def _untouched(frames: Frames) -> Frames:
    return {name: rows.assign(**sums(rows, "untouched")) for name, rows in frames.items()}


def _answers(cell: Cell, policy: Policy) -> TextAnswers | None:
    """None where the sides share less than two documents."""
    shared = cell.answered & cell.answered_before
    if cell.baseline is None or len(shared) < 2:
        return None
    before, now = (_matched(frames, shared) for frames in (cell.baseline, cell.tonight))
    _refuse_other(before[0], now[0])
    tolerance, level = policy.tolerance_for(*cell.key), 1 - policy.alpha
    bits = [[bits_per_byte(*_nats(rows)) for rows in side] for side in (before, now)]
    if cell.is_arm:
        rise = arms_rise(bits[0], bits[1], tolerance, level)
    else:
        (nats, size), (tonight, _) = _nats(before[0]), _nats(now[0])
        rise = paired_rise(nats, tonight, size, tolerance, level)
    return TextAnswers(
        n=len(shared),
        baseline_bits=float(np.mean(bits[0])),
        bits=float(np.mean(bits[1])),
        interval=rise.interval,
        p_exceeded=rise.p_exceeded,
        p_ruled_out=rise.p_ruled_out,
        seeds=(len(before), len(now)),
    )


def _matched(frames: Frames, shared: set[str]) -> list[pd.DataFrame]:
    return [rows[rows["sample_id"].isin(shared)].sort_values("sample_id") for rows in frames.values()]


def _nats(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    parts = sums(rows, "all")
    return parts["nats"], parts["size"]


def _refuse_other(before: pd.DataFrame, now: pd.DataFrame) -> None:
    for column, what in _ALIKE.items():
        if before[column].iloc[0] != now[column].iloc[0]:
            raise UserError(f"{what}: {before[column].iloc[0]} in the baseline, {now[column].iloc[0]} in the run.")
    if not np.array_equal(before["size"], now["size"]):
        raise UserError("another number of bytes was scored.")


def _no_floor(cell: Cell, policy: Policy) -> None:
    return None


def _change(answers: TextAnswers) -> str:
    before, now = answers.seeds
    of = f"{answers.n} documents" if answers.seeds == (1, 1) else f"{before} and {now} seeds, {answers.n} documents"
    return f"{answers.difference:+.4f} bits per byte ({answers.baseline_bits:.3f} to {answers.bits:.3f}; {of})"


def _amount(rise: float) -> str:
    return f"{rise:g} bits per byte"


def _advice(answers: TextAnswers, tolerance: float, policy: Policy) -> str:
    if answers.seeds != (1, 1) or not math.isfinite(answers.interval.low):
        return ""
    half = (answers.interval.high - answers.interval.low) / 2
    needed = math.ceil(answers.n * (half / tolerance) ** 2)
    return f"; if nothing rose, about {needed:,} documents would show it" if needed > answers.n else ""


BITS = Measure(_answers, _no_floor, _change, _amount, "rise", _advice)
"""Bits per byte of documents."""
