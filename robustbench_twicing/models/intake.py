"""A model of the user's own, whatever it is wrapped in, as a `Classifier`."""

import inspect
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import nn

from robustbench_twicing.attention.probe import attention_of
from robustbench_twicing.errors import UserError
from robustbench_twicing.machine.malloc import keep_freed_blocks
from robustbench_twicing.models.build import count_parameters
from robustbench_twicing.models.classifier import Classifier, ModelCard
from robustbench_twicing.models.guard import EXPECTED, guarded, in_a_line
from robustbench_twicing.models.identity import identity, weights_hash
from robustbench_twicing.models.own_size import USUAL_SIZES, stated_sizes
from robustbench_twicing.models.preprocessing import resized
from robustbench_twicing.spec.methods import Attention
from robustbench_twicing.spec.models import PAPER_CROP_RATIO, ModelSpec, Recipes


def wrap_model(
    name: str, given: Any, image_size: int | None = None, device: str | torch.device = "cpu", version: str = ""
) -> Classifier:
    """A model of the user's own as a `Classifier`: it takes images in [0, 1] and returns logits.

    `given` is a module, or anything that can be called; DataParallel and torch.compile are taken off. It is put into
    eval mode on `device` and its weights are frozen (`models.callers` puts it back). Without `image_size` the model's
    own is looked for: what its parts say, else the first usual one that it takes. Its answers to noise belong to its
    identity, and so does `version`, which allows finished samples to be used again. The method of attention is looked
    for where it has transformer blocks; if the probe cannot judge them, nothing is said. Raises `UserError` for what is
    no model, and for whatever its code raises.
    """
    if version and not re.fullmatch(r"[\w.+-]{1,64}", version, re.ASCII):
        raise UserError(f"{version!r} is no version of {name!r}.", "Letters, digits and . + - _ make one, at most 64.")
    module, taken_off = _module(name, given)
    _prepare(name, module, device)
    own = OwnModel(name, module).eval()
    size, classes, found = _probed(own, image_size, device)
    blocks, attention = _attention(module)
    with guarded(name, "was asked for its weights"):
        weights, parameters = weights_hash(module), count_parameters(module)
    digest = identity(weights, _kind(given), _answers(own, size, device), version)
    prepared = resized(size, PAPER_CROP_RATIO, "bicubic")
    card = ModelCard(
        spec=ModelSpec(
            name=name,
            architecture=_kind(given),
            attention=attention or Attention(),
            weights=f"memory:{digest}" + (f"@{version}" if version else ""),
        ),
        attention=str(attention or ""),
        blocks=blocks,
        parameters=parameters,
        weights_hash=digest,
        classes=classes,
        image_size=size,
        recipes=Recipes(prepared, prepared),
        weights_note="; ".join(filter(None, (taken_off, found))),
    )
    keep_freed_blocks()
    return Classifier(own, card, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)).to(device).eval()


