"""Does a model reproduce its published accuracies, and if not, what would explain the miss?"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from robustbench_twicing.catalog.published import SETS, Figure
from robustbench_twicing.catalog.resolve import Stated
from robustbench_twicing.catalog.suites import suite
from robustbench_twicing.data.transforms import recipe_named
from robustbench_twicing.errors import UserError
from robustbench_twicing.machine.device import choose_device
from robustbench_twicing.machine.surroundings import plain_torch
from robustbench_twicing.metrics.intervals import Interval, finite_population_factor, wilson_interval
from robustbench_twicing.models.build import load_model
from robustbench_twicing.models.classifier import Classifier
from robustbench_twicing.models.preprocessing import resized
from robustbench_twicing.results.run import load_finished
from robustbench_twicing.results.store import RunFolder
from robustbench_twicing.results.used import Check, Verification
from robustbench_twicing.runner.run import run_plan
from robustbench_twicing.spec.means import Means
from robustbench_twicing.spec.methods import Attention
from robustbench_twicing.spec.models import ModelSpec, Recipe, Recipes
from robustbench_twicing.spec.plan import Cell, Plan
from robustbench_twicing.tasks.task import Progress

LEVEL = 0.99
"""Of each interval. Eight sets are compared: at 95 % every third verification would have one outside by chance."""
NUMERICS = 0.002
"""What precision, library versions and JPEG decoders may move an accuracy by. Assumed, not measured: if 0.4 % of the
answers flip, either way with the same chance, then in 99 % of cases the accuracy over 7,500 images (the smallest set)
moves by less than 0.19 points. The rounding of published figures, 0.001 points, is in it."""
TELLING = 0.04
"""Width from which on an interval tells nothing by holding the published accuracy: DeiT-S and DeiT-B are 2.0 points
apart (79.8 and 81.8 %), so that a wider one may hold those of both. About 3,000 of 50,000 images are enough."""
RULE = (
    f"inside: the published accuracy lies in the {LEVEL:.0%} Wilson interval of the measured one, which shrinks to "
    f"nothing as n reaches all the images that the published one is of, widened by {100 * NUMERICS:g} points for "
    f"precision and library versions, and the interval is less than {100 * TELLING:g} points wide; where it is wider, "
    "the images are too few to tell"
)

CROP_RATIOS = (0.875, 0.9, 0.95, 1.0)
"""What evaluation scripts resize by: DeiT's and torchvision's; timm's for DeiT, for ResNet, and for 384 pixels."""
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
"""The two pairs of mean and standard deviation in common use: timm's IMAGENET_DEFAULT and IMAGENET_INCEPTION."""


class Count(NamedTuple):
    """What came of one data set."""

    right: int
    right_unmasked: int
    n: int
    failed: int


def interval(right: int, n: int, images: int) -> Interval:
    """Where the accuracy over all `images` may lie if `right` of `n` of them were right, other things equal.

    Wilson's interval for the images that were not measured: sampling without replacement has a smaller variance, which
    is the same as having measured more (`intervals.finite_population_factor`). `NUMERICS` is added.
    """
    if n == 0:
        return Interval(0.0, 1.0)
    low = high = right / n
    if n < images:
        effective = round(n / finite_population_factor(n, images) ** 2)
        low, high = wilson_interval(round(right / n * effective), effective, LEVEL)
    return Interval(max(0.0, low - NUMERICS), min(1.0, high + NUMERICS))


