"""Records without a model: frames and run folders in the form that the runner writes, from outcomes given by hand."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
import pandas as pd

from robustbench_twicing.catalog.suites import suite_definition, suite_names
from robustbench_twicing.results.cells import by_cell, of_model
from robustbench_twicing.results.manifest import CellEntry, Manifest, Shard, samples_hash
from robustbench_twicing.results.side import Side
from robustbench_twicing.results.store import RunFolder, cell_folder
from robustbench_twicing.results.summary import summarize
from robustbench_twicing.results.used import DataUsed, Device, Maker, ModelUsed
from robustbench_twicing.spec.attacks import FgsmSettings
from robustbench_twicing.spec.models import ModelSpec
from robustbench_twicing.spec.plan import DataSpec, Plan
from robustbench_twicing.spec.protocol import Rules
from robustbench_twicing.spec.records import COLUMNS
from robustbench_twicing.spec.suite import SuiteDefinition
from robustbench_twicing.spec.threats import AttackThreat, CleanThreat, CorruptionThreat, ShiftThreat, Threat
from robustbench_twicing.spec.values import Eps

CLASSES = 10


def threat_columns(threat: str) -> dict[str, Any]:
    """The columns that say what a threat is, read from its id."""
    columns = {"kind": "shift", "attack": "", "eps": "", "suite": "", "corruption": "", "severity": 0, "protocol": ""}
    if threat == "clean" or threat.startswith("clean["):
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
        "brier": 0.2,
        "confidence": 0.9,
        "linf_distance": 0.0,
        "l2_distance": 0.0,
        "rejected": False,
        "forwards": 1,
        "backwards": 0,
        "seconds": 0.001,
    }
    frame = pd.DataFrame({**known, **columns}, index=range(n))
    failed = frame["status"] == "failed"  # without an answer, as the runner writes it
    frame.loc[failed, ["correct", "correct_unmasked", "top5_correct", "correct_8bit"]] = False
    frame.loc[failed, "prediction"] = -1
    frame.loc[failed & (frame["error"] == ""), "error"] = "it failed"
    types = {column.name: {"string": object}.get(column.type, column.type) for column in COLUMNS}
    return frame[list(types)].astype(types)


def records(outcomes: Mapping[tuple[str, str], Sequence[bool] | np.ndarray], **columns: Any) -> pd.DataFrame:
    """The records of several (model, threat)."""
    cells = [cell(model, threat, correct, **columns) for (model, threat), correct in outcomes.items()]
    return pd.concat(cells, ignore_index=True)


def suites_of(frame: pd.DataFrame) -> dict[str, SuiteDefinition]:
    """The definitions of the records' suites, as a run keeps them: those that ship, and a plain one for other names."""
    plain = suite_definition("imagenet")
    return {
        name: suite_definition(name)
        if name in suite_names()
        else plain.model_copy(update={"spec": plain.spec.model_copy(update={"name": name})})
        for name in frame["suite"].unique()
        if name
    }


def side(frame: pd.DataFrame, model: str) -> Side:
    """One model of a frame as a side of a comparison."""
    threats = (_threat(rows.iloc[0]) for _, rows in frame.groupby("threat", sort=False))
    return Side(model, of_model(by_cell(frame), model), suites_of(frame), {threat.id: threat for threat in threats})


