"""A method is one row: what its formula says, every path computes, the probe finds, and the names know."""

import copy
import json
import subprocess
import sys
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from robustbench_twicing import apply_method
from robustbench_twicing.attention import methods, paths, probe
from robustbench_twicing.attention.methods import METHODS, Inputs, Parameter, Row, mixing_of, settled, settled_method
from robustbench_twicing.attention.paths import explicit_attention, formula_attention, fused_attention
from robustbench_twicing.attention.probe import attention_of
from robustbench_twicing.catalog.zoo import model_spec
from robustbench_twicing.cli.app import app
from robustbench_twicing.errors import UserError
from robustbench_twicing.models.faster.last_block import read_tokens_only
from robustbench_twicing.spec.methods import Attention, Method
from tests.attention.small import images, small

# float64 rounding of sums over a handful of numbers of size 10: about 1e-14; a wrong formula misses by about 1.
EXACT = {"rtol": 0, "atol": 1e-12}


def qkv(tokens: int = 7) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [2 * torch.randn(2, 3, tokens, 5, generator=generator, dtype=torch.float64) for _ in range(3)]


def settings_of(row: Row) -> list[str]:
    """The numbers at which a row is tried: usual, lowest and highest."""
    ends = [tuple(getattr(p, end) for p in row.parameters) for end in ("usual", "low", "high")]
    return [f"({','.join(map(str, numbers))})" if numbers else "" for numbers in dict.fromkeys(ends)]


EVERY = pytest.mark.parametrize(
    "text", [name + numbers for name, row in METHODS.items() for numbers in settings_of(row)]
)


@EVERY
@pytest.mark.parametrize("attend", [explicit_attention, fused_attention])
@pytest.mark.parametrize("read", [None, 2])
def test_every_row_is_computed_along_every_path_as_its_formula_says(text: str, attend: Any, read: int | None) -> None:
    mixing = mixing_of(Method.parse(text))
    first_v = qkv()[2].flip(2)
    expected = formula_attention(*qkv(), 0.6, mixing, first_v)[:, :, :read]
    torch.testing.assert_close(attend(*qkv(), 0.6, mixing, read=read, first_v=first_v), expected, **EXACT)


@EVERY
@pytest.mark.parametrize("attend", [explicit_attention, fused_attention])
def test_every_row_has_the_gradient_that_finite_differences_find(text: str, attend: Any) -> None:
    q, k, v = (tensor[:1, :1, :4].requires_grad_() for tensor in qkv())
    first_v = qkv()[2][:1, :1, 3:7].requires_grad_()
    mixing = mixing_of(Method.parse(text))
    assert torch.autograd.gradcheck(
        lambda q, k, v, first_v: attend(q, k, v, 0.3, mixing, first_v=first_v), (q, k, v, first_v)
    )


@EVERY
def test_every_row_is_found_by_the_probe(text: str) -> None:
    text += "@1-3" if METHODS[Method.parse(text).name].needs_first else ""  # in the first block it is softmax attention
    assert attention_of(apply_method(small(), text)) == settled(Attention.parse(text))


def test_every_row_says_what_it_is() -> None:
    for row in METHODS.values():
        assert all((row.title, row.equation, row.source))
        for parameter in row.parameters:
            assert parameter.low <= parameter.usual <= parameter.high
            assert ((parameter.usual - parameter.low) / parameter.step).denominator == 1
            assert parameter.holds


@pytest.mark.parametrize("name", METHODS)
def test_the_catalog_explains_every_row(name: str) -> None:
    shown = CliRunner().invoke(app, ["catalog", "show", name, "--json"])
    facts = json.loads(shown.output)
    for said in (METHODS[name].equation, METHODS[name].source, *(p.holds for p in METHODS[name].parameters)):
        assert said in str(facts)


def test_names_are_checked_without_torch() -> None:
    code = "import sys, robustbench_twicing.attention.methods; print('torch' in sys.modules, 'timm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split() == ["False"] * 2


