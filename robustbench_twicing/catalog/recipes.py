"""Name of a training recipe -> TrainingRecipe. No torch."""

from pathlib import Path

from robustbench_twicing.catalog.locate import definitions
from robustbench_twicing.catalog.read_toml import read_toml, validated
from robustbench_twicing.errors import UserError, unknown_name
from robustbench_twicing.spec.training import TrainingRecipe

_HINT = "recipes/README.md lists every key, its unit and its allowed values; none has a default."


def recipe_names() -> list[str]:
    """Names of the recipes that ship with the tool."""
    return sorted(path.stem for path in definitions("recipes").glob("*.toml"))


def training_recipe(name: str) -> TrainingRecipe:
    """A recipe by name, or from a TOML file of the user's own. Raises `UserError` if there is none or it is wrong."""
    own = Path(name).expanduser()
    if own.suffix != ".toml":
        if name not in recipe_names():
            raise unknown_name("recipe", name, recipe_names())
        own = definitions("recipes") / f"{name}.toml"
    content = read_toml(own)
    for key, hint in (("name", "Its name is the file's."), ("adversarial", "Pass --adversarial pgd-2 --eps 4/255.")):
        if key in content:
            raise UserError(f"{own}: {key} is no key of a recipe.", hint)
    return validated(TrainingRecipe, {"name": own.stem, **content}, str(own), _HINT)
