"""The page of a baseline: who accepted it, when and why."""

from robustbench_twicing.report.notes import ELSEWHERE
from robustbench_twicing.report.page import Line, Page
from robustbench_twicing.results.baselines import Acceptance, Baseline


def baseline_line(accepted: Acceptance) -> str:
    """Who accepted a baseline, when and why."""
    return f"Baseline accepted by {_signature(accepted)}"


def baseline_page(baseline: Baseline) -> Page:
    """Who accepted a baseline, who accepted what before, and where it lies."""
    manifest = baseline.manifest
    lines = [Line(baseline_line(manifest.accepted), unbroken=True)]
    lines += [Line(f"before: {_signature(earlier)}", "note", unbroken=True) for earlier in manifest.earlier]
    if manifest.run.origin == "predictions":
        lines.append(Line(ELSEWHERE, "warning"))
    lines.append(Line(f"Baseline: {baseline.path}", unbroken=True))
    facts = {"baseline": baseline.path, "accepted": manifest.accepted, "earlier": manifest.earlier}
    facts |= {"made_by": manifest.made_by, "records": manifest.records, "sha256": manifest.sha256}
    return Page(f"Baseline {baseline.path}", tuple(lines), facts=facts)


def _signature(accepted: Acceptance) -> str:
    return f"{accepted.who} on {accepted.when}: {accepted.why} (run {accepted.run})"
