"""Inputs of a size that nobody foresaw: does the time grow with their size, or with its square?

    python benchmarks/large_inputs.py     # prints, and writes benchmarks/large_inputs.csv

A tar with all its files in one folder is listed, and every tenth file read; a plan that names one model again and again
is refused with every mistake named.
"""

import csv
import io
import tarfile
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from conditions import commit, processor

from robustbench_twicing.catalog.plans import read_plan
from robustbench_twicing.data.archives import open_tree
from robustbench_twicing.errors import UserError

OUT = Path(__file__).with_suffix(".csv")


def tar(folder: Path, files: int) -> Callable[[], None]:
    """Packs it, and returns what is to be timed."""
    path = folder / f"{files}.tar"
    with tarfile.open(path, "w") as archive:
        for number in range(files):
            member = tarfile.TarInfo(f"n01440764/{number:07}.JPEG")
            member.size = 100
            archive.addfile(member, io.BytesIO(bytes(100)))

    def read() -> None:
        tree = open_tree(path)
        for name in tree.listing("n01440764").files[::10]:
            tree.read(f"n01440764/{name}")

    return read


def plan(folder: Path, models: int) -> Callable[[], None]:
    """Writes it, and returns what is to be timed."""
    path = folder / f"{models}.toml"
    names = ", ".join(['"deit"'] * models)
    path.write_text(f"models = [{names}]\n")

    def read() -> None:
        with suppress(UserError):
            read_plan(path)

    return read


def main() -> None:
    rows = []
    with TemporaryDirectory() as place:
        for what, make, sizes in (
            ("tar, files in one folder", tar, (10_000, 30_000, 100_000)),
            ("plan, equal names", plan, (300, 1_000, 3_000)),
        ):
            for size in sizes:
                read = make(Path(place), size)
                started = time.perf_counter()
                read()
                rows.append({"what": what, "size": size, "seconds": round(time.perf_counter() - started, 2)})
                print(rows[-1], flush=True)
    said = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "commit": commit(), "cpu": processor()}
    with OUT.open("w", newline="") as file:
        writer = csv.DictWriter(file, {**rows[0], **said}, lineterminator="\n")
        writer.writeheader()
        writer.writerows(row | said for row in rows)


if __name__ == "__main__":
    main()
