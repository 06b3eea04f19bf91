"""The Python API: evaluate models, load a run that was made before.

Reading a run needs no torch; it is imported when something is evaluated.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from robustbench_twicing.catalog.config import settings
from robustbench_twicing.catalog.mistakes import Mistakes, MistakesError, Place
from robustbench_twicing.catalog.plans import PlanFile, plan_names, read_plan
from robustbench_twicing.catalog.resolve import Stated, state
from robustbench_twicing.catalog.suites import suite as load_suite
from robustbench_twicing.catalog.words import from_python, in_form, word_of
from robustbench_twicing.catalog.zoo import labelled
from robustbench_twicing.errors import UserError, unknown_name
from robustbench_twicing.results import history
from robustbench_twicing.results.baselines import load_baseline
from robustbench_twicing.results.comparison import Comparisons, Side, compare_sides
from robustbench_twicing.results.gate import GateResult, check_run
from robustbench_twicing.results.run import Run, load_run
from robustbench_twicing.results.run import load_finished as read_finished
from robustbench_twicing.results.store import RUNS, RunFolder, is_there
from robustbench_twicing.results.summary import generated_differences
from robustbench_twicing.spec.means import Means
from robustbench_twicing.spec.models import ModelSpec
from robustbench_twicing.spec.plan import Cell
from robustbench_twicing.spec.policy import Policy
from robustbench_twicing.spec.threats import CorruptionThreat
from robustbench_twicing.spec.values import content_hash

if TYPE_CHECKING:
    from torch import nn

    from robustbench_twicing.runner.estimate import Cost
    from robustbench_twicing.tasks.task import Progress


__all__ = [
    "Run",
    "check_generated",
    "compare",
    "estimate_plan_file",
    "evaluate",
    "gate",
    "generated_against_official",
    "load_finished",
    "load_run",
    "plan_folder",
    "run_plan_file",
    "still_to_do",
]


Begin = Callable[[dict[Cell, tuple[int, int]]], "Progress"]
"""Who is told what is to be done, and follows it: see `runner.run.run_plan`."""


def evaluate(
    models: str | nn.Module | Sequence[str | nn.Module] | Mapping[str, str | nn.Module],
    *,
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

    `models`: names (`"deit"`, `"deit-tw=checkpoint.pth"`), or modules of your own as `{"name": module}` that take RGB
    images in [0, 1] and return logits: put normalisation inside; they are frozen, put into eval mode and, if they have
    convolutions, perhaps laid out channels-last. `attacks` left out takes the protocol's own list, unless `suites` are
    named and no `eps`. `eps` as papers write it ("1/255", which is the default), or a number: 8/255, 0.03. `suites`:
    such as `"digits-c"`, `"imagenet-a"`, with `corruptions` and `severities` of those that have some.

    The other arguments are the fields of `spec.experiment.Experiment` and `spec.means.Means`, which say what each of
    them means; those that are left out may be configured (docs/configuration.md: where data lies, checkpoints, device,
    frost pictures). `begin` follows the progress. Raises `UserError` for anything that can be put right, all of it at
    once where it can be told before torch is imported.
    """
    said = dict(locals())
    begin, (named, own) = said.pop("begin"), _told_apart(said.pop("models"))
    mistakes = Mistakes()
    content = in_form({"models": named, **from_python(said)}, not suites, mistakes)
    try:
        stated = state(content, settings(), mistakes)
    except MistakesError as error:
        raise error.said(_argument) from None
    return carry_out(stated, begin, own)


def _argument(place: Place) -> str:
    return f"{word_of(place)}=…"


def _told_apart(models: Any) -> tuple[list[Any], dict[str, nn.Module]]:
    """Models as an experiment names them, and the modules among them by name. What is neither is left as it is."""
    if isinstance(models, str) or not isinstance(models, Iterable):
        models = [models]
    named = models.items() if isinstance(models, Mapping) else ((None, model) for model in models)
    texts: list[Any] = []
    own: dict[str, nn.Module] = {}
    for key, model in named:
        if _is_module(model):
            spec = ModelSpec(name=key or type(model).__name__, architecture=type(model).__name__, weights="memory:")
            own.setdefault(spec.name, model)
            texts.append(spec)
        elif isinstance(model, str) and key not in (None, model.partition("=")[0]):
            texts.append(labelled(model, str(key)))
        else:
            texts.append(model)
    return texts, own


def _is_module(value: Any) -> bool:
    torch = sys.modules.get("torch")  # whoever has a module has imported it
    return torch is not None and isinstance(value, torch.nn.Module)


