"""The runs of plans: which folder is whose, and what is still to be done."""

from hashlib import sha256
from pathlib import Path

from robustbench_twicing.catalog.config import settings
from robustbench_twicing.catalog.plans import PlanFile, plan_names, read_plan
from robustbench_twicing.errors import UserError
from robustbench_twicing.machine.remote import is_remote
from robustbench_twicing.metrics.arms import FEWEST_SEEDS
from robustbench_twicing.results.begun import begun
from robustbench_twicing.results.elsewhere import here
from robustbench_twicing.results.run import Run
from robustbench_twicing.results.run import load_finished as read_finished
from robustbench_twicing.results.store import RUNS, RunFolder, is_there
from robustbench_twicing.spec.arms import ArmPatterns, arms_in_names
from robustbench_twicing.spec.values import content_hash

LATEST = "latest"
"""Stands for a run, unless a folder is called so."""


def plan_folder(plan: PlanFile) -> Path:
    """Where a plan file's run goes: where it says, or a folder named after it and the content of its checkpoints.

    New weights in an old file are a new run; the old one stays. One whose arms are still to be trained has none yet.
    """
    if plan.means.out is not None:
        return plan.means.out
    files = {spec.weights.removeprefix("file:") for spec in plan.plan.models if spec.weights.startswith("file:")}
    to_train = {str(path) for path in plan.train.weights.values() if not path.exists()} if plan.train else set()
    digests = {
        file: "" if file in to_train else sha256(Path(file).expanduser().read_bytes()).hexdigest()
        for file in sorted(files)
    }
    content = content_hash({"plan": plan.plan.model_dump(mode="json"), "checkpoints": digests})
    return RUNS / f"{plan.name}-{content}"


def run_folder(run: str | Path) -> Path:
    """The folder of a run that is named by it or by its plan; `latest` is that of the run that was begun last.

    Raises `UserError` if there is none.
    """
    if is_remote(run):
        return here(run)
    if str(run) == LATEST and not is_there(Path(run)):
        return _latest()
    plan = _plan_named(run)
    path = here(plan_folder(plan)) if plan else Path(run)
    there = is_there(path)
    if plan and not there:
        raise UserError(f"The plan {run} was not carried out yet.", f"Run: twicing-bench run {run}")
    if not there:
        raise UserError(
            f"There is no run {str(run)!r}.",
            "Name a run folder or a plan. Models of one run are compared with: compare MODEL_A MODEL_B --run RUN",
        )
    return path


def _latest() -> Path:
    runs = begun()
    if not runs:
        raise UserError(f"There is no run in {RUNS} yet.", "Name a run folder, or a plan.")
    return runs[0].path


def load_finished(run: str | Path) -> Run:
    """A finished run: as `run_folder` finds it. Raises `UserError`."""
    return read_finished(run_folder(run))


def stated_arms(run: str | Path) -> ArmPatterns:
    """The arms that a plan states, or that the plan of a run did, else those of `arms_in_names`; empty without any.

    Raises `UserError`.
    """
    plan = _plan_named(run)
    if plan:
        return plan.arms or arms_in_names([model.name for model in plan.plan.models], FEWEST_SEEDS)
    manifest = RunFolder(run_folder(run)).manifest()
    return manifest.arms or arms_in_names(list(manifest.models), FEWEST_SEEDS)


def unfinished_plan(name: str | Path) -> PlanFile | None:
    """The plan of this name if its own run is still to be done. Raises `UserError` if the plan is wrong."""
    plan = _plan_named(name)
    folder = RunFolder(plan_folder(plan)) if plan else None
    finished = folder is not None and folder.exists() and folder.manifest().status == "finished"
    return None if finished else plan


def _plan_named(name: str | Path) -> PlanFile | None:
    """The plan of a TOML file, or the one of that name that ships, unless a run folder is called so."""
    path = Path(name)
    is_plan = path.suffix == ".toml" or (not is_there(path) and str(name) in plan_names())
    return read_plan(name, settings()) if is_plan else None
