"""Images per second of the attack engine: ours beside torchattacks, foolbox, ART and bare loops.

    pip install -e '.[bench]'
    OMP_WAIT_POLICY=active python benchmarks/attacks.py                # everything below that suits the device
    python benchmarks/attacks.py pgd spsa --device cuda --craft bfloat16

Measurements: pgd, unbreakable, spsa, fgsm, memory, batches, formats, deit-tiny (README.md says what each shows). Each
one gives all candidates the same weights and the same images in one process: ours as the tool loads them, peers in the
network that timm makes of them, and once more ("our network") in ours. They take turns, the first turn is a warm-up,
and what counts is the median over the turns of the ratio within a turn. Their models count the images that they
evaluate and the gradients that reach them. Beside the speed stands the final verdict on every image, given for all
candidates by the same float32 model. A turn during which other processes took more of the machine than --others is
repeated. On a machine that is never quiet, take one thread and believe the processor seconds: with more threads than
free cores they wait for each other, and the waiting counts.

The rows go to attacks-DEVICE-torchVERSION.csv; those of measurements that were not asked for stay.
"""

import argparse
import csv
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from itertools import accumulate, product
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from robustbench_twicing.attention.convert import apply_softmax
from robustbench_twicing.catalog.protocols import attack_threat, protocol
from robustbench_twicing.catalog.zoo import model_spec
from robustbench_twicing.data.digits import digits
from robustbench_twicing.engine.algorithms import ALGORITHMS
from robustbench_twicing.engine.contract import Queries
from robustbench_twicing.engine.losses import log_odds_against
from robustbench_twicing.machine.malloc import KEPT, M_MMAP_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, tell_glibc
from robustbench_twicing.models.build import load_model, new_network
from robustbench_twicing.models.classifier import Classifier
from robustbench_twicing.models.faster.compiled import Compiled
from robustbench_twicing.models.faster.last_block import read_tokens_only
from robustbench_twicing.models.faster.memory_format import MEMORY_FORMATS, set_memory_format
from robustbench_twicing.models.faster.onednn_layers import use_onednn
from robustbench_twicing.runner.tune import settle_attention
from robustbench_twicing.seeding import Draws
from robustbench_twicing.spec.attacks import PgdSettings, SpsaSettings
from robustbench_twicing.spec.models import Recipe
from robustbench_twicing.spec.threats import AttackThreat
from robustbench_twicing.spec.values import Eps

HERE = Path(__file__).parent

Images = torch.Tensor
Key = TypeVar("Key")


# --- models and images ------------------------------------------------------------------------------------------------


