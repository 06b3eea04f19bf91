"""Every page in every format, with names that want to be something else: nothing is eaten, nothing gets out."""

import csv
import io
import json
import re
import unicodedata
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from io import BytesIO, TextIOWrapper
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.cells import cell_len
from rich.console import Console

from robustbench_twicing.catalog.config import Setting, Settings, settings
from robustbench_twicing.catalog.plans import read_plan
from robustbench_twicing.data.check import Finding, Report, Row
from robustbench_twicing.errors import UserError
from robustbench_twicing.metrics.intervals import Estimate, Interval
from robustbench_twicing.report.arms import arms_page
from robustbench_twicing.report.baseline import baseline_page
from robustbench_twicing.report.catalog import catalog_page, entry_page
from robustbench_twicing.report.compare import compare_page
from robustbench_twicing.report.config import config_page
from robustbench_twicing.report.data import check_page, differences_page
from robustbench_twicing.report.estimate import estimate_page
from robustbench_twicing.report.formats import FORMATS, terminal
from robustbench_twicing.report.gate import Sides, gate_page
from robustbench_twicing.report.history import history_page
from robustbench_twicing.report.leftovers import holdings_page, pruned_page
from robustbench_twicing.report.page import Line, Page
from robustbench_twicing.report.plan import plan_page
from robustbench_twicing.report.published import published_page
from robustbench_twicing.report.run import run_page
from robustbench_twicing.report.text import visible
from robustbench_twicing.results.arm_comparison import ArmComparisons, compare_all
from robustbench_twicing.results.arms import arms_of
from robustbench_twicing.results.baselines import Acceptance, Baseline, BaselineManifest
from robustbench_twicing.results.cells import by_cell
from robustbench_twicing.results.comparison import Comparisons, compare_sides
from robustbench_twicing.results.comparison import Row as Compared
from robustbench_twicing.results.gate import GateResult, check
from robustbench_twicing.results.history import Point, Series
from robustbench_twicing.results.leftovers import Holding
from robustbench_twicing.results.manifest import Manifest
from robustbench_twicing.results.run import Run, load_run
from robustbench_twicing.results.suite_comparison import SuiteFigure
from robustbench_twicing.results.used import Check, Verification
from robustbench_twicing.runner.estimate import CellCost, Cost
from robustbench_twicing.spec.policy import Policy
from tests.records_builder import cell, run_folder, side, with_flips
from tests.report.shown import printed

HOSTILE = {
    "markup": "[bold]",
    "closing": "[/bold red]",
    "suite": "clean[imagenet-a]",
    "table": "[gate]",
    "emoji-code": ":smile:",
    "ansi": "\x1b[2J\x1b[31mred\x1b[0m",
    "c1": "\x9b31m",
    "title": "\x1b]0;owned\x07",
    "formula": "=cmd|'/c calc'!A1",
    "html": "<script>alert('&')</script>",
    "pipe": "a|b\\|c",
    "lines": "one\ntwo\r\tthree",
    "emoji": "👩\u200d💻🇩🇪👍🏽",
    "hebrew": "שלום",
    "turned": "\u202egnp.exe",
    "surrogate": "caf\udce9",
    "long": "x" * 200,
    "words": "long-name_" * 20,
    "wide": "漢字" * 50,
    "mark": "e\u0301" * 30,
}

BEFORE, AFTER = with_flips(60, right=40, lost=9, gained=12)


