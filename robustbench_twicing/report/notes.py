"""What a reader of a run must know beside its numbers: the threat model, the models, and what is easily overlooked."""

from collections.abc import Iterator, Sequence
from itertools import permutations

import pandas as pd

from robustbench_twicing.metrics.intervals import finite_population_factor
from robustbench_twicing.report.numbers import count, percent
from robustbench_twicing.results.manifest import Manifest
from robustbench_twicing.results.run import Run
from robustbench_twicing.results.used import ModelUsed
from robustbench_twicing.spec.threats import AttackThreat, pixel_equivalent

_WARNINGS = 3
"""Folders that are not complete, named one by one."""


def threat_model(manifest: Manifest) -> str:
    """One line that says what the attacked numbers mean: space, norm, eps, labels, iterate, steps, seed, device."""
    if manifest.origin == "predictions":
        return _as_handed_over(manifest)
    threats = manifest.attacks
    parts = []
    if threats:
        first, rules = threats[0], threats[0].rules
        pixels, normalised = "pixel space [0, 1]", "normalised space (eps in units of the channel's std)"
        norms = {"Linf": "L∞", "L2": "L2", "L1": "L1"}
        norm = "/".join(dict.fromkeys(norms[threat.settings.norm] for threat in threats))
        eps = ", ".join(dict.fromkeys(str(threat.eps) for threat in threats))
        best = "best iterate (robust = right on clean and never fooled)"
        parts += [
            f"protocol {first.protocol}",
            pixels if rules.space == "pixel" else normalised,
            f"{norm} ≤ {eps}",
            "clipped" if rules.clip else "not clipped",
            f"{rules.labels} labels",
            best if rules.iterate == "best" else "last iterate",
            ", ".join(dict.fromkeys(f"{threat.attack} {threat.settings.schedule}" for threat in threats)),
        ]
        if first.precision != manifest.precision:
            parts.append(f"crafted in {first.precision}, judged in {manifest.precision}")
        if first.eot > 1:
            parts.append(f"each gradient and each iterate's answer averaged over {first.eot} draws of the model")
        if made_on := list(dict.fromkeys(threat.source.name for threat in threats if threat.source)):
            parts.append(f"made on {', '.join(made_on)}")
    parts += [f"images {recipe}" for recipe in _recipes(manifest)]
    parts += [f"seed {manifest.plan.seed}", f"{manifest.device.type}, {manifest.precision}"]
    return " · ".join(parts)


def _as_handed_over(manifest: Manifest) -> str:
    """What is known of threats that another tool carried out."""
    others = [threat for threat in manifest.plan.threats if threat.kind == "other"]
    said = "; ".join(f"{threat.name}: {threat.says or 'not described'}" for threat in others)
    return ELSEWHERE + (f" The threat model is not checked by us; theirs: {said}." if others else "")


ELSEWHERE = "Predictions that came from elsewhere: nobody here evaluated these models or saw these images."


def _recipes(manifest: Manifest) -> list[str]:
    """How images were prepared where they were attacked, or else everywhere; not those that are used as they are."""
    attacked = {threat.id for threat in manifest.attacks}
    cells = [cell for cell in manifest.cells if not attacked or cell.threat in attacked]
    return [recipe for recipe in dict.fromkeys(cell.recipe for cell in cells) if recipe != "none"]


def model_line(name: str, model: ModelUsed) -> str:
    """What stands behind a model name: architecture, the size of its images, attention, parameter count, weights."""
    if model.spec.weights.startswith("predictions:"):
        return f"{name}: {model.weights_note} ({model.weights_hash})"
    attention = _attention(model.attention, model.blocks)
    read = f", {model.weights_note}" if model.weights_note else ""
    return (
        f"{name}: {model.spec.architecture} at {model.image_size} × {model.image_size}, {attention}, "
        f"{count(model.parameters)} parameters, "
        f"weights {model.spec.weights} ({model.weights_hash}{read})"
    )


def _attention(text: str, blocks: int) -> str:
    """A card's attention in words."""
    if not text:
        return "attention unknown"  # a ResNet, or a module of one's own
    if "@" not in text:
        return f"{text} attention" + ("" if text == "softmax" else f" in all {blocks} blocks")
    parts = [part.partition("@") for part in text.split("+")]
    named = " and ".join(f"{method} attention in blocks {layers}" for method, _, layers in parts)
    return f"{named} of 0-{blocks - 1}"


def state(run: Run) -> str:
    """What is still missing of a run; empty for one that is whole."""
    shards = sum(1 for _ in run.manifest.shards)
    if run.manifest.status != "finished":
        return (
            f"Not finished: {count(len(run.lacking))} of {count(shards)} shards are still to be done. The command that "
            "began it, given again, continues it."
        )
    if run.lacking:
        more = ", …" if len(run.lacking) > 1 else ""
        return (
            f"Not whole: {count(len(run.lacking))} of {count(shards)} shards do not count: {run.lacking[0]}{more}. The "
            "command that made it, given again, computes them again."
        )
    return ""


