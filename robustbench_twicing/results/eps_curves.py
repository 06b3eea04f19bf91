"""Which threats make a curve of accuracy over eps: one attack with one protocol at several sizes. No torch."""

from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd

from robustbench_twicing.results.side import CLEAN
from robustbench_twicing.spec.values import Eps


class EpsCurve(NamedTuple):
    """The threats of one curve."""

    attack: str
    """Attack and norm, such as `pgd-linf`."""
    eps: tuple[Eps, ...]
    """Ascending; the first is 0, the clean images."""
    threats: tuple[str, ...]
    """In that order."""


def eps_curves(firsts: Mapping[str, pd.Series]) -> list[EpsCurve]:
    """The curves of some threats, each given by one of its records; none without a clean run."""
    if CLEAN not in firsts:
        return []
    found: dict[tuple[str, str], dict[Eps, str]] = {}
    for threat, record in firsts.items():
        if record["kind"] != "attack":
            continue
        size = Eps.parse(str(record["eps"]), norm="L2")
        if size > Eps(0):
            attack = threat.removesuffix(f"-{record['eps']}")
            found.setdefault((attack, str(record["protocol_hash"])), {})[size] = threat
    return [
        EpsCurve(attack, (Eps(0), *sorted(threats)), (CLEAN, *(threats[size] for size in sorted(threats))))
        for (attack, _), threats in found.items()
    ]
