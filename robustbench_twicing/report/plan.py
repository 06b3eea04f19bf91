"""The page of a plan that is right: its models, threats and cells."""

from robustbench_twicing.catalog.plans import PlanFile
from robustbench_twicing.report.page import Line, Page
from robustbench_twicing.spec.arms import members


def plan_page(read: PlanFile, named: str) -> Page:
    """What a plan file says; `named` is how the user called it."""
    plan = read.plan
    arms = {name: members(patterns, [model.name for model in plan.models]) for name, patterns in read.arms.items()}
    models, threats = [model.name for model in plan.models], [threat.id for threat in plan.threats]
    return Page(
        f"Plan {read.name}",
        (
            Line(f"{read.name}: {read.title or 'no title'}"),
            Line(f"models: {', '.join(models)}"),
            *_trained(read),
            *(Line(f"arm {name}: {', '.join(seeds)}") for name, seeds in arms.items()),
            Line(f"threats on {plan.data.name}: {', '.join(threats)}"),
            *(Line(line, "warning") for line in read.never_pass),
            Line(f"{len(plan.cells)} cells; twicing-bench run {named} --dry-run says what they cost", unbroken=True),
        ),
        facts={
            "name": read.name,
            "title": read.title,
            "plan_hash": plan.hash,
            "data": plan.data.name,
            "models": models,
            "arms": arms,
            "to_train": [f"{model}, seed {seed}" for model, seed in read.train.missing] if read.train else [],
            "threats": threats,
            "cells": len(plan.cells),
            "never_pass": read.never_pass,
        },
    )


def _trained(read: PlanFile) -> list[Line]:
    if read.train is None:
        return []
    arms, todo = read.train, read.train.missing
    models = ", ".join(dict.fromkeys(model for model, _ in arms.weights))
    seeds = ", ".join(str(seed) for seed in dict.fromkeys(seed for _, seed in arms.weights))
    folder = next(iter(arms.weights.values())).parent
    return [
        Line(f"trains first: {models}, seeds {seeds}, by recipe {arms.recipe.name} on {arms.data}"),
        Line(f"weights: {folder} ({len(arms.weights) - len(todo)} of {len(arms.weights)} are there)", unbroken=True),
    ]
