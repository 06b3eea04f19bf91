"""A compiled model computes what the model computes, for batches of every size, without being compiled again."""

import shutil
import subprocess
import sys

import pytest

SCRIPT = """
import sys
import torch
from timm.models.vision_transformer import VisionTransformer
from robustbench_twicing.engine.contract import Queries
from robustbench_twicing.engine.losses import log_odds_against
from robustbench_twicing.models.intake import wrap_model
from robustbench_twicing.models.faster.compiled import compiled
from robustbench_twicing.attention.convert import apply_method, apply_softmax
from robustbench_twicing.models.faster.onednn_layers import use_onednn
from robustbench_twicing.models.faster.last_block import read_tokens_only

torch.manual_seed(0)
vit = VisionTransformer(img_size=32, patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=10)
network = apply_softmax(apply_method(vit, sys.argv[1]))
read_tokens_only(network)
use_onednn(network)
model = wrap_model("m", network, 32)
shadow = compiled(model)
images, labels = torch.rand(9, 3, 32, 32), torch.arange(9)

wanted_logits, wanted = Queries(model, 9).gradient(images, labels, log_odds_against)
Queries(shadow, 9).gradient(images, labels, log_odds_against)
Queries(shadow, 9)(images)
torch.compiler.set_stance("fail_on_recompile")
for size in (9, 4, 1, 2):
    logits, gradient = Queries(shadow, size).gradient(images, labels, log_odds_against)
    torch.testing.assert_close(logits, wanted_logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradient, wanted, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(Queries(shadow, size)(images), wanted_logits, rtol=1e-4, atol=1e-5)
assert (gradient != wanted).any()  # it did go another way
"""

MANY = """
from functools import partial
import torch
from torch import nn
from robustbench_twicing.models.faster.compiled import Compiled

graphs = []

def count(graph, inputs):
    graphs.append(graph)
    return graph

torch.compile = partial(torch.compile, backend=count)
for number in range(1, 7):
    network = Compiled(nn.Sequential(nn.Flatten(), *(nn.Linear(12, 12) for _ in range(number))))
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            network(torch.rand(3, 3, 2, 2))
print(len(graphs))
"""


@pytest.mark.dear
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("attention", ["softmax", "twicing@0+twicing(0.5)@1"])
def test_logits_and_gradients_are_the_models_own_at_every_size(attention: str) -> None:
    # In a process of its own: the tests' checks of shapes remember a batch's size, and would be compiled in.
    run = subprocess.run([sys.executable, "-c", SCRIPT, attention], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


@pytest.mark.dear
def test_many_different_models_are_all_compiled() -> None:
    run = subprocess.run([sys.executable, "-c", MANY], capture_output=True, text=True, check=False)
    assert run.stdout.split() == ["12"], run.stderr
