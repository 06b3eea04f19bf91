"""What makes the threats of a plan, piece by piece; `catalog.resolve` puts them together."""

from collections.abc import Sequence

from robustbench_twicing.catalog.suites import same_suite, suite
from robustbench_twicing.errors import UserError, unknown_name
from robustbench_twicing.spec.attacks import SequenceSettings
from robustbench_twicing.spec.protocol import Protocol
from robustbench_twicing.spec.threats import AttackThreat, CleanThreat, CorruptionThreat, ShiftThreat, Threat
from robustbench_twicing.spec.values import Norm

WORST_CASE = "worst-case"
"""Name of the row that counts a sample as robust only if no attack of the run breaks it."""


def worst_cases(protocol: Protocol, threats: Sequence[AttackThreat]) -> list[AttackThreat]:
    """For each norm and eps the sequence of its attacks, from cheap to dear. Raises `UserError`."""
    if protocol.rules.iterate != "best":
        raise UserError(
            f"Protocol {protocol.name!r} judges the last iterate, so it has no worst case.",
            "Leave it away, or use a protocol with iterate = 'best', such as standard.",
        )
    found = []
    for norm, eps in dict.fromkeys((threat.settings.norm, threat.eps) for threat in threats):
        members = [one for t in threats if (t.settings.norm, t.eps) == (norm, eps) for one in t.members]
        members.sort(key=lambda one: one.settings.evaluations + (one.settings.gradients or 0))
        by_name = {one.attack: one.settings for one in members}
        if len(by_name) < 2:
            raise UserError(
                f"A worst case needs two attacks or more; at {norm} {eps} there is {', '.join(by_name)}.",
                "Name several, such as fgsm and pgd.",
            )
        limits = [one.suggested_limit for one in by_name.values() if one.suggested_limit]
        settings = SequenceSettings(
            algorithm="sequence", norm=norm, members=by_name, suggested_limit=min(limits, default=None)
        )
        found.append(threats[0].model_copy(update={"attack": WORST_CASE, "eps": eps, "settings": settings}))
    return found


def norm_of_eps(threats: Sequence[AttackThreat]) -> Norm:
    """The norm to read an eps for: L2, whose eps may exceed 1, if that is what all of the attacks bound."""
    norms = {threat.settings.norm for threat in threats}
    return "Linf" if "Linf" in norms or not norms else "L2"


def suite_threats(name: str, corruptions: Sequence[str] = (), severities: Sequence[int] = ()) -> list[Threat]:
    """The threats of one suite, without its clean run. Raises `UserError`.

    In a suite of corruptions, `corruptions` names some of them, or `common`, `extra` or `all` (the default);
    `severities` left empty takes all five.
    """
    spec = suite(name)
    if not spec.severities:
        if corruptions or severities:
            raise UserError(f"Suite {name!r} has no corruptions.", "Leave corruptions and severities away.")
        return [ShiftThreat(suite=name)]
    groups = {"common": spec.common, "extra": spec.extra, "all": (*spec.common, *spec.extra)}
    chosen: dict[str, None] = {}
    for wanted in corruptions or ["all"]:
        if wanted not in groups and wanted not in groups["all"]:
            raise unknown_name("corruption", wanted, [*groups["all"], *groups])
        chosen |= dict.fromkeys(groups.get(wanted, (wanted,)))
    for severity in severities:
        if severity not in spec.severities:
            raise UserError(f"Severity {severity} does not exist.", "Severities are 1 (weakest) to 5 (strongest).")
    generated = spec.layout == "generated"
    return [
        CorruptionThreat(
            suite=name,
            corruption=part.corruption,
            severity=part.severity,
            generated=generated,
            jpeg_quality=spec.jpeg_quality if generated else None,
        )
        for part in spec.parts(chosen)
        if not severities or part.severity in severities
    ]


def base_of(suites: Sequence[str]) -> str:
    """The data set whose clean images these suites are compared with. Raises `UserError` if they have several."""
    bases = {same_suite(suite(name).clean or name) for name in suites}
    if len(bases) > 1:
        raise UserError(
            f"The suites {', '.join(suites)} belong to different data sets: {', '.join(sorted(bases))}.",
            "Run them one after the other.",
        )
    return bases.pop()


def clean_threats(suites: Sequence[str]) -> list[Threat]:
    """The clean runs that the drops of these suites are measured from: on the same classes."""
    partners = [CleanThreat(classes_of=name if suite(name).masked else None) for name in suites]
    return list(dict.fromkeys(partners))
