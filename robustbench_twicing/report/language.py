"""The page of a run over a text: what each language model pays for it, clean and corrupted, and how two differ."""

from collections.abc import Iterator, Sequence

import pandas as pd

from robustbench_twicing.report.notes import state
from robustbench_twicing.report.numbers import count, decimal, interval, signed
from robustbench_twicing.report.page import Column, Line, Page, Row, Sheet, Table
from robustbench_twicing.report.provenance import provenance_table
from robustbench_twicing.report.run import folder_lines, run_names
from robustbench_twicing.results.manifest import Manifest
from robustbench_twicing.results.run import Run
from robustbench_twicing.results.text_comparison import TextComparisons, TextRow
from robustbench_twicing.results.used import ModelUsed
from robustbench_twicing.spec.text import SWAPPED_TO, TEXT_CORRUPTIONS
from robustbench_twicing.spec.threats import CorruptedText

_ABOUT = ("run", "model", "threat", "kind", "suite", "corruption", "severity", "seed", "targets")
_COLUMNS = (
    Column("threat", "threat"),
    Column("model", "model"),
    Column("targets", "targets"),
    Column("n", "documents", "count", "drop"),
    Column("bits_per_byte", "bits/byte", "decimal3"),
    Column("interval", "95 % interval", "decimal3 interval"),
    Column("word_perplexity", "word ppl", "decimal", "drop"),
    Column("token_perplexity", "token ppl", "decimal3", "drop"),
)
_FAILED = Column("failed", "failed", "count")
_COMPARED = (
    Column("threat", "threat"),
    Column("targets", "targets"),
    Column("n", "n", "count", "drop"),
    Column("baseline_bits", "baseline", "decimal3"),
    Column("candidate_bits", "candidate", "decimal3"),
    Column("difference", "difference", "signed decimal4"),
    Column("interval", "95 % interval", "signed decimal4 interval", "drop"),
    Column("p", "p (Holm)", "p", "drop"),
    Column("verdict", "verdict", "prose", tones={"better": "good", "worse": "bad"}),
)

UNTOUCHED = (
    "Targets: all, every predicted token, so that the model also pays for the changed words themselves; untouched, "
    "only those that the corruption left alone: what a corrupted context costs."
)


def language_page(runs: Sequence[Run], found: TextComparisons | None, refused: str = "") -> Page:
    """The tables of runs over texts, how their models differ, and where every number comes from."""
    summary = _summary(runs)
    called = run_names(runs)
    parts = (
        *(Line(line, "note") for run in runs for line in rules(run.manifest)),
        scores_table(summary),
        *(comparison_parts(found) if found else ()),
        *([Line(f"Not compared: {refused}", "warning")] if refused else []),
        *(Line(_model_line(name, model)) for run in runs for name, model in run.manifest.models.items()),
        *(Line(line, "warning") for run in runs for line in _notes(run)),
        *(provenance_table(run, name) for run, name in zip(runs, called, strict=True)),
        *folder_lines(runs),
    )
    return Page(
        f"Run {runs[0].path.name}" if len(runs) == 1 else "Runs " + ", ".join(called),
        tuple(dict.fromkeys(parts)),
        headline=_headline(runs, found),
        facts=_facts(runs, found),
        sheet=Sheet(tuple(_rows(summary)), _ABOUT),
    )


def comparison_page(found: TextComparisons) -> Page:
    """What `compare` says of runs over texts."""
    rows = [{**_row(row), "baseline": row.baseline, "candidate": row.candidate} for row in found.rows]
    facts = {"unit": "arms" if found.of_arms else "checkpoints", "alpha": found.alpha, "rows": rows}
    return Page("Language models on the same documents", comparison_parts(found), facts=facts)


def scores_table(summary: pd.DataFrame) -> Table:
    """Every model under every threat, models next to each other."""
    failed = bool(summary["failed"].any()) if len(summary) else False
    same = summary["tokenizer"].nunique() <= 1
    columns = tuple(column for column in _COLUMNS if same or column.key != "token_perplexity")
    rows = [{**row, "interval": (row["bits_per_byte_low"], row["bits_per_byte_high"])} for row in _rows(summary)]
    place = {(row["threat"], row["targets"]): number for number, row in reversed(list(enumerate(rows)))}
    together = sorted(rows, key=lambda row: place[row["threat"], row["targets"]])
    columns = (*columns[:4], _FAILED, *columns[4:]) if failed else columns
    return Table("scores", "What a text costs", columns, tuple(together), groups=("threat",))


def comparison_parts(found: TextComparisons) -> tuple[Line | Table, ...]:
    """A table for each pair, and what it means."""
    parts: list[Line | Table] = []
    for baseline, candidate in dict.fromkeys((row.baseline, row.candidate) for row in found.rows):
        mine = [row for row in found.rows if (row.baseline, row.candidate) == (baseline, candidate)]
        title = f"{baseline} (baseline) against {candidate}: bits per byte"
        parts.append(Table(f"{baseline} {candidate}", title, _COMPARED, tuple(_row(row) for row in mine)))
    how = (
        "n: training seeds of each arm. Intervals and p: Welch's t over the seeds; the documents are these."
        if found.of_arms
        else "n: documents. Intervals: bootstrap over documents; p: exchanging the two models document by document. "
        "Verdicts are about these weights, not about methods."
    )
    parts.append(Line(f"Fewer bits are better; differences are candidate minus baseline. {how} p is corrected by "
                      f"Holm over {len(found.rows)} row(s); a verdict needs p ≤ {found.alpha:g}.", "note"))  # fmt: skip
    if found.not_compared:
        parts.append(Line("Not compared, " + "; ".join(found.not_compared), "warning"))
    return tuple(parts)


