"""Which method each block of a network computes, found by its behaviour."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from fractions import Fraction
from itertools import combinations, compress, product
from typing import Any

import torch
from torch import nn

from robustbench_twicing.attention.convert import blocks_of, unknown_block
from robustbench_twicing.attention.methods import METHODS, Parameter, mixing_at, mixing_of, settled, settled_method
from robustbench_twicing.attention.paths import MethodAttention, formula_attention
from robustbench_twicing.errors import UserError
from robustbench_twicing.spec.methods import SOFTMAX, Attention, Method

_TOKENS = 24
# A uniform A satisfies A² = A, so methods only differ if attention is peaked: the input grows until they do. Where
# each row of A is one 1, its temperature shows no more, so it grows slowly.
_SCALES = tuple(2.0**power for power in range(9))
_DRAWS = 4
"""Inputs to try. Of a last block that computes one token's row alone, not every input tells all methods apart."""
_MIN_SEPARATION = 0.2
"""Distance between the two nearest methods of the table. Here as below the unit is the size of what softmax gives."""
_MAX_MISS = 0.01
"""Distance to the method that fits best, relative to that between the two nearest. Rounding in float32 leaves 1e-6 of
it, in TF32 1e-3; what it does in the block's own precision is allowed for beside it."""
_EXACT = 1e-5
"""A miss that is float32's rounding alone, relative to the same; a step of a number makes 100 times it."""
_ROUNDINGS = 4
"""In bfloat16 and float16 blocks were seen to miss by up to 2 times what rounding does to the formula of softmax."""
_AS_GOOD = 2
"""A method with fewer free numbers is preferred if it misses by no more than this times the best fit's miss."""
_NOTHING = 1e-12
"""A miss that is none: in float64 the best one may be exactly 0."""


def attention_of(model: nn.Module, claimed: Attention | None = None) -> Attention:
    """Which method each block of `model` computes, found by its behaviour. Class names play no part.

    Each block's attention gets one seeded random input; A and V are rebuilt in float64 from the queries, keys and
    values it was seen to use, and what it did with them is compared with the formula of every method of the table.
    Numbers are fitted by least squares and rounded to the table's steps. `claimed` is what is found where it fits as
    well as the best fit: in half precision close numbers look alike. Raises `UserError` if a block does nothing that
    the table has, or cannot be looked into. Global random state stays as it is.
    """
    blocks = blocks_of(model)
    claims = settled(claimed).methods(len(blocks)) if claimed else ()
    return Attention.of_blocks(
        [_method_of(model, number, block, claims[number : number + 1]) for number, block in enumerate(blocks)]
    )


def _method_of(model: nn.Module, number: int, block: nn.Module, claim: Sequence[Method]) -> Method:
    attention: Any = getattr(block, "attn", None)
    parts = ("qkv", "q_norm", "k_norm", "proj", "num_heads")
    if not all(hasattr(attention, part) for part in parts):
        raise unknown_block(model, f"blocks.{number}", block)
    weight = attention.qkv.weight
    generator = torch.Generator().manual_seed(number)
    shape = (1, _TOKENS, weight.shape[1])
    draws = [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(_DRAWS)]
    was_training = attention.training
    attention.eval()  # no dropout
    try:
        for noise, scale in product(draws, _SCALES):
            tensors = _observe(attention, (noise * scale).to(weight))
            if len(tensors) < 5:
                raise unknown_block(model, f"blocks.{number}", block)
            seen = _Seen(**tensors, is_first=number == 0)
            if not seen.separation() > _MIN_SEPARATION:
                continue
            candidates, exact = [], _EXACT * seen.separation()
            for method, miss in _candidates(seen, claim):
                if miss <= exact:  # what comes later has as many free numbers or more, and cannot be told from it
                    return method
                candidates.append((method, miss))
            best = min(miss for _, miss in candidates)
            if best <= _MAX_MISS * seen.separation() + _ROUNDINGS * seen.rounding():
                return next(method for method, miss in candidates if miss <= max(_AS_GOOD * best, _NOTHING))
            known = "; ".join(f"{name} is {row.equation}" for name, row in METHODS.items())
            raise UserError(
                f"blocks.{number} of {type(model).__name__} computes no known method ({type(attention).__name__}).",
                f"Only these can be told apart: {known}.",
            )
    finally:
        attention.train(was_training)
    raise UserError(
        f"Cannot tell which method blocks.{number} of {type(model).__name__} computes: its attention is uniform.",
        "The weights of this block may be zero or not a number; check the checkpoint.",
    )


