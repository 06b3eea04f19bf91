"""What other packages add, without a change in this one: entry points, and `python:MODULE:NAME`. No torch by itself.

A package registers what it brings under `twicing_bench.GROUP` (docs/plugins.md); nothing of it is imported before its
name is used. `python:MODULE:NAME` names an object that nobody registered. Files travel with cloned repositories, so
what stands in a plan or a configuration file runs only inside of `code_allowed`; what the user types, runs.
"""

import hashlib
import re
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from robustbench_twicing.errors import UserError

Group = Literal["attacks", "methods", "models", "suites", "metrics", "formats"]
"""What can be added."""

PREFIX = "python:"
"""Of the text that names an object of a module."""


class Origin(NamedTuple):
    """Where something that is not ours came from; the manifest of a run lists what it used."""

    group: Group
    name: str
    package: str
    """The distribution that registered it; for `python:MODULE:NAME` the file of the module."""
    version: str
    """Of the distribution; for `python:MODULE:NAME` the hash of the file."""


class Plugin(NamedTuple):
    """One thing that another package adds."""

    origin: Origin
    value: Any


_used: dict[tuple[Group, str], Plugin] = {}


def used() -> list[Origin]:
    """What this process has loaded so far, in the order of its use."""
    return [plugin.origin for plugin in _used.values()]


@cache
def _registered(group: Group) -> Mapping[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=f"twicing_bench.{group}")}


def origins(group: Group) -> list[Origin]:
    """Everything that packages register in a group, by name; nothing is imported."""
    return [_origin(group, point) for _, point in sorted(_registered(group).items())]


def plugin_names(group: Group, built_in: Collection[str] = ()) -> list[str]:
    """Names that packages register in a group, apart from those that are `built_in`, which nobody can take."""
    return sorted(name for name in _registered(group) if name not in built_in)


_allowed: ContextVar[bool] = ContextVar("_allowed", default=False)


@contextmanager
def code_allowed(allowed: bool = True) -> Iterator[None]:
    """Within this, plans and configuration files may name code: whoever enters it has read them, or trusts them."""
    token = _allowed.set(allowed)
    try:
        yield
    finally:
        _allowed.reset(token)


def refused_code(content: Any) -> list[tuple[tuple[str | int, ...], str]]:
    """Every text of a file's content that names code, with its place; none where code is allowed."""
    return [] if _allowed.get() else list(_code_in(content, ()))


def _code_in(content: Any, place: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if isinstance(content, str):
        if re.search(rf"(?:^|[=+]){PREFIX}", content):
            yield place, content
    elif isinstance(content, Mapping):
        for key, value in content.items():
            yield from _code_in(value, (*place, key))
    elif isinstance(content, list):
        for number, value in enumerate(content):
            yield from _code_in(value, (*place, number))


def find_plugin(group: Group, name: str) -> Plugin | None:
    """What a name stands for, loaded; None if nobody registered it.

    `python:MODULE:NAME` is the object of that name, looked for from the working folder too. Raises `UserError` for one
    that cannot be had, naming its package.
    """
    if (group, name) in _used:
        return _used[group, name]
    if name.startswith(PREFIX):
        found = _from_module(group, name)
    elif name in _registered(group):
        found = _from_package(group, _registered(group)[name])
    else:
        return None
    _used[group, name] = found
    return found


def _origin(group: Group, point: EntryPoint) -> Origin:
    package = point.dist
    return Origin(group, point.name, package.name if package else point.module, package.version if package else "")


def _from_package(group: Group, point: EntryPoint) -> Plugin:
    origin = _origin(group, point)
    try:
        return Plugin(origin, point.load())
    except MemoryError:
        raise
    except (Exception, SystemExit) as error:
        raise UserError(
            f"{_kind(group)} {origin.name!r} comes from the package {origin.package} {origin.version}, which cannot be "
            f"imported: {type(error).__name__}: {_first_line(error)}",
            f"Repair or uninstall {origin.package}; everything else works without it.",
        ) from error


def _from_module(group: Group, text: str) -> Plugin:
    module_name, _, name = text.removeprefix(PREFIX).partition(":")
    form = f"Write {PREFIX}MODULE:NAME, such as {PREFIX}my_nets.build:small."
    if not module_name or not all(part.isidentifier() for part in [*module_name.split("."), *name.split(".")]):
        raise UserError(f"{text!r} names no object.", form)
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # as `python -m` does; at the end, so that it shadows nothing
    try:
        module = import_module(module_name)
        value: Any = module
        for part in name.split("."):
            value = getattr(value, part)
    except MemoryError:
        raise
    except (Exception, SystemExit) as error:
        said = f"{type(error).__name__}: {_first_line(error)}"
        raise UserError(
            f"{text} cannot be imported: {said}", f"Try: python -c 'import {module_name}'. {form}"
        ) from error
    file = getattr(module, "__file__", None)
    version = hashlib.sha256(Path(file).read_bytes()).hexdigest()[:12] if file else ""
    return Plugin(Origin(group, text, str(file or module_name), version), value)


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]


def _kind(group: Group) -> str:
    return group.removesuffix("s").capitalize()


GROUPS: tuple[Group, ...] = get_args(Group)
