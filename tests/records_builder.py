"""Records without a model: frames and run folders in the form that the runner writes, from outcomes given by hand."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from robustbench_twicing.catalog.suites import suite_definition, suite_names
from robustbench_twicing.results.store import RunFolder, Shard, cell_folder
from robustbench_twicing.results.summary import summarize
from robustbench_twicing.spec.records import COLUMNS
from robustbench_twicing.spec.suite import SuiteDefinition

CLASSES = 10


def threat_columns(threat: str) -> dict[str, Any]:
    """The columns that say what a threat is, read from its id."""
    columns = {"kind": "shift", "attack": "", "eps": "", "suite": "", "corruption": "", "severity": 0, "protocol": ""}
    if threat == "clean":
        columns["kind"] = "clean"
    elif attack := re.fullmatch(r"(\w+)-(linf|l2)-(.+)", threat):
        columns |= {"kind": "attack", "attack": attack[1], "eps": attack[3], "protocol": "standard"}
    elif part := re.fullmatch(r"(.+):(\w+)-(\d)", threat):
        columns |= {"kind": "corruption", "suite": part[1], "corruption": part[2], "severity": int(part[3])}
    else:
        columns["suite"] = threat
    # As in the vocabulary, eps is no part of the hash.
    return columns | {"protocol_hash": f"hash of {threat.removesuffix(str(columns['eps']))}"}


def cell(model: str, threat: str, correct: Sequence[bool] | np.ndarray, **columns: Any) -> pd.DataFrame:
    """The records of one model under one threat; `columns` overrides any column, for all rows or row by row."""
    right = np.asarray(correct, dtype=bool)
    n = len(right)
    labels = np.arange(n) % CLASSES
    known: dict[str, Any] = {
        "model": model,
        "architecture": "deit_digits_patch8_32",
        "attention": "twicing" if "tw" in model else "softmax",
        "weights_hash": f"weights of {model}",
        "training_recipe": "",
        "training_seed": -1,
        "data": "digits",
        "data_fingerprint": "fingerprint",
        "recipe": "none",
        "threat": threat,
        **threat_columns(threat),
        "seed": 0,
        "device": "cpu",
        "precision": "float32",
        "sample_id": [f"test-{number:05d}" for number in range(n)],
        "label": labels,
        "status": "ok",
        "error": "",
        "prediction": np.where(right, labels, (labels + 1) % CLASSES),
        "correct": right,
        "correct_unmasked": right,
        "top5_correct": right,
        "correct_8bit": right,
        "margin": 1.0,
        "loss": 0.5,
        "confidence": 0.9,
        "linf_distance": 0.0,
        "l2_distance": 0.0,
        "rejected": False,
        "forwards": 1,
        "backwards": 0,
        "seconds": 0.001,
    }
    frame = pd.DataFrame({**known, **columns}, index=range(n))
    types = {column.name: {"string": object}.get(column.type, column.type) for column in COLUMNS}
    return frame[list(types)].astype(types)


def records(outcomes: Mapping[tuple[str, str], Sequence[bool] | np.ndarray], **columns: Any) -> pd.DataFrame:
    """The records of several (model, threat)."""
    cells = [cell(model, threat, correct, **columns) for (model, threat), correct in outcomes.items()]
    return pd.concat(cells, ignore_index=True)


def suites_of(frame: pd.DataFrame) -> dict[str, SuiteDefinition]:
    """The definitions of the records' suites, as a run keeps them; those that ship."""
    return {name: suite_definition(name) for name in frame["suite"].unique() if name in suite_names()}


def with_flips(n: int, right: int, lost: int, gained: int) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes of a baseline with `right` of `n` right, and of a candidate that loses and gains so many of them."""
    baseline = np.arange(n) < right
    candidate = baseline.copy()
    candidate[:lost] = False
    candidate[right : right + gained] = True
    return baseline, candidate


def run_folder(path: Path, frame: pd.DataFrame, **manifest: Any) -> Path:
    """A finished run folder that holds these records, one shard for each cell."""
    folder = RunFolder(path)
    cells = []
    for (model, threat), rows in frame.groupby(["model", "threat"], sort=False):
        decides = rows[["weights_hash", "protocol_hash", "data_fingerprint", "recipe", "seed"]].iloc[0].to_dict()
        place = cell_folder(model, threat, {key: str(value) for key, value in decides.items()})
        folder.write_shard(Shard(place, 0, len(rows)), rows)
        cells.append({"model": model, "threat": threat, "folder": place, "samples": len(rows), "shard_size": len(rows)})
    versions = {"python": "3.11", "twicing-bench": "0.1.0", "torch": "2.6"}
    threats = [
        {"kind": kind, "id": threat} for threat, kind in frame.groupby("threat", sort=False)["kind"].first().items()
    ]
    folder.write_manifest(
        {
            "started": "2026-11-23T20:00:00+00:00",
            "finished": "2026-11-23T20:01:00+00:00",
            "status": "finished",
            "plan": {"seed": 0, "threats": threats},
            "plan_hash": "0123456789ab",
            "versions": versions,
            "git": None,
            "device": {"type": "cpu", "name": "test"},
            "precision": "float32",
            "suites": {name: spec.model_dump(mode="json") for name, spec in suites_of(frame).items()},
            "cells": cells,
            **manifest,
        }
    )
    folder.write_summary(summarize(frame, suites_of(frame)))
    return path
