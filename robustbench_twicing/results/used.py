"""Parts of a run's manifest: with what it was run, and what was found. No torch."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from robustbench_twicing.spec.models import ModelSpec
from robustbench_twicing.spec.values import Frozen


def _plain(name: str) -> str:
    if not name or name in (".", "..") or any(c in '/\\:"' or ord(c) < 32 for c in name):
        raise ValueError(f"{name!r} is not the plain name of a folder")
    return name


def _moment(text: str) -> str:
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return text


def _writable(text: Any) -> Any:
    """What stands for bytes that are no UTF-8 (a file's name, an argument) is escaped: JSON has no way to write it."""
    return text.encode("utf-8", "backslashreplace").decode() if isinstance(text, str) else text


FolderName = Annotated[str, AfterValidator(_plain)]
"""One plain name, so that nothing outside the run folder is read or removed."""
Moment = Annotated[str, AfterValidator(_moment)]
"""ISO 8601 with its time zone."""
Said = Annotated[str, BeforeValidator(_writable)]
"""Text from outside."""


class DataUsed(Frozen):
    """The data set behind one threat."""

    name: str
    fingerprint: str
    """Hash of the data set's samples: ids, labels and pixels or file sizes."""
    samples: int = Field(ge=0)
    """In the data set; a cell may be run on fewer."""
    classes: int = Field(ge=1)
    warnings: tuple[Said, ...] = ()
    """What of the suite is not complete."""


class ModelUsed(Frozen):
    """A model as it was loaded."""

    spec: ModelSpec
    attention: str
    """What the numerical probe found: `softmax`, `twicing`, `twicing@3,4,5`; empty if no block was probed."""
    blocks: int = Field(ge=0)
    parameters: int = Field(ge=0)
    weights_hash: str
    weights_note: Said
    """Such as which key of a checkpoint was read."""
    training_recipe: Said = ""
    """Hash of the recipe that trained the weights; empty unless their file states it."""
    training_seed: int = -1
    """Seed of the training; -1 unless the weights' file states it."""
    classes: int = Field(ge=1)
    image_size: int = Field(ge=1)
    prepared_as: str = ""
    """Whose preprocessing the recipe `model` is, such as `timm's resnet18.a1_in1k`."""
    mean: tuple[float, ...]
    """Of the normalisation inside the model, channel by channel."""
    std: tuple[Annotated[float, Field(gt=0)], ...]


class Settled(Frozen):
    """One way of computing, out of several, and what a warm-up found."""

    choice: str
    seconds: Mapping[str, float] = Field(default_factory=dict)
    """That each took; empty where nothing was measured."""
    reason: Said = ""
    """Why it was not measured or is not the fastest."""
    compiling: float | None = None
    """Seconds that compiling took."""


class ModelFinding(Frozen):
    """Something that the preflight found about a model."""

    model: str
    check: str
    refuses: bool
    says: Said
    remedy: str

    @property
    def text(self) -> str:
        """In a line."""
        return f"{self.model}: {self.says} {self.remedy}"


class Preflight(Frozen):
    """Which models somebody looked at before they were evaluated, and what was found."""

    ran: bool = False
    """At all of them."""
    models: tuple[str, ...] = ()
    """Those that were looked at."""
    findings: tuple[ModelFinding, ...] = ()


class MeansUsed(Frozen):
    """How models were evaluated, which decides no verdict."""

    batch_sizes: Mapping[str, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    """By model."""
    attention: Settled | None = None
    """The path of all attention: explicit, fused or auto."""
    memory_format: Settled | None = None
    workers: int = Field(default=1, ge=1)
    """Processes that computed side by side when the run was begun or continued last."""
    compilation: Settled | None = None


class Maker(Frozen):
    """What decides a number beside the settings: our code, the packages and the kind of device."""

    code: str
    versions: Mapping[str, str]
    device: str


class Device(Frozen):
    """What computed."""

    type: str
    name: str
    cuda: str | None = None
    threads: int | None = None
    products: str = ""
    """Who multiplies matrices."""
    cores: int | None = None


class Git(Frozen):
    """The source tree that the package ran from."""

    commit: str
    changed: bool


class Check(Frozen):
    """One published accuracy beside the measured one. All accuracies are fractions."""

    dataset: str
    published: float
    conditions: str
    """How the published one was measured."""
    measured: float | None
    """None without a sample."""
    low: float
    high: float
    verdict: Literal["inside", "outside", "too few to tell"]
    n: int
    failed: int
    images: int
    """How many the published one is of."""
    cause: str = ""
    """The first change under which the published accuracy would be inside; empty if it is, or if none of them helps."""


class Verification(Frozen):
    """All checks of one model against its published accuracies."""

    model: str
    published_model: str
    rule: str
    checks: tuple[Check, ...]
    not_checked: Mapping[str, str]
    """Why, by data set."""
    tried: tuple[str, ...] = ()
    """Changes that were tried to explain a miss."""
    prepared: str = ""
    """How images were prepared, and whose preprocessing that is."""

    @property
    def verdict(self) -> Literal["inside", "outside", "too few to tell"]:
        """Outside if one check is, inside if all are."""
        found = {check.verdict for check in self.checks}
        return "outside" if "outside" in found else "too few to tell" if "too few to tell" in found else "inside"
