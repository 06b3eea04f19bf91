"""Shards on their way: who has which, what came back, and what becomes of those that did not."""

import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from robustbench_twicing.errors import LeftUndoneError, UserError
from robustbench_twicing.results.manifest import Shard
from robustbench_twicing.results.used import MeansUsed
from robustbench_twicing.runner.executors.executor import Finished
from robustbench_twicing.runner.executors.loads import Load, Piece
from robustbench_twicing.spec.plan import Cell
from robustbench_twicing.tasks.task import Progress, evaluations_of

TRIES = 3
"""A shard that fails so often is left undone."""
DEATHS = 8
"""A shard during which a worker dies so often is left undone: one death says little about the shard."""
_AHEAD = 2
"""Loads that a worker has at a time, one of them at work, so that it never waits for the driver."""
_SLOW, _SLOW_SECONDS = 4.0, 30.0
"""A shard that takes so many times as long as its cost says, and so many seconds, is given to an idle worker too."""
_NOBODY_SECONDS = 300.0
"""With no worker left for so long, the run stops."""
_AGAIN_SECONDS = 2.0


@dataclass(eq=False)
class _Given:
    """A load that a worker has."""

    worker: "_Worker"
    left: list[Piece]
    """In the order in which they come back; the first one is at work if the load is."""


@dataclass(eq=False)
class _Worker:
    actor: Any
    given: dict[Any, _Given] = field(default_factory=dict)
    """By the stream that its results come out of, oldest first."""
    since: float = 0.0
    """When the shard at work was begun."""
    there: bool = True
    """Not dead, or started anew."""