@plain_torch()
def verify_model(
    stated: Stated,
    published_model: str,
    figures: Mapping[str, Sequence[Figure]],
    *,
    explain: bool = True,
    begin: Callable[[dict[Cell, tuple[int, int]]], Progress] | None = None,
) -> tuple[RunFolder, Verification]:
    """Measure the model of a plan on every data set that has a published figure and a folder, and compare.

    What was `stated` says model, recipe, limit and seed; its threats are replaced by the data sets. With `explain`,
    what missed is measured again, in one pass, under each change that could explain it. The verdict is written into
    the run's manifest, as "verification". Raises `UserError`, in particular if no data set can be checked.
    """
    plan, means = stated.plan, stated.means
    (spec,) = plan.models
    device = choose_device(means.device)
    model = load_model(spec, device)
    used = recipe_named(plan.recipe or "model", model.card.recipes, suite("imagenet"))
    chosen, not_checked = _choose(figures, means.directories, used.crop or model.card.image_size, _other_sizes(model))
    plan = plan.model_copy(update={"threats": tuple(SETS[name].threat for name in chosen)})
    folder = run_plan(plan, means, models={spec.name: model}, begin=begin, notes={"decided": stated.decided})
    counts = _counts(folder)
    for name in [name for name in chosen if (spec.name, SETS[name].threat.id) not in counts]:
        not_checked[name] = "no image of its classes is in the folder"
        del chosen[name]
    if not chosen:
        raise _nothing(not_checked)
    checks = [check_of(name, figure, counts[spec.name, SETS[name].threat.id]) for name, figure in chosen.items()]
    verification = Verification(
        model=spec.name,
        published_model=published_model,
        rule=RULE,
        checks=tuple(checks),
        not_checked=not_checked,
        prepared=_prepared(plan, model, used),
    )
    _write(folder, verification)  # already now: explaining takes as long again

    missed = {check.dataset: chosen[check.dataset] for check in checks if check.verdict == "outside"}
    if missed and explain:
        variants = list(_variants(model, used, next(iter(missed.values())), device))
        again = _measured_again(plan, folder, missed, variants, means, begin)

        def explained(check: Check) -> Check:
            if check.dataset not in missed:
                return check
            threat, figure = SETS[check.dataset].threat.id, missed[check.dataset]
            here = counts[spec.name, threat]
            outcomes = [(_MASK, here._replace(right=here.right_unmasked))]
            outcomes += [(variant.text, again[variant.name, threat]) for variant in variants]
            found = (text for text, count in outcomes if check_of(check.dataset, figure, count).verdict != "outside")
            return check.model_copy(update={"cause": next(found, "")})

        tried = (_MASK, *(variant.text for variant in variants))
        explaining = {"checks": tuple(explained(check) for check in checks), "tried": tried}
        verification = verification.model_copy(update=explaining)
        _write(folder, verification)
    folder.put_the_rest()
    return folder, verification


def _prepared(plan: Plan, model: Classifier, used: Recipe) -> str:
    """How images are prepared, and whose preprocessing that is unless it was asked for by name."""
    own = plan.recipe in (None, "model") and model.card.prepared_as
    return f"{used.id}, as {model.card.prepared_as} says" if own else f"{used.id}, as asked for"


def _other_sizes(model: Classifier) -> dict[int, str]:
    """What to pass for images of another size that this model is evaluated at, by that size."""
    own = model.card.recipes
    names = {"train-size": own.trained, "model": own.evaluated}
    return {recipe.crop: f"--recipe {name}" for name, recipe in names.items() if recipe.crop}


def _choose(
    figures: Mapping[str, Sequence[Figure]], directories: Mapping[str, Path], image_size: int, offers: Mapping[int, str]
) -> tuple[dict[str, Figure], dict[str, str]]:
    """The figures that can be checked, and why the others cannot; `offers` says by which option another size can be."""
    chosen, not_checked = {}, {}
    for name, (_, reads, _) in SETS.items():
        there = reads in directories or (reads == "imagenet-real" and "imagenet" in directories)
        sizes = {figure.img_size: figure for figure in figures.get(name, ())}
        if not sizes:
            not_checked[name] = "no published figure"
        elif not there:
            not_checked[name] = f"no folder: --data-dir {reads}=DIR"
        elif image_size not in sizes:
            not_checked[name] = f"published at {', '.join(map(str, sizes))} pixels, measured at {image_size}"
            offered = [f"{offers[size]} for {size}" for size in sizes if size in offers]
            not_checked[name] += f" (pass {', '.join(offered)})" if offered else ""
        else:
            chosen[name] = sizes[image_size]
    if not chosen:
        raise _nothing(not_checked)
    return chosen, not_checked


def _nothing(not_checked: Mapping[str, str]) -> UserError:
    listed = "; ".join(f"{name}: {why}" for name, why in not_checked.items())
    return UserError("Nothing can be checked.", f"{listed}. docs/datasets.md says what each folder looks like.")


def _counts(folder: RunFolder) -> dict[tuple[str, str], Count]:
    """By model and threat."""
    counts = {}
    for key, rows in load_finished(folder.path).cells.items():
        ok = rows[rows["status"] == "ok"]
        right, unmasked = int(ok["correct"].sum()), int(ok["correct_unmasked"].sum())
        counts[key] = Count(right, unmasked, len(ok), len(rows) - len(ok))
    return counts


