"""`twicing-bench train`."""

import os
import re
from contextlib import nullcontext
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import typer

from robustbench_twicing.cli.progress import Followed, bar, loading
from robustbench_twicing.cli.tracking import Log, tracked, trackers
from robustbench_twicing.errors import UserError
from robustbench_twicing.metrics.intervals import wilson_interval
from robustbench_twicing.report.numbers import count, duration, percent
from robustbench_twicing.report.text import say
from robustbench_twicing.results.store import require_writable

if TYPE_CHECKING:
    from robustbench_twicing.report.tracked_trainings import TrackedTrainings
    from robustbench_twicing.report.trackers import Asked
    from robustbench_twicing.spec.training import TrainingRecipe
    from robustbench_twicing.train.job import Equipment
    from robustbench_twicing.train.loop import Outcome
    from robustbench_twicing.train.loop import Progress as TrainingProgress

_MOST_SEEDS = 100
_SHOWN = 5
"""Files that could not be read, of many."""

_Models = Annotated[
    list[str],
    typer.Option("--model", "-m", help="deit, deit-tw, a network of timm, each with a method: 'deit+neutreno(0.6)'. "
                 "Repeatable."),
]  # fmt: skip
_Data = Annotated[
    str | None, typer.Option(help="digits; mnist, cifar10, cifar100 with --data-dir; or what --data-dir is called.")
]
_DataDir = Annotated[Path | None, typer.Option(help="Images to train on: a folder with train/CLASS/ and val/CLASS/.")]
_Recipe = Annotated[str | None, typer.Option(help="digits, deit, finetune, small, tiny, or a .toml of your own.")]
_From = Annotated[str | None, typer.Option("--from", help="Weights to begin with: a file, or timm:NAME.")]
_Control = Annotated[bool, typer.Option("--control", help="Train softmax attention too, by the same recipe.")]
_Adversarial = Annotated[
    str | None, typer.Option(help="Train on attacked images: pgd-2, or with more steps. Needs --eps.")
]
_Eps = Annotated[str | None, typer.Option(help="Of --adversarial: 4/255, a fraction of the pixel range.")]
_Seed = Annotated[int, typer.Option(min=0, help="Seed of initialisation, order and augmentation.")]
_Seeds = Annotated[
    str | None, typer.Option(help="Several, for arms: 0-4, or 0,2,7. Finished ones are kept if it is given again.")
]
_Out = Annotated[
    Path | None,
    typer.Option(help="File to write, or for several the folder. Default: MODEL-DATA-seedN.safetensors, seeds/."),
]
_AtOnce = Annotated[
    int | None,
    typer.Option("--at-once", min=1, help="Of several on digits: how many at a time. Default: as many as cores."),
]
_Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N; under torchrun each process takes its own.")]
_Precision = Annotated[Literal["float32", "bfloat16"], typer.Option(help="bfloat16: autocast.")]
_MicroBatch = Annotated[
    int | None,
    typer.Option(
        min=1, help="Most images at once on a device; the batch stays the recipe's. Default: 64 on a CPU, else 256."
    ),
]
_Workers = Annotated[
    int | None, typer.Option(min=0, help="Processes that read images. Default: cores less one, 16 at most.")
]
_Compile = Annotated[bool, typer.Option("--compile", help="Use torch.compile, if a few micro-batches are faster so.")]
_Checkpoint = Annotated[float, typer.Option("--checkpoint-every", min=0.0, help="Seconds between two checkpoints.")]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Say updates, speed, hours, memory and disk; train nothing.")]
_Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]


class _Asked(NamedTuple):
    """What the options come to."""

    models: list[str]
    seeds: list[int]
    data: str
    data_dir: Path | None
    recipe: "TrainingRecipe"
    start: str | None
    paths: dict[tuple[str, int], Path]
    quiet: bool
    log: "list[Asked]"


def train(
    model: _Models,
    data: _Data = None,
    data_dir: _DataDir = None,
    recipe: _Recipe = None,
    start: _From = None,
    control: _Control = False,
    adversarial: _Adversarial = None,
    eps: _Eps = None,
    seed: _Seed = 0,
    seeds: _Seeds = None,
    out: _Out = None,
    at_once: _AtOnce = None,
    device: _Device = "auto",
    precision: _Precision = "float32",
    micro_batch: _MicroBatch = None,
    workers: _Workers = None,
    compiles: _Compile = False,
    checkpoint_every: _Checkpoint = 600.0,
    dry_run: _DryRun = False,
    quiet: _Quiet = False,
    log: Log = None,
) -> None:
    """Train models, or arms of several seeds, by a recipe, and print clean accuracies."""
    data = data or ("imagenet" if data_dir else "digits")
    if data not in ("digits", "text") and data_dir is None:
        raise UserError(f"Where does {data!r} lie?", "Pass --data-dir: a folder with train/CLASS/ and val/CLASS/.")
    if data in ("digits", "text") and data_dir is not None:
        what = "The digits lie in no folder." if data == "digits" else "The text lies in no folder."
        raise UserError(what, "Give the data in --data-dir another name with --data.")
    to_log = trackers(log)
    loading(quiet)
    from robustbench_twicing.catalog.arms_to_train import recipe_against, usual_recipe, with_controls

    recipe = recipe or usual_recipe(data, start)
    models = with_controls(model, data) if control else list(dict.fromkeys(model))
    numbers = seeds_of(seeds, seed)
    paths = _paths(models, numbers, data, out, several=len(models) > 1 or seeds is not None)
    recipe_of_all = recipe_against(recipe, adversarial, eps)
    asked = _Asked(models, numbers, data, data_dir, recipe_of_all, start, paths, quiet, to_log)
    if recipe == "finetune" and start is None:
        raise UserError("The recipe finetune goes on from weights.", "Pass --from FILE, or --from timm:NAME.")
    if recipe == "finetune" and not control:
        say("Without --control the extra training is part of every difference from the untouched weights.", stderr=True)
    side_by_side = data == "digits" and device in ("auto", "cpu") and start is None and len(paths) > 1
    if side_by_side and not (dry_run or compiles):
        _train_at_once(asked, at_once or os.cpu_count() or 1)
    else:
        _train_in_turn(asked, _equipment(device, precision, micro_batch, workers, checkpoint_every, compiles), dry_run)


