"""A generated suite written to the disk, in the layout of ImageNet-C."""

import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from robustbench_twicing import __version__
from robustbench_twicing.data.dataset import Dataset
from robustbench_twicing.data.imagenet import ImageFiles
from robustbench_twicing.data.passes import read_ahead
from robustbench_twicing.engine.corruptions import corrupt
from robustbench_twicing.errors import UserError
from robustbench_twicing.machine.device import choose_device
from robustbench_twicing.results.store import explained, write_whole
from robustbench_twicing.spec.means import Means
from robustbench_twicing.spec.models import Recipe, Recipes
from robustbench_twicing.spec.plan import Plan
from robustbench_twicing.spec.threats import CorruptionThreat
from robustbench_twicing.tasks.images.opened import settled
from robustbench_twicing.tasks.images.sources import open_sources

_AT_ONCE = 64
_QUALITY = 95
_NAMED = 5
"""Folders of other settings, named one by one."""


def make_corrupted(
    plan: Plan,
    means: Means,
    workers: int,
    advance: Callable[[int], object] = lambda pictures: None,
) -> tuple[int, list[str]]:
    """Write CORRUPTION/SEVERITY/CLASS/FILE.JPEG for every generated threat of `plan`: (pictures, what failed).

    The folder is `means.out`, or the working folder. Each image is decoded once. The suite's `jpeg_quality` is that of
    the files, as in ImageNet-C (85); without one, 95. Draws are those of `twicing-bench corrupt` with the plan's seed.
    A picture that is there already is kept, so the same call continues one that was stopped; CORRUPTION/SEVERITY.json
    says what the pictures beside it were made with. Raises `UserError` before any work if that is something else, and
    not `means.fresh`, which removes the pictures first.
    """
    plan = settled(plan, means)
    threats = [threat for threat in plan.threats if isinstance(threat, CorruptionThreat) and threat.generated]
    if not threats:
        raise UserError("There is nothing to generate.", "Name a generated suite, such as imagenet-c-generated.")
    source = open_sources(plan, means.directories).source(threats[0])
    device = choose_device(means.device)
    dataset, recipe = source.dataset, source.recipe(_as_imagenet_c(source.dataset))
    count = plan.samples_for(threats[0], len(dataset.labels))
    spans = [range(start, min(start + _AT_ONCE, count)) for start in range(0, count, _AT_ONCE)]
    written, failed, out = 0, list[str](), means.out or Path()
    _claim({_folder(out, threat): _settings(plan, threat, dataset, recipe) for threat in threats}, means.fresh)
    with closing(read_ahead(dataset, spans, [recipe], workers)) as batches, ThreadPoolExecutor(workers) as pool:
        for batch in batches:
            failed += list(batch.errors.values())
            ids = [dataset.sample_ids[position] for position in batch.readable]
            labels = [dataset.labels[position] for position in batch.readable]
            for threat in threats:
                paths = [
                    _folder(out, threat) / _name(sample_id, label) for sample_id, label in zip(ids, labels, strict=True)
                ]
                rows = [row for row, path in enumerate(paths) if not path.exists()]
                if rows:
                    images = batch.images[recipe][rows].to(device)
                    some = [ids[row] for row in rows]
                    how = (threat.corruption, threat.severity, plan.seed, some)
                    made = corrupt(images, *how, frost_dir=means.frost_dir)
                    levels = (made * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
                    quality = threat.jpeg_quality or _QUALITY
                    jobs = [
                        pool.submit(_save, paths[row], level, quality) for row, level in zip(rows, levels, strict=True)
                    ]
                    for job in jobs:
                        job.result()
                    written += len(rows)
                advance(len(ids))
    return written, failed


def _as_imagenet_c(dataset: Dataset) -> Recipes:
    """What stands for a model's recipes: images of one size as they are, others as those of ImageNet-C were made."""
    one_size = not isinstance(dataset, ImageFiles) or dataset.image_size is not None
    recipe = Recipe() if one_size else Recipe(resize=256, crop=224, interpolation="bilinear")
    return Recipes(recipe, recipe)


def _folder(out: Path, threat: CorruptionThreat) -> Path:
    return out / threat.corruption / str(threat.severity)


def _settings(plan: Plan, threat: CorruptionThreat, dataset: Dataset, recipe: Recipe) -> dict[str, str | int]:
    """What decides the pictures of a threat, beside its name."""
    frost = {"frost": threat.frost} if threat.frost else {}
    return {
        "data": f"{dataset.name} {dataset.fingerprint}",
        "seed": plan.seed,
        "prepared": recipe.id,
        "quality": threat.jpeg_quality or _QUALITY,
        "twicing-bench": __version__,
        **frost,
    }


def _claim(wanted: Mapping[Path, Mapping[str, str | int]], fresh: bool) -> None:
    """Record the settings beside each folder. Raises `UserError` if one holds pictures of others, unless `fresh`."""
    if not fresh and (wrong := [said for folder, settings in wanted.items() if (said := _others(folder, settings))]):
        more = f"\nand {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
        raise UserError(
            "\n".join(wrong[:_NAMED]) + more,
            "Name another folder with --out, or write the pictures anew with --fresh, which removes those.",
        )
    for folder, settings in wanted.items():
        with explained(folder):
            for picture in folder.glob("*/*.JPEG") if fresh else ():
                picture.unlink()  # before the settings are recorded: whatever ends this, no picture has a wrong record
        write_whole(_record(folder), json.dumps(settings, indent=1).encode())


def _record(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.json")


def _others(folder: Path, settings: Mapping[str, str | int]) -> str:
    """In what the pictures of a folder are others than those of `settings`; empty if in nothing."""
    if next(folder.glob("*/*.JPEG"), None) is None:
        return ""
    unknown = f"{folder} holds pictures, and no {_record(folder).name} says how they were made."
    try:
        found: Any = json.loads(_record(folder).read_bytes())
    except (OSError, ValueError, RecursionError):
        return unknown
    if not isinstance(found, dict):
        return unknown
    keys = [key for key in {**settings, **found} if found.get(key) != settings.get(key)]
    changes = ", ".join(f"{key} {found.get(key, 'unknown')}, not {settings.get(key, 'any')}" for key in keys)
    return f"{folder} holds pictures of other settings: {changes}." if keys else ""


def _name(sample_id: str, label: int) -> Path:
    """CLASS/FILE.JPEG; embedded samples have no class in their id, so their label names it."""
    folder, _, stem = sample_id.rpartition("/")
    return Path(folder or str(label), f"{stem}.JPEG")


def _save(path: Path, level: object, quality: int) -> None:
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        Image.fromarray(level).save(unfinished, format="JPEG", quality=quality)  # type: ignore[arg-type]
        unfinished.replace(path)
