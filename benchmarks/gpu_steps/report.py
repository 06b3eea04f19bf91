"""What `gpu.py` found: one CSV of all rows, and a page of Markdown with a table for each step and the goals."""

import csv
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch
from conditions import commit, device_name, installed

from gpu_steps.job import Row

Rows = Mapping[str, Sequence[Row]]
"""Step -> its rows."""


def conditions(device: str) -> Row:
    """What all numbers depend on."""
    return {
        "device": device_name(device),
        "device_type": device,
        "driver": _driver() if device != "cpu" else "",
        "cuda": torch.version.cuda or "",
        "cores": os.cpu_count(),
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "commit": commit(),
        "python": platform.python_version(),
        **{package: installed(package) for package in ("torch", "triton", "timm", "torchattacks")},
    }


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""


def write(out: Path, found: Rows, problems: Mapping[str, str], said: Row, title: str) -> None:
    """`gpu.csv` and `gpu.md` in `out`, over what is there."""
    table = [{"step": step, **row, **said} for step, rows in found.items() for row in rows]
    columns = list(dict.fromkeys(column for row in table for column in row))
    with (out / "gpu.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns or ["step"], restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
    parts = [f"# {title}", ", ".join(f"{name} {value}" for name, value in said.items() if value != "")]
    parts += [_goals(found)] if said["device_type"] == "cuda" else []
    for step in dict.fromkeys((*found, *problems)):
        parts.append(f"## {step}")
        if found.get(step):
            parts.append(_markdown(found[step]))
        if step in problems:
            parts.append(f"**{problems[step].splitlines()[0]}**" + _quoted(problems[step].splitlines()[1:]))
    (out / "gpu.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _quoted(lines: Sequence[str]) -> str:
    return "\n\n" + "\n".join(f"    {line}" for line in lines) if lines else ""


def _markdown(rows: Sequence[Row]) -> str:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [[str(row.get(column, "")).replace("|", "\\|") for column in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in [columns, ["---"] * len(columns), *lines])


# --- goals ------------------------------------------------------------------------------------------------------------


def _goals(found: Rows) -> str:
    """What was hoped for beside what was found; several numbers are of several models or sizes."""
    attacks, attention = found.get("attacks", ()), found.get("attention", ())
    lines: list[Row] = [
        {
            "goal": "PGD-20 crafted in bfloat16 at least 4 times torchattacks in float32",
            "found": _ratios(attacks, "PGD-20", "torchattacks"),
        },
        {
            "goal": "SPSA crafted in bfloat16 at least 8 times torchattacks in float32",
            "found": _ratios(attacks, "SPSA 128", "torchattacks"),
        },
        {
            "goal": "twicing at most 1.10 times softmax, forward and gradient, bfloat16 (fastest path of each size)",
            "found": _fastest_twicing(attention),
        },
        {
            "goal": "95 pairs of 1,000 images in less than 20 s",
            "found": _only(found.get("corruptions", ()), "seconds", lambda row: True),
        },
        {
            "goal": "the card busy at least 90 % of PGD",
            "found": _only(found.get("profiles", ()), "busy", lambda row: str(row["what"]).startswith("pgd")),
        },
    ]
    return _markdown([line | {"found": line["found"] or "not measured"} for line in lines])


def _only(rows: Sequence[Row], column: str, wanted: object) -> str:
    assert callable(wanted)
    return ", ".join(str(row[column]) for row in rows if row.get(column, "") != "" and wanted(row))


def _ratios(rows: Sequence[Row], attack: str, peer: str) -> str:
    """How many times as fast ours, crafted in bfloat16, is as a peer, for each model."""
    rates = {
        (str(row["model"]), str(row["variant"])): float(str(row["images_per_second"]))
        for row in rows
        if row["what"] == attack
    }
    ours = "ours, crafted in bfloat16"
    models = dict.fromkeys(model for model, _ in rates)
    pairs = [(model, rates.get((model, ours)), rates.get((model, peer))) for model in models]
    return "; ".join(f"{model}: {own / other:.2f}" for model, own, other in pairs if own and other)


def _fastest_twicing(rows: Sequence[Row]) -> str:
    ratios: dict[str, list[float]] = {}
    for row in rows:
        counts = row["what"] == "forward + input gradient" and row["dtype"] == "bfloat16" and "times_softmax" in row
        if counts and str(row["variant"]).startswith("twicing"):
            ratios.setdefault(f"{row['batch']} × {row['tokens']}", []).append(float(str(row["times_softmax"])))
    return "; ".join(f"{size}: {min(each):.2f}" for size, each in ratios.items())