def seeds_of(text: str | None, seed: int) -> list[int]:
    if text is None:
        return [seed]
    if seed:
        raise UserError("--seed and --seeds both say which seeds.", "Give one of them.")
    found: list[int] = []
    for part in text.split(","):
        ends = re.fullmatch(r"(\d{1,6})(?:-(\d{1,6}))?", part.strip())
        last = int(ends[2] or ends[1]) if ends else -1
        if ends is None or not int(ends[1]) <= last < int(ends[1]) + _MOST_SEEDS:
            raise UserError(f"--seeds {text}: {part!r} is no seed and no range of seeds.", "Write 0-4, or 0,2,7.")
        found += range(int(ends[1]), last + 1)
    return list(dict.fromkeys(found))


def _paths(
    models: list[str], seeds: list[int], data: str, out: Path | None, several: bool
) -> dict[tuple[str, int], Path]:
    if not several:
        return {(models[0], seeds[0]): out or Path(f"{models[0]}-{data}-seed{seeds[0]}.safetensors")}
    folder = out or Path("seeds")
    return {(name, seed): folder / f"{name}-s{seed}.safetensors" for seed in seeds for name in models}


def _equipment(
    device: str,
    precision: Literal["float32", "bfloat16"],
    micro_batch: int | None,
    workers: int | None,
    every: float,
    compiles: bool,
) -> "Equipment":
    from robustbench_twicing.machine.device import choose_device
    from robustbench_twicing.train.job import Equipment

    usual = Equipment.usual(choose_device(device), micro_batch, workers)
    return usual._replace(precision=precision, checkpoint_seconds=every, compiles=compiles)


def _train_at_once(asked: _Asked, at_once: int) -> None:
    """On digits: a process for each, several side by side."""
    from robustbench_twicing.train.several import Training, still_to_train, train_several

    trainings = [Training(name, seed, path, asked.recipe) for (name, seed), path in asked.paths.items()]
    left = still_to_train(trainings)
    _say_left(len(left), len(trainings))
    _require_folders(asked)
    with bar(asked.quiet) as shown, tracked(asked.log, asked.data, asked.recipe) as logged:
        task = shown.add_task("trainings", total=len(left))
        for done, (one, outcome) in enumerate(train_several(left, at_once) if left else (), start=1):
            shown.update(task, completed=done)
            say_outcome(asked.data, one.model, one.seed, 597, outcome)
            _log_outcome(logged, one.model, one.seed, asked.recipe.epochs, 597, outcome)
    _say_use(asked)


def _train_in_turn(asked: _Asked, equipment: "Equipment", dry_run: bool) -> None:
    """One after another, each on all processes that torchrun started."""
    from robustbench_twicing.train.in_turn import Begun, job_of, train_in_turn
    from robustbench_twicing.train.named_data import named_data
    from robustbench_twicing.train.processes import joined
    from robustbench_twicing.train.weights import is_trained

    data = named_data(asked.data, asked.data_dir)
    all_of_them = [
        Begun(job_of(name, data, asked.recipe, seed, asked.start), path) for (name, seed), path in asked.paths.items()
    ]
    if dry_run:
        _say_estimates(all_of_them, equipment)
        return
    with joined(equipment.device) as (processes, device):
        equipment = equipment._replace(device=device)
        first = processes.rank == 0
        left = [one for one in all_of_them if not is_trained(one.path, one.job)]
        _require_folders(asked)
        if first:
            _say_left(len(left), len(all_of_them))
        with (
            Followed(asked.quiet) if first else nullcontext() as followed,
            tracked(asked.log if first else [], asked.data, asked.recipe) as logged,
        ):

            def going(one: Begun, done: "TrainingProgress") -> None:
                if followed:
                    followed.update(one, done)
                if done.is_whole_epoch:
                    logged.epoch(one.job.spec.name, one.job.seed, done.epoch, done.loss, done.images_per_second)

            for one, outcome in train_in_turn(left, equipment, processes, going if first else None):
                if first:
                    name, seed, of = one.job.spec.name, one.job.seed, one.job.data.test_images
                    say_outcome(asked.data, name, seed, of, outcome)
                    _log_outcome(logged, name, seed, asked.recipe.epochs, of, outcome)
    if first:
        _say_use(asked)


