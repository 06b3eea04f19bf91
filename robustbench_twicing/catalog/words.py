"""The flat words of the command line and of Python -> the form of a plan file.

There, attacks and suites are rows of their own; here, every attack is run at every eps, and every suite in the same
corruptions and severities. No torch.
"""

from collections.abc import Iterable, Mapping
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
