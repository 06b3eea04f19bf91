"""Every algorithm a protocol file can name, on one screen."""

from robustbench_twicing.catalog.plugins import PREFIX, find_plugin
from robustbench_twicing.engine.apgd import apgd, apgd_targeted
from robustbench_twicing.engine.att import att
from robustbench_twicing.engine.contract import Engine
from robustbench_twicing.engine.fab import fab_targeted
from robustbench_twicing.engine.fgsm import fgsm
from robustbench_twicing.engine.hop_skip_jump import hop_skip_jump
from robustbench_twicing.engine.mifgsm import mifgsm
from robustbench_twicing.engine.minimum_norm import ddn, deepfool, fmn
from robustbench_twicing.engine.noise import noise
from robustbench_twicing.engine.patch_fool import patch_fool
from robustbench_twicing.engine.pgd import pgd, pgd_targeted
from robustbench_twicing.engine.pna_patchout import pna_patchout
from robustbench_twicing.engine.spsa import spsa
from robustbench_twicing.engine.square import square
from robustbench_twicing.engine.tgr import tgr
from robustbench_twicing.engine.torchattacks_bridge import run_torchattacks
from robustbench_twicing.errors import UserError
from robustbench_twicing.spec.attacks import AttackSettings, PythonSettings

ALGORITHMS: dict[str, Engine] = {
    "apgd": apgd,
    "apgd-t": apgd_targeted,
    "att": att,
    "ddn": ddn,
    "deepfool": deepfool,
    "fab-t": fab_targeted,
    "fgsm": fgsm,
    "fmn": fmn,
    "hop-skip-jump": hop_skip_jump,
    "mifgsm": mifgsm,
    "noise": noise,
    "patch-fool": patch_fool,
    "pgd": pgd,
    "pgd-t": pgd_targeted,
    "pna-patchout": pna_patchout,
    "spsa": spsa,
    "square": square,
    "tgr": tgr,
    "torchattacks": run_torchattacks,
}


def engine_of(settings: AttackSettings) -> Engine:
    """What runs these settings: ours, or a function from outside. Raises `UserError` if there is none."""
    if settings.algorithm in ALGORITHMS:
        return ALGORITHMS[settings.algorithm]
    place = settings.function if isinstance(settings, PythonSettings) else type(settings).engine
    found = find_plugin("attacks", f"{PREFIX}{place}") if place else None
    if found is None or not callable(found.value):
        raise UserError(f"Nothing runs the algorithm {settings.algorithm!r}.", "docs/plugins.md says what is needed.")
    engine: Engine = found.value
    return engine
