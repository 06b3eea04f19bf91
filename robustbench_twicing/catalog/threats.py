"""Names of attacks and suites -> threats."""

from collections.abc import Sequence

from robustbench_twicing.catalog.protocols import attack_threat
from robustbench_twicing.catalog.protocols import protocol as load_protocol
from robustbench_twicing.catalog.suites import class_list, suite
from robustbench_twicing.errors import UserError, unknown_name
from robustbench_twicing.specs import AttackThreat, CleanThreat, CorruptionThreat, Eps, Norm, ShiftThreat, Threat


def attack_threats(
    attacks: Sequence[str] = (), eps: Sequence[str] = ("1/255",), protocol: str = "standard", engine: str = "own"
) -> list[Threat]:
    """Every attack at every eps under a protocol. Raises `UserError`.

    `attacks` left empty takes the protocol's defaults. A name that the protocol does not define is looked up among the
    attacks of torchattacks; `engine="torchattacks"` runs the protocol's own attacks through torchattacks as well.
    """
    rules = load_protocol(protocol)
    names = list(dict.fromkeys(attacks)) or list(rules.default_attacks)
    found = [attack_threat(rules, name, Eps(0), engine) for name in names]
    sizes = list(dict.fromkeys(Eps.parse(text, norm_of_eps(found)) for text in eps))
    return [one.model_copy(update={"eps": size}) for one in found for size in sizes]


def norm_of_eps(threats: Sequence[AttackThreat]) -> Norm:
    """The norm to read an eps for: L2, whose eps may exceed 1, if that is what all of the attacks bound."""
    return "L2" if threats and all(threat.settings.norm == "L2" for threat in threats) else "Linf"


def suite_threats(name: str, corruptions: Sequence[str] = (), severities: Sequence[int] = ()) -> list[Threat]:
    """The threats of one suite, without its clean run. Raises `UserError`.

    In a suite of corruptions, `corruptions` names some of them, or `common`, `extra` or `all` (the default);
    `severities` left empty takes all five.
    """
    spec = suite(name)
    if not spec.severities:
        if corruptions or severities:
            raise UserError(f"Suite {name!r} has no corruptions.", "Leave --corruption and --severity away.")
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
    bases = {suite(name).clean or name for name in suites}
    if len(bases) > 1:
        raise UserError(
            f"The suites {', '.join(suites)} belong to different data sets: {', '.join(sorted(bases))}.",
            "Run them one after the other.",
        )
    return bases.pop()


def clean_threats(suites: Sequence[str]) -> list[Threat]:
    """The clean runs that the drops of these suites are measured from: on the same classes."""
    masked = {name: class_list(suite(name).classes) != class_list(suite(name).index) for name in suites}
    partners = [CleanThreat(classes_of=name if masked[name] else None) for name in suites]
    return list(dict.fromkeys(partners))
