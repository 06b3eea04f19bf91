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
    Preflight,
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
    worst_case: Annotated[
        bool, typer.Option("--worst-case", help="Add a row that counts a sample as robust only if no attack breaks it.")
    ] = False,
    precision: Annotated[
        str, typer.Option(help="What attacks compute in: float32, tf32 or bfloat16. Verdicts are always float32's.")
    ] = "float32",
    eight_bit: Annotated[
        bool, typer.Option("--eight-bit", help="Judge attacked images a second time, rounded to 8 bits a pixel.")
    ] = False,
    source_model: Annotated[
        str | None, typer.Option(help="Make the attacked images on this model instead: NAME or NAME=CHECKPOINT.")
    ] = None,
    preflight: Preflight = True,
    attention_path: Annotated[
        str | None, typer.Option(help="How all attention is computed: explicit or fused. Default: what is fastest.")
    ] = None,
    compiles: Annotated[
        bool,
        typer.Option(
            "--compile", help="Compute attacks with torch.compile if a warm-up (seconds to minutes) finds it faster."
        ),
    ] = False,
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
        worst_case=worst_case,
        precision=precision,
        eight_bit=eight_bit,
        source_model=source_model,
        preflight=preflight,
        attention_path=attention_path,
        compiles=compiles,
        data=data,
        recipe=recipe,
        limit=limit,
        seed=seed,
        weights=weights,
        resample_pos_embed=resample_pos_embed,
        batch_size=batch_size,
        out=out,
    )
