"""The documentation as a site, and the tutorial as a person would follow it."""

import logging
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from robustbench_twicing.api import compare, load_run
from robustbench_twicing.cli.app import app

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.dear
def test_every_command_of_the_tutorial_does_what_it_is_there_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    commands = re.findall(r"^    twicing-bench (.+)$", text, flags=re.MULTILINE)
    assert len(commands) >= 10
    for command in commands:
        words = shlex.split(command.replace("--limit 60", "--limit 6"))
        ended = CliRunner().invoke(app, words, catch_exceptions=False)
        allowed = (0, 4) if words[0] == "gate" else (0,)  # so few images are inconclusive
        assert ended.exit_code in allowed, f"{command}\n{ended.output}"
        assert ended.output.strip(), command
    run = load_run("first")
    assert [row.threat for row in run.compare().rows] == [row.threat for row in compare("first").rows]
    assert run.compare("deit-tw", "deit").rows[0].baseline == "deit-tw"
    assert run.gate("first").exit_code in (0, 4)


def test_the_site_is_built_without_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("mkdocs", "material", "mkdocstrings"):
        pytest.importorskip(name, reason=f"{name} is not installed: pip install -e '.[docs]'")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config
    from mkdocs.exceptions import Abort

    monkeypatch.chdir(ROOT)
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("mkdocs").addHandler(handler)
    try:
        build(load_config(str(ROOT / "mkdocs.yml"), strict=True, site_dir=str(tmp_path / "site")))
    except Abort:
        pytest.fail("\n".join(said))
    finally:
        logging.getLogger("mkdocs").removeHandler(handler)
    pages = {page.relative_to(tmp_path / "site").parts[0] for page in (tmp_path / "site").rglob("index.html")}
    assert {"tutorial", "api", "how-it-compares", "add-a-suite", "changelog"} <= pages
    assert "robustbench_twicing.api.evaluate" in (tmp_path / "site" / "api" / "index.html").read_text(encoding="utf-8")
    home = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert not re.search(r'(?:src|href)="https?://[^"]+\.(?:js|css|woff2?)"', home)  # nothing fetched from elsewhere
