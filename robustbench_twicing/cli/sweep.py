"""`twicing-bench sweep`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from robustbench_twicing.cli.looking import KEPT, LOOKED_AT, PRINTED, THREAT, look_and_print
from robustbench_twicing.cli.options import taking
from robustbench_twicing.cli.train import seeds_of
from robustbench_twicing.errors import UserError
from robustbench_twicing.report.sweep import sweep_page
from robustbench_twicing.runner.inside import sweep as look
from robustbench_twicing.runner.retrain import Retraining

_USUAL = {"attacks": ["pgd"], "eps": ["1/255"], "limit": 100}


@taking({**LOOKED_AT, **THREAT, **PRINTED, **KEPT})
def sweep(
    retrain: Annotated[
        str | None,
        typer.Option(help="Train every setting on digits as well, by this recipe: digits, or a TOML file. Minutes."),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(help="Of --retrain, each a training of every setting: 0-4, or 0,2,7. Default 0.")
    ] = None,
    weights_dir: Annotated[
        Path, typer.Option(help="Of --retrain: where the weights go; those that are there are not trained again.")
    ] = Path("sweep-weights"),
    **said: Any,
) -> None:
    """Switch a method on block by block, from the end and by strength, on the same weights, and attack each setting.

    Default: 100 images, PGD at 1/255. Nothing is trained, unless --retrain says so: then in a table of its own.
    """
    if seeds is not None and retrain is None:
        raise UserError("--seeds are those of trainings, and nothing is trained.", "Pass --retrain digits.")
    how = Retraining(retrain, tuple(seeds_of(seeds, 0)), weights_dir) if retrain is not None else None
    given = {name: said[name] or usual for name, usual in _USUAL.items()}
    look_and_print({**said, **given}, True, lambda understood, say: sweep_page(look(understood, say, how, said["out"])))
