"""The methods of attention, one row each: what it computes, from where, and which numbers it takes.

Importing this needs no torch: a formula is written with the operators that tensors have. So what lists names and
refuses wrong ones reads the same row as what computes. docs/add-a-method.md says what a row needs.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple, Protocol, runtime_checkable

from robustbench_twicing.errors import UserError, unknown_name
from robustbench_twicing.spec.methods import FORMS, Attention, Method
from robustbench_twicing.spec.values import exact_text

# --- what a row is made of ----------------------------------------------------------------------------------------


@runtime_checkable  # the test run checks types at run time
class Inputs(Protocol):
    """What a formula is written with: one block's heads, each tensor (batch, heads, tokens, head_dim)."""

    @property
    def q(self) -> Any:
        """Queries."""

    @property
    def k(self) -> Any:
        """Keys."""

    @property
    def v(self) -> Any:
        """Values."""

    @property
    def first_v(self) -> Any:
        """The values of the network's first block."""

    def attend(self, values: Any, q: Any = None) -> Any:
        """A · values, A = softmax(scale · qkᵀ) being the attention of the block's queries, or of others."""


class Parameter(NamedTuple):
    """A number that a method takes: between `low` and `high`, in steps."""

    name: str
    holds: str
    usual: Fraction
    low: Fraction
    high: Fraction
    step: Fraction = Fraction(1, 1000)
    """The probe measures a block's numbers, and tells no finer ones apart. Of whole numbers it tries every one."""

    @property
    def is_whole(self) -> bool:
        """A number that counts, between whose values there is nothing."""
        return self.step.denominator == 1


class Row(NamedTuple):
    """One method."""

    title: str
    equation: str
    """With A = softmax(scale · QKᵀ), V the values, and the parameters' names."""
    source: str
    formula: Callable[..., Any]
    """`formula(inputs, *numbers)`: what comes out, shaped as `inputs.v`. This is the method, and is what the probe and
    the tests hold every faster way against."""
    parameters: tuple[Parameter, ...] = ()
    strength: Callable[..., float] | None = None
    """Where the equation is (A + s(A - A²))V: s, from the numbers. `attention.paths` then computes it by products and
    gradients written by hand, and for the tokens that are read only; without it, by `formula` and autograd."""
    needs_first: bool = False
    """The formula reads `first_v`. In the first block it must then be softmax attention, its values being the first."""


class Mixing(NamedTuple):
    """A method with its numbers filled in, as `attention.paths` computes it."""

    formula: Callable[..., Any]
    numbers: tuple[float, ...]
    strengths: tuple[float, ...]
    """The strength, if the row has one. In a tuple: a lone float torch.compile takes for a variable."""
    needs_first: bool
    """See `Row`."""

    @property
    def strength(self) -> float | None:
        """See `Row.strength`; None if the method is computed by its formula."""
        return self.strengths[0] if self.strengths else None


# --- formulas -----------------------------------------------------------------------------------------------------


def _softmax(x: Inputs) -> Any:
    return x.attend(x.v)


def _twicing(x: Inputs, strength: float) -> Any:
    smoothed = x.attend(x.v)
    return smoothed + strength * x.attend(x.v - smoothed)


def _folded(x: Inputs, order: float) -> Any:
    left, mixed = x.v, 0 * x.v
    for _ in range(int(order)):
        smoothed = x.attend(left)
        left, mixed = left - smoothed, mixed + smoothed
    return mixed


def _neutreno(x: Inputs, strength: float) -> Any:
    return x.attend(x.v) + strength * (x.first_v - x.v)


def _at_temperature(x: Inputs, temperature: float) -> Any:
    return x.attend(x.v, x.q / temperature)


def _no_strength() -> float:
    return 0.0


# --- the table ----------------------------------------------------------------------------------------------------