@cache
def _compared() -> Comparisons:
    """Two models under an attack and a shift, some samples failed, and a suite of corruptions."""
    attack = {"kind": "attack", "attack": "pgd", "protocol": "standard", "eps": "4/255"}
    sides = []
    for model, right in (("one", BEFORE), ("other", AFTER)):
        cells = [cell(model, "clean", right), cell(model, "pgd-linf-4/255", right, **attack)]
        cells.append(cell(model, "imagenet-r", right, status=np.where(np.arange(60) < 3, "failed", "ok")))
        frame = pd.concat(cells, ignore_index=True)
        sides.append(side(frame, model))
    names = {"baseline": "one", "candidate": "other", "suite": "suite", "denominator": "AlexNet"}
    common = {**names, "unit": "%", "scale": 1, "better": "lower", "n": 50_000, "images": 50_000}
    common |= {"baseline_value": 105.3, "candidate_value": 103.8}
    changes = {"mean error": 1.5, "mCE": -1.5, "relative mCE": -1.5}  # of two orders, which a line explains
    means = (
        SuiteFigure(**common, figure=figure, difference=Estimate(change, Interval(change - 2, change + 2)))
        for figure, change in changes.items()
    )
    return replace(compare_sides([(sides[0], sides[1])]), suites=tuple(means))


def _renamed(row: Compared, name: str, models: dict[str, str]) -> Compared:
    """The row with the name in every place."""
    made = replace(row, **models, threat=name)
    made.__dict__["changed"] = row.changed.assign(sample_id=_storable(name))
    return made


def _compare(name: str) -> Page:
    """The comparison with the name in every place that has one."""
    found, models = _compared(), {"baseline": name, "candidate": f"{name}2"}
    rows = [_renamed(row, name, models) for row in found.rows]
    curves = tuple(replace(curve, **models, attack=name) for curve in found.curves)
    suites = tuple(replace(mean, **models, suite=name, denominator=name) for mean in found.suites)
    return compare_page(
        replace(found, rows=tuple(rows), curves=curves, suites=suites, not_compared=(name,)), flips=True
    )


@cache
def _of_arms() -> ArmComparisons:
    """Arms that do not say what trained them, with a failed sample."""
    frame = pd.concat([cell(f"{arm}@s{seed}", "clean", BEFORE) for arm in ("one", "tw") for seed in range(3)])
    frame.iloc[0, frame.columns.get_loc("status")] = "failed"
    return compare_all(arms_of(by_cell(frame), {"one": ["one@*"], "tw": ["tw@*"]}))


def _arms(name: str) -> Page:
    """The comparison of arms with the name in every place that has one."""
    found = _of_arms()
    named = {"baseline": name, "candidate": f"{name}2", "threat": name}
    seeds = {name: 0.5, f"{name}@s1": 0.6, f"{name}@s2": 0.7}
    rows = [replace(r, **named, baseline_accuracies=seeds, candidate_accuracies=seeds) for r in found.rows]
    arms = tuple(replace(arm, name=name, models=tuple(seeds)) for arm in found.arms)
    return arms_page(replace(found, arms=arms, rows=tuple(rows)), 0.01)


def _storable(name: str) -> str:
    """As a data frame can hold it: without halves of surrogate pairs."""
    return name.encode("utf-8", "backslashreplace").decode()


def _signed(name: str) -> Acceptance:
    when, name = "2026-11-20T02:00:00+00:00", _storable(name)
    return Acceptance(who=name, when=when, why=name, run=name, run_started=when, weights={})


@cache
def _judged() -> GateResult:
    """A cell that regressed, one that passed, one that is new and one that vanished."""
    worse, same = with_flips(60, right=50, lost=30, gained=0)
    baseline = [cell("m", "pgd", worse), cell("m", "same", worse), cell("m", "gone", worse)]
    now = [cell("m", "pgd", same), cell("m", "same", worse), cell("m", "new", worse)]
    return check(by_cell(pd.concat(now)), by_cell(pd.concat(baseline)), Policy(tolerance=0.1))


def _gate(name: str) -> Page:
    """The verdicts with the name in every place that has one."""
    found = _judged()
    cells = tuple(replace(cell, model=name, threat=name, reason=f"{cell.reason} {name}") for cell in found.cells)
    found = replace(found, cells=cells, new=(f"m:{name}",), vanished=(f"{name}:clean",))
    return gate_page(found, Sides(name, name, _signed(name)))


def _history(name: str) -> Page:
    points = tuple(Point(name, "2026-11-23T02:00:00", name, name, name, value, (0.8, 0.9), 0) for value in (0.8, 0.9))
    return history_page([Series(name, name, name, 50_000, points)])


