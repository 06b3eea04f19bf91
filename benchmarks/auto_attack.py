"""AutoAttack side by side: ours, the reference (fra31/auto-attack) and torchattacks'.

    git clone https://github.com/fra31/auto-attack
    python benchmarks/auto_attack.py --reference auto-attack      # prints the table, writes benchmarks/auto_attack.csv

All get the same digits and the same weights, in the network as the tool loads it; the reference once more in the
network that timm makes of them, which is what its users have. They take turns in one process. What counts is
processor seconds with one thread, which other programs on the machine disturb least (they still share its caches).
Square is asked for fewer queries than AutoAttack's 5,000 unless --queries says so, the same number for all.
torchattacks' AutoAttack makes 10 steps where the others make 100 (docs/known-traps.md), so its time is not
comparable. Flags: which digits still stand, as the tool's network judges what came back.
"""

import argparse
import csv
import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from attack_speed.models import Counted, answers, digit_images, digits_pair
from conditions import commit, device_name, installed

from robustbench_twicing.catalog.protocols import attack_threat, protocol
from robustbench_twicing.engine.algorithms import engine_of
from robustbench_twicing.engine.contract import Queries
from robustbench_twicing.seeding import Draws
from robustbench_twicing.spec.threats import AttackThreat
from robustbench_twicing.spec.values import Eps

OUT = Path(__file__).with_suffix(".csv")
PEERS = ("reference, our network", "reference, timm's", "torchattacks, our network")
BATCH = 256
"""That the tool takes for images of 32 pixels on a CPU (tasks/images/tune.py)."""
Images = torch.Tensor
Candidate = Callable[[Counted, Images, torch.Tensor, str, int], Images]
"""(model, images, labels, eps, queries of Square) -> images that came back."""


def ours(model: Counted, images: Images, labels: torch.Tensor, eps: str, queries: int) -> Images:
    """Each member gets what the ones before it did not break, as `--attack autoattack` does."""
    found, standing = images.clone(), torch.arange(len(images))
    for member in attack_threat(protocol("standard"), "autoattack", Eps.parse(eps)).members:
        if not len(standing):
            break
        threat = _with_queries(member, queries)
        draws = Draws(0, tuple(f"image-{row}" for row in standing.tolist()), threat.id)
        asked = Queries(model, BATCH)
        found[standing] = engine_of(threat.settings)(asked, images[standing], labels[standing], threat, draws).images
        standing = standing[asked(found[standing]).argmax(1) == labels[standing]]
    return found


def _with_queries(threat: AttackThreat, queries: int) -> AttackThreat:
    if threat.settings.algorithm != "square":
        return threat
    return threat.model_copy(update={"settings": threat.settings.model_copy(update={"queries": queries})})


def reference(model: Counted, images: Images, labels: torch.Tensor, eps: str, queries: int) -> Images:
    from autoattack import AutoAttack

    attack = AutoAttack(model, norm="Linf", eps=float(Eps.parse(eps)), seed=0, verbose=False, device="cpu")
    attack.square.n_queries = queries
    found: Images = attack.run_standard_evaluation(images, labels, bs=64)
    return found.detach()


def torchattacks(model: Counted, images: Images, labels: torch.Tensor, eps: str, queries: int) -> Images:
    import torchattacks as there

    attack: Any = there.AutoAttack(model, eps=float(Eps.parse(eps)), n_classes=10, seed=0)
    attack.set_device(images.device)
    for member in attack._autoattack.attacks:
        if isinstance(member, there.Square):
            member.n_queries = queries
    found: Images = attack(images, labels)
    return found.detach()


def one_turn(candidate: Candidate, network: torch.nn.Module, judge: torch.nn.Module, cell: dict[str, Any]) -> Any:
    """Columns of one run, and which images still stand."""
    model, images, labels = Counted(network), cell["images"], cell["labels"]
    torch.manual_seed(0)
    clock, processor = time.perf_counter(), time.process_time()
    found = candidate(model, images, labels, cell["eps"], cell["queries"])
    seconds, processor = time.perf_counter() - clock, time.process_time() - processor
    stands = answers(judge, found) == labels
    assert (found - images).abs().max() <= float(Eps.parse(cell["eps"])) + 1e-6
    return {
        "standing": int(stands.sum()),
        "calls": model.calls,
        "evaluations": model.forwards,
        "gradients": model.backwards,
        "processor_seconds": round(processor, 2),
        "wall_seconds": round(seconds, 2),
    }, stands


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, help="a checkout of fra31/auto-attack")
    parser.add_argument("--eps", nargs="+", default=["1/255", "4/255"])
    parser.add_argument("--images", type=int, nargs="+", default=[4, 16], help="digits; those answered rightly count")
    parser.add_argument("--queries", type=int, default=500, help="of Square")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--peers", nargs="+", default=PEERS, choices=PEERS, help="who is put beside ours")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    timms, own = digits_pair(torch.device("cpu"))
    candidates: dict[str, Callable[..., Any]] = {"ours": partial(one_turn, ours, own)}
    if arguments.reference:
        sys.path.insert(0, str(arguments.reference))
        candidates["reference, our network"] = partial(one_turn, reference, own)
        candidates["reference, timm's"] = partial(one_turn, reference, timms)
    candidates["torchattacks, our network"] = partial(one_turn, torchattacks, own)
    candidates = {name: run for name, run in candidates.items() if name in ("ours", *arguments.peers)}
    rows: list[dict[str, Any]] = []
    said = {
        "queries": arguments.queries,
        "device": device_name("cpu"),
        "threads": 1,
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "commit": commit(),
        **{package: installed(package) for package in ("torch", "timm", "torchattacks")},
    }
    for count in arguments.images:
        images, labels = digit_images(count, own, torch.device("cpu"))
        for eps in arguments.eps:
            cell = {"images": images, "labels": labels, "eps": eps, "queries": arguments.queries}
            for turn in range(arguments.turns):
                first = None
                for name, run in candidates.items():
                    row, stands = run(own, cell)
                    first = first or (row, stands)
                    flags = {
                        "broken_by_ours_only": int((stands & ~first[1]).sum()),
                        "broken_by_this_only": int((~stands & first[1]).sum()),
                    }
                    ratio = row["processor_seconds"] / first[0]["processor_seconds"]
                    begin = {"images": len(images), "eps": eps, "turn": turn, "candidate": name}
                    load = {"this_over_ours": round(ratio, 2), "load": round(os.getloadavg()[0], 1)}
                    rows.append(begin | row | flags | load | said)
                    print(begin | row | flags | load, flush=True)
                    with arguments.out.open("w", newline="") as file:
                        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
                        writer.writeheader()
                        writer.writerows(rows)


if __name__ == "__main__":
    main()
