"""Other people's loops train our models: timm's, by a name, and anybody's, by `apply_method`."""

import subprocess
import sys

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from robustbench_twicing import apply_method
from robustbench_twicing.attention.probe import attention_of
from robustbench_twicing.models.build import load_model
from robustbench_twicing.spec.models import ModelSpec

# As timm's train.py begins: --device-modules are imported, then the model is created, with every argument that it has.
AS_TIMM_TRAINS = """
import importlib, timm
names = timm.list_models("*twicing*")
importlib.import_module("robustbench_twicing.timm")
model = timm.create_model(
    "deit_tiny_twicing_patch16_224", pretrained=False, in_chans=3, num_classes=2, drop_rate=0.0, drop_path_rate=0.1,
    drop_block_rate=None, global_pool=None, bn_momentum=None, bn_eps=None, scriptable=False, checkpoint_path="",
)
kinds = {type(block.attn).__name__ for block in model.blocks}
print(names, len(timm.list_models("*twicing*")), model.training, kinds, round(model.blocks[-1].drop_path1.drop_prob, 3))
"""


def test_one_import_registers_the_names_with_timm():
    done = subprocess.run([sys.executable, "-c", AS_TIMM_TRAINS], capture_output=True, text=True, check=False)
    assert done.stdout == "[] 6 True {'MethodAttention'} 0.1\n", done.stderr


def test_a_loop_of_ones_own_trains_a_converted_model_whose_weights_load(tmp_path):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        shape = {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 6, "num_heads": 4, "num_classes": 3}
        model = apply_method(timm.create_model("vit_tiny_patch16_224", **shape), "twicing(0.5)@last3").train()
        images, labels = torch.rand(6, 3, 32, 32), torch.tensor([0, 1, 2, 0, 1, 2])
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        losses = []
        for _ in range(6):
            loss = nn.functional.cross_entropy(model((images - 0.5) / 0.5), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert str(attention_of(model.eval())) == "twicing(0.5)@3,4,5"
    path = tmp_path / "mine.safetensors"
    save_file(model.state_dict(), path, {"training_recipe": "mine-1", "seed": "4"})
    spec = ModelSpec(
        name="mine", architecture="deit_digits_patch8_32", attention="twicing(0.5)@last3", weights=f"file:{path}"
    )
    card = load_model(spec).card
    assert (card.training_recipe, card.training_seed, card.classes) == ("mine-1", 4, 3)


class ForTrainer(nn.Module):
    """A model of timm as Hugging Face's Trainer calls one; docs/training.md shows it."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, pixel_values, labels=None):
        logits = self.network(pixel_values)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def test_the_trainer_of_hugging_face_trains_a_converted_model_whose_weights_load(tmp_path):
    pytest.importorskip("accelerate", reason="Hugging Face's Trainer needs accelerate")
    transformers = pytest.importorskip("transformers")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        shape = {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 6, "num_heads": 4, "num_classes": 3}
        network = apply_method(timm.create_model("vit_tiny_patch16_224", **shape), "twicing")
        before = network.blocks[0].attn.qkv.weight.detach().clone()
        pictures = [{"pixel_values": torch.rand(3, 32, 32), "labels": label} for label in (0, 1, 2, 0)]
        settings = transformers.TrainingArguments(
            str(tmp_path), max_steps=2, per_device_train_batch_size=2, use_cpu=True, report_to="none",
            save_strategy="no", logging_strategy="no", disable_tqdm=True, remove_unused_columns=False,
        )  # fmt: skip
        done = transformers.Trainer(ForTrainer(network), settings, train_dataset=pictures).train()
    assert done.global_step == 2
    assert not torch.equal(before, network.blocks[0].attn.qkv.weight.detach())
    assert str(attention_of(network.eval())) == "twicing"
    path = tmp_path / "hf.safetensors"
    save_file(network.state_dict(), path, {"training_recipe": "trainer-1", "seed": "0"})
    spec = ModelSpec(name="hf", architecture="deit_digits_patch8_32", attention="twicing", weights=f"file:{path}")
    assert load_model(spec).card.training_recipe == "trainer-1"
