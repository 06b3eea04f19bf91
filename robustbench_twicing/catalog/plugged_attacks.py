"""Attacks from outside this package: settings that name their engine, or an engine alone (docs/plugins.md)."""

from typing import Any

from pydantic import ValidationError

from robustbench_twicing.catalog.plugins import PREFIX, Plugin, find_plugin
from robustbench_twicing.errors import UserError
from robustbench_twicing.spec.attacks import SETTINGS, AttackSettings, PythonSettings

_WHAT = (
    "An attack is a function (model, images, labels, threat, draws) -> Perturbed, or settings: a subclass of "
    "AttackSettings, or one of its values, that names such a function in `engine`. docs/plugins.md has examples."
)


def plugged_attack(text: str) -> tuple[str, AttackSettings] | None:
    """The name and the settings of an attack that a package registers, or of `python:MODULE:NAME`; None for neither.

    Raises `UserError` for one that cannot be imported or is no attack.
    """
    found = find_plugin("attacks", text)
    if found is None:
        return None
    return text.rpartition(":")[2].rpartition(".")[2] if text.startswith(PREFIX) else text, _settings(text, found)


def _settings(text: str, found: Plugin) -> AttackSettings:
    value: Any = found.value
    if isinstance(value, type) and issubclass(value, AttackSettings):
        value = _with_defaults(text, value)
    if isinstance(value, AttackSettings):
        _register(text, value)
        return value
    if not callable(value):
        raise UserError(f"Attack {text} is a {type(value).__name__}.", _WHAT)
    if text.startswith(PREFIX):
        return PythonSettings(function=text.removeprefix(PREFIX), code=found.origin.version)
    function = f"{value.__module__}:{value.__qualname__}"
    return PythonSettings(function=function, code=f"{found.origin.package} {found.origin.version}")


def _with_defaults(text: str, kind: type[AttackSettings]) -> AttackSettings:
    try:
        return kind.model_validate({})
    except ValidationError as error:
        missing = ", ".join(str(issue["loc"][0]) for issue in error.errors() if issue["loc"])
        raise UserError(f"Attack {text}: its settings need a value for {missing}.", "Give each a default.") from None


def _register(text: str, settings: AttackSettings) -> None:
    """So that a plan which holds such settings can be read back."""
    kind = type(settings)
    if SETTINGS.setdefault(settings.algorithm, kind) is not kind:
        raise UserError(
            f"Attack {text} calls its algorithm {settings.algorithm!r}, which is one already.", "Give it another name."
        )
    if not kind.engine:
        raise UserError(f"Attack {text} names no function in `engine`.", _WHAT)
