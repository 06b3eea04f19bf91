"""The other candidates: bare loops, and the packages that attack."""

import sys
from collections.abc import Mapping
from importlib.util import find_spec

import torch
from torch import nn
from torch.nn import functional as F

from attack_speed.task import Candidate, Images, Task
from robustbench_twicing.spec.attacks import ApgdSettings, PgdSettings, SpsaSettings, SquareSettings

OUR_NETWORK = ", our network"
"""What a candidate's name ends with if it is given the network that ours is given, instead of timm's."""


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


def bare_loops(loop: Candidate) -> dict[str, Candidate]:
    """The loop over timm's network and over ours, the latter with as many images at a time as ours takes."""
    return {"bare loop": loop, "bare loop" + OUR_NETWORK: loop}


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
    elif isinstance(settings, ApgdSettings):
        attack = there.APGD(task.model, "Linf", task.eps, settings.steps, settings.restarts, loss=settings.loss)
    elif isinstance(settings, SquareSettings):
        attack = there.Square(task.model, "Linf", task.eps, settings.queries, p_init=settings.p_init)
    else:
        attack = there.FGSM(task.model, task.eps)
    attack.set_device(task.images.device)
    found: Images = attack(task.images, task.labels)
    return found.detach()


def foolbox(task: Task, batch: int) -> Images:
    from foolbox.attacks import LinfFastGradientAttack, LinfPGD
    from foolbox.models import PyTorchModel

    model = PyTorchModel(task.model, bounds=(0, 1), device=task.images.device)
    attack: LinfFastGradientAttack | LinfPGD = LinfFastGradientAttack()
    if task.threat.settings.algorithm == "pgd":
        attack = LinfPGD(abs_stepsize=task.step, steps=task.pgd.steps, random_start=task.pgd.random_start)
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


def peers(*names: str) -> dict[str, Candidate]:
    """Those of the peers that are installed, torchattacks on our network as well; says which are not."""
    missing = [name for name in names if find_spec(PEERS[name][0]) is None]
    if missing:
        print(f"not installed, left out: {', '.join(missing)}; pip install -e '.[bench]'", file=sys.stderr)
    found = {name: PEERS[name][1] for name in names if name not in missing}
    return found | {name + OUR_NETWORK: run for name, run in found.items() if name == "torchattacks"}
