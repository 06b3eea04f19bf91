"""`twicing-bench train`."""

import os
import re
import sys
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from robustbench_twicing.cli.progress import loading
from robustbench_twicing.errors import UserError
from robustbench_twicing.metrics.intervals import wilson_interval
from robustbench_twicing.report.numbers import percent
from robustbench_twicing.report.text import console, say
from robustbench_twicing.results.store import require_writable

if TYPE_CHECKING:
    from robustbench_twicing.train.digits import TrainingMetrics

_MOST_SEEDS = 100


def train(
    model: Annotated[
        list[str],
        typer.Option(
            "--model", "-m", help="deit, deit-tw, deit-tw-last3, or with a method: 'deit+neutreno(0.6)'. Repeatable."
        ),
    ],
    data: Annotated[
        str, typer.Option(help="Only `digits`: models for ImageNet come from their authors' code.")
    ] = "digits",
    seed: Annotated[int, typer.Option(min=0, help="Seed of initialisation, order and augmentation.")] = 0,
    seeds: Annotated[
        str | None, typer.Option(help="Several, for arms: 0-4, or 0,2,7. Finished ones are kept if it is given again.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="File to write, or for several the folder. Default: MODEL-digits-seedN.safetensors, seeds/."),
    ] = None,
    at_once: Annotated[
        int | None,
        typer.Option("--at-once", min=1, help="Of several: how many at a time. Default: as many as cores."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Train one of the embedded models again, or arms of several seeds, and print clean accuracies."""
    if data != "digits":
        raise UserError(f"Cannot train on {data!r}.", "Pass --data digits; other models come from their authors' code.")
    if len(model) > 1 or seeds is not None:
        _train_several(model, _seeds(seeds, seed), out or Path("seeds"), at_once or os.cpu_count() or 1, quiet)
    else:
        _train_one(model[0], seed, out or Path(f"{model[0]}-digits-seed{seed}.safetensors"), quiet)


def _seeds(text: str | None, seed: int) -> list[int]:
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


def _train_several(models: list[str], seeds: list[int], folder: Path, at_once: int, quiet: bool) -> None:
    loading(quiet)
    from robustbench_twicing.train.several import Training, still_to_train, train_several

    trainings = [Training(name, seed, folder / f"{name}-s{seed}.safetensors") for seed in seeds for name in models]
    left = still_to_train(trainings)
    if len(left) < len(trainings):
        say(f"{len(trainings) - len(left)} of {len(trainings)} are trained already.", stderr=True)
    folder.mkdir(parents=True, exist_ok=True)
    require_writable(folder)
    with _bar(quiet) as bar:
        task = bar.add_task("trainings", total=len(left))
        for done, (one, metrics) in enumerate(train_several(left, at_once) if left else (), start=1):
            bar.update(task, completed=done)
            _say_trained(one.model, metrics)
    say("Use them:")
    whole = seeds == list(range(seeds[0], seeds[0] + len(seeds)))
    for name in models:
        files = [(f"s{one.seed}", str(one.path)) for one in trainings if one.model == name]
        if whole and len(seeds) > 1:
            files = [(f"s{seeds[0]}..s{seeds[-1]}", str(folder / f"{name}-s{{seed}}.safetensors"))]
        for label, file in files:
            say(f"  --model {quote(f'{name}@{label}={file}')}")


def _train_one(model: str, seed: int, path: Path, quiet: bool) -> None:
    loading(quiet)
    from robustbench_twicing.train.digits import EPOCHS, save_trained, train_digits

    require_writable(path.parent)
    with _bar(quiet) as bar:
        task = bar.add_task(f"{model} epoch", total=EPOCHS)

        def progress(done: int, epochs: int, loss: float) -> None:
            bar.update(task, completed=done, total=epochs)
            if not quiet and not bar.console.is_terminal and done % 10 == 0:
                print(f"{model}: epoch {done} of {epochs}, loss {loss:.3f}", file=sys.stderr, flush=True)

        weights, metrics = train_digits(model, seed, progress=progress)
    save_trained(path, weights, metrics)
    _say_trained(model, metrics)
    say(f"Weights: {path}\nUse them: twicing-bench attack --model {quote(f'{model}={path}')}")


def _bar(quiet: bool) -> Progress:
    stderr = console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=stderr,
        transient=True,
        disable=quiet or not stderr.is_terminal,
    )


def _say_trained(model: str, metrics: "TrainingMetrics") -> None:
    low, high = wilson_interval(metrics.test_correct, metrics.test_images)
    say(
        f"{model}, seed {metrics.seed}: clean accuracy {percent(metrics.clean_accuracy)} % "
        f"on {metrics.test_images} test images (95 % interval {percent(low)} - {percent(high)}) "
        f"after {metrics.seconds:.0f} s"
    )
