"""Generated ImageNet-C beside the official files."""

import pandas as pd

from robustbench_twicing.errors import UserError
from robustbench_twicing.results.run import Run
from robustbench_twicing.results.summary import generated_differences

OFFICIAL, GENERATED = "imagenet-c", "imagenet-c-generated"
"""The suite of files, and the one that is computed and is not the same."""


def generated_against_official(run: Run) -> pd.DataFrame:
    """What `api.check_generated` found: columns as in `summary.generated_differences`. Raises `UserError` if there is
    nothing to compare, since no sample was answered in both suites.
    """
    rows = generated_differences(run.records, OFFICIAL, GENERATED)
    if rows.empty:
        raise UserError(
            f"No image was answered in both suites; the records in {run.path} say why.",
            "If only few photographs lie in both folders, a --limit may have left them out.",
        )
    return rows