class Counted(nn.Module):
    """The model as every candidate gets it: counts calls, images evaluated, and gradients that came back to images."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.calls = self.forwards = self.backwards = 0
        self.eval()

    def forward(self, images: Images) -> torch.Tensor:
        self.calls += 1
        self.forwards += len(images)
        if torch.is_grad_enabled() and images.requires_grad:
            images = images.view_as(images)  # a hook of its own for each call
            images.register_hook(self._gradient)
        logits: torch.Tensor = self.model(images)
        return logits

    def _gradient(self, gradient: torch.Tensor) -> None:
        self.backwards += len(gradient)


class Unbreakable(nn.Module):
    """A model that always answers class 0, at the cost of `model` and with its gradients.

    20 is more than these logits ever differ by, and little enough that e^-20, the gradient of the cross-entropy, is an
    ordinary float32 number.
    """

    lead: torch.Tensor

    def __init__(self, model: nn.Module, classes: int) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("lead", 20.0 * F.one_hot(torch.tensor(0), classes).float())
        self.eval()

    def forward(self, images: Images) -> torch.Tensor:
        logits: torch.Tensor = self.model(images) + self.lead
        return logits


@dataclass(frozen=True)
class Task:
    """What every candidate is given."""

    model: nn.Module
    """The network that the candidate works on."""
    own: nn.Module
    """The same weights as the tool evaluates them, which candidates of ours get as `model`."""
    images: Images
    labels: torch.Tensor
    threat: AttackThreat
    name: str
    """Of the model, for the table."""
    classes: int

    @property
    def device(self) -> torch.device:
        return self.images.device

    @property
    def eps(self) -> float:
        return float(self.threat.eps)

    @property
    def pgd(self) -> PgdSettings:
        assert isinstance(self.threat.settings, PgdSettings)
        return self.threat.settings

    @property
    def step(self) -> float:
        return self.pgd.step_size.at(self.threat.eps)

    @property
    def spsa(self) -> SpsaSettings:
        assert isinstance(self.threat.settings, SpsaSettings)
        return self.threat.settings


def standard(attack: str, eps: str, **changes: int) -> AttackThreat:
    """An attack of the `standard` protocol."""
    threat = attack_threat(protocol("standard"), attack, Eps.parse(eps))
    return threat.model_copy(update={"settings": threat.settings.model_copy(update=changes)})


class Pair(NamedTuple):
    """One set of weights, frozen."""

    timms: nn.Module
    """As timm makes a network of them."""
    own: nn.Module
    """As the tool evaluates them."""

    def unbreakable(self, classes: int) -> "Pair":
        device = next(self.own.parameters()).device
        return Pair(Unbreakable(self.timms, classes).to(device), Unbreakable(self.own, classes).to(device))


def digits_pair(device: torch.device) -> Pair:
    """The shipped `deit`."""
    own = load_model(model_spec("deit", "digits"), device)
    settle_attention([own], device, True, None)
    network = new_network(own.card.spec.architecture)
    network.load_state_dict(own.network.state_dict())
    timms = Classifier(network, own.card, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)).to(device).eval().requires_grad_(False)
    timms.mean, timms.std = own.mean, own.std
    return Pair(timms, own)


def digit_images(count: int, model: nn.Module, device: torch.device) -> tuple[Images, torch.Tensor]:
    """Those of the first `count` test images that `model` answers correctly, and their labels."""
    data, none = digits(), Recipe()
    images = data.read(range(count), [none]).images[none].to(device)
    labels = torch.tensor(data.labels[:count], device=device)
    right = answers(model, images) == labels
    return images[right], labels[right]


def as_loaded(network: nn.Module, device: torch.device) -> Pair:
    """A network of timm's, and a copy changed as `load_model` changes one, on the path a CPU or a GPU usually takes."""
    timms = network.eval().requires_grad_(False).to(device)
    own = apply_softmax(deepcopy(timms))
    read_tokens_only(own)
    use_onednn(own)
    return Pair(timms, own)


