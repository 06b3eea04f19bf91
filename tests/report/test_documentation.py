"""The format that docs/add-a-report-format.md adds works as shown."""

import re
from pathlib import Path
from typing import Any

from robustbench_twicing.report.catalog import entry_page
from robustbench_twicing.report.history import history_page
from robustbench_twicing.results.history import Point, Series

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "add-a-report-format.md").read_text()


def test_the_format_that_is_shown_writes_pages() -> None:
    module: dict[str, Any] = {}
    exec(compile(re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)[0], "listing.py", "exec"), module)
    assert b"Data set digits" in module["write"](entry_page("digits"))
    point = Point("night", "2026-11-23T02:00:00+00:00", "0f3a", "0.1.0", "", 0.85, (0.8, 0.9), 0)
    written = module["write"](history_page([Series("[bold]\x1b[0m", "clean", "digits", 597, (point,))])).decode()
    assert "model [bold]\\x1b[0m; threat clean" in written
    assert "newest % 85.0" in written
