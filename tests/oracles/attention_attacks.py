"""What two other packages make of TGR and of PNA with PatchOut: perturbations in steps of eps / 10, image by image.

`python -m tests.oracles.attention_attacks` makes `attention_attacks.json`; it needs torchattack 1.7.2 and tokenfool
0.2.0, which are in no extra of ours. torchattack follows the authors' code but has no distance in PNA's loss, and draws
PatchOut's patches from torch: it makes TGR and PNA alone. tokenfool makes PNA with PatchOut and the distance, and is
given the patches that our draws choose.
"""

import base64
import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robustbench_twicing.engine.pna_patchout import patches
from robustbench_twicing.seeding import Draws
from tests.engine.tiny import answers, ids, pna_patchout_settings, random_images, small_vit, tgr_settings, threat

EPS, SIZE, COUNT = 8 / 255, 12, 3
THREATS = {
    "tgr": threat(tgr_settings()),
    "pna": threat(pna_patchout_settings(decay=1.0, kept=1.0, distance_weight=0.0)),
    "pna-patchout": threat(pna_patchout_settings(kept=0.5)),
}
FILE = Path(__file__).with_suffix(".json")


def given() -> tuple[Any, torch.Tensor, torch.Tensor]:
    """The network, images that eps does not take out of [0, 1], and labels."""
    network, images = small_vit(SIZE, depth=12), random_images(COUNT, SIZE, low=0.1, high=0.9)
    for block in network.blocks:
        block.attn.fused_attn = False
    return network, images, answers(network, images)


def found() -> dict[str, torch.Tensor]:
    """The packages' perturbations, (images, 3, size, size), in steps."""
    content = json.loads(FILE.read_text())
    shape = (COUNT, 3, SIZE, SIZE)
    return {
        name: torch.from_numpy(np.frombuffer(base64.b64decode(text), np.int8).reshape(shape).copy())
        for name, text in content["steps"].items()
    }


def _by_torchattack(name: str, network: Any, image: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    from torchattack.pna_patchout import PNAPatchOut
    from torchattack.tgr import TGR

    kind, more = (TGR, {}) if name == "tgr" else (PNAPatchOut, {"pna_patchout": False})
    attack: Any = kind(copy.deepcopy(network), hook_cfg="vit_base_patch16_224", eps=EPS, steps=10, **more)
    attack.image_size, attack.crop_len, attack.max_num_patches, attack.sample_num_patches = SIZE, SIZE // 2, 4, 4
    return attack(image, label).detach()


def _by_tokenfool(network: Any, image: torch.Tensor, label: torch.Tensor, row: int) -> torch.Tensor:
    from tokenfool.adapters.timm_vit import TimmViTAdapter
    from tokenfool.attacks import pna_patchout

    what, steps = THREATS["pna-patchout"], iter(range(10))
    draws = Draws(0, (ids(COUNT)[row],), what.id)
    pna_patchout._sample_patch_mask = lambda *a, **k: patches(network, image, draws, next(steps), 0.5)
    none: Any = {"mu": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    return pna_patchout.PNAPatchOut(TimmViTAdapter(network), image, label, epsilon=EPS, iters=10, lam=0.1, **none)


def main() -> None:
    """Write the file."""
    network, images, labels = given()
    made: dict[str, str] = {}
    for name in THREATS:
        rows = []
        for row in range(COUNT):
            image, label = images[row : row + 1], labels[row : row + 1]
            tokenfool = name == "pna-patchout"
            theirs = (
                _by_tokenfool(network, image, label, row) if tokenfool else _by_torchattack(name, network, image, label)
            )
            rows.append(((theirs - image) / (EPS / 10)).round().to(torch.int8))
        made[name] = base64.b64encode(torch.cat(rows).numpy().tobytes()).decode()
    by = {"tgr": "torchattack 1.7.2", "pna": "torchattack 1.7.2", "pna-patchout": "tokenfool 0.2.0"}
    FILE.write_text(json.dumps({"by": by, "torch": torch.__version__, "steps": made}, indent=1) + "\n")


if __name__ == "__main__":
    main()
