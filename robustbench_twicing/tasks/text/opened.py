"""The task `text`: a plan with its language models loaded and its text found."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch

from robustbench_twicing.data.texts import Document, Texts, open_texts
from robustbench_twicing.engine.text_corruptions import Edited, corrupt_text
from robustbench_twicing.errors import UserError
from robustbench_twicing.models.language import LanguageModel, load_language_model, refuse_longer_windows
from robustbench_twicing.results.manifest import Shard
from robustbench_twicing.results.used import DataUsed, MeansUsed, ModelUsed
from robustbench_twicing.spec.means import Means
from robustbench_twicing.spec.plan import Cell, Plan
from robustbench_twicing.spec.records import TEXT_COLUMNS
from robustbench_twicing.spec.suite import SuiteDefinition
from robustbench_twicing.spec.text import STREAMS, WindowRule
from robustbench_twicing.spec.threats import CleanText, CorruptedText, Threat
from robustbench_twicing.tasks.task import Disagreement, Looks, Progress, Samples, Task
from robustbench_twicing.tasks.text.score import Scored, scored

_SHARD = 16
"""Documents of one file of records."""
_NEAR = 1e-4
"""Relative difference of nats that another batch or number of threads can make."""


@dataclass(frozen=True, eq=False)
class OpenedText:
    """A plan with its models loaded and its text open. An `Opened`."""

    plan: Plan
    models: Mapping[str, LanguageModel]
    texts: Texts
    device: torch.device
    batch_sizes: dict[str, int] = field(default_factory=dict)
    _streams: dict[tuple[str, str], list[Edited]] = field(default_factory=dict)

    def samples(self, threat: Threat) -> Samples:
        """As `Opened.samples`: documents, or the streams of the rule `paper`."""
        paper = _rule(threat).kind == "paper"
        ids = tuple(f"stream-{number}" for number in range(STREAMS)) if paper else self.texts.ids
        return Samples(ids, [0] * len(ids))

    def shard_size(self, threat: Threat) -> int:
        """As `Opened.shard_size`."""
        return _SHARD

    def common(self, cell: Cell) -> dict[str, Any]:
        """As `Opened.common`."""
        card = self.models[cell.model.name].card
        return {
            "model": cell.model.name,
            "architecture": cell.model.architecture,
            "attention": card.attention,
            "weights_hash": card.weights_hash,
            "training_recipe": card.training_recipe,
            "training_seed": card.training_seed,
            "tokenizer": card.tokenizer,
            "data": self.texts.name,
            "data_fingerprint": self.texts.fingerprint,
            "recipe": "text",
            **cell.threat.columns(),
            "seed": self.plan.seed,
            "device": self.device.type,
            "precision": "float32",
            "source_weights_hash": "",
            "scored": f"{card.tokenizer} {card.prefix}",
        }

    def data_used(self, threat: Threat) -> DataUsed:
        """As `Opened.data_used`. A text has no classes."""
        return DataUsed(
            name=self.texts.name,
            fingerprint=self.texts.fingerprint,
            samples=len(self.samples(threat).ids),
            classes=1,
        )

    def models_used(self) -> dict[str, ModelUsed]:
        """As `Opened.models_used`."""
        return {name: _model(model) for name, model in self.models.items()}

    def suites_used(self) -> dict[str, SuiteDefinition]:
        """As `Opened.suites_used`: the plan's threats say all."""
        return {}

    def tune(self, means: Means, known: MeansUsed) -> MeansUsed:
        """As `Opened.tune`: windows at once, by the size of their logits."""
        window = max(_rule(threat).window for threat in self.plan.threats)
        for name, model in self.models.items():
            fits = max(1, min(64, _LOGITS // (window * model.card.vocabulary)))
            self.batch_sizes[name] = means.batch_size or known.batch_sizes.get(name) or fits
        return MeansUsed(batch_sizes=dict(self.batch_sizes))

    def preflight(self, pending: Mapping[Cell, Sequence[Shard]]) -> Looks:
        """As `Opened.preflight`: models were probed when they were loaded."""
        return {cell.model.name: [] for cell in pending}

    def records(
        self, pending: Mapping[Cell, Sequence[Shard]], progress: Progress, whole: bool = False
    ) -> Iterator[tuple[Cell, Shard, pd.DataFrame]]:
        """As `Opened.records`: documents share nothing."""
        for cell, shards in pending.items():
            for shard in shards:
                began = time.perf_counter()
                rows = [self._row(cell, place, progress) for place in range(shard.start, shard.stop)]
                seconds = (time.perf_counter() - began) / len(rows)
                yield cell, shard, pd.DataFrame(rows).assign(seconds=seconds)

    def checked(
        self, recorded: Mapping[Cell, pd.DataFrame], progress: Progress
    ) -> Iterator[tuple[Cell, int, tuple[Disagreement, ...]]]:
        """As `Opened.checked`."""
        for cell, rows in recorded.items():
            for place, row in rows.iterrows():
                again = self._row(cell, int(str(place)), progress)
                yield cell, int(str(place)), tuple(_differences(row, again))
            progress.finish(cell)

    def kept(self, recorded: Mapping[Cell, pd.DataFrame]) -> Iterator[tuple[Cell, int, Iterator[tuple[str, bytes]]]]:
        """As `Opened.kept`. Raises `UserError`: nobody keeps texts."""
        raise UserError("Images are kept, and this is a text.", "Leave --keep-images away.")

    def _row(self, cell: Cell, place: int, progress: Progress) -> dict[str, Any]:
        model, rule = self.models[cell.model.name], _rule(cell.threat)
        paper = rule.kind == "paper"
        name = f"stream-{place}" if paper else self.texts.ids[place]
        text = self._stream(cell, place) if paper else self._document(cell.threat, place)
        found = scored(model, text, rule, self.batch_sizes.get(cell.model.name, 1), self.device)
        progress.advance(cell, 1)
        return {"sample_id": name, **_columns(found)}

    def _document(self, threat: Threat, place: int) -> Edited:
        return _edited(self.texts.read(place), threat, self.plan.seed)

    def _stream(self, cell: Cell, place: int) -> Edited:
        """One of the ten parts of the whole text, alike in characters; the tail is dropped."""
        key = (cell.threat.id, "")
        if key not in self._streams:
            limit = self.plan.data.limit or len(self.texts.ids)
            parts = [self._document(cell.threat, place) for place in range(min(limit, len(self.texts.ids)))]
            self._streams.clear()
            self._streams[key] = _cut(parts)
        return self._streams[key][place]


_LOGITS = 2**25
"""Numbers in the logits of a batch: 128 MiB in float32."""


def open_text(plan: Plan, means: Means, device: torch.device, models: Mapping[str, Any]) -> OpenedText:
    """Load the models and open the text. Raises `UserError`."""
    texts = open_texts(plan.data.directory or plan.data.name)
    loaded = {spec.name: models.get(spec.name) or load_language_model(spec, device) for spec in plan.models}
    for threat in plan.threats:
        refuse_longer_windows(_rule(threat).window, list(loaded.values()))
    return OpenedText(plan, loaded, texts, device)


def settled(plan: Plan, means: Means) -> Plan:
    """The plan: nothing of a text depends on the machine."""
    return plan


def _rule(threat: Threat) -> WindowRule:
    if not isinstance(threat, CleanText | CorruptedText):
        raise TypeError(f"{threat.id} is nothing that is done to a text")
    return threat.window


def _edited(document: Document, threat: Threat, seed: int) -> Edited:
    if not isinstance(threat, CorruptedText):
        return Edited(document.text, (), 0, 0)
    return corrupt_text(document.text, threat.corruption, threat.rate, seed, document.id)


def _cut(parts: Sequence[Edited]) -> list[Edited]:
    """The parts behind one another, in ten streams of the same number of characters."""
    text, spans, place = "".join(part.text for part in parts), list[tuple[int, int]](), 0
    for part in parts:
        spans += [(place + low, place + high) for low, high in part.spans]
        place += len(part.text)
    size = len(text) // STREAMS
    if not size:
        raise UserError(f"The text has {len(text)} characters, too few for {STREAMS} streams.", "Take a longer one.")
    found = []
    for start in range(0, size * STREAMS, size):
        here = [
            (max(low - start, 0), min(high - start, size))
            for low, high in spans
            if low < start + size and (high > start or low == high >= start)
        ]
        found.append(Edited(text[start : start + size], tuple(here), 0, 0))
    return found


def _columns(found: Scored) -> dict[str, Any]:
    failed = not np.isfinite(found.nats)
    error = "the model's logits are not finite" if failed else ""
    nothing = float("nan")
    return {
        "status": "failed" if failed else "ok",
        "error": error,
        **found._asdict(),
        **({"nats": nothing, "untouched_nats": nothing} if failed else {}),
    }


def _differences(row: "pd.Series[Any]", again: Mapping[str, Any]) -> Iterator[Disagreement]:
    for column in ("status", "tokens", "words", "size", "untouched_tokens", "untouched_words", "untouched_size"):
        if row[column] != again[column]:
            yield Disagreement(column, str(row[column]), str(again[column]), near_a_tie=False)
    for column in ("nats", "untouched_nats"):
        before, now = float(row[column]), float(again[column])
        if np.isfinite(before) and abs(before - now) > _NEAR * max(1.0, abs(before)):
            yield Disagreement(column, repr(before), repr(now), near_a_tie=False)


def _model(model: LanguageModel) -> ModelUsed:
    card = model.card
    return ModelUsed(
        spec=card.spec,
        attention=card.attention,
        blocks=card.blocks,
        parameters=card.parameters,
        weights_hash=card.weights_hash,
        weights_note=card.note,
        training_recipe=card.training_recipe,
        training_seed=card.training_seed,
        classes=card.vocabulary,
        image_size=card.positions,
        prepared_as=card.tokenizer,
        mean=(),
        std=(),
    )


TEXT = Task("text", TEXT_COLUMNS, settled, open_text)
"""A sample is a document; what counts is how many nats its tokens cost."""