@pytest.mark.parametrize("text", ["twicing(1)", "twicing(1.0)", "twicing", "twicing@all"])
def test_the_usual_number_is_not_written(text: str) -> None:
    assert str(settled(Attention.parse(text))) == "twicing"


def test_parts_that_become_the_same_method_are_one() -> None:
    assert str(settled(Attention.parse("twicing(1)@0+twicing@1"))) == "twicing@0,1"


@pytest.mark.parametrize("text", ["twicing(0)", "twicing(1.001)", "twicing(-1)", "twicing(0.0005)"])
def test_numbers_that_a_method_does_not_take(text: str) -> None:
    with pytest.raises(UserError, match=r"from 0\.001 to 1 in steps of 0\.001"):
        settled_method(Method.parse(text))


# --- the rows beside softmax and twicing ------------------------------------------------------------------------------


def matrix(q: np.ndarray, k: np.ndarray, scale: float) -> np.ndarray:
    """A, formed."""
    scores = np.einsum("bhnd,bhmd->bhnm", q, k) * scale
    exponentials = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def test_each_is_the_equation_written_out_in_numpy() -> None:
    q, k, v = (tensor.numpy() for tensor in qkv())
    first_v, eye, a = v[:, :, ::-1], np.eye(7), matrix(q, k, 0.6)
    written_out = {
        "folded": (eye - (eye - a) @ (eye - a) @ (eye - a)) @ v,
        "folded(5)": (eye - np.linalg.matrix_power(eye - a, 5)) @ v,
        "neutreno": a @ v + 0.6 * (first_v - v),
        "neutreno(0.25)": a @ v + 0.25 * (first_v - v),
        "temperature": matrix(q, k, 1.2) @ v,
        "temperature(4)": matrix(q, k, 0.15) @ v,
    }
    for text, expected in written_out.items():
        given = formula_attention(*qkv(), 0.6, mixing_of(Method.parse(text)), qkv()[2].flip(2))
        np.testing.assert_allclose(given.numpy(), expected, **EXACT)


def test_the_rows_meet_where_they_should() -> None:
    """Order 1 is softmax and order 2 twicing; temperature 1 is softmax; a pull of nothing is none."""
    heads, softmax, twicing = qkv(), mixing_of(Method("softmax")), mixing_of(Method("twicing"))
    for name, number, same in (
        ("folded", 1, softmax),
        ("folded", 2, twicing),
        ("temperature", 1, softmax),
        ("neutreno", 0, softmax),
    ):
        given = formula_attention(*heads, 0.6, methods.mixing_at(name, [float(number)]))
        torch.testing.assert_close(given, formula_attention(*heads, 0.6, same), **EXACT)


def pulled(model: Any, strength: float) -> Any:
    """The same network with NeuTRENO by hooks, sharing no code: what goes into each projection is added to."""
    values: list[torch.Tensor] = []
    for number, block in enumerate(model.blocks):

        def seen(_: Any, __: Any, out: torch.Tensor, number: int = number) -> None:
            values[number:] = [out.chunk(3, dim=-1)[2]]

        def add(_: Any, args: Any, number: int = number) -> Any:
            return (args[0] + strength * (values[0] - values[number]),)

        block.attn.qkv.register_forward_hook(seen)
        block.attn.proj.register_forward_pre_hook(add)
    return model


@pytest.mark.parametrize("path", ["explicit", "fused"])
def test_the_first_blocks_values_reach_every_block_of_a_network_and_carry_the_gradient(path: str) -> None:
    expected, given = pulled(small(), 0.6), apply_method(small(), "neutreno")
    paths.set_attention_path(given, path)
    for _ in range(2):  # nothing is left over from one batch to the next
        inputs = images().requires_grad_()
        gradients = [torch.autograd.grad(model(inputs).square().sum(), inputs)[0] for model in (expected, given)]
        torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)
        assert all(block.attn.first.values is None for block in given.blocks)
    before = given(images())
    read_tokens_only(given)
    torch.testing.assert_close(copy.deepcopy(given)(images()), before, rtol=0, atol=1e-5)


