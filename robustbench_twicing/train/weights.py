"""Trained weights in files, with what made them."""

import os
from pathlib import Path
from shlex import quote

import timm
import torch
from safetensors import safe_open
from safetensors.torch import save

from robustbench_twicing.attention.methods import settled
from robustbench_twicing.errors import UserError
from robustbench_twicing.train.job import ONE_CPU, Equipment, Job
from robustbench_twicing.train.loop import Outcome


def save_trained(path: Path, job: Job, outcome: Outcome, equipment: Equipment = ONE_CPU) -> list[Path]:
    """Write the weights as .safetensors, and their moving average beside it; what made them is in the metadata.

    Never half a file under the final name. Returns the files, the weights themselves last: if they are there, all is.
    """
    written = []
    averages = averages_of(path), outcome.averaged, outcome.averaged_correct
    for place, tensors, correct in (averages, (path, outcome.weights, outcome.test_correct)):
        if tensors is not None and correct is not None:
            _write(place, tensors, _metadata(job, outcome, correct, equipment))
            written.append(place)
    return written


def averages_of(path: Path) -> Path:
    """Where the moving average of weights in `path` goes."""
    return path.with_name(f"{path.stem}-ema{path.suffix}")


def states_of(path: Path) -> Path:
    """Where a training that will end in `path` keeps its checkpoints until then."""
    return path.with_name(f"{path.stem}.training")


def is_trained(path: Path, job: Job) -> bool:
    """Whether the weights are there. Raises `UserError` for a file that is, and that another training made."""
    if not path.exists():
        return False
    if _made_by(path) != _makes(job):
        raise UserError(
            f"{path} is there already, and is not {job.spec.name} trained with seed {job.seed} by this recipe.",
            "Name another place with --out, or remove the file.",
        )
    return True


def _write(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_bytes(save(tensors, metadata))
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        said = f"{path} could not be written: {error.strerror}."
        raise UserError(said, "Make room, and give the command again.") from error


def _metadata(job: Job, outcome: Outcome, correct: int, equipment: Equipment) -> dict[str, str]:
    share = correct / job.data.test_images if job.data.test_images else float("nan")
    recipe = "" if job.recipe.name == "digits" else f" --recipe {quote(job.recipe.name)}"
    against = job.recipe.adversarial
    recipe += f" --adversarial pgd-{against.steps} --eps {against.eps}" if against else ""
    start = f" --from {quote(job.start.text)}" if job.start else ""
    command = f"train --data {quote(job.data.name)} --model {quote(job.spec.name)}{recipe}{start} --seed {job.seed}"
    return {
        "architecture": job.spec.architecture,
        "attention": str(settled(job.spec.attention)),
        "data": job.data.name,
        "data_fingerprint": job.data.fingerprint,
        "seed": str(job.seed),
        "epochs": str(job.recipe.epochs),
        "recipe": job.recipe.model_dump_json(),
        "training_recipe": job.statement,
        "started_from": job.start.text if job.start else "",
        "precision": equipment.precision,
        "unreadable_images": str(len(outcome.unreadable)),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "clean_accuracy": f"{share:.4f} ({correct}/{job.data.test_images})",
        "command": f"twicing-bench {command}",
    }


_DECIDE = ("architecture", "attention", "seed", "training_recipe")


def _makes(job: Job) -> tuple[str, ...]:
    return job.spec.architecture, str(settled(job.spec.attention)), str(job.seed), job.statement


def _made_by(path: Path) -> tuple[str, ...]:
    try:
        with safe_open(path, "pt") as file:
            said = file.metadata() or {}
    except Exception:  # noqa: BLE001 - whatever it is, it is not what would be trained
        return ()
    return tuple(said.get(key, "") for key in _DECIDE)
