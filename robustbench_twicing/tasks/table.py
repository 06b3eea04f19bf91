"""Every task, on one screen."""

from robustbench_twicing.spec.plan import Plan
from robustbench_twicing.tasks.images.opened import IMAGES
from robustbench_twicing.tasks.task import Task
from robustbench_twicing.tasks.text.opened import TEXT

TASKS: dict[str, Task] = {"images": IMAGES, "text": TEXT}


def task_of(plan: Plan) -> Task:
    """What the samples of a plan are."""
    return TASKS[plan.task]
