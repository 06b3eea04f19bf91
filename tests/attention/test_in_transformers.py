"""Methods of attention in models of transformers: tiny ones, with random weights."""

import copy
from typing import Any

import pytest
import torch

from robustbench_twicing import UserError, apply_method
from robustbench_twicing.attention.in_transformers import NAME

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
masking_utils = pytest.importorskip("transformers.masking_utils")

GPT2 = {"vocab_size": 50, "n_positions": 32, "n_embd": 24, "n_layer": 3, "n_head": 3}
WIDE = {"vocab_size": 50, "hidden_size": 24, "num_hidden_layers": 3, "intermediate_size": 48}
MODELS = {
    "gpt2": lambda: transformers.GPT2LMHeadModel(transformers.GPT2Config(**GPT2)),
    "llama": lambda: transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**WIDE, num_attention_heads=6, num_key_value_heads=2, max_position_embeddings=32)
    ),
    "neox": lambda: transformers.GPTNeoXForCausalLM(
        transformers.GPTNeoXConfig(**WIDE, num_attention_heads=3, max_position_embeddings=32)
    ),
}
TOKENS = torch.tensor([[5, 17, 3, 41, 8, 30, 2, 11, 19], [7, 7, 23, 1, 49, 12, 33, 4, 6]])


def model(name: str) -> Any:
    torch.manual_seed(0)
    made = MODELS[name]().eval().double()
    for parameter in made.parameters():  # random weights of 0.02 leave attention nearly uniform
        if parameter.ndim > 1:
            parameter.data.normal_(std=0.3)
    return made


def logits(made: Any, tokens: torch.Tensor = TOKENS, **more: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = made(tokens, use_cache=False, **more).logits
    return found


def recorded(made: Any, attention: str) -> list[dict[str, torch.Tensor]]:
    """Queries, keys, values and what came out, of every layer."""
    from robustbench_twicing.attention import in_transformers as room

    seen: list[dict[str, torch.Tensor]] = []
    real = room._mix

    def spy(module: Any, query: Any, key: Any, value: Any, mask: Any, **more: Any) -> Any:
        out = real(module, query, key, value, mask, **more)
        seen.append({"q": query, "k": key, "v": value, "out": out[0], "scale": torch.tensor(more["scaling"])})
        return out

    apply_method(made, attention)
    transformers.AttentionInterface.register(NAME, spy)
    logits(made)
    transformers.AttentionInterface.register(NAME, real)
    return seen


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_a_layer_mixes_by_the_operator_written_out(name: str, strength: float) -> None:
    attention = "twicing" if strength == 1 else "twicing(0.5)"
    for number, layer in enumerate(recorded(model(name), f"{attention}@last2")):
        groups = layer["q"].shape[1] // layer["k"].shape[1]
        key, value = (torch.repeat_interleave(layer[part], groups, dim=1) for part in "kv")
        scores = layer["scale"] * layer["q"] @ key.transpose(2, 3)
        attn = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -torch.inf).softmax(-1)
        operator = attn + (strength if number else 0.0) * (attn - attn @ attn)
        torch.testing.assert_close(layer["out"], (operator @ value).transpose(1, 2))


@pytest.mark.parametrize("name", MODELS)
def test_softmax_is_what_the_model_computed_and_the_weights_stay(name: str) -> None:
    plain, ours = model(name), model(name)
    state = {key: value.clone() for key, value in ours.state_dict().items()}
    torch.testing.assert_close(logits(apply_method(ours, "softmax")), logits(plain))
    mixed = logits(apply_method(ours, "twicing"))
    assert not torch.allclose(mixed, logits(plain), atol=1e-3)
    assert state.keys() == ours.state_dict().keys()
    assert all(torch.equal(value, ours.state_dict()[key]) for key, value in state.items())
    torch.testing.assert_close(logits(copy.deepcopy(ours)), mixed)
    torch.testing.assert_close(logits(apply_method(ours, "softmax")), logits(plain))


