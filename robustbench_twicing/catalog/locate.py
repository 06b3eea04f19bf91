"""Where definition files lie. The only code that knows."""

from importlib.resources import files
from pathlib import Path

_PACKAGE = Path(str(files("robustbench_twicing")))


def definitions(kind: str) -> Path:
    """The folder `attacks/`, `corruptions/`, `plans/` or `recipes/`: in an installed wheel, or beside the package.

    hatchling's force-include puts them into the wheel; an editable install does not see them there.
    """
    shipped = _PACKAGE / "_definitions" / kind
    return shipped if shipped.is_dir() else _PACKAGE.parent / kind


def package_file(relative: str) -> Path:
    """A data file inside the package, such as embedded weights."""
    return _PACKAGE / relative