class OwnModel(nn.Module):
    """The user's model, whose answer becomes logits where it is clear which part of it they are."""

    answers_in = torch.float32
    """What the logits are turned into: another type for a copy that computes in it."""

    def __init__(self, name: str, module: nn.Module) -> None:
        super().__init__()
        self.name = name
        self.module = module

    def train(self, mode: bool = True) -> "OwnModel":
        """Of itself alone: the user's module was put into its mode, and its own `train` may do anything."""
        self.training = mode
        return self

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(batch, 3, H, W) to (batch, classes) float32. Raises `UserError` for any other answer."""
        return logits_of(self.name, self.module(images), images.shape[0], self.answers_in)


def logits_of(name: str, answer: Any, count: int, answers_in: torch.dtype = torch.float32) -> torch.Tensor:
    """The logits (count, classes) in what the model `name` returned, as float32 or what `answers_in` says.

    A tensor or an array itself; `.logits` of an object or a dictionary; the only tensor in a dictionary, tuple or list.
    Raises `UserError` for anything else.
    """
    if isinstance(answer, np.ndarray) and answer.dtype.kind == "f":  # without a gradient, which only attacks ask for
        answer = torch.from_numpy(answer)
    logits = answer if isinstance(answer, torch.Tensor) else _tensor_in(name, answer)
    if logits.ndim == 4 and logits.shape[2] == logits.shape[3] == 1:
        logits = logits.flatten(1)
    if logits.ndim != 2 or logits.shape[0] != count or not logits.shape[1]:
        shape = tuple(logits.shape)
        raise UserError(f"Model {name!r} returned {shape} for {count} images, not ({count}, classes).", EXPECTED)
    if not logits.is_floating_point():
        raise UserError(f"Model {name!r} returned {logits.dtype}: classes, or anything but logits.", EXPECTED)
    return logits.to(answers_in)


def _tensor_in(name: str, answer: Any) -> torch.Tensor:
    named = answer.get("logits") if isinstance(answer, Mapping) else getattr(answer, "logits", None)
    if isinstance(named, torch.Tensor):
        return named
    inside = list(answer.values()) if isinstance(answer, Mapping) else answer
    tensors = [one for one in inside if isinstance(one, torch.Tensor)] if isinstance(inside, tuple | list) else []
    if len(tensors) == 1:
        return tensors[0]
    what = type(answer).__name__
    if isinstance(answer, nn.Module):
        raise UserError(f"Model {name!r} returned a module ({what}).", "It builds a model: call it, and pass that.")
    many = f" with {len(tensors)} tensors, none of them called logits" if tensors else ""
    raise UserError(f"Model {name!r} returned a {what}{many}.", EXPECTED)


# --- what was given ----------------------------------------------------------------------------------------------


def modules_in(given: Any) -> list[nn.Module]:
    """Every module that a model of the user's own is made of, outermost first; none of what is no model."""
    return [given] if isinstance(given, nn.Module) else _parts_of(given) if callable(given) else []


