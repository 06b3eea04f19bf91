"""Which rows of a comparison are hypotheses of their own: the family that Holm's correction counts. No torch.

Outside of it are rows that follow from others of the same comparison, and controls. Counting them would take verdicts
away from the rows that ask something.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from robustbench_twicing.metrics.max_t import max_t
from robustbench_twicing.metrics.paired import Flips, Pairs, count_flips
from robustbench_twicing.metrics.verdict import Comparison, compare, compare_alone
from robustbench_twicing.results.side import CLEAN
from robustbench_twicing.spec.attacks import SequenceSettings
from robustbench_twicing.spec.suite import SuiteDefinition
from robustbench_twicing.spec.threats import AttackThreat, CleanThreat, Threat
from robustbench_twicing.spec.values import Eps

Key = tuple[str, ...]
"""What names a row; the threat stands last."""


class Outside(NamedTuple):
    """Why a row is outside the family."""

    why: Literal["derived", "control", "draws"]
    """Draws: the same weights under two seeds, so that no two models are compared."""
    follows_from: tuple[str, ...] = ()
    """The rows that a derived one is a function of; with a single one, it repeats it."""


def outside_family(
    compared: Sequence[str], threats: Mapping[str, Threat], suites: Mapping[str, SuiteDefinition]
) -> dict[str, Outside]:
    """The rows outside the family, of those `compared`: by threat, with the reason.

    `threats` and `suites` are those of the run. Derived are: an attack at eps 0 and a clean run on the classes of a
    suite that has all of them, which repeat the plain clean run (without one, the first of them); and a sequence of
    attacks, such as `worst-case`, whose members have rows of their own at this eps, of which it is the conjunction.
    """
    known = {name: threats[name] for name in compared if name in threats}
    found: dict[str, Outside] = {}
    unchanged = [name for name, threat in known.items() if _changes_nothing(threat, suites)]
    first = CLEAN if CLEAN in unchanged else next(iter(unchanged), "")
    found |= {name: Outside("derived", (first,)) for name in unchanged if name != first}
    attacks = [t for name, t in known.items() if isinstance(t, AttackThreat) and name not in unchanged]
    # Of two sequences of the same attacks the first stands, so a row follows from earlier ones only.
    attacks.sort(key=lambda threat: len(threat.members))
    for position, threat in enumerate(attacks):
        parts = _parts(threat, attacks[:position])
        if parts:
            found[threat.id] = Outside("derived", parts)
        elif threat.settings.control:
            found[threat.id] = Outside("control")
    return found


def judge_pairs(
    pairs: Mapping[Key, Pairs],
    outside: Mapping[Key, Outside],
    alpha: float,
    power: float = 0.8,
    *,
    sequential: bool = False,
    by_max_t: bool = False,
) -> dict[Key, Comparison]:
    """The outcome of every row, as `judge` finds it; undecided where it hangs on samples that failed.

    That is so where the verdict is another if failures count all against the candidate, or all in its favour, judged
    with Holm's correction. `by_max_t` takes p of `adjusted_by_max_t` in its place elsewhere.
    """

    def judged(flips: Mapping[Key, Flips], adjusted: Mapping[Key, float] | None = None) -> dict[Key, Comparison]:
        return judge(flips, outside, alpha, power, sequential=sequential, adjusted=adjusted)

    outcomes = judged(
        {key: count_flips(found.baseline, found.candidate) for key, found in pairs.items()},
        adjusted_by_max_t({key: found for key, found in pairs.items() if key not in outside}) if by_max_t else None,
    )
    failed = {key for key, found in pairs.items() if found.bounds.against != found.bounds.in_favour}
    if not failed:
        return outcomes
    extremes = [
        judged({key: found.bounds.against for key, found in pairs.items()}),
        judged({key: found.bounds.in_favour for key, found in pairs.items()}),
    ]
    unsure = [key for key in failed if any(one[key].verdict != outcomes[key].verdict for one in extremes)]
    return outcomes | {key: outcomes[key]._replace(verdict="undecided") for key in unsure}


def adjusted_by_max_t(pairs: Mapping[Key, Pairs]) -> dict[Key, float]:
    """p of each row, adjusted by `max_t` over the rows of its two models, times the number of such pairs of models.

    Exchanging the answers of two models says nothing about a third: rows of several candidates are not drawn at once.
    """
    by_models: dict[Key, list[Key]] = {}
    for key in pairs:
        by_models.setdefault(key[:-1], []).append(key)
    found: dict[Key, float] = {}
    for rows in by_models.values():
        images = pd.Index(np.concatenate([pairs[key].sample_ids for key in rows])).unique().sort_values()
        differences = np.zeros((len(images), len(rows)), dtype=np.int8)
        for column, key in enumerate(rows):
            change = pairs[key].candidate.astype(np.int8) - pairs[key].baseline.astype(np.int8)
            differences[images.get_indexer(pairs[key].sample_ids), column] = change
        found |= zip(rows, np.minimum(1.0, len(by_models) * max_t(differences)).tolist(), strict=True)
    return found


def judge(
    flips: Mapping[Key, Flips],
    outside: Mapping[Key, Outside],
    alpha: float,
    power: float = 0.8,
    *,
    sequential: bool = False,
    adjusted: Mapping[Key, float] | None = None,
) -> dict[Key, Comparison]:
    """The outcome of every row: of those in the family after Holm, of those outside each by itself.

    `adjusted` are p of the family that take the place of Holm's. A row that repeats another has that row's outcome if
    it is over the same samples.
    """
    family = [key for key in flips if key not in outside]
    of_family = None if adjusted is None else [adjusted[key] for key in family]
    judged = compare([flips[key] for key in family], alpha, power, sequential=sequential, adjusted=of_family)
    outcomes = dict(zip(family, judged, strict=True))
    for key in outside.keys() & flips.keys():
        sources = [(*key[:-1], threat) for threat in outside[key].follows_from]
        same = len(sources) == 1 and flips.get(sources[0]) == flips[key] and sources[0] not in outside
        outcomes[key] = outcomes[sources[0]] if same else compare_alone(flips[key], alpha, power, sequential=sequential)
    return outcomes


def _changes_nothing(threat: Threat, suites: Mapping[str, SuiteDefinition]) -> bool:
    """The images, and the logits that may answer, are those of the plain clean run."""
    if isinstance(threat, AttackThreat):
        return threat.eps == Eps(0)
    if not isinstance(threat, CleanThreat):
        return False
    return threat.classes_of is None or (threat.classes_of in suites and not suites[threat.classes_of].spec.masked)


def _parts(threat: AttackThreat, others: Sequence[AttackThreat]) -> tuple[str, ...]:
    """The rows whose conjunction a sequence is; none for a single attack, or if some member has no row."""
    if not isinstance(threat.settings, SequenceSettings):
        return ()
    wanted = _attacks(threat)
    inside = {other.id: _attacks(other) for other in others if _attacks(other) <= wanted}
    return tuple(inside) if set().union(*inside.values()) == wanted else ()


def _attacks(threat: AttackThreat) -> set[tuple[str, str]]:
    """The single attacks that a row is made of: their ids, eps and source included, and their settings' hashes."""
    return {(member.id, member.hash) for member in threat.members}