def check_of(dataset: str, figure: Figure, count: Count) -> Check:
    """What was measured beside what was published."""
    images, expected = SETS[dataset].images, figure.top1 / 100
    low, high = interval(count.right, count.n, images)
    within: Literal["inside", "too few to tell"] = "inside" if high - low < TELLING else "too few to tell"
    return Check(
        dataset=dataset,
        published=expected,
        conditions=f"{figure.img_size} pixels, crop {figure.crop_pct:g}, {figure.interpolation}",
        measured=count.right / count.n if count.n else None,
        low=low,
        high=high,
        verdict=within if low <= expected <= high else "outside",
        n=count.n,
        failed=count.failed,
        images=images,
    )


def _write(folder: RunFolder, verification: Verification) -> None:
    with folder.locked():
        folder.write_manifest(folder.manifest().model_copy(update={"verification": verification}))


# --- what could explain a miss -----------------------------------------------------------------------------------

_MASK = "class mask: all logits may answer, not only those of the suite's classes"


class _Variant(NamedTuple):
    name: str
    """As a model of the plan."""
    text: str
    model: Classifier


def _variants(model: Classifier, used: Recipe, figure: Figure, device: torch.device) -> Iterator[_Variant]:
    """The model with one thing changed, the likeliest first. What cannot be changed is left out."""
    spec = model.card.spec

    def variant(label: str, text: str, other: Classifier, recipe: Recipe = used) -> _Variant:
        card = replace(other.card, recipes=Recipes(recipe, recipe))
        changed = Classifier(other.network, card, *_normalisation(other))
        return _Variant(f"{spec.name}@{label}", text, changed.to(device).eval())

    for recipe in _recipes(used, figure):
        parts = ["crop"] if recipe.resize != used.resize else []
        parts += ["interpolation"] if recipe.interpolation != used.interpolation else []
        yield variant(recipe.id, f"{' and '.join(parts)}: {recipe.id} instead of {used.id}", model, recipe)
    averaged = "the moving average (EMA)", "the last step's"
    new, old = averaged if spec.prefer == "raw" else averaged[::-1]
    other = _loaded(spec, {"prefer": "ema" if spec.prefer == "raw" else "raw"}, device)
    if other and other.card.weights_hash != model.card.weights_hash:
        yield variant("other-weights", f"weights: {new} instead of {old}", other)
    attention = "twicing" if model.card.attention == "softmax" else "softmax"
    other = _loaded(spec, {"attention": Attention.parse(attention)}, device) if model.card.blocks else None
    if other:
        text = f"attention: {attention} instead of {model.card.attention}"
        yield variant("other-attention", text, other)
    mean, std = _HALF if _normalisation(model)[0] != _HALF[0] else _IMAGENET
    changed = Classifier(model.network, model.card, mean, std)
    yield variant(
        "other-normalisation", f"normalisation: mean {mean[0]} and std {std[0]} instead of the model's", changed
    )


def _recipes(used: Recipe, figure: Figure) -> list[Recipe]:
    size = used.crop or figure.img_size
    other = "bilinear" if used.interpolation == "bicubic" else "bicubic"
    as_published = (figure.crop_pct, figure.interpolation)
    settings = [as_published, *((ratio, used.interpolation) for ratio in CROP_RATIOS)]
    recipes = [resized(size, *setting) for setting in settings]
    recipes += [used.model_copy(update={"interpolation": other}), resized(size, CROP_RATIOS[0], other)]
    return [recipe for recipe in dict.fromkeys(recipes) if recipe != used]


def _normalisation(model: Classifier) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    mean, std = (part.flatten().tolist() for part in (model.mean, model.std))
    return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])


def _loaded(spec: ModelSpec, change: Mapping[str, Any], device: torch.device) -> Classifier | None:
    """The model with another choice of weights or attention; None if there is none."""
    try:
        return load_model(spec.model_copy(update=change), device)
    except UserError:
        return None


def _measured_again(
    plan: Plan,
    folder: RunFolder,
    missed: Mapping[str, Figure],
    variants: Sequence[_Variant],
    means: Means,
    begin: Callable[[dict[Cell, tuple[int, int]]], Progress] | None,
) -> dict[tuple[str, str], Count]:
    """Every variant on the samples that missed, in one pass over them, in a run folder inside the first."""
    specs = tuple(plan.models[0].model_copy(update={"name": variant.name}) for variant in variants)
    threats = tuple(SETS[name].threat for name in missed)
    again = plan.model_copy(update={"models": specs, "threats": threats, "recipe": "model"})
    models = {variant.name: variant.model for variant in variants}
    inside = means.model_copy(update={"out": folder.path / f"causes-{again.hash}"})
    return _counts(run_plan(again, inside, models=models, begin=begin))
