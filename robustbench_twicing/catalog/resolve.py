"""Experiment -> Plan: the only place where names become what is run. No torch.

Every mistake is found at once, each at its place in the form of a plan file (`catalog.mistakes`).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import ValidationError

from robustbench_twicing.catalog.config import Settings
from robustbench_twicing.catalog.datasets import known_data, on_disk, titles
from robustbench_twicing.catalog.language import language_plan
from robustbench_twicing.catalog.mistakes import Mistakes, Place
from robustbench_twicing.catalog.plugins import PREFIX
from robustbench_twicing.catalog.protocols import attack_threat, protocol
from robustbench_twicing.catalog.sample_ids import picked_ids
from robustbench_twicing.catalog.suites import is_own, place_of, same_suite, suite, suite_names
from robustbench_twicing.catalog.threats import base_of, clean_threats, norm_of_eps, suite_threats, worst_cases
from robustbench_twicing.catalog.zoo import known_model, model_specs, zoo
from robustbench_twicing.errors import UserError, unknown_name
from robustbench_twicing.machine.remote import place_of_text
from robustbench_twicing.spec.experiment import AttackRow, Experiment, SuiteRow, TextExperiment
from robustbench_twicing.spec.means import Means
from robustbench_twicing.spec.models import ModelSpec
from robustbench_twicing.spec.plan import Plan
from robustbench_twicing.spec.protocol import Protocol
from robustbench_twicing.spec.threats import AttackThreat, CleanThreat, Threat
from robustbench_twicing.spec.values import Eps

_EMBEDDED = "digits"


class Stated(NamedTuple):
    """What was said at a door, understood."""

    experiment: Experiment | TextExperiment
    means: Means
    plan: Plan
    decided: tuple[str, ...] = ()
    """In lines, which model's weights a file in the working folder decided."""


def state(
    content: Mapping[str, Any],
    known: Settings | None = None,
    mistakes: Mistakes | None = None,
    without_models: bool = False,
) -> Stated:
    """Content in the form of a plan file, with `directories` and `means` in it, understood.

    `known` is what is configured (`catalog.config`). `without_models`: for whom only the images are wanted. Raises
    `MistakesError` with everything that is wrong, that which was found before included.
    """
    mistakes = mistakes or Mistakes()
    if not without_models:
        require_models(content, mistakes)
    stated = stated_or_none(content, known, mistakes)
    mistakes.refuse()
    assert stated is not None
    return stated


def stated_or_none(
    content: Mapping[str, Any],
    known: Settings | None,
    mistakes: Mistakes,
    given: Means | None = None,
    keys: tuple[str, ...] = (),
) -> Stated | None:
    """As `state`; None if there are mistakes, which are added to those that were found before.

    `given` are means that win over those of the content. `keys` are those that a plan file may have beside: only for
    the advice on a wrong one.
    """
    own = {key: value for key, value in content.items() if key not in ("means", "directories")}
    means = _means(content, mistakes)
    if known is not None:
        means = means.over(known.means())
    if given is not None:
        means = given.over(means)
    also = ("means", "directories", *keys)
    if "text" in own:
        said = mistakes.filled(TextExperiment, own, keys=also)
        about_text = language_plan(said, mistakes)
        return None if about_text is None else Stated(said, means, about_text)
    experiment = mistakes.filled(Experiment, own, keys=also)
    wrong = {str(one.place[0]) for one in mistakes.found if one.place}
    plan = _plan(experiment, means, known, mistakes, frozenset(wrong))
    return None if plan is None else Stated(experiment, means, plan, _decided(experiment, plan, known))


def resolve(experiment: Experiment, means: Means | None = None, known: Settings | None = None) -> Plan:
    """The plan that an experiment means, on a machine with these means.

    `means` say where data lies: a suite comes with a clean run only if its data set has a place (or ships with the
    tool). `known` says which checkpoints are configured. Raises `MistakesError` with everything that is wrong.
    """
    mistakes = Mistakes()
    plan = _plan(experiment, means or Means(), known, mistakes, frozenset())
    mistakes.refuse()
    assert plan is not None
    return plan


