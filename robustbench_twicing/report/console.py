"""Tables and progress in the terminal."""

import time
from collections.abc import Mapping, Sequence
from types import TracebackType

import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from robustbench_twicing.results.manifest import Manifest, ModelUsed
from robustbench_twicing.spec.plan import Cell
from robustbench_twicing.spec.threats import AttackThreat, pixel_equivalent

_WARNINGS = 3
"""Folders that are not complete, named one by one."""


def percent(value: float) -> str:
    """A fraction as a percentage with one decimal; `-` if there is none."""
    return "-" if pd.isna(value) else f"{100 * value:.1f}"


def points(value: float) -> str:
    """A difference of fractions in percentage points, signed; `-` if there is none."""
    return "-" if pd.isna(value) else f"{round(100 * value, 1) + 0.0:+.1f}"  # no minus before a zero


def threat_model(manifest: Manifest) -> str:
    """One line that says what the attacked numbers mean: space, norm, eps, labels, iterate, steps, seed, device."""
    threats = manifest.attacks
    parts = []
    if threats:
        first, rules = threats[0], threats[0].rules
        pixels, normalised = "pixel space [0, 1]", "normalised space (eps in units of the channel's std)"
        norms = {"Linf": "L∞", "L2": "L2"}
        norm = "/".join(dict.fromkeys(norms[threat.settings.norm] for threat in threats))
        eps = ", ".join(dict.fromkeys(str(threat.eps) for threat in threats))
        best = "best iterate (robust = right on clean and never fooled)"
        parts += [
            f"protocol {first.protocol}",
            pixels if rules.space == "pixel" else normalised,
            f"{norm} ≤ {eps}",
            "clipped" if rules.clip else "not clipped",
            f"{rules.labels} labels",
            best if rules.iterate == "best" else "last iterate",
            ", ".join(dict.fromkeys(f"{threat.attack} {threat.settings.schedule}" for threat in threats)),
        ]
        if first.precision != manifest.precision:
            parts.append(f"crafted in {first.precision}, judged in {manifest.precision}")
        if first.source:
            parts.append(f"made on {first.source.name}")
    parts += [f"seed {manifest.plan.seed}", f"{manifest.device.type}, {manifest.precision}"]
    return " · ".join(parts)


def model_line(name: str, model: ModelUsed) -> str:
    """What stands behind a model name: architecture, attention, parameter count, weights."""
    attention = _attention(model.attention, model.blocks)
    read = f", {model.weights_note}" if model.weights_note else ""
    return (
        f"{name}: {model.spec.architecture}, {attention}, {model.parameters:,} parameters, "
        f"weights {model.spec.weights} ({model.weights_hash}{read})"
    )


def _attention(text: str, blocks: int) -> str:
    """A card's attention in words."""
    if not text:
        return "attention unknown"  # a ResNet, or a module of one's own
    if "@" not in text:
        return f"{text} attention" + ("" if text == "softmax" else f" in all {blocks} blocks")
    parts = [part.partition("@") for part in text.split("+")]
    named = " and ".join(f"{method} attention in blocks {layers}" for method, _, layers in parts)
    return f"{named} of 0-{blocks - 1}"


def accuracy_table(summary: pd.DataFrame, data: str) -> Table:
    """Accuracy of every model under every threat, models next to each other under each threat."""
    table = Table(title=f"Accuracy on {data}", title_justify="left")
    table.add_column("threat", overflow="fold")  # folded in a narrow terminal; numbers never are
    table.add_column("model", overflow="fold", style="bold")
    failed = bool(summary["failed"].sum())
    rounded = not (summary["accuracy"] == summary["accuracy_8bit"])[summary["accuracy"].notna()].all()
    extra = ["8-bit %"] if rounded else []
    for name in ("n", *(["failed"] if failed else []), "top-1 %", "95 % interval", "drop", *extra):
        table.add_column(name, justify="right", no_wrap=True)
    for threat, rows in summary.groupby("threat", sort=False):
        table.add_section()
        for position, (_, row) in enumerate(rows.iterrows()):
            table.add_row(
                str(threat) if position == 0 else "",
                row["model"],
                str(row["n"]),
                *([str(row["failed"])] if failed else []),
                percent(row["accuracy"]),
                f"{percent(row['ci_low'])} - {percent(row['ci_high'])}",
                "" if row["kind"] == "clean" else points(row["drop"]),
                *([percent(row["accuracy_8bit"])] if rounded else []),
            )
    return table


