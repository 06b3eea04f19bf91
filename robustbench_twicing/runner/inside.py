"""What is stated at a door, looked into: the plan's models and images, opened, given to the room `inside`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from robustbench_twicing.catalog.places import require_places
from robustbench_twicing.catalog.resolve import Stated
from robustbench_twicing.errors import UserError
from robustbench_twicing.inside.diagnosis import Diagnosis, Difference
from robustbench_twicing.inside.found import Collapse, Keep
from robustbench_twicing.inside.swept import Sweep
from robustbench_twicing.machine.surroundings import left_alone, plain_torch
from robustbench_twicing.results.measured import kept_in
from robustbench_twicing.runner.retrain import Retraining, retrained
from robustbench_twicing.spec.values import content_hash

if TYPE_CHECKING:
    from robustbench_twicing.inside.broken import Samples
    from robustbench_twicing.tasks.images.opened import OpenedImages

Say = Callable[[str], None]
"""Told what is done now."""


@contextmanager
def opened(stated: Stated, other_pictures: bool = False) -> Iterator["OpenedImages"]:
    """The plan's models and images; afterwards the caller's global state is as it was. Raises `UserError`.

    `other_pictures`: threats may have other images than the clean run.
    """
    require_places(stated.plan, stated.means)
    with left_alone():
        from robustbench_twicing.machine.device import choose_device
        from robustbench_twicing.tasks.images.inside import require_pixels
        from robustbench_twicing.tasks.images.opened import open_images

        if not other_pictures:
            require_pixels(stated.plan.threats)
        with plain_torch():
            here = open_images(stated.plan, stated.means, choose_device(stated.means.device), {})
            for model in here.models.values():
                model.batch_size = stated.means.batch_size or model.batch_size
            yield here


@contextmanager
def _keeping(
    here: "OpenedImages",
    command: str,
    out: Path | None,
    threats: Mapping[str, str],
    grades: Mapping[str, str] | None = None,
) -> Iterator[Keep]:
    """Keeps in `out` what is told within; `grades` is read at the end. Raises `UserError`."""
    from robustbench_twicing.runner.environment import environment

    def manifest() -> dict[str, Any]:
        made = environment(here.device, here.plan)
        return {
            "command": command,
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "said": made["command"],
            "data": here.data_used(here.plan.threats[0]),
            "seed": here.plan.seed,
            "threats": threats,
            "models": here.models_used(),
            "grades": grades or {},
            **{key: made[key] for key in ("versions", "device", "git")},
        }

    with kept_in(out, manifest) as keep:
        yield keep


def collapse(stated: Stated, say: Say, out: Path | None = None) -> Collapse:
    """How alike tokens become in the plan's models, under its threats; each image's figures are kept in the folder
    `out`. Raises `UserError`."""
    plan = stated.plan
    threats = {threat.id: threat.hash for threat in plan.threats}
    with opened(stated) as here, _keeping(here, "collapse", out, threats) as keep:
        from robustbench_twicing.inside.collapse import Given, Subject
        from robustbench_twicing.inside.collapse import collapse as look
        from robustbench_twicing.inside.watch import transformer_in
        from robustbench_twicing.tasks.images.inside import pictures

        def given() -> Iterator[Given]:
            for threat in stated.plan.threats:
                say(f"{threat.id} …")
                for some in pictures(here, threat):
                    yield Given(some.threat, some.images, some.ids)

        models = [here.models[spec.name] for spec in stated.plan.models]
        subjects = [
            Subject(model.card.spec.name, model, transformer_in(model.network), model.card.attention)
            for model in models
        ]
        return look(subjects, given(), stated.plan.data.name, keep)


def diagnose(
    stated: Stated, say: Say, thorough: bool = False, out: Path | None = None
) -> tuple[list[Diagnosis], list[Difference]]:
    """Grade each of the plan's models at its attack's eps, and their differences from the first; which images stand is
    kept in the folder `out`. Raises `UserError`."""
    from robustbench_twicing.inside import diagnose as room

    eps = next(threat.eps for threat in stated.plan.threats if threat.kind == "attack")
    budget, hunt = room.THOROUGH if thorough else room.USUAL, f"diagnose at {eps}"
    threats = {"clean": content_hash("clean"), hunt: content_hash([str(eps), *budget])}
    grades: dict[str, str] = {}
    with opened(stated) as here, _keeping(here, "diagnose", out, threats, grades) as keep:
        given = _clean_samples(here)
        models = [here.models[name] for name in given]
        found = []
        for model in models:
            others = [other for other in models if other is not model]
            samples = given[model.card.spec.name]
            found.append(room.diagnose(model, samples, eps, others, budget, stated.plan.seed, say))
        ids = next(iter(given.values())).ids
        for one in found:
            grades[one.model] = one.grade
            keep(one.model, "clean", "all images", "right", ids, _marks(ids, one.right))
            keep(one.model, hunt, "all images", "right after 20 steps of PGD", ids, _marks(ids, one.under_pgd))
            keep(one.model, hunt, "all images", "right after everything found", ids, _marks(ids, one.robust))
        return found, [room.difference(found[0], other, ids) for other in found[1:]]


def sweep(stated: Stated, say: Say, how: Retraining | None = None, out: Path | None = None) -> list[Sweep]:
    """The method of each of the plan's models, switched on part by part, under its first attack; with `how` every part
    is trained as well; which images are right is kept in the folder `out`. Raises `UserError`."""
    threat, seed = next(threat for threat in stated.plan.threats if threat.kind == "attack"), stated.plan.seed
    threats = {"clean": content_hash("clean"), threat.id: threat.hash}
    with opened(stated) as here, _keeping(here, "sweep", out, threats) as keep:
        from robustbench_twicing.inside import sweep as room

        if how is not None and stated.plan.data.name != "digits":
            raise UserError(f"--retrain trains on digits, and the data is {stated.plan.data.name}.", "Leave it away.")
        found = []
        for name, samples in _clean_samples(here).items():
            model = here.models[name]
            one = room.sweep(model, samples, threat, seed, say)
            if how is not None:
                trained = retrained(model, room.settings_of(model), how, say)
                cells = room.swept_again(trained, samples, threat, seed)
                one = replace(one, retrained=cells, recipe=how.recipe)
            for cell in (*one.cells, *one.retrained):
                place = cell.name if cell.seed is None else f"{cell.name}, trained with seed {cell.seed}"
                keep(name, "clean", place, "right", samples.ids, _marks(samples.ids, cell.right))
                keep(name, threat.id, place, "right", samples.ids, _marks(samples.ids, cell.standing))
            found.append(one)
        return found


def _marks(ids: Sequence[str], those: Sequence[str]) -> np.ndarray:
    """1 for each of the ids that is among those, 0 for the others."""
    return np.isin(ids, those).astype(float)


def _clean_samples(here: "OpenedImages") -> "dict[str, Samples]":
    """Of each of the plan's models all images without an attack."""
    import torch

    from robustbench_twicing.inside.broken import Samples
    from robustbench_twicing.tasks.images.inside import pictures

    clean = next(threat for threat in here.plan.threats if threat.kind == "clean")
    batches = list(pictures(here, clean))
    ids = tuple(one for batch in batches for one in batch.ids)
    labels = torch.cat([batch.labels for batch in batches])
    names = [spec.name for spec in here.plan.models]
    return {name: Samples(ids, torch.cat([batch.images[name] for batch in batches]), labels) for name in names}