def vit_32(device: torch.device) -> Pair:
    """A ViT for 32 x 32 images with 65 tokens, random weights: width 96, 6 blocks of 3 heads."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = VisionTransformer(img_size=32, patch_size=4, embed_dim=96, depth=6, num_heads=3, num_classes=10)
    return as_loaded(model, device)


def deit_tiny(device: torch.device) -> Pair:
    """DeiT-tiny at 224, random weights."""
    return as_loaded(new_network("deit_tiny_patch16_224"), device)


def random_images(count: int, side: int, device: torch.device) -> Images:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1)).to(device)


def answers(model: nn.Module, images: Images) -> torch.Tensor:
    """The verdict that counts: float32, in batches of the same size whoever made the images."""
    with torch.no_grad():
        return torch.cat([model(part).argmax(1) for part in images.split(64)])


# --- candidates: (task, batch size) -> perturbed images ---------------------------------------------------------------

Candidate = Callable[[Task, int], Images]


def ours(task: Task, batch: int) -> Images:
    return attacked_by_ours(task, task.model, batch)


def ours_crafting_with(changed: Callable[[nn.Module], nn.Module]) -> Candidate:
    """Ours, with a changed network while the attack looks for its images; the change itself is not timed.

    As `--precision` and `--compile`: what that network takes for broken and float32 does not is attacked again.
    """
    changed = cache(changed)

    def run(task: Task, batch: int) -> Images:
        assert isinstance(task.model, Counted)
        lower = Counted(changed(task.model.model))
        found = attacked_by_ours(task, lower, batch)
        again = Queries(lower, batch)(found).argmax(1) != task.labels
        if again.any():  # the tool knows float32's verdict here, which is on nobody's clock
            again[again.clone()] = Queries(task.model, batch)(found[again]).argmax(1) == task.labels[again]
        if again.any():
            rest = replace(task, images=task.images[again], labels=task.labels[again])
            found[again] = attacked_by_ours(rest, task.model, batch)
        task.model.calls += lower.calls
        task.model.forwards += lower.forwards
        task.model.backwards += lower.backwards
        return found

    return run


class Rounded(nn.Module):
    """A network in a lower precision between float32 images and float32 logits."""

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.model = model
        self.dtype = dtype

    def forward(self, images: Images) -> torch.Tensor:
        logits: torch.Tensor = self.model(images.to(self.dtype))
        return logits.float()


def attacked_by_ours(task: Task, model: nn.Module, batch: int) -> Images:
    draws = Draws(0, tuple(f"image-{row}" for row in range(len(task.images))), task.threat.id)
    algorithm = ALGORITHMS[task.threat.settings.algorithm]
    queries = Queries(model, batch)
    return algorithm(queries, task.images, task.labels, task.threat, draws).images


def input_gradient(model: nn.Module, images: Images, labels: torch.Tensor) -> Images:
    """One forward and one input gradient."""
    images = images.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(model(images), labels, reduction="sum"), images)
    return gradient


def bare_pgd(task: Task, batch: int) -> Images:
    """One forward and one input gradient for every image and step, and nothing else but the step itself."""
    found = []
    for part, target in zip(task.images.split(batch), task.labels.split(batch), strict=True):
        low, high = (part - task.eps).clamp_(0, 1), (part + task.eps).clamp_(0, 1)
        current = torch.empty_like(part).uniform_(-task.eps, task.eps).add_(part).clamp_(0, 1)
        for _ in range(task.pgd.steps):
            gradient = input_gradient(task.model, current, target)
            current = torch.clamp(current.add(gradient.sign_(), alpha=task.step), low, high)
        found.append(current)
    return torch.cat(found)


def bare_fgsm(task: Task, batch: int) -> Images:
    found = []
    for part, target in zip(task.images.split(batch), task.labels.split(batch), strict=True):
        gradient = input_gradient(task.model, part, target)
        found.append(part.add(gradient.sign_(), alpha=task.eps).clamp_(0, 1))
    return torch.cat(found)


def per_image_spsa(task: Task, batch: int) -> Images:
    """SPSA as cleverhans organises it (cleverhans/torch/attacks/spsa.py): image by image, all 2 x 128 probes of a step
    as one batch, one more evaluation a step to see whether to stop (never, here), Adam of torch.

    It probes around the current point; cleverhans' own probes lie around 2x, which costs the same.
    """
    settings, found = task.spsa, []
    distance, rate = settings.probe_distance.at(task.threat.eps), settings.step_size.at(task.threat.eps)
    for image, label in zip(task.images, task.labels, strict=True):
        perturbation = torch.zeros_like(image)
        adam = torch.optim.Adam([perturbation], lr=rate)
        for _ in range(settings.steps):
            with torch.no_grad():
                task.model((image + perturbation)[None])
                signs = torch.empty(settings.samples, *image.shape, device=image.device).bernoulli_().mul_(2).sub_(1)
                both = torch.cat((signs, -signs))
                logits = task.model(image + perturbation + distance * both)
                others = torch.cat((logits[:, :label], logits[:, label + 1 :]), dim=1).amax(1)
                perturbation.grad = ((logits[:, label] - others)[:, None, None, None] * both).mean(0) / distance
            adam.step()
            perturbation.clamp_(-task.eps, task.eps).copy_((image + perturbation).clamp_(0, 1) - image)
        found.append(image + perturbation)
    return torch.stack(found)


def torchattacks(task: Task, batch: int) -> Images:
    import torchattacks as there

    settings = task.threat.settings
    if isinstance(settings, PgdSettings):
        attack = there.PGD(task.model, task.eps, task.step, settings.steps, settings.random_start)
    elif isinstance(settings, SpsaSettings):
        rate, distance = settings.step_size.at(task.threat.eps), settings.probe_distance.at(task.threat.eps)
        attack = there.SPSA(task.model, task.eps, distance, rate, settings.steps, settings.samples)
    else:
        attack = there.FGSM(task.model, task.eps)
    attack.set_device(task.images.device)
    found: Images = attack(task.images, task.labels)
    return found.detach()


def foolbox(task: Task, batch: int) -> Images:
    import foolbox as there

    model = there.PyTorchModel(task.model, bounds=(0, 1), device=task.images.device)
    if task.threat.settings.algorithm == "pgd":
        attack = there.attacks.LinfPGD(abs_stepsize=task.step, steps=task.pgd.steps, random_start=task.pgd.random_start)
    else:
        attack = there.attacks.LinfFastGradientAttack()
    found: Images = attack(model, task.images, task.labels, epsilons=task.eps)[1]
    return found.detach()


def art(task: Task, batch: int) -> Images:
    from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescent
    from art.estimators.classification import PyTorchClassifier

    images = task.images
    model = PyTorchClassifier(
        task.model,
        nn.CrossEntropyLoss(),
        tuple(images.shape[1:]),
        task.classes,
        clip_values=(0.0, 1.0),
        device_type="gpu" if images.device.type == "cuda" else "cpu",
    )
    if task.threat.settings.algorithm == "pgd":
        attack = ProjectedGradientDescent(
            model,
            eps=task.eps,
            eps_step=task.step,
            max_iter=task.pgd.steps,
            num_random_init=int(task.pgd.random_start),
            batch_size=len(images),
            verbose=False,
        )
    else:
        attack = FastGradientMethod(model, eps=task.eps, batch_size=len(images))
    found = attack.generate(images.cpu().numpy(), task.labels.cpu().numpy())
    return torch.from_numpy(found).to(images.device)


PEERS: Mapping[str, tuple[str, Candidate]] = {
    "torchattacks": ("torchattacks", torchattacks),
    "foolbox": ("foolbox", foolbox),
    "ART": ("art", art),
}
"""Name in the tables -> module, candidate."""


OUR_NETWORK = ", our network"
"""What a candidate's name ends with if it is given the network that ours is given, instead of timm's."""


def peers(*names: str) -> dict[str, Candidate]:
    """Those of the peers that are installed, torchattacks on our network as well; says which are not."""
    missing = [name for name in names if find_spec(PEERS[name][0]) is None]
    if missing:
        print(f"not installed, left out: {', '.join(missing)}; pip install -e '.[bench]'", file=sys.stderr)
    found = {name: PEERS[name][1] for name in names if name not in missing}
    return found | {name + OUR_NETWORK: run for name, run in found.items() if name == "torchattacks"}


# --- taking turns -----------------------------------------------------------------------------------------------------


@dataclass
class Turn:
    """One run of one candidate."""

    seconds: float
    processor: float
    """Processor seconds of this process, all threads."""
    others: float
    """Share of the machine's processors that other processes took meanwhile; NaN where the kernel does not say."""

    @property
    def cost(self) -> float:
        """Seconds on the clock; with one thread those of the processor, which other processes do not change."""
        return self.seconds if torch.get_num_threads() > 1 or torch.cuda.is_available() else self.processor