def _estimate(name: str) -> Page:
    counts: dict[str, Any] = {"samples": 50_000, "left": 50_000, "forwards": 5_050_000, "backwards": None}
    cells = (CellCost(model=name, threat=name, seconds=7200.0, **counts),)
    return estimate_page(Cost(cells=cells, loading_seconds=3.0, size=10**10, free=10**7), name)


def _holdings(name: str) -> list[Holding]:
    return [Holding(Path("runs") / name.replace("/", "-"), name, 3, 10**6, (Path("stray"),), 10**5)]


def _baseline(name: str) -> Page:
    signed = _signed(name)
    manifest = BaselineManifest.model_construct(
        accepted=signed,
        earlier=(signed,),
        records=1,
        sha256="0",
        made_by=name,
        run=Manifest.model_construct(origin="run"),
    )
    return baseline_page(Baseline(Path(name), manifest, pd.DataFrame()))


def _config(name: str) -> Page:
    return config_page(
        Settings({"data": {name: Setting(name, name), "other": Setting(None, "not set")}}, {Path(name): True})
    )


def _plan(name: str) -> Page:
    return plan_page(replace(read_plan("nightly", settings()), name=name, title=name), name)


def _differences(name: str) -> Page:
    row = {
        "corruption": _storable(name),
        "severity": 3,
        "model": _storable(name),
        "n": 50_000,
        "official": 0.7,
        "generated": 0.71,
    }
    return differences_page(pd.DataFrame([row | {"difference": 0.01, "low": -0.01, "high": 0.03}]), name)


def _check(name: str) -> Page:
    finding = Finding("error", name, f"image cannot be used: {name}", (name,))
    return check_page(Report(name, name, False, (Row(name, 1000, 1000, 49_999, 50_000),), (finding,)))


def _published(name: str) -> Page:
    check = Check(
        dataset=name,
        published=0.8,
        conditions=name,
        measured=None,
        low=0.0,
        high=1.0,
        verdict="outside",
        n=10,
        failed=2,
        images=50_000,
        cause=name,
    )
    found = Verification(
        model=name, published_model=name, rule=name, checks=(check,), not_checked={name: name}, tried=(name,)
    )
    return published_page(found, Line(name), name)


@cache
def _ran() -> Run:
    """A run with an attack, a suite of corruptions of which one image failed, and a shift."""
    attack = {"kind": "attack", "attack": "pgd", "protocol": "standard", "eps": "4/255"}
    threats = {"clean": {}, "pgd-linf-4/255": attack, "digits-c:fog-1": {}, "digits-c:fog-3": {}}
    cells = [cell("m", threat, BEFORE, **columns) for threat, columns in threats.items()]
    cells[-1].loc[0, ["status", "error", "correct", "prediction"]] = ["failed", "gone", False, -1]
    with TemporaryDirectory() as place:
        return load_run(run_folder(Path(place) / "run", pd.concat(cells, ignore_index=True)))


def _run(name: str) -> Page:
    """The run with the name in every place that has one."""
    found, stored = _ran(), _storable(name)
    (model,), data = found.manifest.models.values(), next(iter(found.manifest.data.values()))
    corrupted = found.summary["kind"] == "corruption"
    summary = found.summary.assign(model=stored, threat=stored)
    summary.loc[corrupted, ["suite", "corruption"]] = stored
    suites = found.suites.assign(model=stored, suite=stored, note=stored, mce=1.0, denominator=stored)
    data = {stored: data.model_copy(update={"samples": 50_000, "warnings": (name,)})}
    manifest = found.manifest.model_copy(update={"models": {name: model}, "data": data})
    renamed = replace(found, path=Path(name), manifest=manifest)
    vars(renamed).update(summary=summary, suites=suites)  # instead of those that its records have
    return run_page(renamed)


