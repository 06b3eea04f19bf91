"""The columns are documented where people look for them."""

from pathlib import Path

from robustbench_twicing.spec import records

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_every_column_of_records_and_summary_is_documented() -> None:
    from robustbench_twicing.results import scored_text, suite_figures, summary

    text = (DOCS / "records.md").read_text()
    rows = [f"| `{c.name}` | {c.type} | {c.holds} |" for c in (*records.COLUMNS, *records.TEXT_COLUMNS)]
    rows += [
        f"| `{c.name}` | {c.holds} |"
        for c in (*summary.COLUMNS, *suite_figures.SUITE_COLUMNS, *scored_text.TEXT_SUMMARY)
    ]
    assert [row for row in rows if row not in text] == []
    assert text.count("\n| `") == len(rows)
    assert f"schema version {records.SCHEMA_VERSION}" in text
