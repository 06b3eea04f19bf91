"""Trackers in place of the real ones: one that keeps what it is told, one that has no network."""

from collections.abc import Mapping

import pytest

from robustbench_twicing.report import trackers
from robustbench_twicing.report.page import Page
from robustbench_twicing.report.tracker_sessions import Tracker


class KeptSession:
    """What was said to a tracker that keeps it."""

    def __init__(self, name: str, parameters: Mapping[str, str], where: str) -> None:
        self.name, self.parameters, self.where = name, parameters, f"there {where}"
        self.said: dict[int, Mapping[str, float]] = {}
        self.pages: list[Page] = []
        self.whole: bool | None = None

    def figures(self, figures: Mapping[str, float], step: int = 0) -> None:
        if "train/loss" in figures and figures["train/loss"] < 0:
            raise ConnectionError("gone")
        self.said[step] = figures

    def page(self, page: Page) -> None:
        self.pages.append(page)

    def end(self, whole: bool = True) -> None:
        self.whole = whole


def fake_trackers(monkeypatch: pytest.MonkeyPatch) -> list[KeptSession]:
    """`kept` and `broken`, and what the first is told."""
    kept: list[KeptSession] = []

    def keeps(name: str, parameters: Mapping[str, str], where: str) -> KeptSession:
        kept.append(KeptSession(name, parameters, where))
        return kept[-1]

    def fails(name: str, parameters: Mapping[str, str], where: str) -> KeptSession:
        raise ConnectionError("no\nnetwork")

    monkeypatch.setattr(trackers, "TRACKERS", {"kept": Tracker("json", keeps), "broken": Tracker("json", fails)})
    return kept
