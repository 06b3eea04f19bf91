"""The images of some samples of each cell of a run, made again after it and kept in its folder."""

import numpy as np
import pandas as pd

from robustbench_twicing.results.manifest import CellEntry, Manifest
from robustbench_twicing.results.run import load_finished
from robustbench_twicing.results.side import CLEAN
from robustbench_twicing.results.store import ARRAYS, IMAGES, RunFolder, write_whole
from robustbench_twicing.runner.prepare import Ready
from robustbench_twicing.spec.means import Means


def keep_images(ready: Ready, folder: RunFolder, means: Means, manifest: Manifest) -> None:
    """Write images/CELL/ for every cell: `means.keep_images` samples each, those first that the threat breaks.

    They are made again, which draws that follow the sample allow, also where records were there before. A sample that
    comes out otherwise than its record says is left out, and a remark says so. What is there already is kept.
    """
    if not means.keep_images:
        return
    cells = load_finished(folder.path).cells
    wanted, entries = {}, dict(zip(ready.plan.cells, ready.entries, strict=True))
    for cell, entry in entries.items():
        here = cells.get((entry.model, entry.threat))
        rows = _interesting(here, cells.get((entry.model, CLEAN)), means.keep_images)
        if len(rows) and not _is_there(folder, entry, rows):
            wanted[cell] = rows
    if not wanted:
        return
    ready.opened.tune(means, manifest.means)  # as the run was computed
    for cell, lacking, files in ready.opened.kept(wanted):
        place = folder.path / IMAGES / entries[cell].folder
        for old in place.glob("*"):
            old.unlink()
        for name, content in files:
            write_whole(place / name, content)
        if lacking:
            what = f"{lacking} image(s) of {cell.model.name} under {cell.threat.id} came out otherwise than recorded"
            folder.remarks.append(f"{what}, and are not kept.")


def _interesting(rows: pd.DataFrame | None, clean: pd.DataFrame | None, most: int) -> pd.DataFrame:
    """The samples to keep, their places in the data set for the index: right on the clean image and wrong here, then
    those that are wrong here anyway, then the others; each in the data set's order. Failed ones have no image.
    """
    if rows is None:
        return pd.DataFrame()
    right_before = set() if clean is None else set(clean.loc[clean["correct"], "sample_id"])
    broken = rows["sample_id"].isin(right_before) & ~rows["correct"]
    rank = (~broken).astype(int) + rows["correct"].astype(int)
    order = rank[rows["status"] == "ok"].sort_values(kind="stable").index[:most]
    return rows.loc[order]


def _is_there(folder: RunFolder, entry: CellEntry, rows: pd.DataFrame) -> bool:
    """Whether these very samples were kept before, with these answers."""
    try:
        with np.load(folder.path / IMAGES / entry.folder / ARRAYS) as found:
            pairs = (found["ids"], rows["sample_id"]), (found["predictions"], rows["prediction"])
            return all(here.tolist() == wanted.tolist() for here, wanted in pairs)
    except (OSError, ValueError, KeyError):
        return False
