"""`twicing-bench calibrate`."""

from typing import Any

from robustbench_twicing.cli.looking import LOOKED_AT, PRINTED, look_and_print
from robustbench_twicing.cli.options import FROST, SUITES, taking
from robustbench_twicing.report.calibrate import calibrate_page
from robustbench_twicing.runner.calibrate import calibrate as look


@taking({**LOOKED_AT, **SUITES, **FROST, **PRINTED})
def calibrate(**said: Any) -> None:
    """Fit a temperature on half of the clean images, and say what it does to NLL and ECE of the others.

    With --suite also how well MSP, max-logit, energy, kNN and ViM tell its images from clean ones: outliers of
    ImageNet-O, or corrupted images.
    """
    look_and_print(said, False, lambda understood, say: calibrate_page(look(understood, say)))
