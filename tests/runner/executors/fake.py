"""A cluster of this process alone: what the driver asks of Ray, and what Ray answers, without process or network."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any


class FakeRay:
    """`wait` and `get` as `runner.executors.flight` uses them; workers answer one stream after the other."""

    class RayError(Exception):
        pass

    class RayTaskError(RayError):
        cause: Exception | None = None

    class ActorDiedError(RayError):
        pass

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError, ActorDiedError=ActorDiedError)

    def wait(self, references: list[Any], num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        """Those that are ready, or one of which the end is."""
        ready = [one for one in references if not isinstance(one, Stream) or one.ready()]
        return ready[:num_returns], ready[num_returns:]

    def get(self, reference: Any) -> Any:
        """What lies behind a reference; raises what was raised there."""
        if isinstance(reference, Exception):
            raise reference
        return reference


class Stream:
    """What an actor's generator hands out."""

    def __init__(self, actor: "Actor", results: Iterator[Any]) -> None:
        self.actor, self._results = actor, results

    def ready(self) -> bool:
        """Whether its turn has come and its worker is not stuck."""
        return not self.actor.stuck and self.actor.streams[0] is self

    def __next__(self) -> Any:
        try:
            return next(self._results)
        except StopIteration:
            self.actor.streams.remove(self)
            raise


class Actor:
    """A worker whose shards end as `does` says: it returns the result, or an exception in its place."""

    def __init__(self, does: Callable[[int, Any], Any] = lambda place, shard: (place, shard, "file", b"")) -> None:
        self.does = does
        self.streams: list[Stream] = []
        self.stuck = False
        self.asked: list[Any] = []
        self.finished = SimpleNamespace(options=lambda **_: SimpleNamespace(remote=self._begin))
        self.introduce = SimpleNamespace(remote=object)

    def _begin(self, job: Any, known: Any, asked: list[Any]) -> Stream:
        self.asked += [shard for _, shard in asked]
        stream = Stream(self, self._results(asked))
        self.streams.append(stream)
        return stream

    def _results(self, asked: list[Any]) -> Iterator[Any]:
        for place, shard in asked:
            result = self.does(place, shard)
            if isinstance(result, Exception):  # nothing comes after it, and a worker that died has lost all it had
                del self.streams[: 1 if isinstance(result, FakeRay.RayTaskError) else None]
            yield result
