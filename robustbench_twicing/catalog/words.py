"""The flat words of the command line and of Python -> the form of a plan file.

There, attacks and suites are rows of their own; here, every attack is run at every eps, and every suite in the same
corruptions and severities. No torch.
"""

from collections.abc import Iterable, Mapping
from fractions import Fraction
from numbers import Integral, Real
from typing import Any

from robustbench_twicing.catalog.mistakes import Mistakes, Place
from robustbench_twicing.spec.means import Means

_ROWS = {"attacks": "names", "suites": "name"}
"""Arrays of tables, and the key of a row that has the array's own flat word."""


def in_form(said: Mapping[str, Any], attacked: bool, mistakes: Mistakes) -> dict[str, Any]:
    """What was said, None meaning nothing, as the content of a plan file.

    `attacked`: without the name of an attack or an eps the protocol's own list is meant, and not that nothing is
    attacked. Parts of suites where there are none are added to the mistakes.
    """
    content = {key: value for key, value in said.items() if value is not None}
    means = {key: content.pop(key) for key in Means.model_fields if key in content and key != "directories"}
    attack = {key: content.pop(word) for word, key in (("attacks", "names"), ("eps", "eps")) if word in content}
    part = {key: content.pop(key) for key in ("corruptions", "severities") if key in content}
    if attacked or attack:
        content["attacks"] = [attack]
        if attack.get("names") in ((), []):  # in a plan file that is the protocol's list; here nobody would guess it
            hint = "Leave it away for the protocol's own list."
            mistakes.add(("attacks", 0, "names"), "Nothing is named here.", hint)
    suites = content.pop("suites", ())
    if isinstance(suites, Iterable) and not isinstance(suites, str):
        content["suites"] = [{"name": name, **part} for name in dict.fromkeys(suites)]
    for key, value in part.items():
        if value and not content.get("suites"):
            mistakes.add(("suites", 0, key), "No suite is named, so this means nothing.", "Name a suite.")
    return {**content, "means": means}


def word_of(place: Place) -> str:
    """The flat word that says what lies at a place of the form: `eps` for ("attacks", 0, "eps", 1)."""
    key, *inner = (part for part in place if isinstance(part, str))
    if key in ("attacks", "suites") and inner and inner[0] != _ROWS[key]:
        return inner[0]
    if key == "means" and inner:
        return "compiles" if inner[0] == "compile" else inner[0]
    return key


# --- what Python programs hand over ----------------------------------------------------------------------------------


def from_python(said: Mapping[str, Any]) -> dict[str, Any]:
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
