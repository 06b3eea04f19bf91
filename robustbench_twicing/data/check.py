"""Is a suite on disk what it should be? Asked before hours are spent, answered in seconds."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from robustbench_twicing.data.archives import join
from robustbench_twicing.data.contents import (
    SuiteFolder,
    contents,
    refuse_names_of_another,
    sample_stem,
    some,
)
from robustbench_twicing.data.decode import Unreadable, decode, image_size
from robustbench_twicing.data.layout import find_suite
from robustbench_twicing.errors import UserError, shown
from robustbench_twicing.spec.suite import Part, SuiteSpec


@dataclass(frozen=True)
class Row:
    """Counts of one data set, or of one (corruption, severity)."""

    part: str
    """Such as `fog/3`; empty for a suite without corruptions."""
    classes: int
    """Class folders that hold an image."""
    expected_classes: int
    images: int
    expected_images: int | None
    """None where the suite does not say."""


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be. An `error` changes a number or stops a run; a `warning` need not."""

    severity: Literal["error", "warning"]
    where: str
    message: str
    paths: tuple[str, ...] = ()
    """Every file or folder concerned, where the message names only the first few."""


@dataclass(frozen=True)
class Report:
    """What `check_suite` saw."""

    suite: str
    directory: str
    deep: bool
    """Every image was decoded, not only counted."""
    rows: tuple[Row, ...]
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @property
    def ok(self) -> bool:
        """There is no error; there may be warnings."""
        return not self.errors


def check_suite(
    suite: SuiteSpec,
    directory: Path,
    deep: bool = False,
    workers: int = 1,
    advance: Callable[[int], object] = lambda images: None,
) -> Report:
    """Compare a folder or archive with what the suite should hold: classes, images, names, sizes, strays.

    Without `deep` it only lists folders, and opens one image of each part where the suite fixes their size; with `deep`
    it decodes every image in `workers` threads. `advance` is told the number of images after each class folder.
    Raises `UserError` if there is nothing to check: another suite, no suite, or a damaged archive.
    """
    found = find_suite(suite, directory)
    suite = found.suite
    rows, findings = [], [*_missing_parts(found), *_left_out(found)]
    with ThreadPoolExecutor(max(1, workers), thread_name_prefix="check") as pool:
        try:
            for part in found.roots:
                row, more = _check_part(found, part, pool if deep else None, advance)
                rows.append(row)
                findings += more
        finally:
            pool.shutdown(cancel_futures=True)
    absent = [part for part in found.missing if part.corruption in suite.common]
    rows += [Row(str(part), 0, len(suite.classes), 0, suite.images) for part in absent]
    return Report(suite.name, str(directory), deep, tuple(rows), tuple(findings))


def _missing_parts(found: SuiteFolder) -> Iterator[Finding]:
    where = str(found.tree.root)
    missing = {
        name: [part.severity for part in found.missing if part.corruption == name] for name in found.suite.common
    }
    for name, severities in missing.items():
        if severities:
            yield Finding("error", where, f"{name} is missing at severity {', '.join(map(str, severities))}")
    extra = [str(part) for part in found.missing if part.corruption in found.suite.extra]
    if extra:
        message = f"{len(extra)} of the extra corruptions are missing ({some(extra)}); no mean needs them"
        yield Finding("warning", where, message)


def _left_out(found: SuiteFolder) -> Iterator[Finding]:
    left_out = found.tree.left_out
    if left_out:
        message = f"{len(left_out):,} member(s) of the archive are no files and left out: {some(left_out)}"
        yield Finding("error", shown(str(found.tree.root)), message, left_out)


@dataclass
class _Seen:
    """What a walk over the class folders of one part gathers."""

    images: dict[str, list[str]] = field(default_factory=dict)
    """Class -> paths of its images."""
    strays: list[str] = field(default_factory=list)
    locked: dict[str, str] = field(default_factory=dict)
    """Folder -> why it could not be listed."""
    broken: dict[str, str] = field(default_factory=dict)
    """Image -> what is wrong with it."""


