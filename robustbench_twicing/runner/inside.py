"""What is stated at a door, looked into: the plan's models and images, opened, given to the room `inside`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from robustbench_twicing.catalog.places import require_places
from robustbench_twicing.catalog.resolve import Stated
from robustbench_twicing.inside.diagnosis import Diagnosis, Difference
from robustbench_twicing.inside.found import Collapse
from robustbench_twicing.machine.surroundings import left_alone, plain_torch

if TYPE_CHECKING:
    from robustbench_twicing.tasks.images.opened import OpenedImages

Say = Callable[[str], None]
"""Told what is done now."""


@contextmanager
def opened(stated: Stated) -> Iterator["OpenedImages"]:
    """The plan's models and images; afterwards the caller's global state is as it was. Raises `UserError`."""
    require_places(stated.plan, stated.means)
    with left_alone():
        from robustbench_twicing.machine.device import choose_device
        from robustbench_twicing.tasks.images.inside import require_pixels
        from robustbench_twicing.tasks.images.opened import open_images

        require_pixels(stated.plan.threats)
        with plain_torch():
            here = open_images(stated.plan, stated.means, choose_device(stated.means.device), {})
            for model in here.models.values():
                model.batch_size = stated.means.batch_size or model.batch_size
            yield here


def collapse(stated: Stated, say: Say) -> Collapse:
    """How alike tokens become in the plan's models, under its threats. Raises `UserError`."""
    with opened(stated) as here:
        from robustbench_twicing.inside.collapse import Given, Subject
        from robustbench_twicing.inside.collapse import collapse as look
        from robustbench_twicing.inside.watch import transformer_in
        from robustbench_twicing.tasks.images.inside import pictures

        def given() -> Iterator[Given]:
            for threat in stated.plan.threats:
                say(f"{threat.id} …")
                for some in pictures(here, threat):
                    yield Given(some.threat, some.images)

        models = [here.models[spec.name] for spec in stated.plan.models]
        subjects = [
            Subject(model.card.spec.name, model, transformer_in(model.network), model.card.attention)
            for model in models
        ]
        return look(subjects, given(), stated.plan.data.name)


def diagnose(stated: Stated, say: Say, thorough: bool = False) -> tuple[list[Diagnosis], list[Difference]]:
    """Grade each of the plan's models at its attack's eps, and their differences from the first. Raises `UserError`."""
    with opened(stated) as here:
        import torch

        from robustbench_twicing.inside.diagnose import THOROUGH, USUAL, Samples, difference
        from robustbench_twicing.inside.diagnose import diagnose as look
        from robustbench_twicing.tasks.images.inside import pictures

        clean = next(threat for threat in stated.plan.threats if threat.kind == "clean")
        eps = next(threat.eps for threat in stated.plan.threats if threat.kind == "attack")
        batches = list(pictures(here, clean))
        models = [here.models[spec.name] for spec in stated.plan.models]
        found = []
        for model in models:
            name = model.card.spec.name
            samples = Samples(
                tuple(one for batch in batches for one in batch.ids),
                torch.cat([batch.images[name] for batch in batches]),
                torch.cat([batch.labels for batch in batches]),
            )
            others = [other for other in models if other is not model]
            budget = THOROUGH if thorough else USUAL
            found.append(look(model, samples, eps, others, budget, stated.plan.seed, say))
        ids = tuple(one for batch in batches for one in batch.ids)
        return found, [difference(found[0], other, ids) for other in found[1:]]