class _Called(nn.Module):
    """Something that can be called and is no module; modules that it holds are its parts."""

    def __init__(self, call: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.call = call
        self.parts = nn.ModuleList(_parts_of(call))

    def forward(self, images: torch.Tensor) -> Any:
        return self.call(images)


def _module(name: str, given: Any) -> tuple[nn.Module, str]:
    """The module in what was given, and what was taken off."""
    taken: list[str] = []
    while isinstance(given, nn.Module):
        if isinstance(given, nn.DataParallel | nn.parallel.DistributedDataParallel):
            taken.append(type(given).__name__)
            given = given.module
        elif isinstance(getattr(given, "_orig_mod", None), nn.Module):
            taken.append("torch.compile")
            given = given._orig_mod
        else:
            return given, f"{' and '.join(taken)} taken off" if taken else ""
    if isinstance(given, torch.export.ExportedProgram):
        with guarded(name, "was made a module"):
            return given.module(), ""
    return _Called(_callable(name, getattr(given, "_torchdynamo_orig_callable", given))), ""


def _callable(name: str, given: Any) -> Callable[[torch.Tensor], Any]:
    """What was given, if it can be a model. Raises `UserError` that says what else it is."""
    if isinstance(given, type):
        raise UserError(f"Model {name!r} is the class {given.__name__}, not a model.", f"Call it: {given.__name__}().")
    if isinstance(given, Mapping) and any(isinstance(value, torch.Tensor) for value in given.values()):
        hint = "Load it into a module with load_state_dict, and pass the module."
        raise UserError(f"Model {name!r} is a state dict, not a model.", hint)
    if not callable(given):
        raise UserError(f"Model {name!r} is a {type(given).__name__}, which cannot be called.", EXPECTED)
    call: Callable[[torch.Tensor], Any] = given
    return call


def _parts_of(call: Any) -> list[nn.Module]:
    """The modules that a callable holds: whose method it is, its attributes and arguments, what its code names."""
    inner = getattr(call, "func", call)  # of functools.partial
    whose = [call, inner, getattr(inner, "__self__", None)]
    held: list[Any] = list(whose)
    held += (*getattr(call, "args", ()), *getattr(call, "keywords", {}).values()) if inner is not call else ()
    for one in whose:
        held += vars(one).values() if hasattr(one, "__dict__") else ()
    with suppress(TypeError, ValueError):
        names = inspect.getclosurevars(inner)
        held += (*names.nonlocals.values(), *names.globals.values())
    return list({id(one): one for one in held if isinstance(one, nn.Module)}.values())


def _kind(given: Any) -> str:
    """What records say it is: the name of its class, or of the function."""
    if isinstance(given, nn.Module) or not isinstance(getattr(given, "__name__", None), str):
        return type(given).__name__
    return str(given.__name__).strip("<>")  # of a lambda it is <lambda>


# --- into its place ----------------------------------------------------------------------------------------------


def _prepare(name: str, module: nn.Module, device: str | torch.device) -> None:
    """Eval mode, on the device, frozen. What the user's own `train` or `to` returns plays no part."""
    for key, parameter in module.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            what = f"Model {name!r} has weights that do not exist yet: {key} of a lazy layer."
            raise UserError(what, "Call it once with images before you pass it.")
        if parameter.is_meta:
            what = f"Model {name!r} has weights without values: {key} lies on the meta device."
            raise UserError(what, "Load its weights before you pass it.")
    with guarded(name, f"was put on {device}"):
        module.to(device)
    with guarded(name, "was put into eval mode"):
        try:
            module.eval()
        except (NotImplementedError, TypeError):  # programs of torch.export know one mode; a train() without a mode
            for part in module.modules():
                part.training = False
    for parameter in module.parameters():
        if parameter.is_leaf:
            parameter.requires_grad_(False)


def _probed(own: OwnModel, asked: int | None, device: str | torch.device) -> tuple[int, int, str]:
    """The side of the model's images, its number of classes, and where the side was found."""
    stated = list(dict.fromkeys(stated_sizes(own.module)))
    sizes = [asked] if asked else list(dict.fromkeys((*stated, *USUAL_SIZES)))
    failed: dict[int, BaseException] = {}
    for size in sizes:
        try:
            with torch.no_grad():
                logits = own(torch.zeros(2, 3, size, size, device=device))
        except (UserError, MemoryError):
            raise
        except (Exception, SystemExit) as raised:  # noqa: BLE001 - the user's code may raise anything
            failed[size] = raised
            continue
        where = "as the model says" if size in stated else "the first of the usual ones that it takes"
        usual = asked or (size == USUAL_SIZES[0] and not stated)
        return size, logits.shape[1], "" if usual else f"images of {size} pixels, {where}"
    size, error = next(iter(failed.items()))
    what = f"Model {own.name!r} cannot take images of {size} x {size} pixels: {in_a_line(error)}"
    says = [f"It says that it takes {' or '.join(map(str, stated))} pixels."] if stated and asked not in stated else []
    tried = [f"Neither did {', '.join(map(str, sizes[1:]))} work: pass image_size."] if len(sizes) > 1 else []
    types = {str(p.dtype) for p in own.parameters() if p.is_floating_point()} - {"torch.float32"}
    typed = [f"It has weights in {', '.join(sorted(types))}, images are float32: pass module.float()."] if types else []
    raise UserError(what, " ".join((*says, *typed, *tried, EXPECTED))) from error


def _attention(module: nn.Module) -> tuple[int, Attention | None]:
    """How many blocks were probed, and what they compute; none if the probe cannot judge them."""
    inner: Any = next((part for part in module.modules() if hasattr(part, "blocks")), None)
    if inner is None:
        return 0, None
    try:
        return len(inner.blocks), attention_of(inner)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - the user's blocks may be anything
        return 0, None


def _answers(own: OwnModel, size: int, device: str | torch.device) -> torch.Tensor:
    """Logits of eight images of noise, always the same."""
    noise = torch.rand(8, 3, size, size, generator=torch.Generator().manual_seed(0))
    with guarded(own.name, "was given noise"), torch.no_grad():
        return torch.cat([own(part.to(device)) for part in noise.split(2)])
