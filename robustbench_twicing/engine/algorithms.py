"""Every algorithm a protocol file can name, on one screen."""

from robustbench_twicing.engine.contract import Engine
from robustbench_twicing.engine.fgsm import fgsm
from robustbench_twicing.engine.pgd import pgd
from robustbench_twicing.engine.spsa import spsa
from robustbench_twicing.engine.torchattacks_bridge import run_torchattacks

ALGORITHMS: dict[str, Engine] = {
    "fgsm": fgsm,
    "pgd": pgd,
    "spsa": spsa,
    "torchattacks": run_torchattacks,
}
