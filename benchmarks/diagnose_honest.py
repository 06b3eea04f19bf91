"""Does `diagnose` accuse honest models? Four kinds of them, many seeds each; a row for each in diagnose_honest.csv.

python benchmarks/diagnose_honest.py --seeds 20 --minutes 6    # from the root of the repository

What stands in the table is not measured again, so a few minutes at a time do. A seed is a training of its own for the
ResNet and the network trained with PGD. Of deit and deit-tw five trainings ship: seed s is training s modulo 5, on
images of its own, 32 from number 32 (s div 5) on.
"""

import argparse
import csv
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from robustbench_twicing.catalog.zoo import model_spec
from robustbench_twicing.inside.diagnose import diagnose
from robustbench_twicing.models.build import load_model
from robustbench_twicing.models.classifier import Classifier
from robustbench_twicing.models.intake import wrap_model
from robustbench_twicing.spec.values import Eps
from tests.inside.holes import convolutional, samples

TABLE = Path(__file__).with_suffix(".csv")
COLUMNS = ("kind", "seed", "images", "right", "grade", "reasons", "robust", "seconds")
IMAGES, EPS = 32, Eps(Fraction(4, 255))
KINDS: dict[str, Callable[[int], Classifier]] = {
    "resnet": lambda seed: wrap_model(f"resnet-{seed}", convolutional(seed, residual=True), 32),
    "pgd-trained": lambda seed: wrap_model(f"pgd-trained-{seed}", convolutional(seed, eps=4 / 255), 32),
    "deit": lambda seed: load_model(model_spec(f"deit@s{seed % 5}", "digits")),
    "deit-tw": lambda seed: load_model(model_spec(f"deit-tw@s{seed % 5}", "digits")),
}


def main(kinds: list[str], seeds: int, minutes: float) -> None:
    """Diagnose what the table lacks, as long as there is time; exit 1 if one is accused."""
    began = time.monotonic()
    done = list(csv.DictReader(TABLE.open())) if TABLE.exists() else []
    known = {(row["kind"], int(row["seed"])) for row in done}
    for kind, seed in ((kind, seed) for seed in range(seeds) for kind in kinds):
        if (kind, seed) in known:
            continue
        if time.monotonic() - began > 60 * minutes:
            break
        begun = time.monotonic()
        given = samples(IMAGES, start=IMAGES * (seed // 5) if kind.startswith("deit") else 0)
        found = diagnose(KINDS[kind](seed), given, EPS, seed=seed)
        reasons = "; ".join(f"{item.key}: {item.said}" for item in found.reasons)
        seconds = round(time.monotonic() - begun, 1)
        row = (kind, seed, IMAGES, found.clean, found.grade, reasons, len(found.robust), seconds)
        done.append({key: str(value) for key, value in zip(COLUMNS, row, strict=True)})
        print(*row, flush=True)
        with TABLE.open("w") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(done)
    accused = [row for row in done if row["grade"] in ("D", "F")]
    print(f"{len(done)} diagnosed, {len(accused)} accused")
    sys.exit(bool(accused))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=60.0)
    given = parser.parse_args()
    main(given.kinds, given.seeds, given.minutes)
