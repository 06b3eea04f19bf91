"""The Python API: evaluate models, load a run that was made before.

Reading a run needs no torch; it is imported when something is evaluated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from robustbench_twicing.catalog.config import settings
from robustbench_twicing.catalog.mistakes import Mistakes, MistakesError, Place
from robustbench_twicing.catalog.plans import read_plan
from robustbench_twicing.catalog.resolve import Stated, state
from robustbench_twicing.catalog.words import from_python, in_form, word_of
from robustbench_twicing.catalog.zoo import labelled
from robustbench_twicing.errors import UserError, unknown_name
from robustbench_twicing.machine.surroundings import left_alone, plain_torch
from robustbench_twicing.results import history
from robustbench_twicing.results.arms import ArmComparisons, compare_run
from robustbench_twicing.results.baselines import load_baseline
from robustbench_twicing.results.comparison import Comparisons, compare_sides
from robustbench_twicing.results.gate import GateResult, check_run
from robustbench_twicing.results.generated import GENERATED, OFFICIAL, generated_against_official
from robustbench_twicing.results.of_plans import load_finished, plan_folder, run_folder, stated_arms
from robustbench_twicing.results.run import Run, load_run
from robustbench_twicing.results.run import load_finished as read_finished
from robustbench_twicing.results.sides import sides_of, still_to_do
from robustbench_twicing.results.store import RunFolder
from robustbench_twicing.spec.means import Means
from robustbench_twicing.spec.models import ModelSpec
from robustbench_twicing.spec.plan import EMBEDDED, EMBEDDED_SIDE, Cell
from robustbench_twicing.spec.policy import Policy

if TYPE_CHECKING:
    from robustbench_twicing.runner.estimate import Cost
    from robustbench_twicing.tasks.task import Progress

__all__ = [
    "GENERATED",
    "OFFICIAL",
    "Run",
    "check_generated",
    "compare",
    "compare_arms",
    "estimate_plan_file",
    "evaluate",
    "gate",
    "generated_against_official",
    "load_finished",
    "load_run",
    "plan_folder",
    "run_folder",
    "run_plan_file",
    "stated_arms",
    "still_to_do",
]


Begin = Callable[[dict[Cell, tuple[int, int]]], "Progress"]
"""Who is told what is to be done, and follows it: see `runner.run.run_plan`."""


Mine = Callable[..., Any]
"""A model of the user's own: a module, or anything else that can be called."""


class Own(NamedTuple):
    """A model of the user's own, and what was said about it."""

    model: Mine
    image_size: int | None = None
    """Side of its images in pixels; None: to be found."""
    version: str = ""
    """By which the user vouches that its code is the same; empty: finished samples are not used again."""


def evaluate(
    models: str | Mine | Sequence[str | Mine] | Mapping[str, str | Mine],
    *,
    image_size: int | Mapping[str, int] | None = None,
    versions: Mapping[str, str] | None = None,
    attacks: str | Sequence[str] | None = None,
    eps: str | float | Sequence[str | float] | None = None,
    protocol: str = "standard",
    engine: str = "own",
    worst_case: bool = False,
    precision: str = "float32",
    eight_bit: bool = False,
    source_model: str | None = None,
    suites: str | Sequence[str] = (),
    corruptions: str | Sequence[str] = (),
    severities: int | Sequence[int] = (),
    data: str | None = None,
    recipe: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    weights: str = "raw",
    resample_pos_embed: bool = False,
    checkpoints: Mapping[str, str] | None = None,
    directories: Mapping[str, str | Path] | None = None,
    device: str | None = None,
    batch_size: int | None = None,
    preflight: bool = True,
    attention_path: str | None = None,
    compiles: bool = False,
    frost_dir: str | None = None,
    fresh: bool = False,
    out: str | Path | None = None,
    begin: Begin | None = None,
) -> Run:
    """Run models under attacks, suites or both, and return the finished run. The same call again continues one.

    `models`: names (`"deit"`, `"deit-tw=checkpoint.pth"`), or modules of your own as `{"name": module}`, or functions,
    that take RGB images in [0, 1] and return logits: put normalisation inside. They are frozen and put into eval mode
    while they are evaluated, and are afterwards as they were. Where images are prepared for the model, `image_size`
    says how large those for modules of your own are, for all or by name; left out, it is looked for. Nobody can see
    whether such a module's code has changed, so it is always computed anew, unless `versions` gives it one by its name:
    then the same call continues, as it does for models that have names. `attacks` left out takes the protocol's own
    list, unless `suites` are named and no `eps`. `eps` as papers write it ("1/255", which is the default), or a number:
    8/255, 0.03. `suites`: such as `"digits-c"`, `"imagenet-a"`, with `corruptions` and `severities` of those that have
    some.

    The other arguments are the fields of `spec.experiment.Experiment` and `spec.means.Means`, which say what each of
    them means; those that are left out may be configured (docs/configuration.md: where data lies, checkpoints, device,
    frost pictures). `begin` follows the progress. Raises `UserError` for anything that can be put right, all of it at
    once where it can be told before torch is imported.
    """
    said = dict(locals())
    begin, (named, own) = said.pop("begin"), _told_apart(said.pop("models"))
    mistakes = Mistakes()
    about_own = {key: _about(own, key, said.pop(key), mistakes) for key in ("image_size", "versions")}
    content = in_form({"models": named, **from_python(said)}, not suites, mistakes)
    try:
        stated = state(content, settings(), mistakes)
    except MistakesError as error:
        raise error.said(_argument) from None
    sizes, named_versions = about_own["image_size"], about_own["versions"]
    given = {name: Own(model, sizes.get(name), named_versions.get(name, "")) for name, model in own.items()}
    return carry_out(stated, begin, given)


