"""Is the robustness of a model real: checks of its gradient, and attacks that must not do better than gradients.

The list follows Carlini et al. 2019 (arXiv 1902.06705) and the indicators of attack failure of Pintor et al. 2022
(arXiv 2106.09947): unavailable gradients, unstable predictions, incomplete optimisation, transfer failure,
unconstrained attack failure; and the binarization test of Zimmermann et al. 2022 (arXiv 2206.13991).
"""

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import NamedTuple

import torch

from robustbench_twicing.catalog.protocols import attack_threat, protocol
from robustbench_twicing.engine.contract import Queries
from robustbench_twicing.engine.losses import log_odds_against
from robustbench_twicing.inside.binarization import CORNERS, Binarized, binarized
from robustbench_twicing.inside.broken import Samples, broken_by, right
from robustbench_twicing.inside.diagnosis import Diagnosis, Difference, Grade, Item
from robustbench_twicing.inside.gradients import gradient_items, repeatable, require_right
from robustbench_twicing.inside.surrogates import smoothed, with_plain_gradient
from robustbench_twicing.metrics.intervals import paired_difference_interval
from robustbench_twicing.models.classifier import Classifier
from robustbench_twicing.spec.threats import AttackThreat
from robustbench_twicing.spec.values import Eps

Say = Callable[[str], None]


class Budget(NamedTuple):
    """How hard the attacks try."""

    steps: int
    """Of PGD; half of it of APGD, a fifth of each attack that is not white-box."""
    restarts: int
    targets: int
    trials: int
    queries: int
    spsa: int
    """Steps of SPSA, with 2 x 32 probes each."""
    binarized: int
    """Images of the binarization test."""


USUAL = Budget(steps=100, restarts=2, targets=9, trials=100, queries=300, spsa=5, binarized=16)
THOROUGH = Budget(steps=500, restarts=5, targets=9, trials=500, queries=5000, spsa=40, binarized=64)


_PGD = 20
"""Steps of the attack that everybody runs first."""
_SOME, _SHARE = 3, 0.05
"""From so many samples on, and this share of all, what a weaker attacker breaks alone is no chance find."""


def diagnose(
    model: Classifier,
    samples: Samples,
    eps: Eps,
    others: Sequence[Classifier] = (),
    budget: Budget = USUAL,
    seed: int = 0,
    say: Say = lambda what: None,
) -> Diagnosis:
    """Every check of one model in the L∞ ball of `eps`; `others` are models to transfer attacks from.

    What changes the model is a copy. Raises `UserError` if it answers no image rightly.
    """
    samples = samples.take(right(model, samples))
    name = model.card.spec.name
    require_right(len(samples.ids), name)
    say(f"{name}: gradients …")
    items = [repeatable(model, samples.images)]
    if items[0].grade == "F":
        why = "The other checks: of a model that draws at random their numbers would mean nothing."
        return Diagnosis(name, str(eps), len(samples.ids), tuple(items), (), (), (why,), samples.ids)
    found, skipped = gradient_items(model, samples.images, samples.labels)
    items += found
    hunt = _Hunt(model, samples, eps, seed, budget)
    if any(item.key == "gradient" and item.said == "none" for item in items):
        skipped.append("Attacks by gradients: there is none.")
    else:
        say(f"{name}: attacks by gradients …")
        items.append(_progress(model, samples, eps))
        threat = _threat("pgd", eps, {"steps": _PGD}, False)
        tested, untested = _binarization(model, samples, threat, seed, budget.binarized)
        items += tested
        skipped += untested
        items += hunt.by_gradients()
    say(f"{name}: attacks without gradients, and by other gradients …")
    items += hunt.by_others(others)
    if not others:
        skipped.append("Transfer from other models: name another with --model.")
    robust = tuple(one for one, stands in zip(samples.ids, hunt.standing.tolist(), strict=True) if stands)
    return Diagnosis(
        name, str(eps), len(samples.ids), tuple(items), robust, hunt.under_pgd, tuple(skipped), samples.ids
    )


def _progress(model: Classifier, samples: Samples, eps: Eps) -> Item:
    """The loss over 20 steps of plain PGD from the image itself."""
    queries, size = Queries(model, model.batch_size), float(eps)
    current, losses, signs = samples.images, [], []
    for _ in range(_PGD + 1):
        logits, gradient = queries.gradient(current, samples.labels, log_odds_against)
        losses.append(log_odds_against(logits, samples.labels))
        signs.append(gradient.sign())
        moved = current + 0.125 * size * gradient.sign()
        current = torch.minimum(torch.maximum(moved, samples.images - size), samples.images + size).clamp(0, 1)
    trace = torch.stack(losses)
    stuck = float((trace[1:].amax(0) <= trace[0]).double().mean())
    down = float((trace[1:] < trace[:-1]).double().mean())
    agree = float((torch.stack(signs[1:]) == torch.stack(signs[:-1])).double().mean())
    return Item(
        "progress",
        "loss goes up",
        stuck,
        f"{100 * stuck:.0f} % stuck",
        "F" if stuck >= 0.5 else "C" if stuck > 0.1 else "A",
        f"Share of images whose loss never rises above its start in {_PGD} steps. It falls in {100 * down:.0f} % of "
        f"the steps; {100 * agree:.0f} % of the gradient's signs agree with those of the step before.",
        "Where it does not rise, the gradient does not say where to go: look at the checks of the gradient.",
    )


