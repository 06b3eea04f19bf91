"""Every shard once, whatever happens to workers: the driver's part, without a cluster."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from robustbench_twicing.catalog.plans import read_plan
from robustbench_twicing.errors import LeftUndoneError, UserError
from robustbench_twicing.results.manifest import Shard
from robustbench_twicing.results.used import MeansUsed
from robustbench_twicing.runner.executors import flight
from robustbench_twicing.runner.executors.flight import DEATHS, TRIES, Flight
from robustbench_twicing.runner.executors.loads import Load, Piece
from robustbench_twicing.spec.plan import Cell
from robustbench_twicing.tasks.task import NOBODY
from tests.runner.executors.fake import Actor, FakeRay

SHARDS = [Shard("cell", start, start + 8) for start in range(0, 160, 8)]


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> list[Cell]:
    file = tmp_path_factory.mktemp("plan") / "p.toml"
    file.write_text('models = ["deit"]\n[[attacks]]\nnames = ["fgsm"]\n')
    return read_plan(file).plan.cells


def _loads(size: int = 3) -> list[Load]:
    pieces = [Piece(0, shard, 1.0) for shard in SHARDS]
    return [Load(tuple(pieces[start : start + size])) for start in range(0, len(pieces), size)]


def _failing(shard: Shard, error: Exception, times: int = 10**9) -> Callable[[int, Any], Any]:
    seen = Counter[Shard]()

    def does(place: int, asked: Shard) -> Any:
        seen[asked] += 1
        return error if asked == shard and seen[asked] <= times else (place, asked, "file", b"")

    return does


def _done(cells: list[Cell], workers: list[Actor], loads: list[Load] | None = None) -> list[Shard]:
    found = Flight(FakeRay(), workers, [None], MeansUsed(), loads or _loads())
    return [one.shard for one in found.finished(cells, NOBODY)]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_every_shard_comes_once(cells: list[Cell], count: int) -> None:
    assert sorted(_done(cells, [Actor() for _ in range(count)])) == SHARDS


def test_a_worker_has_two_loads_at_most(cells: list[Cell]) -> None:
    stuck, free = Actor(), Actor()
    stuck.stuck = True
    some = Flight(FakeRay(), [stuck, free], [None], MeansUsed(), _loads(1)).finished(cells, NOBODY)
    for _ in range(len(SHARDS) - 2):
        next(some)
    assert len(stuck.asked) == 2


def test_a_shard_that_always_fails_is_left_undone_with_its_error_and_the_rest_is_done(cells: list[Cell]) -> None:
    error = FakeRay.RayTaskError()
    error.cause = ValueError("no such\nthing")
    worker = Actor(_failing(SHARDS[4], error))
    found, got = Flight(FakeRay(), [worker], [None], MeansUsed(), _loads()), list[Shard]()
    with pytest.raises(LeftUndoneError, match=r"samples 32 to 39: ValueError: no such\n") as refusal:
        got.extend(one.shard for one in found.finished(cells, NOBODY))
    assert sorted(got) == [shard for shard in SHARDS if shard != SHARDS[4]]
    assert worker.asked.count(SHARDS[4]) == TRIES
    assert refusal.value.exit_code == 1


def test_a_death_is_blamed_on_the_shard_at_work_alone(cells: list[Cell]) -> None:
    dying = Actor(_failing(SHARDS[4], FakeRay.ActorDiedError("gone"), times=DEATHS - 1))
    assert sorted(_done(cells, [dying])) == SHARDS
    deadly = Actor(_failing(SHARDS[4], FakeRay.ActorDiedError("gone")))
    with pytest.raises(LeftUndoneError, match=r"1 shard.*\n.*samples 32 to 39: its worker died 8 times"):
        _done(cells, [deadly])


def test_what_a_slow_worker_has_is_given_to_idle_ones_and_counts_once(
    cells: list[Cell], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]

    def passing() -> float:
        now[0] += 1.0
        return now[0]

    monkeypatch.setattr(flight.time, "monotonic", passing)
    stuck, free = Actor(), Actor()
    stuck.stuck = True
    done = _done(cells, [stuck, free])
    assert sorted(done) == SHARDS
    assert set(stuck.asked) <= set(free.asked)


def test_a_cluster_without_workers_ends_the_run(cells: list[Cell]) -> None:
    gone = Actor(_failing(SHARDS[0], FakeRay.ActorDiedError("gone")))
    gone.introduce.remote = lambda: FakeRay.ActorDiedError("gone")
    with pytest.raises(UserError, match="No worker is left"):
        _done(cells, [gone])
