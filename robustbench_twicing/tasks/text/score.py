"""What a model gives for the tokens of one text: nats, of all and of those that no corruption touched."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from robustbench_twicing.engine.text_corruptions import Edited
from robustbench_twicing.models.language import LanguageModel, Tokens
from robustbench_twicing.spec.text import WindowRule
from robustbench_twicing.tasks.text.windows import Window, windows


class Scored(NamedTuple):
    """Sums over the scored tokens of one text. `size`: their bytes in UTF-8; `words`: what stands between spaces."""

    nats: float
    tokens: int
    words: int
    size: int
    untouched_nats: float
    untouched_tokens: int
    untouched_words: int
    untouched_size: int


def scored(model: LanguageModel, edited: Edited, rule: WindowRule, batch_size: int, device: torch.device) -> Scored:
    """Score a text in windows, `batch_size` of them at once. Nats are no number where some logit is none."""
    tokens = model.tokens_of(edited.text)
    prefix = () if model.card.prefix is None else (model.card.prefix,)
    sequence = torch.tensor([*prefix, *tokens.ids], dtype=torch.int64)
    first = 1 - len(prefix)  # the token that nothing stands before
    nats = _nats(model, sequence, rule, batch_size, device)
    untouched = np.array([not edited.is_touched(*span) for span in tokens.spans[first:]], dtype=bool)
    size = np.array(_sizes(edited.text, tokens)[first:], dtype=np.int64)
    words = [match.span() for match in re.finditer(r"\S+", edited.text)]
    return Scored(
        nats=float(nats.sum()),
        tokens=len(nats),
        words=len(words),
        size=int(size.sum()),
        untouched_nats=float(nats[untouched].sum()),
        untouched_tokens=int(untouched.sum()),
        untouched_words=sum(not edited.is_touched(*word) for word in words),
        untouched_size=int(size[untouched].sum()),
    )


def _sizes(text: str, tokens: Tokens) -> list[int]:
    """Bytes of each token. A character that several tokens share counts in the first of them."""
    found, place = list[int](), 0
    for span in tokens.spans:
        size = len(text[place : max(place, span[1])].encode("utf-8", "surrogatepass"))
        place = max(place, span[1])
        found.append(size)
    return found


def _nats(
    model: LanguageModel, sequence: torch.Tensor, rule: WindowRule, batch_size: int, device: torch.device
) -> np.ndarray:
    """float64, of every token but the first of the sequence."""
    found = np.zeros(max(0, len(sequence) - 1))
    with torch.inference_mode():
        for batch in _batches(windows(len(sequence), rule), batch_size):
            longest = max(one.stop - one.start for one in batch)
            inputs = torch.zeros(len(batch), longest, dtype=torch.int64)  # what is behind a text changes nothing in it
            for row, one in enumerate(batch):
                inputs[row, : one.stop - one.start] = sequence[one.start : one.stop]
            logits = model.logits(inputs.to(device))
            for row, one in enumerate(batch):
                told = logits[row, one.scored_from - 1 - one.start : one.stop - one.start].float().log_softmax(-1)
                targets = sequence[one.scored_from : one.stop + 1].to(device)
                some = -told.gather(1, targets[:, None])[:, 0]
                found[one.scored_from - 1 : one.stop] = some.double().cpu().numpy()
    return found


def _batches(all_of_them: Iterator[Window], size: int) -> Iterator[Sequence[Window]]:
    batch: list[Window] = []
    for one in all_of_them:
        batch.append(one)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