def busy_seconds() -> float:
    """Processor seconds that the whole machine has spent so far."""
    if not Path("/proc/stat").exists():
        return float("nan")
    user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def timed(run: Callable[[], Images], device: torch.device) -> tuple[Turn, Images]:
    if device.type == "cuda":
        torch.cuda.synchronize()
    busy, processor, clock = busy_seconds(), time.process_time(), time.perf_counter()
    found = run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - clock
    processor = time.process_time() - processor
    others = max(0.0, busy_seconds() - busy - processor) / seconds / (os.cpu_count() or 1)
    return Turn(seconds, processor, others), found


ALONE = {M_MMAP_MAX: 2**16, M_MMAP_THRESHOLD: 2**25, M_TRIM_THRESHOLD: 2**26}
"""For the others' turns: the most that glibc, left alone, learns to keep in a process of theirs."""


def take_turns(
    candidates: Mapping[str, Candidate], task: Task, batch: int, arguments: argparse.Namespace
) -> tuple[dict[str, list[Turn]], dict[str, Images], dict[str, tuple[int, int, int]]]:
    """Turns of each candidate, what it found in the last one, and (calls, forwards, backwards) of that."""
    turns: dict[str, list[Turn]] = {name: [] for name in candidates}
    found, spent = {}, {}
    names, most = list(candidates), 4 * arguments.turns
    for number in range(most + 1):
        now = {}
        for name in names[number % len(names) :] + names[: number % len(names)]:
            counted = Counted(task.own if name.startswith("ours") or name.endswith(OUR_NETWORK) else task.model)
            given, candidate = replace(task, model=counted), candidates[name]
            torch.manual_seed(number)  # what peers draw from
            tell_glibc(KEPT if name.startswith("ours") else ALONE)
            now[name], found[name] = timed(lambda c=candidate, g=given: c(g, batch), task.device)
            spent[name] = counted.calls, counted.forwards, counted.backwards
        disturbed = max(turn.others for turn in now.values()) > arguments.others
        enough_left = most - number >= arguments.turns - len(turns[names[0]])
        if number == 0 or (disturbed and enough_left):
            continue
        for name, turn in now.items():
            turns[name].append(turn)
        if len(turns[names[0]]) == arguments.turns:
            break
    return turns, found, spent


