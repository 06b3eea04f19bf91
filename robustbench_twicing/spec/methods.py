"""Attention as a value: which method each block of a model has. No torch, no files.

Which methods there are, and which numbers they take, says `attention.methods.METHODS`. Here any name is read, so that a
run can be read where its method is not installed.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from robustbench_twicing.errors import UserError
from robustbench_twicing.spec.values import exact_text, read_fraction

FORMS = (
    "Write softmax, twicing, twicing(0.5), twicing@last3, twicing@first2, twicing@0,1,5 or twicing@9-11 (blocks are "
    "numbered from 0), several joined by + where their blocks do not overlap."
)
_LAYERS = "Write all, last3, first3, or block numbers from 0 such as 0,1,5 or 9-11."
_MOST_BLOCKS = 1000
"""More than any model has; a slip such as last33333 is told at once."""


@dataclass(frozen=True)
class Method:
    """How attention mixes values, such as `softmax`, `twicing` or `twicing(0.5)`. Numbers are exact."""

    name: str
    numbers: tuple[Fraction, ...] = ()
    """In the order of the method's parameters; without any, each has its usual value."""

    @classmethod
    def parse(cls, text: str) -> "Method":
        """Read `name` or `name(number, …)`; numbers as "0.5" or "1/2". Raises `UserError` for anything else."""
        parts = re.fullmatch(r"([a-z][a-z0-9_]*)(?:\(([^()]*)\))?", text, re.ASCII)
        if parts is None:
            raise UserError(f"{text!r} is no method.", FORMS)
        try:
            numbers = () if parts[2] is None else tuple(read_fraction(number.strip()) for number in parts[2].split(","))
        except (ValueError, ZeroDivisionError):
            raise UserError(f"{text!r} has something in parentheses that is no number.", FORMS) from None
        return cls(parts[1], numbers)

    def __str__(self) -> str:
        return f"{self.name}({','.join(map(exact_text, self.numbers))})" if self.numbers else self.name


SOFTMAX = Method("softmax")


@dataclass(frozen=True)
class Layers:
    """Some of a model's blocks, however many it has: those numbered, or the last few; without either, all."""

    numbers: tuple[int, ...] = ()
    """From 0, sorted."""
    last: int = 0

    @classmethod
    def parse(cls, text: str) -> "Layers":
        """Read `all`, `last3`, `first3`, or numbers and ranges such as `0,1,9-11`. Raises `UserError`."""
        if text == "all":
            return cls()
        if end := re.fullmatch(r"(last|first)([1-9]\d{0,8})", text, re.ASCII):
            count = _checked(int(end[2]), text)
            return cls(last=count) if end[1] == "last" else cls(numbers=tuple(range(count)))
        numbers: set[int] = set()
        for part in text.split(","):
            span = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", part.strip(), re.ASCII)
            start, stop = (int(span[1]), _checked(int(span[2] or span[1]), text)) if span else (1, 0)
            if start > stop:
                raise UserError(f"Unknown layers {text!r}.", _LAYERS)
            numbers |= set(range(start, stop + 1))
        return cls(numbers=tuple(sorted(numbers)))

    def of(self, count: int) -> tuple[int, ...]:
        """The blocks, from 0 and in order, in a model of `count` blocks. Raises `UserError` if it has too few."""
        outside = [number for number in self.numbers if not 0 <= number < count]
        if outside:
            raise UserError(
                f"No block {', '.join(map(str, outside))} in a model of {count} blocks.",
                f"Blocks are numbered from 0 to {count - 1}.",
            )
        if self.last > count:
            raise UserError(f"No last {self.last} blocks in a model of {count} blocks.", f"Write last{count}, or all.")
        return self.numbers or tuple(range(count - self.last if self.last else 0, count))

    def __str__(self) -> str:
        return ",".join(map(str, self.numbers)) or (f"last{self.last}" if self.last else "all")


def _checked(number: int, text: str) -> int:
    if number >= _MOST_BLOCKS:
        raise UserError(f"Layers {text!r}: no model has {number} blocks.", _LAYERS)
    return number


@dataclass(frozen=True)
class Attention:
    """Which method each block of a model has; softmax where nothing is said. Compared by what it means.

    Made by `parse` or `of_parts`, which bring it into its one form: two that mean the same for models of any depth are
    equal. (`twicing@last2` and `twicing@10,11` are not, though they mean the same for twelve blocks.)
    """

    parts: tuple[tuple[Method, Layers], ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Attention":
        """Read a method with layers, or several joined by +, such as `twicing(0.5)@0-2+twicing@last3`.

        Raises `UserError`, also if two parts name the same block.
        """
        parts = []
        for part in re.split(r"\+(?![^(]*\))", text):
            method, at, layers = part.partition("@")
            parts.append((Method.parse(method.strip()), Layers.parse(layers.strip()) if at else Layers()))
        return cls.of_parts(parts)

    @classmethod
    def of_parts(cls, parts: Iterable[tuple[Method, Layers]]) -> "Attention":
        """The attention with these methods in these layers. Raises `UserError` if two of them name the same block."""
        numbered: dict[int, Method] = {}
        ends: list[tuple[Method, Layers]] = []
        parts = list(parts)
        for method, layers in parts:
            if not layers.numbers:
                ends.append((method, layers))
            for number in layers.numbers:
                _refuse_overlap(numbered.get(number), method, f"block {number}")
                numbered[number] = method
        if len(ends) > 1:
            _refuse_overlap(ends[0][0], ends[1][0], "the last blocks")
        if len(parts) > 1 and ends and not ends[0][1].last:
            _refuse_overlap(parts[0][0], parts[1][0], "all blocks")
        grouped: dict[Method, list[int]] = {}
        for number, method in sorted(numbered.items()):
            grouped.setdefault(method, []).append(number)
        canonical = [*((method, Layers(tuple(numbers))) for method, numbers in grouped.items()), *ends]
        return cls(tuple(part for part in canonical if part[0] != SOFTMAX))

    @classmethod
    def of_blocks(cls, methods: Sequence[Method]) -> "Attention":
        """The attention of a model whose blocks, from 0, have these methods."""
        if len(set(methods)) == 1:
            return cls.of_parts([(methods[0], Layers())])
        return cls.of_parts((method, Layers((number,))) for number, method in enumerate(methods))

    def methods(self, count: int) -> tuple[Method, ...]:
        """The method of each block of a model of `count` blocks.

        Raises `UserError` if the model has no such blocks, or if two parts name the same one in it.
        """
        found: dict[int, Method] = {}
        for method, layers in self.parts:
            for number in layers.of(count):
                _refuse_overlap(found.get(number), method, f"block {number} of {count}")
                found[number] = method
        return tuple(found.get(number, SOFTMAX) for number in range(count))

    def mapped(self, change: Callable[[Method], Method]) -> "Attention":
        """The same layers with `change(method)` for each method."""
        return self.of_parts((change(method), layers) for method, layers in self.parts)

    def __str__(self) -> str:
        texts = (f"{method}@{layers}" if layers != Layers() else str(method) for method, layers in self.parts)
        return "+".join(texts) or str(SOFTMAX)

    def __repr__(self) -> str:
        return f"Attention({self})"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def check(value: Any) -> Attention:
            return value if isinstance(value, Attention) else cls.parse(str(value))

        return core_schema.no_info_plain_validator_function(
            check, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )


def _refuse_overlap(one: Method | None, other: Method, where: str) -> None:
    if one is not None:
        raise UserError(f"Two methods, {one} and {other}, for {where}.", FORMS)
