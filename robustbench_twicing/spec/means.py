"""Means: how a plan is computed, which decides no verdict. No torch, no files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field

from robustbench_twicing.machine.remote import place_of_text
from robustbench_twicing.spec.experiment import Count, Flag
from robustbench_twicing.spec.values import Frozen


def _named(value: Any) -> Any:
    """Such as `--out "$OUT"` with OUT not set: that is not the working folder."""
    if value == "":
        raise ValueError("the name is empty")
    return value


def _at_home(path: Path) -> Path:
    try:
        return place_of_text(path)
    except RuntimeError as error:  # ~nobody
        raise ValueError(f"{path}: {error}") from None


Folder = Annotated[Path, BeforeValidator(_named), AfterValidator(_at_home)]


class Means(Frozen):
    """Where data lies, what computes, how fast, and where the run goes."""

    model_config = ConfigDict(populate_by_name=True)

    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:N`."""
    batch_size: Count | None = None
    """Images in one evaluation; left out: what a warm-up finds fast. It changes no draw."""
    directories: Mapping[str, Folder] = Field(default_factory=dict)
    """Where data sets on disk lie, by name. A suite's clean run comes along if its data set has a place here."""
    frost_dir: str | None = None
    """The original frost pictures for generated frost, or `drawn`. The plan of the run names them by fingerprint."""
    attention_path: Literal["explicit", "fused", "triton"] | None = None
    """How all attention is computed; left out: the faster of the first two."""
    compiles: Flag = Field(default=False, alias="compile")
    """Let attacks compute with models that torch.compile has translated, if a warm-up finds them faster."""
    preflight: Flag = True
    """Look at each model before it is attacked (`engine.preflight`)."""
    keep_images: Count | None = None
    """Images to keep of each model under each threat, as PNG and exactly (docs/run-folder.md); left out: none."""
    executor: Literal["local", "ray"] = "local"
    """Who computes: this process, or workers on the machines of a Ray cluster (docs/scale.md)."""
    address: Annotated[str, Field(min_length=1)] | None = None
    """Of a Ray cluster: `auto` or HOST:PORT; left out: one that is started on this machine."""
    gpus_per_model: Annotated[float, Field(gt=0, le=1)] | None = None
    """The part of a GPU that a worker takes; left out: a whole one where there are any."""
    workers: Count | None = None
    """Of a Ray cluster; left out: as many as it has GPUs for, and without GPUs one a core."""
    fresh: Flag = False
    """Compute a finished run anew, and take nothing over from other runs; one that was stopped goes on."""
    out: Folder | None = None
    """The run folder; left out: one under results/runs, named after the plan."""

    def over(self, other: "Means") -> "Means":
        """What is set here wins, what is not is `other`'s; directories are joined."""
        chosen = {name: getattr(self, name) for name in self.model_fields_set}
        chosen["directories"] = {**other.directories, **self.directories}
        return other.model_copy(update=chosen)
