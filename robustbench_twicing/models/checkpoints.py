"""Weights from files, and only weights: no file is ever allowed to run code."""

import argparse
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import safetensors
import torch

from robustbench_twicing.errors import UserError
from robustbench_twicing.models.file_kinds import HOW_TO_SAVE, damaged, kind_of, unreadable
from robustbench_twicing.models.unpickle import Array, read_torch

Prefer = Literal["raw", "ema"]

# The keys under which training scripts keep a model's weights: DeiT's and twicing's write model and model_ema, timm's
# write state_dict and state_dict_ema, torch's tutorials model_state_dict.
_KEYS: dict[Prefer, tuple[str, ...]] = {
    "raw": ("model", "state_dict", "model_state_dict"),
    "ema": ("model_ema", "state_dict_ema", "ema_state_dict"),
}
_DEEPEST = 8
"""Dictionaries within each other that are looked through for tensors."""
_SHOWN = 3


class Checkpoint(NamedTuple):
    """The tensors of a model as a file has them."""

    tensors: dict[str, torch.Tensor]
    note: str
    """Which part of the file they are, such as "key model (not read: model_ema)"; empty if it holds nothing else."""
    training_recipe: str = ""
    """Hash of the recipe that trained them, if the file states it."""
    training_seed: int = -1
    """Seed of the training, if the file states it."""
    prefer: Prefer | None = "raw"
    """Which of several sets among `tensors` is meant; None where the choice is made."""


def read_checkpoint(path: Path, prefer: Prefer = "raw") -> Checkpoint:
    """The weights in a .safetensors file, or in one written by `torch.save`, whatever the file is called.

    Of a training checkpoint the key model or state_dict is read, with `prefer="ema"` model_ema or state_dict_ema.
    Without such a key the dictionary in which the tensors lie is; if there are several, all of them, with the names
    of the dictionaries in front of the tensors'. Nothing is unpickled but tensors and plain data (see `unpickle`).
    Raises `UserError` that says what the file is, if it is missing, no checkpoint, damaged, asks to run code, or has no
    weights where they are looked for.
    """
    if kind_of(path) == "safetensors":
        content, stated = _read_safetensors(path)
    else:
        content = read_torch(path)
        stated = _statements(content)
    found = _choose(path, content, prefer)
    return found._replace(training_recipe=_recipe(stated), training_seed=_seed(stated))


def first_few(names: Iterable[str]) -> str:
    """The first three names, and a sign that there are more."""
    names = list(names)
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _read_safetensors(path: Path) -> tuple[Any, Mapping[str, Any]]:
    """The tensors, and the file's metadata."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except MemoryError:
        raise
    except OSError as error:
        raise unreadable(path, error) from error
    except Exception as error:  # SafetensorError, and KeyError for a type of number that torch does not have
        raise damaged(path, str(error).partition("\n")[0] or type(error).__name__) from error


def _statements(content: Any) -> Mapping[str, Any]:
    """What a file of `torch.save` says of its training: its key `twicing_bench`, or the arguments of DeiT and timm."""
    if not isinstance(content, Mapping):
        return {}
    own, args = content.get("twicing_bench"), content.get("args")
    if isinstance(own, Mapping):
        return own
    args = vars(args) if isinstance(args, argparse.Namespace) else args
    return {"seed": args.get("seed")} if isinstance(args, Mapping) else {}


def _seed(stated: Mapping[str, Any]) -> int:
    """The training's seed, -1 unless a whole number that a record can hold is stated."""
    text = str(stated.get("seed"))
    seed = int(text) if re.fullmatch(r"\d{1,19}", text, re.ASCII) else -1
    return seed if seed < 2**63 else -1


def _recipe(stated: Mapping[str, Any]) -> str:
    """The hash of the training's recipe, empty unless something that looks like one is stated."""
    recipe = stated.get("training_recipe")
    return recipe if isinstance(recipe, str) and re.fullmatch(r"[\w.-]{1,64}", recipe, re.ASCII) else ""


def _choose(path: Path, content: Any, prefer: Prefer) -> Checkpoint:
    """The state dict among what a file holds, and a note saying where it was."""
    keys: list[str] = []
    rest: list[str] = []
    settled = False
    while isinstance(content, Mapping) and len(keys) < _DEEPEST:
        present = [key for names in _KEYS.values() for key in names if key in content]
        wanted = [key for key in _KEYS[prefer] if key in content]
        if not present:
            break
        settled = settled or any(key in _KEYS["ema"] for key in wanted)
        if prefer == "ema" and not wanted and not settled and not _names_average(content[present[0]]):
            raise UserError(f"{path} has no averaged (EMA) weights.", f"It has the key {', '.join(present)}. {_RAW}")
        key = (wanted or present)[0]
        rest += [other for other in present if other != key]
        keys.append(key)
        content = content[key]
    note = f"key {'.'.join(keys)}" + (f" (not read: {', '.join(rest)})" if rest else "") if keys else ""
    where = f"{path}, key {'.'.join(keys)}," if keys else str(path)
    if not isinstance(content, Mapping):
        if keys:
            raise UserError(f"{where} has no weights in it.", HOW_TO_SAVE)
        raise UserError(f"{path} holds a {type(content).__name__}, not weights.", HOW_TO_SAVE)
    if prefer == "ema" and not keys and not _names_average(content):
        listed = first_few(str(key) for key in content)
        raise UserError(f"{path} has no averaged (EMA) weights.", f"Its keys are {listed}. {_RAW}")
    tensors, others = _tensors_in(content)
    if not tensors:
        hint = (
            "Numpy arrays become tensors with torch.from_numpy. " if any(" (numpy)" in kind for kind in others) else ""
        )
        holds = f"; it holds {first_few(others)}, which are not tensors" if others else ""
        raise UserError(f"{where} has no weights in it{holds}.", hint + HOW_TO_SAVE)
    return Checkpoint(tensors, note, prefer=None if settled else prefer)


def _names_average(content: Any) -> bool:
    """Some name in it speaks of a moving average."""
    return isinstance(content, Mapping) and any("ema" in str(key) for key in content)


def _tensors_in(
    content: Mapping[Any, Any], prefix: str = "", depth: int = 0
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Every tensor in dictionaries within each other, by its dotted name; and names of what else there is."""
    tensors: dict[str, torch.Tensor] = {}
    others: list[str] = []
    for key, value in content.items():
        name = f"{prefix}{key}"
        if isinstance(value, torch.Tensor):
            tensors[name] = value
        elif isinstance(value, Mapping) and depth < _DEEPEST:
            inner, more = _tensors_in(value, f"{name}.", depth + 1)
            tensors |= inner
            others += more
        else:
            others.append(f"{name} (numpy)" if isinstance(value, Array) else name)
    return tensors, others


_RAW = "Pass --weights raw for the others."
