"""Corruptions of text. Which words are hit follows (seed, document, word), so a word that is hit at one rate is hit at
every higher one; what a hit word becomes does not depend on the rate."""

import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import NamedTuple

from robustbench_twicing.errors import unknown_name
from robustbench_twicing.seeding import Draws
from robustbench_twicing.spec.text import SWAPPED_TO, TEXT_CORRUPTIONS


class Edited(NamedTuple):
    """A text with some of its words changed."""

    text: str
    spans: tuple[tuple[int, int], ...]
    """Characters of `text` that are not the original's, in order; an empty span is where something was left out."""
    hit: int
    eligible: int

    def is_touched(self, start: int, stop: int) -> bool:
        """Whether a piece of `text` has a changed character in it, or a place where one was left out."""
        place = bisect_left(self.spans, (stop,)) - 1
        if place < 0:
            return False
        low, high = self.spans[place]  # the last that begins before the end; those before it end earlier
        return high > start if low < high else low > start


Word = tuple[int, int]

_WORD = re.compile(r"[^\W\d_]{2,}")
_ASIDE = re.compile(r"<[^<>\s]{1,20}>|^ ?=+ .* =+ ?$", re.MULTILINE)
"""What WikiText writes for unknown words and ends of lines, and its headings."""
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_LIKE = {
    "a": "а", "c": "с", "e": "е", "i": "і", "j": "ј", "o": "о", "p": "р", "s": "ѕ", "x": "х", "y": "у",
    "A": "А", "B": "В", "C": "С", "E": "Е", "H": "Н", "I": "І", "K": "К", "M": "М", "O": "О", "P": "Р", "T": "Т",
    "X": "Х",
}  # fmt: skip
"""Latin letters and the Cyrillic ones that look like them."""


def eligible_words(text: str) -> list[Word]:
    """Where the words lie that may be hit."""
    aside = [match.span() for match in _ASIDE.finditer(text)]
    found, place = [], 0
    for match in _WORD.finditer(text):
        while place < len(aside) and aside[place][1] <= match.start():
            place += 1
        if place == len(aside) or match.end() <= aside[place][0]:
            found.append(match.span())
    return found


def corrupt_text(text: str, corruption: str, rate: float, seed: int, document: str) -> Edited:
    """The text with about `rate` of its eligible words changed, and where. Raises `UserError` for no corruption."""
    if corruption not in TEXT_CORRUPTIONS:
        raise unknown_name("corruption of text", corruption, TEXT_CORRUPTIONS)
    words = eligible_words(text)
    if not words:
        return Edited(text, (), 0, 0)
    draws = Draws(seed, (document,), f"text:{corruption}").uniform(0, (3, len(words)))[0].tolist()
    hit = [number for number, draw in enumerate(draws[0]) if draw < rate]
    if corruption == "order":
        changes = _swapped(text, words, hit)
    else:
        change = _CHANGES[corruption]
        changes = [(words[n], change(text, words, n, draws[1][n], draws[2][n])) for n in hit]
    return _applied(text, changes, len(hit), len(words))


def _applied(text: str, changes: Sequence[tuple[Word, str]], hit: int, eligible: int) -> Edited:
    parts, spans, place, length = list[str](), list[Word](), 0, 0
    for (start, stop), new in changes:
        if not new and start > place and text[start - 1] == " ":
            start -= 1  # with a word that is left out goes the space before it
        parts += (text[place:start], new)
        length += start - place
        if new != text[start:stop]:
            spans.append((length, length + len(new)))
        length += len(new)
        place = stop
    parts.append(text[place:])
    return Edited("".join(parts), tuple(spans), hit, eligible)


def _swapped(text: str, words: Sequence[Word], hit: Sequence[int]) -> list[tuple[Word, str]]:
    """Each word that is hit and the next one in each other's place; none takes part twice."""
    changes, free = list[tuple[Word, str]](), 0
    for number in hit:
        if number < free or number + 1 == len(words):
            continue
        one, other = words[number], words[number + 1]
        changes += ((one, text[slice(*other)]), (other, text[slice(*one)]))
        free = number + 2
    return changes