def require_models(content: Mapping[str, Any], mistakes: Mistakes) -> None:
    """Somebody has to be evaluated."""
    if content.get("models", ()) in ((), []):
        mistakes.add(("models",), "No model is named.", "Name at least one, such as deit-tw.")


def _means(content: Mapping[str, Any], mistakes: Mistakes) -> Means:
    table = content.get("means", {})
    if not isinstance(table, Mapping):
        mistakes.add(("means",), f"This is a table, and no {type(table).__name__}.", "Write [means] above its keys.")
        table = {}
    if "directories" in table:
        mistakes.add(("means", "directories"), "Where data lies is a table of its own.", "Write it as [directories].")
    means = mistakes.filled(Means, {key: value for key, value in table.items() if key != "directories"}, ("means",))
    places = mistakes.filled(Means, {"directories": content.get("directories", {})}).directories
    return means.model_copy(update={"directories": places})


def _plan(
    experiment: Experiment, means: Means, known: Settings | None, mistakes: Mistakes, unsure: frozenset[str]
) -> Plan | None:
    """The plan, if there is no mistake. What has a wrong form, `unsure`, was left out of the experiment."""
    rules = mistakes.tried(("protocol",), protocol, experiment.protocol)
    base = _base(experiment, mistakes)
    ids = mistakes.tried(("ids",), picked_ids, experiment.ids)
    attacked = [
        threat
        for number, row in enumerate(experiment.attacks)
        for threat in _attacked(experiment, rules, number, row, mistakes)
    ]
    corrupted = [threat for number, row in enumerate(experiment.suites) for threat in _corrupted(number, row, mistakes)]
    _check_names(experiment, means, mistakes)
    models: list[ModelSpec] = []
    sources: list[ModelSpec] = []
    if base is not None and not unsure & {"data", "suites"}:  # what models there are depends on the data
        checkpoints = {**(known.checkpoints(base) if known else {}), **experiment.checkpoints}
        models = _models(experiment, base, checkpoints, mistakes)
        sources = _sources(experiment, base, checkpoints, mistakes)
    if mistakes.found or rules is None or base is None:
        return None
    _refuse_what_says_nothing(experiment, base, mistakes)
    threats: list[Threat] = [
        *_clean(experiment, base, means),
        *_as_asked(experiment, rules, attacked, sources, mistakes),
        *corrupted,
    ]
    _refuse_names_given_twice(experiment, threats, mistakes)
    _refuse_hidden_normalisation(models, rules, attacked, mistakes)
    recipe = _recipe(experiment, base, rules, mistakes)
    if mistakes.found:
        return None
    data = {"name": base, "limit": experiment.limit, "ids": ids}
    content = {"models": models, "threats": threats, "data": data, "recipe": recipe, "seed": experiment.seed}
    try:
        return Plan.model_validate(content)
    except ValidationError as error:  # what is left: two models of one name, one of them the source of a transfer
        mistakes.add(("source_model",), error.errors()[0]["msg"].removeprefix("Value error, "))
        return None


# --- what is done to the images --------------------------------------------------------------------------------------


def _base(experiment: Experiment, mistakes: Mistakes) -> str | None:
    """The data set that everything is about; None if that cannot be told."""
    names = [row.name for row in experiment.suites]
    known = [name for name in names if name in suite_names() or is_own(name)]
    data = None if experiment.data is None else same_suite(experiment.data)
    base = mistakes.tried(("suites",), base_of, known) if known else data or _EMBEDDED
    if base is None:
        return None
    if not known_data(base):
        mistakes.add(("data",), unknown_name("data set", base, titles()))
        return None
    if is_own(base) and mistakes.tried(("data",), suite, base) is None:
        return None
    if data not in (None, base):
        what = f"The suites {', '.join(names)} are made from {base!r}, not from {experiment.data!r}."
        mistakes.add(("data",), what, "Leave it away.")
    return base


