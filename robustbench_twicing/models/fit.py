"""Tensors of a file into a network: how their names correspond, and if they do not, why.

A file fits if every tensor that the network computes with comes from it, and nothing under the same prefix is left.
Tried in this order, and said where it was needed: the names as they are; without the names of wrappers; behind one
common prefix; as timm's own `checkpoint_filter_fn` converts them.
"""

import math
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import timm
import torch
from timm.layers import resample_abs_pos_embed

from robustbench_twicing.errors import UserError
from robustbench_twicing.models.checkpoints import Checkpoint, first_few

Tensors = Mapping[str, torch.Tensor]

_WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Names that DataParallel, DistributedDataParallel, torch.compile and FSDP put between others."""
_COMPUTED = frozenset(
    (
        *("num_batches_tracked", "n_averaged", "total_ops", "total_params"),
        *("relative_position_index", "relative_coords_table", "attention_bias_idxs", "attn_mask", "position_ids"),
        *("inv_freq", "freqs", "bands"),
    )
)
"""Buffers that no training decides: counters, positions that follow from shapes, and what profilers leave behind."""
_MOST_CLASSES = 1_000_000
"""A file can claim more rows than it holds."""
_POSITIONS = "pos_embed"
"""What timm's vision transformers call their position embeddings."""


@dataclass(frozen=True)
class _Reading:
    """One way to read a file's names as the network's."""

    tensors: Tensors
    said: tuple[str, ...] = ()
    averaged: bool = False
    """The prefix says that it is a moving average."""


