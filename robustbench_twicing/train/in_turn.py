"""Trainings one after another on what a machine has, or that torchrun gives: models, their controls, seeds."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from robustbench_twicing.catalog.language import TINY, language_models
from robustbench_twicing.catalog.zoo import model_spec
from robustbench_twicing.errors import UserError
from robustbench_twicing.models.build import load_model
from robustbench_twicing.models.identity import weights_hash
from robustbench_twicing.spec.methods import Attention
from robustbench_twicing.spec.models import ModelSpec
from robustbench_twicing.spec.training import TrainingRecipe
from robustbench_twicing.train.checkpoints import remove_states
from robustbench_twicing.train.job import ONE_CPU, Equipment, Job, Start, TrainingData, share_of
from robustbench_twicing.train.loop import Outcome, Progress, train
from robustbench_twicing.train.processes import ALONE, Processes
from robustbench_twicing.train.weights import save_trained, states_of


class Begun(NamedTuple):
    """A training that has been told of."""

    job: Job
    path: Path
    """Where the weights go."""


def job_of(model: str, data: TrainingData, recipe: TrainingRecipe, seed: int, start: str | None = None) -> Job:
    """A training of `NAME[+METHOD]`, from the weights `start`: a file, `timm:NAME` or `hf-hub:NAME`.

    Raises `UserError` for an unknown model or method, and for weights that cannot be had or do not fit.
    """
    if data.name == "text":
        (language,) = language_models(f"{model}=none")
        if language.architecture != TINY or start:
            hint = f"On the text {TINY} is, from random weights: train --data text --model '{TINY}+twicing'."
            raise UserError(f"{model!r} is not trained here.", hint)
        return Job(language.model_copy(update={"name": model}), recipe, data, seed)
    # Without a start a model needs no weights; naming a file asks the zoo for none.
    spec = model_spec(f"{model}={start or 'none'}", data.name)
    spec = spec.model_copy(update={"name": model})
    return Job(spec, recipe, data, seed, _start(spec, start) if start else None)


def _start(spec: ModelSpec, text: str) -> Start:
    network = load_model(spec.model_copy(update={"attention": Attention()})).network
    tensors = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
    return Start(text, weights_hash(network), tensors)


def train_in_turn(
    begun: Sequence[Begun],
    equipment: Equipment,
    processes: Processes = ALONE,
    progress: Callable[[Begun, Progress], None] | None = None,
) -> Iterator[tuple[Begun, Outcome]]:
    """Train and save one after another, and say of each when it is done; each goes on where it was interrupted.

    Raises, before the first begins, what is wrong with any of them.
    """
    for one in begun:
        share_of(one.job, equipment, processes.rank, processes.world)
        one.job.updates_per_epoch  # noqa: B018 - raises if there is no whole batch
    for one in begun:
        follow = None if progress is None else _follower(one, progress)
        yield one, train_and_save(one.job, one.path, equipment, follow, processes)


def train_and_save(
    job: Job,
    path: Path,
    equipment: Equipment = ONE_CPU,
    progress: Callable[[Progress], None] | None = None,
    processes: Processes = ALONE,
) -> Outcome:
    """Train, going on where it was interrupted, and save the weights in `path`: of several processes the first does."""
    outcome = train(job, equipment, states_of(path), progress, processes)
    if processes.rank == 0:
        save_trained(path, job, outcome, equipment)
        remove_states(states_of(path))
    return outcome


def _follower(one: Begun, progress: Callable[[Begun, Progress], None]) -> Callable[[Progress], None]:
    return lambda done: progress(one, done)