Change = Callable[[str, Sequence[Word], int, float, float], str]
"""The text, where its words lie, the number of the one that is hit, two uniform draws: what it becomes."""


def _fixed(text: str, words: Sequence[Word], number: int, one: float, other: float) -> str:
    return SWAPPED_TO


def _dropped(text: str, words: Sequence[Word], number: int, one: float, other: float) -> str:
    return ""


def _random_word(text: str, words: Sequence[Word], number: int, one: float, other: float) -> str:
    return text[slice(*words[int(one * len(words))])]


def _at(word: str, one: float) -> int:
    return int(one * len(word))


def _letter(old: str, draw: float) -> str:
    """Another letter, in the case of the old one."""
    others = _LETTERS.replace(old.lower(), "")
    new = others[int(draw * len(others))]
    return new.upper() if old.isupper() else new


def _substituted(text: str, words: Sequence[Word], number: int, one: float, other: float) -> str:
    word = text[slice(*words[number])]
    place = _at(word, one)
    return word[:place] + _letter(word[place], other) + word[place + 1 :]


def _inserted(text: str, words: Sequence[Word], number: int, one: float, other: float) -> str:
    word = text[slice(*words[number])]
    place = _at(word, one)
    return word[:place] + _LETTERS[int(other * 26)] + word[place:]


def _deleted(text: str, words: Sequence[Word], number: int, one: float, other: float) -> str:
    word = text[slice(*words[number])]
    place = _at(word, one)
    return word[:place] + word[place + 1 :]


def _transposed(text: str, words: Sequence[Word], number: int, one: float, other: float) -> str:
    word = text[slice(*words[number])]
    place = int(one * (len(word) - 1))
    return word[:place] + word[place + 1] + word[place] + word[place + 2 :]


def _neighbour(text: str, words: Sequence[Word], number: int, one: float, other: float) -> str:
    word = text[slice(*words[number])]
    place = _at(word, one)
    near = _near(word[place].lower())
    if not near:
        return word
    new = near[int(other * len(near))]
    return word[:place] + (new.upper() if word[place].isupper() else new) + word[place + 1 :]


def _near(letter: str) -> str:
    """The keys left and right of a letter, and those above and below."""
    found = ""
    for row, keys in enumerate(_ROWS):
        place = keys.find(letter)
        if place >= 0:
            found += keys[max(0, place - 1) : place] + keys[place + 1 : place + 2]
            found += _ROWS[row - 1][place : place + 2] if row else ""
            found += _ROWS[row + 1][max(0, place - 1) : place + 1] if row < 2 else ""
    return found


def _other_case(text: str, words: Sequence[Word], number: int, one: float, other: float) -> str:
    word = text[slice(*words[number])]
    place = _at(word, one)
    return word[:place] + word[place].swapcase() + word[place + 1 :]


def _look_alike(text: str, words: Sequence[Word], number: int, one: float, other: float) -> str:
    word = text[slice(*words[number])]
    places = [place for place, letter in enumerate(word) if letter in _LIKE]
    if not places:
        return word
    place = places[int(one * len(places))]
    return word[:place] + _LIKE[word[place]] + word[place + 1 :]


def _spaced(text: str, words: Sequence[Word], number: int, one: float, other: float) -> str:
    word = text[slice(*words[number])]
    place = 1 + int(one * (len(word) - 1))
    return f"{word[:place]} {word[place:]}"


_CHANGES: dict[str, Change] = {
    "fixed-word": _fixed,
    "random-word": _random_word,
    "drop": _dropped,
    "substitution": _substituted,
    "insertion": _inserted,
    "deletion": _deleted,
    "transposition": _transposed,
    "keyboard": _neighbour,
    "case": _other_case,
    "homoglyph": _look_alike,
    "whitespace": _spaced,
}
