"""Words and signs that pages, formats and the way out for text share; what is needed before there is a page."""

from typing import Literal

Tone = Literal["plain", "strong", "note", "good", "warning", "bad"]
"""How much a text weighs. The words must say the same: a tone may be invisible."""

BARS = "▁▂▃▄▅▆▇█"
"""Of a curve within a line of text, from the lowest."""
