"""Language models by name, and TextExperiment -> Plan. No torch."""

import json
from collections.abc import Sequence
from pathlib import Path
from shlex import quote

from robustbench_twicing.attention.methods import settled
from robustbench_twicing.catalog.locate import package_file
from robustbench_twicing.catalog.mistakes import Mistakes
from robustbench_twicing.catalog.plugged_methods import known_methods
from robustbench_twicing.catalog.zoo import require_name, seeds_of, split_name
from robustbench_twicing.errors import UserError, unknown_name
from robustbench_twicing.spec.experiment import TextExperiment
from robustbench_twicing.spec.methods import Attention
from robustbench_twicing.spec.models import ModelSpec
from robustbench_twicing.spec.plan import DataSpec, Plan
from robustbench_twicing.spec.text import EMBEDDED_TEXT, RATES, TEXT_SUITES, WindowRule
from robustbench_twicing.spec.threats import CleanText, CorruptedText, Threat

TINY = "tiny-lm"
TINY_WINDOW = 128
_SHIPPED = "weights/language/{method}-s{seed}.safetensors"


def language_plan(said: TextExperiment, mistakes: Mistakes) -> Plan | None:
    """What is run; None if there are mistakes, those of before included. Each is added at its place."""
    specs = list[ModelSpec]()
    for number, text in enumerate(said.models):
        found = (text,) if isinstance(text, ModelSpec) else mistakes.tried(("models", number), language_models, text)
        for spec in found or ():
            if spec.name in [one.name for one in specs]:
                mistakes.add(("models", number), f"The model {spec.name!r} is named twice.", "Name each once.")
            specs.append(spec)
    for number, name in enumerate(said.suites):
        if name not in TEXT_SUITES:
            mistakes.add(("suites", number), unknown_name("suite of text", name, TEXT_SUITES))
    rule = mistakes.tried(("window",), _rule, said.window, specs) if specs else None
    if mistakes.found or rule is None:
        return None
    threats: list[Threat] = [CleanText(window=rule)]
    for suite in dict.fromkeys(said.suites):
        threats += [
            CorruptedText(window=rule, suite=suite, corruption=corruption, severity=severity, rate=RATES[severity - 1])
            for corruption in TEXT_SUITES[suite]
            for severity in sorted(set(said.severities)) or range(1, len(RATES) + 1)
        ]
    path = None if said.text == EMBEDDED_TEXT else str(Path(said.text).expanduser())
    data = DataSpec(name=Path(said.text).name if path else EMBEDDED_TEXT, directory=path, limit=said.limit)
    return Plan(task="text", models=tuple(specs), threats=tuple(threats), data=data, seed=said.seed)


def _rule(window: str, models: Sequence[ModelSpec]) -> WindowRule:
    return WindowRule.parse(window, longest_window(models) if window.strip() == "disjoint" else None)


def longest_window(models: Sequence[ModelSpec]) -> int:
    """Tokens that every one of these models takes at once. Raises `UserError` where nothing here says so."""
    return min(map(_positions, models))


_POSITIONS = ("max_position_embeddings", "n_positions", "n_ctx", "seq_length")


def _positions(spec: ModelSpec) -> int:
    if spec.architecture == TINY:
        return TINY_WINDOW
    config = Path(spec.weights.partition(":")[2]).expanduser() / "config.json"
    try:
        said = json.loads(config.read_text(encoding="utf-8"))
        return next(int(said[key]) for key in _POSITIONS if key in said)
    except (OSError, ValueError, TypeError, StopIteration):
        raise UserError(
            f"How many positions {spec.name!r} has is not said here.", "Say the window: --window 'disjoint(1024)'."
        ) from None


def language_models(text: str) -> tuple[ModelSpec, ...]:
    """The models behind `NAME[+METHOD[@LAYERS]][@LABEL][=FILE]`, as `catalog.zoo.model_specs` has it.

    NAME is `tiny-lm`, or a folder or file of Hugging Face's (`./gpt2`, `./model.gguf`), or the name of one in its
    cache. `@s0..s4` are the training seeds. Raises `UserError`.
    """
    several = seeds_of(text)
    if several:
        return tuple(spec for one in several for spec in language_models(one))
    name, sign, file = text.partition("=")
    known, method, label = split_name(name)
    require_name(name)
    attention = settled(known_methods(Attention.parse(method))) if method else Attention()
    if sign and not file:
        raise UserError(f"{text!r} names no file.", f"Write {name}=path/to/weights, or {name} alone.")
    if known != TINY:
        place = file or known
        label = "" if label or attention == Attention() else "@drop-in"
        spec = ModelSpec(name=name + label, architecture="causal-lm", attention=attention, weights=f"causal-lm:{place}")
        return (spec,)
    weights = f"file:{Path(file).expanduser()}" if file else _shipped(name, known, method, label, attention)
    return (ModelSpec(name=name, architecture=TINY, attention=attention, weights=weights),)


def _shipped(name: str, known: str, method: str | None, label: str, attention: Attention) -> str:
    """The weights that ship: of a training seed that the label names, else of the first."""
    seed = label.removeprefix("s") if label else "0"
    file = _SHIPPED.format(method=attention, seed=seed)
    if not seed.isdigit() or not package_file(file).is_file():
        bare = f"{known}+{method}" if method else known
        raise UserError(
            f"No weights of {name!r} ship with the tool.",
            f"Train them: twicing-bench train --data text --model {quote(bare)} "
            f"--seed {seed if seed.isdigit() else 0}, and pass --model {quote(f'{name}=FILE')}.",
        )
    return f"package:{file}"
