"""What extensions add to a request: {"name": {"field": value}}, frozen and bounded like the rest of the params."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

Scalar = bool | int | float | str
Frozen = tuple[tuple[str, tuple[tuple[str, Scalar], ...]], ...]
MAX_EXTENSION_VALUES = 200  # of one extension
MAX_EXTENSION_TEXT = 1_000_000  # characters of all of them together


def _frozen_values(data: Any) -> Any:
    """{"name": {"key": value}} as sorted tuples: what is frozen all through has one writing and can be compared."""
    if isinstance(data, tuple):
        data = {name: dict(values) for name, values in data}
    if not isinstance(data, dict) or not all(isinstance(values, dict) for values in data.values()):
        raise ValueError('extensions are given as {"name": {"field": value}}')
    room = MAX_EXTENSION_TEXT
    for name, values in data.items():
        if not isinstance(name, str) or not 0 < len(name) <= 40 or len(values) > MAX_EXTENSION_VALUES:
            raise ValueError(f"the extension {name!r:.60} has too long a name or too many values")
        for key, value in values.items():
            if not isinstance(key, str) or not 0 < len(key) <= 40 or not isinstance(value, bool | int | float | str):
                raise ValueError(f"{name}: the value {key!r:.60} is not a number, a flag or a text")
            if isinstance(value, int | float) and not abs(value) < 2**63:  # NaN, infinities
                raise ValueError(f"{name}: {key} is not a number that can be written")
            if isinstance(value, str):
                room -= len(value)
                if any("\ud800" <= ch <= "\udfff" for ch in value):
                    raise ValueError(f"{name}: {key} holds a broken character")
    if room < 0:
        raise ValueError(f"the extensions' texts are longer than {MAX_EXTENSION_TEXT:,} characters")
    return tuple((name, tuple(sorted(values.items()))) for name, values in sorted(data.items()))


def plain_values(values: Frozen) -> dict[str, dict[str, Scalar]]:
    """As plain dictionaries."""
    return {name: dict(pairs) for name, pairs in values}


ExtensionValues = Annotated[
    Frozen,
    BeforeValidator(_frozen_values),
    PlainSerializer(plain_values),
    WithJsonSchema({"type": "object", "additionalProperties": {"type": "object"}, "default": {}}),
]