def _log_outcome(logged: "TrackedTrainings", model: str, seed: int, epochs: int, of: int, outcome: "Outcome") -> None:
    logged.ended(model, seed, epochs, outcome.test_correct, of, outcome.seconds, outcome.train_loss)


def _require_folders(asked: _Asked) -> None:
    for folder in dict.fromkeys(path.parent for path in asked.paths.values()):
        require_writable(folder)


def _say_left(left: int, all_of_them: int) -> None:
    if left < all_of_them:
        say(
            f"{all_of_them - left} of {all_of_them} {'is' if all_of_them == 1 else 'are'} trained already.", stderr=True
        )


def say_outcome(data: str, model: str, seed: int, of: int, outcome: "Outcome", stderr: bool = False) -> None:
    """The line of a training that is done, by what it was trained on."""
    told = _say_trained_on_text if data == "text" else _say_trained
    told(model, seed, of, outcome, stderr)


def _say_trained_on_text(model: str, seed: int, test_bytes: int, outcome: "Outcome", stderr: bool = False) -> None:
    share = percent(outcome.test_correct / test_bytes)
    say(
        f"{model}, seed {seed}: the likeliest byte is the next for {share} % of {count(test_bytes)} test bytes, "
        f"{outcome.train_loss:.3f} nats per byte in the last epoch, after {duration(outcome.seconds)}",
        stderr=stderr,
    )


def _say_trained(model: str, seed: int, test_images: int, outcome: "Outcome", stderr: bool = False) -> None:
    """The line of a training that is done, and what was odd in it."""
    low, high = wilson_interval(outcome.test_correct, test_images)
    average = ""
    if outcome.averaged_correct is not None:
        average = f"; of the moving average {percent(outcome.averaged_correct / test_images)} %"
    say(
        f"{model}, seed {seed}: clean accuracy {percent(outcome.test_correct / test_images)} % "
        f"on {count(test_images)} test images (95 % interval {percent(low)} - {percent(high)}){average} "
        f"after {duration(outcome.seconds)}",
        stderr=stderr,
    )
    for remark in outcome.remarks:
        say(remark, "warning", stderr=True)
    if outcome.unreadable:
        say(f"{count(len(outcome.unreadable))} image(s) could not be read; others stood in their places:", "warning",
            stderr=True)  # fmt: skip
        for file in outcome.unreadable[:_SHOWN]:
            say(f"  {file}", "warning", stderr=True)
        if len(outcome.unreadable) > _SHOWN:
            say("  …", "warning", stderr=True)


def _say_use(asked: _Asked) -> None:
    files = list(asked.paths.items())
    if len(files) == 1:
        (name, _), path = files[0]
        command = "lm" if asked.data == "text" else "attack"
        say(f"Weights: {path}\nUse them: twicing-bench {command} --model {quote(f'{name}={path}')}")
        return
    say("Use them:")
    whole = asked.seeds == list(range(asked.seeds[0], asked.seeds[0] + len(asked.seeds))) and len(asked.seeds) > 1
    for name in asked.models:
        own = [(f"s{seed}", str(path)) for (one, seed), path in files if one == name]
        if whole:
            folder = files[0][1].parent
            own = [(f"s{asked.seeds[0]}..s{asked.seeds[-1]}", str(folder / f"{name}-s{{seed}}.safetensors"))]
        for label, file in own:
            say(f"  --model {quote(f'{name}@{label}={file}')}")


def _say_estimates(begun: Any, equipment: "Equipment") -> None:
    """One probe of each model; seeds take the same."""
    from robustbench_twicing.train.dry_run import estimated

    total = 0.0
    firsts = {one.job.spec.name: one.job for one in reversed(begun)}
    for name, job in reversed(firsts.items()):
        found = estimated(job, equipment)
        seeds = sum(one.job.spec.name == name for one in begun)
        total += seeds * found.seconds
        say(
            f"{name} by recipe {job.recipe.name}: {count(found.updates)} updates of {count(job.recipe.batch)} images "
            f"in micro-batches of {count(found.micro_batch)}, {job.recipe.epochs} epochs\n"
            f"  {found.images_per_second:,.1f} images/s on {equipment.device} "
            f"({found.computed_per_second:,.1f} computed, "
            f"{found.read_per_second:,.1f} read by {max(1, equipment.workers)} process(es)): "
            f"{duration(found.seconds)} for each of {seeds} seed(s)\n"
            f"  memory {found.memory_bytes / 2**30:.1f} GiB in the probe of one process, "
            f"disk {found.disk_bytes / 2**20:,.0f} MiB for a training"
        )
    say(f"About {duration(total)} in all, one after another, from a probe of seconds. Nothing was trained.")