def _binarization(
    model: Classifier, samples: Samples, threat: AttackThreat, seed: int, count: int
) -> tuple[list[Item], list[str]]:
    """The item of the test, or why there is none."""
    first = torch.arange(len(samples.ids), device=samples.images.device) < count
    try:
        found = binarized(model, samples.take(first), threat, seed)
    except Exception as error:  # noqa: BLE001  # whatever the user's own model raises with another last layer
        return [], [f"Binarization test: {type(error).__name__}: {error}"]
    if found is None:
        return [], ["Binarization test: the network does not end in a linear layer whose outputs are the logits."]
    if not found.tested:
        return [], ["Binarization test: no hyperplane of the features tells the edge of the ball from points within."]
    if found.by_chance > found.tested / 2:
        chance = f"{found.by_chance} of {found.tested}"
        return [], [f"Binarization test: random corners solve it too ({chance}), so that to pass it says nothing."]
    return [binarization_item(found)], []


def binarization_item(found: Binarized) -> Item:
    """What the binarization test says of the attack that it was run with."""
    missed = found.tested - found.found
    serious = missed >= _SOME and missed >= _SHARE * found.tested
    return Item(
        "binarization",
        "binarization test",
        found.found / found.tested,
        f"{found.found} of {found.tested}",
        "F" if serious else "C" if missed >= _SOME else "B" if missed else "A",
        f"For how many images {_PGD} steps of PGD find an adversarial example that is known to exist, behind another "
        f"last layer on the same features (Zimmermann et al. 2022). The control, {CORNERS} random corners of the ball, "
        f"finds {found.by_chance}.",
        "An attack that misses what is there is too weak for this network: make it stronger, or mend the gradient.",
    )


