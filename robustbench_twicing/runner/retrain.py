"""Every setting of a sweep trained on its own, once for each seed; what is trained already is kept."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from robustbench_twicing.catalog.recipes import training_recipe
from robustbench_twicing.catalog.zoo import model_spec
from robustbench_twicing.errors import UserError

if TYPE_CHECKING:
    from robustbench_twicing.inside.sweep import Retrained, Setting
    from robustbench_twicing.models.classifier import Classifier


_PLAIN = "deit"
"""The zoo's digits network; `deit-tw` is the same with another attention."""


class Retraining(NamedTuple):
    """How every setting is trained."""

    recipe: str
    """A name, or a TOML file."""
    seeds: tuple[int, ...]
    folder: Path
    """Where the weights go, and are found again."""


def retrained(
    model: "Classifier", settings: "Sequence[Setting]", how: Retraining, say: Callable[[str], None]
) -> "Iterator[Retrained]":
    """Train what is not there yet, side by side on the machine's cores, then load all of it.

    A file counts only if its metadata state this network, attention, seed and recipe. Raises `UserError` for a file
    that states something else, and for a network that the digits cannot be trained with.
    """
    from robustbench_twicing.inside.sweep import Retrained
    from robustbench_twicing.machine.cores import usable_cores
    from robustbench_twicing.models.build import load_model
    from robustbench_twicing.train.several import Training, still_to_train, train_several

    base, recipe = _base(model), training_recipe(how.recipe)
    names = {setting.attention: f"{base}+{setting.attention}" for setting in settings}
    wanted = [
        Training(name, seed, how.folder / f"{name}-s{seed}.safetensors", recipe)
        for seed in how.seeds
        for name in names.values()
    ]
    left = still_to_train(wanted)
    say(f"{model.card.spec.name}: {len(wanted) - len(left)} of {len(wanted)} trainings are there, {len(left)} to do …")
    for done, (one, outcome) in enumerate(train_several(left, usable_cores()) if left else (), start=1):
        say(f"{one.model}, seed {one.seed}: trained in {outcome.seconds:.0f} s, {done} of {len(left)} …")
    paths = {(one.model, one.seed): one.path for one in wanted}
    for setting in settings:
        name = names[setting.attention]
        for seed in how.seeds:
            spec = model_spec(f"{name}={paths[name, seed]}", "digits")
            yield Retrained(setting, seed, load_model(spec, next(model.buffers()).device))


def _base(model: "Classifier") -> str:
    """The zoo's name of a model's network."""
    spec = model.card.spec
    if not (spec.in_memory or spec.is_plugged) and spec.architecture == model_spec(_PLAIN, "digits").architecture:
        return _PLAIN
    raise UserError(
        f"{spec.name} is {spec.architecture or 'a model of your own'}, which --retrain cannot train.",
        "It trains the embedded digits models: --model deit, --model deit-tw. Others: twicing-bench train.",
    )
