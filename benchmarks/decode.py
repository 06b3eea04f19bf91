"""Images per second of a pass over JPEGs: ours against timm's, on the same files with the same workers.

    python benchmarks/decode.py                 # writes benchmarks/decode.csv
    python benchmarks/decode.py --memory 200000 # memory of a pass over that many tiny files

First the loaders alone. Then whole evaluations of a model that costs next to nothing, so that decoding dominates: ours
with everything a run does (index, records, shards on the disk), timm's as its validate.py does it (loss, top-1 and
top-5), and two models in one pass against two passes.

Both sides give batches of float images in [0, 1] after resize 248 bicubic and crop 224 (timm: normalised by mean 0 and
standard deviation 1, its prefetcher's work done on the CPU). They take turns, so a busy machine slows both; each turn
starts its workers anew, as a real pass does, and that time counts. The first turn of each is a warm-up. CPU time per
image, of this process and its workers, stands beside the rate: other work on the machine moves it less.
"""

import argparse
import csv
import os
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import PIL
import timm
import timm.data
import timm.utils
import torch
from conditions import commit, processor
from PIL import Image
from skimage import data as photographs

from robustbench_twicing.catalog.suites import class_list, suite
from robustbench_twicing.data.imagenet import ImageFiles, index_images
from robustbench_twicing.data.layout import find_suite
from robustbench_twicing.data.passes import read_ahead
from robustbench_twicing.models.intake import wrap_model
from robustbench_twicing.runner.run import run_plan
from robustbench_twicing.spec.means import Means
from robustbench_twicing.spec.models import Recipe, Recipes
from robustbench_twicing.spec.plan import DataSpec, Plan
from robustbench_twicing.spec.threats import CleanThreat

BATCH = 64
MODEL, PAPER = Recipe(resize=248, crop=224), Recipe(resize=256, crop=224)


def write_jpegs(root: Path, count: int, size: tuple[int, int], quality: int = 92) -> ImageFiles:
    """`count` JPEGs of `size` in class folders of ImageNet, cut from real photographs."""
    sources = [Image.fromarray(pixels) for pixels in (photographs.astronaut(), photographs.coffee())]
    wnids = class_list("imagenet")
    variants = []
    for shift in range(16):
        source = sources[shift % 2]
        image = source.crop((shift, shift, source.width - 16 + shift, source.height - 16 + shift)).resize(size)
        path = root / "variant.jpg"
        image.save(path, quality=quality)
        variants.append(path.read_bytes())
    (root / "variant.jpg").unlink()
    for number in range(count):
        folder = root / wnids[number % len(wnids)]
        folder.mkdir(exist_ok=True)
        (folder / f"ILSVRC2012_val_{number + 1:08d}.JPEG").write_bytes(variants[number % len(variants)])
    return index_images(find_suite(suite("imagenet"), root))


def ours(dataset: ImageFiles, workers: int, *recipes: Recipe) -> int:
    """One pass; the number of images seen."""
    shards = [range(start, min(start + BATCH, len(dataset.labels))) for start in range(0, len(dataset.labels), BATCH)]
    return sum(len(batch.images[recipes[0]]) for batch in read_ahead(dataset, shards, recipes, workers))


def theirs(dataset: ImageFiles, workers: int, prefetcher: bool) -> int:
    """One pass of timm's evaluation loader over the same files; the number of images seen."""
    return sum(len(images) for images, _ in timm_loader(dataset, workers, prefetcher))


def timm_loader(dataset: ImageFiles, workers: int, prefetcher: bool) -> Any:
    """timm's loader as its validate.py makes it."""
    return timm.data.create_loader(
        timm.data.ImageDataset(str(dataset.tree.root)),
        input_size=(3, 224, 224),
        batch_size=BATCH,
        is_training=False,
        use_prefetcher=prefetcher,
        interpolation="bicubic",
        crop_pct=0.9,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        num_workers=workers,
        pin_memory=False,
        persistent_workers=False,
        device=torch.device("cpu"),
    )


def cheap_model(seed: int) -> torch.nn.Module:
    """Logits of 1,000 classes from 14 x 14 means: far less work than decoding."""
    torch.manual_seed(seed)
    layers = torch.nn.AvgPool2d(16), torch.nn.Flatten(), torch.nn.Linear(3 * 14 * 14, 1000)
    return torch.nn.Sequential(*layers).eval()


def evaluate(dataset: ImageFiles, models: int) -> int:
    """A run of some models on the clean images, from the folder to the records; the number of images seen."""
    wrapped = {f"m{seed}": wrap_model(f"m{seed}", cheap_model(seed), 224) for seed in range(models)}
    for model in wrapped.values():
        model.card = replace(model.card, recipes=Recipes(MODEL, MODEL))  # timm's side resizes to 248 as well
    specs = tuple(model.card.spec for model in wrapped.values())
    plan = Plan(models=specs, threats=(CleanThreat(),), data=DataSpec(name="imagenet"))
    places = {"imagenet": Path(str(dataset.tree.root))}
    with tempfile.TemporaryDirectory() as out:
        run_plan(plan, Means(device="cpu", directories=places, fresh=True, out=Path(out)), models=wrapped)
    return len(dataset.labels)


