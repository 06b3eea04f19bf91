"""Weights from files, and only weights: no file is ever allowed to run code."""

import argparse
import hashlib
import math
import pickle
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import safetensors
import torch
from timm.layers import resample_abs_pos_embed
from torch import nn

from robustbench_twicing.errors import UserError

Prefer = Literal["raw", "ema"]

# The keys under which training scripts keep a model's weights: DeiT's and twicing's write model and model_ema, timm's
# write state_dict and state_dict_ema.
_KEYS: dict[Prefer, tuple[str, ...]] = {"raw": ("model", "state_dict"), "ema": ("model_ema", "state_dict_ema")}
# Left behind by DistributedDataParallel and torch.compile.
_PREFIXES = ("module.", "_orig_mod.")
_TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".tar")
_SHOWN = 3
_POSITIONS = "pos_embed"
"""What timm's vision transformers call their position embeddings."""


class Checkpoint(NamedTuple):
    """The tensors of a model as a file has them."""

    tensors: dict[str, torch.Tensor]
    note: str
    """Which part of the file they are, such as "key model (not read: model_ema)"; empty if it holds nothing else."""
    training_recipe: str = ""
    """Hash of the recipe that trained them, if the file states it."""
    training_seed: int = -1
    """Seed of the training, if the file states it."""


def read_checkpoint(path: Path, prefer: Prefer = "raw") -> Checkpoint:
    """The weights in a .safetensors file, or in one written by `torch.save` (.pth, .pt, .bin, .ckpt, .tar).

    Of a training checkpoint the key model or state_dict is read, with `prefer="ema"` model_ema or state_dict_ema.
    Prefixes of DistributedDataParallel and torch.compile are removed. Nothing is unpickled but tensors, plain
    containers and `argparse.Namespace`. Raises `UserError` for a file that is missing, truncated, asks to run code, or
    has no weights where they are looked for.
    """
    if not path.is_file():
        raise UserError(
            f"No checkpoint at {path}.", "Check the path after NAME=, or what `twicing-bench config show` says."
        )
    if path.suffix == ".safetensors":
        content, stated = _read_safetensors(path)
    elif path.suffix in _TORCH_SUFFIXES:
        content = _read_torch(path)
        stated = _statements(content)
    else:
        raise UserError(
            f"{path} is no checkpoint by its name.", f"Known endings: .safetensors, {', '.join(_TORCH_SUFFIXES)}."
        )
    tensors, note = _choose(path, content, prefer)
    return Checkpoint(_without_prefixes(path, tensors), note, _recipe(stated), _seed(stated))


def load_weights(network: nn.Module, tensors: Mapping[str, torch.Tensor], source: str) -> None:
    """Copy `tensors` into `network`, all of them or none.

    Raises `UserError` that lists missing, unexpected and wrong-shaped keys, unless they match exactly. `source` names
    where the tensors are from.
    """
    wanted = network.state_dict()
    problems = {
        "missing": [name for name in wanted if name not in tensors],
        "unexpected": [name for name in tensors if name not in wanted],
        "of another shape": [
            f"{name} {tuple(tensor.shape)} instead of {tuple(wanted[name].shape)}"
            for name, tensor in tensors.items()
            if name in wanted and tensor.shape != wanted[name].shape
        ],
    }
    if any(problems.values()):
        listed = "; ".join(f"{len(names)} {what} ({_first(names)})" for what, names in problems.items() if names)
        reshaped = [name for name in tensors if name in wanted and tensors[name].shape != wanted[name].shape]
        hint = "The checkpoint is of another architecture, or of another number of classes."
        if not problems["missing"] and not problems["unexpected"]:
            hint = _why_reshaped(network, tensors, wanted, reshaped) or hint
        raise UserError(f"{source} does not fit {type(network).__name__}: of {len(wanted)} tensors, {listed}.", hint)
    network.load_state_dict(dict(tensors))


def _why_reshaped(
    network: Any, tensors: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor], names: Sequence[str]
) -> str:
    """What it means that just these tensors have another shape; empty if they tell nothing."""
    if names == [_POSITIONS] and tensors[_POSITIONS].shape[-1] == wanted[_POSITIONS].shape[-1]:
        return (
            "It was trained on images of another size. Name the architecture of that size, or pass "
            "--resample-pos-embed to interpolate its position embeddings to this one."
        )
    heads = (getattr(network, "pretrained_cfg", None) or {}).get("classifier") or ()
    starts = tuple(f"{head}." for head in ((heads,) if isinstance(heads, str) else heads))
    if all(name.startswith(starts) and tensors[name].ndim for name in names):
        return f"It has {len(tensors[names[0]]):,} classes, the architecture has {len(wanted[names[0]]):,}."
    return ""