def _argument(place: Place) -> str:
    return f"{word_of(place)}=…"


def _told_apart(models: Any) -> tuple[list[Any], dict[str, Mine]]:
    """Models as an experiment names them, and the user's own by name. What is neither is left as it is."""
    if isinstance(models, str) or _is_own(models) or not isinstance(models, Iterable):
        models = [models]
    named = models.items() if isinstance(models, Mapping) else ((None, model) for model in models)
    texts: list[Any] = []
    own: dict[str, Mine] = {}
    for key, model in named:
        if _is_own(model):
            kind = str(getattr(model, "__name__", type(model).__name__)).strip("<>")  # of a lambda it is <lambda>
            spec = ModelSpec(name=kind if key is None else str(key), architecture=kind, weights="memory:")
            own.setdefault(spec.name, model)
            texts.append(spec)
        elif isinstance(model, str) and key not in (None, model.partition("=")[0]):
            texts.append(labelled(model, str(key)))
        else:
            texts.append(model)
    return texts, own


def _is_own(value: Any) -> bool:
    """A module, or anything else that can be called. Whether it is a model turns out when it is."""
    return callable(value) and not isinstance(value, str)


def _about(own: Mapping[str, Mine], word: str, said: Any, mistakes: Mistakes) -> Mapping[str, Any]:
    """What was said about models of the user's own, by name."""
    by_name: Mapping[str, Any] = said if isinstance(said, Mapping) else {} if said is None else dict.fromkeys(own, said)
    for name, value in by_name.items():
        if name not in own:
            mistakes.add((word,), unknown_name("model of your own", str(name), own))
        elif word == "image_size" and not (type(value) is int and 1 <= value <= _LARGEST):
            mistakes.add((word,), f"{value!r} is no side of an image in pixels.", f"Write a number, 1 to {_LARGEST}.")
        elif word == "versions" and not isinstance(value, str):
            mistakes.add((word,), f"{value!r} is no version.", "Write a text, such as 'v2'.")
    return by_name


_LARGEST = 4096
"""Side of images in pixels."""


def carry_out(stated: Stated, begin: Begin | None = None, own: Mapping[str, Own] | None = None) -> Run:
    """Run what was stated at a door. `own` are models in memory, by the names of its models. Raises `UserError`."""
    own = own or {}
    with left_alone():
        from robustbench_twicing.machine.device import choose_device
        from robustbench_twicing.models.callers import as_they_were
        from robustbench_twicing.models.intake import wrap_model
        from robustbench_twicing.runner.run import run_plan

        with plain_torch(), as_they_were(one.model for one in own.values()):
            plan, means = stated.plan, stated.means
            where = choose_device(means.device)
            side = EMBEDDED_SIDE if plan.data.name == EMBEDDED else None
            wrapped = {}
            for name, one in own.items():
                if side and one.image_size not in (None, side):
                    what = f"The images of digits have {side} pixels a side, not the {one.image_size} of {name!r}."
                    raise UserError(what, "Leave image_size away.")
                wrapped[name] = wrap_model(name, one.model, side or one.image_size, where, one.version)
            specs = [wrapped[spec.name].card.spec if spec.name in wrapped else spec for spec in plan.models]
            plan = plan.model_copy(update={"models": tuple(specs)})
            return _finished(run_plan(plan, means, models=wrapped, begin=begin))


