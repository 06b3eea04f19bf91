"""The package of docs/plugins.md, which brings something to every table, through the door users use."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from robustbench_twicing.api import load_run
from robustbench_twicing.attention.methods import METHODS
from robustbench_twicing.catalog import plugins, suites
from robustbench_twicing.cli.app import app
from robustbench_twicing.metrics.table import METRICS
from robustbench_twicing.results.bundle import write_bundle
from robustbench_twicing.spec.attacks import SETTINGS
from tests.records_builder import records, run_folder

POINTS = """
[twicing_bench.attacks]
brighter = brought:brighter
partly = brought:Brighter
[twicing_bench.methods]
halved = brought:HALVED
twicing = brought:HALVED
[twicing_bench.models]
small = brought:small
[twicing_bench.suites]
misty = brought:SUITE
[twicing_bench.metrics]
doubt = brought:DOUBT
broken = brought_broken:METRIC
[twicing_bench.formats]
shout = brought:SHOUT
"""
PAGE = Path(__file__).parents[2] / "docs" / "plugins.md"
CODE = "\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)).replace(
    "my_attacks:", "brought:"
)
MISTY = """
title = "Digits in the fog"
source = "a test"
layout = "generated"
clean = "digits"
index = "digits"
classes = "digits"
severities = [2]
families = { weather = ["fog"] }
"""


@pytest.fixture(autouse=True)
def _package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package as pip leaves it behind, on the search path; what it registered is gone afterwards."""
    info = tmp_path / "site" / "brings-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: brings\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(POINTS)
    (tmp_path / "site" / "brought.py").write_text(CODE)
    (tmp_path / "site" / "brought_broken.py").write_text("1 / 0\n")
    (tmp_path / "site" / "misty.toml").write_text(MISTY)
    (tmp_path / "work").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.chdir(tmp_path / "work")
    methods, metrics = dict(METHODS), list(METRICS)
    _forget()
    yield
    _forget()
    METHODS.clear()
    METHODS.update(methods)
    METRICS[:] = metrics
    SETTINGS.pop("brighter", None)
    sys.path[:] = [place for place in sys.path if not place.startswith(str(tmp_path))]
    for name in [name for name in sys.modules if name.startswith("brought")]:
        del sys.modules[name]


def _forget() -> None:
    plugins._used.clear()
    plugins._registered.cache_clear()
    suites._named.cache_clear()


def _run(*arguments: str, exit_code: int = 0) -> Any:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == exit_code, result.output
    return result


SMALL = ("--limit", "6", "--quiet", "--json", "--out", "run")


def test_what_a_package_registers_works_by_its_name_in_every_table() -> None:
    found = json.loads(
        _run(
            "attack",
            "--model",
            "small",
            "--model",
            "deit+halved",
            "--attack",
            "brighter",
            "--attack",
            "partly",
            "--suite",
            "misty",
            *SMALL,
        ).stdout
    )
    rows = {(row["model"], row["threat"]): row for row in found["rows"]}
    assert {threat for _, threat in rows} == {"clean", "brighter-linf-1/255", "partly-linf-1/255", "misty:fog-2"}
    assert rows["deit+halved@drop-in", "clean"]["attention"] == "halved"
    run = load_run("run")
    assert run.summary["doubt"].between(0, 1).all()
    assert run.manifest.versions["brings"] == "1.2"
    assert {maker.versions["brings"] for maker in run.manifest.made_by} == {"1.2"}
    assert _run("report", "run", "--format", "shout").stdout.startswith("RUN")


@pytest.fixture
def run_with_doubt() -> Path:
    """Arms of three seeds, whose summary has the package's metric; then as in a new process."""
    built_in = list(METRICS)
    names = [f"{name}@s{seed}" for name in ("deit", "deit-tw") for seed in range(3)]
    answers = {(name, "clean"): np.arange(40) > place for place, name in enumerate(names)}
    folder = run_folder(Path("made"), records(answers))
    assert load_run(folder).summary["doubt"].between(0, 1).all()
    write_bundle(load_run(folder), Path("evidence.zip"))
    METRICS[:] = built_in
    return folder


def test_a_figure_by_a_packages_metric_follows_from_the_records_of_a_bundle(run_with_doubt: Path) -> None:
    found = json.loads(_run("bundle", "verify", "evidence.zip", "--json").stdout)
    assert (found["unknown"], found["contradictions"]) == ([], [])


