"""Does `diagnose` accuse honest models? Four kinds of them, several training seeds each; prints a line a model.

python benchmarks/diagnose_honest.py 20    # from the root of the repository; most of the time goes into deit
"""

import sys
from fractions import Fraction
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from robustbench_twicing.catalog.zoo import model_spec
from robustbench_twicing.inside.diagnose import diagnose
from robustbench_twicing.models.build import load_model
from robustbench_twicing.models.intake import wrap_model
from robustbench_twicing.spec.values import Eps
from tests.inside.holes import convolutional, samples


def main(seeds: int) -> None:
    """Diagnose each; exit 1 if one is accused."""
    accused, eps = 0, Eps(Fraction(4, 255))
    for seed in range(seeds):
        models = [
            wrap_model(f"convolutional-{seed}", convolutional(seed), 32),
            wrap_model(f"pgd-trained-{seed}", convolutional(seed, eps=4 / 255), 32),
        ]
        if seed < 5:  # as many ship
            models += [load_model(model_spec(f"{name}@s{seed}", "digits")) for name in ("deit", "deit-tw")]
        for model in models:
            found = diagnose(model, samples(32), eps, seed=seed)
            reasons = ", ".join(f"{item.key}: {item.said}" for item in found.reasons)
            print(f"{found.model}: {found.grade} {reasons}", flush=True)
            accused += found.grade in ("D", "F")
    print(f"{accused} accused")
    sys.exit(bool(accused))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