def with_resampled_position_embeddings(network: Any, checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with its position embeddings interpolated to the image size of `network`, and a note of it.

    As timm does: bicubic with antialiasing, the class token's left alone. Unchanged if they have the right size, or if
    they are no square grid; then `load_weights` refuses them.
    """
    ours, theirs = network.state_dict().get(_POSITIONS), checkpoint.tensors.get(_POSITIONS)
    if ours is None or theirs is None or ours.shape == theirs.shape or not ours.ndim == theirs.ndim == 3:
        return checkpoint
    extra = 0 if getattr(network, "no_embed_class", False) else getattr(network, "num_prefix_tokens", 0)
    side = math.isqrt(max(0, theirs.shape[1] - extra))
    if side == 0 or side * side != theirs.shape[1] - extra:
        return checkpoint
    rows, columns = network.patch_embed.grid_size
    resampled = resample_abs_pos_embed(theirs, [rows, columns], num_prefix_tokens=extra)
    note = f"position embeddings resampled from {side} x {side} to {rows} x {columns}"
    tensors = {**checkpoint.tensors, _POSITIONS: resampled}
    return checkpoint._replace(tensors=tensors, note="; ".join(filter(None, [checkpoint.note, note])))


def weights_hash(network: nn.Module) -> str:
    """First 12 hex digits of the SHA-256 over the state dict's names and bytes, sorted by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:12]


def _read_safetensors(path: Path) -> tuple[Any, Mapping[str, Any]]:
    """The tensors, and the file's metadata."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise _damaged(path, error) from error
    except OSError as error:
        raise _unreadable(path, error) from error


def _read_torch(path: Path) -> Any:
    try:
        # torch warns about unusual pickle protocols, which the errors below say better.
        with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise _unreadable(path, error) from error
    except pickle.UnpicklingError as error:
        asked_for = re.search(r"GLOBAL ([\w.]+)", str(error))
        if asked_for:
            raise _would_run_code(f"{path} asks for {asked_for[1]}, which could run code") from error
        if _starts_like_a_pickle(path):
            raise _would_run_code(f"{path} is a plain pickle, which could run code") from error
        raise _damaged(path, error) from error
    except (
        Exception
    ) as error:  # on damaged bytes torch raises whatever they lead it to: RuntimeError, EOFError, KeyError
        raise _damaged(path, error) from error


def _starts_like_a_pickle(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(1) == pickle.PROTO


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


def _choose(path: Path, content: Any, prefer: Prefer) -> tuple[dict[str, torch.Tensor], str]:
    """The state dict among what a file holds, and a note saying where it was."""
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}, not weights.", _HOW_TO_SAVE)
    present = [key for keys in _KEYS.values() for key in keys if key in content]
    if not present:
        if prefer == "ema":
            raise UserError(f"{path} has no averaged (EMA) weights.", f"Its keys are {_first(list(content))}. {_RAW}")
        return _only_tensors(path, content, ""), ""
    wanted = [key for key in _KEYS[prefer] if key in content]
    if prefer == "ema" and not wanted:
        raise UserError(f"{path} has no averaged (EMA) weights.", f"It has the key {', '.join(present)}. {_RAW}")
    key = (wanted or present)[0]
    rest = [other for other in present if other != key]
    note = f"key {key}" + (f" (not read: {', '.join(rest)})" if rest else "")
    return _only_tensors(path, content[key], key), note


def _only_tensors(path: Path, content: Any, key: str) -> dict[str, torch.Tensor]:
    where = f"{path}, key {key}," if key else str(path)
    if not isinstance(content, Mapping) or not content:
        raise UserError(f"{where} has no weights in it.", _HOW_TO_SAVE)
    others = [str(name) for name, value in content.items() if not isinstance(value, torch.Tensor)]
    if others:
        raise UserError(f"{where} holds {len(others)} things that are not tensors ({_first(others)}).", _HOW_TO_SAVE)
    return {str(name): tensor for name, tensor in content.items()}


def _without_prefixes(path: Path, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    def plain(name: str) -> str:
        while name.startswith(_PREFIXES):
            name = name.partition(".")[2]
        return name

    stripped = {plain(name): tensor for name, tensor in tensors.items()}
    if len(stripped) < len(tensors):
        raise UserError(f"{path} holds the same weights with and without the prefix {_PREFIXES[0]!r}.", _HOW_TO_SAVE)
    return stripped


_RAW = "Pass --weights raw for the others."
_HOW_TO_SAVE = "Save the weights alone: torch.save(model.state_dict(), 'weights.pth'), or as .safetensors."


def _would_run_code(message: str) -> UserError:
    return UserError(f"{message}; it was not unpickled.", _HOW_TO_SAVE)


def _damaged(path: Path, error: Exception) -> UserError:
    reason = str(error).partition("\n")[0] or type(error).__name__
    return UserError(f"{path} is truncated or no checkpoint: {reason}.", "Fetch or save the file again.")


def _unreadable(path: Path, error: OSError) -> UserError:
    return UserError(f"{path} cannot be read: {error.strerror or error}.", "Check the file's permissions.")


def _first(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