def test_arms_are_compared_by_a_packages_metrics_too(run_with_doubt: Path) -> None:
    _run("compare", str(run_with_doubt), "--arm", "deit=deit@*", "--arm", "deit-tw=deit-tw@*")
    assert "doubt" in [metric.name for metric in METRICS]


def test_a_package_that_cannot_be_imported_is_named_and_the_rest_goes_on() -> None:
    result = _run("attack", "--model", "deit", "--attack", "fgsm", *SMALL)
    assert "'broken' comes from the package brings 1.2" in result.stderr
    assert "ZeroDivisionError" in result.stderr


def test_the_catalog_lists_it_with_its_origin_and_refuses_a_built_in_name() -> None:
    listed = json.loads(_run("catalog", "--json").stdout)["plugins"]
    assert len(listed) == 9
    assert {(one["package"], one["version"]) for one in listed} == {("brings", "1.2")}
    assert [one["name"] for one in listed if one["state"]] == ["twicing"]
    assert "AV/2" in _run("catalog", "show", "halved").stdout
    assert _run("attack", "--model", "deit+twicing", "--attack", "fgsm", *SMALL)
    assert set(load_run("run").summary["attention"]) == {"twicing"}


def test_a_model_of_ones_own_code_runs_by_its_place_and_says_which_code_it_was(tmp_path: Path) -> None:
    (tmp_path / "work" / "brought_nets.py").write_text(CODE)
    words = ("attack", "--model", "mine=python:brought_nets:small", "--attack", "fgsm", *SMALL)
    _run(*words[:-2])  # into results/runs
    again = _run(*words)
    run = load_run("run")
    assert run.models == ["mine"]
    assert len(run.manifest.versions["python:brought_nets:small"]) == 12
    assert "taken over" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--model", "deit=python:brought:small"], "is a model already"),
        (["--model", "mine+twicing=python:brought:small"], "brings its own attention"),
        (["--model", "mine=python:brought:SUITE"], "cannot be called"),
        (["--model", "mine=python:brought:missing"], "no attribute 'missing'"),
    ],
)
def test_what_is_no_model_is_refused(arguments: list[str], says: str) -> None:
    result = _run("attack", *arguments, "--attack", "fgsm", *SMALL, exit_code=2)
    assert says in " ".join(result.stderr.split())


# --- files that name code --------------------------------------------------------------------------------------------

PLAN = """
models = ["mine=python:brought_here:small"]
limit = 6
[[attacks]]
names = ["python:brought_here:brighter"]
"""


def test_code_that_a_plan_names_runs_only_if_the_user_says_so(tmp_path: Path) -> None:
    (tmp_path / "work" / "brought_here.py").write_text("raise SystemExit('ran')\n")
    Path("p.toml").write_text(PLAN)
    refused = _run("run", "p.toml", "--quiet", exit_code=2)
    assert "p.toml, line 2" in refused.stderr
    assert "p.toml, line 5" in refused.stderr
    assert "--allow-code" in refused.stderr
    assert "brought_here" not in sys.modules
    (tmp_path / "work" / "brought_here.py").write_text(CODE)
    _run("run", "p.toml", "--quiet", "--allow-code")
    _run("run", "p.toml", "--quiet", exit_code=2)  # it was allowed once, not for good


def test_code_that_a_configuration_file_names_runs_only_if_the_user_says_so(tmp_path: Path) -> None:
    (tmp_path / "work" / "brought_here.py").write_text(CODE)
    Path("twicing-bench.toml").write_text('[models]\nmine = "python:brought_here:small"\n')
    words = ("attack", "--model", "mine", "--attack", "fgsm", *SMALL)
    assert "--allow-code" in _run(*words, exit_code=2).stderr
    assert "brought_here" not in sys.modules
    _run(*words, "--allow-code")


def test_a_protocol_file_cannot_name_code() -> None:
    Path("own.toml").write_text(
        'title = "own"\nsource = "a test"\ndefault_attacks = ["mine"]\n'
        '[rules]\nspace = "pixel"\nclip = true\nlabels = "true"\niterate = "best"\n'
        '[attacks.mine]\nalgorithm = "python"\nfunction = "brought:brighter"\ncode = "x"\n'
    )
    assert (
        "a protocol file cannot"
        in _run("attack", "--model", "deit", "--protocol", "own.toml", *SMALL, exit_code=2).stderr
    )
