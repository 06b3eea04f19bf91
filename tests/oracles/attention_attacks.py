"""What two other packages make of TGR, ATT, PNA with PatchOut, and Patch-Fool, image by image: perturbations in steps
of eps / 10, of Patch-Fool pixels in steps of 1e-4.

`python -m tests.oracles.attention_attacks` makes `attention_attacks.json`; it needs torchattack 1.7.2 and tokenfool
0.2.0, which are in no extra of ours. torchattack follows the authors' code but has no distance in PNA's loss, and draws
PatchOut's patches from torch: it makes TGR and PNA alone. tokenfool makes PNA with PatchOut and the distance, and is
given the patches that our draws choose. torchattack makes ATT, with our draws and the authors' importance of patches,
where it takes least and most of each patch alone, which is 0 / 0; both in float64, since in float32 the rounding of
another processor moves up to a quarter of an image's values, torchattack's as ours. tokenfool's Patch-Fool begins at
our draws, and its projection is made to divide by the squared norm.
"""

import base64
import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robustbench_twicing.engine.patches import over_pixels
from robustbench_twicing.engine.pna_patchout import patches
from robustbench_twicing.seeding import Draws
from tests.engine.tiny import (
    answers,
    att_settings,
    ids,
    patch_fool_settings,
    pna_patchout_settings,
    random_images,
    small_vit,
    tgr_settings,
    threat,
)

EPS, SIZE, COUNT = 8 / 255, 12, 3
THREATS = {
    "tgr": threat(tgr_settings()),
    "pna": threat(pna_patchout_settings(decay=1.0, kept=1.0, distance_weight=0.0)),
    "att": threat(att_settings()),
    "pna-patchout": threat(pna_patchout_settings(kept=0.5)),
}
PATCH_FOOL = threat(patch_fool_settings(12), "1")
FILE = Path(__file__).with_suffix(".json")


def given(name: str = "") -> tuple[Any, torch.Tensor, torch.Tensor]:
    """The network, images that eps does not take out of [0, 1], and labels; of `att` in float64."""
    network, images = small_vit(SIZE, depth=12), random_images(COUNT, SIZE, low=0.1, high=0.9)
    for block in network.blocks:
        block.attn.fused_attn = False
    labels = answers(network, images)
    return (network.double(), images.double(), labels) if name == "att" else (network, images, labels)


def found() -> dict[str, torch.Tensor]:
    """The packages' perturbations, (images, 3, size, size), in steps."""
    content = json.loads(FILE.read_text())
    shape = (COUNT, 3, SIZE, SIZE)
    return {
        name: torch.from_numpy(np.frombuffer(base64.b64decode(text), np.int8).reshape(shape).copy())
        for name, text in content["steps"].items()
    }


def patch_fooled() -> torch.Tensor:
    """tokenfool's Patch-Fool, (images, 3, size, size) pixels."""
    text = json.loads(FILE.read_text())["patch-fool"]
    steps = np.frombuffer(base64.b64decode(text), np.int16).reshape(COUNT, 3, SIZE, SIZE)
    return torch.from_numpy(steps * 1e-4).float()


def _by_torchattack(name: str, network: Any, image: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    from torchattack.pna_patchout import PNAPatchOut
    from torchattack.tgr import TGR

    kind, more = (TGR, {}) if name == "tgr" else (PNAPatchOut, {"pna_patchout": False})
    attack: Any = kind(copy.deepcopy(network), hook_cfg="vit_base_patch16_224", eps=EPS, steps=10, **more)
    attack.image_size, attack.crop_len, attack.max_num_patches, attack.sample_num_patches = SIZE, SIZE // 2, 4, 4
    return attack(image, label).detach()


def _att_by_torchattack(network: Any, image: torch.Tensor, label: torch.Tensor, row: int) -> torch.Tensor:
    from torchattack import att

    draws, steps = Draws(0, (ids(COUNT)[row],), THREATS["att"].id), iter(range(10))
    attack: Any = att.ATT(copy.deepcopy(network), hook_cfg="vit_base_patch16_224", eps=EPS, steps=10)
    attack.patch_index = attack._patch_index(SIZE, SIZE // 2)
    attack.img_size, attack.crop_len = SIZE, SIZE // 2

    def importance() -> torch.Tensor:
        product = (attack.mid_feats[0][1:] * attack.mid_grads[0][1:]).sum(-1)
        return attack._resize(product.reshape(1, 2, 2), SIZE)

    def normalised(fine: torch.Tensor, index: Any, size: int, scale: float, offset: float) -> torch.Tensor:
        grid = torch.nn.functional.avg_pool2d(fine[None], size)[0]
        grid = scale * (grid - grid.min()) / (grid.max() - grid.min()) + offset
        return grid.repeat_interleave(size, 1).repeat_interleave(size, 2)

    attack._get_gf, attack._norm_patchs = importance, normalised
    drawn = torch.rand_like
    torch.rand_like = lambda x: over_pixels(network, draws.uniform(next(steps), (2, 2))).expand_as(x)
    try:
        return attack(image, label).detach()
    finally:
        torch.rand_like = drawn


def _patch_fool_by_tokenfool(network: Any, image: torch.Tensor, label: torch.Tensor, row: int) -> torch.Tensor:
    from tokenfool.adapters.timm_vit import TimmViTAdapter
    from tokenfool.attacks import patchfool

    def projected(gradient: Any, other: Any, cosine: Any, shape: Any) -> Any:
        part = (gradient * other).sum(1) / other.square().sum(1)
        return (gradient - part.clamp_max(0)[:, None] * other).view(shape)

    patchfool.PCGrad = projected
    draws = Draws(0, (ids(COUNT)[row],), PATCH_FOOL.id)
    drawn = torch.rand_like
    torch.rand_like = lambda x: draws.uniform(0, x.shape[1:])
    how: Any = {"mu": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "patch_size": SIZE // 2, "attack_mode": "Attention"}
    try:
        return patchfool.PatchFool(TimmViTAdapter(network), image, label, iters=12, lr=0.05, **how)[0]
    finally:
        torch.rand_like = drawn


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
    made: dict[str, str] = {}
    for name in THREATS:
        network, images, labels = given(name)
        rows = []
        for row in range(COUNT):
            image, label = images[row : row + 1], labels[row : row + 1]
            if name == "pna-patchout":
                theirs = _by_tokenfool(network, image, label, row)
            elif name == "att":
                theirs = _att_by_torchattack(network, image, label, row)
            else:
                theirs = _by_torchattack(name, network, image, label)
            rows.append(((theirs - image) / (EPS / 10)).round().to(torch.int8))
        made[name] = base64.b64encode(torch.cat(rows).numpy().tobytes()).decode()
    network, images, labels = given()
    pixels = [
        _patch_fool_by_tokenfool(network, images[row : row + 1], labels[row : row + 1], row) for row in range(COUNT)
    ]
    fooled = base64.b64encode((torch.cat(pixels).detach() * 1e4).round().to(torch.int16).numpy().tobytes()).decode()
    by = dict.fromkeys(("tgr", "pna", "att"), "torchattack 1.7.2") | dict.fromkeys(
        ("pna-patchout", "patch-fool"), "tokenfool 0.2.0"
    )
    content = {"by": by, "torch": torch.__version__, "steps": made, "patch-fool": fooled}
    FILE.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
