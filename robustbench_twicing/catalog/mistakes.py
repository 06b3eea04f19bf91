"""A user's mistakes, each at its place, all of them at once. Every door spells the places in its own way."""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from pydantic import ValidationError

from robustbench_twicing.errors import UserError, unknown_name
from robustbench_twicing.spec.values import Frozen

Place = tuple[str | int, ...]
"""Keys and positions that lead to a value of a plan file, such as ("attacks", 0, "eps", 1)."""
Value = TypeVar("Value")
Form = TypeVar("Form", bound=Frozen)


class Mistake(NamedTuple):
    """What is wrong with the value at a place."""

    place: Place
    message: str
    hint: str = ""


class MistakesError(UserError):
    """Everything that is wrong with an experiment. A door that has a spelling of its own says it anew: `said`."""

    def __init__(self, found: list[Mistake]) -> None:
        super().__init__("\n".join(f"{dotted(one.place)}: {one.message} {one.hint}".strip() for one in found))
        self.found = found

    def said(self, spelled: Callable[[Place], str]) -> UserError:
        """The same in a door's own spelling of places. A lone mistake needs no list."""
        if len(self.found) == 1:
            place, message, hint = self.found[0]
            return UserError(f"{spelled(place)}: {message}", hint)
        lines = [f"  {spelled(one.place)}: {one.message} {one.hint}".rstrip() for one in self.found]
        return UserError(f"{len(lines)} mistakes:\n" + "\n".join(lines))


def dotted(place: Place) -> str:
    """Such as `attacks[0].eps[1]`."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in place).lstrip(".")


class Mistakes:
    """Collects mistakes."""

    def __init__(self) -> None:
        self.found: list[Mistake] = []

    def add(self, place: Place, what: str | UserError, hint: str = "") -> None:
        """Something is wrong at a place."""
        one = Mistake(place, what.message, what.hint) if isinstance(what, UserError) else Mistake(place, what, hint)
        if one not in self.found:
            self.found.append(one)

    def tried(self, place: Place, step: Callable[..., Value], *arguments: Any) -> Value | None:
        """What `step(*arguments)` returns; None if it raises `UserError`, which is collected."""
        try:
            return step(*arguments)
        except UserError as error:
            self.add(place, error)
            return None

    def filled(self, form: type[Form], content: Mapping[str, Any], at: Place = (), keys: tuple[str, ...] = ()) -> Form:
        """The form with what `content` says. What has a wrong form is collected and left out, so that wrong names in
        the rest are found too. `keys` are those that exist beside the form's own.
        """
        try:
            return form.model_validate(content)
        except ValidationError as error:
            issues = error.errors()
        for issue in issues:
            self.add((*at, *issue["loc"]), _wrong_form(form, issue, keys))
        wrong = {str(issue["loc"][0]) for issue in issues}
        return form.model_validate({key: value for key, value in content.items() if key not in wrong})

    def refuse(self) -> None:
        """Raise `MistakesError` if there are any."""
        if self.found:
            raise MistakesError(self.found)


def _wrong_form(form: type[Frozen], issue: Any, keys: tuple[str, ...]) -> str | UserError:
    *outside, key = issue["loc"]
    if issue["type"] == "extra_forbidden":
        return unknown_name("key", str(key), [*_keys(form, outside), *keys])
    if issue["type"] == "literal_error":
        word = str(next(part for part in reversed(issue["loc"]) if isinstance(part, str))).replace("_", " ")
        return unknown_name(word, str(issue["input"]), re.findall(r"'([^']*)'", issue["ctx"]["expected"]))
    if issue["type"] == "too_short":
        return UserError("Nothing is named here.", "Name at least one, or leave it away.")
    got = f" (got {issue['input']!r})" if issue["type"] != "missing" else ""
    return str(issue["msg"]).removeprefix("Value error, ") + (got if len(got) < 80 else "")


def _keys(form: type[Frozen], outside: list[Any]) -> list[str]:
    """The keys of the table that a key stands in."""
    for key in outside:
        if isinstance(key, str):
            form = _table(form, key)
    return [field.alias or name for name, field in form.model_fields.items()]


def _table(form: type[Frozen], key: str) -> type[Frozen]:
    """The form of a table, or of a row of an array of tables, within another."""
    for field in (form.model_fields[key].annotation, *getattr(form.model_fields[key].annotation, "__args__", ())):
        if isinstance(field, type) and issubclass(field, Frozen):
            return field
    return form