def with_flips(n: int, right: int, lost: int, gained: int) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes of a baseline with `right` of `n` right, and of a candidate that loses and gains so many of them."""
    baseline = np.arange(n) < right
    candidate = baseline.copy()
    candidate[:lost] = False
    candidate[right : right + gained] = True
    return baseline, candidate


def run_folder(path: Path, frame: pd.DataFrame, **manifest: Any) -> Path:
    """A finished run folder that holds these records, one shard for each cell; `manifest` overrides its fields.

    Every model has records under every threat. What was in the folder before goes.
    """
    rmtree(path, ignore_errors=True)
    folder = RunFolder(path)
    groups = {(str(key[0]), str(key[1])): rows for key, rows in frame.groupby(["model", "threat"], sort=False)}
    first = frame.iloc[0]
    plan = Plan(
        models=tuple(_spec(rows.iloc[0]) for _, rows in frame.groupby("model", sort=False)),
        threats=tuple(_threat(rows.iloc[0]) for _, rows in frame.groupby("threat", sort=False)),
        data=DataSpec(name="digits"),
        seed=int(first["seed"]),
    )
    entries = {}
    for cell_of_plan in plan.cells:
        key = (cell_of_plan.model.name, cell_of_plan.threat.id)
        rows, row = groups[key], groups[key].iloc[0]
        decides = {name: str(row[name]) for name in _DECIDES}
        place = cell_folder(*key, decides)
        entries[key] = CellEntry(
            model=key[0],
            threat=key[1],
            threat_hash=row["protocol_hash"],
            recipe=row["recipe"],
            folder=place,
            samples=len(rows),
            shard_size=len(rows),
            samples_hash=samples_hash(rows["sample_id"], rows["label"]),
        )
        folder.write_shard(Shard(place, 0, len(rows)), rows)
    data = {
        threat: DataUsed(
            name=rows["data"].iloc[0], fingerprint=rows["data_fingerprint"].iloc[0], samples=len(rows), classes=CLASSES
        )
        for threat, rows in frame.groupby("threat", sort=False)
    }
    models = {str(name): _model(rows.iloc[0]) for name, rows in frame.groupby("model", sort=False)}
    given = {"cells": tuple(entries.values()), "data": data, "models": models, "suites": suites_of(frame), **manifest}
    folder.write_manifest(manifest_of(plan, **given))
    folder.write_summary(summarize(by_cell(frame), suites_of(frame)))
    return path


def begun_folder(path: Path, plan: Plan) -> Path:
    """The folder of a run of this plan in which nothing has been computed yet, on no samples."""
    folder = RunFolder(path)
    cells = tuple(
        CellEntry(
            model=cell.model.name,
            threat=cell.threat.id,
            threat_hash=cell.threat.hash,
            recipe="none",
            folder=cell_folder(cell.model.name, cell.threat.id, {}),
            samples=0,
            shard_size=256,
            samples_hash=samples_hash([], []),
        )
        for cell in plan.cells
    )
    data = {
        threat.id: DataUsed(name=plan.data.name, fingerprint="fingerprint", samples=0, classes=CLASSES)
        for threat in plan.threats
    }
    models = {spec.name: _used(spec, "softmax", f"weights of {spec.name}") for spec in plan.all_models}
    suites = {name: suite_definition(name) for name in plan.suites}
    given = {"cells": cells, "data": data, "models": models, "suites": suites}
    folder.write_manifest(manifest_of(plan, status="running", finished=None, **given))
    return path


def manifest_of(plan: Plan, **fields: Any) -> Manifest:
    """A manifest of this plan; `fields` as in `Manifest`, `suites`, `cells`, `data` and `models` among them."""
    known: dict[str, Any] = {
        "status": "finished",
        "started": "2026-11-23T20:00:00+00:00",
        "finished": "2026-11-23T20:01:00+00:00",
        "plan": plan,
        "plan_hash": plan.hash,
        "versions": {"python": "3.11", "twicing-bench": "0.1.0", "torch": "2.6"},
        "device": Device(type="cpu", name="test"),
        "made_by": (Maker(code="0f3a", versions={"torch": "2.6"}, device="cpu"),),
    }
    return Manifest(**{**known, **fields})


_DECIDES = ("weights_hash", "protocol_hash", "data_fingerprint", "recipe", "seed")


def _spec(row: "pd.Series[Any]") -> ModelSpec:
    return ModelSpec(name=row["model"], architecture=row["architecture"], weights="file:weights.safetensors")


def _model(row: "pd.Series[Any]") -> ModelUsed:
    return _used(_spec(row), row["attention"], row["weights_hash"])


def _used(spec: ModelSpec, attention: str, weights_hash: str) -> ModelUsed:
    return ModelUsed(
        spec=spec,
        attention=attention,
        blocks=12,
        parameters=1000,
        weights_hash=weights_hash,
        weights_note="",
        classes=CLASSES,
        image_size=32,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )


def _threat(row: "pd.Series[Any]") -> Threat:
    suite = row["suite"]
    if row["kind"] == "clean":
        masked = re.fullmatch(r"clean\[(.+)\]", row["threat"])
        return CleanThreat(classes_of=masked[1] if masked else None)
    if row["kind"] == "shift":
        return ShiftThreat(suite=suite)
    if row["kind"] == "corruption":
        generated = suite in suite_names() and suite_definition(suite).spec.layout == "generated"
        return CorruptionThreat(
            suite=suite, corruption=row["corruption"], severity=row["severity"], generated=generated
        )
    norm = "L2" if f"-l2-{row['eps']}" in row["threat"] else "Linf"
    return AttackThreat(
        protocol=row["protocol"],
        attack=row["attack"],
        eps=Eps.parse(row["eps"], norm="L2"),
        rules=Rules(space="pixel", clip=True, labels="true", iterate="best"),
        settings=FgsmSettings(norm=norm),
        precision=row["precision"],
    )