class _Seen:
    """What a block's attention used and made: (1, heads, tokens, head_dim), in its own precision.

    `mixed` has fewer tokens, the first ones, if the attention computes no more. `first_v` was given to it as the first
    block's values; the first block has its own.
    """

    def __init__(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        mixed: torch.Tensor,
        first_v: torch.Tensor,
        is_first: bool,
    ) -> None:
        self._heads = q, k, v, v if is_first else first_v
        # There a method that reads the first block's values is softmax attention: found only where it is claimed.
        self.rows = {name: row for name, row in METHODS.items() if not (is_first and row.needs_first)}
        self._tokens, self._dtype = mixed.shape[2], mixed.dtype
        self._softmax = self._formula(SOFTMAX.name, ())
        self._mixed = mixed.double()

    def missed(self, name: str, numbers: Sequence[float]) -> torch.Tensor:
        """What a method gives minus what came out."""
        missed: torch.Tensor = (self._formula(name, numbers) - self._mixed) / self._softmax.norm()
        return missed

    def separation(self) -> float:
        """Distance between the two nearest methods of the table, each with its usual numbers; 0 if nothing came out."""
        given = [self._formula(name, mixing_of(Method(name)).numbers) for name in self.rows]
        nearest = min(float((one - other).norm()) for one, other in combinations(given, 2))
        size = float(self._softmax.norm())
        return nearest / size if size > 0 and self._mixed.isfinite().all() else 0.0

    def rounding(self) -> float:
        """What the block's own precision does to softmax attention."""
        rounded = self._formula(SOFTMAX.name, (), self._dtype)
        return float((rounded - self._softmax).norm() / self._softmax.norm())

    def _formula(self, name: str, numbers: Sequence[float], dtype: torch.dtype = torch.float64) -> torch.Tensor:
        q, k, v, first_v = (tensor.to(dtype) for tensor in self._heads)
        given = formula_attention(q, k, v, q.shape[-1] ** -0.5, mixing_at(name, numbers), first_v)
        result: torch.Tensor = given[:, :, : self._tokens].double()
        return result


def _candidates(seen: _Seen, claim: Sequence[Method]) -> Iterator[tuple[Method, float]]:
    """Methods and how far each misses, those with the fewest free numbers first."""
    for method in (*claim, *map(Method, seen.rows)):
        yield method, float(seen.missed(method.name, mixing_of(method).numbers).norm())
    for name, row in seen.rows.items():
        for start in _starts(row.parameters):
            numbers = _fitted(seen, name, row.parameters, start)
            pairs = zip(numbers, row.parameters, strict=True)
            rounded = tuple(round(Fraction(number) / parameter.step) * parameter.step for number, parameter in pairs)
            yield settled_method(Method(name, rounded)), float(seen.missed(name, numbers).norm())


def _starts(parameters: Sequence[Parameter]) -> Iterator[tuple[float, ...]]:
    """Where to begin to fit: at every value of the parameters that are whole numbers, at the others' usual ones."""
    values = [
        [float(p.low + step * p.step) for step in range(int((p.high - p.low) / p.step) + 1)]
        if p.is_whole
        else [float(p.usual)]
        for p in parameters
    ]
    return product(*values) if parameters else iter(())


def _fitted(seen: _Seen, name: str, parameters: Sequence[Parameter], start: Sequence[float]) -> list[float]:
    """The numbers, within their range, at which a method comes nearest to what came out. Whole ones stay."""
    free = [not parameter.is_whole for parameter in parameters]

    def filled(chosen: Iterable[float]) -> list[float]:
        left = iter(chosen)
        return [next(left) if is_free else number for is_free, number in zip(free, start, strict=True)]

    def missed(chosen: Iterable[float]) -> Any:
        return seen.missed(name, filled(chosen)).flatten().numpy()

    best: Iterable[float] = ()
    if any(free):
        from scipy.optimize import least_squares  # a sixth of a second, which softmax and twicing do not need

        best = least_squares(missed, list(compress(start, free)), method="lm").x
    return [min(max(value, float(p.low)), float(p.high)) for value, p in zip(filled(best), parameters, strict=True)]


def _observe(attention: Any, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """The q, k, v (1, heads, tokens, head_dim) that `attention` used on `x`, and what it "mixed" them to.

    What it never computed under the names that timm has is left out. `first_v` is what it was told of the first block.
    """
    seen: dict[str, torch.Tensor] = {}

    def heads(tokens: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = tokens.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
        return result

    def keep(name: str, tensor: torch.Tensor) -> None:
        seen[name] = tensor.cpu()

    # What comes out of the product with V goes into `norm` where timm has one, else straight into the projection.
    after = getattr(attention, "norm", attention.proj)
    with ExitStack() as hooks, torch.no_grad():
        for handle in (
            attention.q_norm.register_forward_hook(lambda module, args, out: keep("q", out)),
            attention.k_norm.register_forward_hook(lambda module, args, out: keep("k", out)),
            attention.qkv.register_forward_hook(lambda module, args, out: keep("v", heads(out.chunk(3, dim=-1)[2]))),
            after.register_forward_pre_hook(lambda module, args: keep("mixed", heads(args[0]))),
        ):
            hooks.callback(handle.remove)
        first_v = heads(attention.qkv(x).chunk(3, dim=-1)[2]).flip(2)
        keep("first_v", first_v)
        if isinstance(attention, MethodAttention) and attention.first is not None:
            attention.first.values = first_v
            hooks.callback(setattr, attention.first, "values", None)
        attention(x)
    return seen
