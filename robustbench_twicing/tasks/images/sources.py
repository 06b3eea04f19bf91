"""Where the images of each threat of a plan come from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from robustbench_twicing.catalog.places import folder_of
from robustbench_twicing.catalog.suites import suite
from robustbench_twicing.data.contents import SuiteFolder
from robustbench_twicing.data.dataset import Dataset
from robustbench_twicing.data.digits import digits
from robustbench_twicing.data.imagenet import ImageFiles, index_images
from robustbench_twicing.data.layout import find_suite
from robustbench_twicing.data.transforms import recipe_named
from robustbench_twicing.errors import UserError
from robustbench_twicing.spec.models import Recipe, Recipes
from robustbench_twicing.spec.plan import EMBEDDED, Plan
from robustbench_twicing.spec.suite import Part, SuiteSpec
from robustbench_twicing.spec.threats import CorruptionThreat, ShiftThreat, Threat


@dataclass(frozen=True, eq=False)
class Source:
    """Where the images of a threat come from, and who may answer."""

    dataset: Dataset
    recipe: Callable[[Recipes], Recipe]
    """The recipe for a model, given the model's own ones."""
    scored: tuple[int, ...] | None = None
    """The logits that may answer, ascending; None for all of them."""
    accepted: tuple[tuple[int, ...], ...] | None = None
    """Classes that count as right for each sample; None where only its label does."""


class Sources(NamedTuple):
    """Where every threat of a plan reads."""

    source: Callable[[Threat], Source]
    """Threats that read the same samples share one dataset."""
    suite: Callable[[str], SuiteSpec]
    """A suite of the plan, with its classes, also where those are its folders' names."""


class _Suites(NamedTuple):
    """The suites of a plan as they lie on this machine. Each is looked at once."""

    found: Callable[[str], SuiteFolder]
    definition: Callable[[str], SuiteSpec]
    """With its classes, also where those are its folders' names, or those of the photographs that it is made of."""


def _open_suites(photographs: str, directories: Mapping[str, Path]) -> _Suites:
    """`photographs`: of which suite generated ones are made. Raises `UserError` for a folder that is not known."""

    @cache
    def found(name: str) -> SuiteFolder:
        return find_suite(suite(name), folder_of(name, directories))

    @cache
    def definition(name: str) -> SuiteSpec:
        spec = suite(name)
        if spec.index:
            return spec
        if spec.layout != "generated":
            return found(name).suite
        base = definition(photographs)
        return spec.model_copy(update={"index": base.index, "classes": base.classes})

    return _Suites(found, definition)


def open_sources(plan: Plan, directories: Mapping[str, Path]) -> Sources:
    """Where the images of a plan's threats come from.

    `directories` says where each suite lies; one of the user's own may say it itself. Raises `UserError` for a suite
    that is not there, or whose folder holds something else.
    """

    found, definition = _open_suites(plan.data.name, directories)

    @cache
    def whole(name: str, part: Part | None = None) -> Dataset:
        return _picked(digits() if name == EMBEDDED else index_images(found(name), part), plan)

    def source_of(dataset: Dataset, spec: SuiteSpec | None, scored: tuple[int, ...] | None) -> Source:
        if spec is None:
            return Source(dataset, lambda model: Recipe())
        accepted = dataset.accepted if isinstance(dataset, ImageFiles) else None
        name = plan.recipe or spec.recipe
        return Source(dataset, lambda model: recipe_named(name, model, spec), scored, accepted)

    @cache
    def base(classes_of: str | None) -> Source:
        dataset = whole(plan.data.name)
        spec = None if plan.data.name == EMBEDDED else definition(plan.data.name)
        if classes_of is None:
            return source_of(dataset, spec, None)
        if not isinstance(dataset, ImageFiles):
            raise UserError(f"{plan.data.name!r} has no classes of {classes_of!r}.", "Pass --data imagenet.")
        mask = definition(classes_of).mask
        return source_of(dataset.of_classes(mask, classes_of), spec, mask)

    @cache
    def suites_own(name: str, part: Part | None) -> Source:
        spec = definition(name)
        dataset = whole(name, part)
        return source_of(dataset, spec, spec.mask if spec.masked else None)

    @cache
    def generated(name: str) -> Source:
        spec = definition(name)
        clean, fixed = base(name if spec.masked else None), spec.generated_recipe
        if fixed is None:
            return clean
        return Source(clean.dataset, _always(name, fixed), clean.scored)

    def source(threat: Threat) -> Source:
        if isinstance(threat, CorruptionThreat):
            part = Part(threat.corruption, threat.severity)
            return generated(threat.suite) if threat.generated else suites_own(threat.suite, part)
        if isinstance(threat, ShiftThreat):
            return suites_own(threat.suite, None)
        return base(threat.classes_of if threat.kind == "clean" else None)

    return Sources(source, definition)


def _picked(dataset: Dataset, plan: Plan) -> Dataset:
    """Those samples that the plan names, if it names any. Raises `UserError` for a name that means none.

    A suite with photographs of its own has other ids than its clean partner; there, each takes what it holds.
    """
    if not plan.data.ids:
        return dataset
    held = set(dataset.sample_ids)
    missing = [name for name in plan.data.ids if name not in held]
    several = any(threat.kind == "shift" for threat in plan.threats)
    if missing and (len(missing) == len(plan.data.ids) or not several):
        raise UserError(
            f"{len(missing):,} of the {len(plan.data.ids):,} ids name no sample of {dataset.name!r}, such as "
            f"{missing[0]}.",
            f"Its ids look like {dataset.sample_ids[0]}; column sample_id of a run's records has them all.",
        )
    return dataset.of_ids(plan.data.ids)


def _always(name: str, fixed: Recipe) -> Callable[[Recipes], Recipe]:
    """The recipe of pictures that are made in one size. It raises `UserError` for a model that takes another."""

    def recipe(own: Recipes) -> Recipe:
        if not own.takes(fixed.crop):
            raise UserError(
                f"{name!r} makes pictures of {fixed.crop} pixels, and the model takes {own.evaluated.crop}.",
                "Resizing a corrupted picture changes the corruption: choose a model that takes this size.",
            )
        return fixed

    return recipe
