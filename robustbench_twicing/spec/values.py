"""Exact values: eps, lengths, and the frozen form that everything in this room has. No torch, no files.

Everything here is immutable and has a canonical form, so that two runs that mean the same thing hash the same.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from robustbench_twicing.errors import UserError

Norm = Literal["Linf", "L2", "L1"]
NORMS: tuple[Norm, ...] = get_args(Norm)


def content_hash(content: Any) -> str:
    """First 12 hex digits of the SHA-256 of `content` as canonical JSON (sorted keys, no spaces)."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _terminates(value: Fraction) -> bool:
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    return rest == 1


def _decimal(value: Fraction) -> str:
    """Exact decimal text of a fraction whose denominator has no prime factors but 2 and 5."""
    digits = 0
    while (value * 10**digits).denominator != 1:
        digits += 1
    whole = str(int(value * 10**digits)).rjust(digits + 1, "0")
    return f"{whole[:-digits]}.{whole[-digits:]}" if digits else whole


def exact_text(value: Fraction) -> str:
    """A decimal where one says it exactly, else p/q; `read_fraction` reads both."""
    size = abs(value)
    text = _decimal(size) if _terminates(size) else f"{size.numerator}/{size.denominator}"
    return f"-{text}" if value < 0 else text


def read_fraction(text: str) -> Fraction:
    """ "p/q", a decimal, or a decimal over a whole number, exactly. Raises `ValueError` or `ZeroDivisionError`."""
    parts = re.fullmatch(r"([+-]?\d*\.?\d*(?:[eE][+-]?\d{1,2})?)\s*(?:/\s*(\d+))?", text, re.ASCII)
    if parts is None:
        raise ValueError(text)
    value = Fraction(parts[1]) / int(parts[2] or 1)
    # Nobody means a number this long, and Python refuses to print much longer ones.
    if max(abs(value.numerator), value.denominator) > 10**40:
        raise ValueError(text)
    return value


class Eps:
    """The size of a perturbation, kept exact. Written as papers write it ("1/255"), parsed once, compared by value.

    The unit is that of the protocol's space: a fraction of the pixel range in pixel space, of one channel's standard
    deviation in normalised space.
    """

    __slots__ = ("value",)
    value: Fraction

    def __init__(self, value: Fraction | int) -> None:
        self.value = Fraction(value)

    @classmethod
    def parse(cls, text: str, norm: Norm = "Linf") -> "Eps":
        """Read "k/255", "p/q" or a decimal, exactly. For `norm="Linf"` the value must lie in [0, 1].

        Raises `UserError` with the likely correction for anything else.
        """
        form = "Write eps as a fraction of the pixel range, such as 1/255, 4/255 or 0.03."
        text = str(text).strip()
        try:
            value = read_fraction(text)
        except ValueError:
            raise UserError(f"eps {text!r} is not a number.", form) from None
        except ZeroDivisionError:
            raise UserError(f"eps {text!r} divides by zero.", form) from None
        if value < 0:
            raise UserError(f"eps {text!r} is negative.", form)
        if norm == "Linf" and value > 1:
            meant = f"Did you mean {cls(value / 255)}? " if value <= 255 else ""
            raise UserError(f"eps {text!r} is larger than the whole pixel range [0, 1].", meant + form)
        return cls(value)

    def __str__(self) -> str:
        value = self.value
        if value == 0:
            return "0"
        if (value * 255).denominator == 1:
            return f"{value * 255}/255"
        if not _terminates(value) and _terminates(value * 255):
            return f"{_decimal(value * 255)}/255"
        return exact_text(value)

    def __repr__(self) -> str:
        return f"Eps({self})"

    def __float__(self) -> float:
        return float(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Eps) and self.value == other.value

    def __lt__(self, other: "Eps") -> bool:
        return self.value < other.value

    def __hash__(self) -> int:
        return hash(self.value)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def check(value: Any) -> Eps:
            return value if isinstance(value, Eps) else cls.parse(value, norm="L2")

        return core_schema.no_info_plain_validator_function(
            check, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )


class Length:
    """A positive distance in a protocol file, kept exact: tied to eps ("0.125 eps") or fixed ("0.01", "2/255")."""

    __slots__ = ("amount", "of_eps")
    amount: Fraction
    of_eps: bool

    def __init__(self, amount: Fraction, of_eps: bool) -> None:
        self.amount = amount
        self.of_eps = of_eps

    @classmethod
    def parse(cls, text: Any) -> "Length":
        """Read a length. Raises `ValueError` for anything else, zero and negative lengths included."""
        parts = re.fullmatch(r"(.*?)\s*(eps)?", text.strip()) if isinstance(text, str) else None
        try:
            amount = read_fraction(parts[1]) if parts else Fraction(0)
        except (ValueError, ZeroDivisionError):
            amount = Fraction(0)
        if parts is None or amount <= 0:
            raise ValueError(f'{text!r} is not a length; write "0.125 eps" (tied to eps) or "0.01" (fixed)')
        return cls(amount, parts[2] is not None)

    def at(self, eps: Eps) -> float:
        """The length in the units of eps."""
        return float(self.amount * eps.value if self.of_eps else self.amount)

    def __str__(self) -> str:
        text = exact_text(self.amount)
        return f"{text} eps" if self.of_eps else text

    __repr__ = __str__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Length) and (self.amount, self.of_eps) == (other.amount, other.of_eps)

    def __hash__(self) -> int:
        return hash((self.amount, self.of_eps))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def check(value: Any) -> Length:
            return value if isinstance(value, Length) else cls.parse(value)

        return core_schema.no_info_plain_validator_function(
            check, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )


AS_WRITTEN: Mapping[str, bool] = {"as_written": True}
"""`model_validate(content, context=AS_WRITTEN)` reads what a run wrote down, algorithms and corruptions that this
installation does not know included."""


class Frozen(BaseModel):
    """A value: immutable, compared by content, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)
