"""What is installed here, and on what machine: for a report of a fault. Paths without names of people, no secrets."""

import os
import platform
import sys
from pathlib import Path

import torch

from robustbench_twicing import __version__
from robustbench_twicing.catalog.config import PREFIX, files_looked_for
from robustbench_twicing.catalog.locate import definitions
from robustbench_twicing.results.private import cleaned, names_of_this_machine
from robustbench_twicing.results.store import RUNS
from robustbench_twicing.runner.environment import versions_among

_PACKAGES = (
    *("torch", "torchvision", "timm", "torchattacks", "numpy", "scipy", "pandas", "pyarrow", "scikit-learn"),
    *("pillow", "pydantic", "typer", "rich", "huggingface_hub", "transformers", "foolbox", "matplotlib"),
)


def installed() -> dict[str, str]:
    """What somebody who looks for a fault asks first, by name. Of environment variables only the names are said."""
    names = names_of_this_machine()
    places = {
        "package": Path(__file__).resolve().parents[1],
        "definitions": definitions("attacks").parent,
        "runs": RUNS.absolute(),
        **{f"file {number}": path for number, path in enumerate(files_looked_for(), start=1) if path.is_file()},
    }
    return {
        "twicing-bench": __version__,
        "python": f"{platform.python_version()} {platform.python_implementation()}",
        **versions_among(_PACKAGES),
        "platform": cleaned(platform.platform(), names),
        "cpu": f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
        **_cards(),
        **{what: cleaned(str(path), names) for what, path in places.items()},
        "variables": ", ".join(sorted(name for name in os.environ if name.startswith(PREFIX))) or "none of ours",
        "environment": "virtual" if sys.prefix != sys.base_prefix else "not virtual",
    }


def _cards() -> dict[str, str]:
    """The graphics cards that torch finds, with memory in GiB; or that there is none."""
    if not torch.cuda.is_available():
        built = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "without it"
        return {"cuda": f"no device; torch was built {built}"}
    cards = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    return {"cuda": f"{torch.version.cuda}: " + ", ".join(f"{c.name} {c.total_memory / 2**30:.0f} GiB" for c in cards)}
