"""`twicing-bench train`."""

import sys
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from robustbench_twicing.cli.progress import loading
from robustbench_twicing.errors import UserError
from robustbench_twicing.metrics.intervals import wilson_interval
from robustbench_twicing.report.numbers import percent
from robustbench_twicing.report.text import console, say
from robustbench_twicing.results.store import require_writable


def train(
    model: Annotated[
        str,
        typer.Option("--model", "-m", help="deit, deit-tw, deit-tw-last3, or with a method: 'deit+twicing(0.5)'."),
    ],
    data: Annotated[
        str, typer.Option(help="Only `digits`: models for ImageNet come from their authors' code.")
    ] = "digits",
    seed: Annotated[int, typer.Option(min=0, help="Seed of initialisation, order and augmentation.")] = 0,
    out: Annotated[Path | None, typer.Option(help="File to write. Default: MODEL-digits-seedN.safetensors.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Train one of the embedded models again, write its weights, and print its clean accuracy."""
    if data != "digits":
        raise UserError(f"Cannot train on {data!r}.", "Pass --data digits; other models come from their authors' code.")
    loading(quiet)
    from robustbench_twicing.train.digits import EPOCHS, save_trained, train_digits

    path = out or Path(f"{model}-digits-seed{seed}.safetensors")
    require_writable(path.parent)
    stderr = console(stderr=True)
    bar = Progress(
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
    with bar:
        task = bar.add_task(f"{model} epoch", total=EPOCHS)

        def progress(done: int, epochs: int, loss: float) -> None:
            bar.update(task, completed=done, total=epochs)
            if not quiet and not stderr.is_terminal and done % 10 == 0:
                print(f"{model}: epoch {done} of {epochs}, loss {loss:.3f}", file=sys.stderr, flush=True)

        weights, metrics = train_digits(model, seed, progress=progress)
    save_trained(path, weights, metrics)
    low, high = wilson_interval(metrics.test_correct, metrics.test_images)
    say(
        f"{model}, seed {seed}: clean accuracy {percent(metrics.clean_accuracy)} % "
        f"on {metrics.test_images} test images (95 % interval {percent(low)} - {percent(high)}) "
        f"after {metrics.seconds:.0f} s"
    )
    say(f"Weights: {path}\nUse them: twicing-bench attack --model {quote(f'{model}={path}')}")
