"""run.json: typed, whole, and never a traceback whatever a disk or a hand made of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from robustbench_twicing.errors import UserError
from robustbench_twicing.results.run import load_finished, load_run
from robustbench_twicing.results.store import RunFolder
from robustbench_twicing.spec.records import SCHEMA_VERSION
from tests.records_builder import records, run_folder

CELLS = [(model, threat) for model in ("deit", "deit-tw") for threat in ("clean", "pgd-linf-1/255")]
FRAME = records({cell: [True] * 30 for cell in CELLS})


def _altered(path: Path, change: Callable[[Any], object]) -> Path:
    """The folder of a run after `change` was done to what its run.json holds."""
    file = run_folder(path, FRAME) / "run.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    return path


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    folder = RunFolder(run_folder(tmp_path, FRAME, name="nightly", gate={"tolerance": 0.02}))
    first = folder.manifest()
    before = (tmp_path / "run.json").read_bytes()
    folder.write_manifest(first)
    assert (tmp_path / "run.json").read_bytes() == before
    assert folder.manifest() == first
    assert (first.name, first.gate.tolerance, first.plan_hash) == ("nightly", 0.02, first.plan.hash)


def test_a_manifest_is_read_by_the_keys_of_its_file(tmp_path: Path) -> None:
    manifest = load_run(run_folder(tmp_path, FRAME)).manifest
    content = json.loads((tmp_path / "run.json").read_text())
    assert {key: manifest.get(key) for key in content} == content
    assert manifest.get("nothing") is None
    assert manifest.get("nothing", 3) == 3


def test_a_run_says_in_a_line_what_it_is(tmp_path: Path) -> None:
    assert repr(load_run(run_folder(tmp_path, FRAME))) == f"Run('{tmp_path}': finished, 2 model(s) × 2 threat(s))"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda m: m["plan"].update(seed=7), "plan_hash"),
        (lambda m: m.update(plan_hash="0123456789ab"), "plan_hash"),
        (lambda m: m["plan"]["models"][0].update(name="another"), "cells are not those of the plan"),
        (lambda m: m["models"].update(another=m["models"].pop("deit")), "models has no 'deit'"),
        (lambda m: m["models"]["deit"].update(weights_hash=5), r"models\.deit\.weights_hash"),
        (lambda m: m["cells"].reverse(), "cells are not those of the plan"),
        (lambda m: m["cells"].pop(), "cells are not those of the plan"),
        (lambda m: m["cells"][0].update(folder="../elsewhere"), r"cells\.0\.folder: '\.\./elsewhere' is not the plain"),
        (lambda m: m["cells"][0].update(folder=m["cells"][1]["folder"]), "two cells have one folder"),
        (lambda m: m["cells"][0].update(shard_size=0), r"cells\.0\.shard_size"),
        (lambda m: m["cells"][0].update(samples="many"), r"cells\.0\.samples"),
        (lambda m: m["cells"][0].update(samples=10**9, shard_size=1), r"cells\.0: 1000000000 samples"),
        (lambda m: m["cells"][0].update(samples=10**9, shard_size=10**9), "more samples than its data set"),
        (lambda m: m.update(cells={}), "cells"),
        (lambda m: m.update(plan=None), "plan"),
        (lambda m: m.pop("cells"), "it has no 'cells'"),
        (lambda m: m.update(mood="sunny"), "a key 'mood' that this version does not know"),
        (lambda m: m.update(started="yesterday"), "started"),
        (lambda m: m.update(started="2026-11-23T20:00:00"), "started.*no time zone"),
        (lambda m: m.update(status="fine"), "status"),
        (lambda m: m.update(finished=None), "status is finished"),
        (lambda m: m["data"].pop("clean"), "data has no 'clean'"),
        (lambda m: m["made_by"].append(3), r"made_by\.1"),
    ],
)
def test_an_altered_manifest_is_refused_by_file_and_key(
    tmp_path: Path, change: Callable[[Any], object], named: str
) -> None:
    folder = _altered(tmp_path, change)
    for read in (load_run, load_finished):
        with pytest.raises(UserError, match=rf"run\.json was altered: .*{named}"):
            read(folder)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe{}",
        b"[" * 100_000 + b"]" * 100_000,
        b'{"schema_version": %d, "plan": ' % SCHEMA_VERSION + b'{"a":' * 100_000 + b"1" + b"}" * 100_001,
        b'{"schema_version": %d}' % SCHEMA_VERSION,
        b'{"schema_version": 1e400}',
        b'{"schema_version": %d, "name": "\\ud800"}' % SCHEMA_VERSION,
        b'{"schema_version": ' + b"9" * 5000 + b"}",
    ],
)
def test_whatever_bytes_are_there_are_a_message(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(UserError, match=r"run\.json"):
        load_run(tmp_path)


@pytest.mark.parametrize("depth", [50, 200, 500, 900])
def test_settings_nested_deep_are_read_or_refused(tmp_path: Path, depth: int) -> None:
    nested: Any = 1
    for _ in range(depth):
        nested = [nested]

    def change(manifest: Any) -> None:
        manifest["plan"]["threats"][1]["settings"] = {"algorithm": "unknown", "norm": "Linf", "deep": nested}

    folder = _altered(tmp_path, change)
    with pytest.raises(UserError, match=r"run\.json"):  # if only because the plan has another hash now
        load_run(folder)


@pytest.mark.parametrize(
    ("version", "reader"),
    [
        (2, "twicing-bench 0.1,"),
        (99, "the version of twicing-bench that made it"),
        ("1", "the version"),
        (None, "the ver"),
    ],
)
def test_another_schema_is_refused_with_the_version_that_reads_it(tmp_path: Path, version: Any, reader: str) -> None:
    with pytest.raises(UserError, match=rf"record schema {version!r}; this version reads {SCHEMA_VERSION}") as caught:
        load_run(_altered(tmp_path, lambda m: m.update(schema_version=version)))
    assert f"Use {reader}" in caught.value.hint


def test_a_manifest_can_say_what_is_no_text(tmp_path: Path) -> None:
    """Names of files and arguments need not be UTF-8."""
    folder = RunFolder(run_folder(tmp_path, FRAME, command=("run", "caf\udce9.toml")))
    assert folder.manifest().command == ("run", "caf\\udce9.toml")


def test_every_key_is_explained(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "run-folder.md").read_text()
    frame = records({("deit", threat): [True] * 5 for threat in ("clean", "digits-c:fog-3")})
    content = json.loads((run_folder(tmp_path, frame) / "run.json").read_text())
    assert [key for key in (*content, *content["means"]) if f"`{key}`" not in text] == []
