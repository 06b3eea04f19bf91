"""What workers are given at a time: shards that share work together, the dearest first."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

from robustbench_twicing.results.manifest import Shard
from robustbench_twicing.runner.prepare import Ready
from robustbench_twicing.spec.plan import Cell
from robustbench_twicing.spec.threats import Threat
from robustbench_twicing.tasks.task import BLOCK, evaluations_of

_FOR_EACH_WORKER = 32
"""Loads at least, where shards are small enough: a worker that ends last lets the others wait for that part."""


class Piece(NamedTuple):
    """One shard, and what it costs."""

    place: int
    """Of its cell in the plan."""
    shard: Shard
    cost: float
    """Evaluations, times the parameters of the models that they are of: what counts is only their ratio."""


class Load(NamedTuple):
    """What one worker does in a row, in the order in which the task hands it out: pieces of one block."""

    pieces: tuple[Piece, ...]

    @property
    def cost(self) -> float:
        """Of all of them."""
        return sum(piece.cost for piece in self.pieces)


def loads_of(ready: Ready, pending: Mapping[Cell, Sequence[Shard]], workers: int) -> list[Load]:
    """All pending shards, each in one load; the dearest load first.

    Not taken apart: what only judges images that are read once (clean, files, corruptions), and attacks of one model
    of which one is a part of another, so that it is done once. Cells of other blocks are other loads.
    """
    plan, models = ready.plan, ready.opened.models_used()
    families = _families(plan.threats)
    members = Counter(families.values())
    data = {threat.id: ready.opened.data_used(threat).fingerprint for threat in plan.threats}
    sizes = {name: used.parameters for name, used in models.items()}
    order = {threat.id: number for number, threat in enumerate(plan.threats)}
    atoms: dict[tuple[str, int, int, str, int], list[Piece]] = {}
    for place, cell in enumerate(plan.cells):
        for shard in pending.get(cell, ()):
            cost = evaluations_of(cell, shard.stop - shard.start) * float(sum(sizes[name] for name in cell.models))
            block, family = shard.start // BLOCK, families[cell.threat.id]
            if cell.threat.kind != "attack":
                together: tuple[int, str, int] = (-1, "", 0)
            elif members[family] > 1:
                together = (family, cell.model.name, 0)
            else:
                together = (family, cell.model.name, shard.start)
            atoms.setdefault((data[cell.threat.id], block, *together), []).append(Piece(place, shard, cost))
    most = sum(piece.cost for atom in atoms.values() for piece in atom) / (_FOR_EACH_WORKER * workers)
    loads = []
    for _, same_block in groupby(sorted(atoms), key=lambda key: key[:2]):
        for pieces in _filled([atoms[key] for key in same_block], most):
            by_threat = sorted(pieces, key=lambda p: (order[plan.cells[p.place].threat.id], p.place, p.shard.start))
            loads.append(Load(tuple(by_threat)))
    return sorted(loads, key=lambda load: -load.cost)


def _filled(atoms: Sequence[list[Piece]], most: float) -> list[list[Piece]]:
    """Atoms one after the other as long as they cost no more than `most` together."""
    loads, cost = list[list[Piece]](), 0.0
    for atom in atoms:
        more = sum(piece.cost for piece in atom)
        if loads and cost + more <= most:
            loads[-1].extend(atom)
            cost += more
        else:
            loads.append(list(atom))
            cost = more
    return loads


def _families(threats: Sequence[Threat]) -> dict[str, int]:
    """For each threat a number: the same for attacks that have a part in common."""
    found: dict[str, int] = {}
    by_part: dict[str, int] = {}
    for number, threat in enumerate(threats):
        parts = [member.id for member in threat.members] if threat.kind == "attack" else [threat.id]
        met = {by_part[part] for part in parts if part in by_part}
        mine = min(met, default=number)
        for one, family in found.items():
            if family in met:
                found[one] = mine
        found[threat.id] = mine
        by_part |= dict.fromkeys(parts, mine)
        by_part = {part: mine if family in met else family for part, family in by_part.items()}
    return found
