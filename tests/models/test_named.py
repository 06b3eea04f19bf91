"""A model by the name that the command line takes."""

import pytest
import torch

from robustbench_twicing import UserError, load_model


def test_a_model_by_its_name_is_a_frozen_module_that_says_what_it_is() -> None:
    model = load_model("deit-tw", device="cpu")
    assert model.card.attention == "twicing"
    assert (model.card.classes, model.card.image_size) == (10, 32)
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 10)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert load_model("deit+twicing(0.5)@last3", device="cpu").card.attention == "twicing(0.5)@3,4,5"


@pytest.mark.parametrize("name", ["deit@s0..s2", "diet"])
def test_a_name_of_several_or_of_none_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="is 3 models" if "@" in name else "diet"):
        load_model(name)