def notes(run: Run) -> list[str]:
    """What a reader of the tables might overlook."""
    manifest, summary, suites = run.manifest, run.summary, run.suites
    found = [] if run.lacking else list(_smaller(manifest, summary))
    found += _not_confirmed(summary)
    if any(threat.eight_bit for threat in manifest.attacks) and summary["accuracy"].equals(summary["accuracy_8bit"]):
        found.append("Rounding the attacked images to 8 bits changes no accuracy.")
    found += _incomplete(manifest)
    found += [_in_pixels(name, model.std, manifest) for name, model in manifest.models.items() if _normalized(manifest)]
    found += _about_suites(manifest, suites)
    unseen = [name for name in manifest.models if name not in manifest.preflight.models]
    found += [finding.text for finding in manifest.preflight.findings]
    if unseen and not run.elsewhere:
        whom = "these models" if len(unseen) == len(manifest.models) else ", ".join(unseen)
        found.append(f"The preflight check was off: nothing looked at whether numbers of {whom} mean anything.")
    if not summary["kind"].eq("clean").any() and not suites.empty:
        found.append(
            "No clean run: name the clean data set with --data-dir imagenet=DIR to get drops and relative mCE."
        )
    failures = int(summary["failed"].sum())
    if failures:
        found.append(f"{count(failures)} record(s) failed; they count neither as right nor as wrong.")
    return found


def _smaller(manifest: Manifest, summary: pd.DataFrame) -> Iterator[str]:
    """Threats with fewer samples than there are."""
    smaller: dict[tuple[int, int], list[str]] = {}
    for threat, rows in summary.groupby("threat", sort=False):
        samples = int((rows["n"] + rows["failed"]).max())
        available = manifest.data[str(threat)].samples
        if samples < available:
            smaller.setdefault((samples, available), []).append(str(threat))
    for (samples, available), threats in smaller.items():
        which = "All threats" if len(threats) == summary["threat"].nunique() else ", ".join(threats)
        yield (
            f"{which}: {count(samples)} of {count(available)} samples, drop from the clean run on the same ones "
            f"(see --limit).{_finite(samples, available)}"
        )


def _finite(samples: int, available: int) -> str:
    """What intervals are about, where being about this test set alone would make them narrower by a tenth or more."""
    factor = finite_population_factor(samples, available)
    if factor > 0.9:
        return ""
    return (
        " Classes stand in equal shares. Intervals are about images like these; about the "
        f"{count(available)} of this test set they would be {factor:.2f} times as wide."
    )


def _not_confirmed(summary: pd.DataFrame) -> Iterator[str]:
    """Successes in a faster computation that the model itself did not confirm."""
    for precision, rows in summary[summary["rejected"].notna()].groupby("precision"):
        each = ", ".join(f"{r['threat']} on {r['model']} {percent(r['rejected'])} %" for _, r in rows.iterrows())
        where = "the compiled model" if precision == "float32" else str(precision)
        yield f"Successes in {where} that float32 did not confirm: {each}. Those samples were attacked in float32."


def _incomplete(manifest: Manifest) -> Iterator[str]:
    """Data sets on disk that are not what their suites say."""
    warnings = list(dict.fromkeys(warning for part in manifest.data.values() for warning in part.warnings))
    for warning in warnings[:_WARNINGS]:
        yield f"Not the suite as it is defined: {warning}."
    if len(warnings) > _WARNINGS:
        yield f"And {len(warnings) - _WARNINGS} more of these; `twicing-bench data check` lists them."


def _about_suites(manifest: Manifest, suites: pd.DataFrame) -> Iterator[str]:
    """What suites' figures are relative to, and why one is missing."""
    for suite in {t.suite for t in manifest.plan.threats if t.kind == "corruption" and t.generated}:
        yield f"{suite}: corruptions computed in memory; not comparable with published files."
    for denominator, rows in suites[suites["mce"].notna()].groupby("denominator"):
        yield f"mCE of {', '.join(rows['suite'].unique())} is relative to {denominator}."
        for name, models in rows.groupby("suite", sort=False):
            yield from _other_order(str(name), str(denominator), models)
    noted = suites.loc[suites["note"] != "", ["suite", "note"]].drop_duplicates()
    for suite, note in noted.itertuples(index=False):
        yield f"{suite}: {note}"


def _other_order(suite: str, denominator: str, rows: pd.DataFrame) -> Iterator[str]:
    """Why mCE puts two models into another order than their mean error does."""
    for (_, one), (_, other) in permutations(rows.iterrows(), 2):
        if one["mean_error"] < other["mean_error"] and one["mce"] > other["mce"]:
            yield disagreement(suite, one["model"], other["model"], denominator)
            return


def disagreement(suite: str, one: str, other: str, denominator: str) -> str:
    """One line: why `one` has the lower mean error and yet the higher mCE beside `other`."""
    return (
        f"{suite}: {one} has the lower mean error and the higher mCE beside {other}. mCE divides the errors under each "
        f"corruption by {denominator}'s, so those under which {denominator} errs least count most."
    )


def _normalized(manifest: Manifest) -> list[AttackThreat]:
    return [threat for threat in manifest.attacks if threat.rules.space == "normalized"]


def _in_pixels(model: str, std: Sequence[float], manifest: Manifest) -> str:
    """What an eps in normalised units means in pixels, for one model."""
    sizes = {str(t.eps): [255 * size for size in pixel_equivalent(t, std)] for t in _normalized(manifest)}
    parts = [f"{eps} is {min(size):.3g} to {max(size):.3g} / 255" for eps, size in sizes.items()]
    return f"{model}: in pixels, eps {', '.join(parts)}, by channel."
