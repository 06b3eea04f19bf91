"""Which packages a machine with a card lacks, and fetching them beforehand: such machines have no network."""

import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"

THERE = ("torch", "timm", "torchvision", "typer", "rich", "pandas", "pyarrow", "scikit-learn", "scikit-image")
"""What such a machine has, and with each what it needs itself."""
CHANGING = ("huggingface-hub", "typer")
"""Their own needs have changed between versions, so what they need is fetched all the same."""
FOR_TESTS = ("pytest", "hypothesis", "beartype")


def direct() -> list[str]:
    """What pyproject.toml says that the package needs."""
    project = tomllib.loads(PYPROJECT.read_text("utf-8"))["project"]
    return [canonicalize_name(Requirement(line).name) for line in project["dependencies"]]


def missing(there: Iterable[str] = THERE) -> dict[str, str]:
    """Name -> version as installed here, of all that pyproject.toml's dependencies and the tests need, and `there` and
    what it brings has not. Raises `SystemExit` if something is not installed here either: what it needs is not known.
    """
    wanted = _with_needs([*direct(), *FOR_TESTS])
    names = sorted(wanted - _with_needs(there, CHANGING))
    try:
        return {name: version(name) for name in names}
    except PackageNotFoundError as error:
        raise SystemExit(f"{error} is not installed here. Run this where `pip install -e '.[dev]'` was.") from None


def _with_needs(names: Iterable[str], except_those_of: Iterable[str] = ()) -> set[str]:
    """With everything that they need, by the metadata of what is installed here; without extras."""
    found: set[str] = set()
    left = [canonicalize_name(name) for name in names]
    while left:
        name = left.pop()
        if name in found:
            continue
        found.add(name)
        if name in except_those_of:
            continue
        try:
            lines = requires(name) or []
        except PackageNotFoundError:
            continue
        needs = map(Requirement, lines)
        left += [
            canonicalize_name(need.name) for need in needs if not need.marker or need.marker.evaluate({"extra": ""})
        ]
    return found


def fetch(folder: Path, python: str | None) -> None:
    """Download the wheels into `folder`, for another version of Python such as 3.12 if `python` is given, and say how
    they are installed."""
    pinned = [f"{name}=={number}" for name, number in missing().items()]
    print("\n".join(pinned))
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        "-d",
        str(folder),
    ]
    subprocess.run([*command, *(["--python-version", python] if python else []), *pinned], check=True)
    size = sum(file.stat().st_size for file in folder.glob("*.whl")) / 2**20
    # pip leaves alone what that machine has already.
    print(f"{len(pinned)} wheels, {size:.0f} MiB. On the machine with the card, in the repository:")
    needed = " ".join(sorted({*FOR_TESTS, *direct()} & {name.partition("==")[0] for name in pinned}))
    print(f"    pip install --no-index --find-links {folder} {needed} && python benchmarks/gpu.py")
