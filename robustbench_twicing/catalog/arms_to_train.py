"""`[train]` of a plan file: the trainings that it names, the places of their weights, and the models they become."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from robustbench_twicing.catalog.language import language_models
from robustbench_twicing.catalog.mistakes import Mistakes
from robustbench_twicing.catalog.recipes import training_recipe
from robustbench_twicing.catalog.zoo import SMALL, labelled, model_spec
from robustbench_twicing.errors import UserError
from robustbench_twicing.spec.methods import Attention
from robustbench_twicing.spec.models import ModelSpec
from robustbench_twicing.spec.training import Adversarial, TrainingRecipe, TrainTable

TRAINED = Path("results") / "trained"
"""Where plans that say no place have their weights, each in a folder of its name."""

CONTROL = "softmax"


class ArmsToTrain(NamedTuple):
    """What the table comes to. Nothing of it is trained yet, or some, or all."""

    recipe: TrainingRecipe
    data: str
    directory: Path | None
    """Of the images to train on; None for the plan's own directory, and for data without one."""
    start: str | None
    weights: Mapping[tuple[str, int], Path]
    """Of each (model, seed), seeds of one model beside each other."""
    specs: tuple[ModelSpec, ...]
    """The models of the plan that they become: NAME@sSEED."""

    @property
    def missing(self) -> list[tuple[str, int]]:
        """Those whose weights are not there."""
        return [one for one, path in self.weights.items() if not path.exists()]


def arms_to_train(table: TrainTable, data: str, plan: str, mistakes: Mistakes) -> ArmsToTrain | None:
    """What a plan's table means for the data set that the plan is about; None with mistakes."""
    before = len(mistakes.found)
    named = table.recipe or usual_recipe(data, table.start)
    recipe = mistakes.tried(("train", "recipe"), recipe_against, named, table.adversarial, table.eps)
    if recipe is not None and recipe.name == "finetune" and not (table.start and table.control):
        what = "The recipe finetune goes on from weights, and means something beside a control only."
        mistakes.add(("train", "recipe"), what, 'Write from = "timm:NAME" (or a file) and control = true.')
    folder = Path(table.out) if table.out else TRAINED / plan
    specs: list[ModelSpec] = []
    weights: dict[tuple[str, int], Path] = {}
    models = with_controls(table.models, data) if table.control else list(dict.fromkeys(table.models))
    for name in models:
        at = ("train", "models", table.models.index(name)) if name in table.models else ("train", "models")
        for seed in dict.fromkeys(table.seeds):
            path = folder / f"{name}-s{seed}.safetensors"
            spec = mistakes.tried(at, _spec, f"{labelled(name, f's{seed}')}={path}", data)
            specs += [spec] if spec is not None else []
            weights[name, seed] = path
    if recipe is None or len(mistakes.found) > before:
        return None
    directory = Path(table.directory) if table.directory else None
    return ArmsToTrain(recipe, data, directory, table.start, weights, tuple(specs))


def usual_recipe(data: str, start: str | None) -> str:
    """The recipe by which a data set is trained on, unless another is named; from the weights `start`, if any."""
    return _OWN_RECIPE.get(data) or ("finetune" if start else "small" if data in SMALL else "deit")


_OWN_RECIPE = {"digits": "digits", "text": "tiny-lm"}


def _spec(text: str, data: str) -> ModelSpec:
    return language_models(text)[0] if data == "text" else model_spec(text, data)


def recipe_against(name: str, adversarial: str | None, eps: str | None) -> TrainingRecipe:
    """A recipe, trained on images attacked as both say, if they do. Raises `UserError`."""
    recipe = training_recipe(name)
    if adversarial is None and eps is None:
        return recipe
    if adversarial is None or eps is None:
        raise UserError(
            "adversarial and eps go together.", "Write --adversarial pgd-2 --eps 4/255; in a plan, both keys."
        )
    return recipe.model_copy(update={"adversarial": Adversarial.parse(adversarial, eps)})


def with_controls(models: Sequence[str], data: str = "imagenet") -> list[str]:
    """Each model, and behind it the same network with softmax attention, unless that is among them."""
    found = list(models)
    for model in models:
        control = f"{model.partition('+')[0]}+{CONTROL}"
        same = [one for one in found if _is_control(one, model, data)]
        if not same and not _is_control(model, model, data):
            found.append(control)
    return found


def _is_control(one: str, model: str, data: str) -> bool:
    """`one` is the network of `model` with softmax attention."""
    texts = [f"{text}=none" for text in (one, model)]
    specs = [_spec(text, data if data == "text" else "imagenet") for text in texts]
    return specs[0].architecture == specs[1].architecture and specs[0].attention == Attention()


def models_with(content: Mapping[str, Any], arms: ArmsToTrain) -> list[Any]:
    """The models of a plan, and behind them those that it trains."""
    own = content.get("models", [])
    return [*(own if isinstance(own, list) else [own]), *arms.specs]
