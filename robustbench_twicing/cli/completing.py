"""What TAB offers: options of every command and names that can stand behind them, without importing the command.

A command brings pandas or torch along, seconds that nobody waits for at a TAB. So its options are read from
`completed.txt`, which `python -m robustbench_twicing.cli.completing` writes and a test compares with the commands, and
names from the definitions and folders themselves.
"""

import tomllib
from collections.abc import Callable, Iterator, Mapping
from inspect import Parameter, Signature
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.main import get_command, get_group

from robustbench_twicing.catalog.locate import definitions, package_file

FILE = package_file("cli/completed.txt")
_RUNS = Path("results/runs")
_BASELINES = Path("results/baselines")


def _stems(kind: str) -> list[str]:
    return sorted(file.stem for file in definitions(kind).glob("*.toml"))


def _tables(file: Path, table: str) -> list[str]:
    return list(tomllib.loads(file.read_text("utf-8")).get(table, {}))


def _models() -> list[str]:
    return _tables(package_file("catalog/zoo.toml"), "models")


def _attacks() -> list[str]:
    files = [*sorted(definitions("attacks").glob("*.toml")), package_file("catalog/torchattacks.toml")]
    return list(dict.fromkeys(name for file in files for name in _tables(file, "attacks")))


def _protocols() -> list[str]:
    return _stems("attacks")


def _suites() -> list[str]:
    return _stems("corruptions")


def _plans() -> list[str]:
    return [*_stems("plans"), *sorted(str(file) for file in Path().glob("*.toml"))]


def _runs() -> list[str]:
    """The newest first."""
    folders = [path for path in _RUNS.glob("*/") if (path / "run.json").exists()]
    folders.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    return ["latest", *(str(path) for path in folders), *_stems("plans")]


def _baselines() -> list[str]:
    return sorted(path.name for path in _BASELINES.glob("*/"))


def _everything() -> list[str]:
    return [*_models(), *_attacks(), *_protocols(), *_suites()]


_OPTIONS: Mapping[str, Callable[[], list[str]]] = {
    "--model": _models,
    "--source-model": _models,
    "--attack": _attacks,
    "--suite": _suites,
    "--data": _suites,
    "--protocol": _protocols,
    "--run": _runs,
    "--baseline": _baselines,
    "--like": lambda: _stems("plans"),
    "--corruption": lambda: ["all", "common", "extra"],
    "--severity": lambda: ["1", "2", "3", "4", "5"],
    "--device": lambda: ["auto", "cpu", "cuda"],
    "--executor": lambda: ["local", "ray"],
    "--engine": lambda: ["own", "torchattacks"],
    "--precision": lambda: ["float32", "tf32", "bfloat16"],
    "--layout": lambda: ["full", "paper"],
}
_ARGUMENTS: Mapping[str, Callable[[], list[str]]] = {
    **dict.fromkeys(("report", "compare", "gate", "recheck", "bundle make", "baseline accept"), _runs),
    **dict.fromkeys(("run", "plan check"), _plans),
    "baseline show": _baselines,
    "data check": _suites,
    "catalog show": _everything,
}
_OWN: Mapping[tuple[str, str], Callable[[], list[str]]] = {
    ("train", "--recipe"): lambda: _stems("recipes"),
    ("train", "--data"): lambda: ["digits", "mnist", "cifar10", "cifar100", "text"],
    ("lm", "--model"): lambda: ["tiny-lm", "tiny-lm+twicing"],
    ("lm", "--suite"): lambda: ["word-swap", "text-c", "none"],
    ("recheck", "--model"): list,
    ("history", "--model"): _models,
}


def known(name: str) -> Any:
    """A command that has the options and arguments of command NAME, and does nothing."""
    own = [line.split() for line in FILE.read_text("utf-8").splitlines()]
    rows = [words for words in own if words[0].split("/")[0] == name]
    if [words[0] for words in rows] == [name]:
        alone = typer.Typer(add_completion=False, rich_markup_mode=None)
        alone.command(name)(_with(name, rows[0][1:]))
        return _unconverted(get_command(alone))
    group = typer.Typer(add_completion=False, rich_markup_mode=None)
    group.callback()(lambda: None)
    for path, *words in rows:
        group.command(path.split("/")[1])(_with(path.replace("/", " "), words))
    return _unconverted(get_group(group))


def _unconverted(command: Any) -> Any:
    """Values stay what was typed: typer imports pydantic to make anything else of them, and nobody reads them here."""
    own = command.get_params

    def params(ctx: Any) -> list[Any]:
        found: list[Any] = own(ctx)  # with --help
        for param in found:
            param.process_value = lambda ctx, value: value
        return found

    command.get_params = params
    for one in getattr(command, "commands", {}).values():
        _unconverted(one)
    return command


def _with(command: str, words: list[str]) -> Callable[..., None]:
    def nothing(**_: Any) -> None: ...

    rows = [
        Parameter(f"p{number}", Parameter.KEYWORD_ONLY, default=None, annotation=_annotation(command, word))
        for number, word in enumerate(words)
    ]
    nothing.__signature__ = Signature(rows)  # type: ignore[attr-defined]
    return nothing


def _annotation(command: str, word: str) -> Any:
    """`-m,--model=…`: it takes values, several; `--json`: a flag; `run` or `runs…`: an argument."""
    names = word.rstrip("…").rstrip("=").split(",")
    if not word.startswith("-"):
        return Annotated[list[str] | None, typer.Argument(autocompletion=_offered(_ARGUMENTS.get(command, list)))]
    if "=" not in word:
        return Annotated[bool | None, typer.Option(*(["/".join(names)] if "--no-" in word else names))]
    of = next((found for one in names if (found := _OWN.get((command, one)) or _OPTIONS.get(one))), list)
    return Annotated[list[str] | None, typer.Option(*names, autocompletion=_offered(of))]


def _offered(names: Callable[[], list[str]]) -> Callable[[str], list[str]]:
    def offered(incomplete: str) -> list[str]:
        return [name for name in names() if name.startswith(incomplete)]

    return offered


def written() -> Iterator[str]:
    """The lines of `completed.txt`, of the commands themselves."""
    from robustbench_twicing.cli.commands import COMMANDS, loaded

    for name in COMMANDS:
        command = loaded(name)
        within = getattr(command, "commands", None)
        for path, one in {f"{name}/{own}": one for own, one in within.items()}.items() if within else [(name, command)]:
            yield " ".join([path, *(_word(param) for param in one.params)])


def _word(param: Any) -> str:
    more = "…" if getattr(param, "multiple", False) or param.nargs == -1 else ""
    if param.param_type_name == "argument":
        return f"{param.name}{more}"
    names = ",".join([*param.opts, *param.secondary_opts])
    return names if getattr(param, "is_flag", False) else f"{names}={more}"


if __name__ == "__main__":
    FILE.write_text("".join(f"{line}\n" for line in written()), "utf-8")
