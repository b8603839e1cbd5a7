"""What Civitai adds to a settings line: raw JSON lists of the models used, which the line's rules cut at a comma."""

from __future__ import annotations

from typing import Any

from webui.infotext.bounded_json import load_prefix, text_of
from webui.infotext.dialects.common import as_dict
from webui.infotext.model import Reading, Resource

_MAX_RESOURCES = 200


def add_resources(reading: Reading, text: str) -> None:
    """Add the models that "Hashes" and "Civitai resources" of the last line name."""
    line = text.rstrip().rpartition("\n")[2]
    if not reading.complete:
        return
    for entry in _list(_json_after(line, "Civitai resources:")):
        item = as_dict(entry)
        name = " ".join(filter(None, (text_of(item.get("modelName")), text_of(item.get("modelVersionName")))))
        reading.resources.append(
            Resource(text_of(item.get("type")) or "model", name, text_of(item.get("hash")), text_of(item.get("weight")))
        )
    hashes = _json_after(line, "Hashes:") or load_prefix(reading.fields.get("Hashes", ""), 0)
    for key, digits in list(as_dict(hashes).items())[:_MAX_RESOURCES]:
        kind, _, name = key.partition(":")
        kind = {"embed": "embedding", "model": "checkpoint"}.get(kind, kind)
        reading.resources.append(Resource(kind, name, text_of(digits)))


def _json_after(line: str, key: str) -> Any:
    position = line.find(key)
    if position < 0:
        return None
    start = position + len(key)
    while start < len(line) and line[start] == " ":
        start += 1
    return load_prefix(line, start)


def _list(value: Any) -> list[Any]:
    return value[:_MAX_RESOURCES] if isinstance(value, list) else []
