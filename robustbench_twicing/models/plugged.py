"""Models that another package registers, or `python:MODULE:NAME` (docs/plugins.md)."""

from dataclasses import replace
from inspect import isclass, isroutine
from typing import Any

import torch

from robustbench_twicing.catalog.plugins import find_plugin
from robustbench_twicing.errors import UserError
from robustbench_twicing.models.classifier import Classifier
from robustbench_twicing.models.guard import guarded
from robustbench_twicing.models.intake import wrap_model
from robustbench_twicing.spec.models import ModelSpec


def load_plugged(spec: ModelSpec, image_size: int | None = None, device: str | torch.device = "cpu") -> Classifier:
    """The model behind `spec.weights`, `python:MODULE:NAME` or `plugin:NAME`, taken in as `intake.wrap_model` does.

    A class or a function is called, without arguments, for the model; anything else is the model. The version of its
    package, or the hash of its file, is its version. Raises `UserError` for whatever it raises, and for no model.
    """
    name = spec.weights.removeprefix("plugin:")
    found = find_plugin("models", name)
    if found is None:
        raise UserError(f"No package here registers the model {name!r}.", "Install the one that does.")
    model: Any = found.value
    if isclass(model) or isroutine(model):
        with guarded(spec.name, "was built"):
            model = model()
    taken_in = wrap_model(spec.name, model, image_size, device, found.origin.version)
    taken_in.card = replace(taken_in.card, spec=spec)
    return taken_in
