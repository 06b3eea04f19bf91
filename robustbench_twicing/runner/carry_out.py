"""What was said at a door, carried out: as the finished run, read again.

Nothing here needs torch before something is computed, and the caller's global state is as it was afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from robustbench_twicing.catalog.config import settings
from robustbench_twicing.catalog.in_python import Own
from robustbench_twicing.catalog.places import require_places
from robustbench_twicing.catalog.plans import read_plan
from robustbench_twicing.catalog.resolve import Stated
from robustbench_twicing.machine.surroundings import left_alone, plain_torch
from robustbench_twicing.results import history
from robustbench_twicing.results.of_plans import plan_folder
from robustbench_twicing.results.run import Run, load_finished
from robustbench_twicing.results.store import RunFolder
from robustbench_twicing.spec.means import Means
from robustbench_twicing.spec.plan import Cell

if TYPE_CHECKING:
    from robustbench_twicing.runner.estimate import Cost
    from robustbench_twicing.runner.trained import Watching
    from robustbench_twicing.tasks.task import Progress

Begin = Callable[[dict[Cell, tuple[int, int]]], "Progress"]
"""Who is told what is to be done, and follows it: see `runner.run.run_plan`."""


def carry_out(stated: Stated, begin: Begin | None = None, own: Mapping[str, Own] | None = None) -> Run:
    """Run what was stated at a door. `own` are models in memory, by the names of its models. Raises `UserError`."""
    own = own or {}
    require_places(stated.plan, stated.means)
    with left_alone():
        from robustbench_twicing.machine.device import choose_device
        from robustbench_twicing.models.callers import as_they_were
        from robustbench_twicing.models.intake import wrap_model
        from robustbench_twicing.runner.run import run_plan

        with plain_torch(), as_they_were(one.model for one in own.values()):
            where = choose_device(stated.means.device)
            wrapped = {
                name: wrap_model(name, one.model, one.image_size, where, one.version) for name, one in own.items()
            }
            specs = [wrapped[spec.name].card.spec if spec.name in wrapped else spec for spec in stated.plan.models]
            plan = stated.plan.model_copy(update={"models": tuple(specs)})
            return _finished(
                run_plan(plan, stated.means, models=wrapped, begin=begin, notes={"decided": stated.decided})
            )


def check_generated(stated: Stated, begin: Begin | None = None) -> Run:
    """Run models on the official files of ImageNet-C and on the generated ones of the same photographs.

    `stated` has the suites `imagenet-c` and `imagenet-c-generated`. Raises `UserError`, before anything is computed,
    also if the two folders have no image in common. `generated_against_official` reads the run.
    """
    require_places(stated.plan, stated.means)

    from robustbench_twicing.tasks.images.pairs import require_pairs

    require_pairs(stated.plan, stated.means)
    return carry_out(stated, begin)


def run_plan_file(
    plan: str | Path, means: Means | None = None, begin: Begin | None = None, watching: Watching | None = None
) -> Run:
    """Carry out a plan file, or the plan of that name that ships with the tool. The same call again continues.

    What is set in `means` wins over the plan's own, and those over what is configured in twicing-bench.toml, which
    also says the directories and checkpoints that the plan does not name. `out` left out is the plan's own folder
    (`plan_folder`). The arms of its [train] are trained first, if they are not yet; `watching` is told of it.
    Raises `UserError`.
    """
    read = read_plan(plan, settings(), means)

    require_places(read.plan, read.means)
    if read.train is not None:  # also where all files are there: they may be another training's
        from robustbench_twicing.runner.trained import train_arms

        train_arms(read.train, read.means, watching)

    from robustbench_twicing.runner.run import run_plan

    notes = {"name": read.name, "title": read.title, "gate": read.gate.model_dump(mode="json"), "arms": read.arms}
    notes["decided"] = read.decided
    means = read.means.model_copy(update={"out": plan_folder(read)})
    return _finished(run_plan(read.plan, means, begin=begin, notes=notes, warnings=read.never_pass))


def estimate_plan_file(plan: str | Path, means: Means | None = None) -> tuple[Cost, Path, tuple[str, ...]]:
    """What is left to do of a plan file, by counting and by a probe of at most about 30 s; its folder; and a line for
    each cell that its gate can never pass.
    """
    read = read_plan(plan, settings(), means)

    require_places(read.plan, read.means)

    from robustbench_twicing.runner.estimate import estimate

    folder = plan_folder(read)
    return estimate(read.plan, folder, read.means), folder, read.never_pass


def _finished(folder: RunFolder) -> Run:
    """A run that has just been carried out: read, with its summary written and its line in the history."""
    run = load_finished(folder.path)
    folder.write_summary(run.summary)
    folder.put_the_rest()
    remarks = [*run.remarks, *folder.remarks, history.add(run)]
    return replace(run, remarks=tuple(remark for remark in remarks if remark))
