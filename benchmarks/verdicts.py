"""Which digits do our attacks break, and which do torchattacks' break, sample by sample on the same budget?

    python benchmarks/verdicts.py     # writes benchmarks/verdicts.csv and docs/attacks-against-peers.md
    python benchmarks/verdicts.py --page     # only the page, from the CSV

Both run the settings of benchmarks/verdicts.toml on the same test images under the same rules: a sample is broken if an
image that the attack looked at fools the model, theirs as well (the bridge watches their queries). Seeds have their own
draws, and so their own verdicts: ours is called weaker where all of its seeds break fewer samples than all of theirs.
"""

import argparse
import platform
import textwrap
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import torch
from conditions import commit

from robustbench_twicing import evaluate
from robustbench_twicing.catalog.protocols import protocol

HERE = Path(__file__).parent
BUDGETS, TABLE, PAGE = HERE / "verdicts.toml", HERE / "verdicts.csv", HERE.parent / "docs" / "attacks-against-peers.md"
MODELS, SEEDS = ("deit", "deit-tw"), (0, 1, 2)
EPS = {"Linf": ("4/255", "8/255"), "L2": ("0.5", "1.5")}
CONTROL = ("noise", "noise-l2")
"""What torchattacks does not have; ours alone."""

TEXT = """\
# Our attacks beside torchattacks'

Made by `python benchmarks/verdicts.py`; do not edit. {images} test digits, models {models}, {seeds} seeds;
{conditions}.
Both sides run the same settings (`benchmarks/verdicts.toml`) under the same rules: true labels, pixels in [0, 1], and a
sample is broken if any image that the attack looked at fools the model, torchattacks' as well as ours. Data:
[benchmarks/verdicts.csv](../benchmarks/verdicts.csv).

{verdict}

Robust accuracy in %, lowest to highest over the seeds. The last four columns count samples that were right on clean,
over all seeds: broken by both, by ours alone, by torchattacks' alone, by neither.

| model | attack | eps | ours | torchattacks | both | only ours | only theirs | neither |
| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |
{rows}

What one side breaks and the other does not lies near the edge: two seeds of the same attack differ as well, on {own} of
{pairs} samples between two seeds of ours, on {their} between two of torchattacks', and on {between} between ours and
theirs at the same seed. torchattacks' PGD in the L2 ball starts nearer the image: there the radius is uniform, here the
point is.

The control, {trials} uniform points of the ball, which needs no attack:

| model | eps | random points: robust accuracy in % |
| --- | --- | ---: |
{control}
"""


def measure(images: int) -> pd.DataFrame:
    """One row for each model, attack, eps, seed and sample."""
    budgets = protocol(str(BUDGETS)).attacks
    parts = []
    for seed in SEEDS:
        for norm, eps in EPS.items():
            names = [name for name, settings in budgets.items() if settings.norm == norm]
            for engine in ("own", "torchattacks"):
                attacks = names if engine == "own" else [name for name in names if name not in CONTROL]
                print(f"seed {seed}, {norm}, {engine}", flush=True)
                with TemporaryDirectory() as place:
                    evaluated = evaluate(
                        MODELS,
                        protocol=str(BUDGETS),
                        engine=engine,
                        attacks=attacks,
                        eps=eps,
                        limit=images,
                        seed=seed,
                        out=Path(place) / "run",
                    )
                    records = evaluated.records
                clean = records[records["kind"] == "clean"].set_index(["model", "sample_id"])["correct"]
                attacked = records[records["kind"] == "attack"]
                assert (attacked["status"] == "ok").all()
                right = clean.loc[list(zip(attacked["model"], attacked["sample_id"], strict=True))].to_numpy()
                parts.append(
                    pd.DataFrame(
                        {
                            "model": attacked["model"].to_numpy(),
                            "attack": attacked["attack"].to_numpy(),
                            "eps": attacked["eps"].to_numpy(),
                            "seed": seed,
                            "engine": engine,
                            "sample_id": attacked["sample_id"].to_numpy(),
                            "right": right,
                            "broken": right & ~attacked["correct"].to_numpy(),
                            "evaluations": attacked["forwards"].to_numpy(),
                        }
                    )
                )
    return pd.concat(parts, ignore_index=True)


def tabulate(samples: pd.DataFrame) -> pd.DataFrame:
    """One row for each model, attack, eps and seed: counts, and how the two sides agree."""
    where = ["model", "attack", "eps", "seed"]
    rows = []
    for key, group in samples.groupby(where, sort=False):
        sides = {engine: part.set_index("sample_id") for engine, part in group.groupby("engine")}
        ours, theirs = sides["own"], sides.get("torchattacks")
        row = dict(zip(where, key, strict=True)) | {
            "n": len(ours),
            "right": int(ours["right"].sum()),
            "ours_broken": int(ours["broken"].sum()),
            "ours_evaluations": round(ours["evaluations"].mean(), 1),
        }
        if theirs is not None:
            a, b = ours["broken"], theirs["broken"].reindex(ours.index)
            row |= {
                "theirs_broken": int(b.sum()),
                "theirs_evaluations": round(theirs["evaluations"].mean(), 1),
                "both": int((a & b).sum()),
                "only_ours": int((a & ~b).sum()),
                "only_theirs": int((~a & b).sum()),
                "neither": int((ours["right"] & ~a & ~b).sum()),
            }
        rows.append(row)
    return pd.DataFrame(rows)


