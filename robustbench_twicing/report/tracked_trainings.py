"""Trainings in trackers: loss and speed epoch by epoch while they go on, and the test accuracy at the end."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from robustbench_twicing.metrics.intervals import wilson_interval
from robustbench_twicing.report.tracker_sessions import Session
from robustbench_twicing.report.trackers import Asked, why
from robustbench_twicing.spec.training import TrainingRecipe


class TrackedTrainings:
    """Each training is a run of each tracker. What a tracker does ends no training: it is said once, and left."""

    def __init__(
        self, to: Sequence[Asked], data: str, recipe: TrainingRecipe, failed: Callable[[str, str], None]
    ) -> None:
        self._to = list(to)
        self._about = {"data": data, "recipe": f"{recipe.name} {recipe.hash}", **dict(_settings(recipe.content))}
        self._failed = failed
        self._sessions: dict[tuple[str, int], list[tuple[Asked, Session]]] = {}
        self.logged: list[tuple[str, str]] = []
        """Names of trackers, and where a training is to be looked for in them."""

    def epoch(self, model: str, seed: int, epoch: int, loss: float, images_per_second: float) -> None:
        """A whole epoch of a training is done."""
        self._figures(model, seed, {"train/loss": loss, "train/images_per_second": images_per_second}, epoch)

    def ended(self, model: str, seed: int, epochs: int, right: int, of: int, seconds: float, loss: float) -> None:
        """A training is whole: `right` of so many answers of the test were."""
        low, high = wilson_interval(right, of)
        figures = {"test/accuracy": right / of, "test/ci_low": low, "test/ci_high": high, "test/n": float(of)}
        last = {"train/loss": loss, "train/seconds": seconds}
        self._figures(model, seed, {**figures, **last}, epochs)
        for one, session in self._sessions.pop((model, seed), []):
            if self._tried(one, session.end):
                self.logged.append((one.name, session.where))

    def interrupted(self) -> None:
        """What is not whole by now is not going to be, in this process."""
        for sessions in self._sessions.values():
            for one, session in sessions:
                self._tried(one, partial(session.end, whole=False))
        self._sessions.clear()

    def _figures(self, model: str, seed: int, figures: Mapping[str, float], epoch: int) -> None:
        if (model, seed) not in self._sessions:
            self._sessions[model, seed] = []
            for one in list(self._to):
                self._tried(one, partial(self._begin, one, model, seed))
        for one, session in list(self._sessions[model, seed]):
            if not self._tried(one, partial(session.figures, figures, epoch)):
                self._sessions[model, seed].remove((one, session))

    def _begin(self, one: Asked, model: str, seed: int) -> None:
        about = {"model": model, "seed": str(seed), **self._about}
        self._sessions[model, seed].append((one, one.begin(f"{model}-{about['data']}-seed{seed}", about)))

    def _tried(self, one: Asked, step: Callable[[], None]) -> bool:
        if one not in self._to:
            return False
        try:
            step()
        except Exception as error:  # noqa: BLE001 - of three libraries and whatever lies behind them
            self._to.remove(one)
            self._failed(one.name, why(error))
            return False
        return True


def _settings(content: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """The recipe's settings as texts: `optimizer.learning_rate`."""
    for name, value in content.items():
        if isinstance(value, Mapping):
            yield from _settings(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", str(value)