def _check_part(
    found: SuiteFolder, part: Part | None, pool: ThreadPoolExecutor | None, advance: Callable[[int], object]
) -> tuple[Row, list[Finding]]:
    suite, tree, root = found.suite, found.tree, found.roots[part]
    nothing = Row(str(part or ""), 0, len(suite.classes), 0, suite.images)
    try:
        inside = contents(found, part)
    except UserError as error:
        return nothing, [Finding("error", tree.where(root), error.message)]
    except OSError as error:
        return nothing, [Finding("error", tree.where(root), f"cannot be read: {error.strerror or error}")]
    seen = _Seen(strays=list(inside.strays))
    folders = {name: files.folder for name, files in inside.classes.items()}
    for name, (folder, files, locked) in inside.classes.items():
        if locked:
            seen.locked[folder] = locked.strerror or str(locked)
            continue
        images = [join(folder, file) for file in files]
        seen.images[name] = images
        if pool is not None:
            verdicts = zip(images, pool.map(lambda path: _fault(found, path, deep=True), images), strict=True)
            seen.broken |= {path: fault for path, fault in verdicts if fault}
        advance(len(images))
    if pool is None and suite.image_size is not None:
        first = next((paths[0] for paths in seen.images.values() if paths), None)
        fault = first and _fault(found, first, deep=False)
        if first and fault:
            seen.broken[first] = fault
    with_images = [name for name, paths in seen.images.items() if paths]
    row = Row(nothing.part, len(with_images), len(suite.classes), sum(map(len, seen.images.values())), suite.images)
    return row, list(_findings(found, root, folders, seen, row))


def _fault(found: SuiteFolder, path: str, deep: bool) -> str | None:
    """What is wrong with one image, or None."""
    try:
        content = found.tree.read(path)
        width, height = decode(content).size if deep else image_size(content)
    except Unreadable as error:
        return str(error)
    except OSError as error:
        return error.strerror or str(error)
    size = found.suite.image_size
    return (
        None if size in (None, width) and size in (None, height) else f"{width} x {height} pixels, not {size} x {size}"
    )


def _findings(found: SuiteFolder, root: str, folders: Mapping[str, str], seen: _Seen, row: Row) -> Iterator[Finding]:
    suite, tree = found.suite, found.tree
    where = tree.where(root)

    def finding(severity: Literal["error", "warning"], message: str, paths: Sequence[str] = ()) -> Finding:
        short = some([path.removeprefix(f"{root}/") for path in paths])
        return Finding(severity, where, message + (f": {short}" if paths else ""), tuple(map(tree.where, paths)))

    missing = [name for name in suite.classes if name not in folders]
    if missing:
        yield finding("error", f"{len(missing):,} class folder(s) missing: {some(missing)}")
    empty = [folders[name] for name, paths in seen.images.items() if not paths]
    if empty:
        yield finding("error", f"{len(empty):,} class folder(s) without an image", empty)
    for folder, why in seen.locked.items():
        yield finding("error", f"class folder cannot be read ({why})", [folder])
    every = suite.images_per_class
    uneven = {name: len(paths) for name, paths in seen.images.items() if every and len(paths) not in (0, every)}
    if uneven:
        counts = some([f"{folders[name].removeprefix(f'{root}/')} has {count}" for name, count in uneven.items()])
        yield finding("error", f"{len(uneven):,} class folder(s) do not hold {every} images: {counts}")
    if row.expected_images not in (None, row.images):
        message = f"{row.images:,} images, expected {row.expected_images:,}"
        yield finding("error" if suite.images_exact else "warning", message)
    twins = [path for paths in seen.images.values() for path in _twins(paths)]
    if twins:
        yield finding("error", f"{len(twins):,} image(s) with the name of another but for the ending", twins)
    yield from _misnamed(found, where, [path for paths in seen.images.values() for path in paths])
    if seen.strays:
        yield finding("warning", f"{len(seen.strays):,} stray file(s) or folder(s), which are ignored", seen.strays)
    for path, fault in seen.broken.items():
        yield finding("error", f"image cannot be used ({fault})", [path])


def _twins(paths: Sequence[str]) -> list[str]:
    count = Counter(sample_stem(path) for path in paths)
    return [path for path in paths if count[sample_stem(path)] > 1] if len(count) < len(paths) else []


def _misnamed(found: SuiteFolder, where: str, images: Sequence[str]) -> Iterator[Finding]:
    suite = found.suite
    try:
        refuse_names_of_another(suite, images, where)
    except UserError as error:
        yield Finding("error", where, error.message)
    if suite.file_names:
        pattern = re.compile(suite.file_names)
        odd = [path for path in images if not pattern.fullmatch(sample_stem(path))]
        if odd:
            names = some([path.rpartition("/")[2] for path in odd])
            message = (
                f"{len(odd):,} image(s) not named like {suite.file_names}, so not matched with other suites: {names}"
            )
            severity: Literal["error", "warning"] = "error" if suite.labels == "real" else "warning"
            yield Finding(severity, where, message, tuple(map(found.tree.where, odd)))
