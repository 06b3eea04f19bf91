"""`twicing-bench theory`."""

from typing import Annotated, Any

import typer

from robustbench_twicing.cli.looking import LOOKED_AT, PRINTED, look_and_print, print_said
from robustbench_twicing.cli.options import MODELS, taking
from robustbench_twicing.inside.theory import biases, capacities
from robustbench_twicing.report.theory import theory_page

_NUMBERS = tuple(2**power for power in range(11))
_BANDWIDTHS = (0.06, 0.08, 0.1, 0.12)


@taking({**{key: value for key, value in LOOKED_AT.items() if key not in MODELS}, **PRINTED})
def theory(
    models: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="NAME, NAME+METHOD or NAME=CHECKPOINT to lay over it; repeatable."),
    ] = None,
    **said: Any,
) -> None:
    """Compute the paper's idealised setting: how fast capacity falls with A and with 2A - A², and a smoother's bias.

    With --model the measured decay of these models is laid over it.
    """
    ideal = capacities(_NUMBERS), biases(_BANDWIDTHS)
    if not models:
        print_said(said, lambda: theory_page(*ideal, None))
        return
    from robustbench_twicing.runner.inside import collapse

    look_and_print(
        {**said, "models": models}, False, lambda understood, say: theory_page(*ideal, collapse(understood, say))
    )
