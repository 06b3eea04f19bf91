"""Where the data of a plan lies, and whether something is there: asked before torch is imported."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from robustbench_twicing.catalog.suites import FOLDER, place_of
from robustbench_twicing.errors import UserError
from robustbench_twicing.spec.means import Means
from robustbench_twicing.spec.plan import EMBEDDED, Plan
from robustbench_twicing.spec.threats import Threat


def folder_of(name: str, directories: Mapping[str, Path]) -> Path:
    """The folder or archive of a suite. Raises `UserError` if nobody says where it lies."""
    place = place_of(name, directories)
    if name == "imagenet-real" and place is None:
        return folder_of("imagenet", directories)  # the same files, with other labels
    if place is None:
        raise UserError(
            f"No folder is known for {name!r}.",
            f"Pass --data-dir {name}=/path/to/it, or set it once: see `twicing-bench config show`.",
        )
    return place


def require_places(plan: Plan, means: Means) -> None:
    """Raise `UserError` unless something lies where the plan's data and frost pictures are said to be."""
    if plan.task != "images":
        return  # a text is named by its file
    for name in dict.fromkeys(_reads(threat, plan.data.name) for threat in plan.threats):
        if name != EMBEDDED:
            require_place(folder_of(name, means.directories), "--data" if name.startswith(FOLDER) else "--data-dir")
    if means.frost_dir not in (None, "drawn") and any(_draws_frost(threat) for threat in plan.threats):
        require_place(Path(str(means.frost_dir)).expanduser(), "--frost-dir")


def require_place(path: Path, option: str = "--data-dir") -> None:
    """Raise `UserError` if nothing is there. What is wrong with something that is there, its reader says."""
    with suppress(OSError):
        if not path.exists() and not path.is_symlink():
            raise UserError(f"Nothing at {path}.", f"Check {option}; see docs/datasets.md.")


def _reads(threat: Threat, data: str) -> str:
    """The data set whose images a threat is done to."""
    generated = threat.kind == "corruption" and threat.generated
    return data if generated or threat.kind in ("clean", "attack") else str(getattr(threat, "suite", data))


def _draws_frost(threat: Threat) -> bool:
    return threat.kind == "corruption" and threat.generated and threat.corruption == "frost"