PAGES: dict[str, Callable[[str], Page]] = {
    "compare": _compare,
    "arms": _arms,
    "run": _run,
    "gate": _gate,
    "history": _history,
    "estimate": _estimate,
    "cache": lambda name: holdings_page(_holdings(name), Path("runs")),
    "pruned": lambda name: pruned_page(_holdings(name), [name]),
    "baseline": _baseline,
    "config": _config,
    "plan": _plan,
    "differences": _differences,
    "check": _check,
    "published": _published,
    "catalog": lambda name: catalog_page(),
    "entry": lambda name: entry_page("deit"),
}
NAMED = sorted(set(PAGES) - {"catalog", "entry"})
"""Pages that say names from outside."""


JUDGING = ("gate", "check", "published")
"""Pages that pass a verdict."""


@cache
def _made(page: str, kind: str) -> Page:
    return PAGES[page](HOSTILE[kind])


def _width_allowed(page: Page, width: int) -> int:
    """Lines that end in a path are never broken."""
    unbroken = [line for line in page.parts if isinstance(line, Line) and line.unbroken]
    return max([width, *(cell_len(visible(line.text)) for line in unbroken)])


def _unfolded(text: str) -> str:
    """Without breaks and spaces, the columns of a table one after the other: a folded name is whole again."""
    whole, rows = [], []
    for line in [*text.replace("┃", "│").split("\n"), ""]:
        if line.startswith("│"):
            rows.append(line.split("│"))
            continue
        whole += ["".join(column) for column in zip(*rows, strict=True)]
        rows = []
        whole.append(line)
    return "".join("".join(whole).split())


def _unprintable(text: str) -> set[str]:
    return {char for char in text if unicodedata.category(char) in ("Cc", "Cf", "Cs")} - {"\n"}


@pytest.mark.parametrize("page", sorted(PAGES))
def test_the_terminal_shows_every_name_whole_and_obeys_none(page: str) -> None:
    for kind, name in HOSTILE.items():
        made = _made(page, kind)
        for width in (80, 200):
            text = printed(made, width)
            assert not _unprintable(text), kind
            assert max(map(cell_len, text.split("\n"))) <= _width_allowed(made, width), kind
            assert page not in NAMED or "".join(visible(name).split()) in _unfolded(text), kind


@pytest.mark.parametrize("page", sorted(PAGES))
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_an_encoding_that_lacks_signs_gets_look_alikes(page: str, encoding: str) -> None:
    for kind in HOSTILE:
        raw = BytesIO()
        file = TextIOWrapper(raw, encoding=encoding)  # no error handler that would hide what went past `visible`
        terminal.show(_made(page, kind), Console(width=80, file=file))
        file.flush()
        lines = raw.getvalue().decode(encoding).split("\n")
        framed = [line for line in lines if line[:1] in ("|", "+")]
        assert max(map(len, framed), default=0) <= 80, kind


def _texts(content: Any) -> Iterator[str]:
    """Every text within JSON, the keys too."""
    match content:
        case dict():
            yield from content
            for inside in content.values():
                yield from _texts(inside)
        case list():
            for inside in content:
                yield from _texts(inside)
        case str():
            yield content


@pytest.mark.parametrize("page", sorted(PAGES))
def test_machines_read_every_name_as_it_is(page: str) -> None:
    for kind, name in HOSTILE.items():
        content = FORMATS["json"].write(_made(page, kind))
        assert content.isascii(), kind
        assert not _unprintable(content.decode()), kind
        assert page not in NAMED or {name, _storable(name)} & set(_texts(json.loads(content))), kind


@pytest.mark.parametrize("page", sorted(PAGES))
def test_markdown_is_neither_broken_nor_marked_up_by_a_name(page: str) -> None:
    for kind in HOSTILE:
        text = FORMATS["markdown"].write(_made(page, kind)).decode()
        bare = re.sub(r"\\(.)", "", text).replace("**", "")  # without what is escaped, and titles' own weight
        assert not _unprintable(text), kind
        assert not set(bare) & set("[]`*_"), kind
        assert "<script" not in bare, kind
        for table in re.findall(r"(?:^\|.*\n)+", bare, flags=re.MULTILINE):
            assert len({line.count("|") for line in table.splitlines()}) == 1, kind


