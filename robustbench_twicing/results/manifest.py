"""The manifest of a run, run.json: everything beside the records that a reader needs. No torch.

Every number of a report is made from the records and from what stands here; reading opens neither the catalog nor the
working folder. An unknown key is refused by name: a reader that passed over it could show a number without its
condition. A key that is added has a default, so that this version reads what earlier ones of the same schema wrote.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import (
    Field,
    field_serializer,
    model_serializer,
    model_validator,
)

from robustbench_twicing.errors import UserError
from robustbench_twicing.results.parse import boundary, json_object, typed
from robustbench_twicing.results.used import (
    DataUsed,
    Device,
    FolderName,
    Git,
    Maker,
    MeansUsed,
    ModelUsed,
    Moment,
    Preflight,
    Said,
    Verification,
)
from robustbench_twicing.spec.arms import Patterns
from robustbench_twicing.spec.plan import Plan
from robustbench_twicing.spec.policy import Policy
from robustbench_twicing.spec.records import SCHEMA_VERSION, reader_of
from robustbench_twicing.spec.suite import SuiteDefinition
from robustbench_twicing.spec.threats import AttackThreat
from robustbench_twicing.spec.values import AS_WRITTEN, Frozen, content_hash

MANIFEST = "run.json"

_MOST_SHARDS = 1_000_000
"""Of one cell: ImageNet in the smallest shards has 6,250. More is no run but a trap for whoever lists them."""


class Shard(NamedTuple):
    """Samples `start` to `stop` (exclusive) of a cell, in the data set's order."""

    cell: str
    """The cell's folder: a readable name and the hash of everything that decides its numbers."""
    start: int
    stop: int


class CellEntry(Frozen):
    """One (model, threat) of the plan, and where its records lie."""

    model: str
    threat: str
    threat_hash: str
    recipe: str
    folder: FolderName
    samples: int = Field(ge=0)
    shard_size: int = Field(ge=1)
    samples_hash: str
    """Of the ids and labels of these samples, in order: see `samples_hash`."""

    @model_validator(mode="after")
    def _can_be_listed(self) -> "CellEntry":
        if self.samples > _MOST_SHARDS * self.shard_size:
            raise ValueError(
                f"{self.samples} samples in shards of {self.shard_size} are more than {_MOST_SHARDS} files"
            )
        return self

    @property
    def shards(self) -> list[Shard]:
        """Its shards, in order."""
        starts = range(0, self.samples, self.shard_size)
        return [Shard(self.folder, start, min(start + self.shard_size, self.samples)) for start in starts]


def samples_hash(sample_ids: Iterable[str], labels: Iterable[int]) -> str:
    """First 12 hex digits of the SHA-256 of ids and labels, in order."""
    ids = "\0".join(sample_ids).encode("utf-8", "surrogatepass")
    return hashlib.sha256(ids + b"\0\0" + np.fromiter(labels, "<i8").tobytes()).hexdigest()[:12]


_LISTS = ("index", "classes")


