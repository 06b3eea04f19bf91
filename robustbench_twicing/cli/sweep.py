"""`twicing-bench sweep`."""

from typing import Any

from robustbench_twicing.cli.looking import LOOKED_AT, PRINTED, THREAT, look_and_print
from robustbench_twicing.cli.options import taking
from robustbench_twicing.report.sweep import sweep_page
from robustbench_twicing.runner.inside import sweep as look

_USUAL = {"attacks": ["pgd"], "eps": ["1/255"], "limit": 100}


@taking({**LOOKED_AT, **THREAT, **PRINTED})
def sweep(**said: Any) -> None:
    """Switch a method on block by block, from the end and by strength, on the same weights, and attack each setting.

    Default: 100 images, PGD at 1/255. Nothing is trained.
    """
    given = {name: said[name] or usual for name, usual in _USUAL.items()}
    look_and_print({**said, **given}, True, lambda understood, say: sweep_page(look(understood, say)))
