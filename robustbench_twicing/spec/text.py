"""Texts: how they are cut into windows, and what is done to their words. No torch, no files."""

import re
from typing import Literal, NamedTuple

from pydantic import Field, model_validator

from robustbench_twicing.errors import UserError
from robustbench_twicing.spec.values import Frozen

EMBEDDED_TEXT = "python-topics"
"""The text that ships with the tool."""
STREAMS = 10
"""Of the rule `paper`: as many as the authors' evaluation reads side by side."""
PAPER_WINDOW = 256


class WindowRule(Frozen):
    """What a model sees of a text when it predicts a token. Every token is scored once, or, the first of what has no
    token before it, never."""

    kind: Literal["disjoint", "strided", "paper"]
    window: int = Field(ge=2)
    """Tokens that go in at once."""
    stride: int = Field(ge=1)
    """Tokens that are scored of every window but the first, of which all are."""

    @model_validator(mode="after")
    def _fits(self) -> "WindowRule":
        if self.stride > self.window or (self.kind != "strided" and self.stride != self.window):
            raise ValueError("a stride is at most the window; only strided has a shorter one")
        return self

    @classmethod
    def parse(cls, text: str, positions: int | None = None) -> "WindowRule":
        """Read `disjoint`, `disjoint(128)`, `strided(128,64)`, `paper` or `paper(128)`.

        `positions`: that the models have, the window where none is written. Raises `UserError`.
        """
        found = re.fullmatch(r"(disjoint|strided|paper)(?:\((\d{1,7})(?:,\s*(\d{1,7}))?\))?", text.strip(), re.ASCII)
        if found is None or (found[1] == "strided") != (found[3] is not None):
            raise UserError(f"{text!r} is no window rule.", _FORMS)
        window = int(found[2] or 0) or (PAPER_WINDOW if found[1] == "paper" else positions or 0)
        stride = int(found[3]) if found[3] else window
        if window < 2 or not 1 <= stride <= window:
            raise UserError(f"{text!r}: a window has 2 tokens or more, and a stride 1 to as many.", _FORMS)
        return cls(kind=found[1], window=window, stride=stride)  # type: ignore[arg-type] # one of the three

    @property
    def id(self) -> str:
        """Such as `strided(128,64)`."""
        return f"{self.kind}({self.window}{f',{self.stride}' if self.kind == 'strided' else ''})"


_FORMS = "Write disjoint, disjoint(128), strided(128,64), paper or paper(128): tokens of a window, then the stride."

RATES = (0.01, 0.025, 0.05, 0.1, 0.2)
"""Share of the eligible words that is hit, by severity from 1."""
SWAPPED_TO = "AAA"
"""What Word Swap writes (Han et al. 2023, arXiv 2210.05794; the papers that follow them ship no code for it)."""
ELIGIBLE = "runs of two or more letters, not in <…> and not in a heading between = signs"


class TextCorruption(NamedTuple):
    """What is done to a word that is hit."""

    title: str
    family: Literal["words", "letters", "look"]


TEXT_CORRUPTIONS: dict[str, TextCorruption] = {
    "fixed-word": TextCorruption(f"the word becomes {SWAPPED_TO}", "words"),
    "random-word": TextCorruption("the word becomes another word of the same document", "words"),
    "drop": TextCorruption("the word is left out", "words"),
    "order": TextCorruption("the word changes places with the next one", "words"),
    "substitution": TextCorruption("one letter becomes another", "letters"),
    "insertion": TextCorruption("one letter is put in", "letters"),
    "deletion": TextCorruption("one letter is left out", "letters"),
    "transposition": TextCorruption("two neighbouring letters change places", "letters"),
    "keyboard": TextCorruption("one letter becomes a neighbour on a QWERTY keyboard", "letters"),
    "case": TextCorruption("one letter changes its case", "look"),
    "homoglyph": TextCorruption("one letter becomes one of another script that looks like it", "look"),
    "whitespace": TextCorruption("a space is put into the word", "look"),
}
TEXT_SUITES: dict[str, tuple[str, ...]] = {
    "word-swap": ("fixed-word",),
    "text-c": tuple(name for name in TEXT_CORRUPTIONS if name != "fixed-word"),
}