@pytest.mark.parametrize("attention", ["twicing", "folded", "neutreno", "temperature"])
@pytest.mark.parametrize("name", MODELS)
def test_no_position_sees_a_later_one(name: str, attention: str) -> None:
    ours = apply_method(model(name), attention)
    other = TOKENS.clone()
    other[:, 5:] = 1
    assert torch.equal(logits(ours)[:, :5], logits(ours, other)[:, :5])
    assert not torch.allclose(logits(ours)[:, 5:], logits(ours, other)[:, 5:])


@pytest.mark.parametrize("name", MODELS)
def test_padding_is_not_attended_to(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = apply_method(model(name), "twicing")
    padded = torch.cat((torch.zeros(2, 4, dtype=torch.long), TOKENS), 1)
    mask = torch.cat((torch.zeros(2, 4, dtype=torch.long), torch.ones_like(TOKENS)), 1)
    places = (mask.cumsum(1) - 1).clamp(min=0)
    found = logits(ours, padded, attention_mask=mask, position_ids=places)[:, 4:]
    torch.testing.assert_close(found, logits(ours))
    monkeypatch.delitem(masking_utils.AttentionMaskInterface._global_mapping, NAME)
    without = logits(ours, padded, attention_mask=mask, position_ids=places)[:, 4:]
    assert not torch.allclose(found, without, atol=0.1)  # what happens if the registry of masks is forgotten


def test_a_step_of_generation_is_refused_and_without_a_cache_it_works() -> None:
    ours = apply_method(model("llama"), "twicing")
    with pytest.raises(UserError, match="use_cache=False"):
        ours.generate(TOKENS[:1], max_new_tokens=3, do_sample=False, pad_token_id=0)
    made = ours.generate(TOKENS[:1], max_new_tokens=3, do_sample=False, pad_token_id=0, use_cache=False)
    assert torch.equal(made[0, -1], logits(ours, made[:, :-1])[0, -1].argmax())


def test_neutreno_pulls_towards_the_values_of_the_first_layer() -> None:
    seen = recorded(model("gpt2"), "neutreno(0.5)")
    torch.testing.assert_close(seen[0]["out"], recorded(model("gpt2"), "softmax")[0]["out"])
    for layer in seen[1:]:
        scores = layer["scale"] * layer["q"] @ layer["k"].transpose(2, 3)
        attn = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -torch.inf).softmax(-1)
        torch.testing.assert_close(
            layer["out"], (attn @ layer["v"] + 0.5 * (seen[0]["v"] - layer["v"])).transpose(1, 2)
        )


def test_images_too() -> None:
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=48, image_size=32, patch_size=8
    )
    plain = transformers.ViTForImageClassification(config).eval()
    ours = apply_method(copy.deepcopy(plain), "twicing@last1")
    images = torch.rand(2, 3, 32, 32)
    assert not torch.equal(ours(images).logits, plain(images).logits)
    torch.testing.assert_close(apply_method(ours, "softmax")(images).logits, plain(images).logits)


def test_what_cannot_be_done_is_refused_and_leaves_the_model_as_it_was() -> None:
    bloom = transformers.BloomForCausalLM(transformers.BloomConfig(vocab_size=50, hidden_size=16, n_layer=1, n_head=2))
    upcast = transformers.GPT2LMHeadModel(transformers.GPT2Config(**GPT2, reorder_and_upcast_attn=True))
    for made, attention, says in (
        (bloom.eval(), "twicing", "computes attention by itself"),
        (upcast.eval(), "twicing", "reorder_and_upcast_attn"),
        (model("gpt2"), "twicing@last9", "No last 9 blocks in a model of 3"),
        (model("gpt2"), "twicng", "Unknown method"),
    ):
        before, name = logits(made), made.config._attn_implementation
        with pytest.raises(UserError, match=says):
            apply_method(made, attention)
        assert torch.equal(logits(made), before)
        assert made.config._attn_implementation == name
        assert not any(NAME in vars(module) for module in made.modules())
