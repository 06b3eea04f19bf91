"""What a run need not compute: what its folder holds already, and what other runs under results/runs have finished.

No torch.
"""

from collections.abc import Iterable
from pathlib import Path

from robustbench_twicing.catalog.suites import definition_of, suite_definition
from robustbench_twicing.errors import UserError
from robustbench_twicing.results.manifest import Shard
from robustbench_twicing.results.store import RunFolder
from robustbench_twicing.results.used import Maker
from robustbench_twicing.spec.plan import Plan


def refuse_other_settings(folder: RunFolder, plan: Plan) -> None:
    """Raise `UserError` unless `plan` is the plan of the run in `folder`, if there is one, or adds models or threats.

    Finished shards are named by content, so what a larger plan shares with a smaller one is not computed again.
    """
    if not folder.exists():
        return
    had = folder.manifest()
    differ = [] if had.plan.data.name == plan.data.name else ["data"]
    differ += [key for key in ("limit", "ids") if getattr(had.plan.data, key) != getattr(plan.data, key)]
    differ += [key for key in ("recipe", "seed") if getattr(had.plan, key) != getattr(plan, key)]
    models = {model.name: model.model_dump() for model in plan.models}
    threats = {threat.id: threat.model_dump() for threat in plan.threats}
    for kind, name, content, now in (
        *(("model", model.name, model.model_dump(), models) for model in had.plan.models),
        *(("threat", threat.id, threat.model_dump(), threats) for threat in had.plan.threats),
    ):
        if now.get(name) != content:
            differ.append(f"{kind} {name}" + ("" if name in now else " (not in the plan)"))
    for name in plan.suites:
        before, now_ = had.suites.get(name), suite_definition(name)
        if before and before.spec.own_classes and not now_.spec.index:  # the folders' names, seen later
            seen = before.spec.model_dump(include={"index", "classes"})
            now_ = definition_of(now_.spec.model_copy(update=seen))
        if before and (before.judges, before.sums_up) != (now_.judges, now_.sums_up):
            differ.append(f"the definition of the suite {name}")
    if differ:
        raise UserError(
            f"{folder.path} holds a run with other settings: {', '.join(differ)} differ(s).",
            "A run may grow by models and threats. For anything else pass --out with another folder, or leave --out "
            "away to get one of its own.",
        )


def to_take_over(folder: RunFolder, shards: Iterable[Shard], runs: Path, made_by: Maker) -> dict[Shard, RunFolder]:
    """Those of the shards that another run in the folder `runs` has finished, each with that run. Nothing is changed.

    Only from runs all of whose records were made by the same code, versions and device (`made_by`): the shard's name
    says which numbers are meant, but not who computed them.
    """
    wanted, found = list(shards), dict[Shard, RunFolder]()
    for place in sorted(runs.glob("*")) if wanted else ():
        other = RunFolder(place)
        holds = [shard for shard in wanted if shard not in found and other.files_of(shard)]
        if not holds or place.resolve() == folder.path.resolve():
            continue
        try:
            makers = other.manifest().made_by
        except UserError:  # not a run, or one that this version cannot read
            continue
        if makers == (made_by,):
            found |= dict.fromkeys(holds, other)
    return found


def take_over(folder: RunFolder, shards: Iterable[Shard], runs: Path, made_by: Maker) -> dict[Shard, str]:
    """Copy what `to_take_over` finds, as far as it is whole: which shards, and the names of the runs they came from."""
    found = to_take_over(folder, shards, runs, made_by)
    return {shard: other.path.name for shard, other in found.items() if folder.copy_shard(shard, other)}