def compared(
    measurement: str,
    task: Task,
    candidates: Mapping[str, Candidate],
    arguments: argparse.Namespace,
    batch: int,
    weights: str = "frozen",
    scaled: float = 1.0,
) -> Iterator[dict[str, object]]:
    """A row for each candidate. `scaled`: the whole attack takes that many times what was run."""
    turns, found, spent = take_turns(candidates, task, batch, arguments)
    count = len(task.images)
    fooled = {name: answers(task.own, images) != task.labels for name, images in found.items()}
    settings = task.threat.settings
    for name, each in turns.items():
        rates = [count / turn.seconds / scaled for turn in each]
        pairs = list(zip(each, turns["ours"], strict=True))
        calls, forwards, backwards = spent[name]
        yield {
            "measurement": measurement,
            "model": task.name,
            "weights": weights,
            "eps": str(task.threat.eps),
            "steps": settings.steps_taken,
            "candidate": name,
            "batch": batch if name.startswith(("ours", "bare")) else "",
            "images": count,
            **spread("images_per_second", rates, 4),
            **spread("ours_over_this", [turn.seconds / own.seconds for turn, own in pairs], 3),
            **spread("ours_over_this_processor", [turn.processor / own.processor for turn, own in pairs], 3),
            "model_calls": calls,
            "forwards": forwards,
            "backwards": backwards,
            "broken": int(fooled[name].sum()),
            "broken_by_ours_only": int((fooled["ours"] & ~fooled[name]).sum()),
            "broken_by_this_only": int((fooled[name] & ~fooled["ours"]).sum()),
            "largest_change_over_eps": round(float((found[name] - task.images).abs().max()) / (task.eps or 1.0), 6),
            "scaled_by": scaled,
            "others_share": round(statistics.median(turn.others for turn in each), 3),
        }


def spread(what: str, numbers: list[float], digits: int) -> dict[str, float]:
    """Median, lowest and highest."""
    return {
        what: round(statistics.median(numbers), digits),
        f"{what}_lowest": round(min(numbers), digits),
        f"{what}_highest": round(max(numbers), digits),
    }


# --- measurements -----------------------------------------------------------------------------------------------------


def pgd_rows(arguments: argparse.Namespace) -> Iterator[dict[str, object]]:
    """PGD-20 on what `deit` answers correctly of the digits."""
    device = torch.device(arguments.device)
    timms, loaded = digits_pair(device)
    images, labels = digit_images(arguments.images, loaded, device)
    batch = arguments.batch or fastest_batch(loaded, images)
    candidates = {**own(arguments), **bare_loops(bare_pgd), **peers("torchattacks", "foolbox", "ART")}
    for weights, eps in product(("frozen", "trainable"), ("4/255", "1/255")):
        timms.requires_grad_(weights == "trainable")
        task = Task(timms, loaded, images, labels, standard("pgd", eps), "digits deit", 10)
        yield from compared("pgd", task, candidates, arguments, batch, weights)


def unbreakable_rows(arguments: argparse.Namespace) -> Iterator[dict[str, object]]:
    """PGD-20 where no sample leaves early: what the engine costs beside the model."""
    device = torch.device(arguments.device)
    pair = digits_pair(device)
    images, labels = digit_images(arguments.images, pair.own, device)
    hard = pair.unbreakable(10)
    none, threat = torch.zeros_like(labels), standard("pgd", "4/255")
    task = Task(*hard, images, none, threat, "digits deit, unbreakable", 10)
    batch = arguments.batch or fastest_batch(task.own, images)
    candidates = {**own(arguments), **bare_loops(bare_pgd), **peers("torchattacks")}
    yield from compared("unbreakable", task, candidates, arguments, batch)


def spsa_rows(arguments: argparse.Namespace) -> Iterator[dict[str, object]]:
    """SPSA with 128 directions and no sample that leaves, some of its 40 steps."""
    device = torch.device(arguments.device)
    count = arguments.spsa_images
    pair = digits_pair(device)
    models: dict[str, tuple[Pair, Images, int]] = {
        "digits deit, unbreakable": (pair, digit_images(2 * count, pair.own, device)[0][:count], 10),
        "vit 32 px, unbreakable": (vit_32(device), random_images(count, 32, device), 10),
    }
    if device.type == "cuda":
        models["deit-tiny, unbreakable"] = (deit_tiny(device), random_images(count, 224, device), 1000)
    candidates = {**own(arguments), "image by image": per_image_spsa, **peers("torchattacks")}
    scaled = standard("spsa", "1/255").settings.steps_taken / arguments.spsa_steps
    for name, (pair, images, classes) in models.items():
        threat = standard("spsa", "1/255", steps=arguments.spsa_steps)
        labels = torch.zeros(len(images), dtype=torch.int64, device=device)
        task = Task(*pair.unbreakable(classes), images, labels, threat, name, classes)
        batch = arguments.batch or fastest_batch(task.own, images, gradient=False)
        yield from compared("spsa", task, candidates, arguments, batch, scaled=scaled)