def test_the_first_block_hands_its_values_on_whatever_its_own_method() -> None:
    model = apply_method(small(), "twicing@0+neutreno@2,3")
    assert str(attention_of(model)) == "twicing@0+neutreno@2,3"
    apply_method(model, "twicing@0")
    assert [getattr(block.attn, "first", None) for block in model.blocks] == [None] * 4
    assert str(attention_of(apply_method(small(), "neutreno"), Attention.parse("neutreno"))) == "neutreno"
    assert str(attention_of(apply_method(small(), "neutreno"))) == "neutreno@1,2,3"
    with pytest.raises(RuntimeError, match="without it"):
        apply_method(small(), "neutreno").blocks[1](torch.zeros(1, 5, 24))


# --- a row more -------------------------------------------------------------------------------------------------------


def _sharpened(x: Inputs, factor: float, share: float) -> Any:
    """With queries of its own and two numbers: what no fast way knows."""
    return share * x.attend(x.v, factor * x.q) + (1 - share) * x.v


SHARPENED = Row(
    title="sharpened attention beside the values",
    equation="share softmax(factor · scale · QKᵀ)V + (1 - share) V",
    source="this test",
    formula=_sharpened,
    parameters=(
        Parameter(
            "factor", "what scores are multiplied by", Fraction(2), Fraction(1, 10), Fraction(9), Fraction(1, 10)
        ),
        Parameter("share", "of attention", Fraction(1, 2), Fraction(0), Fraction(1), Fraction(1, 10)),
    ),
)


@pytest.fixture
def _more(monkeypatch: pytest.MonkeyPatch) -> None:
    table = {**METHODS, "sharp": SHARPENED}
    for module in (methods, probe):
        monkeypatch.setattr(module, "METHODS", table)


def by_numpy(q: np.ndarray, k: np.ndarray, v: np.ndarray, scale: float, factor: float, share: float) -> np.ndarray:
    scores = np.einsum("bhnd,bhmd->bhnm", q, k) * scale * factor
    exponentials = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return share * (exponentials / exponentials.sum(axis=-1, keepdims=True)) @ v + (1 - share) * v


@pytest.mark.usefixtures("_more")
@pytest.mark.parametrize("attend", [explicit_attention, fused_attention])
@pytest.mark.parametrize("read", [None, 2])
def test_a_new_row_alone_is_computed_along_every_path(attend: Any, read: int | None) -> None:
    expected = by_numpy(*(tensor.numpy() for tensor in qkv()), 0.6, 1.5, 0.3)
    mixed = attend(*qkv(), 0.6, mixing_of(Method.parse("sharp(1.5,0.3)")), read=read)
    np.testing.assert_allclose(mixed.numpy(), expected[:, :, :read], **EXACT)


@pytest.mark.usefixtures("_more")
def test_a_new_row_alone_is_known_by_name_and_found_by_the_probe() -> None:
    assert str(model_spec("deit+sharp@last2=x.pth", "digits").attention) == "sharp@last2"
    assert str(settled(Attention.parse("sharp(2)"))) == "sharp"
    for text in (
        "sharp",
        "sharp(1.5,0.5)",
        "sharp(0.7,0.2)@0+twicing@1+twicing(0.25)@3",
        "folded@0+twicing@1+folded(5)@2",
    ):
        model = apply_method(small(), text)
        assert str(attention_of(model)) == text
        before = model(images())
        read_tokens_only(model)
        torch.testing.assert_close(model(images()), before, rtol=0, atol=1e-5)
        for path in ("explicit", "fused"):
            paths.set_attention_path(model, path)
            torch.testing.assert_close(model(images()), before, rtol=0, atol=1e-5)
    for wrong in ("sharp(10)", "folded(2)", "folded(3.5)"):
        with pytest.raises(UserError, match="cannot be"):
            model_spec(f"deit+{wrong}", "digits")
