"""The HTML report in a real browser: it sorts, asks nobody for anything, and fits into a narrow window."""

import json
import os
import re
import shutil
import subprocess
import tarfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest

from robustbench_twicing.report.formats import FORMATS
from robustbench_twicing.report.page import Gallery, Picture
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
  const box = page.querySelector("fieldset input");
  found.boxes = [...page.querySelectorAll("fieldset label")].map((label) => label.textContent.trim());
  const seen = (one) => view.getComputedStyle(one).display !== "none";
  const shown = (some) => [...page.querySelectorAll(some)].filter(seen).length;
  found.before = [shown("table.framed tr"), shown("[data-graph]")];
  box.click();
  found.without = [shown("table.framed tr"), shown("[data-graph]")];
  box.click();
  found.after = [shown("table.framed tr"), shown("[data-graph]")];
  found.requests = view.performance.getEntriesByType("resource").map((entry) => entry.name);
  found.scrolls = page.documentElement.scrollWidth > page.documentElement.clientWidth;
  found.focusable = buttons.every((button) => button.tabIndex === 0);
  page.body.insertAdjacentHTML("beforeend", "<img src='https://example.org/x.png' id='out'>");
  setTimeout(() => { document.getElementById("found").textContent = JSON.stringify(found); }, 300);
});
</script>"""


_PRINTED = """<!doctype html><iframe src="printed.html" style="width:718px;height:900px"></iframe><pre id="found"></pre>
<script>
document.querySelector("iframe").addEventListener("load", (event) => {
  const page = event.target.contentDocument;
  page.querySelectorAll("details").forEach((part) => { part.open = true; });
  const wide = page.documentElement.clientWidth;
  const tables = [...page.querySelectorAll("table.framed")];
  const over = tables.filter((table) => table.getBoundingClientRect().right > wide + 1).length;
  const hidden = [...page.querySelectorAll(".scroll")].filter((one) => one.scrollWidth > one.clientWidth + 1
    && getComputedStyle(one).overflowX !== "visible").length;
  document.getElementById("found").textContent = JSON.stringify({tables: tables.length, over, hidden});
});
</script>"""
"""A4 between margins of a centimetre is 718 pixels of CSS wide."""


_AXE = """<script src="axe.min.js"></script><pre id="found"></pre><script>
document.querySelectorAll("details").forEach((part) => { part.open = true; });
axe.run(document, {resultTypes: ["violations"]}).then((result) => {
  const grave = result.violations.filter((one) => ["serious", "critical"].includes(one.impact));
  const said = grave.flatMap((one) => one.nodes.map((node) => `${one.id}: ${node.target} ${node.failureSummary}`));
  const rules = result.passes.length;
  document.getElementById("found").textContent = encodeURIComponent(JSON.stringify({said, rules}));
});
</script>"""


@cache
def _browser() -> str:
    found = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if found is None:
        pytest.skip("no Chromium is installed (Debian: chromium), so no browser opened the report")
    return found


def _axe(folder: Path) -> None:
    """Put axe.min.js of npm's axe-core into the folder."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("no npm is installed, so axe-core looked at nothing")
    pack = [npm, "pack", "axe-core@4.14.1", "--silent", f"--cache={folder / 'npm'}"]
    done = subprocess.run(pack, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        pytest.skip(f"npm cannot get axe-core, so it looked at nothing: {done.stderr.strip()[-200:]}")
    with tarfile.open(folder / "axe-core-4.14.1.tgz") as package:
        content = package.extractfile("package/axe.min.js")
        assert content is not None
        (folder / "axe.min.js").write_bytes(content.read())


def _dumped(folder: Path, page: str, *options: str) -> tuple[str, str]:
    """The document that the browser made of a page in the end, and what it said beside."""
    common = ["--headless", "--disable-gpu", "--allow-file-access-from-files", "--enable-logging=stderr", *options]
    common += [f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=5000", "--window-size=1400,1000"]
    common += ["--no-sandbox"] if os.geteuid() == 0 else []
    command = [_browser(), *common, "--dump-dom", (folder / page).as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return done.stdout, done.stderr


def _opened(folder: Path, width: int) -> tuple[dict[str, Any], str]:
    """What the page did in a window of this width, and what the browser's console said."""
    (folder / "page.html").write_bytes(FORMATS["html"].write(made()[0]))
    (folder / "wrapper.html").write_text(_WRAPPER % width)
    document, errors = _dumped(folder, "wrapper.html")
    content = re.findall(r'<pre id="found">(.+?)</pre>', document, flags=re.DOTALL)
    assert content, errors[-2000:]
    console = [line for line in errors.split("\n") if "CONSOLE" in line]
    return json.loads(content[0]), "\n".join(console)


def test_a_browser_sorts_its_tables_leaves_models_away_and_no_request_leaves_it(tmp_path: Path) -> None:
    found, console = _opened(tmp_path, 1200)
    numbers = sorted(map(float, found["unsorted"]))
    assert [float(text) for text in found["ascending"]] == numbers != list(map(float, found["unsorted"]))
    assert [float(text) for text in found["descending"]] == numbers[::-1]
    assert found["said"] == "ascending"
    drops = [text.replace("−", "-") for text in found["drops"]]
    assert [float(text) for text in drops[:-2]] == sorted(map(float, drops[:-2]))
    assert drops[-2:] == ["", ""]  # clean rows have none, and stand last
    assert found["boxes"] == ["deit", "deit-tw"]
    assert found["before"] == found["after"]
    assert found["without"][1] == found["before"][1] / 2
    assert found["without"][0] < found["before"][0]
    assert found["requests"] == []
    assert found["focusable"]
    assert found["errors"] == ["img-src"]  # the picture that the test itself put in, which the page does not let out
    assert [line for line in console.split("\n") if line and "example.org" not in line] == []


def test_a_phone_need_not_scroll_the_page_sideways(tmp_path: Path) -> None:
    found, _ = _opened(tmp_path, 380)
    assert not found["scrolls"]


def test_axe_finds_no_serious_fault_in_light_and_in_dark(tmp_path: Path) -> None:
    _browser()
    _axe(tmp_path)
    image = np.full((32, 32, 3), 200, dtype=np.uint8)
    pictures = [Picture(name, (("clean", image), ("under fgsm", image)), ("deit: 3, right",)) for name in ("a", "b")]
    gallery = Gallery("gallery", "Images", tuple(pictures), "Kept.")
    page = FORMATS["html"].write(replace(made()[0], parts=(*made()[0].parts, gallery))).decode()
    open_to_us = re.sub(r"<meta http-equiv=.Content-Security-Policy.[^>]*>", "", page)  # axe is no script of the page's
    (tmp_path / "axe.html").write_text(open_to_us.replace("</body>", _AXE + "</body>"))
    for scheme in ("1", "0"):  # light, dark
        document, errors = _dumped(tmp_path, "axe.html", f"--blink-settings=preferredColorScheme={scheme}")
        (found,) = re.findall(r'<pre id="found">([^<]+)</pre>', document) or [errors[-2000:]]
        content = json.loads(unquote(found))
        assert content["said"] == []
        assert content["rules"] > 15


def test_no_column_is_cut_off_in_print(tmp_path: Path) -> None:
    page = FORMATS["html"].write(made()[0]).decode()
    assert page.count("@media print") == 1
    (tmp_path / "printed.html").write_text(page.replace("@media print", "@media all"))
    (tmp_path / "wrapper.html").write_text(_PRINTED)
    document, errors = _dumped(tmp_path, "wrapper.html")
    content = re.findall(r'<pre id="found">(.+?)</pre>', document, flags=re.DOTALL)
    assert content, errors[-2000:]
    found = json.loads(content[0])
    assert found["tables"] >= 4
    assert (found["over"], found["hidden"]) == (0, 0)