@dataclass(frozen=True)
class _Gap:
    """What keeps a reading from fitting; empty if it fits."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    reshaped: tuple[str, ...]
    untold: tuple[str, ...]
    """Buffers that the file lacks and nothing depends on, or that it has and the network does not."""

    @property
    def size(self) -> int:
        return len(self.missing) + len(self.unexpected) + len(self.reshaped)


def fitted(
    make: Callable[[int | None], Any], checkpoint: Checkpoint, source: str, resample: bool = False
) -> tuple[Any, str]:
    """A network with the checkpoint's weights in it, and a note of what was done to make them fit.

    `make(classes)` builds the network, with the architecture's own number of classes if it is None. If nothing but the
    head has another shape, and as many rows throughout, the network is built with that number of classes. With
    `resample`, position embeddings of another size are interpolated. `source` names the file in messages. Raises
    `UserError` that says in what the file differs, with no weights copied.
    """
    network = make(None)
    for name, tensor in checkpoint.tensors.items():
        if tensor.is_quantized or tensor.is_nested:  # its shape, even, is not asked for like others'
            raise _not_plain(source, name, tensor)
    reading, gap = _best(network, checkpoint, source, resample)
    classes = _other_classes(network, reading.tensors, gap)
    said = [checkpoint.note, *reading.said]
    if classes is not None:
        usual = network.num_classes
        network = make(classes)
        reading, gap = _best(network, checkpoint, source, resample)
        said += [] if gap.size else [f"{classes:,} classes, where the architecture has {usual:,}"]
    wanted = network.state_dict()
    for name, tensor in (checkpoint.tensors if gap.size else reading.tensors).items():
        if _kind(tensor) or (not gap.size and _is_rounded(tensor, wanted.get(name))):
            raise _not_plain(source, name, tensor)
    if gap.size:
        raise _refusal(network, reading, gap, source)
    if checkpoint.prefer == "ema" and not reading.averaged:
        raise UserError(f"{source} has no averaged (EMA) weights.", "Pass --weights raw for the others.")
    load = {name: tensor for name, tensor in reading.tensors.items() if name not in gap.untold}
    try:
        network.load_state_dict(load, strict=False)
    except MemoryError:
        raise
    except Exception as error:  # torch's own copy, or a hook of the network
        reason = str(error).strip().splitlines()[-1].strip()
        raise UserError(f"{source} cannot be copied into {type(network).__name__}: {reason}", _OTHER) from error
    if gap.untold:
        kinds = sorted({name.rpartition(".")[2] for name in gap.untold})
        said.append(f"{len(gap.untold)} buffers that no training decides left as they are ({', '.join(kinds)})")
    return network, "; ".join(filter(None, said))


# --- ways to read names ------------------------------------------------------------------------------------------


def _best(network: Any, checkpoint: Checkpoint, source: str, resample: bool) -> tuple[_Reading, _Gap]:
    """The first way to read the names that fits, else the one that lacks least."""
    wanted = network.state_dict()
    computed = {name for name, tensor in wanted.items() if _is_computed(name, tensor)}
    best: tuple[_Reading, _Gap] | None = None
    for reading in _readings(network, wanted, checkpoint, source):
        if resample:
            reading = _resampled(network, reading)
        gap = _gap(wanted, computed, reading.tensors)
        if best is None or gap.size < best[1].size:
            best = reading, gap
        if not gap.size:
            break
    assert best is not None
    return best


def _readings(network: Any, wanted: Tensors, checkpoint: Checkpoint, source: str) -> Iterator[_Reading]:
    plain = _Reading(checkpoint.tensors)
    yield plain
    bare = _without_prefix(wanted, plain, checkpoint.prefer, source)
    yield from bare
    unwrapped = _unwrapped(wanted, plain.tensors, source)
    bare_too = _without_prefix(wanted, unwrapped, checkpoint.prefer, source) if unwrapped.said else []
    yield from (unwrapped, *bare_too)
    for reading in (plain, *bare, unwrapped, *bare_too):
        yield from _converted(network, reading)


def _gap(wanted: Tensors, computed: set[str], tensors: Tensors) -> _Gap:
    missing = [name for name in wanted if name not in tensors]
    unexpected = [name for name in tensors if name not in wanted]
    reshaped = [name for name in tensors if name in wanted and tensors[name].shape != wanted[name].shape]
    untold = [name for name in missing if name in computed]
    untold += [name for name in unexpected if name.rpartition(".")[2] in _COMPUTED]
    left = set(untold)
    return _Gap(
        tuple(name for name in missing if name not in left),
        tuple(name for name in unexpected if name not in left),
        tuple(reshaped),
        tuple(untold),
    )


def _is_computed(name: str, tensor: torch.Tensor) -> bool:
    """A buffer that says nothing about training. Whole numbers are counters and positions; statistics are not."""
    return not tensor.is_floating_point() or name.rpartition(".")[2] in _COMPUTED


def _unwrapped(wanted: Tensors, tensors: Tensors, source: str) -> _Reading:
    """Without the names of wrappers, wherever they stand between others."""
    parts = {part for name in wanted for part in name.split(".")}
    wrappers = [name for name in _WRAPPERS if name not in parts]
    result: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        short = ".".join(part for part in name.split(".") if part not in wrappers)
        if short in result and not _same(result[short], tensor):
            raise UserError(
                f"{source} holds {short!r} twice, with and without the name of a wrapper ({', '.join(wrappers)}).",
                "Save the weights of one of them alone.",
            )
        result[short] = tensor
    removed = [name for name in wrappers if any(name in key.split(".") for key in tensors)]
    return _Reading(result, (f"{' and '.join(removed)} removed from the names",) if removed else ())


def _without_prefix(wanted: Tensors, reading: _Reading, prefer: str | None, source: str) -> list[_Reading]:
    """What lies behind a prefix that most of the network's names are found behind; the rest is not read."""
    tensors = reading.tensors
    anchors = (*list(wanted)[:3], *list(wanted)[-3:])
    prefixes = dict.fromkeys(
        name[: -len(anchor)] for anchor in anchors for name in tensors if name.endswith(f".{anchor}")
    )
    found = {prefix: sum(prefix + name in tensors for name in wanted) for prefix in prefixes}
    likely = [prefix for prefix, count in found.items() if 2 * count > len(wanted)]
    chosen = _one_of(likely, wanted, tensors, prefer, source)
    if chosen is None:
        return []
    inside = {name.removeprefix(chosen): tensor for name, tensor in tensors.items() if name.startswith(chosen)}
    outside = [name for name in tensors if not name.startswith(chosen)]
    said = f"prefix {chosen} removed"
    if outside:
        said += f" (not read: {len(outside)} tensors beside it, {first_few(outside)})"
    return [_Reading(inside, (*reading.said, said), _is_averaged(chosen))]


def _is_averaged(prefix: str) -> bool:
    return "ema" in re.split(r"[._]", prefix)


