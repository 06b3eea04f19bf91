"""The preflight of a run: which of its models somebody looked at, and what was found."""

from collections.abc import Iterable, Mapping, Sequence

from robustbench_twicing.results.manifest import Manifest, Shard
from robustbench_twicing.results.used import Preflight
from robustbench_twicing.spec.plan import Cell
from robustbench_twicing.tasks.task import Looks, Opened


def kept(opened: Opened, manifests: Iterable[Manifest]) -> Looks:
    """What earlier runs said of the models that this one has, the last one winning: samples keep the look taken."""
    looks: Looks = {}
    models = opened.models_used()
    for manifest in manifests:
        said = manifest.preflight
        for name in said.models:
            known = name in models and name in manifest.models
            if known and manifest.models[name].weights_hash == models[name].weights_hash:
                looks[name] = [finding for finding in said.findings if finding.model == name]
    return looks


def as_said(opened: Opened, looks: Looks) -> Preflight:
    """What run.json says."""
    findings = tuple(finding for found in looks.values() for finding in found)
    ran = all(name in looks for name in opened.models_used())
    return Preflight(ran=ran, models=tuple(looks), findings=findings)


def taking_part(pending: Mapping[Cell, Sequence[Shard]]) -> set[str]:
    """The models that something is still to be computed with."""
    return {name for cell, shards in pending.items() if shards for name in cell.models}
