"""Where two models differ: by true class, by severity, and by how sure both were of the clean image. No torch.

A slice is some of the images under some threats: clean, one attack at all its eps, or one suite. An image counts once,
by whether the candidate gained or lost more on it over the slice's threats; if the models were exchangeable, that would
be a fair coin for every image, however its outcomes go together. So the exact test of a slice is the sign test, which
under one threat is McNemar's. The slices of a comparison are one family for Benjamini and Hochberg's (1995) correction.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from robustbench_twicing.metrics.paired import Pairs
from robustbench_twicing.metrics.verdict import benjamini_hochberg, mcnemar_exact
from robustbench_twicing.results.cells import answered
from robustbench_twicing.results.side import CLEAN, Side
from robustbench_twicing.spec.threats import Threat

By = Literal["class", "severity", "margin"]
MARGINS = ("smallest quarter", "second quarter", "third quarter", "largest quarter")
"""Of the mean of both models' margins on the clean image: which quarter of the images."""


@dataclass(frozen=True)
class Slice:
    """Images on which one model may be better than elsewhere."""

    baseline: str
    candidate: str
    of: str
    """`clean`, an attack such as `pgd-linf`, or a suite."""
    by: By
    value: str
    """Such as `7`, for class 7 or severity 7."""
    images: int
    lost: int
    """Images on which the candidate loses more than it gains."""
    gained: int
    p: float
    q: float = 1.0
    """`p` after Benjamini and Hochberg's correction: the slice is found if it is at most alpha."""

    @property
    def verdict(self) -> Literal["better", "worse"]:
        """Of the candidate, if the slice is found."""
        return "better" if self.gained > self.lost else "worse"

    @property
    def weight(self) -> float:
        """How many images change sides."""
        return float(self.lost + self.gained)


class Slices(NamedTuple):
    """What was looked at."""

    found: tuple[Slice, ...]
    """The smallest p first."""
    asked: int
    """Slices with images enough that change sides to show anything."""


NOT_ASKED = Slices((), 0)


class Outcomes(NamedTuple):
    """Two models under the threats of their family, and the images' margins."""

    baseline: str
    candidate: str
    pairs: Mapping[str, Pairs]
    """By threat."""
    threats: Mapping[str, Threat]
    margins: "pd.Series[float] | None"
    """Mean of both models' margins on the clean image, by sample id; None without a clean run."""


def clean_margins(baseline: Side, candidate: Side) -> "pd.Series[float] | None":
    """The mean of two models' margins on clean images that both answered; the same whichever is the candidate."""
    of = []
    for side in (baseline, candidate):
        if CLEAN not in side.cells:
            return None
        here = answered(side.cells[CLEAN])
        of.append(pd.Series(here["margin"].to_numpy(), here["sample_id"].to_numpy()))
    both = ((of[0] + of[1]) / 2).dropna()
    return both if len(both) else None


def find_slices(compared: Sequence[Outcomes], alpha: float = 0.05) -> Slices:
    """The slices in which the models differ; of those found a share of alpha at most is expected to be chance.

    Slices that could show nothing, since too few of their images change sides for any p <= alpha, are left out before:
    that says nothing of who gains. Without any difference something is found with probability alpha at most, if the
    slices' tests are independent or rise together.
    """
    asked = [one for each in compared for one in _slices(each) if 2 * 0.5 ** (one.lost + one.gained) <= alpha]
    adjusted = benjamini_hochberg(np.array([one.p for one in asked]))
    judged = [replace(one, q=float(q)) for one, q in zip(asked, adjusted, strict=True)]
    return Slices(tuple(sorted((one for one in judged if one.q <= alpha), key=lambda one: one.p)), len(asked))


def _slices(each: Outcomes) -> Iterator[Slice]:
    for of, names in grouped(each.pairs, each.threats).items():
        net, labels = _net([each.pairs[name] for name in names])
        kinds: list[tuple[By, Sequence[str], np.ndarray]] = []
        classes, place = np.unique(labels.to_numpy(), return_inverse=True)
        kinds.append(("class", [str(value) for value in classes], place))
        if each.margins is not None:
            kinds.append(("margin", MARGINS, quarters(each.margins.reindex(net.index).to_numpy())))
        for by, values, where in kinds:
            yield from _counted(each, of, by, values, where, net.to_numpy())
        for severity, some in severities(each.threats, names).items():
            alone = _net([each.pairs[name] for name in some])[0].to_numpy()
            yield from _counted(each, of, "severity", [str(severity)], np.zeros(len(alone), dtype=int), alone)


def _counted(
    each: Outcomes, of: str, by: By, values: Sequence[str], where: np.ndarray, net: np.ndarray
) -> Iterator[Slice]:
    """One for each value; `where` says which value an image has."""
    images, lost, gained = (
        np.bincount(where[kept], minlength=len(values)).tolist() for kept in (net == net, net < 0, net > 0)
    )
    for number, value in enumerate(values):
        p = mcnemar_exact(lost[number], gained[number])
        yield Slice(each.baseline, each.candidate, of, by, value, images[number], lost[number], gained[number], p)


def quarters(margins: np.ndarray) -> np.ndarray:
    """In which quarter of the images each is by its margin, as a place in `MARGINS`; beyond it where nobody knows."""
    unknown = np.isnan(margins)
    edges = np.zeros(3) if unknown.all() else np.nanquantile(margins, (0.25, 0.5, 0.75))
    return np.where(unknown, len(MARGINS), np.searchsorted(edges, margins, side="left"))


def grouped(names: Iterable[str], threats: Mapping[str, Threat]) -> dict[str, list[str]]:
    """Threats that one slice takes together."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(asked_of(name, threats[name]), []).append(name)
    return found


def asked_of(name: str, threat: Threat) -> str:
    """What a slice calls the threats that it takes together with this one."""
    return name.removesuffix(f"-{threat.eps}") if threat.kind == "attack" else getattr(threat, "suite", name)


def severities(threats: Mapping[str, Threat], names: Sequence[str]) -> dict[int, list[str]]:
    """Those of some threats that are corruptions, by severity; none where all are of one."""
    found: dict[int, list[str]] = {}
    for name in names:
        threat = threats[name]
        if threat.kind == "corruption":
            found.setdefault(threat.severity, []).append(name)
    return found if len(found) > 1 else {}


def _net(pairs: Sequence[Pairs]) -> tuple["pd.Series[int]", "pd.Series[int]"]:
    """What the candidate gained minus what it lost on each image over some threats, and the image's class."""
    first = pairs[0]
    changes = [one.candidate.astype(np.int16) - one.baseline for one in pairs]
    if all(one.sample_ids is first.sample_ids or np.array_equal(one.sample_ids, first.sample_ids) for one in pairs):
        return pd.Series(sum(changes), first.sample_ids), pd.Series(first.labels, first.sample_ids)
    whole = pd.DataFrame(
        {
            "change": np.concatenate(changes),
            "label": np.concatenate([one.labels for one in pairs]),
        },
        np.concatenate([one.sample_ids for one in pairs]),
    )
    by_image = whole.groupby(level=0, sort=False)
    return by_image["change"].sum(), by_image["label"].first()
