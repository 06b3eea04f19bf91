"""A plan: models × threats on one data set, with a seed. A cell is one (model, threat)."""

from collections import Counter
from typing import Any, Literal, NamedTuple

from pydantic import Field, model_serializer, model_validator

from robustbench_twicing.spec.models import ModelSpec, RecipeName
from robustbench_twicing.spec.threats import Threat
from robustbench_twicing.spec.values import Frozen, content_hash

EMBEDDED = "digits"
"""The data set that ships with the tool, and is no suite."""
EMBEDDED_IMAGES = 597
"""That it has to test on."""
EMBEDDED_SIDE = 32
"""Pixels a side of its images."""


class DataSpec(Frozen):
    """A data set and how much of it."""

    name: str
    directory: str | None = None
    limit: int | None = Field(default=None, ge=1)
    """Samples per threat; None takes all of them, or the attack's `suggested_limit`."""
    ids: tuple[str, ...] = ()
    """Only these samples, by their ids; empty: every one."""

    @model_serializer(mode="wrap")
    def _written(self, as_usual: Any) -> dict[str, Any]:  # pydantic's handler
        """Without `ids` where there are none, so that other plans have the hash that they had before there were any."""
        content: dict[str, Any] = as_usual(self)
        return {key: value for key, value in content.items() if key != "ids" or value}


class Cell(NamedTuple):
    """One (model, threat) of a plan."""

    model: ModelSpec
    threat: Threat

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models it computes with: the one that is judged, and the one that the samples are made on."""
        source = self.threat.source if self.threat.kind == "attack" else None
        return (self.model.name, source.name) if source else (self.model.name,)


class Plan(Frozen):
    """Everything that decides the numbers. What only decides the speed (batch size, device) is not in it."""

    task: Literal["images", "text"] = "images"
    """What a sample is."""
    models: tuple[ModelSpec, ...]
    threats: tuple[Threat, ...]
    data: DataSpec
    recipe: RecipeName | None = None
    """How an image on disk becomes a model's input, for every threat; None leaves it to each suite. Embedded data sets
    are used as they are."""
    seed: int = 0

    @model_validator(mode="after")
    def _names_are_unique(self) -> "Plan":
        for what, ids in (("model", [m.name for m in self.models]), ("threat", [t.id for t in self.threats])):
            twice = sorted(name for name, times in Counter(ids).items() if times > 1)
            if twice:
                raise ValueError(f"{what} named twice: {', '.join(twice)}")
        return self

    @model_validator(mode="after")
    def _a_source_is_one_model(self) -> "Plan":
        for spec in self.all_models:
            same = [other for other in (*self.models, *self._sources) if other.name == spec.name]
            if any(other != spec for other in same):
                raise ValueError(f"the source of a transfer is called {spec.name}, as another model is")
        return self

    @property
    def _sources(self) -> list[ModelSpec]:
        return [t.source for t in self.threats if t.kind == "attack" and t.source]

    @property
    def all_models(self) -> list[ModelSpec]:
        """The models, and those that only make images for a transfer."""
        return list({spec.name: spec for spec in (*self._sources, *self.models)}.values())

    @property
    def suites(self) -> list[str]:
        """Every suite that something is read or scored by, the data set that is attacked first."""
        if self.task != "images":
            return []
        named = [None if self.data.name == EMBEDDED else self.data.name]
        for threat in self.threats:
            if threat.kind == "clean":
                named.append(threat.classes_of)
            elif threat.kind in ("corruption", "shift"):
                named.append(threat.suite)
        return list(dict.fromkeys(name for name in named if name))

    @property
    def cells(self) -> list[Cell]:
        return [Cell(model, threat) for model in self.models for threat in self.threats]

    def samples_for(self, threat: Threat, available: int) -> int:
        """How many samples of the data set this threat is run on: the limit, else what its protocol suggests."""
        suggested = threat.settings.suggested_limit if threat.kind == "attack" else None
        return min(available, self.data.limit or suggested or available)

    @property
    def hash(self) -> str:
        return content_hash(self.model_dump(mode="json"))
