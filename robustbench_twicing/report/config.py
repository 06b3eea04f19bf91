"""The page of what is set, and where each value came from."""

from pathlib import Path

from robustbench_twicing.catalog.config import Settings
from robustbench_twicing.report.page import Column, Line, Page, Table

_COLUMNS = (Column("setting", "setting"), Column("value", "value"), Column("from", "from"))


def config_page(found: Settings) -> Page:
    """Every value that can be set, and the files that were looked for."""
    rows, facts = [], []
    for table, entries in found.tables.items():
        for key, (value, origin) in entries.items():
            lost = value is not None and Path(value).is_absolute() and not Path(value).exists()
            text = f"{value or '-'}{' (nothing there)' if lost else ''}"
            rows.append({"setting": f"{table}.{key}", "value": text, "from": origin})
            facts.append({"table": table, "key": key, "value": value, "from": origin})
    files = [
        Line(f"File {path}: {'read' if there else 'not there'}", unbroken=True) for path, there in found.files.items()
    ]
    return Page(
        "Settings",
        (Table("settings", "", _COLUMNS, tuple(rows), framed=False), *files),
        facts={"settings": facts, "files": [{"path": path, "read": there} for path, there in found.files.items()]},
    )
