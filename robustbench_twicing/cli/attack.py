"""`twicing-bench attack`."""

from typing import Any

from robustbench_twicing.cli.options import EXPERIMENT, LOG, MEANS, OUTPUT, evaluate_and_print, taking


@taking({**EXPERIMENT, **MEANS, **OUTPUT, **LOG})
def attack(**said: Any) -> None:
    """Attack models and print their accuracy on clean and attacked images."""
    evaluate_and_print(said, attacked=True)
