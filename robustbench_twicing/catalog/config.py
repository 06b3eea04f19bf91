"""What the user set once: where data sets and checkpoints lie, and defaults. docs/configuration.md explains it.

A value comes from the first of these that has one: the command's flag, `twicing-bench.toml` in the working folder, the
same file in the user's configuration folder, an environment variable, the default. No torch.
"""

import difflib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from platformdirs import user_config_path

from robustbench_twicing.catalog.datasets import known_data, on_disk, titles
from robustbench_twicing.catalog.plugins import PREFIX as CODE
from robustbench_twicing.catalog.plugins import refused_code
from robustbench_twicing.catalog.read_toml import read_toml
from robustbench_twicing.catalog.zoo import known_model, zoo
from robustbench_twicing.errors import UserError, no_working_folder, unknown_name
from robustbench_twicing.machine.remote import is_remote, place_of_text
from robustbench_twicing.spec.means import Means

FILE = "twicing-bench.toml"
PREFIX = "TWICING_BENCH_"
DEFAULTS: Mapping[str, str | None] = {"data": "digits", "device": "auto", "frost-dir": None}
"""The keys of [defaults], each the flag of that name, and what they are if nobody sets them."""
_HELP = "docs/configuration.md lists every key; `twicing-bench config show` says what is set."


class Setting(NamedTuple):
    """One value and where it came from."""

    value: str | None
    origin: str
    """Path of the file, name of the environment variable, "default" or "not set"."""


@dataclass(frozen=True)
class Settings:
    """Everything that can be set, by table and key."""

    tables: Mapping[str, Mapping[str, Setting]]
    files: Mapping[Path, bool]
    """The files that were looked for, in order of precedence, and whether they are there."""

    def chosen(self, key: str) -> str | None:
        """The value of a key of [defaults] that the user has set; None if nobody has."""
        value, origin = self.tables["defaults"][key]
        return None if origin == "default" else value

    def directories(self) -> dict[str, Path]:
        """Where each data set lies."""
        return {name: place_of_text(value) for name, (value, _) in self.tables["data"].items() if value}

    def means(self) -> Means:
        """Where data sets lie, and the device and the frost pictures that are set."""
        chosen = {"device": self.chosen("device"), "frost_dir": self.chosen("frost-dir")}
        set_by_user: dict[str, Any] = {name: value for name, value in chosen.items() if value is not None}
        return Means(directories=self.directories(), **set_by_user)

    def checkpoints(self, data: str) -> dict[str, str]:
        """The checkpoint of each model on the data set `data`, or the code that builds it.

        No checkpoint for digits, whose weights ship with the tool.
        """
        given = {name: value for name, (value, _) in self.tables["models"].items() if value}
        return {name: value for name, value in given.items() if data != "digits" or value.startswith(CODE)}

    def decided_here(self, weights: str) -> str:
        """The file in the working folder, if it is what names these weights for a model; else empty.

        Such a file comes with a cloned repository, and whoever runs a command there need not know of it.
        """
        here = str(next(iter(self.files)))
        value = weights.removeprefix("file:")
        return here if any(one == Setting(value, here) for one in self.tables["models"].values()) else ""