def carry_out(stated: Stated, begin: Begin | None = None, own: Mapping[str, nn.Module] | None = None) -> Run:
    """Run what was stated at a door. `own` are modules in memory, by the names of its models. Raises `UserError`."""
    from robustbench_twicing.machine.device import choose_device
    from robustbench_twicing.models.build import wrap_model
    from robustbench_twicing.runner.run import run_plan

    plan, means = stated.plan, stated.means
    where = choose_device(means.device)
    size = 32 if plan.data.name == "digits" else 224
    wrapped = {name: wrap_model(name, module, size, where) for name, module in (own or {}).items()}
    specs = [wrapped[spec.name].card.spec if spec.name in wrapped else spec for spec in plan.models]
    plan = plan.model_copy(update={"models": tuple(specs)})
    return _finished(run_plan(plan, means, models=wrapped, begin=begin))


OFFICIAL, GENERATED = "imagenet-c", "imagenet-c-generated"
"""The suite of files, and the one that is computed and is not the same."""


def check_generated(stated: Stated, begin: Begin | None = None) -> Run:
    """Run models on the official files of ImageNet-C and on the generated ones of the same photographs.

    `stated` has the suites `imagenet-c` and `imagenet-c-generated`. Raises `UserError`, before anything is computed,
    also if the two folders have no image in common. `generated_against_official` reads the run.
    """
    from robustbench_twicing.data.contents import some
    from robustbench_twicing.data.imagenet import index_images
    from robustbench_twicing.data.layout import find_suite
    from robustbench_twicing.spec.suite import Part

    directories = stated.means.directories
    for name in ("imagenet", OFFICIAL):
        if name not in directories:
            raise UserError(f"No folder is known for {name!r}.", f"Pass --data-dir {name}=/path/to/it.")
    parts = [
        Part(threat.corruption, threat.severity)
        for threat in stated.plan.threats
        if isinstance(threat, CorruptionThreat) and threat.suite == OFFICIAL
    ]
    files = find_suite(load_suite(OFFICIAL), directories[OFFICIAL])
    missing = [str(part) for part in parts if part not in files.roots]
    if missing:
        raise UserError(
            f"{files.tree.root} lacks {len(missing)} of {len(parts)} (corruption, severity) pairs: {some(missing)}.",
            "Name those to compare with --corruption (such as common, the 15 of the mCE) and --severity.",
        )
    originals = index_images(find_suite(load_suite("imagenet"), directories["imagenet"]))
    copies = index_images(files, parts[0])
    if not set(originals.sample_ids) & set(copies.sample_ids):
        raise UserError(
            f"{copies.tree.root} and {originals.tree.root} have no image in common: one has {copies.sample_ids[0]}, "
            f"the other {originals.sample_ids[0]}.",
            "A corrupted file keeps the class folder and the name of the photograph that it was made from.",
        )
    return carry_out(stated, begin)


def generated_against_official(run: Run) -> pd.DataFrame:
    """What `check_generated` found: columns as in `summary.generated_differences`. Raises `UserError` if there is
    nothing to compare, since no sample was answered in both suites.
    """
    rows = generated_differences(run.records, OFFICIAL, GENERATED)
    if rows.empty:
        raise UserError(
            f"No image was answered in both suites; the records in {run.path} say why.",
            "If only few photographs lie in both folders, a --limit may have left them out.",
        )
    return rows


def run_plan_file(plan: str | Path, means: Means | None = None, begin: Begin | None = None) -> Run:
    """Carry out a plan file, or the plan of that name that ships with the tool. The same call again continues.

    What is set in `means` wins over the plan's own, and those over what is configured in twicing-bench.toml, which
    also says the directories and checkpoints that the plan does not name. `out` left out is the plan's own folder
    (`plan_folder`). Raises `UserError`.
    """
    read = read_plan(plan, settings(), means)

    from robustbench_twicing.runner.run import run_plan

    notes = {"name": read.name, "title": read.title, "gate": read.gate.model_dump(mode="json")}
    means = read.means.model_copy(update={"out": read.means.out or plan_folder(read)})
    return _finished(run_plan(read.plan, means, begin=begin, notes=notes))


def estimate_plan_file(plan: str | Path, means: Means | None = None) -> tuple[Cost, Path]:
    """What is left to do of a plan file, by counting and by a probe of at most about 30 s; and its folder."""
    read = read_plan(plan, settings(), means)

    from robustbench_twicing.runner.estimate import estimate

    folder = read.means.out or plan_folder(read)
    return estimate(read.plan, folder, read.means), folder


def plan_folder(plan: PlanFile) -> Path:
    """Where a plan file's run goes: named after the plan, and after the content of its checkpoints.

    New weights in an old file are a new run; the old one stays.
    """
    files = {spec.weights.removeprefix("file:") for spec in plan.plan.models if spec.weights.startswith("file:")}
    digests = {file: sha256(Path(file).expanduser().read_bytes()).hexdigest() for file in sorted(files)}
    content = content_hash({"plan": plan.plan.model_dump(mode="json"), "checkpoints": digests})
    return RUNS / f"{plan.name}-{content}"


