"""Files that a page is written to: the ending says the format, and a slash at the end a folder of plots."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from robustbench_twicing.errors import UserError
from robustbench_twicing.report.formats import endings, save
from robustbench_twicing.report.page import Page
from robustbench_twicing.report.plots import require_matplotlib, save_plots
from robustbench_twicing.results.store import is_there, require_writable


class Target(NamedTuple):
    """A place that can be written."""

    path: Path
    save: Callable[[Page], None]
    """Writes a page there, each file whole or not at all. Raises `UserError`."""


def target(said: str) -> Target:
    """What is meant by `FILE.html`, `FILE.tex` or `plots/`. Raises `UserError` now rather than after the work."""
    path = Path(said).expanduser()
    if said.endswith(("/", "\\")):
        require_matplotlib()
        require_writable(path)
        return Target(path, lambda page: save_plots(page, path))
    known = endings()
    fitting = [ending for ending in known if path.name.endswith(ending) and path.name != ending]
    if not fitting:
        raise UserError(
            f"Cannot tell from {said!r} how to write it.",
            f"End it in {', '.join(known)}, or in / for a folder of plots.",
        )
    if is_there(path) and path.is_dir():
        raise UserError(f"{said} is a folder.", "Name a file, or end it in / for a folder of plots.")
    require_writable(path.parent)
    name = known[max(fitting, key=len)]
    return Target(path, lambda page: save(page, path, name))
