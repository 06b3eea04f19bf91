"""A page of docs/ followed to the letter in a copy of the tree: what it shows goes where it says, and nothing else.

The paragraph above a block of code names the file, or it is that of the block before. A file that there is not is the
block. In one that there is, imports go to the imports, a row goes below the others of "the table `NAME`", or below the
row of "below `name`" in a text, and what is defined goes above the first table, or to the end.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
_PARTS = ("robustbench_twicing", "attacks", "corruptions", "plans", "results/published", "docs", "tests")
_BLOCK = re.compile(
    r"^( *)```\w*\n(.*?)^\1```"  # fenced
    r"|(?<=\n\n)((?: {4}[^\n]*\n|\n(?=\n* {4}))+)",  # or indented
    re.DOTALL | re.MULTILINE,
)
_TABLE = r"^{}\b[^\n]*= [\[({{]\n"


class Block(NamedTuple):
    """Something that a page shows."""

    said: str
    """The paragraph above it."""
    shown: str


def blocks(page: str, section: str = "") -> list[Block]:
    """The blocks of a page, or of its section with that heading: fenced, or indented by four spaces."""
    text = (DOCS / page).read_text(encoding="utf-8")
    if section:
        text = re.split(r"^## ", text.split(f"## {section}", 1)[1], flags=re.MULTILINE)[0]
    found, start = [], 0
    for match in _BLOCK.finditer(text):
        shown = dedent(match[2] if match[2] is not None else match[3]).strip() + "\n"
        found.append(Block(text[start : match.start()].strip().rpartition("\n\n")[2], shown))
        start = match.end()
    return found


class Tree:
    """A copy of what the tool is made of."""

    def __init__(self, root: Path) -> None:
        self.root = root
        ignored = shutil.ignore_patterns("__pycache__")
        for name in _PARTS:
            shutil.copytree(ROOT / name, root / name, ignore=ignored)
        shutil.copy(ROOT / "pyproject.toml", root)

    def follow(self, *some: Block) -> None:
        """Do what the blocks' sentences say."""
        file = None
        for block in some:
            named = re.findall(r"`([\w/.-]+\.(?:py|toml|md))`", block.said)
            file = self.root / named[0] if named else file
            assert file, block
            table, below = (re.findall(pattern, block.said) for pattern in (r"table `(\w+)`", r"below `(\w+)`"))
            if not file.exists():
                file.write_text(block.shown, encoding="utf-8")
            else:
                text = file.read_text(encoding="utf-8")
                file.write_text(_with(text, block.shown, [*table, ""][0], [*below, ""][0]), encoding="utf-8")

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`python -m` in the copy."""
        environment = {**os.environ, "PYTHONPATH": str(self.root), "COLUMNS": "300"}
        command = [sys.executable, "-m", *words]
        return subprocess.run(command, cwd=self.root, env=environment, capture_output=True, text=True, check=False)

    def tool(self, *words: str) -> str:
        """What `twicing-bench` prints in the copy; it has to succeed."""
        done = self.run("robustbench_twicing", *words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def passes(self, *words: str) -> int:
        """How many tests of the copy pass; all have to."""
        done = self.run("pytest", "-q", "-p", "no:cacheprovider", *words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.count(".")

    @property
    def touched(self) -> set[str]:
        """The files that the tree has not, or other ones."""
        return {
            str(file.relative_to(self.root))
            for file in self._files()
            if not _same(file, ROOT / file.relative_to(self.root))
        }

    def _files(self) -> Iterator[Path]:
        for name in _PARTS:
            yield from (file for file in (self.root / name).rglob("*") if file.suffix in (".py", ".toml", ".md"))
        yield from self.root.glob("*.toml")


def _same(file: Path, other: Path) -> bool:
    return other.exists() and file.read_bytes() == other.read_bytes()


def _with(text: str, block: str, table: str, below: str) -> str:
    """A file's text with a block in its place."""
    if below:
        (row,) = re.findall(rf"^\| `{below}` .*\n", text, flags=re.MULTILINE)
        return text.replace(row, row + block)
    if table:
        head = re.search(_TABLE.format(table), text, flags=re.MULTILINE)
        assert head, table
        end = re.compile(r"^[\])}]", flags=re.MULTILINE).search(text, head.end())
        assert end
        return text[: end.start()] + "".join(f"    {line}\n" for line in block.splitlines()) + text[end.start() :]
    if all(line.startswith(("from ", "import ")) for line in block.splitlines()):
        place = re.search(r"^from robustbench_twicing", text, flags=re.MULTILINE)
        assert place
        return text[: place.start()] + block + text[place.start() :]
    tables = re.search(_TABLE.format("[A-Z_]+"), text, flags=re.MULTILINE)
    if tables is None:
        return f"{text}\n\n{block}"
    return f"{text[: tables.start()]}{block}\n\n{text[tables.start() :]}"