class Manifest(Frozen):
    """What was run, with what, where, and what there is to read."""

    schema_version: int = SCHEMA_VERSION
    status: Literal["running", "finished"]
    """A run that was stopped stays `running`."""
    origin: Literal["evaluated", "predictions"] = "evaluated"
    """Predictions: of another tool, handed over (`results.predictions`)."""
    lacks: tuple[str, ...] = ()
    """Columns of the records that mean nothing, since nobody said their values."""
    started: Moment
    finished: Moment | None = None
    name: str = ""
    """Of the plan file, if the run is one's."""
    title: str = ""
    gate: Policy = Policy()
    arms: Mapping[str, Patterns] = Field(default_factory=dict)
    """What `compare` takes for arms of training seeds, if the plan file says so."""
    plan: Plan
    plan_hash: str
    decided: tuple[Said, ...] = ()
    """In lines, which model's weights a file in the working folder decided."""
    means: MeansUsed = MeansUsed()
    preflight: Preflight = Preflight()
    command: tuple[Said, ...] = ()
    versions: Mapping[str, str]
    device: Device
    precision: str = "float32"
    """Of every verdict."""
    platform: str = ""
    git: Git | None = None
    made_by: tuple[Maker, ...]
    """All that computed records of this run."""
    data: Mapping[str, DataUsed]
    """By threat."""
    suites: Mapping[str, SuiteDefinition]
    """Every suite that something was read or scored by, the data set that is attacked included, by the plan's name."""
    models: Mapping[str, ModelUsed]
    cells: tuple[CellEntry, ...]
    verification: Verification | None = None

    def get(self, key: str, default: Any = None) -> Any:
        """What run.json says under this key, in plain values; `default` if it has no such key."""
        return self.model_dump(mode="json").get(key, default)

    @property
    def shards(self) -> Iterator[Shard]:
        """Every shard that is promised, in the order of the cells."""
        for cell in self.cells:
            yield from cell.shards

    @property
    def attacks(self) -> list[AttackThreat]:
        """The threats of the plan that are attacks."""
        return [threat for threat in self.plan.threats if threat.kind == "attack"]

    @field_serializer("plan_hash")
    def _of_what_is_written(self, _: str) -> str:
        return self.plan.hash

    @model_serializer(mode="wrap")
    def _lists_once(self, handler: Callable[[Any], Any]) -> dict[str, Any]:  # pydantic's own type cannot be checked
        content: dict[str, Any] = handler(self)
        lists = {}
        for suite in content.get("suites", {}).values():
            for key in _LISTS:
                name = content_hash(suite["spec"][key])
                lists[name], suite["spec"][key] = suite["spec"][key], name
        return content | ({"class_lists": lists} if lists else {})

    @model_validator(mode="before")
    @classmethod
    def _lists_back(cls, content: Any) -> Any:
        lists = content.get("class_lists") if isinstance(content, dict) else None
        if not isinstance(lists, dict) or not isinstance(content.get("suites"), dict):
            return content

        def whole(suite: Any) -> Any:
            spec = suite.get("spec") if isinstance(suite, dict) else None
            if not isinstance(spec, dict):
                return suite  # left for the validation
            named = {key: lists.get(spec[key], spec[key]) for key in _LISTS if isinstance(spec.get(key), str)}
            return {**suite, "spec": {**spec, **named}}

        suites = {name: whole(suite) for name, suite in content["suites"].items()}
        return {**{key: value for key, value in content.items() if key != "class_lists"}, "suites": suites}

    @model_validator(mode="after")
    def _belongs_together(self) -> "Manifest":
        if self.status == "finished" and self.finished is None:
            raise ValueError("status is finished, and finished says no time")
        cells = [(cell.model, cell.threat) for cell in self.cells]
        if cells != [(cell.model.name, cell.threat.id) for cell in self.plan.cells]:
            raise ValueError("cells are not those of the plan")
        if len({cell.folder for cell in self.cells}) < len(cells):
            raise ValueError("two cells have one folder")
        for spec in self.plan.all_models:
            if spec.name not in self.models or self.models[spec.name].spec != spec:
                raise ValueError(f"models has no {spec.name!r} as the plan has it")
        for threat in self.plan.threats:
            if threat.id not in self.data:
                raise ValueError(f"data has no {threat.id!r}")
        for cell in self.cells:
            if cell.samples > self.data[cell.threat].samples:
                raise ValueError(f"the cell {cell.model}:{cell.threat} has more samples than its data set")
        for name in self.plan.suites:
            if name not in self.suites:
                raise ValueError(f"suites has no {name!r}")
        return self


def written(value: Frozen) -> bytes:
    """A manifest as JSON, for people and machines."""
    return (json.dumps(value.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n").encode()


def parse_manifest(content: bytes, file: Path) -> Manifest:
    """Read run.json. Raises `UserError`, naming the file and the key, if it is none, was altered or is another
    version's.
    """
    hint = "Restore the file, or run again into another folder."
    found = json_object(content, file, hint)
    refuse_other_schema(found.get("schema_version"), str(file), "run again into another folder")
    manifest = typed(Manifest, found, file, hint, **AS_WRITTEN)
    refuse_other_hash(found, manifest, file, hint)
    return manifest


def refuse_other_hash(found: Mapping[str, Any], manifest: Manifest, file: Path, hint: str) -> None:
    """Raise `UserError` unless the plan in `found`, from which `manifest` was read, has the hash beside it."""
    with boundary(file, hint):
        # Of what is written, not of what was read: a setting that a later version added has no part in it.
        written, meant = found["plan_hash"], content_hash(found["plan"])
        manifest.plan.hash  # noqa: B018 - settings nested too deep to be written again are found here
    if written != meant:
        raise UserError(f"{file} was altered: plan_hash is {written!r}, and the hash of its plan is {meant!r}.", hint)


def refuse_other_schema(version: Any, what: str, instead: str) -> None:
    """Raise `UserError`, naming the version that reads it, unless `version` is this one's record schema."""
    if type(version) is int and version == SCHEMA_VERSION:
        return
    raise UserError(
        f"{what} has record schema {version!r}; this version reads {SCHEMA_VERSION}.",
        f"Use {reader_of(version)}, or {instead}.",
    )
