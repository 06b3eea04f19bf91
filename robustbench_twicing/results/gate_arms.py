"""The cells of a gate where models are training seeds: on both sides an arm takes the place of its models. No torch."""

from collections.abc import Mapping

import pandas as pd

from robustbench_twicing.errors import UserError
from robustbench_twicing.results.arms import arms_of
from robustbench_twicing.results.cells import Cells
from robustbench_twicing.results.gate_cells import Frames
from robustbench_twicing.results.used import ModelUsed
from robustbench_twicing.spec.arms import ArmPatterns

Judged = Mapping[tuple[str, str], Frames]
"""Records by model, by the name of the model or arm and the threat."""


def cells_of(side: str, records: Cells, arms: ArmPatterns) -> Judged:
    """The cells of one side: each arm under the threats that all of its models have, then every other model.

    Raises `UserError`, beginning with the `side`, for what is no arm (`results.arms.arms_of`).
    """
    try:
        found = arms_of(records, arms, compared=False) if arms else []
    except UserError as error:
        raise UserError(f"{side}: {error.message}", error.hint) from None
    cells = {
        (arm.name, threat): frames
        for arm in found
        for threat, frames in arm.cells.items()
        if len(frames) == len(arm.models)
    }
    taken = {model for arm in found for model in arm.models}
    alone = {(model, threat): {model: rows} for (model, threat), rows in records.items() if model not in taken}
    return cells | alone


def with_training(records: pd.DataFrame, models: Mapping[str, ModelUsed]) -> pd.DataFrame:
    """A baseline's records with what their manifest says of each model's training, which the file of records lacks."""
    about: dict[str, dict[str, str | int]] = {
        "architecture": {name: used.spec.architecture for name, used in models.items()},
        "training_recipe": {name: used.training_recipe for name, used in models.items()},
        "training_seed": {name: used.training_seed for name, used in models.items()},
    }
    models_of = records["model"].astype(str)
    return records.assign(**{column: [values[name] for name in models_of] for column, values in about.items()})
