"""Every algorithm a protocol file can name, on one screen."""

from robustbench_twicing.engine.apgd import apgd, apgd_targeted
from robustbench_twicing.engine.contract import Engine
from robustbench_twicing.engine.fgsm import fgsm
from robustbench_twicing.engine.mifgsm import mifgsm
from robustbench_twicing.engine.noise import noise
from robustbench_twicing.engine.pgd import pgd
from robustbench_twicing.engine.spsa import spsa
from robustbench_twicing.engine.square import square
from robustbench_twicing.engine.torchattacks_bridge import run_torchattacks

ALGORITHMS: dict[str, Engine] = {
    "apgd": apgd,
    "apgd-t": apgd_targeted,
    "fgsm": fgsm,
    "mifgsm": mifgsm,
    "noise": noise,
    "pgd": pgd,
    "spsa": spsa,
    "square": square,
    "torchattacks": run_torchattacks,
}
