"""Pictures that a run kept (`--keep-images`), beside what every model answered on the same sample. No torch."""

from collections.abc import Callable, Iterator
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Float

from robustbench_twicing.results.cells import answered
from robustbench_twicing.results.manifest import CellEntry
from robustbench_twicing.results.run import Run
from robustbench_twicing.results.store import ARRAYS, IMAGES

Picture = Float[np.ndarray, "height width channels"]
"""RGB, in [0, 1] but where a threat leaves that range."""


class Kept(NamedTuple):
    """One sample under one threat."""

    threat: str
    sample: str
    label: int
    seen_by: str
    """The model that the threat was carried out on; others answered on an image of their own."""
    clean: Picture
    image: Picture
    changed: bool
    """The threat is a change of this very photograph, and no other photograph."""
    answers: tuple[tuple[str, int | None, bool], ...]
    """Of each model: its name, its prediction (None: it was not evaluated on the sample, or failed), whether right."""


def kept_pictures(run: Run, most: int, wanted: Callable[[Kept], bool] = lambda _: True) -> list[Kept]:
    """At most so many of each threat, those of the models in turn; none for files that are lost or damaged."""
    found: list[Kept] = []
    for threat in (threat for threat in run.manifest.plan.threats if threat.kind != "clean"):
        entries = [entry for entry in run.manifest.cells if entry.threat == threat.id]
        by_model = [[one for one in _of_cell(run, entry) if wanted(one)] for entry in entries]
        turns = max(map(len, by_model), default=0)
        in_turn = [mine[turn] for turn in range(turns) for mine in by_model if turn < len(mine)]
        once = {one.sample: one for one in reversed(in_turn)}
        found += [one for one in in_turn if once[one.sample] is one][:most]
    return found


def _of_cell(run: Run, entry: CellEntry) -> Iterator[Kept]:
    try:
        # A file of ours: numpy leaves one open that turns out to be no archive.
        with (run.path / IMAGES / entry.folder / ARRAYS).open("rb") as file, np.load(file) as arrays:
            held = {name: arrays[name] for name in ("images", "clean", "ids", "labels", "space", "mean", "std")}
    except (OSError, ValueError, KeyError, BadZipFile):
        return
    images = held["images"].astype(np.float64)
    if str(held["space"]) == "normalized":
        images = images * held["std"].reshape(1, -1, 1, 1) + held["mean"].reshape(1, -1, 1, 1)
    kind = next(threat.kind for threat in run.manifest.plan.threats if threat.id == entry.threat)
    for image, clean, sample, label in zip(images, held["clean"], held["ids"], held["labels"], strict=True):
        yield Kept(
            threat=entry.threat,
            sample=str(sample),
            label=int(label),
            seen_by=entry.model,
            clean=clean.transpose(1, 2, 0).astype(np.float64),
            image=image.transpose(1, 2, 0),
            changed=kind in ("attack", "corruption"),
            answers=tuple(_answer(run, model, entry.threat, str(sample)) for model in run.models),
        )


def _answer(run: Run, model: str, threat: str, sample: str) -> tuple[str, int | None, bool]:
    rows = run.cells.get((model, threat))
    here = None if rows is None else answered(rows[rows["sample_id"] == sample])
    if here is None or here.empty:
        return model, None, False
    return model, int(here["prediction"].iloc[0]), bool(here["correct"].iloc[0])