def load_finished(run: str | Path) -> Run:
    """A finished run: from its folder, or that of a plan (a TOML file, or a plan's name). Raises `UserError`."""
    plan = _plan_named(run)
    path = plan_folder(plan) if plan else Path(run)
    there = is_there(path)
    if plan and not there:
        raise UserError(f"The plan {run} was not carried out yet.", f"Run: twicing-bench run {run}")
    if not there:
        raise UserError(
            f"There is no run {str(run)!r}.",
            "Name a run folder or a plan. Models of one run are compared with: compare MODEL_A MODEL_B --run RUN",
        )
    return read_finished(path)


def _unfinished_plan(name: str | Path) -> PlanFile | None:
    """The plan of this name if its own run is still to be done. Raises `UserError` if the plan is wrong."""
    plan = _plan_named(name)
    folder = RunFolder(plan_folder(plan)) if plan else None
    finished = folder is not None and folder.exists() and folder.manifest().status == "finished"
    return None if finished else plan


def _plan_named(name: str | Path) -> PlanFile | None:
    """The plan of a TOML file, or the one of that name that ships, unless a run folder is called so."""
    path = Path(name)
    is_plan = path.suffix == ".toml" or (not is_there(path) and str(name) in plan_names())
    return read_plan(name, settings()) if is_plan else None


def compare(*what: str | Path, run: str | Path | None = None, alpha: float = 0.05) -> Comparisons:
    """Compare models on the same samples: a verdict for each threat, curves and suites.

    `compare("deit", "deit-tw", run=RUN)`: models of one run, the first being the baseline; without names, all of them.
    `compare(RUN)`: the same. `compare(RUN_A, RUN_B)`: the models that both runs have, or the only model of each. A run
    is a folder, a plan file, or a plan's name. Raises `UserError` for what is not there or cannot be compared.
    """
    if run is None and len(what) == 2:
        one, other = (load_finished(place) for place in what)
        return compare_sides(
            [
                (
                    Side(f"{left} in {one.path.name}", one.rows(left), one.manifest.suites),
                    Side(f"{right} in {other.path.name}", other.rows(right), other.manifest.suites),
                )
                for left, right in _shared(_models(one), _models(other))
            ],
            alpha,
        )
    place, names = _one_run(what, run)
    one = load_finished(place)
    baseline, *others = (
        Side(name, one.rows(name), one.manifest.suites) for name in _chosen(names, _models(one), one.path)
    )
    return compare_sides([(baseline, side) for side in others], alpha)


def still_to_do(*what: str | Path, run: str | Path | None = None) -> list[str | Path]:
    """Of what `compare` is given the plans whose own runs are not finished yet.

    Raises `UserError` as `compare` would for the other runs and for the names of models: before a plan takes hours.
    """
    plans = {place: _unfinished_plan(place) for place in (what if run is None else (run,))}
    if run is None and len(what) == 2:
        _shared(*(_models(plans[place] or load_finished(place)) for place in what))
    else:
        place, names = _one_run(what, run)
        _chosen(names, _models(plans[place] or load_finished(place)), place)
    return [place for place, plan in plans.items() if plan]


def _one_run(what: Sequence[str | Path], run: str | Path | None) -> tuple[str | Path, list[str]]:
    """The run whose own models are compared, and their names: none for all of them."""
    if run is not None:
        return run, [str(name) for name in what]
    if len(what) != 1:
        raise UserError(f"Cannot compare {len(what)} runs.", "Name two runs, or one run with its models: --run RUN.")
    return what[0], []


def _models(run: Run | PlanFile) -> list[str]:
    return run.models if isinstance(run, Run) else [model.name for model in run.plan.models]


def _chosen(names: Sequence[str], known: Sequence[str], place: str | Path) -> list[str]:
    """At least two models of one run, the baseline first."""
    for name in names:
        if name not in known:
            raise unknown_name("model", name, known)
    chosen = list(dict.fromkeys(names or known))
    if len(chosen) < 2:
        raise UserError(
            f"{place} has nothing to compare {', '.join(chosen) or 'a model'} with; it holds {', '.join(known)}.",
            "Name two of its models, or another run.",
        )
    return chosen


def _shared(left: Sequence[str], right: Sequence[str]) -> list[tuple[str, str]]:
    """The models that both of two runs have, or the only model of each."""
    pairs = [(name, name) for name in left if name in right]
    if not pairs and len(left) == len(right) == 1:
        pairs = [(left[0], right[0])]
    if not pairs:
        raise UserError(
            f"The runs share no model: {', '.join(left)} | {', '.join(right)}.",
            "Give the models the same name in both, or run them together and compare with --run.",
        )
    return pairs


def gate(run: str | Path, baseline: str | Path, policy: Policy | None = None) -> GateResult:
    """Judge a run against a baseline. `policy` left out is that of the run's plan. Raises `UserError`."""
    return check_run(load_finished(run), load_baseline(Path(baseline)), policy)


def _finished(folder: RunFolder) -> Run:
    """A run that has just been carried out: read, with its summary written and its line in the history."""
    run = read_finished(folder.path)
    folder.write_summary(run.summary)
    remarks = [*folder.remarks, history.add(run)]
    return replace(run, remarks=tuple(remark for remark in remarks if remark))
