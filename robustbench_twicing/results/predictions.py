"""Another tool's predictions as a run: for paired verdicts, tables and gates of what was evaluated elsewhere. No torch.

Nobody here computed these records or knows how their images were made. The run says so, and so does every page.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from robustbench_twicing import __version__
from robustbench_twicing.catalog.suites import suite_definition, suite_names
from robustbench_twicing.errors import UserError
from robustbench_twicing.results.cells import by_cell
from robustbench_twicing.results.manifest import CellEntry, Manifest, Shard, samples_hash
from robustbench_twicing.results.run import Run, load_finished
from robustbench_twicing.results.store import RunFolder, cell_folder
from robustbench_twicing.results.used import DataUsed, Device, Maker, ModelUsed
from robustbench_twicing.spec.models import ModelSpec
from robustbench_twicing.spec.plan import EMBEDDED, DataSpec, Plan
from robustbench_twicing.spec.records import COLUMNS
from robustbench_twicing.spec.suite import SuiteDefinition, SuiteSpec
from robustbench_twicing.spec.threats import CleanThreat, OtherThreat, ShiftThreat, Threat
from robustbench_twicing.spec.values import content_hash

NEEDED = ("model", "sample_id", "label", "prediction")
"""Columns that predictions must have; without `threat` all are of clean images."""

MAY_HAVE: Mapping[str, tuple[float, float]] = {
    "confidence": (0.0, 1.0),
    "loss": (0.0, np.inf),
    "brier": (0.0, 2.0),
    "margin": (-np.inf, np.inf),
    "top5_correct": (0.0, 1.0),
}
"""Columns that they may have, with the least and the largest value."""

_NEVER = ("correct_unmasked", "correct_8bit", "linf_distance", "rejected", "forwards", "backwards")
"""Columns of records that no predictions say."""


def from_predictions(
    frame: pd.DataFrame,
    out: str | Path,
    *,
    data: str,
    made_by: str,
    threats: Mapping[str, str] = MappingProxyType({}),
    classes: int | None = None,
) -> Run:
    """Write another tool's predictions into the new run folder `out`, for `report`, `compare`, `gate` and `bundle`.

    `frame` has a row for each model, threat and sample, with columns `model`, `sample_id`, `label` and `prediction`
    (classes from 0), `threat` (left out: `clean`), and of `confidence`, `loss`, `brier`, `margin` and `top5_correct`
    those that there are, as docs/records.md explains them; figures of others are left out. A threat is `clean`, the
    name of a suite of photographs such as `imagenet-a`, or any name of yours; `threats` says in words what the latter
    do to the images, which is printed as unchecked. `data` names the data set, `made_by` the tool. `classes`: how many
    there are; left out, as many as the largest label or prediction says. Models may have different samples: they are
    compared on those that they share.

    Raises `UserError` for missing or unknown columns, missing or repeated ids, labels and predictions that are no
    classes, values that are missing or impossible, a sample with two labels, and a folder that is not empty.
    """
    rows = _checked(frame)
    most = int(rows[["label", "prediction"]].to_numpy().max()) + 1
    if classes is not None and most > classes:
        raise UserError(f"A label or prediction is {most - 1}, and there are {classes} classes.", "Count them from 0.")
    place = Path(out)
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise UserError(f"{place} exists and is not empty.", "Name a new folder: predictions are never put into a run.")
    taken = _Taken(rows, data, made_by, threats, classes or most)
    folder = RunFolder(place)
    with folder.locked():
        for shard, records in taken.shards():
            folder.write_shard(shard, records)
        folder.write_manifest(taken.manifest())
    run = load_finished(place)
    folder.write_summary(run.summary)
    return run


# --- what is checked -------------------------------------------------------------------------------------------------


def _checked(frame: pd.DataFrame) -> pd.DataFrame:
    """The same rows with texts and whole numbers where they must be."""
    known = (*NEEDED, "threat", *MAY_HAVE)
    if missing := [name for name in NEEDED if name not in frame]:
        raise UserError(f"The predictions have no column {missing[0]!r}.", f"Needed: {', '.join(NEEDED)}.")
    if unknown := [str(name) for name in frame if name not in known]:
        raise UserError(f"The predictions have an unknown column {unknown[0]!r}.", f"Known: {', '.join(known)}.")
    if frame.empty:
        raise UserError("There are no predictions.", "Hand over a row for each model, threat and sample.")
    rows = frame.reset_index(drop=True).assign(threat=frame["threat"].to_numpy() if "threat" in frame else "clean")
    for name in ("model", "threat", "sample_id"):
        _refuse(rows, rows[name].isna() | (rows[name].astype(str) == ""), f"have no {name}")
        rows[name] = rows[name].astype(str)
    for name in ("label", "prediction"):
        number = pd.to_numeric(rows[name], errors="coerce").astype("float64")
        _refuse(rows, ~(number.ge(0) & (number % 1 == 0)), f"have a {name} that is no class", rows[name])
        rows[name] = number.astype("int64")
    for name, (least, most) in MAY_HAVE.items():
        if name in rows:
            number = pd.to_numeric(rows[name], errors="coerce").astype("float64")
            _refuse(rows, ~number.between(least, most), f"have a {name} outside of {least:g} to {most:g}", rows[name])
            rows[name] = number != 0 if name == "top5_correct" else number
    _refuse(rows, rows.duplicated(["model", "threat", "sample_id"]), "are of a sample that was there before")
    labels = rows.groupby(["threat", "sample_id"])["label"].transform("first")
    _refuse(rows, rows["label"] != labels, "have another label than the same sample before", rows["label"])
    return rows


def _refuse(rows: pd.DataFrame, wrong: "pd.Series[bool]", what: str, values: "pd.Series[Any] | None" = None) -> None:
    if wrong.any():
        first = rows[wrong].iloc[0]
        said = "" if values is None else f": {values[wrong].iloc[0]!r}"
        raise UserError(
            f"{int(wrong.sum())} of the predictions {what}, the first of model {first['model']!r} under "
            f"{first['threat']!r}, sample {first['sample_id']!r}{said}.",
            "Mend these rows, or leave them out: a model is compared on the samples that it has.",
        )


# --- what is made of it ----------------------------------------------------------------------------------------------


class _Taken:
    """A run's parts, made of checked predictions."""

    def __init__(self, rows: pd.DataFrame, data: str, made_by: str, says: Mapping[str, str], classes: int) -> None:
        self._made_by, self._classes, self._name = made_by, classes, data
        self._groups = by_cell(rows)
        names = list(rows["threat"].unique())
        if unused := [name for name in says if name not in names]:
            raise UserError(f"No prediction is of the threat {unused[0]!r}.", f"There are {', '.join(names)}.")
        self._threats = {name: _threat(name, says.get(name, "")) for name in ["clean", *names] if name in names}
        self._hashes = {
            str(name): content_hash(mine[["threat", "sample_id", "label", "prediction"]].to_dict("list"))
            for name, mine in rows.groupby("model", sort=False)
        }
        samples = {str(name): one.drop_duplicates("sample_id") for name, one in rows.groupby("threat", sort=False)}
        self._data = {
            name: DataUsed(
                name=name if isinstance(threat, ShiftThreat) else data,
                fingerprint=_fingerprint(samples[name]),
                samples=len(samples[name]),
                classes=classes,
            )
            for name, threat in self._threats.items()
        }
        self._lacks = (*_NEVER, *(name for name in MAY_HAVE if name not in rows))

    def _plan(self) -> Plan:
        models = tuple(
            ModelSpec(name=name, architecture="", weights=f"predictions:{found}")
            for name, found in self._hashes.items()
        )
        return Plan(models=models, threats=tuple(self._threats.values()), data=DataSpec(name=self._name))

    def _entry(self, model: str, threat: Threat) -> CellEntry:
        here = self._groups.get((model, threat.id))
        ids, labels = ([], []) if here is None else (here["sample_id"].tolist(), here["label"].tolist())
        decides = {"predictions": self._hashes[model], "threat": threat.hash, "made_by": self._made_by}
        return CellEntry(
            model=model,
            threat=threat.id,
            threat_hash=threat.hash,
            recipe="none",
            folder=cell_folder(model, threat.id, decides),
            samples=len(ids),
            shard_size=max(1, len(ids)),
            samples_hash=samples_hash(ids, labels),
        )

    def shards(self) -> Iterator[tuple[Shard, pd.DataFrame]]:
        """The records of every cell, each as one shard."""
        for (model, name), here in self._groups.items():
            threat, data = self._threats[name], self._data[name]
            known = {column.name: _EMPTY[column.type] for column in COLUMNS} | {
                "model": model,
                "weights_hash": self._hashes[model],
                "training_seed": -1,
                "data": data.name,
                "data_fingerprint": data.fingerprint,
                "recipe": "none",
                **threat.columns(),
                "device": "elsewhere",
                "precision": "float32",
                "status": "ok",
            }
            right = here["label"] == here["prediction"]
            known |= dict.fromkeys(("correct", "correct_unmasked", "top5_correct", "correct_8bit"), right)
            known |= {str(key): here[key] for key in here if key not in ("model", "threat")}
            types = {column.name: {"string": object}.get(column.type, column.type) for column in COLUMNS}
            records = pd.DataFrame(known, index=here.index)[list(types)].astype(types)
            yield Shard(self._entry(model, threat).folder, 0, len(here)), records

    def manifest(self) -> Manifest:
        """Of a finished run that nobody here carried out."""
        plan, now = self._plan(), datetime.now(UTC).isoformat(timespec="seconds")
        return Manifest(
            status="finished",
            started=now,
            finished=now,
            origin="predictions",
            lacks=self._lacks,
            plan=plan,
            plan_hash=plan.hash,
            versions={"twicing-bench": __version__},
            device=Device(type="elsewhere", name=self._made_by),
            made_by=(Maker(code=self._made_by, versions={}, device="elsewhere"),),
            data=self._data,
            suites={name: _suite(name, self._name) for name in plan.suites},
            models={spec.name: self._model(spec) for spec in plan.models},
            cells=tuple(self._entry(cell.model.name, cell.threat) for cell in plan.cells),
        )

    def _model(self, spec: ModelSpec) -> ModelUsed:
        about: dict[str, Any] = {"spec": spec, "weights_hash": self._hashes[spec.name], "classes": self._classes}
        unknown: dict[str, Any] = {
            "attention": "",
            "blocks": 0,
            "parameters": 0,
            "image_size": 1,
            "mean": (),
            "std": (),
        }
        return ModelUsed(**about, **unknown, weights_note=f"predictions of {self._made_by}")


def _fingerprint(samples: pd.DataFrame) -> str:
    ordered = samples.sort_values("sample_id")
    return samples_hash(ordered["sample_id"], ordered["label"])


_EMPTY: Mapping[str, Any] = {"string": "", "int64": 0, "float64": np.nan, "bool": False}


def _threat(name: str, says: str) -> Threat:
    if name == "clean":
        if says:
            raise UserError("Clean images need no description.", "Describe only threats of your own.")
        return CleanThreat()
    if name not in suite_names():
        return OtherThreat(name=name, says=says)
    spec = suite_definition(name).spec
    if spec.families or spec.labels != "folder":
        raise UserError(
            f"{name!r} is the name of a suite that predictions cannot stand for: it is scored otherwise.",
            "Give the threat a name of your own, and say in `threats` what it is.",
        )
    return ShiftThreat(suite=name)


def _suite(name: str, data: str) -> SuiteDefinition:
    if name != data and name != EMBEDDED:
        return suite_definition(name)
    about = "named by whoever handed over predictions"
    return SuiteDefinition(spec=SuiteSpec(name=name, title=name, source=about, layout="imagefolder", own_classes=True))
