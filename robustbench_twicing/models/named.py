"""A model by the name that the command line takes, for a program of one's own."""

import torch

from robustbench_twicing.catalog.config import settings
from robustbench_twicing.catalog.zoo import model_specs
from robustbench_twicing.errors import UserError
from robustbench_twicing.machine.device import choose_device
from robustbench_twicing.models.build import load_model as load_spec
from robustbench_twicing.models.classifier import Classifier
from robustbench_twicing.models.plugged import load_plugged
from robustbench_twicing.spec.plan import EMBEDDED, EMBEDDED_SIDE


def load_model(name: str, data: str = EMBEDDED, device: str = "auto") -> Classifier:
    """The model that `--model NAME` evaluates on the data set `data`: a `torch.nn.Module` in eval mode, weights frozen.

    It takes RGB images (batch, 3, H, W) in [0, 1] and returns logits (batch, classes); normalisation is inside. `.card`
    says what it is: which attention a probe found in its blocks, parameters, hash of its weights, classes, image size.
    `name` is `NAME[+METHOD][@LABEL][=CHECKPOINT]`; `device` is auto, cpu, cuda or cuda:N. Raises `UserError`.
    """
    specs = model_specs(name, data, checkpoints=settings().checkpoints(data))
    if len(specs) != 1:
        raise UserError(f"{name!r} is {len(specs)} models.", "Name one of them, such as deit@s0.")
    place: torch.device = choose_device(device)
    if specs[0].is_plugged:
        return load_plugged(specs[0], EMBEDDED_SIDE if data == EMBEDDED else None, place)
    return load_spec(specs[0], place)