def differing(samples: pd.DataFrame) -> dict[str, int]:
    """Samples on which two seeds of one side differ (seed 0 and 1, 1 and 2, 2 and 0), and the two sides at one seed."""
    compared = samples[~samples["attack"].isin(CONTROL)]
    wide = compared.pivot(index=["model", "attack", "eps", "sample_id"], columns=["engine", "seed"], values="broken")
    turns = list(zip(SEEDS, SEEDS[1:] + SEEDS[:1], strict=True))
    counts = {
        engine: sum(int((wide[engine, one] != wide[engine, other]).sum()) for one, other in turns)
        for engine in ("own", "torchattacks")
    }
    counts["between"] = sum(int((wide["own", seed] != wide["torchattacks", seed]).sum()) for seed in SEEDS)
    return counts | {"pairs": len(wide) * len(SEEDS)}


def page(table: pd.DataFrame) -> str:
    """The documentation page."""
    cells = table[~table["attack"].isin(CONTROL)].groupby(["model", "attack", "eps"], sort=False)
    rows, weaker, stronger = [], [], []
    for key, cell in cells:
        model, attack, eps = map(str, key)
        ours, theirs = cell["ours_broken"], cell["theirs_broken"]
        name = f"{attack} at {eps} on {model} ({_span(ours)} broken against {_span(theirs)})"
        weaker += [name] if ours.max() < theirs.min() else []
        stronger += [name] if ours.min() > theirs.max() else []
        counts = [str(int(cell[column].sum())) for column in ("both", "only_ours", "only_theirs", "neither")]
        rows.append([model, attack, eps, _accuracy(cell, "ours"), _accuracy(cell, "theirs"), *counts])
    control = []
    for key, cell in table[table["attack"].isin(CONTROL)].groupby(["model", "attack", "eps"], sort=False):
        model, attack, eps = map(str, key)
        control.append([model, f"{'L2' if attack.endswith('-l2') else 'L∞'} {eps}", _accuracy(cell, "ours")])
    first = table.iloc[0]
    verdict = f"**Ours is weaker beyond seed noise in {len(weaker)} of {len(cells)} cells**"
    verdict += f": {'; '.join(weaker)}. " if weaker else ". "
    verdict += "Weaker means that all of its seeds break fewer samples than all of theirs. "
    verdict += f"Stronger in that sense it is in {len(stronger)}"
    verdict += f": {'; '.join(stronger)}." if stronger else "."
    return TEXT.format(
        images=first["n"],
        models=" and ".join(f"`{model}`" for model in MODELS),
        seeds=len(SEEDS),
        conditions=first["conditions"],
        verdict=textwrap.fill(verdict, 120),
        rows=_lines(rows),
        control=_lines(control),
        trials=protocol(str(BUDGETS)).attacks["noise"].evaluations,
        own=first["seeds_differ_ours"],
        their=first["seeds_differ_theirs"],
        between=first["sides_differ"],
        pairs=first["compared"],
    )


def _span(counts: pd.Series) -> str:
    low, high = int(counts.min()), int(counts.max())
    return str(low) if low == high else f"{low} to {high}"


def _accuracy(cell: pd.DataFrame, side: str) -> str:
    values = 100 * (cell["right"] - cell[f"{side}_broken"]) / cell["n"]
    low, high = f"{values.min():.0f}", f"{values.max():.0f}"
    return low if low == high else f"{low} to {high}"


def _lines(rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--page", action="store_true", help="only write the page, from the CSV")
    arguments = parser.parse_args()
    if not arguments.page:
        samples = measure(arguments.images)
        table, differ = tabulate(samples), differing(samples)
        versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "timm", "torchattacks"))
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{platform.machine()} CPU"
        table["seeds_differ_ours"], table["seeds_differ_theirs"] = differ["own"], differ["torchattacks"]
        table["sides_differ"], table["compared"] = differ["between"], differ["pairs"]
        table["conditions"] = f"{device}, float32, {versions}, commit {commit()}, {datetime.now(UTC):%Y-%m-%d}"
        table.to_csv(TABLE, index=False)
    PAGE.write_text(page(pd.read_csv(TABLE, dtype={"eps": str})), encoding="utf-8")


if __name__ == "__main__":
    main()
