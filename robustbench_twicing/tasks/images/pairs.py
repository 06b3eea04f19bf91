"""Are the folders there that generated ImageNet-C is compared on?"""

from robustbench_twicing.catalog.suites import suite
from robustbench_twicing.data.contents import some
from robustbench_twicing.data.imagenet import index_images
from robustbench_twicing.data.layout import find_suite
from robustbench_twicing.errors import UserError
from robustbench_twicing.results.generated import OFFICIAL
from robustbench_twicing.spec.means import Means
from robustbench_twicing.spec.plan import Plan
from robustbench_twicing.spec.suite import Part
from robustbench_twicing.spec.threats import CorruptionThreat


def require_pairs(plan: Plan, means: Means) -> None:
    """Raise `UserError` unless both folders are there, hold every part of the plan, and have images in common."""
    directories = means.directories
    for name in ("imagenet", OFFICIAL):
        if name not in directories:
            raise UserError(f"No folder is known for {name!r}.", f"Pass --data-dir {name}=/path/to/it.")
    parts = [
        Part(threat.corruption, threat.severity)
        for threat in plan.threats
        if isinstance(threat, CorruptionThreat) and threat.suite == OFFICIAL
    ]
    files = find_suite(suite(OFFICIAL), directories[OFFICIAL])
    missing = [str(part) for part in parts if part not in files.roots]
    if missing:
        raise UserError(
            f"{files.tree.root} lacks {len(missing)} of {len(parts)} (corruption, severity) pairs: {some(missing)}.",
            "Name those to compare with --corruption (such as common, the 15 of the mCE) and --severity.",
        )
    originals = index_images(find_suite(suite("imagenet"), directories["imagenet"]))
    copies = index_images(files, parts[0])
    if not set(originals.sample_ids) & set(copies.sample_ids):
        raise UserError(
            f"{copies.tree.root} and {originals.tree.root} have no image in common: one has {copies.sample_ids[0]}, "
            f"the other {originals.sample_ids[0]}.",
            "A corrupted file keeps the class folder and the name of the photograph that it was made from.",
        )
