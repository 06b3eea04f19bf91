"""Pictures that a run kept: clean, perturbed, the difference magnified, and what every model answered."""

from collections.abc import Iterator, Sequence

import numpy as np

from robustbench_twicing.report.numbers import points
from robustbench_twicing.report.page import Gallery, Line, Picture
from robustbench_twicing.results.arm_comparison import ArmComparisons
from robustbench_twicing.results.arm_slices import ArmSlice
from robustbench_twicing.results.comparison import Comparisons
from robustbench_twicing.results.kept import Kept, kept_pictures
from robustbench_twicing.results.run import Run
from robustbench_twicing.results.slices import Slice, asked_of

_OF_A_THREAT, _OF_ALL, _OF_A_SLICE = 3, 36, 12
_HOW = (
    "Kept by --keep-images, those first that the threat breaks. An attack makes an image of its own for every model: "
    "the one that is shown is for the model named below it, and each model's answer is the one on its own. Differences "
    "are magnified around grey, as often as is said."
)


def gallery_parts(runs: Sequence[Run], found: Comparisons | ArmComparisons | None = None) -> Iterator[Gallery | Line]:
    """A gallery of each run that kept images, and an image sheet of the largest slice in which its models differ."""
    for run in runs:
        kept = kept_pictures(run, _OF_A_THREAT)[:_OF_ALL]
        if not kept:
            continue
        of = f" of {run.path.name}" if len(runs) > 1 else ""
        yield Gallery(f"gallery{of}", f"Images{of}", tuple(map(_picture, kept)), _HOW)
        if len(runs) == 1 and found is not None:
            yield from _sheet(run, found)


def _sheet(run: Run, found: Comparisons | ArmComparisons) -> Iterator[Gallery]:
    """Of the slices by class or severity the one in which most answers differ."""
    every: Sequence[Slice | ArmSlice] = found.slices.found
    slices = [one for one in every if one.by != "margin"]
    largest = max(slices, key=lambda one: one.weight, default=None)
    if largest is None:
        return
    threats = {threat.id: threat for threat in run.manifest.plan.threats}

    def inside(kept: Kept) -> bool:
        threat = threats[kept.threat]
        severity = threat.severity if threat.kind == "corruption" else None
        value = str(kept.label if largest.by == "class" else severity)
        return asked_of(kept.threat, threat) == largest.of and value == largest.value

    kept = kept_pictures(run, _OF_A_SLICE, inside)[:_OF_A_SLICE]
    if kept:
        yield Gallery("largest slice", _slice(largest), tuple(map(_picture, kept)), _sides(largest))


def _slice(one: Slice | ArmSlice) -> str:
    return f"Images of the largest slice: {one.by} {one.value} under {one.of}"


def _sides(one: Slice | ArmSlice) -> str:
    if isinstance(one, Slice):
        by = f"of {one.images} images {one.lost} are lost and {one.gained} gained"
    else:
        by = f"{points(one.difference)} points on {one.images} images, as trained"
    return f"Where {one.candidate} is {one.verdict} than {one.baseline}: {by}; those that were kept are shown."


def _picture(kept: Kept) -> Picture:
    images = [("clean", _levels(kept.clean))] if kept.changed else []
    images.append((f"under {kept.threat}, for {kept.seen_by}", _levels(kept.image)))
    if kept.changed:
        change = kept.image - kept.clean
        most = float(np.abs(change).max())
        times = max(1, int(0.5 / most)) if most else 1
        images.append((f"difference × {times}", _levels(0.5 + times * change)))
    said = tuple(_said(*answer) for answer in kept.answers)
    return Picture(f"{kept.sample}, class {kept.label}, under {kept.threat}", tuple(images), said)


def _said(model: str, prediction: int | None, right: bool) -> str:
    if prediction is None:
        return f"{model}: no answer"
    return f"{model}: {prediction}, {'right' if right else 'wrong'}"


def _levels(image: np.ndarray) -> np.ndarray:
    levels: np.ndarray = (np.clip(image, 0, 1) * 255).round().astype(np.uint8)
    return levels
