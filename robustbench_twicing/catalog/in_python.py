"""What a Python program hands to `evaluate` -> the form of a plan file, and the caller's own models. No torch."""

from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from numbers import Integral, Real
from typing import Any, NamedTuple

from robustbench_twicing.catalog.config import settings
from robustbench_twicing.catalog.mistakes import Mistakes, MistakesError, Place
from robustbench_twicing.catalog.resolve import Stated, state
from robustbench_twicing.catalog.words import in_form, word_of
from robustbench_twicing.catalog.zoo import labelled, require_name
from robustbench_twicing.errors import UserError, unknown_name
from robustbench_twicing.spec.experiment import Experiment, TextExperiment
from robustbench_twicing.spec.means import Means
from robustbench_twicing.spec.models import ModelSpec
from robustbench_twicing.spec.plan import EMBEDDED, EMBEDDED_SIDE, Plan
from robustbench_twicing.spec.text import EMBEDDED_TEXT

Mine = Callable[..., Any]
"""A model of the user's own: a module, or anything else that can be called."""


class Own(NamedTuple):
    """A model of the user's own, and what was said about it."""

    model: Mine
    image_size: int | None = None
    """Side of its images in pixels; None: to be found."""
    version: str = ""
    """By which the user vouches that its code is the same; empty: finished samples are not used again."""


def stated_in_python(said: Mapping[str, Any]) -> tuple[Stated, dict[str, Own]]:
    """What the arguments of `evaluate` say, and the user's own models among `models`, by name. Raises `UserError`."""
    about = {key: said[key] for key in ("image_size", "versions")}
    named, own = _told_apart(said["models"])
    mistakes = Mistakes()
    for name in own:
        mistakes.tried(("models",), require_name, name)
    sizes, versions = (_about(own, key, value, mistakes) for key, value in about.items())
    rest = {key: value for key, value in said.items() if key not in (*about, "models")}
    rest["attacks"] = _names_of_attacks(rest["attacks"], mistakes)
    plain = {"models": named, **_plain_words(rest)}
    if said["text"] is None and said["window"] is None:
        content = in_form(plain, not said["suites"], mistakes)
    else:
        content = _of_text(plain, own, mistakes)
    try:
        stated = state(content, settings(), mistakes)
    except MistakesError as error:
        raise error.said(_argument) from None
    return stated, {
        name: Own(model, _side(stated.plan, name, sizes.get(name)), versions.get(name, ""))
        for name, model in own.items()
    }


def _of_text(said: Mapping[str, Any], own: Mapping[str, Mine], mistakes: Mistakes) -> dict[str, Any]:
    """What was said of a text, as the content of a plan file. What a text has not is left in it, to be refused."""
    if own:
        hint = "Save it with its tokenizer by save_pretrained, and name the folder."
        mistakes.add(("models",), "A language model is named.", hint)
    usual = {name: field.default for name, field in Experiment.model_fields.items()}
    how = Means.model_fields.keys() - {"directories"}
    means = {key: value for key, value in said.items() if key in how and value is not None}
    content = {
        key: value
        for key, value in said.items()
        if key not in means and value not in (None, (), []) and (key in _TEXT or value != usual.get(key))
    }
    content["models"] = [model for model in content["models"] if isinstance(model, str)]
    content["text"] = str(said["text"] or EMBEDDED_TEXT)
    return {**content, "means": means}


_TEXT = frozenset(TextExperiment.model_fields)


def _argument(place: Place) -> str:
    return f"{word_of(place)}=…"


def _told_apart(models: Any) -> tuple[list[Any], dict[str, Mine]]:
    """Models as an experiment names them, and the user's own by name. What is neither is left as it is."""
    if isinstance(models, str) or _is_own(models) or not isinstance(models, Iterable):
        models = [models]
    named = models.items() if isinstance(models, Mapping) else ((None, model) for model in models)
    texts: list[Any] = []
    own: dict[str, Mine] = {}
    for key, model in named:
        if _is_own(model):
            kind = str(getattr(model, "__name__", type(model).__name__)).strip("<>")  # of a lambda it is <lambda>
            spec = ModelSpec(name=kind if key is None else str(key), architecture=kind, weights="memory:")
            own.setdefault(spec.name, model)
            texts.append(spec)
        elif isinstance(model, str) and key not in (None, model.partition("=")[0]):
            texts.append(labelled(model, str(key)))
        else:
            texts.append(model)
    return texts, own


