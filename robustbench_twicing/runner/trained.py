"""The arms that a plan file names, trained before the plan is carried out."""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

from robustbench_twicing.catalog.arms_to_train import ArmsToTrain
from robustbench_twicing.errors import UserError
from robustbench_twicing.machine.device import choose_device
from robustbench_twicing.results.store import require_writable
from robustbench_twicing.spec.means import Means
from robustbench_twicing.train.digits import DigitsData
from robustbench_twicing.train.dry_run import Estimate, estimated
from robustbench_twicing.train.in_turn import Begun, job_of, train_in_turn
from robustbench_twicing.train.job import Equipment
from robustbench_twicing.train.loop import Outcome, Progress
from robustbench_twicing.train.named_data import IN_MEMORY, named_data
from robustbench_twicing.train.several import Training, train_several
from robustbench_twicing.train.weights import is_trained


class Watching(NamedTuple):
    """Who is told of the trainings."""

    left: Callable[[int, int], None]
    """Before the first: how many there are to do, and how many in all."""
    going: Callable[[Begun, Progress], None]
    """After every update, where they are trained one after another."""
    done: Callable[[str, int, int, Outcome], None]
    """Model, seed, number of test images and outcome of one that is done."""


def train_arms(arms: ArmsToTrain, means: Means, watching: Watching | None = None) -> None:
    """Train what is not trained yet, going on where it was interrupted.

    Raises `UserError`, before the first begins, if weights that are there were made by another training.
    """
    begun = begun_of(arms, means)
    left = [one for one in begun if not is_trained(one.path, one.job)]
    if not left:
        return
    if watching:
        watching.left(len(left), len(begun))
    require_writable(left[0].path.parent)
    equipment = _equipment(means)
    side_by_side = len(left) > 1 and isinstance(left[0].job.data, DigitsData)
    if side_by_side and equipment.device.type == "cpu" and arms.start is None:
        several = [Training(one.job.spec.name, one.job.seed, one.path, arms.recipe) for one in left]
        for training, outcome in train_several(several, os.cpu_count() or 1):
            if watching:
                watching.done(training.model, training.seed, left[0].job.data.test_images, outcome)
        return
    for one, outcome in train_in_turn(left, equipment, progress=watching.going if watching else None):
        if watching:
            watching.done(one.job.spec.name, one.job.seed, one.job.data.test_images, outcome)


def begun_of(arms: ArmsToTrain, means: Means) -> list[Begun]:
    """All trainings of the arms, done or not. Raises `UserError`, also where the images are not found."""
    data = _data(arms, means)
    return [
        Begun(job_of(name, data, arms.recipe, seed, arms.start), path) for (name, seed), path in arms.weights.items()
    ]


def arms_estimated(arms: ArmsToTrain, means: Means) -> dict[str, tuple[int, Estimate]]:
    """Of each model that is not trained in all seeds: how many are left, and a probe of one of them."""
    found: dict[str, tuple[int, Estimate]] = {}
    left = [one for one in begun_of(arms, means) if not is_trained(one.path, one.job)]
    for one in left:
        name = one.job.spec.name
        seeds = sum(other.job.spec.name == name for other in left)
        if name not in found:
            found[name] = seeds, estimated(one.job, _equipment(means))
    return found


def _data(arms: ArmsToTrain, means: Means) -> Any:
    if arms.data in IN_MEMORY:
        return named_data(arms.data, None)
    directory = arms.directory or means.directories.get(arms.data)
    if directory is None:
        raise UserError(
            f"Where do the images of {arms.data!r} to train on lie?",
            "Write directory in [train], or the data set's place in [directories].",
        )
    return named_data(arms.data, directory)


def _equipment(means: Means) -> Equipment:
    return Equipment.usual(choose_device(means.device))
