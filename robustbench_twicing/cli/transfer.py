"""`twicing-bench transfer`."""

from typing import Any

from robustbench_twicing.cli.options import ATTACKS, IMAGES, LOG, MEANS, MODELS, OUTPUT, evaluate_and_print, taking
from robustbench_twicing.report.transfer import transfer_page


@taking({**MODELS, **ATTACKS, **IMAGES, **MEANS, **OUTPUT, **LOG})
def transfer(**said: Any) -> None:
    """Make attacked images on each model, have all of them judged by all, and print sources × targets.

    Default: PGD at 1/255, made on every model. A run as those of `attack` are, for `report`, `compare` and `gate`.
    """
    usual = {"attacks": ["pgd"], "source_model": said["models"]}
    evaluate_and_print({**said, **{key: said[key] or value for key, value in usual.items()}}, True, transfer_page)
