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
            "threats": threats,
            "cells": len(plan.cells),
            "never_pass": read.never_pass,
        },
    )