def _one_of(prefixes: list[str], wanted: Tensors, tensors: Tensors, prefer: str | None, source: str) -> str | None:
    """The prefix that is meant; of several, equal weights are one, and an average is told by its name."""
    whole = [prefix for prefix in prefixes if all(prefix + name in tensors for name in wanted)] or prefixes
    averaged = [prefix for prefix in whole if _is_averaged(prefix)]
    if averaged and len(averaged) < len(whole):
        whole = averaged if prefer == "ema" else [prefix for prefix in whole if prefix not in averaged]
    different = [
        prefix
        for prefix in whole[1:]
        if not all(_same(tensors.get(prefix + name), tensors.get(whole[0] + name)) for name in wanted)
    ]
    if different:
        raise UserError(
            f"{source} holds several networks: {first_few([whole[0], *different])}.",
            "Save the weights of the one that is meant alone.",
        )
    return min(whole, key=len, default=None)


def _same(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    if one.layout != torch.strided or one.is_quantized or one.is_meta or one.shape != other.shape:
        return one is other
    return one.dtype == other.dtype and torch.equal(one, other)


def _converted(network: Any, reading: _Reading) -> Iterator[_Reading]:
    """As timm's own filters of this architecture convert older names, if that resizes nothing.

    Some of them interpolate position embeddings to the network's size without a word.
    """
    modules = dict.fromkeys((type(network).__module__, _entry_module(network)))
    for module in modules:
        convert = getattr(sys.modules.get(module or ""), "checkpoint_filter_fn", None)
        if convert is None:
            continue
        try:
            tensors = convert(dict(reading.tensors), network)
            sizes = {tensor.numel() for tensor in reading.tensors.values()}
            whole = all(isinstance(tensor, torch.Tensor) and tensor.numel() in sizes for tensor in tensors.values())
        except Exception:  # noqa: BLE001 - it expects a file of that architecture, which this may not be
            continue
        if whole:
            yield _Reading(tensors, (*reading.said, "names converted by timm's checkpoint_filter_fn"))


def _entry_module(network: Any) -> str | None:
    name = (getattr(network, "pretrained_cfg", None) or {}).get("architecture", "")
    return timm.model_entrypoint(name).__module__ if timm.is_model(name) else None


def _resampled(network: Any, reading: _Reading) -> _Reading:
    """With position embeddings interpolated to the image size of `network`.

    As timm does: bicubic with antialiasing, the class token's left alone. Unchanged if they have the right size, or if
    they are no square grid; then they are refused.
    """
    ours, theirs = network.state_dict().get(_POSITIONS), reading.tensors.get(_POSITIONS)
    if ours is None or theirs is None or ours.shape == theirs.shape or not ours.ndim == theirs.ndim == 3:
        return reading
    if _kind(theirs):
        return reading
    extra = 0 if getattr(network, "no_embed_class", False) else getattr(network, "num_prefix_tokens", 0)
    side = math.isqrt(max(0, theirs.shape[1] - extra))
    if side == 0 or side * side != theirs.shape[1] - extra:
        return reading
    rows, columns = network.patch_embed.grid_size
    resampled = resample_abs_pos_embed(theirs, [rows, columns], num_prefix_tokens=extra)
    said = f"position embeddings resampled from {side} x {side} to {rows} x {columns}"
    return _Reading({**reading.tensors, _POSITIONS: resampled}, (*reading.said, said))


# --- why it does not fit -----------------------------------------------------------------------------------------


def _other_classes(network: Any, tensors: Tensors, gap: _Gap) -> int | None:
    """How many classes the file's head has, if that is all in which it differs."""
    if not gap.reshaped or gap.missing or gap.unexpected:
        return None
    wanted = network.state_dict()
    rows = {tensors[name].shape[0] if tensors[name].ndim else 0 for name in gap.reshaped}
    if max(rows) > _MOST_CLASSES:
        return None
    alike = all(tensors[name].shape[1:] == wanted[name].shape[1:] for name in gap.reshaped)
    if len(rows) != 1 or not alike or not all(name.startswith(_heads(network)) for name in gap.reshaped):
        return None
    return rows.pop() or None


def _heads(network: Any) -> tuple[str, ...]:
    """How the names of the classifier's tensors begin."""
    heads = (getattr(network, "pretrained_cfg", None) or {}).get("classifier") or ()
    return tuple(f"{head}." for head in ((heads,) if isinstance(heads, str) else heads)) or ("\0",)


def _not_plain(source: str, name: str, tensor: torch.Tensor) -> UserError:
    kind = _kind(tensor) or f"whole numbers ({tensor.dtype}), as quantised files do,"
    return UserError(
        f"{source} holds {kind} instead of plain weights: {name}.",
        "Name the file of the weights that it was made from, in float.",
    )


def _is_rounded(tensor: torch.Tensor, wanted: torch.Tensor | None) -> bool:
    """Whole numbers where the network has others."""
    return wanted is not None and wanted.is_floating_point() and not tensor.is_floating_point()


def _kind(tensor: torch.Tensor) -> str:
    if tensor.is_quantized:
        return f"quantised tensors ({str(tensor.dtype).removeprefix('torch.')})"
    if tensor.is_nested:
        return "nested tensors"
    if tensor.layout != torch.strided:
        return "sparse tensors"
    if tensor.is_meta:
        return "tensors without values (of the meta device)"
    if tensor.is_complex():
        return "complex tensors"
    return ""


_OTHER = "The checkpoint is of another architecture."
_BY_ANOTHER_LIBRARY = "it may be this architecture by another library. If it is, save it under these names."


def _refusal(network: Any, reading: _Reading, gap: _Gap, source: str) -> UserError:
    wanted, tensors = network.state_dict(), reading.tensors
    reshaped = [f"{name} {tuple(tensors[name].shape)} instead of {tuple(wanted[name].shape)}" for name in gap.reshaped]
    problems = {"missing": gap.missing, "unexpected": gap.unexpected, "of another shape": reshaped}
    listed = "; ".join(f"{len(names)} {what} ({first_few(names)})" for what, names in problems.items() if names)
    after = f" ({', '.join(reading.said)})" if reading.said else ""
    message = f"{source} does not fit {type(network).__name__}{after}: of {len(wanted)} tensors, {listed}."
    return UserError(message, _why(network, wanted, tensors, gap, source))


def _why(network: Any, wanted: Tensors, tensors: Tensors, gap: _Gap, source: str) -> str:
    """What these differences mean, as far as they tell."""
    heads = _heads(network)
    only_positions = gap.reshaped == (_POSITIONS,) and not gap.missing and not gap.unexpected
    if only_positions and tensors[_POSITIONS].shape[-1] == wanted[_POSITIONS].shape[-1]:
        return (
            "It was trained on images of another size. Name the architecture of that size, or pass "
            "--resample-pos-embed to interpolate its position embeddings to this one."
        )
    if gap.missing and all(name.startswith(heads) for name in gap.missing) and not gap.reshaped:
        return f"It has no classifier ({first_few(gap.missing)}): features alone cannot be judged."
    if re.search(r"-\d{5}-of-\d{5}", source):
        return "It is one of several pieces: join them into one file."
    ours = [name for name, tensor in wanted.items() if not _is_computed(name, tensor)]
    theirs = [name for name in tensors if name.rpartition(".")[2] not in _COMPUTED]
    renamed = next(((o, t) for o, t in zip(ours, theirs, strict=False) if o != t), None)
    if renamed and [wanted[name].shape for name in ours] == [tensors[name].shape for name in theirs]:
        return (
            f"The same shapes come in the same order under other names ({renamed[1]} in the file, {renamed[0]} here): "
            f"{_BY_ANOTHER_LIBRARY}"
        )
    lacked = [name for name in gap.missing if name in ours]
    brought = [name for name in gap.unexpected if name in theirs]
    if lacked and not gap.reshaped and _shapes(wanted, lacked) == _shapes(tensors, brought):
        return (
            f"The same shapes come under other names ({min(brought)} … in the file, {min(lacked)} … here): "
            f"{_BY_ANOTHER_LIBRARY}"
        )
    alike = sum(name in tensors and tensors[name].shape == wanted[name].shape for name in ours)
    depth = _depth(wanted), _depth(tensors)
    if depth[0] != depth[1] and 0 not in depth:
        return f"{_OTHER} It has {depth[1]} blocks, {type(network).__name__} has {depth[0]}."
    if 2 * alike > len(ours):
        return f"{alike} of {len(ours)} tensors fit: it is of a variant of this architecture."
    return _OTHER


def _shapes(tensors: Tensors, names: list[str]) -> Counter[tuple[int, ...]]:
    return Counter(tuple(tensors[name].shape) for name in names)


def _depth(names: Tensors) -> int:
    """How many blocks the names count."""
    numbers = [int(found[1]) for name in names if (found := re.match(r"blocks\.(\d+)\.", name))]
    return max(numbers, default=-1) + 1
