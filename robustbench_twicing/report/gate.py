"""The page of a gate: the verdict, and every cell with its reason."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from robustbench_twicing.report.baseline import baseline_line
from robustbench_twicing.report.marks import Tone
from robustbench_twicing.report.notes import ELSEWHERE
from robustbench_twicing.report.page import Column, Judged, Line, Page, Row, Table
from robustbench_twicing.results.baselines import Acceptance
from robustbench_twicing.results.changes import Change
from robustbench_twicing.results.gate import GateResult
from robustbench_twicing.results.gate_cells import Answers, CellResult, TextAnswers, Verdict

_TONES: Mapping[str, Tone] = {"pass": "good", "regressed": "bad", "inconclusive": "warning"}
_ORDER: tuple[Verdict, ...] = ("regressed", "inconclusive", "pass")
_Outcome = Literal["passed", "failed", "unclear"]
_OUTCOMES: Mapping[Verdict, _Outcome] = {
    "pass": "passed",
    "regressed": "failed",
    "inconclusive": "unclear",
}

_FIRST = (Column("model", "model"), Column("threat", "threat"), Column("verdict", "verdict", tones=_TONES))
_REASON = Column("reason", "reason", "prose")
_OF_IMAGES = (
    Column("baseline_accuracy", "before %", "percent", "spare"),  # the reason says what changed
    Column("accuracy", "now %", "percent", "spare"),
    Column("difference", "difference", "points", "spare"),
)
_OF_TEXT = (
    Column("baseline_bits", "before", "decimal3", "spare"),
    Column("bits", "bits/byte", "decimal3", "spare"),
    Column("difference", "difference", "signed decimal4", "spare"),
)


@dataclass(frozen=True)
class Sides:
    """What was judged against what."""

    run: str
    """Folder of the run."""
    baseline: str
    """Folder of the baseline."""
    accepted: Acceptance
    """Who took the baseline for right."""


def gate_page(result: GateResult, sides: Sides) -> Page:
    """The verdict, with every cell and its reason, the worst first."""
    cells = sorted(result.cells, key=lambda cell: _ORDER.index(cell.verdict))
    loud, quiet = ([cell for cell in cells if (cell.verdict == "pass") is good] for good in (False, True))
    parts: list[Line | Table] = [
        *(Line(line, "warning" if result.changes else "note") for line in _changed(result.changes)),
        *(Line(f"Of {side}: {ELSEWHERE}", "warning") for side in result.elsewhere),
        Line(f"Run {sides.run}.", "note", unbroken=True),
        Line(baseline_line(sides.accepted), "note"),
        _table("not_passed", "Against the baseline, on the same samples", loud),
        _table("passed", f"{len(quiet)} cell(s) passed", quiet, aside=True),
        *(Line(line, "warning") for line in _strangers(result)),
    ]
    return Page(
        f"Robustness of {sides.run}",
        tuple(parts),
        headline=Line(headline(result), _TONES[result.verdict]),
        facts=_facts(result, sides),
        judged=_judged(result, cells),
    )


_KINDS: Mapping[str, str] = {"version": "versions", "weights": "weights of", "data": "data under"}


def _changed(found: Sequence[Change]) -> list[str]:
    """What changed since the baseline, a line for each kind of thing; one that says so if nothing did."""
    if not found:
        return ["Nothing but the numbers changed since the baseline: same code, versions, device, weights and data."]
    kinds: dict[str, list[str]] = {}
    for change in found:
        kinds.setdefault(change.kind, []).append(f"{change.name} {change.before} → {change.now}".strip())
    return [f"Changed since the baseline: {_KINDS.get(kind, kind)} {', '.join(some)}." for kind, some in kinds.items()]


def headline(result: GateResult) -> str:
    """One line: the verdict and how many cells stand behind it, and why it counts as regressed if it does."""
    counts = {verdict: sum(cell.verdict == verdict for cell in result.cells) for verdict in _ORDER}
    parts = [f"{count} {'passed' if verdict == 'pass' else verdict}" for verdict, count in counts.items() if count]
    parts += [f"{len(names)} {what}" for what, names in (("new", result.new), ("vanished", result.vanished)) if names]
    return f"{result.verdict.upper()}: {', '.join(parts)}{_in_a_row(result)}"


def _in_a_row(result: GateResult) -> str:
    nights = f"; inconclusive {result.nights} nights in a row" if result.nights > 1 else ""
    if not result.escalated:
        return nights
    return f"{nights or '; the gate fails on inconclusive'}: it exits as regressed does"


def _table(key: str, title: str, cells: Sequence[CellResult], aside: bool = False) -> Table:
    measured = _OF_TEXT if any(isinstance(cell.answers, TextAnswers) for cell in cells) else _OF_IMAGES
    rows = tuple(_row(cell, [column.key for column in measured]) for cell in cells)
    return Table(key, title, (*_FIRST, *measured, _REASON), rows, aside=aside)


def _row(cell: CellResult, measured: Sequence[str]) -> Row:
    return {
        "model": cell.model,
        "threat": cell.threat,
        "verdict": cell.verdict,
        **{name: getattr(cell.answers, name) if cell.answers else None for name in measured},
        "reason": cell.reason,
    }


def _strangers(result: GateResult) -> list[str]:
    lines = []
    if result.vanished:
        lines.append("Vanished, in the baseline but not in this run: " + ", ".join(result.vanished))
    if result.new:
        lines.append("New, not in the baseline, so that only floors count: " + ", ".join(result.new))
        if result.policy.new == "inconclusive":
            lines.append('Nobody accepted them: accept a run with them, or let them pass by new = "pass" in [gate].')
    return lines


def _judged(result: GateResult, cells: Sequence[CellResult]) -> tuple[Judged, ...]:
    outcomes: Mapping[Verdict, _Outcome] = {**_OUTCOMES, "inconclusive": "failed"} if result.escalated else _OUTCOMES
    gone = "vanished: the baseline has this cell, the run has not"
    vanished = (name.partition(":") for name in result.vanished)
    return (
        *(Judged(cell.model, cell.threat, cell.verdict, outcomes[cell.verdict], cell.reason) for cell in cells),
        *(Judged(model, threat, "inconclusive", outcomes["inconclusive"], gone) for model, _, threat in vanished),
    )


def _facts(result: GateResult, sides: Sides) -> Row:
    return {
        "run": sides.run,
        "baseline": sides.baseline,
        "accepted": sides.accepted,
        "verdict": result.verdict,
        "exit_code": result.exit_code,
        "inconclusive_nights": result.nights,
        "changes": [change._asdict() for change in result.changes],
        "policy": result.policy,
        "cells": [
            {
                **{name: getattr(cell, name) for name in ("model", "threat", "verdict", "reason")},
                **(_answers(cell.answers) if cell.answers else {}),
                **({} if cell.p_regressed is None else {"p_regressed": cell.p_regressed}),
            }
            for cell in result.cells
        ],
        "new": result.new,
        "vanished": result.vanished,
    }


def _answers(answers: Answers | TextAnswers) -> Row:
    if isinstance(answers, TextAnswers):
        names = ("n", "baseline_bits", "bits", "difference", "interval", "seeds")
        return {**{name: getattr(answers, name) for name in names}, "p_pass": answers.p_ruled_out}
    flips, arms = answers.flips, answers.arms
    return {
        **{name: getattr(answers, name) for name in ("n", "baseline_accuracy", "accuracy", "difference", "interval")},
        **({"lost": flips.lost, "gained": flips.gained} if flips else {}),
        **({"seeds": answers.seeds, "seed_share": arms.seed_share} if arms else {}),
        "p_pass": answers.p_ruled_out,
    }
