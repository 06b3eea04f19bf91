"""The HTML report in a real browser: it sorts, asks nobody for anything, and fits into a narrow window."""

import json
import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from robustbench_twicing.report.formats import FORMATS
from tests.report.test_every_format import made

pytestmark = pytest.mark.slow

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")

_WRAPPER = """<!doctype html><iframe src="page.html" style="width:%dpx;height:900px"></iframe><pre id="found"></pre>
<script>
const found = {errors: []};
const frame = document.querySelector("iframe");
frame.addEventListener("load", () => {
  const page = frame.contentDocument, view = frame.contentWindow;
  page.addEventListener("securitypolicyviolation", (event) => found.errors.push(event.violatedDirective));
  const table = page.querySelector("table.framed");
  const column = (place) => [...table.tBodies[0].rows].map((row) => row.cells[place].textContent);
  const buttons = [...table.tHead.rows[0].querySelectorAll("button")];
  const place = buttons.findIndex((button) => button.textContent === "top-1 %%");
  found.unsorted = column(place);
  buttons[place].click();
  found.ascending = column(place);
  found.said = buttons[place].parentElement.getAttribute("aria-sort");
  buttons[place].click();
  found.descending = column(place);
  const drop = buttons.findIndex((button) => button.textContent === "drop");
  buttons[drop].click();
  found.drops = column(drop);
  found.requests = view.performance.getEntriesByType("resource").map((entry) => entry.name);
  found.scrolls = page.documentElement.scrollWidth > page.documentElement.clientWidth;
  found.focusable = buttons.every((button) => button.tabIndex === 0);
  page.body.insertAdjacentHTML("beforeend", "<img src='https://example.org/x.png' id='out'>");
  setTimeout(() => { document.getElementById("found").textContent = JSON.stringify(found); }, 300);
});
</script>"""


@cache
def _browser() -> str:
    found = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if found is None:
        pytest.skip("no Chromium is installed (Debian: chromium), so no browser opened the report")
    return found


def _opened(folder: Path, width: int) -> tuple[dict[str, Any], str]:
    """What the page did in a window of this width, and what the browser's console said."""
    browser = _browser()
    (folder / "page.html").write_bytes(FORMATS["html"].write(made()[0]))
    (folder / "wrapper.html").write_text(_WRAPPER % width)
    options = ["--headless", "--disable-gpu", "--allow-file-access-from-files", "--enable-logging=stderr"]
    options += [f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=5000", "--window-size=1400,1000"]
    options += ["--no-sandbox"] if os.geteuid() == 0 else []
    command = [browser, *options, "--dump-dom", (folder / "wrapper.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    content = re.findall(r'<pre id="found">(.+?)</pre>', done.stdout, flags=re.DOTALL)
    assert content, done.stderr[-2000:]
    console = [line for line in done.stderr.split("\n") if "CONSOLE" in line]
    return json.loads(content[0]), "\n".join(console)


def test_a_browser_sorts_its_tables_and_no_request_leaves_it(tmp_path: Path) -> None:
    found, console = _opened(tmp_path, 1200)
    numbers = sorted(map(float, found["unsorted"]))
    assert [float(text) for text in found["ascending"]] == numbers != list(map(float, found["unsorted"]))
    assert [float(text) for text in found["descending"]] == numbers[::-1]
    assert found["said"] == "ascending"
    drops = [text.replace("−", "-") for text in found["drops"]]
    assert [float(text) for text in drops[:-2]] == sorted(map(float, drops[:-2]))
    assert drops[-2:] == ["", ""]  # clean rows have none, and stand last
    assert found["requests"] == []
    assert found["focusable"]
    assert found["errors"] == ["img-src"]  # the picture that the test itself put in, which the page does not let out
    assert [line for line in console.split("\n") if line and "example.org" not in line] == []


def test_a_phone_need_not_scroll_the_page_sideways(tmp_path: Path) -> None:
    found, _ = _opened(tmp_path, 380)
    assert not found["scrolls"]
