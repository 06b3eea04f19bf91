"""Trainings of the digits, several at once, each in a process of its own on one core: the seeds of arms."""

import multiprocessing
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

import torch

from robustbench_twicing.catalog.zoo import model_spec
from robustbench_twicing.errors import UserError
from robustbench_twicing.spec.training import TrainingRecipe
from robustbench_twicing.train.digits import DigitsData
from robustbench_twicing.train.in_turn import train_and_save
from robustbench_twicing.train.job import Job
from robustbench_twicing.train.loop import Outcome
from robustbench_twicing.train.weights import is_trained


class Training(NamedTuple):
    """A model of the zoo to train on digits, a seed, and the file that the weights go to."""

    model: str
    seed: int
    path: Path
    recipe: TrainingRecipe


def digits_job(one: Training) -> Job:
    """What decides its weights. Raises `UserError` for an unknown model."""
    spec = model_spec(one.model, "digits")
    spec = spec.model_copy(update={"name": spec.name.removesuffix("@drop-in")})  # the weights come from here
    return Job(spec, one.recipe, DigitsData(), one.seed)


def still_to_train(trainings: Sequence[Training]) -> list[Training]:
    """Those whose file is not there yet.

    Raises `UserError` for a file that is, and holds something else: another method, seed or recipe.
    """
    return [one for one in trainings if not is_trained(one.path, digits_job(one))]


def train_several(trainings: Sequence[Training], at_once: int) -> Iterator[tuple[Training, Outcome]]:
    """Train and save all, `at_once` at a time, and say of each when it is done.

    Given again after an interruption, with `still_to_train`, it goes on. Raises what a training raises; nothing is
    left running then.
    """
    context = multiprocessing.get_context("spawn")  # a fork of a process that has used torch may hang
    pool = ProcessPoolExecutor(min(at_once, len(trainings)), mp_context=context, initializer=_begin)
    jobs: dict[Future[Outcome], Training] = {}
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


def _train(one: Training) -> Outcome:
    return train_and_save(digits_job(one), one.path)._replace(weights={}, averaged=None)