def _is_own(value: Any) -> bool:
    """A module, or anything else that can be called. Whether it is a model turns out when it is."""
    return callable(value) and not isinstance(value, str)


def _about(own: Mapping[str, Mine], word: str, said: Any, mistakes: Mistakes) -> Mapping[str, Any]:
    """What was said about models of the user's own, by name."""
    by_name: Mapping[str, Any] = said if isinstance(said, Mapping) else {} if said is None else dict.fromkeys(own, said)
    for name, value in by_name.items():
        if name not in own:
            mistakes.add((word,), unknown_name("model of your own", str(name), own))
        elif word == "image_size" and not (type(value) is int and 1 <= value <= _LARGEST):
            mistakes.add((word,), f"{value!r} is no side of an image in pixels.", f"Write a number, 1 to {_LARGEST}.")
        elif word == "versions" and not isinstance(value, str):
            mistakes.add((word,), f"{value!r} is no version.", "Write a text, such as 'v2'.")
    return by_name


_LARGEST = 4096
"""Side of images in pixels."""


def _side(plan: Plan, name: str, said: int | None) -> int | None:
    """Of the images that a model of the user's own is given; None: to be found. Raises `UserError`."""
    if plan.data.name != EMBEDDED:
        return said
    if said not in (None, EMBEDDED_SIDE):
        raise UserError(
            f"The images of {EMBEDDED} have {EMBEDDED_SIDE} pixels a side, not the {said} of {name!r}.",
            "Leave image_size away.",
        )
    return EMBEDDED_SIDE


def _names_of_attacks(said: Any, mistakes: Mistakes) -> Any:
    """What was said, unless it is an attack itself: those go by their names, which records and plans can hold."""
    some = said if isinstance(said, list | tuple) else [said]
    for one in some:
        kind = type(one)
        if kind.__module__.partition(".")[0] == "torchattacks":
            hint = f"Write attacks=[{kind.__name__.lower()!r}], engine='torchattacks', and its eps as eps=."
            mistakes.add(("attacks",), f"This is an object of torchattacks ({kind.__name__}); attacks are named.", hint)
        elif callable(one):
            what = getattr(one, "__name__", kind.__name__)
            hint = "One of your own has the name 'python:MODULE:NAME' (docs/plugins.md)."
            mistakes.add(("attacks",), f"{what!r} is an object; attacks are named, such as 'pgd'.", hint)
        else:
            continue
        return None
    return said


def _plain_words(said: Mapping[str, Any]) -> dict[str, Any]:
    """Single names made lists, numbers made what they are meant as. What is unclear is left for the form to refuse."""
    result = {key: _plain(value) for key, value in said.items()}
    for key in ("attacks", "suites", "corruptions", "severities", "eps"):
        value = result.get(key)
        if isinstance(value, str | Real | Fraction) and not isinstance(value, bool):
            result[key] = [value]
    if isinstance(result.get("eps"), Iterable):
        result["eps"] = [_eps_text(size) for size in result["eps"]]
    return result


def _plain(value: Any) -> Any:
    """Numbers, arrays and tensors as Python's own."""
    if isinstance(value, Integral) and not isinstance(value, bool):
        return int(value)
    foreign = type(value).__module__.partition(".")[0] in ("numpy", "torch") and hasattr(value, "tolist")
    return value.tolist() if foreign else value


def _eps_text(size: Any) -> Any:
    """A number as its exact text: k/255 if it is one within rounding, else its shortest decimal."""
    if isinstance(size, bool) or not isinstance(size, Real):
        return size
    if isinstance(size, Fraction | Integral):
        return str(size)
    levels = round(float(size) * 255) if abs(float(size)) < 1e6 else 0
    return f"{levels}/255" if levels and abs(float(size) * 255 - levels) < _ROUNDING else repr(float(size))


_ROUNDING = 1e-4
"""Levels. A float32 of k/255 is at most 1.6e-5 levels away from it for eps up to 1; 0.0314 is 7e-3 away from 8/255."""
