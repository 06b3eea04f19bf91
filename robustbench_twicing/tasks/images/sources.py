"""Where the images of each threat of a plan come from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from robustbench_twicing.catalog.suites import suite
from robustbench_twicing.data.dataset import Dataset
from robustbench_twicing.data.digits import digits
from robustbench_twicing.data.imagenet import ImageFiles, index_images
from robustbench_twicing.data.layout import find_suite
from robustbench_twicing.data.transforms import recipe_named
from robustbench_twicing.errors import UserError
from robustbench_twicing.spec.models import Recipe
from robustbench_twicing.spec.plan import EMBEDDED, Plan
from robustbench_twicing.spec.suite import Part, SuiteSpec
from robustbench_twicing.spec.threats import CorruptionThreat, ShiftThreat, Threat


@dataclass(frozen=True, eq=False)
class Source:
    """Where the images of a threat come from, and who may answer."""

    dataset: Dataset
    recipe: Callable[[Recipe], Recipe]
    """The recipe for a model, given the model's own."""
    scored: tuple[int, ...] | None = None
    """The logits that may answer, ascending; None for all of them."""
    accepted: tuple[tuple[int, ...], ...] | None = None
    """Classes that count as right for each sample; None where only its label does."""


def open_sources(plan: Plan, directories: Mapping[str, Path]) -> Callable[[Threat], Source]:
    """A function from a threat to its source; threats that read the same samples share one.

    `directories` says where each suite lies. Raises `UserError` for a suite that is not there, or whose folder holds
    something else.
    """

    @cache
    def folder(name: str) -> Path:
        if name == "imagenet-real" and name not in directories:
            return folder("imagenet")  # the same files, with other labels
        if name not in directories:
            raise UserError(
                f"No folder is known for {name!r}.",
                f"Pass --data-dir {name}=/path/to/it, or set it once: see `twicing-bench config show`.",
            )
        return directories[name]

    @cache
    def whole(name: str) -> Dataset:
        if name == EMBEDDED:
            return digits()
        return index_images(find_suite(suite(name), folder(name)))

    @cache
    def part(name: str, corruption: str, severity: int) -> Dataset:
        return index_images(find_suite(suite(name), folder(name)), Part(corruption, severity))

    def source_of(dataset: Dataset, spec: SuiteSpec | None, scored: tuple[int, ...] | None) -> Source:
        if spec is None:
            return Source(dataset, lambda model: Recipe())
        accepted = dataset.accepted if isinstance(dataset, ImageFiles) else None
        name = plan.recipe or spec.recipe
        return Source(dataset, lambda model: recipe_named(name, model, spec), scored, accepted)

    @cache
    def base(classes_of: str | None) -> Source:
        dataset = whole(plan.data.name)
        spec = None if plan.data.name == EMBEDDED else suite(plan.data.name)
        if classes_of is None:
            return source_of(dataset, spec, None)
        if not isinstance(dataset, ImageFiles):
            raise UserError(f"{plan.data.name!r} has no classes of {classes_of!r}.", "Pass --data imagenet.")
        mask = suite(classes_of).mask
        return source_of(dataset.of_classes(mask, classes_of), spec, mask)

    @cache
    def shifted(name: str) -> Source:
        spec, dataset = suite(name), whole(name)
        mask = spec.mask
        return source_of(dataset, spec, mask if len(mask) < dataset.classes else None)

    @cache
    def generated(name: str) -> Source:
        fixed = suite(name).generated_recipe
        if fixed is None:
            return base(None)

        def recipe(model: Recipe) -> Recipe:
            if model.crop != fixed.crop:
                raise UserError(
                    f"{name!r} makes pictures of {fixed.crop} pixels, and the model takes {model.crop}.",
                    "Resizing a corrupted picture changes the corruption: choose a model that takes this size.",
                )
            return fixed

        return Source(whole(plan.data.name), recipe)

    @cache
    def corrupted(threat: CorruptionThreat) -> Source:
        if threat.generated:
            return generated(threat.suite)
        return source_of(part(threat.suite, threat.corruption, threat.severity), suite(threat.suite), None)

    def source(threat: Threat) -> Source:
        if isinstance(threat, CorruptionThreat):
            return corrupted(threat)
        if isinstance(threat, ShiftThreat):
            return shifted(threat.suite)
        return base(threat.classes_of if threat.kind == "clean" else None)

    return source