def validate(dataset: ImageFiles, workers: int) -> int:
    """timm's validate.py, without its printing: the same model, loss, top-1 and top-5."""
    model, loss, seen, right = cheap_model(0), torch.nn.CrossEntropyLoss(), 0, torch.zeros(2)
    with torch.inference_mode():
        for images, labels in timm_loader(dataset, workers, prefetcher=False):
            logits = model(images)
            loss(logits, labels).item()
            right += torch.stack(timm.utils.accuracy(logits, labels, topk=(1, 5)))
            seen += len(images)
    return seen


def cpu_seconds() -> float:
    """CPU time of this process and of the workers that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def timed(run: Callable[[], int]) -> tuple[float, float]:
    """Images per second, and CPU milliseconds per image."""
    start, cpu = time.perf_counter(), cpu_seconds()
    images = run()
    return images / (time.perf_counter() - start), 1000 * (cpu_seconds() - cpu) / images


def rows(dataset: ImageFiles, workers: int, repeats: int) -> Iterator[dict[str, object]]:
    """Median and spread of images per second for each way of reading, in turns."""
    ways: dict[str, Callable[[], int]] = {
        "ours, one recipe": lambda: ours(dataset, workers, MODEL),
        "timm loader": lambda: theirs(dataset, workers, prefetcher=False),
        "timm loader, prefetcher": lambda: theirs(dataset, workers, prefetcher=True),
        "ours, two recipes in one pass": lambda: ours(dataset, workers, MODEL, PAPER),
        "ours, evaluation of one model": lambda: evaluate(dataset, 1),
        "timm validate, one model": lambda: validate(dataset, workers),
        "ours, two models in one pass": lambda: evaluate(dataset, 2),
        "ours, two passes of one model": lambda: (evaluate(dataset, 1) + evaluate(dataset, 1)) // 2,
    }
    rates: dict[str, list[float]] = {way: [] for way in ways}
    costs: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(repeats + 1):
        for way, run in ways.items():
            rate, cost = timed(run)
            if turn:
                rates[way].append(rate)
                costs[way].append(cost)
    reference = statistics.median(rates["timm loader"])
    for way, measured in rates.items():
        median = statistics.median(measured)
        yield {
            "what": way,
            "workers": workers,
            "images_per_second": round(median, 1),
            "lowest": round(min(measured), 1),
            "highest": round(max(measured), 1),
            "times_timm_loader": round(median / reference, 3),
            "cpu_ms_per_image": round(statistics.median(costs[way]), 2),
            "images": len(dataset.labels),
            "repeats": repeats,
        }


def conditions() -> dict[str, object]:
    """What the numbers depend on, for every row."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit(),
        "cpu": f"{processor()}, {os.cpu_count()} cores",
        "load_at_start": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "pillow": PIL.__version__,
        "batch": BATCH,
        "recipe": MODEL.id,
    }


def memory(count: int, workers: int) -> None:
    """Print the process's memory along a pass over `count` tiny files."""
    with tempfile.TemporaryDirectory() as folder:
        dataset = write_jpegs(Path(folder), count, (32, 24))
        shards = [range(start, min(start + BATCH, count)) for start in range(0, count, BATCH)]
        recipe = Recipe(resize=32, crop=32)
        every = max(1, len(shards) // 10)
        for number, _ in enumerate(read_ahead(dataset, shards, [recipe], workers)):
            if number % every == every - 1:
                resident = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
                print(f"{(number + 1) * BATCH:>9,} images: {resident:,.0f} MiB resident", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--workers", type=int, nargs="+", default=[2])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--memory", type=int, metavar="FILES", help="measure memory instead")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    if arguments.memory:
        memory(arguments.memory, arguments.workers[0])
        return
    shared = conditions()
    with tempfile.TemporaryDirectory() as folder:
        # The size of a typical ImageNet photograph, and about its 110 kB.
        dataset = write_jpegs(Path(folder), arguments.images, (500, 375))
        table = [row | shared for workers in arguments.workers for row in rows(dataset, workers, arguments.repeats)]
    with arguments.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, table[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
    for row in table:
        spread = f"{row['lowest']}-{row['highest']}"
        rate = f"{row['images_per_second']:>7} images/s ({spread}), {row['cpu_ms_per_image']} CPU ms an image"
        print(f"{row['workers']} workers  {row['what']:32} {rate}")


if __name__ == "__main__":
    main()