def rules(manifest: Manifest) -> Iterator[str]:
    """What the numbers mean: the window, and what a corruption did."""
    threats = manifest.plan.threats
    window = str(threats[0].columns()["protocol"])
    data = next(iter(manifest.data.values()))
    prefixed = "every token is predicted once, and the first of a text where a token stands before it"
    yield f"text {data.name} ({data.fingerprint}) · windows {window}: {prefixed} · seed {manifest.plan.seed}"
    corrupted = [threat for threat in threats if isinstance(threat, CorruptedText)]
    if corrupted:
        rates = ", ".join(f"{threat}: {100 * rate:g} %" for threat, rate in sorted(
            {(threat.severity, threat.rate) for threat in corrupted}))  # fmt: skip
        yield f"Severities, shares of the eligible words that are hit: {rates}. Eligible: {corrupted[0].eligible}."
        yield UNTOUCHED
    if any(threat.corruption == "fixed-word" for threat in corrupted):
        yield (
            f"Word Swap: {TEXT_CORRUPTIONS['fixed-word'].title}, drawn by (seed, document, word). The papers' rate, "
            f"seed and eligible words are not known, nor whether they count the {SWAPPED_TO} as a target: under `all` "
            "it is one, under `untouched` it is not."
        )


def _model_line(name: str, model: ModelUsed) -> str:
    note = f", {model.weights_note}" if model.weights_note else ""
    return (
        f"{name}: {model.spec.architecture}, {model.attention or 'unknown'} attention, {count(model.parameters)} "
        f"parameters, tokens {model.prepared_as}, {count(model.image_size)} positions, "
        f"weights {model.spec.weights} ({model.weights_hash}{note})"
    )


def _notes(run: Run) -> Iterator[str]:
    kinds = {model.prepared_as for model in run.manifest.models.values()}
    if len(kinds) > 1:
        yield "Token perplexities are left out: the models have different tokenizers. Bits per byte can be compared."
    dropped = [name for name, model in run.manifest.models.items() if model.weights_note.startswith("drop-in")]
    if dropped:
        yield f"{', '.join(dropped)}: weights that were trained with another attention; no result of the method."
    failures = int(run.summary["failed"].sum()) if len(run.summary) else 0
    if failures:
        yield f"{count(failures)} record(s) failed; they are in no sum."


def _headline(runs: Sequence[Run], found: TextComparisons | None) -> Line:
    missing = [said for run in runs if (said := state(run))]
    if missing:
        return Line(" ".join(missing), "warning")
    if found and found.rows:
        return Line(" ".join(_verdict(found, pair) for pair in
                             dict.fromkeys((row.baseline, row.candidate) for row in found.rows)), "strong")  # fmt: skip
    summary = _summary(runs)
    clean = summary[summary["threat"] == "clean"]
    costs = [f"{row['model']}: {decimal(row['bits_per_byte'], 3)} bits per byte." for row in _rows(clean)]
    return Line(" ".join(costs) or "Nothing was scored.", "strong")


def _verdict(found: TextComparisons, pair: tuple[str, str]) -> str:
    rows = [row for row in found.rows if (row.baseline, row.candidate) == pair]
    counts = {word: sum(row.verdict == word for row in rows) for word in ("better", "worse")}
    said = " and ".join(f"{word} in {number}" for word, number in counts.items() if number) or "not told apart in any"
    about = "as trained by this recipe" if found.of_arms else "these weights"
    first = rows[0]
    ends = interval(first.difference.interval, lambda end: signed(end, 4), " to ")
    return (
        f"{pair[1]} is {said} of {len(rows)} comparisons with {pair[0]} (baseline; {about}); {first.threat}: "
        f"{signed(first.difference.value, 4)} bits per byte ({ends})."
    )


def _row(row: TextRow) -> Row:
    found = {**row._asdict(), "difference": row.difference.value, "interval": row.difference.interval, "p": row.p_holm}
    return {key: value for key, value in found.items() if key not in ("baseline", "candidate")}


def _facts(runs: Sequence[Run], found: TextComparisons | None) -> Row:
    facts = [
        {
            "run": run.path,
            "plan_hash": run.manifest.plan_hash,
            "status": run.manifest.status,
            "lacking": [str(lack) for lack in run.lacking],
            "rows": list(_rows(run.summary)),
            **run.manifest.model_dump(mode="json", include={"device", "data", "models"}),
            "threats": run.manifest.plan.model_dump(mode="json")["threats"],
        }
        for run in runs
    ]
    comparison = None
    if found:
        rows = [{**row._asdict(), "difference": row.difference.value, "interval": row.difference.interval,
                 "p": row.difference.p} for row in found.rows]  # fmt: skip
        comparison = {"unit": "arms" if found.of_arms else "checkpoints", "alpha": found.alpha, "rows": rows}
    return {**(facts[0] if len(runs) == 1 else {"runs": facts}), "comparison": comparison}


def _summary(runs: Sequence[Run]) -> pd.DataFrame:
    called = run_names(runs)
    tables = [
        run.summary.assign(
            model=[f"{name} in {here}" if here else name for name in run.summary["model"]], run=run.path.name
        )
        for run, here in zip(runs, called, strict=True)
    ]
    return pd.concat(tables, ignore_index=True) if len(tables) > 1 else tables[0]


def _rows(table: pd.DataFrame) -> Iterator[Row]:
    for row in table.to_dict("records"):
        yield {str(key): value for key, value in row.items()}
