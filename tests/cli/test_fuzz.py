"""Whatever is typed: a documented exit code, and never a traceback. Seeded, so that a failure can be had again."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from robustbench_twicing import api
from robustbench_twicing.cli.app import app
from robustbench_twicing.cli.commands import loaded
from robustbench_twicing.errors import EXIT_USAGE, UserError
from tests.records_builder import records, run_folder

INVOCATIONS = 300
DOCUMENTED = {0, 1, 2, 3, 4, 5}

WORDS = {
    "model": [
        "deit",
        "deit-tw",
        "deit+twicing(0.5)@last1",
        "deit@a",
        "resnet18",
        "deit=none.pth",
        "python:x:y",
        "deit+",
    ],
    "attack": ["fgsm", "pgd", "pdg", "autoattack", "python:a:b", "square"],
    "eps": ["1/255", "0.03", "0", "-1", "8", "1/0", "nan", "1e400"],
    "suite": ["digits-c", "imagenet-c", "imagenet-a", "own.toml", "digits-d", "p.toml"],
    "corruption": ["fog", "common", "all", "frog"],
    "severity": ["1", "5", "0", "6", "x"],
    "protocol": ["standard", "paper", "own.toml", "broken.toml", "none.toml", "standart"],
    "data": ["digits", "imagenet", "imagenet-c", "mnist"],
    "data-dir": [".", "imagenet=.", "imagenet=", "x=y", "/none"],
    "run": ["run", "damaged", "p.toml", "broken.toml", "nightly", "none", "deit", "."],
    "baseline": ["accepted", "run", "none"],
    "arm": ["a=deit", "b=deit-tw", "a=x*", "=", "a"],
    "floor": ["deit:clean=0.5", "x", "=", "deit:*=2"],
    "format": ["terminal", "json", "junit", "markdown", "html"],
    "seed": ["0", "7", "-1", "9223372036854775808", "x"],
    "limit": ["1", "0", "-3", "99999999999999999999"],
    "device": ["cpu", "cuda", "cuda:99", "tpu"],
    "out": ["new", "run", "own.toml", "/dev/null/x", ""],
}
HOSTILE = [
    "",
    " ",
    "-",
    "--",
    "\udce9",
    "a\0b",
    "\x1b[2J",
    "=cmd|' /C calc'!A0",
    "ü" * 300,
    "../..",
    "%s",
    "{}",
    "[red]",
]

Command = tuple[tuple[str, ...], list[Any]]


def _commands() -> list[Command]:
    def leaves(command: Any, path: tuple[str, ...]) -> Iterator[Command]:
        if hasattr(command, "commands"):
            for name, inner in command.commands.items():
                yield from leaves(inner if path else loaded(name), (*path, name))
        else:
            yield path, command.params

    return list(leaves(typer.main.get_command(app), ()))


def _value(draw: random.Random, name: str) -> str:
    known = WORDS.get(name) or WORDS["run"]
    return draw.choice(known) if draw.random() < 0.85 else draw.choice(HOSTILE)


def _line(draw: random.Random, commands: list[Command]) -> list[str]:
    path, params = draw.choice(commands)
    words = list(path)
    for param in params:
        argument = param.param_type_name == "argument"
        likely = 0.9 if argument or param.required else 0.12
        for _ in range(2 if getattr(param, "multiple", False) or param.nargs == -1 else 1):
            if draw.random() > likely:
                continue
            if argument:
                words.append(_value(draw, "run"))
                continue
            opt = draw.choice([*param.opts, *param.secondary_opts])
            words += [opt] if param.is_flag else [opt, _value(draw, param.opts[0].lstrip("-"))]
    if draw.random() < 0.1:
        words.insert(draw.randrange(len(words) + 1), draw.choice(["--none", "-z", "--help", *HOSTILE]))
    return words


class _Computed(UserError):
    """What would be computed now is not what is tried here."""


@pytest.fixture(autouse=True)
def _a_folder_with_a_bit_of_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any, **__: Any) -> Any:
        raise _Computed("Computed.", "Here nothing is.")

    for name in ("carry_out", "run_plan_file", "estimate_plan_file", "check_generated"):
        monkeypatch.setattr(api, name, stop)
    for place in (
        *("runner.published.verify_model", "runner.recheck.recheck", "runner.inside.opened"),
        *("train.in_turn.train_in_turn", "train.several.train_several", "train.dry_run.estimated"),
        "tasks.images.make_corrupted.make_corrupted",
    ):
        monkeypatch.setattr(f"robustbench_twicing.{place}", stop)
    monkeypatch.chdir(tmp_path)
    right = [True, True, False, True] * 5
    outcomes = {(model, threat): right for model in ("deit", "deit-tw") for threat in ("clean", "fgsm-linf-1/255")}
    for folder in ("run", "damaged"):
        run_folder(Path(folder), records(outcomes))
    for file in Path("damaged").rglob("*.parquet"):
        file.write_bytes(file.read_bytes()[:-9])
    accepted = CliRunner().invoke(app, ["baseline", "accept", "run", "--why", "a test", "--to", "accepted"])
    assert accepted.exit_code == 0, accepted.output
    Path("p.toml").write_text('models = ["deit"]\nlimit = 2\n[[attacks]]\nnames = ["fgsm"]\neps = ["1/255"]\n')
    Path("broken.toml").write_bytes(b"models = [\xff")
    Path("own.toml").write_text('title = "own"\nlayout = "imagefolder"\n')


def test_whatever_is_typed_ends_with_a_documented_exit_code_and_without_a_traceback() -> None:
    draw, commands, ended = random.Random(0), _commands(), []
    for _ in range(INVOCATIONS):
        words = _line(draw, commands)
        result = CliRunner().invoke(app, words)
        told = f"{words}\n{result.output}\n{result.exception!r}"
        assert result.exception is None or isinstance(result.exception, SystemExit), told
        assert result.exit_code in DOCUMENTED, told
        assert "Traceback" not in result.output, told
        assert result.exit_code != EXIT_USAGE or result.stderr.strip(), told
        ended.append(result.exit_code)
    assert len(set(ended)) > 1  # some lines are right
    assert ended.count(EXIT_USAGE) < INVOCATIONS
