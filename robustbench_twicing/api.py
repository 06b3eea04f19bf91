"""The Python API: evaluate models, load a run that was made before.

Reading a run needs no torch; it is imported when something is evaluated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import pandas as pd

from robustbench_twicing.catalog.config import settings
from robustbench_twicing.catalog.datasets import titles
from robustbench_twicing.catalog.plans import PlanFile, plan_names, read_plan
from robustbench_twicing.catalog.protocols import protocol as load_protocol
from robustbench_twicing.catalog.read_toml import validated
from robustbench_twicing.catalog.suites import suite as load_suite
from robustbench_twicing.catalog.threats import attack_threats, base_of, clean_threats, suite_threats
from robustbench_twicing.catalog.zoo import model_specs
from robustbench_twicing.errors import UserError, unknown_name
from robustbench_twicing.results import history
from robustbench_twicing.results.baselines import load_baseline
from robustbench_twicing.results.comparison import Comparisons, Side, compare_sides
from robustbench_twicing.results.gate import GateResult, check
from robustbench_twicing.results.manifest import manifest_shards
from robustbench_twicing.results.store import RUNS, RunFolder, Shard, is_there
from robustbench_twicing.results.summary import generated_differences, summarize, summarize_suites
from robustbench_twicing.spec.models import ModelSpec
from robustbench_twicing.spec.plan import Cell, Plan
from robustbench_twicing.spec.policy import Policy
from robustbench_twicing.spec.suite import SuiteDefinition
from robustbench_twicing.spec.threats import CleanThreat, CorruptionThreat, Precision, Threat
from robustbench_twicing.spec.values import content_hash

if TYPE_CHECKING:
    from torch import nn

    from robustbench_twicing.runner.estimate import Cost
    from robustbench_twicing.tasks.task import Progress


@dataclass(frozen=True)
class Run:
    """A run folder, read."""

    path: Path
    manifest: Mapping[str, Any]
    records: pd.DataFrame
    """One row per (model, threat, sample); columns in docs/records.md."""
    summary: pd.DataFrame
    """One row per (model, threat), computed from `records`."""
    suites: pd.DataFrame
    """One row per (model, suite): the figures over a whole suite; columns in docs/records.md."""
    remarks: tuple[str, ...] = ()
    """What happened while it was run or read, and a user should know: damaged, taken over or continued shards."""
    lacking: tuple[Shard, ...] = ()
    """What the manifest promises and `records` lacks: shards that are missing or damaged, or still to be done."""


def load_run(path: str | Path) -> Run:
    """Read a run folder and compute its summary again. Raises `UserError` if it is none."""
    folder = RunFolder(Path(path))
    manifest = folder.manifest()
    records = folder.records(manifest_shards(manifest))
    suites = _suites(manifest)
    figures = summarize(records, suites), summarize_suites(records, suites)
    return Run(folder.path, manifest, records, *figures, tuple(folder.remarks), tuple(folder.lacking))


def _suites(manifest: Mapping[str, Any]) -> dict[str, SuiteDefinition]:
    return {name: SuiteDefinition.model_validate(content) for name, content in manifest["suites"].items()}


def evaluate(
    models: str | Sequence[str] | Mapping[str, nn.Module],
    *,
    attacks: Sequence[str] | None = None,
    eps: str | Sequence[str] = "1/255",
    protocol: str = "standard",
    engine: str = "own",
    worst_case: bool = False,
    precision: str = "float32",
    eight_bit: bool = False,
    source_model: str | None = None,
    suites: Sequence[str] = (),
    corruptions: Sequence[str] = (),
    severities: Sequence[int] = (),
    data: str | None = None,
    directories: Mapping[str, str | Path] | None = None,
    recipe: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    weights: str = "raw",
    resample_pos_embed: bool = False,
    checkpoints: Mapping[str, str] | None = None,
    device: str = "auto",
    batch_size: int | None = None,
    preflight: bool = True,
    attention_path: str | None = None,
    compiles: bool = False,
    frost_dir: str | None = None,
    out: str | Path | None = None,
    begin: Callable[[dict[Cell, tuple[int, int]]], Progress] | None = None,
) -> Run:
    """Run models under attacks, suites or both, and return the finished run. The same call again continues one.

    `models`: names (`"deit"`, `"deit-tw=checkpoint.pth"`), or modules of your own as `{"name": module}` that take RGB
    images in [0, 1] and return logits: put normalisation inside; they are frozen, put into eval mode and, if they have
    convolutions, perhaps laid out channels-last. `attacks` left out takes the protocol's own list,
    unless `suites` are named; `eps` as papers write it ("1/255"). `worst_case` adds the row of all attacks together;
    `precision` is what they compute in (verdicts stay float32's), `eight_bit` adds the verdict on rounded pixels, and
    `source_model` names a model that the images are made on instead. `suites`: such as `"digits-c"`, `"imagenet-a"`,
    with `corruptions` and `severities` as in `suite_threats`. `data`: what is attacked; left out, `digits`, or what
    the suites are made from. `directories` says where data sets on disk lie. `recipe` overrides how images on disk are
    prepared. Of a training checkpoint, `weights` are read: "raw", "ema" or "both"; `resample_pos_embed` and
    `checkpoints` as in `catalog.zoo.model_specs`. `limit` samples per threat; None takes all of them, or what the
    protocol suggests for a dear attack. `batch_size` and `device` change the speed, not the draws. `preflight`: look
    at each model before it is attacked (`engine.preflight`). `attention_path`: "explicit" or "fused" for all models;
    left out, what is fastest. `compiles`: let attacks compute with models that torch.compile has translated, if a
    warm-up finds them faster; it takes seconds to minutes. `begin` follows the progress (see `runner.run.run_plan`).
    Raises `UserError` for anything that can be put right.
    """
    own = models if isinstance(models, Mapping) else {}
    names = [models] if isinstance(models, str) else list(models)
    if not names:
        raise UserError("No model was named.", "Pass at least one, such as 'deit-tw'.")
    places = {name: Path(place).expanduser() for name, place in (directories or {}).items()}
    # Everything that can be wrong without torch is found before torch is imported.
    base = base_of(suites) if suites else data or "digits"
    if base not in titles():
        raise unknown_name("data set", base, titles())
    if data not in (None, base):
        raise UserError(
            f"The suites {', '.join(suites)} are made from {base!r}, not from {data!r}.", "Leave --data away."
        )
    threats: list[Threat] = []
    if precision not in get_args(Precision):
        raise unknown_name("precision", precision, get_args(Precision))
    if not suites or attacks is not None:
        threats += attack_threats(
            attacks or (),
            [eps] if isinstance(eps, str) else eps,
            protocol,
            engine,
            worst_case,
            cast(Precision, precision),
            eight_bit,
            _one_model(source_model, base, weights, resample_pos_embed, checkpoints) if source_model else None,
        )
        recipe = recipe or (load_protocol(protocol).recipe if base != "digits" else None)
    for name in dict.fromkeys(suites):
        threats += suite_threats(name, corruptions, severities)
    if base == "digits" or base in places or not suites:
        threats = [*(clean_threats(suites) if suites else [CleanThreat()]), *threats]
    specs = [
        spec
        for name in names
        if name not in own
        for spec in model_specs(name, base, weights, resample_pos_embed, checkpoints)
    ]
    if own and load_protocol(protocol).rules.space == "normalized":
        raise UserError(
            f"Protocol {protocol!r} attacks normalised images, and a module of your own hides its normalisation.",
            "Use protocol='standard', or load the model by name.",
        )

    def plan(all_specs: Sequence[ModelSpec]) -> Plan:
        content = {"models": all_specs, "threats": threats, "data": {"name": base, "limit": limit}, "recipe": recipe}
        return validated(Plan, {**content, "seed": seed}, "The run", "Name every model and every threat once.")

    plan(specs)

    from robustbench_twicing.machine.device import choose_device
    from robustbench_twicing.models.build import wrap_model
    from robustbench_twicing.runner.run import run_plan, without_progress

    where = choose_device(device)
    wrapped = {name: wrap_model(name, module, 32 if base == "digits" else 224, where) for name, module in own.items()}
    folder = run_plan(
        plan([*specs, *(model.card.spec for model in wrapped.values())]),
        Path(out) if out else None,
        places,
        where,
        batch_size,
        wrapped,
        begin or without_progress,
        frost_dir,
        preflight=preflight,
        attention_path=attention_path,
        compiles=compiles,
    )
    return _finished(folder)


OFFICIAL, GENERATED = "imagenet-c", "imagenet-c-generated"
"""The suite of files, and the one that is computed and is not the same."""


def check_generated(
    models: str | Sequence[str] | Mapping[str, nn.Module],
    *,
    directories: Mapping[str, str | Path],
    corruptions: Sequence[str] = (),
    severities: Sequence[int] = (),
    **how: Any,
) -> Run:
    """Run models on the official files of ImageNet-C and on the generated ones of the same photographs.

    `directories` names `imagenet` and `imagenet-c`; everything else is as in `evaluate`. Raises `UserError`, before
    anything is computed, also if the two folders have no image in common. `generated_against_official` reads the run.
    """
    from robustbench_twicing.data.imagenet import index_images
    from robustbench_twicing.data.layout import find_suite, some
    from robustbench_twicing.spec.suite import Part

    for name in ("imagenet", OFFICIAL):
        if name not in directories:
            raise UserError(f"No folder is known for {name!r}.", f"Pass --data-dir {name}=/path/to/it.")
    parts = [
        Part(threat.corruption, threat.severity)
        for threat in suite_threats(OFFICIAL, corruptions, severities)
        if isinstance(threat, CorruptionThreat)
    ]
    files = find_suite(load_suite(OFFICIAL), Path(directories[OFFICIAL]).expanduser())
    missing = [str(part) for part in parts if part not in files.roots]
    if missing:
        raise UserError(
            f"{files.tree.root} lacks {len(missing)} of {len(parts)} (corruption, severity) pairs: {some(missing)}.",
            "Name those to compare with --corruption (such as common, the 15 of the mCE) and --severity.",
        )
    originals = index_images(find_suite(load_suite("imagenet"), Path(directories["imagenet"]).expanduser()))
    copies = index_images(files, parts[0])
    if not set(originals.sample_ids) & set(copies.sample_ids):
        raise UserError(
            f"{copies.tree.root} and {originals.tree.root} have no image in common: one has {copies.sample_ids[0]}, "
            f"the other {originals.sample_ids[0]}.",
            "A corrupted file keeps the class folder and the name of the photograph that it was made from.",
        )
    suites = [OFFICIAL, GENERATED]
    return evaluate(
        models, suites=suites, corruptions=corruptions, severities=severities, directories=directories, **how
    )


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


def _one_model(name: str, *how: Any) -> ModelSpec:
    specs = model_specs(name, *how)
    if len(specs) > 1:
        raise UserError(f"{name!r} is {len(specs)} models with these weights.", "Pass --weights raw or --weights ema.")
    return specs[0]


def run_plan_file(
    plan: str | Path,
    *,
    device: str = "auto",
    batch_size: int | None = None,
    out: str | Path | None = None,
    reuse: bool = True,
    preflight: bool = True,
    begin: Callable[[dict[Cell, tuple[int, int]]], Progress] | None = None,
) -> Run:
    """Carry out a plan file, or the plan of that name that ships with the tool. The same call again continues.

    Directories and checkpoints that the plan does not name come from twicing-bench.toml (`catalog.config`).
    `reuse` takes over what other runs under results/runs have finished with the same code, versions and device. `out`
    left out is the plan's own folder (`plan_folder`). Raises `UserError`.
    """
    read = read_plan(plan, settings())

    from robustbench_twicing.machine.device import choose_device
    from robustbench_twicing.runner.run import run_plan, without_progress

    folder = run_plan(
        read.plan,
        Path(out) if out else plan_folder(read),
        read.directories,
        choose_device(device),
        batch_size,
        {},
        begin or without_progress,
        settings().default("frost-dir"),
        notes={"name": read.name, "title": read.title, "gate": read.gate.model_dump(mode="json")},
        reuse=reuse,
        preflight=preflight,
    )
    return _finished(folder)


def estimate_plan_file(
    plan: str | Path,
    *,
    device: str = "auto",
    batch_size: int | None = None,
    out: str | Path | None = None,
    reuse: bool = True,
) -> tuple[Cost, Path]:
    """What is left to do of a plan file, by counting and by a probe of at most about 30 s; and its folder."""
    read = read_plan(plan, settings())

    from robustbench_twicing.machine.device import choose_device
    from robustbench_twicing.runner.estimate import estimate

    folder = Path(out) if out else plan_folder(read)
    where = choose_device(device)
    frost_dir = settings().default("frost-dir")
    return estimate(read.plan, folder, read.directories, where, batch_size, frost_dir, reuse), folder


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
    found = load_run(path)
    if found.manifest["status"] != "finished":
        raise UserError(f"The run in {path} is not finished.", "The command that began it, given again, continues it.")
    if found.lacking:
        one = found.lacking[0]
        raise UserError(
            f"The run in {path} lacks {len(found.lacking)} of its shards, damaged or lost: {one.cell}, samples "
            f"{one.start} to {one.stop - 1}{', …' if len(found.lacking) > 1 else ''}.",
            "The command that made it, given again, computes them again.",
        )
    return found


def _unfinished_plan(name: str | Path) -> PlanFile | None:
    """The plan of this name if its own run is still to be done. Raises `UserError` if the plan is wrong."""
    plan = _plan_named(name)
    folder = RunFolder(plan_folder(plan)) if plan else None
    finished = folder is not None and folder.exists() and folder.manifest()["status"] == "finished"
    return None if finished else plan


def _plan_named(name: str | Path) -> PlanFile | None:
    """The plan of a TOML file, or the one of that name that ships, unless a run folder is called so."""
    path = Path(name)
    is_plan = path.suffix == ".toml" or (str(name) in plan_names() and not path.exists())
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
                    Side(f"{left} in {one.path.name}", _rows(one, left), _suites(one.manifest)),
                    Side(f"{right} in {other.path.name}", _rows(other, right), _suites(other.manifest)),
                )
                for left, right in _shared(_models(one), _models(other))
            ],
            alpha,
        )
    place, names = _one_run(what, run)
    one = load_finished(place)
    baseline, *others = (
        Side(name, _rows(one, name), _suites(one.manifest)) for name in _chosen(names, _models(one), one.path)
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
    return list(run.records["model"].unique()) if isinstance(run, Run) else [model.name for model in run.plan.models]


def _rows(run: Run, model: str) -> pd.DataFrame:
    return run.records[run.records["model"] == model]


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
    found = load_finished(run)
    if policy is None:
        policy = Policy.model_validate(found.manifest.get("gate", {}))
    return check(found.records, load_baseline(Path(baseline)).records, policy)


def _finished(folder: RunFolder) -> Run:
    """A run that has just been carried out: read, with its summary written and its line in the history."""
    run = load_run(folder.path)
    folder.write_summary(run.summary)
    remarks = [*folder.remarks, *run.remarks, history.add(folder)]
    return replace(run, remarks=tuple(remark for remark in remarks if remark))
