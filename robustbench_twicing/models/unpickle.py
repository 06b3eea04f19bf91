"""Files of `torch.save`, read without running anything that they name.

torch's restricted unpickler builds tensors, plain containers and, here, `argparse.Namespace`. What else training
scripts put beside weights, and is known to be mere data (`_HARMLESS`), becomes an object without a meaning: its class
is never imported. Any other name is refused, since whoever opens such a file in another way runs what it names.
"""

import argparse
import pickle
import pickletools
import re
import warnings
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import torch

from robustbench_twicing.errors import UserError
from robustbench_twicing.models.file_kinds import damaged, unreadable, would_run_code

_HARMLESS = re.compile(
    r"""
    types\.SimpleNamespace
    | builtins\.(int|float|complex|str|bytes|bytearray|bool|list|tuple|dict|set|frozenset|slice|range|object)
    | collections\.(OrderedDict|Counter|defaultdict|deque) | typing\.\w+
    | (datetime|decimal|fractions|uuid)\.\w+ | pathlib(\._local)?\.\w+
    | numpy\.(dtype|ndarray|(float|int|uint|bool|complex|str|bytes)\w*|dtypes\.\w+)
    | numpy\._?core\.(multiarray\.(scalar|_reconstruct)|numeric\._frombuffer)
    | torch\.optim\.[\w.]+ | torch\.torch_version\.TorchVersion
    | (easydict|yacs|omegaconf|addict|ml_collections|mmcv|mmengine|pytorch_lightning|lightning\w*)\.[\w.]+
    | timm\.(data|utils|scheduler|optim|loss)\.[\w.]+
    """,
    re.VERBOSE,
)
"""Names that checkpoints of public training scripts hold beside tensors: settings, dates, paths, numpy's numbers, the
state of optimizers and schedulers."""
_MAPPINGS = re.compile(r"collections\.(defaultdict|Counter)|.*(Dict|CfgNode)")
_ADVICE = re.compile(r"weights_only|torch\.load|safe_globals|allowlist|re-running", re.IGNORECASE)
"""torch advises to read such a file without restriction, which is never right here."""
_NESTED = "torch._utils._rebuild_nested_tensor"
_PICKLES_BEFORE = 3
"""In a file of torch before 1.6: its number, the protocol and the machine's sizes come before the content."""


def read_torch(path: Path) -> Any:
    """What `torch.save` wrote into `path`: tensors and plain data. Raises `UserError` for anything else."""
    asked, protocol = _names_in(path)
    inert: list[Any] = [_inert(name) for name in sorted(asked) if _HARMLESS.fullmatch(name)]
    if argparse.Namespace not in torch.serialization.get_safe_globals():  # else it would be the caller's no longer
        inert.append(argparse.Namespace)
    try:
        # torch warns about unusual pickle protocols, which the errors below say better.
        with warnings.catch_warnings(), torch.serialization.safe_globals(inert):
            warnings.simplefilter("ignore")
            with path.open("rb") as file:  # by its name torch would take it for safetensors
                return torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise unreadable(path, error) from error
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        if named and named[1] == _NESTED:  # refused by torch since 2.15
            raise UserError(
                f"{path} holds nested tensors instead of plain weights.",
                "Name the file of the weights that it was made from.",
            ) from error
        if named:
            raise would_run_code(f"{path} asks for {named[1]}") from error
        if protocol > 2:
            raise UserError(
                f"{path} was saved with pickle protocol {protocol}, which cannot be read without running code.",
                "Save it again without pickle_protocol: torch.save(model.state_dict(), 'weights.pth').",
            ) from error
        raise damaged(path, _reason(error)) from error
    except Exception as error:  # on damaged bytes torch raises whatever they lead it to: RuntimeError, MemoryError, ...
        raise damaged(path, _reason(error)) from error


class _Inert:
    """Stands for an object whose class is not imported; whatever is done to it has no effect."""

    def __init__(self, *arguments: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class Array(_Inert):
    """Stands for a numpy array."""


class _Mapping:
    """Stands for a class of dictionaries: what is put in stays in."""

    def __new__(cls, *arguments: Any) -> Any:
        return OrderedDict()


class _List:
    """Stands for a class of lists."""

    def __new__(cls, *arguments: Any) -> Any:
        return []


def _inert(name: str) -> Any:
    """A class of ours for the name in a file."""
    if _MAPPINGS.fullmatch(name):
        base: type = _Mapping
    elif name.endswith(("deque", "ListConfig")):
        base = _List
    else:
        base = Array if name.endswith("_reconstruct") else _Inert
    module, _, own = name.rpartition(".")
    return type(own, (base,), {"__module__": module, "__qualname__": own})


def _names_in(path: Path) -> tuple[set[str], int]:
    """What the pickle in a file of `torch.save` names, and its protocol; nothing where the bytes are no pickle."""
    names: set[str] = set()
    protocol = 0
    try:
        with path.open("rb") as file:
            for stream in _pickles(file):
                for operation, argument, _ in pickletools.genops(stream):
                    if operation.name == "GLOBAL":
                        names.add(_name(*str(argument).split(" ", 1)))
                    elif operation.name == "PROTO":
                        protocol = int(str(argument))
    except Exception:  # noqa: BLE001 - torch finds the same damage, and then it is said; MemoryError is a false length
        return names, protocol
    return names, protocol


def _name(module: str, name: str) -> str:
    """The name in Python 3: torch.save writes those of Python 2."""
    module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
    return f"{module}.{name}"


def _pickles(file: IO[bytes]) -> Iterator[IO[bytes]]:
    if not zipfile.is_zipfile(file):
        file.seek(0)
        for _ in range(_PICKLES_BEFORE + 1):
            yield file
        return
    with zipfile.ZipFile(file) as archive:
        for name in archive.namelist():
            if name.rpartition("/")[2] == "data.pkl":
                with archive.open(name) as member:
                    yield member


def _reason(error: Exception) -> str:
    text = str(error).strip().partition("\n")[0][:120]
    return (
        text
        if text and text.isprintable() and not _ADVICE.search(text)
        else f"torch cannot read it ({type(error).__name__})"
    )
