"""Attention has one text and one value for each thing it can mean."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustbench_twicing.errors import UserError
from robustbench_twicing.spec.methods import SOFTMAX, Attention, Layers, Method
from robustbench_twicing.spec.models import ModelSpec

NAMES = st.sampled_from(["softmax", "twicing", "neutreno", "order3"])
NUMBERS = st.lists(st.decimals(-9, 9, places=3).map(str), max_size=2)
METHODS = st.builds(lambda name, numbers: f"{name}({','.join(numbers)})" if numbers else name, NAMES, NUMBERS)
BLOCKS = st.lists(METHODS | st.none(), min_size=1, max_size=14)


def text_of(methods: list[str | None], last: str | None, order: list[int]) -> str:
    """A text that names every block by itself, in any order."""
    parts = [f"{methods[number]}@{number}" for number in order if methods[number]]
    return "+".join([*parts, *([f"{last}@last2"] if last else [])]) or "softmax"


@given(BLOCKS, METHODS | st.none(), st.randoms(use_true_random=False))
def test_parsing_what_was_printed_gives_the_same_and_order_does_not_matter(methods, last, random) -> None:
    order = list(range(len(methods)))
    attention = Attention.parse(text_of(methods, last, order))
    random.shuffle(order)
    assert Attention.parse(text_of(methods, last, order)) == attention
    again = Attention.parse(str(attention))
    assert (again, str(again), hash(again)) == (attention, str(attention), hash(attention))


@given(BLOCKS)
def test_every_block_has_the_method_that_was_said(methods) -> None:
    expected = tuple(Method.parse(method or "softmax") for method in methods)
    attention = Attention.parse(text_of(methods, None, list(range(len(methods)))))
    assert attention.methods(len(methods)) == expected
    assert Attention.of_blocks(expected).methods(len(methods)) == expected


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("softmax", "softmax"),
        ("softmax@last3", "softmax"),
        ("twicing@all", "twicing"),
        ("twicing(0.50)", "twicing(0.5)"),
        ("twicing(1/2)", "twicing(0.5)"),
        ("twicing( .5 )", "twicing(0.5)"),
        ("twicing(5e-1)@last1", "twicing(0.5)@last1"),
        ("twicing@9-11", "twicing@9,10,11"),
        ("twicing@5,1,0,1", "twicing@0,1,5"),
        ("twicing@first3", "twicing@0,1,2"),
        ("twicing@2 + twicing@0-1", "twicing@0,1,2"),
        ("twicing@last3+other(-1,1/3)@0", "other(-1,1/3)@0+twicing@last3"),
        ("softmax@0-3+twicing@last3", "twicing@last3"),
    ],
)
def test_one_meaning_has_one_text(text: str, canonical: str) -> None:
    assert str(Attention.parse(text)) == canonical
    assert Attention.parse(text) == Attention.parse(canonical)


def test_what_blocks_have_is_said_in_one_way() -> None:
    twicing = Method("twicing")
    assert str(Attention.of_blocks([twicing] * 3)) == "twicing"
    assert str(Attention.of_blocks([SOFTMAX] * 3)) == "softmax"
    assert str(Attention.of_blocks([SOFTMAX, twicing, twicing])) == "twicing@1,2"
    assert str(Attention.of_blocks([twicing, Method.parse("twicing(0.5)"), twicing])) == "twicing@0,2+twicing(0.5)@1"


@pytest.mark.parametrize(
    "text",
    [
        *("", "+", "twicing+", "Twicing", "twicing(", "twicing()", "twicing(x)", "twicing(1/0)", "twicing(1)(2)"),
        *("twicing@", "twicing@3-1", "twicing@last", "twicing@last0", "twicing@-1", "twicing@1.5", "twicing@all,1"),
        *("twicing@last9999", "twicing@0-99999999", "twicing@0@1", "twicing@٣"),
        *("twicing@0+other@0", "twicing+other@last1", "twicing@last2+other@last1", "softmax+twicing@0", "a+b"),
    ],
)
def test_what_means_nothing_is_refused_with_the_forms(text: str) -> None:
    with pytest.raises(UserError) as caught:
        Attention.parse(text)
    assert "Write" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "count", "says"),
    [
        ("twicing@3", 3, "No block 3 in a model of 3 blocks"),
        ("twicing@last4", 3, "No last 4 blocks in a model of 3 blocks"),
        ("twicing@1+other@last2", 3, "Two methods, twicing and other, for block 1 of 3"),
    ],
)
def test_what_the_depth_rules_out_is_refused_where_it_is_known(text: str, count: int, says: str) -> None:
    attention = Attention.parse(text)
    with pytest.raises(UserError, match=says):
        attention.methods(count)


def test_layers_of_a_model() -> None:
    assert Layers.parse("last3").of(12) == (9, 10, 11)
    assert Layers.parse("all").of(2) == (0, 1)
    assert Layers.parse("0,3-5").of(6) == (0, 3, 4, 5)


def test_a_model_spec_holds_its_attention_as_text_in_json() -> None:
    spec = ModelSpec(name="m", architecture="a", weights="w", attention="twicing@last3")
    assert spec.model_dump(mode="json")["attention"] == "twicing@last3"
    assert ModelSpec.model_validate(spec.model_dump(mode="json")) == spec
    assert ModelSpec(name="m", architecture="a", weights="w").attention == Attention()
    with pytest.raises(UserError, match="is no method"):
        ModelSpec(name="m", architecture="a", weights="w", attention=7)