METHODS: dict[str, Row] = {
    "softmax": Row(
        title="a weighted mean of the values, as in every transformer",
        equation="AV",
        source="Vaswani et al. 2017, arXiv 1706.03762, eq. 1",
        formula=_softmax,
        strength=_no_strength,
    ),
    "twicing": Row(
        title="what smoothing left over is smoothed and added back",
        equation="(A + strength (A - A²))V, at strength 1 (2A - A²)V",
        source="Abdullaev & Nguyen 2025, arXiv 2503.00687; the strength is ours",
        formula=_twicing,
        parameters=(
            Parameter("strength", "how much is added back", usual=Fraction(1), low=Fraction(1, 1000), high=Fraction(1)),
        ),
        strength=float,
    ),
    "folded": Row(
        title="twicing of higher order: what is left over is smoothed and added back again and again",
        equation="(1 - (1 - A)^order)V: softmax is order 1, twicing order 2",
        source="Tukey 1977, Exploratory Data Analysis (twicing, repeated); as attention ours",
        formula=_folded,
        parameters=(
            Parameter(
                "order",
                "how often it is smoothed",
                usual=Fraction(3),
                low=Fraction(3),
                high=Fraction(8),
                step=Fraction(1),
            ),
        ),
    ),
    "neutreno": Row(
        title="pulled towards the values of the first block",
        equation="AV + strength (V_first - V)",
        source="Nguyen, Nguyen & Baraniuk 2023, NeuTRENO, arXiv 2312.00751; 0.6 is theirs for images",
        formula=_neutreno,
        parameters=(
            Parameter(
                "strength",
                "how strongly it is pulled (the paper's λ)",
                usual=Fraction(3, 5),
                low=Fraction(1, 1000),
                high=Fraction(2),
            ),
        ),
        needs_first=True,
    ),
    "temperature": Row(
        title="a control: softmax attention at another temperature, sharper below 1",
        equation="softmax(scale / temperature · QKᵀ)V",
        source="ours, to tell a method's gain from that of mere sharpening",
        formula=_at_temperature,
        parameters=(
            Parameter(
                "temperature", "what scores are divided by", usual=Fraction(1, 2), low=Fraction(1, 10), high=Fraction(4)
            ),
        ),
    ),
}


def add_method(name: str, row: Row) -> None:
    """A row from outside: the probe looks for it in every network from now on. Raises `UserError` for a name taken."""
    if METHODS.setdefault(name, row) is not row:
        raise UserError(f"There is a method {name!r} already.", "Give it another name.")


# --- from a name to a row ---------------------------------------------------------------------------------------------


def settled(attention: Attention) -> Attention:
    """The attention with numbers in their one form: none where all have their usual value.

    Raises `UserError` for a method that the table does not have, or a number that it does not take.
    """
    return attention.mapped(settled_method)


def settled_method(method: Method) -> Method:
    """As `settled`, of one method."""
    usual = tuple(parameter.usual for parameter in _row(method).parameters)
    numbers = _numbers(method)
    return Method(method.name, () if numbers == usual else numbers)


def mixing_of(method: Method) -> Mixing:
    """What `attention.paths` computes for a method. Raises `UserError` as `settled`."""
    return mixing_at(method.name, [float(number) for number in _numbers(method)])


def mixing_at(name: str, numbers: Sequence[float]) -> Mixing:
    """The row `name` at any numbers, also outside their range: the probe looks for those that fit."""
    row = METHODS[name]
    strengths = () if row.strength is None else (row.strength(*numbers),)
    return Mixing(row.formula, tuple(numbers), strengths, row.needs_first)


def _row(method: Method) -> Row:
    if method.name not in METHODS:
        error = unknown_name("method", method.name, METHODS)
        raise UserError(error.message, f"{error.hint} {FORMS}")
    return METHODS[method.name]


def _numbers(method: Method) -> tuple[Fraction, ...]:
    """All numbers of a method, checked."""
    parameters = _row(method).parameters
    if len(method.numbers) > len(parameters):
        takes = ", ".join(parameter.name for parameter in parameters) or "no number"
        raise UserError(f"{method} has {len(method.numbers)} number(s); {method.name} takes {takes}.", FORMS)
    for parameter, number in zip(parameters, method.numbers, strict=False):
        if not parameter.low <= number <= parameter.high or (number / parameter.step).denominator != 1:
            low, high, step = (exact_text(value) for value in (parameter.low, parameter.high, parameter.step))
            raise UserError(
                f"{method}: {parameter.name} ({parameter.holds}) cannot be {exact_text(number)}.",
                f"It is a number from {low} to {high} in steps of {step}.",
            )
    return (*method.numbers, *(parameter.usual for parameter in parameters[len(method.numbers) :]))
