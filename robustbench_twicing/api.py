"""The Python API. Reading a run needs no torch; it is imported when something is evaluated."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from robustbench_twicing.catalog.in_python import Mine, stated_in_python
from robustbench_twicing.report.notebook import followed_in_notebooks, show_in_notebooks
from robustbench_twicing.results.arm_comparison import ArmComparisons, compare_mechanisms
from robustbench_twicing.results.arms import ARM_COLUMNS, arms_of
from robustbench_twicing.results.baselines import load_baseline
from robustbench_twicing.results.comparison import Comparisons, compare_sides
from robustbench_twicing.results.gate import GateResult, check_run
from robustbench_twicing.results.generated import GENERATED, OFFICIAL, generated_against_official
from robustbench_twicing.results.of_plans import load_finished, plan_folder, run_folder, stated_arms
from robustbench_twicing.results.run import Run, load_cells, load_run
from robustbench_twicing.results.sides import sides_of, still_to_do
from robustbench_twicing.runner.carry_out import Begin, carry_out, check_generated, estimate_plan_file, run_plan_file
from robustbench_twicing.spec.arms import listed
from robustbench_twicing.spec.policy import Policy

__all__ = [
    "GENERATED",
    "OFFICIAL",
    "Run",
    "carry_out",
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

show_in_notebooks()


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
    eot: int = 1,
    eight_bit: bool = False,
    source_model: str | Sequence[str] | None = None,
    suites: str | Sequence[str] = (),
    corruptions: str | Sequence[str] = (),
    severities: int | Sequence[int] = (),
    data: str | None = None,
    text: str | Path | None = None,
    window: str | None = None,
    ids: str | Sequence[str] = (),
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
    keep_images: int | None = None,
    executor: str = "local",
    address: str | None = None,
    gpus_per_model: float | None = None,
    workers: int | None = None,
    fresh: bool = False,
    out: str | Path | None = None,
    begin: Begin | None = None,
) -> Run:
    """Run models under attacks, suites or both, and return the finished run. The same call again continues one.

    `models`: names (`"deit"`, `"deit-tw=checkpoint.pth"`), or modules of your own as `{"name": module}`, or functions,
    that take RGB images in [0, 1] and return logits: put normalisation inside. They are evaluated frozen and in eval
    mode, and are afterwards as they were. `image_size`: of their images, for all or by name; left out, it is looked
    for. A module is computed anew, since its code may have changed, unless `versions` gives it one by its name; then
    the same call continues, as it does for models with names. `attacks` left out takes the protocol's own list, unless
    `suites` are named and no `eps`. `eps` as papers write it ("1/255", the default), or a number: 8/255, 0.03.
    `suites`: such as `"digits-c"`. With a `text`, the name or file of one, models are language models, in a `window`
    (docs/language.md). The rest is `Experiment`'s and `Means`'. `begin` follows, or a bar. Raises `UserError`.
    """
    said = dict(locals())
    with followed_in_notebooks(said.pop("begin")) as begin:
        stated, own = stated_in_python(said)
        return carry_out(stated, begin, own)


def compare(
    *what: str | Path,
    run: str | Path | None = None,
    alpha: float = 0.05,
    margin: float | None = None,
    until_decided: bool = False,
    max_t: bool = False,
) -> Comparisons:
    """Compare models on the same samples: a verdict for each threat, curves and suites.

    `compare("deit", "deit-tw", run=RUN)`: models of one run, the first being the baseline; without names, all of them.
    `compare(RUN)`: the same. `compare(RUN_A, RUN_B)`: the models that both runs have, or the only model of each. A run
    is a folder, a plan file, or a plan's name. With a `margin`, a fraction chosen beforehand, each row also says
    whether that size is ruled out. `until_decided`: verdicts hold over all looks, with more images each time. `max_t`
    corrects the family by `metrics.max_t`, not Holm. Raises `UserError`.
    """
    return compare_sides(sides_of(what, run), alpha, margin=margin, sequential=until_decided, by_max_t=max_t)


def compare_arms(
    run: str | Path,
    arms: Mapping[str, str | Sequence[str]] | None = None,
    *,
    images: Literal["random", "fixed"] = "random",
    alpha: float = 0.05,
    margin: float | None = None,
) -> ArmComparisons:
    """Compare mechanisms by arms of training seeds: `{"deit": "deit@*", "deit-tw": "deit-tw@*"}`, the baseline first.

    Patterns are of model names, with `*` and `?` as in a shell; left out, they are the arms of the run's plan. With
    `images="fixed"` it speaks of these images only. `margin` as in `compare`. Raises `UserError` for what is no arm.
    """
    manifest, cells = load_cells(run_folder(run), ARM_COLUMNS)
    found = arms_of(cells, listed(stated_arms(run) if arms is None else arms))
    return compare_mechanisms(manifest, found, images=images, alpha=alpha, margin=margin)


def gate(
    run: str | Path,
    baseline: str | Path,
    policy: Policy | None = None,
    arms: Mapping[str, str | Sequence[str]] | None = None,
) -> GateResult:
    """Judge a run against a baseline. `policy` and `arms` left out are those of the run's plan. Raises `UserError`."""
    return check_run(load_finished(run), load_baseline(Path(baseline)), policy, None if arms is None else listed(arms))
