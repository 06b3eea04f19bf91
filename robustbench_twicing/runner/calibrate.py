"""The plan's models and images, opened, for a temperature and for scores of outliers."""

from robustbench_twicing.catalog.resolve import Stated
from robustbench_twicing.inside.calibrated import Calibrated, Calibration, Told
from robustbench_twicing.runner.inside import Say, opened
from robustbench_twicing.spec.threats import Threat


def calibrate(stated: Stated, say: Say) -> Calibration:
    """A temperature for each of the plan's models, by half of its clean images; and how well its scores tell the images
    of the plan's suites from the other half. Raises `UserError`."""
    with opened(stated, other_pictures=True) as here:
        from robustbench_twicing.inside import calibrate as room
        from robustbench_twicing.tasks.images.inside import pictures

        def said(name: str, threat: Threat) -> room.Said:
            say(f"{name} on {threat.id} …")
            model = here.models[name]
            batches = ((some.images[name], some.labels) for some in pictures(here, threat))
            return room.answers(model, room.last_layer(model.network), batches, here.source(threat).scored)

        models: list[Calibrated] = []
        told: list[Told] = []
        missing: list[str] = []
        clean = [threat for threat in stated.plan.threats if threat.kind == "clean"]
        for name in (spec.name for spec in stated.plan.models):
            layer = room.last_layer(here.models[name].network)
            if layer is None:
                missing.append(f"{name} names no linear last layer, so there are no features for kNN and ViM.")
            parts = {}
            for threat in clean:
                answers = said(name, threat)
                answers = answers.take(answers.labels >= 0)  # of a class that may be answered
                fit, judged = map(answers.take, room.halves(len(answers.labels), stated.plan.seed))
                parts[threat.id] = (fit, judged)
                models.append(room.calibrated(name, threat.id, fit, judged))
            for other in stated.plan.threats:
                if other.kind in ("corruption", "shift"):
                    fit, judged = parts.get(f"clean[{other.suite}]") or next(iter(parts.values()))
                    told += room.told_apart(name, other.id, fit, judged, said(name, other), layer)
        return Calibration(stated.plan.data.name, tuple(models), tuple(told), tuple(missing))