def settings(folder: Path | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """What is set for a command that runs in `folder` (default: the working folder).

    Raises `UserError`, with the nearest names, for a key or an environment variable that does not exist.
    """
    environment = os.environ if environment is None else environment
    files = {place: place.is_file() for place in files_looked_for(folder)}
    defaults: dict[str, Mapping[str, str | None]] = {
        "defaults": DEFAULTS,
        "data": dict.fromkeys(on_disk()),
        "models": {name: entry.imagenet.weights for name, entry in zoo().items()},
    }
    known = {table: list(names) for table, names in defaults.items()}
    read = [(path, _read(path, known)) for path, there in files.items() if there]
    variables = _variables(known, environment)
    tables = {}
    for table, names in known.items():
        extra = [name for _, content in read for name in content[table]]
        found = {}
        for name in dict.fromkeys([*names, *extra]):
            candidates = [Setting(content[table][name], str(path)) for path, content in read if name in content[table]]
            candidates += [variables[table, name]] if (table, name) in variables else []
            default = defaults[table].get(name)
            found[name] = (*candidates, Setting(default, "default" if default else "not set"))[0]
        tables[table] = found
    data = tables["defaults"]["data"]
    if not known_data(str(data.value)):
        error = unknown_name("data set", str(data.value), titles())
        raise UserError(f"{error.message[:-1]} (from {data.origin}).", error.hint)
    return Settings(tables, files)


def files_looked_for(folder: Path | None = None) -> list[Path]:
    """Where values may be set, in order of precedence, whether or not something is there."""
    places = dict.fromkeys([folder or _here(), user_config_path("twicing-bench", appauthor=False)])
    return [place / FILE for place in places]


def _here() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError:
        raise no_working_folder() from None


def variable_of(table: str, key: str) -> str:
    """The environment variable of a key: TWICING_BENCH_DATA_IMAGENET_C for imagenet-c in [data]."""
    return PREFIX + f"{table}_{key}".upper().replace("-", "_")


def data_dirs(flags: Sequence[str], names: Sequence[str]) -> dict[str, Path]:
    """`--data-dir` flags as a table from data set to folder: NAME=DIR, or DIR alone for the only one of `names`.

    A text with an = is NAME=DIR unless the part before it looks like a path. Whether there is such a data set,
    `catalog.resolve` says. Raises `UserError`.
    """
    places = {}
    for text in flags:
        name, sign, place = text.partition("=")
        if not sign or "/" in name or os.sep in name or name.startswith(("~", ".")):
            if len(names) != 1:
                raise UserError(
                    f"--data-dir {text} could belong to any of {', '.join(names)}.",
                    f"Write --data-dir {names[0] if names else 'NAME'}={text}",
                )
            name, place = names[0], text
        if not place:
            raise UserError(f"--data-dir {text} names no folder.", f"Write --data-dir {name}=/path/to/it")
        places[name] = place_of_text(place)
    return places


def _read(path: Path, known: Mapping[str, Sequence[str]]) -> dict[str, dict[str, str]]:
    """The three tables of a file, checked; paths in it are relative to its folder."""
    content = read_toml(path)
    tables: dict[str, dict[str, str]] = {table: {} for table in known}
    for table, entries in content.items():
        if table not in known:
            raise unknown_name(f"table in {path}:", table, known)
        if not isinstance(entries, dict):
            raise UserError(
                f"{path}: {table} is not a table but {entries!r}.", f"Write [{table}] above its keys. {_HELP}"
            )
        for key, value in entries.items():
            if not (key in known[table] or _named_by_user(table, key, value)):
                raise unknown_name(f"key in [{table}] of {path}:", key, known[table])
            if not isinstance(value, str) or not value:
                raise UserError(f"{path}: {table}.{key} is {value!r}, and should be text.", _HELP)
            if refused_code(value):
                raise UserError(
                    f"{path}: {table}.{key} = {value!r} runs code that this file names, and files travel with cloned "
                    "repositories.",
                    f"If you trust it, pass --allow-code, or type it where you want it: --model NAME={value}",
                )
            tables[table][key] = _located(table, key, value, path.parent)
    return tables


def _variables(known: Mapping[str, Sequence[str]], environment: Mapping[str, str]) -> dict[tuple[str, str], Setting]:
    """The keys that environment variables set. An empty one counts as not set."""
    owners = {variable_of(table, key): (table, key) for table, keys in known.items() for key in keys}
    found = {}
    for variable, value in environment.items():
        if not variable.startswith(PREFIX) or not value:
            continue
        if variable not in owners:
            raise _unknown_variable(variable, owners)
        table, key = owners[variable]
        found[table, key] = Setting(_located(table, key, value, Path.cwd()), variable)
    return found


def _unknown_variable(variable: str, known: Iterable[str]) -> UserError:
    near = difflib.get_close_matches(variable, known, n=1)
    return UserError(
        f"Unknown environment variable {variable}.",
        (f"Did you mean {near[0]}? " if near else "") + f"Available: {', '.join(sorted(known))}.",
    )


def _named_by_user(table: str, key: str, value: object) -> bool:
    """Keys that no list can hold: suites of the user's own, by the path of their TOML file, and models of timm or of
    code, which have any name."""
    if table == "data":
        return key.endswith(".toml")
    return table == "models" and (known_model(key) or str(value).startswith(CODE))


def _located(table: str, key: str, value: str, folder: Path) -> str:
    """A path made absolute; text that is no path as it is."""
    if table == "defaults" and (key != "frost-dir" or value == "drawn"):
        return value
    if table == "models" and value.startswith(("timm:", "hf-hub:", CODE)):
        return value
    return value if is_remote(value) else str(folder / Path(value).expanduser())