def check_generated(stated: Stated, begin: Begin | None = None) -> Run:
    """Run models on the official files of ImageNet-C and on the generated ones of the same photographs.

    `stated` has the suites `imagenet-c` and `imagenet-c-generated`. Raises `UserError`, before anything is computed,
    also if the two folders have no image in common. `generated_against_official` reads the run.
    """
    from robustbench_twicing.tasks.images.pairs import require_pairs

    require_pairs(stated.plan, stated.means)
    return carry_out(stated, begin)


def run_plan_file(plan: str | Path, means: Means | None = None, begin: Begin | None = None) -> Run:
    """Carry out a plan file, or the plan of that name that ships with the tool. The same call again continues.

    What is set in `means` wins over the plan's own, and those over what is configured in twicing-bench.toml, which
    also says the directories and checkpoints that the plan does not name. `out` left out is the plan's own folder
    (`plan_folder`). Raises `UserError`.
    """
    read = read_plan(plan, settings(), means)

    from robustbench_twicing.runner.run import run_plan

    notes = {"name": read.name, "title": read.title, "gate": read.gate.model_dump(mode="json"), "arms": read.arms}
    means = read.means.model_copy(update={"out": plan_folder(read)})
    return _finished(run_plan(read.plan, means, begin=begin, notes=notes))


def estimate_plan_file(plan: str | Path, means: Means | None = None) -> tuple[Cost, Path]:
    """What is left to do of a plan file, by counting and by a probe of at most about 30 s; and its folder."""
    read = read_plan(plan, settings(), means)

    from robustbench_twicing.runner.estimate import estimate

    folder = plan_folder(read)
    return estimate(read.plan, folder, read.means), folder


def compare(*what: str | Path, run: str | Path | None = None, alpha: float = 0.05) -> Comparisons:
    """Compare models on the same samples: a verdict for each threat, curves and suites.

    `compare("deit", "deit-tw", run=RUN)`: models of one run, the first being the baseline; without names, all of them.
    `compare(RUN)`: the same. `compare(RUN_A, RUN_B)`: the models that both runs have, or the only model of each. A run
    is a folder, a plan file, or a plan's name. Raises `UserError` for what is not there or cannot be compared.
    """
    return compare_sides(sides_of(what, run), alpha)


def compare_arms(
    run: str | Path,
    arms: Mapping[str, str | Sequence[str]] | None = None,
    *,
    images: Literal["random", "fixed"] = "random",
    alpha: float = 0.05,
) -> ArmComparisons:
    """Compare mechanisms by arms of training seeds: `{"deit": "deit@*", "deit-tw": "deit-tw@*"}`, the baseline first.

    The patterns are of model names, with `*` and `?` as in a shell. Left out, they are the arms of the run's plan.
    `images="fixed"` makes a statement about these images only. The family that Holm's correction counts is that of
    `compare`. Raises `UserError` for what is no arm (`results.arms.arms_of`), and as `load_finished`.
    """
    found = load_finished(run)
    named = stated_arms(run) if arms is None else arms
    patterns = {name: (some,) if isinstance(some, str) else tuple(some) for name, some in named.items()}
    return compare_run(found, patterns, images=images, alpha=alpha)


def gate(run: str | Path, baseline: str | Path, policy: Policy | None = None) -> GateResult:
    """Judge a run against a baseline. `policy` left out is that of the run's plan. Raises `UserError`."""
    return check_run(load_finished(run), load_baseline(Path(baseline)), policy)


def _finished(folder: RunFolder) -> Run:
    """A run that has just been carried out: read, with its summary written and its line in the history."""
    run = read_finished(folder.path)
    folder.write_summary(run.summary)
    remarks = [*run.remarks, *folder.remarks, history.add(run)]
    return replace(run, remarks=tuple(remark for remark in remarks if remark))