def corruption_table(summary: pd.DataFrame, suite: str) -> Table:
    """Accuracy by corruption and severity, models next to each other under each corruption."""
    here = summary[summary["suite"] == suite]
    severities = sorted(here["severity"].unique())
    table = Table(title=f"Accuracy on {suite}, %, by severity", title_justify="left")
    table.add_column("corruption", overflow="fold")
    table.add_column("model", overflow="fold", style="bold")
    for name in (*(str(severity) for severity in severities), "mean"):
        table.add_column(name, justify="right", no_wrap=True)
    for corruption, rows in here.groupby("corruption", sort=False):
        table.add_section()
        for position, (model, cells) in enumerate(rows.groupby("model", sort=False)):
            by_severity = cells.set_index("severity")["accuracy"]
            table.add_row(
                str(corruption) if position == 0 else "",
                str(model),
                *(percent(by_severity.get(severity, float("nan"))) for severity in severities),
                percent(by_severity.mean()),
            )
    return table


_SUITE_FIGURES = {
    "mean_error": ("mean error %", 100),
    "mce": ("mCE %", 1),
    "relative_mce": ("rel. mCE %", 1),
    "ece": ("ECE", None),
    "rms_calibration_error": ("RMS CE", None),
    "aurra": ("AURRA", None),
    "auroc": ("AUROC", None),
    "aupr": ("AUPR", None),
    "fpr95": ("FPR95", None),
}


def suites_table(suites: pd.DataFrame) -> Table:
    """The figures over whole suites; only columns that hold something."""
    table = Table(title="Whole suites", title_justify="left")
    for name in ("suite", "model"):
        table.add_column(name, overflow="fold")
    figures = {name: head for name, head in _SUITE_FIGURES.items() if suites[name].notna().any()}
    for title, _ in figures.values():
        table.add_column(title, justify="right")
    for _, row in suites.iterrows():
        cells = []
        for name, (_, scale) in figures.items():
            value = float(row[name])
            cells.append("-" if pd.isna(value) else f"{value:.3f}" if scale is None else f"{scale * value:.2f}")
        table.add_row(row["suite"], row["model"], *cells)
    return table


def print_run(console: Console, manifest: Manifest, summary: pd.DataFrame, suites: pd.DataFrame, folder: str) -> None:
    """The whole report of a run: threat model, tables, models, notes, folder."""
    console.print(Text(threat_model(manifest), style="dim"))
    corruptions = summary["kind"] == "corruption"
    console.print(accuracy_table(summary[~corruptions], manifest.plan.data.name))
    for suite in summary.loc[corruptions, "suite"].unique():
        console.print(corruption_table(summary, suite))
    if len(suites):
        console.print(suites_table(suites))
    for name, model in manifest.models.items():
        console.print(Text(model_line(name, model)))
    for note in notes(manifest, summary, suites):
        console.print(Text(note, style="yellow"))
    console.print(Text(f"Run folder: {folder}"), soft_wrap=True)


