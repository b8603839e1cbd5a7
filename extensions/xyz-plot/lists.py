"""Lists of values as users write them: commas, quotes, ranges with a step or a count."""

from __future__ import annotations

import csv
import io
import re
from decimal import Decimal
from itertools import permutations

from webui.errors import InvalidParams

MAX_VALUES = 1000  # of one axis
MAX_ORDERED = 6  # parts whose orders are all tried: 720 of them
_NUMBER = r"[+-]?\d+(?:\.\d*)?|[+-]?\.\d+"
_RANGE = re.compile(rf"\s*({_NUMBER})\s*-\s*({_NUMBER})(?:\s*\(\s*({_NUMBER})\s*\))?\s*", re.ASCII)
_COUNT = re.compile(rf"\s*({_NUMBER})\s*-\s*({_NUMBER})\s*\[\s*(\d{{1,4}})\s*\]\s*", re.ASCII)


def words(text: str, *, empty: bool = False) -> list[str]:
    """The values between commas, trimmed; quotes keep a comma, lines count as commas. Raises `InvalidParams`.

    Empty ones are left out, unless `empty`: then they are values, but a comma at the end has none behind it.
    """
    if empty:
        text = text.rstrip().removesuffix(",")
    found = [cell.strip() for row in csv.reader(io.StringIO(text), skipinitialspace=True) for cell in row]
    return _bounded([word for word in found if word or empty])


def integers(text: str) -> list[int]:
    """Whole numbers; `1-5`, `1-10 (+2)`, `10-1 (-3)` and `1-10 [5]` are ranges. Raises `InvalidParams`."""
    return [int(number) for number in _numbers(text, whole=True)]


def reals(text: str) -> list[float]:
    """Numbers, with the same ranges (a step of 1 where none is given). Raises `InvalidParams`."""
    return [float(number) for number in _numbers(text, whole=False)]


def orders(text: str) -> list[tuple[str, ...]]:
    """Every order of the words. Raises `InvalidParams` for more than six of them."""
    parts = words(text)
    if len(parts) > MAX_ORDERED:
        raise InvalidParams(f"Prompt order: {len(parts)} parts have too many orders.", f"Name {MAX_ORDERED} at most.")
    return list(permutations(parts))


def _numbers(text: str, *, whole: bool) -> list[Decimal]:
    numbers: list[Decimal] = []
    for word in words(text):
        numbers += _range(word, whole=whole)
        _bounded(numbers)
    return numbers


def _range(word: str, *, whole: bool) -> list[Decimal]:
    if match := _COUNT.fullmatch(word):
        first, last, count = Decimal(match[1]), Decimal(match[2]), int(match[3])
        _bounded([first] * count)
        spread = [first + (last - first) * i / max(1, count - 1) for i in range(count)]
        return [Decimal(int(number)) if whole else number for number in spread]
    if match := _RANGE.fullmatch(word):
        first, last = Decimal(match[1]), Decimal(match[2])
        step = abs(Decimal(match[3])) if match[3] else Decimal(1)
        if step == 0:
            raise InvalidParams(f'The range "{word}" has a step of 0.', "Write a step such as (+2).")
        count = int(abs(last - first) / step) + 1
        _bounded([first] * min(count, MAX_VALUES + 1))
        numbers = [first + (step if last >= first else -step) * i for i in range(count)]
    elif re.fullmatch(_NUMBER, word, re.ASCII):
        numbers = [Decimal(word)]
    else:
        raise InvalidParams(f'"{word[:60]}" is neither a number nor a range.', "Write 1, 2, 5-9 or 10-50 (+10).")
    if whole and any(number != int(number) for number in numbers):
        raise InvalidParams(f'"{word[:60]}" is not a whole number.', "Write whole numbers for this axis.")
    return numbers


def _bounded(values: list) -> list:  # type: ignore[type-arg]
    if len(values) > MAX_VALUES:
        raise InvalidParams(f"An axis has more than {MAX_VALUES} values.", "Shorten the list.")
    return values
