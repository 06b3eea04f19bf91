"""Step `tests`: the tests that need a card, and those that pretend to have one."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree as ET

from gpu_steps.job import Job, Row

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"


def rows(job: Job) -> Iterator[Row]:
    """Both at the same time. In a rehearsal the first are skipped, for want of a card, and of the second one is run."""
    marked = sorted(str(file) for file in TESTS.rglob("test_*.py") if "pytest.mark.gpu" in file.read_text("utf-8"))
    pretended = [str(TESTS / "on_other_device.py")] + ([] if job.is_cuda else ["-k", "refuses_what_cuda"])
    parts = {"pytest -m gpu": ["-m", "gpu", *marked], "tests/on_other_device.py": pretended}
    with ThreadPoolExecutor() as both:
        for done in as_completed([both.submit(_run, job, what, arguments) for what, arguments in parts.items()]):
            yield done.result()


def _run(job: Job, what: str, arguments: list[str]) -> Row:
    with TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *arguments]
        began, most = time.monotonic(), job.seconds - 5
        try:
            environment = os.environ | {"PYTHONPATH": str(ROOT)}
            done = subprocess.run(
                command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=most, check=False
            )
        except subprocess.TimeoutExpired:
            return {"what": what, "failed_tests": f"not finished in {most:.0f} s"}
        if not report.exists():
            return {"what": what, "failed_tests": (done.stdout + done.stderr).strip()[-500:]}
        suite = next(iter(ET.parse(report).getroot()))
    count = {kind: int(suite.get(kind, 0)) for kind in ("tests", "failures", "errors", "skipped")}
    failed = [
        f"{case.get('classname')}::{case.get('name')}"
        for case in suite
        if case.find("failure") is not None or case.find("error") is not None
    ]
    return {
        "what": what,
        "passed": count["tests"] - count["failures"] - count["errors"] - count["skipped"],
        "failed": count["failures"] + count["errors"],
        "skipped": count["skipped"],
        "seconds": round(time.monotonic() - began, 1),
        "failed_tests": ", ".join(failed),
    }
