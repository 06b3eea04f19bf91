"""`twicing-bench collapse`."""

from typing import Any

from robustbench_twicing.cli.looking import KEPT, LOOKED_AT, PRINTED, THREAT, look_and_print
from robustbench_twicing.cli.options import FROST, SUITES, taking
from robustbench_twicing.report.collapse import collapse_page
from robustbench_twicing.runner.inside import collapse as look


@taking({**LOOKED_AT, **THREAT, **SUITES, **FROST, **PRINTED, **KEPT})
def collapse(**said: Any) -> None:
    """Measure how alike tokens become from block to block, and what each attention matrix does to them.

    On clean images, and with --attack and --eps on attacked, with --suite on corrupted ones too.
    """
    attacked = bool(said["attacks"] or said["eps"])
    look_and_print(said, attacked, lambda understood, say: collapse_page(look(understood, say, said["out"])))