def fgsm_rows(arguments: argparse.Namespace) -> Iterator[dict[str, object]]:
    """FGSM on what `deit` answers correctly of the digits."""
    device = torch.device(arguments.device)
    timms, loaded = digits_pair(device)
    images, labels = digit_images(arguments.images, loaded, device)
    batch = arguments.batch or fastest_batch(loaded, images)
    candidates = {"ours": ours, **bare_loops(bare_fgsm), **peers("torchattacks", "foolbox", "ART")}
    for weights in ("frozen", "trainable"):
        timms.requires_grad_(weights == "trainable")
        task = Task(timms, loaded, images, labels, standard("fgsm", "4/255"), "digits deit", 10)
        yield from compared("fgsm", task, candidates, arguments, batch, weights)


def deit_tiny_rows(arguments: argparse.Namespace) -> Iterator[dict[str, object]]:
    """PGD-20 on DeiT-tiny at 224, random weights and images; labels are the model's own answers, or unbreakable."""
    device = torch.device(arguments.device)
    count = arguments.large_images or (16 if device.type == "cpu" else 256)
    pair, images = deit_tiny(device), random_images(count, 224, device)
    batch = arguments.batch or fastest_batch(pair.own, images)
    candidates = {**own(arguments), **bare_loops(bare_pgd), **peers("torchattacks", "foolbox", "ART")}
    threat = standard("pgd", "1/255")
    task = Task(*pair, images, answers(pair.own, images), threat, "deit-tiny, random weights", 1000)
    yield from compared("deit-tiny", task, candidates, arguments, batch)
    none = torch.zeros_like(task.labels)
    task = Task(*pair.unbreakable(1000), images, none, threat, "deit-tiny, unbreakable", 1000)
    yield from compared("deit-tiny", task, candidates, arguments, batch)


def bare_loops(loop: Candidate) -> dict[str, Candidate]:
    """The loop over timm's network and over ours, the latter with as many images at a time as ours takes."""
    return {"bare loop": loop, "bare loop" + OUR_NETWORK: loop}


def own(arguments: argparse.Namespace) -> dict[str, Candidate]:
    """Ours, and ours crafting in the precision that was asked for, and compiled."""
    candidates = {"ours": ours}
    if arguments.craft:
        dtype = getattr(torch, arguments.craft)
        candidates[f"ours, crafted in {arguments.craft}"] = ours_crafting_with(lambda model: rounded(model, dtype))
    if arguments.compile:
        candidates["ours, compiled"] = ours_crafting_with(Compiled)
    if arguments.craft and arguments.compile:
        candidates[f"ours, compiled, in {arguments.craft}"] = ours_crafting_with(
            lambda model: Compiled(rounded(model, dtype))
        )
    return candidates