class _Hunt:
    """Attacks on one model, one after the other; who falls to one is out of the later ones' reach."""

    def __init__(self, model: Classifier, samples: Samples, eps: Eps, seed: int, budget: Budget) -> None:
        self.model, self.samples, self.eps, self.seed, self.budget = model, samples, eps, seed, budget
        self.standing = torch.ones(len(samples.ids), dtype=torch.bool, device=samples.images.device)
        self.under_pgd: tuple[str, ...] = ()

    def by_gradients(self) -> list[Item]:
        """White-box: PGD by steps, with restarts, at growing eps; APGD, untargeted and targeted."""
        total, budget = len(self.samples.ids), self.budget
        broken, spent = self._attack("pgd", {"steps": budget.steps}, self.standing)
        by_steps = {
            steps: int((broken & (spent <= steps + 1)).sum())
            for steps in (1, 5, 10, _PGD, 50, 100)
            if steps < budget.steps
        }
        by_steps[budget.steps] = int(broken.sum())
        fell = broken & (spent <= _PGD + 1)
        self.under_pgd = tuple(one for one, gone in zip(self.samples.ids, fell.tolist(), strict=True) if not gone)
        self.standing &= ~broken
        early = by_steps.get(_PGD, by_steps[budget.steps])
        items = [_steps(by_steps, early, total)]
        before = int(self.standing.sum())
        self._narrow("pgd", {"steps": _PGD, "restarts": budget.restarts})
        self._narrow("apgd-ce", {"steps": max(5, budget.steps // 2)})
        items.append(_more("restarts", "restarts and APGD", before - int(self.standing.sum()), before, total))
        before = int(self.standing.sum())
        if self._classes() >= 4:
            targets = min(budget.targets, self._classes() - 1)
            self._narrow("apgd-t", {"steps": max(5, budget.steps // 10), "targets": targets})
            items.append(_more("targeted", "targeted APGD", before - int(self.standing.sum()), before, total))
        items.append(self._to_saturation())
        return items

    def by_others(self, others: Sequence[Classifier]) -> list[Item]:
        """Noise, Square, SPSA; the gradient of plain attention and a smoothed one; other models."""
        budget = self.budget
        weaker: list[tuple[str, str, str, dict[str, int], Classifier | None]] = [
            ("noise", "random noise", "noise", {"trials": budget.trials}, None),
            ("square", "Square", "square", {"queries": budget.queries}, None),
            ("spsa", "SPSA", "spsa", {"steps": budget.spsa, "samples": 32}, None),
        ]
        steps = {"steps": max(5, budget.steps // 5)}
        if (plain := with_plain_gradient(self.model)) is not None:
            weaker.append(("plain", "plain attention's gradient", "pgd", steps, plain))
        weaker.append(("smoothed", "a smoothed gradient", "pgd", steps, smoothed(self.model, float(self.eps))))
        weaker += [(f"from {o.card.spec.name}", f"transfer from {o.card.spec.name}", "pgd", steps, o) for o in others]
        white, items = self.standing.clone(), []
        for key, title, attack, settings, crafting in weaker:
            broken, _ = self._attack(attack, settings, white, crafting)
            self.standing &= ~broken
            items.append(_weaker(key, title, int(broken.sum()), int(white.sum()), len(self.samples.ids)))
        return items

    def _classes(self) -> int:
        return self.model.card.classes

    def _narrow(self, attack: str, settings: dict[str, int]) -> None:
        broken, _ = self._attack(attack, settings, self.standing)
        self.standing &= ~broken

    def _to_saturation(self) -> Item:
        """PGD at twice the eps, again and again, until every image is allowed. Who falls at one falls at a larger."""
        standing, size, reached = self.standing.clone(), Fraction(self.eps.value), Fraction(self.eps.value)
        while bool(standing.any()) and size < 1:
            size = min(2 * size, Fraction(1))
            broken, _ = self._attack("pgd", {"steps": min(50, self.budget.steps)}, standing, eps=Eps(size))
            standing, reached = standing & ~broken, size
        left = float(standing.double().mean())
        grade: Grade = "A" if not left else "C" if int(standing.sum()) < _SOME else "F"
        return Item(
            "saturation eps",
            "eps to saturation",
            left,
            f"{100 * left:.0f} % at {Eps(reached)}",
            grade,
            "Accuracy where the ball holds every image; PGD must bring it to 0 (an unconstrained attack that fails, "
            "Pintor et al. 2022). Beside it the eps where that was reached.",
            "If it is not 0, gradients lead astray, and accuracy at the smaller eps says nothing.",
        )

    def _attack(
        self,
        attack: str,
        settings: dict[str, int],
        rows: torch.Tensor,
        crafting: Classifier | None = None,
        eps: Eps | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Who of `rows` falls, and the evaluations spent, for all samples."""
        threat = _threat(attack, eps or self.eps, settings, crafting is not None)
        return broken_by(self.model, self.samples, threat, self.seed, rows, crafting)


def _threat(attack: str, eps: Eps, settings: dict[str, int], elsewhere: bool) -> AttackThreat:
    """An attack of the protocol `standard` with other numbers; crafted elsewhere, it takes every step."""
    threat = attack_threat(protocol("standard"), attack, eps)
    update = {"settings": threat.settings.model_copy(update=settings)}
    if elsewhere:
        return threat.model_copy(update={**update, "rules": threat.rules.model_copy(update={"iterate": "last"})})
    return threat.model_copy(update=update)


def _steps(by_steps: dict[int, int], early: int, total: int) -> Item:
    most = max(by_steps)
    late = (by_steps[most] - early) / total
    curve = ", ".join(f"{steps}: {100 * (1 - broken / total):.0f}" for steps, broken in by_steps.items())
    return Item(
        "steps",
        "steps of PGD",
        late,
        f"{100 * late:.1f} points after {_PGD}",
        "C" if late > 0.1 else "B" if late > 0.02 else "A",
        f"What PGD still breaks after its first {_PGD} steps, of those that are right. Accuracy in %: {curve}.",
        f"Report accuracy under {most} steps, not {_PGD}.",
    )


def _more(key: str, title: str, more: int, before: int, total: int) -> Item:
    share = more / total
    return Item(
        key,
        title,
        share,
        f"{more} of {before}",
        "C" if share > 0.1 else "B" if share > 0.02 else "A",
        "Of those that PGD left standing, how many fall: what a single PGD says too much.",
        "Report the worst case over these attacks (--worst-case).",
    )


def _weaker(key: str, title: str, alone: int, before: int, total: int) -> Item:
    serious = alone >= _SOME and alone >= _SHARE * total
    return Item(
        key,
        title,
        alone / total,
        f"{alone} of {before}",
        "F" if serious else "C" if alone >= _SOME else "B" if alone else "A",
        "Of those that every attack by the model's own gradient left standing, how many fall to one that knows less. "
        "It must not be stronger: where it is, the gradient is masked (Carlini et al. 2019; Athalye et al. 2018).",
        "Attack with what broke them, and report the worst case.",
    )


def difference(baseline: Diagnosis, candidate: Diagnosis, ids: Sequence[str]) -> Difference:
    """Is the difference of two models real, on the same `ids`: only if it stays under the strongest attack on each."""
    n = len(ids)

    def compared(one: Sequence[str], other: Sequence[str]) -> tuple[float, float, float]:
        lost, gained = len(set(one) - set(other)), len(set(other) - set(one))
        low, high = paired_difference_interval(lost, gained, n)
        return (gained - lost) / n, low, high

    pgd = compared(baseline.under_pgd, candidate.under_pgd)
    strongest = compared(baseline.robust, candidate.robust)
    doubtful = any(one.grade in ("D", "F") for one in (baseline, candidate))
    shown = strongest[1] > 0 or strongest[2] < 0
    verdict = "not to be trusted" if doubtful else "real" if shown else "not shown"
    return Difference(baseline.model, candidate.model, n, *pgd, *strongest, verdict)  # type: ignore[arg-type]