@pytest.mark.parametrize("page", sorted(PAGES))
def test_html_shows_every_name_as_text_and_has_one_script(page: str) -> None:
    for kind, name in HOSTILE.items():
        read = _Html()
        read.feed(FORMATS["html"].write(_made(page, kind)).decode())
        assert read.tags.count("script") == 1, kind
        assert not set(read.tags) - TAGS, kind
        assert not [key for key in read.attributes if key.startswith("on") or key in ("src", "srcset")], kind
        assert not _unprintable("".join(read.texts)), kind
        assert page not in NAMED or visible(name) in "\n".join(read.texts), kind


TAGS = {
    *(
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "main",
        "h1",
        "p",
        "nav",
        "ul",
        "li",
        "a",
        "details",
        "summary",
    ),
    *("section", "div", "table", "caption", "thead", "tbody", "tr", "th", "td", "figure", "figcaption", "svg"),
    *("line", "text", "g", "polygon", "polyline", "circle", "rect", "path", "script"),
}


class _Html(HTMLParser):
    """Tags, attributes and texts of a page, but for its style and script."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: dict[str, str | None] = {}
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= dict(attrs)

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] not in ("style", "script"):
            self.texts.append(data)


@pytest.mark.parametrize("page", sorted(PAGES))
def test_latex_reads_no_name_as_a_command(page: str) -> None:
    for kind in HOSTILE:
        text = FORMATS["latex"].write(_made(page, kind)).decode()
        body = text.partition("\\begin{document}")[2]
        bare = re.sub(r"\\[&%$#_{}]", "", body)  # without what is escaped
        assert text.encode("latin-1"), kind  # letters that LaTeX's fonts have
        assert not set(re.findall(r"\\([a-zA-Z]+)", bare)) - COMMANDS, kind
        assert bare.count("{") == bare.count("}"), kind
        for table in re.findall(r"\\toprule\n(.*?)\\bottomrule", bare, flags=re.DOTALL):
            assert len({line.count("&") for line in table.splitlines() if line.endswith(r"\\")}) == 1, kind


COMMANDS = {
    *("begin", "end", "centering", "small", "raggedright", "caption", "toprule", "midrule", "bottomrule", "endhead"),
    *("addlinespace", "textbf", "textbackslash", "textasciitilde", "textasciicircum", "infty", "leq", "geq"),
    *("rightarrow", "times", "pm", "cdot"),
}


@pytest.mark.parametrize("page", sorted(PAGES))
@pytest.mark.parametrize("form", ["csv", "long-csv"])
def test_a_spreadsheet_computes_no_name(page: str, form: str) -> None:
    for kind in HOSTILE:
        head, *rows = csv.reader(io.StringIO(FORMATS[form].write(_made(page, kind)).decode(), newline=""))
        assert all(len(row) == len(head) for row in rows), kind
        for value in (value for row in rows for value in row):
            assert not value.startswith(("=", "+", "@", "\t", "\r")), kind
            assert not value.startswith("-") or float(value) <= 0, kind
            assert not _unprintable(value), kind


@pytest.mark.parametrize("page", JUDGING)
def test_junit_is_xml_with_any_name(page: str) -> None:
    for kind in HOSTILE:
        suite = ET.fromstring(FORMATS["junit"].write(_made(page, kind))).find("testsuite")
        assert suite is not None
        assert int(suite.get("tests", "")) == len(suite) > 0, kind


@pytest.mark.parametrize("page", sorted(PAGES))
@pytest.mark.parametrize("name", sorted(FORMATS))
def test_every_format_writes_every_page_or_says_why_not(page: str, name: str) -> None:
    if name == "junit" and page not in JUDGING:
        with pytest.raises(UserError, match="Nothing is judged"):
            FORMATS[name].write(_made(page, "table"))
    else:
        assert FORMATS[name].write(_made(page, "table")).endswith(b"\n")