def notes(manifest: Manifest, summary: pd.DataFrame, suites: pd.DataFrame) -> list[str]:
    """What a reader of the table must know and might overlook."""
    found = []
    smaller: dict[tuple[int, int], list[str]] = {}
    for threat, rows in summary.groupby("threat", sort=False):
        samples = int((rows["n"] + rows["failed"]).max())
        available = manifest.data[str(threat)].samples
        if samples < available:
            smaller.setdefault((samples, available), []).append(str(threat))
    for (samples, available), threats in smaller.items():
        which = "All threats" if len(threats) == summary["threat"].nunique() else ", ".join(threats)
        found.append(
            f"{which}: {samples} of {available} samples, drop from the clean run on the same ones (see --limit)."
        )
    for precision, rows in summary[summary["rejected"].notna()].groupby("precision"):
        each = ", ".join(f"{r['threat']} on {r['model']} {percent(r['rejected'])} %" for _, r in rows.iterrows())
        where = "the compiled model" if precision == "float32" else str(precision)
        found.append(
            f"Successes in {where} that float32 did not confirm: {each}. Those samples were attacked in float32."
        )
    if any(threat.eight_bit for threat in manifest.attacks) and (summary["accuracy"].equals(summary["accuracy_8bit"])):
        found.append("Rounding the attacked images to 8 bits changes no accuracy.")
    warnings = list(dict.fromkeys(w for part in manifest.data.values() for w in part.warnings))
    found += [f"Not the complete suite: {warning}." for warning in warnings[:_WARNINGS]]
    if len(warnings) > _WARNINGS:
        found.append(f"And {len(warnings) - _WARNINGS} more of these; `twicing-bench data check` lists them.")
    found += [_in_pixels(name, model.std, manifest) for name, model in manifest.models.items() if _normalized(manifest)]
    generated = {t.suite for t in manifest.plan.threats if t.kind == "corruption" and t.generated}
    found += [f"{suite}: corruptions computed in memory; not comparable with published files." for suite in generated]
    for denominator, rows in suites[suites["mce"].notna()].groupby("denominator"):
        found.append(f"mCE of {', '.join(rows['suite'].unique())} is relative to {denominator}.")
    found += [
        f"{suite}: {note}"
        for suite, note in suites.loc[suites["note"] != "", ["suite", "note"]].drop_duplicates().values
    ]
    if summary["kind"].eq("attack").any() and not manifest.means.preflight.ran:
        found.append("The preflight check was off: nothing looked at whether attacks on these models can work.")
    if not summary["kind"].eq("clean").any() and not suites.empty:
        found.append(
            "No clean run: name the clean data set with --data-dir imagenet=DIR to get drops and relative mCE."
        )
    failures = int(summary["failed"].sum())
    if failures:
        found.append(f"{failures} record(s) failed; they count neither as right nor as wrong.")
    return found


def _normalized(manifest: Manifest) -> list[AttackThreat]:
    return [threat for threat in manifest.attacks if threat.rules.space == "normalized"]


def _in_pixels(model: str, std: Sequence[float], manifest: Manifest) -> str:
    """What an eps in normalised units means in pixels, for one model."""
    sizes = {str(t.eps): [255 * size for size in pixel_equivalent(t, std)] for t in _normalized(manifest)}
    parts = [f"{eps} is {min(size):.3g} to {max(size):.3g} / 255" for eps, size in sizes.items()]
    return f"{model}: in pixels, eps {', '.join(parts)}, by channel."


class CellProgress:
    """Follows the cells of a run: bars with the time left in a terminal, a plain line per finished cell elsewhere."""

    def __init__(self, console: Console, to_do: Mapping[Cell, tuple[int, int]], quiet: bool) -> None:
        self._quiet = quiet
        self._console = console
        self._began = time.monotonic()
        self._left = {cell: left for cell, (left, _) in to_do.items()}
        self._bars: Progress | None = None
        self._tasks: dict[Cell, TaskID] = {}
        self._total: TaskID | None = None
        if quiet or not any(self._left.values()):
            return
        if not console.is_terminal:
            return
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._total = self._bars.add_task("all", total=sum(self._left.values()))

    def __enter__(self) -> "CellProgress":  # noqa: PYI034 - beartype cannot check Self here
        if self._bars:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars:
            self._bars.stop()

    def advance(self, cell: Cell, evaluations: int) -> None:
        """Some evaluations of a cell are done."""
        if self._bars is None or self._total is None:
            return
        if cell not in self._tasks:
            self._tasks[cell] = self._bars.add_task(f"{cell.model.name} {cell.threat.id}", total=self._left[cell])
        self._bars.advance(self._tasks[cell], evaluations)
        self._bars.advance(self._total, evaluations)

    def say(self, remark: str) -> None:
        """Above the bars; also when progress is not wanted."""
        self._console.print(remark, style="yellow", markup=False, highlight=False, soft_wrap=True)

    def finish(self, cell: Cell) -> None:
        """A cell is whole."""
        if self._bars is not None and cell in self._tasks:
            self._bars.remove_task(self._tasks.pop(cell))
        if not self._quiet and self._bars is None:
            elapsed = time.monotonic() - self._began
            self._console.print(
                f"{cell.model.name} {cell.threat.id}: done after {elapsed:.0f} s", markup=False, highlight=False
            )
