"""Whether a sample that was done again agrees with its record, on a machine that adds in another order."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch

from robustbench_twicing.engine.contract import Queries
from robustbench_twicing.spec.plan import Cell
from robustbench_twicing.spec.threats import Threat
from robustbench_twicing.tasks.images.block import Redone
from robustbench_twicing.tasks.task import Disagreement

FORWARD, ATTACKED = 1e-3, 2e-2
"""How far two machines' logits may lie apart, as a part of the largest logit or of 1: of one evaluation, and after all
steps of an attack, where a gradient near 0 has one sign here and the other there."""

_ANSWERS = ("prediction", "correct", "correct_unmasked", "top5_correct", "correct_8bit")
_FLOATS = ("margin", "loss", "brier", "confidence")


def tolerance(threat: Threat) -> float:
    """`FORWARD` or `ATTACKED`."""
    return ATTACKED if threat.kind == "attack" else FORWARD


def compared(
    cell: Cell, recorded: pd.DataFrame, done: Redone | None, errors: Mapping[int, str]
) -> Iterator[tuple[Cell, int, tuple[Disagreement, ...]]]:
    """What comes out otherwise, sample by sample. `recorded` has the samples' places for its index.

    Answers must be equal; one that differs is near a tie if logits that are wrong by the tolerance allow both. Margin,
    loss, brier and confidence must be equal within the tolerance, but for attacks, where they hang on every rounding of
    every step. Whether a sample failed must be equal, why it did need not.
    """
    for place, why in errors.items():
        yield cell, place, _status(str(recorded.loc[place, "status"]), "failed", why)
    if done is None:
        return
    answers = _possible(done)
    for row, place in enumerate(done.positions):
        old, new = recorded.loc[place], done.table.iloc[row]
        found = list(_status(str(old["status"]), str(new["status"]), str(new["error"])))
        if not found and new["status"] == "ok":
            for column in _ANSWERS:
                if old[column] != new[column]:
                    near = answers.allow(row, column, old[column])
                    found.append(Disagreement(column, str(old[column]), str(new[column]), near))
            if cell.threat.kind != "attack":
                found += _floats(old, new, answers.slack[row])
        yield cell, place, tuple(found)


def _status(old: str, new: str, why: str) -> tuple[Disagreement, ...]:
    return () if old == new else (Disagreement("status", old, f"{new}: {why}" if why else new, near_a_tie=False),)


def _floats(old: Any, new: Any, slack: float) -> Iterator[Disagreement]:
    for column in _FLOATS:
        if not abs(old[column] - new[column]) <= 2 * slack:
            yield Disagreement(column, f"{old[column]:.6g}", f"{new[column]:.6g}", near_a_tie=False)


class _Possible:
    """Which answers logits give that are wrong by `slack` at most, a row for each sample."""

    def __init__(self, done: Redone, logits: np.ndarray, rounded: np.ndarray, clean: np.ndarray | None) -> None:
        self.right = done.samples.right.cpu().numpy()
        self.scored = np.zeros(logits.shape[1], dtype=bool)
        self.scored[list(range(logits.shape[1]) if done.samples.scored is None else done.samples.scored)] = True
        self.slack = tolerance(done.cell.threat) * np.maximum(1.0, np.abs(logits).max(1))
        self.logits, self.rounded, self.clean = logits, rounded, clean

    def allow(self, row: int, column: str, value: Any) -> bool:
        """Whether a record may say this."""
        if self.clean is not None and len(set(self.right[row][self._leads(self.clean, row)])) > 1:
            return True  # whether it was attacked at all hangs on the last digits
        if column == "prediction":
            return value in self._leads(self.logits, row)
        if column == "top5_correct":
            return self._top5(row, bool(value))
        logits = self.rounded if column == "correct_8bit" else self.logits
        leads = self._leads(logits, row, masked=column != "correct_unmasked")
        return bool(value) in self.right[row][leads]

    def _leads(self, logits: np.ndarray, row: int, masked: bool = True) -> np.ndarray:
        """The classes that may be the answer."""
        values = np.where(self.scored, logits[row], -np.inf) if masked else logits[row]
        return np.flatnonzero(values >= values.max() - 2 * self.slack[row])

    def _top5(self, row: int, value: bool) -> bool:
        values = np.where(self.scored, self.logits[row], -np.inf)
        ranked, best = np.sort(values)[::-1], values[self.right[row]].max()
        if value:
            return bool(best >= ranked[min(5, len(ranked)) - 1] - 2 * self.slack[row])
        return len(ranked) > 5 and bool(best <= ranked[5] + 2 * self.slack[row])


def _possible(done: Redone) -> _Possible:
    threat, model = done.cell.threat, done.model
    device = done.samples.labels.device
    attacked = threat.kind == "attack"
    space = threat.rules.space if threat.kind == "attack" else "pixel"

    def logits(images: torch.Tensor, of: torch.nn.Module) -> np.ndarray:
        return Queries(of, model.batch_size)(images.to(device)).double().cpu().numpy()

    judged = logits(done.images, model.in_space(space))
    rounded = logits((done.images * 255).round() / 255, model) if attacked and space == "pixel" else judged
    return _Possible(done, judged, rounded, logits(done.clean, model) if attacked else None)
