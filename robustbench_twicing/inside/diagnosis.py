"""What `diagnose` found, as values. No torch: pages read it."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

Grade = Literal["A", "B", "C", "D", "F"]
GRADES: tuple[Grade, ...] = ("A", "B", "C", "D", "F")
"""A: nothing found. B: a remark. C: weaker attacks say too much. D: doubtful. F: this accuracy is no robustness."""


class Item(NamedTuple):
    """One check of one model."""

    key: str
    title: str
    number: float
    """What was measured; a fraction where `said` is in percent."""
    said: str
    """The number, with its unit."""
    grade: Grade
    meaning: str
    change: str
    """What would change the grade."""


@dataclass(frozen=True)
class Diagnosis:
    """One model under one eps."""

    model: str
    eps: str
    clean: int
    """Images that are right without an attack: all that is attacked."""
    items: tuple[Item, ...]
    robust: tuple[str, ...]
    """Ids of the samples that no attack found breaks, of those that are right."""
    under_pgd: tuple[str, ...]
    """Those that 20 steps of PGD do not break."""
    skipped: tuple[str, ...]
    """In sentences, what was not checked and why."""
    right: tuple[str, ...] = ()
    """Ids of the samples that are right without an attack."""

    @property
    def grade(self) -> Grade:
        """The worst of the items'."""
        return max((item.grade for item in self.items), key=GRADES.index, default="A")

    @property
    def reasons(self) -> tuple[Item, ...]:
        """The items that decide the grade; none for an A."""
        return () if self.grade == "A" else tuple(item for item in self.items if item.grade == self.grade)


class Difference(NamedTuple):
    """Two models on the same images: candidate minus baseline, in fractions."""

    baseline: str
    candidate: str
    n: int
    pgd: float
    pgd_low: float
    pgd_high: float
    strongest: float
    """Under the strongest attack that was found for each."""
    low: float
    high: float
    verdict: Literal["real", "not shown", "not to be trusted"]
