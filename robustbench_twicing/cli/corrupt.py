"""`twicing-bench corrupt`."""

from typing import Any

from robustbench_twicing.catalog.suites import corrupted
from robustbench_twicing.cli.options import IMAGES, LOG, MEANS, MODELS, OUTPUT, SUITES, evaluate_and_print, taking


@taking({**MODELS, **SUITES, **IMAGES, **MEANS, **OUTPUT, **LOG})
def corrupt(**said: Any) -> None:
    """Run models on corrupted or shifted data sets and print their accuracy, errors and mCE.

    Without --suite, the 15 + 4 corruptions of ImageNet-C, computed from --data or from digits. The same command again
    continues an interrupted run, or shows a finished one.
    """
    evaluate_and_print({**said, "suites": said["suites"] or [corrupted(said["data"])]}, attacked=False)
