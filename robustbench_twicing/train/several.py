"""Several trainings at once, each in a process of its own on one core: the seeds of arms."""

import multiprocessing
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open

from robustbench_twicing.attention.methods import settled
from robustbench_twicing.catalog.zoo import model_spec
from robustbench_twicing.errors import UserError
from robustbench_twicing.train.digits import EPOCHS, TrainingMetrics, save_trained, train_digits, training_recipe


class Training(NamedTuple):
    """A model of the zoo, a seed, and the file that the weights go to."""

    model: str
    seed: int
    path: Path
    epochs: int = EPOCHS


def still_to_train(trainings: Sequence[Training]) -> list[Training]:
    """Those whose file is not there yet.

    Raises `UserError` for a file that is, and holds something else: another method, seed or recipe.
    """
    left = [one for one in trainings if not one.path.exists()]
    for one in trainings:
        if one not in left and _made_by(one.path) != _makes(one):
            raise UserError(
                f"{one.path} is there already, and is not {one.model} trained with seed {one.seed} by this recipe.",
                "Name another folder with --out, or remove the file.",
            )
    return left


def train_several(trainings: Sequence[Training], at_once: int) -> Iterator[tuple[Training, TrainingMetrics]]:
    """Train and save all, `at_once` at a time, and say of each when it is done.

    Given again after an interruption, with `still_to_train`, it goes on. Raises what a training raises; nothing is
    left running then.
    """
    context = multiprocessing.get_context("spawn")  # a fork of a process that has used torch may hang
    pool = ProcessPoolExecutor(min(at_once, len(trainings)), mp_context=context, initializer=_begin)
    jobs: dict[Future[TrainingMetrics], Training] = {}
    try:
        jobs = {pool.submit(_train, one): one for one in trainings}
        for job in as_completed(jobs):
            yield jobs[job], job.result()
    except BrokenProcessPool as error:
        raise UserError(
            "A training was killed from outside, perhaps for want of memory.",
            "Give the command again: finished ones are kept. Fewer at a time need less memory: --at-once 1.",
        ) from error
    finally:
        unfinished = not all(job.done() for job in jobs)
        pool.shutdown(wait=not unfinished, cancel_futures=True)
        for child in multiprocessing.active_children() if unfinished else ():
            child.terminate()


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C is for the parent to report
    torch.set_num_threads(1)


def _train(one: Training) -> TrainingMetrics:
    weights, metrics = train_digits(one.model, one.seed, one.epochs)
    save_trained(one.path, weights, metrics)
    return metrics


def _makes(one: Training) -> tuple[str, ...]:
    spec = model_spec(one.model, "digits")
    return spec.architecture, str(settled(spec.attention)), str(one.seed), training_recipe(one.epochs)


def _made_by(path: Path) -> tuple[str, ...]:
    try:
        with safe_open(path, "pt") as file:
            said = file.metadata() or {}
    except Exception:  # noqa: BLE001 - whatever it is, it is not what would be trained
        return ()
    return tuple(said.get(key, "") for key in ("architecture", "attention", "seed", "training_recipe"))
