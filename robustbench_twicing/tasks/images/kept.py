"""Judged images as files: PNG to look at, and one .npz with the values that the network saw."""

import io
from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from PIL import Image

from robustbench_twicing.results.store import ARRAYS
from robustbench_twicing.tasks.images.block import Redone

_ANSWERS = ("prediction", "correct")


def agreeing(done: Redone, recorded: pd.DataFrame) -> Redone:
    """Those samples whose answer is the recorded one; `recorded` has their places for its index."""
    said = recorded.loc[list(done.positions)]
    same = np.logical_and.reduce([done.table[key].to_numpy() == said[key].to_numpy() for key in _ANSWERS])
    return done.at([place for place, agrees in zip(done.positions, same, strict=True) if agrees])


def joined(parts: list[Redone], order: list[int]) -> Redone:
    """Several parts of one cell as one, its samples in this order of places."""
    first = parts[0]
    places = [place for part in parts for place in part.positions]
    rows = [places.index(place) for place in order if place in places]
    return first._replace(
        positions=tuple(places[row] for row in rows),
        table=pd.concat([part.table for part in parts]).iloc[rows].reset_index(drop=True),
        images=torch.cat([part.images for part in parts])[rows],
        clean=torch.cat([part.clean for part in parts])[rows],
    )


def files_of(kept: Redone) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file of a cell, the arrays last: where they are, everything is."""
    threat, model = kept.cell.threat, kept.model
    space = threat.rules.space if threat.kind == "attack" else "pixel"
    mean, std = model.mean.cpu(), model.std.cpu()
    seen = kept.images if space == "pixel" else kept.images * std + mean
    named = zip(kept.positions, kept.table["sample_id"], strict=True)
    stems = [f"{place:07d}-{_plain(str(sample))}" for place, sample in named]
    for stem, image, clean in zip(stems, seen, kept.clean, strict=True):
        yield f"{stem}.png", _png(image)
        if threat.kind in ("attack", "corruption"):
            yield f"{stem}-clean.png", _png(clean)
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        images=kept.images.numpy(),
        clean=kept.clean.numpy(),
        ids=np.array(kept.table["sample_id"].tolist(), dtype=np.str_),
        labels=kept.table["label"].to_numpy(np.int64),
        predictions=kept.table["prediction"].to_numpy(np.int64),
        correct=kept.table["correct"].to_numpy(bool),
        model=np.array(kept.cell.model.name),
        threat=np.array(threat.id),
        space=np.array(space),
        mean=mean.flatten().numpy(),
        std=std.flatten().numpy(),
    )
    yield ARRAYS, buffer.getvalue()


def _plain(sample: str) -> str:
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in sample)[-80:]


def _png(image: torch.Tensor) -> bytes:
    levels = (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, format="PNG")
    return buffer.getvalue()