class Flight:
    """All loads of one run, from the first that is given to the last that is back."""

    def __init__(self, ray: Any, workers: Sequence[Any], job: list[Any], known: MeansUsed, loads: list[Load]) -> None:
        self._ray = ray
        self._job = job
        self._known = known
        self._queue = deque(loads)
        self._workers = [_Worker(actor) for actor in workers]
        self._undone = {piece.shard: piece for load in loads for piece in load.pieces}
        self._calls: dict[Any, _Worker] = {}
        """Questions to workers that died, answered when they are there again."""
        self._failed: Counter[Shard] = Counter()
        self._died: Counter[Shard] = Counter()
        self._doubled: set[Shard] = set()
        self._pace: deque[float] = deque(maxlen=100)
        """Seconds for each unit of cost."""
        self._left: dict[Shard, str] = {}
        """Shards that are left undone, and why."""
        self._seen = time.monotonic()

    def finished(self, cells: Sequence[Cell], progress: Progress) -> Iterator[Finished]:
        """Every shard once, as it comes. Raises `LeftUndoneError` after the last one if some cannot be computed."""
        while self._undone:
            self._give()
            streams = [stream for worker in self._workers for stream in worker.given]
            ready, _ = self._ray.wait([*streams, *self._calls], num_returns=1, timeout=1.0)
            for reference in ready:
                if reference in self._calls:
                    self._answered(reference)
                    continue
                worker = next((one for one in self._workers if reference in one.given), None)
                result = self._next(worker, reference) if worker else None
                if result is None:
                    continue
                place, shard, name, content = result
                if self._undone.pop(shard, None) is not None:  # else another worker was faster
                    cell = cells[place]
                    progress.advance(cell, evaluations_of(cell, shard.stop - shard.start))
                    yield Finished(cell, shard, name, content)
            self._stop_without_workers()
        if self._left:
            named = "".join(f"\n  {s.cell}, samples {s.start} to {s.stop - 1}: {why}" for s, why in self._left.items())
            raise LeftUndoneError(
                f"{len(self._left)} shard(s) could not be computed:{named}",
                "All others are finished and kept. The same command again tries these once more.",
            )

    # --- giving

    def _give(self) -> None:
        """Loads for who has too few, the dearest first; near the end one for each: none waits behind another."""
        for worker in self._workers:
            while worker.there and self._queue:
                ahead = _AHEAD if len(self._queue) > len(self._workers) else 1
                if len(worker.given) >= ahead:
                    break
                self._send(worker, list(self._queue.popleft().pieces))
        for worker in self._workers:
            if worker.there and not worker.given and not self._queue and (slow := self._slow_one()) is not None:
                self._doubled.add(slow.shard)
                self._send(worker, [slow])

    def _send(self, worker: _Worker, pieces: list[Piece]) -> None:
        pieces = [piece for piece in pieces if piece.shard in self._undone]
        if not pieces:
            return
        asked = [(piece.place, piece.shard) for piece in pieces]
        stream = worker.actor.finished.options(num_returns="streaming").remote(self._job, self._known, asked)
        if not worker.given:
            worker.since = time.monotonic()
        worker.given[stream] = _Given(worker, pieces)

    def _slow_one(self) -> Piece | None:
        """What a worker has that takes far too long for its shard at work: that shard, or one that waits behind it."""
        if not self._pace:
            return None
        now, pace = time.monotonic(), median(self._pace)
        for worker in self._workers:
            pieces = [p for given in worker.given.values() for p in given.left if p.shard in self._undone]
            if pieces and now - worker.since > max(_SLOW_SECONDS, _SLOW * pace * pieces[0].cost):
                single = [piece for piece in pieces if piece.shard not in self._doubled]
                if single:
                    return single[0]
        return None

    # --- what comes back

    def _next(self, worker: _Worker, stream: Any) -> tuple[int, Shard, str, bytes] | None:
        """The next shard out of a stream; None if it ended or broke."""
        given = worker.given[stream]
        try:
            result: tuple[int, Shard, str, bytes] = self._ray.get(next(stream))
        except StopIteration:
            del worker.given[stream]
            self._blame(given, self._failed, TRIES, "its worker handed nothing out for it")  # which none of ours does
            return None
        except self._ray.exceptions.RayTaskError as error:
            del worker.given[stream]
            worker.since = time.monotonic()
            self._blame(given, self._failed, TRIES, _first_line(error.cause or error))
            return None
        except self._ray.exceptions.RayError as error:  # it died, its machine is gone, or nobody can reach it
            self._lost(worker, error)
            return None
        shard = result[1]
        now = time.monotonic()
        piece = next((piece for piece in given.left if piece.shard == shard), None)
        if piece is not None:
            given.left.remove(piece)
            self._pace.append((now - worker.since) / max(piece.cost, 1.0))
        worker.since = self._seen = now
        return result

    def _lost(self, worker: _Worker, error: Exception) -> None:
        """Take back what a dead worker had. Only the shard that it was at may be to blame."""
        given, worker.given, worker.there = list(worker.given.values()), {}, False
        if given:
            self._blame(given[0], self._died, DEATHS, f"its worker died {DEATHS} times; at last: {_first_line(error)}")
        for waiting in given[1:]:
            self._again(waiting.left)
        self._ask(worker)

    def _ask(self, worker: _Worker) -> None:
        self._calls[worker.actor.introduce.remote()] = worker

    def _answered(self, reference: Any) -> None:
        """A worker that died is there again, or is not."""
        worker = self._calls.pop(reference)
        try:
            self._ray.get(reference)
        except self._ray.exceptions.ActorDiedError:  # for good
            self._workers.remove(worker)
        except self._ray.exceptions.RayError:
            time.sleep(_AGAIN_SECONDS)
            self._ask(worker)
        else:
            worker.there, self._seen = True, time.monotonic()

    def _blame(self, given: _Given, counted: Counter[Shard], most: int, why: str) -> None:
        """One more failure of the shard at work; the others of its load go on without it."""
        pieces = [piece for piece in given.left if piece.shard in self._undone]
        if not pieces:
            return
        first, rest = pieces[0], pieces[1:]
        counted[first.shard] += 1
        if counted[first.shard] >= most:
            self._left[first.shard] = why
            del self._undone[first.shard]
        self._again(rest)
        self._again([first])

    def _again(self, pieces: Sequence[Piece]) -> None:
        """To be given to whoever is free, but for what is done, left undone or elsewhere by now."""
        elsewhere = {p.shard for worker in self._workers for given in worker.given.values() for p in given.left}
        some = tuple(p for p in pieces if p.shard in self._undone and p.shard not in elsewhere)
        if some:
            self._queue.append(Load(some))

    def _stop_without_workers(self) -> None:
        if any(worker.there for worker in self._workers):
            self._seen = max(self._seen, time.monotonic() - _NOBODY_SECONDS / 2)
        elif not self._workers or time.monotonic() - self._seen > _NOBODY_SECONDS:
            raise UserError(
                "No worker is left in the cluster.",
                "What is finished is kept. Look at `ray status`; the same command continues when machines are back.",
            )


def _first_line(error: BaseException) -> str:
    kind = type(error).__name__
    line = next((line for line in str(error).strip().splitlines() if line.strip()), "")
    return line if isinstance(error, UserError) else f"{kind}: {line}"
