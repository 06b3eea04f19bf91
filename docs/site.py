"""What `mkdocs build` needs to know of this repository: pages that lie beside docs/, and links that leave it."""

import re
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
BESIDE = {
    "attacks/README.md": "attacks.md",
    "corruptions/README.md": "suites.md",
    "results/README.md": "results.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "README.md": "index.md",
}
"""Pages of the repository -> of the site."""
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that lie beside docs/."""
    for place, page in BESIDE.items():
        text = (ROOT / place).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=linked(text, PurePosixPath(place))))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Links of a page of docs/ as the site has them."""
    if page.file.src_uri in BESIDE.values():
        return markdown
    return linked(markdown, PurePosixPath("docs", page.file.src_uri))


def linked(text: str, place: PurePosixPath) -> str:
    """The text of the file at `place` in the repository; a link to what is no page of the site becomes its words."""

    def one(found: re.Match[str]) -> str:
        words, target = found.groups()
        path, mark, anchor = target.partition("#")
        if "://" in target or not path:
            return found.group()
        there = normpath(str(place.parent / path))
        page = BESIDE.get(there) or BESIDE.get(f"{there}/README.md")
        if page is None and there.startswith("docs/") and (ROOT / there).is_file():
            page = relpath(there, "docs")
        return f"[{words}]({page}{mark}{anchor})" if page else words

    return _LINK.sub(one, text)