def _attacked(
    experiment: Experiment, rules: Protocol | None, number: int, row: AttackRow, mistakes: Mistakes
) -> list[AttackThreat]:
    at: Place = ("attacks", number)
    names = (row.names or rules.default_attacks) if rules else ()
    attacks: dict[str, AttackThreat] = {}
    for position, name in enumerate(names):
        where = (*at, "names", position) if row.names else at
        # With any size, so that a wrong name is found beside a wrong size.
        one = mistakes.tried(where, attack_threat, rules, name, Eps(0), experiment.engine)
        if one is not None:
            attacks[one.attack] = one
    norm = norm_of_eps(list(attacks.values()))
    sizes = [mistakes.tried((*at, "eps", position), Eps.parse, text, norm) for position, text in enumerate(row.eps)]
    chosen = [size for size in dict.fromkeys(sizes) if size is not None]
    return [one.model_copy(update={"eps": size}) for one in attacks.values() for size in chosen]


def _corrupted(number: int, row: SuiteRow, mistakes: Mistakes) -> list[Threat]:
    at: Place = ("suites", number)
    before = len(mistakes.found)
    if mistakes.tried((*at, "name"), suite_threats, row.name) is None:
        return []
    for position, corruption in enumerate(row.corruptions):
        mistakes.tried((*at, "corruptions", position), suite_threats, row.name, [corruption])
    for position, severity in enumerate(row.severities):
        mistakes.tried((*at, "severities", position), suite_threats, row.name, (), [severity])
    if len(mistakes.found) > before:
        return []
    return suite_threats(row.name, row.corruptions, row.severities)


def _clean(experiment: Experiment, base: str, means: Means) -> list[Threat]:
    """The clean runs that drops are measured from: plain for what is attacked, on a suite's classes for the suite."""
    names = list(dict.fromkeys(row.name for row in experiment.suites))
    clean: list[Threat] = [CleanThreat()] if experiment.attacks or not names else []
    if base == _EMBEDDED or (place_of(base, means.directories) is not None and not suite(base).severities):
        clean += clean_threats(names)
    return list(dict.fromkeys(clean))


def _as_asked(
    experiment: Experiment,
    rules: Protocol,
    threats: list[AttackThreat],
    sources: Sequence[ModelSpec],
    mistakes: Mistakes,
) -> list[AttackThreat]:
    """The attacks, and all of them together, with what was asked of every one."""
    if rules.rules.space != "pixel":
        for key, what in (("eight_bit", "rounding to 8 bits"), ("source_model", "a transfer between models")):
            if getattr(experiment, key):
                said = f"Protocol {rules.name!r} attacks normalised images, for which {what} means nothing."
                mistakes.add((key,), said, "Use a protocol with space = 'pixel', such as standard.")
    if experiment.worst_case and threats:
        threats = threats + (mistakes.tried(("worst_case",), worst_cases, rules, threats) or [])
    if experiment.eot > 1:
        _refuse_averages(threats, mistakes)
    asked = {key: getattr(experiment, key) for key in ("precision", "eight_bit", "eot")}
    return [
        threat.model_copy(update={**asked, "source": source}) for source in sources or (None,) for threat in threats
    ]


def _refuse_averages(threats: Sequence[AttackThreat], mistakes: Mistakes) -> None:
    members = [member for threat in threats for member in threat.members]
    alone = [one.attack for one in members if one.settings.looks_inside or one.settings.algorithm == "torchattacks"]
    for name in dict.fromkeys(alone):
        why = f"The attack {name!r} asks the model itself, so nothing can be averaged for it."
        mistakes.add(("eot",), why, "Leave it away, or take an attack such as pgd, apgd-ce or square.")


def _recipe(experiment: Experiment, base: str, rules: Protocol, mistakes: Mistakes) -> str | None:
    """The protocol's recipe where something is attacked; None leaves it to each suite, whose usual one is `model`."""
    if base == _EMBEDDED:
        if experiment.recipe:
            mistakes.add(("recipe",), f"The images of {base} are used as they are.", "Leave it away.")
        return None
    if experiment.recipe or not experiment.attacks or rules.recipe == "model":
        return experiment.recipe
    if experiment.suites:
        what = f"Protocol {experiment.protocol!r} has a recipe of its own, and so have the suites."
        mistakes.add(("suites",), what, "Write two plans, or give two commands.")
    return rules.recipe


# --- models ----------------------------------------------------------------------------------------------------------


