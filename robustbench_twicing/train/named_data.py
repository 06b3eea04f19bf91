"""What is trained on, by its name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from robustbench_twicing.data.training import training_images
from robustbench_twicing.train.digits import DigitsData
from robustbench_twicing.train.folder import FolderData
from robustbench_twicing.train.text import TextData

IN_MEMORY: dict[str, Callable[[], Any]] = {"digits": DigitsData, "text": TextData}
"""Data that ship with the tool."""


def named_data(name: str, directory: Path | None) -> Any:
    """The `TrainingData` of that name; in `directory`, unless it ships. Raises `UserError` for what is not there."""
    if directory is None:
        return IN_MEMORY[name]()
    return FolderData(name, training_images(name, directory))
