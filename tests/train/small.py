"""A small data set in ImageNet's layout, and recipes of few updates, for whoever tests training."""

from pathlib import Path

import numpy as np
from PIL import Image

from robustbench_twicing.catalog.recipes import training_recipe
from robustbench_twicing.data.training import training_folder
from robustbench_twicing.spec.training import TrainingRecipe
from robustbench_twicing.train.folder import FolderData
from robustbench_twicing.train.in_turn import job_of
from robustbench_twicing.train.job import Job

MODEL = "deit_digits_patch8_32+twicing"


def write_pictures(root: Path, per_class: int = 12) -> Path:
    """`train/` and `val/` with two classes of noise, one of it darker."""
    rng = np.random.default_rng(0)
    for split, number in (("train", per_class), ("val", 2)):
        for name, level in (("dark", 0), ("light", 120)):
            folder = root / split / name
            folder.mkdir(parents=True)
            for count in range(number):
                pixels = rng.integers(level, level + 130, (36, 44, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{count}.jpg")
    return root


def small_recipe(**changes: object) -> TrainingRecipe:
    """`tiny` with three updates of eight of 24 images, everything in it switched on; a key's change such as
    `optimizer={"learning_rate": 1e9}`."""
    recipe = training_recipe("tiny")
    content = recipe.model_dump()
    content["augmentation"]["repeats"] = 2
    for key, value in {"batch": 8, **changes}.items():
        content[key] = {**(content[key] or {}), **value} if isinstance(value, dict) else value
    return TrainingRecipe.model_validate(content)


def small_job(root: Path, seed: int = 0, **changes: object) -> Job:
    """Of what `write_pictures` wrote."""
    return job_of(MODEL, FolderData("pictures", training_folder(root)), small_recipe(**changes), seed)