def _models(experiment: Experiment, base: str, checkpoints: Mapping[str, str], mistakes: Mistakes) -> list[ModelSpec]:
    found: list[ModelSpec] = []
    names: set[str] = set()
    for position, model in enumerate(experiment.models):
        at: Place = ("models", position)
        specs = (model,) if isinstance(model, ModelSpec) else _specs(at, model, experiment, base, checkpoints, mistakes)
        for spec in specs:
            if spec.name in names:
                how = "{'one': module, 'other': module}" if spec.in_memory else f"{spec.name}@LABEL=CHECKPOINT"
                what = f"The name {spec.name!r} is given twice; write {how}."
                mistakes.add(at, what)
        found += specs
        names |= {spec.name for spec in specs}
    return found


def _specs(
    at: Place, text: str, experiment: Experiment, base: str, checkpoints: Mapping[str, str], mistakes: Mistakes
) -> tuple[ModelSpec, ...]:
    how = (base, experiment.weights, experiment.resample_pos_embed, checkpoints)
    specs = mistakes.tried(at, model_specs, text, *how) or ()
    for spec in specs:
        kind, _, file = spec.weights.partition(":")
        if kind == "file" and not mistakes.tried(at, _is_there, file):
            break  # raw and averaged weights are in one file
    return specs


def _decided(experiment: Experiment, plan: Plan, known: Settings | None) -> tuple[str, ...]:
    typed = (*experiment.models, *experiment.source_model)
    said = {text.partition("=")[0] for text in typed if isinstance(text, str) and "=" in text}
    others = [spec for spec in plan.all_models if spec.name not in said]
    files = {spec: known.decided_here(spec.weights) for spec in others} if known else {}
    return tuple(
        f"{spec.name}: its weights, {spec.weights}, are named by {file}." for spec, file in files.items() if file
    )


def _is_there(file: str) -> bool:
    if not place_of_text(file).is_file():
        raise UserError(f"No checkpoint at {file}.", "Check the path.")
    return True


def _sources(experiment: Experiment, base: str, checkpoints: Mapping[str, str], mistakes: Mistakes) -> list[ModelSpec]:
    return [
        spec
        for text in experiment.source_model
        for spec in _specs(("source_model",), text, experiment, base, checkpoints, mistakes)
    ]


# --- what cannot be meant --------------------------------------------------------------------------------------------


def _check_names(experiment: Experiment, means: Means, mistakes: Mistakes) -> None:
    for name in means.directories:
        if name in titles() and name not in on_disk():
            what = f"{name} lies in no folder: it ships with the tool, or is computed from other images."
            mistakes.add(("directories", name), what, f"Those that do: {', '.join(on_disk())}.")
        elif name not in on_disk() and not is_own(name):
            mistakes.add(("directories", name), unknown_name("data set", name, on_disk()))
    for name, source in experiment.checkpoints.items():
        if not known_model(name) and not source.startswith(PREFIX):
            mistakes.add(("checkpoints", name), unknown_name("model", name, zoo()))


def _refuse_what_says_nothing(experiment: Experiment, base: str, mistakes: Mistakes) -> None:
    """What is about attacks and would be dropped, since there are none."""
    if experiment.attacks:
        return
    for key in ("protocol", "engine", "worst_case", "precision", "eot", "eight_bit", "source_model"):
        if getattr(experiment, key) != Experiment.model_fields[key].default:
            mistakes.add((key,), "Nothing is attacked, so this means nothing.", "Name attacks, or leave it away.")


def _refuse_names_given_twice(experiment: Experiment, threats: list[Threat], mistakes: Mistakes) -> None:
    ids = [threat.id for threat in threats]
    twice = [name for name, times in Counter(ids).items() if times > 1]
    if twice:
        where: Place = ("attacks",) if experiment.attacks else ("suites",)
        mistakes.add(where, f"Named twice: {', '.join(twice)}.")


def _refuse_hidden_normalisation(
    models: list[ModelSpec], rules: Protocol, attacked: list[AttackThreat], mistakes: Mistakes
) -> None:
    own = any(spec.in_memory or spec.is_plugged for spec in models)
    if own and attacked and rules.rules.space == "normalized":
        mistakes.add(
            ("protocol",),
            f"Protocol {rules.name!r} attacks normalised images, and a module of your own hides its normalisation.",
            "Use the protocol standard, or load the model by name.",
        )