def rounded(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    return Rounded(deepcopy(model).to(dtype), dtype)


def batch_rate(model: nn.Module, images: Images, size: int, gradient: bool) -> float:
    """Images per second as the tool evaluates them, `size` at a time."""
    labels = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    queries = Queries(model, size)

    def run() -> Images:
        return queries.gradient(images, labels, log_odds_against)[1] if gradient else queries(images)

    return len(images) / timed(run, images.device)[0].cost


def batch_sizes(side: int, device: torch.device) -> list[int]:
    """Those worth a try for images of `side` pixels."""
    if device.type == "cuda":
        return [2**power for power in range(5, 13 if side < 100 else 10)]
    return [2**power for power in range(3, 10 if side < 100 else 7)]


def fastest_batch(model: nn.Module, images: Images, gradient: bool = True) -> int:
    """The size at which the model evaluates images such as these fastest; of three turns."""
    sizes = batch_sizes(images.shape[-1], images.device)
    many = images.repeat(-(-sizes[-1] // len(images)), 1, 1, 1)[: sizes[-1]]
    rates = {size: [batch_rate(model, many, size, gradient) for _ in range(4)][1:] for size in sizes}
    return max(sizes, key=lambda size: statistics.median(rates[size]))


def batch_rows(arguments: argparse.Namespace) -> Iterator[dict[str, object]]:
    """How fast each model is at each batch size, forward alone and with the input gradient."""
    device = torch.device(arguments.device)
    small, middle, large = (make(device).own for make in (digits_pair, vit_32, deit_tiny))
    models = {"digits deit": (small, 32), "vit 32 px": (middle, 32), "deit-tiny": (large, 224)}
    for (name, (model, side)), gradient in product(models.items(), (False, True)):
        sizes = batch_sizes(side, device)
        images = random_images(sizes[-1], side, device)
        rows = raced({size: partial(batch_rate, model, images, size, gradient) for size in sizes}, arguments.turns)
        for size, numbers in rows:
            yield {
                "measurement": "batches",
                "model": name,
                "candidate": "forward and input gradient" if gradient else "forward",
                "batch": size,
                "images": len(images),
                **numbers,
            }


def format_rows(arguments: argparse.Namespace) -> Iterator[dict[str, object]]:
    """How fast networks with convolutions are in each memory format, forward alone and with the input gradient."""
    device = torch.device(arguments.device)
    tell_glibc(KEPT)
    images = random_images(arguments.large_images or 16, 224, device)
    for name, gradient in product(("resnet50", "efficientnet_b0", "vgg11", "convnext_atto"), (False, True)):
        networks = {lying: new_network(name).eval().requires_grad_(False).to(device) for lying in MEMORY_FORMATS}
        for lying, network in networks.items():
            set_memory_format([network], lying)
        rates = {lying: partial(batch_rate, network, images, 16, gradient) for lying, network in networks.items()}
        for lying, numbers in raced(rates, arguments.turns):
            yield {
                "measurement": "formats",
                "model": name,
                "candidate": f"forward{' and input gradient' if gradient else ''}, {lying}",
                "batch": 16,
                "images": len(images),
                **numbers,
            }


def raced(rates: Mapping[Key, Callable[[], float]], turns: int) -> Iterator[tuple[Key, dict[str, float]]]:
    """Of each, the images per second in turns, after a warm-up, and how many times that the fastest one makes."""
    found: dict[Key, list[float]] = {key: [] for key in rates}
    for turn in range(turns + 1):
        for key, rate in rates.items():
            measured = rate()
            if turn:
                found[key].append(measured)
    best = max(found.values(), key=statistics.median)
    for key, some in found.items():
        over = [b / r for b, r in zip(best, some, strict=True)]
        yield key, {**spread("images_per_second", some, 1), **spread("best_over_this", over, 3)}


def memory_rows(arguments: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Peak memory of PGD on some images beside that of one forward and input gradient of all of them."""
    device = torch.device(arguments.device)
    large = 16 if device.type == "cpu" else 256
    models: dict[str, tuple[Pair, Images, int]] = {
        "digits deit, unbreakable": (digits_pair(device), random_images(256, 32, device), 10),
        "deit-tiny, unbreakable": (deit_tiny(device), random_images(large, 224, device), 1000),
    }
    for name, (pair, images, classes) in models.items():
        labels = torch.zeros(len(images), dtype=torch.int64, device=device)
        threat = standard("pgd", "1/255", steps=3)
        own_network = pair.unbreakable(classes).own
        task = Task(own_network, own_network, images, labels, threat, name, classes)
        works: dict[str, tuple[Candidate, int]] = {
            "one forward and gradient": (lambda task, _: input_gradient(task.model, task.images, task.labels), 0),
            "ours": (ours, len(images)),
            "bare loop": (bare_pgd, len(images)),
            **{name: (run, 0) for name, run in peers("torchattacks").items()},
            "ours, in quarters": (ours, len(images) // 4),
        }
        peaks = {what: peak(partial(run, task, batch), device) for what, (run, batch) in works.items()}
        for what, (_, batch) in works.items():
            yield {
                "measurement": "memory",
                "model": name,
                "candidate": what,
                "batch": batch or len(images),
                "images": len(images),
                "peak_mib": round(peaks[what] / 2**20, 1),
                "peak_over_forward_and_gradient": round(peaks[what] / peaks["one forward and gradient"], 3),
            }


def peak(run: Callable[[], Images], device: torch.device) -> int:
    """Bytes that torch's allocator hands out at the same time, beyond those of before."""
    run()  # what is set up once
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    return max(accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())))


MEASUREMENTS = {
    "pgd": pgd_rows,
    "unbreakable": unbreakable_rows,
    "spsa": spsa_rows,
    "fgsm": fgsm_rows,
    "memory": memory_rows,
    "batches": batch_rows,
    "formats": format_rows,
    "deit-tiny": deit_tiny_rows,
}


# --- the table --------------------------------------------------------------------------------------------------------


def conditions(arguments: argparse.Namespace) -> dict[str, object]:
    """What the numbers depend on, for every row."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    packages = ("torch", "timm", "torchattacks", "foolbox", "adversarial-robustness-toolbox")
    return {
        "turns": arguments.turns,
        "device": device_name(arguments.device),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY", ""),
        "load_at_start": round(os.getloadavg()[0], 1),
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "commit": commit.stdout.strip(),
        "python": platform.python_version(),
        **{package: installed(package) for package in packages},
    }


def installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def device_name(device: str) -> str:
    if device != "cpu":
        return torch.cuda.get_device_name(device)
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def write(path: Path, rows: list[dict[str, object]]) -> None:
    """Replace the rows of the same measurements, keep the others."""
    measured = {row["measurement"] for row in rows}
    kept: list[dict[str, object]] = []
    if path.exists():
        with path.open(newline="") as file:
            kept = [dict(row) for row in csv.DictReader(file) if row["measurement"] not in measured]
    order = list(MEASUREMENTS)
    table = sorted(kept + rows, key=lambda row: order.index(str(row["measurement"])))
    columns = list(dict.fromkeys(column for row in table for column in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)


def line(row: Mapping[str, object]) -> str:
    """A row for the console."""
    head = f"{row['measurement']:12} {row['model']:26} {row.get('weights', ''):9} {row.get('eps', ''):6} "
    head += f"{row['candidate']:42} batch {row['batch']!s:4}"
    if "peak_mib" in row:
        return f"{head} {row['peak_mib']:>8} MiB, {row['peak_over_forward_and_gradient']} of one forward and gradient"
    rate = f"{row['images_per_second']:>9} images/s"
    if "ours_over_this" not in row:
        return f"{head} {rate}, best/this {row['best_over_this']}"
    ratio = f"ours/this {row['ours_over_this']} ({row['ours_over_this_lowest']}-{row['ours_over_this_highest']})"
    ratio += f", processor {row['ours_over_this_processor']}"
    verdicts = f"broken {row['broken']} (ours only {row['broken_by_ours_only']}, this {row['broken_by_this_only']})"
    return f"{head} {rate} {ratio}  {row['forwards']} / {row['backwards']}  {verdicts}  others {row['others_share']}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measurement", nargs="*", metavar="MEASUREMENT", help=f"of {', '.join(MEASUREMENTS)}")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch, on the CPU")
    parser.add_argument("--turns", type=int, default=5, help="that count, after the warm-up")
    parser.add_argument("--others", type=float, default=0.06, help="share of the machine that spoils a turn")
    parser.add_argument("--batch", type=int, help="ours and the bare loop's; without it, the fastest")
    parser.add_argument("--craft", choices=["bfloat16", "float16"], help="a candidate more: crafting in this precision")
    parser.add_argument("--compile", action="store_true", help="candidates more: crafting with torch.compile")
    parser.add_argument("--images", type=int, default=256, help="digits")
    parser.add_argument("--large-images", type=int, help="images of 224 pixels; 16 or, on CUDA, 256")
    parser.add_argument("--spsa-images", type=int, default=8)
    parser.add_argument("--spsa-steps", type=int, default=3, help="of 40; images per second are scaled to 40")
    parser.add_argument("--out", type=Path, help="CSV; without it, one named by device and version of torch")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.measurement) - set(MEASUREMENTS))
    if unknown:
        parser.error(f"unknown measurement {', '.join(unknown)}; there are {', '.join(MEASUREMENTS)}")
    torch.set_num_threads(arguments.threads)
    name = re.sub(r"[^a-z0-9]+", "-", f"{arguments.device.partition(':')[0]} {device_name(arguments.device)}".lower())
    out = arguments.out or HERE / f"attacks-{name.strip('-')}-torch{torch.__version__.partition('+')[0]}.csv"
    chosen = arguments.measurement or [
        each for each in MEASUREMENTS if each != "deit-tiny" or arguments.device != "cpu"
    ]
    for measurement in chosen:
        rows = []
        for row in MEASUREMENTS[measurement](arguments):
            rows.append(row | conditions(arguments))
            print(line(row), flush=True)
        write(out, rows)


if __name__ == "__main__":
    main()
