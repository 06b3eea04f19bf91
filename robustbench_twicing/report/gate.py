"""What a gate said: in the terminal, as JUnit XML and as Markdown for a CI page."""

import re
import xml.etree.ElementTree as ET

from rich.console import Console
from rich.table import Table
from rich.text import Text

from robustbench_twicing.report.compare import signed_points
from robustbench_twicing.report.console import percent
from robustbench_twicing.results.baselines import Acceptance
from robustbench_twicing.results.gate import CellResult, GateResult

_STYLES = {"pass": "green", "regressed": "bold red", "inconclusive": "yellow"}
_WIDE = 120
_ORDER = ("regressed", "inconclusive", "pass")


def headline(result: GateResult) -> str:
    """One line: the verdict and how many cells stand behind it."""
    counts = {verdict: sum(cell.verdict == verdict for cell in result.cells) for verdict in _ORDER}
    parts = [f"{count} {'passed' if verdict == 'pass' else verdict}" for verdict, count in counts.items() if count]
    parts += [f"{len(names)} {what}" for what, names in (("new", result.new), ("vanished", result.vanished)) if names]
    return f"{result.verdict.upper()}: {', '.join(parts)}"


def baseline_line(accepted: Acceptance) -> str:
    """Who accepted the baseline, when and why."""
    return f"Baseline accepted by {accepted.who} on {accepted.when}: {accepted.why} (run {accepted.run})"


def print_gate(console: Console, result: GateResult, baseline: str) -> None:
    """The verdict, with every cell and its reason, the worst first. `baseline` is `baseline_line`'s."""
    table = Table(title="Run against baseline, on the same samples", title_justify="left")
    for name in ("model", "threat", "verdict"):
        table.add_column(name, no_wrap=name == "verdict", overflow="fold")
    wide = console.width >= _WIDE
    for name in ("before %", "now %", "difference") if wide else ():  # the reason has the difference too
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("reason")
    for cell in _worst_first(result):
        verdict = Text(cell.verdict, style=_STYLES[cell.verdict])
        table.add_row(cell.model, cell.threat, verdict, *(_numbers(cell) if wide else ()), cell.reason)
    console.print(Text(baseline, style="dim"))
    console.print(table)
    for line in _strangers(result):
        console.print(Text(line, style="yellow"))
    console.print(Text(headline(result), style=_STYLES[result.verdict]))


def junit(result: GateResult, suite: str) -> bytes:
    """JUnit XML: a test case for each cell. Regressed is a failure; inconclusive and vanished are errors."""
    cells: list[tuple[str, str, str, str]] = []
    cells += [(cell.model, cell.threat, cell.verdict, cell.reason) for cell in _worst_first(result)]
    for name in result.vanished:
        model, _, threat = name.partition(":")
        cells.append((model, threat, "inconclusive", "vanished: the baseline has this cell, the run has not"))
    tags = {"regressed": "failure", "inconclusive": "error"}
    counts = {tag: str(sum(verdict == name for _, _, verdict, _ in cells)) for name, tag in tags.items()}
    attributes = {"name": suite, "tests": str(len(cells)), "failures": counts["failure"], "errors": counts["error"]}
    root = ET.Element("testsuites")
    listed = ET.SubElement(root, "testsuite", {key: _legal(value) for key, value in attributes.items()})
    for model, threat, verdict, reason in cells:
        case = ET.SubElement(listed, "testcase", {"classname": _legal(model), "name": _legal(threat)})
        if verdict in tags:
            found = ET.SubElement(case, tags[verdict], {"type": verdict, "message": _legal(reason)})
            found.text = _legal(reason)
        else:
            ET.SubElement(case, "system-out").text = _legal(reason)
    ET.indent(root)
    content: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n"
    return content


def markdown(result: GateResult, baseline: Acceptance, run: str) -> str:
    """A summary for a CI page. Cells that pass are folded away."""
    lines = [f"## {headline(result)}", "", f"Run `{run}`. {_plain(baseline_line(baseline))}", ""]
    loud = [cell for cell in _worst_first(result) if cell.verdict != "pass"]
    quiet = [cell for cell in result.cells if cell.verdict == "pass"]
    if loud:
        lines += [*_rows(loud), ""]
    lines += [f"- {_plain(line)}" for line in _strangers(result)]
    if quiet:
        lines += ["", f"<details><summary>{len(quiet)} cell(s) passed</summary>", "", *_rows(quiet), "", "</details>"]
    return "\n".join(lines) + "\n"


def _rows(cells: list[CellResult]) -> list[str]:
    header = "| model | threat | verdict | before % | now % | difference | reason |"
    rows = [(cell.model, cell.threat, cell.verdict, *_numbers(cell), cell.reason) for cell in cells]
    return [
        header,
        "| --- | --- | --- | ---: | ---: | ---: | --- |",
        *("| " + " | ".join(map(_plain, row)) + " |" for row in rows),
    ]


def _numbers(cell: CellResult) -> tuple[str, str, str]:
    if cell.outcome is None or cell.baseline_accuracy is None or cell.accuracy is None:
        return "-", "-", "-"
    return percent(cell.baseline_accuracy), percent(cell.accuracy), signed_points(cell.outcome.difference)


def _strangers(result: GateResult) -> list[str]:
    lines = []
    if result.vanished:
        lines.append("Vanished, in the baseline but not in this run: " + ", ".join(result.vanished))
    if result.new:
        lines.append("New, not in the baseline, so that only floors count: " + ", ".join(result.new))
    return lines


def _worst_first(result: GateResult) -> list[CellResult]:
    return sorted(result.cells, key=lambda cell: _ORDER.index(cell.verdict))


def _plain(text: str) -> str:
    """Text that cannot break a Markdown table or open a tag."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")
    return re.sub(r"\s+", " ", escaped)


def _legal(text: str) -> str:
    """Without the characters that XML 1.0 has no way to write."""
    return re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)
