"""`twicing-bench attack`."""

from typing import Annotated

import typer

from robustbench_twicing.catalog.config import settings
from robustbench_twicing.cli.options import (
    BatchSize,
    DataDirs,
    Device,
    Json,
    Limit,
    Models,
    Out,
    Quiet,
    RecipeName,
    ResamplePosEmbed,
    Seed,
    SkipBad,
    Weights,
    evaluate_and_print,
)
from robustbench_twicing.errors import UserError


def attack(
    model: Models,
    eps: Annotated[
        list[str] | None,
        typer.Option("--eps", help="Size of the perturbation, such as 1/255 or 0.03; repeatable. Default 1/255."),
    ] = None,
    attack: Annotated[
        list[str] | None,
        typer.Option("--attack", "-a", help="Attack name; repeatable. Default: the protocol's own list."),
    ] = None,
    protocol: Annotated[str, typer.Option(help="Attack settings: a name (see `catalog`) or a TOML file.")] = "standard",
    data: Annotated[str | None, typer.Option(help="Data set. Default digits, which ships with the tool.")] = None,
    data_dir: DataDirs = None,
    recipe: RecipeName = None,
    limit: Limit = None,
    batch_size: BatchSize = None,
    seed: Seed = 0,
    device: Device = None,
    weights: Weights = "raw",
    resample_pos_embed: ResamplePosEmbed = False,
    engine: Annotated[
        str, typer.Option(help="`own`, or `torchattacks` to run its FGSM, PGD and SPSA for comparison.")
    ] = "own",
    out: Out = None,
    quiet: Quiet = False,
    as_machine: Json = False,
    skip_bad: SkipBad = False,
) -> None:
    """Attack models and print their accuracy on clean and attacked images.

    The same command again continues an interrupted run, or shows a finished one.
    """
    if engine not in ("own", "torchattacks"):
        raise UserError(f"Unknown engine {engine!r}.", "Pass --engine own or --engine torchattacks.")
    data = data or settings().default("data") or "digits"
    evaluate_and_print(
        quiet,
        as_machine,
        skip_bad,
        data_dir,
        [data],
        device,
        models=model,
        attacks=attack or (),
        eps=eps or ["1/255"],
        protocol=protocol,
        engine=engine,
        data=data,
        recipe=recipe,
        limit=limit,
        seed=seed,
        weights=weights,
        resample_pos_embed=resample_pos_embed,
        batch_size=batch_size,
        out=out,
    )
