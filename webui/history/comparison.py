"""Pictures side by side: what was asked for differently, under which conditions, and how far the pixels are apart."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from PIL import ImageChops, ImageStat

from webui import pictures
from webui.errors import InvalidParams
from webui.history.records import Record
from webui.history.replay import exact_params
from webui.provenance import UsedModel

LOSSLESS = (".png",)
Group = Literal["parameter", "model", "environment"]
Verdict = Literal["identical", "different", "other size", "unknown"]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: a value for each picture, as text; None where it is not known."""

    group: Group
    name: str
    values: tuple[str | None, ...]

    @property
    def equal(self) -> bool:
        return len(set(self.values)) <= 1


@dataclass(frozen=True, slots=True)
class Difference:
    """How far two pictures' pixels are apart: of 255, the greatest over all channels and the mean.

    `notes` are sentences, such as that a lossy file was compared.
    """

    verdict: Verdict
    max_difference: int | None
    mean_difference: float | None
    notes: tuple[str, ...] = ()


def table(records: Sequence[Record], *, everything: bool = False) -> list[Row]:
    """What the pictures differ in (or all there is to say of them), parameters first."""
    described = [_describe(record) for record in records]
    names = list(dict.fromkeys(key for facts in described for key in facts))
    rows = [Row(group, name, tuple(facts.get((group, name)) for facts in described)) for group, name in names]
    order: dict[Group, int] = {"parameter": 0, "model": 1, "environment": 2}
    rows.sort(key=lambda row: order[row.group])
    return [row for row in rows if everything or not row.equal]


def difference(first: tuple[Record, bytes | None], second: tuple[Record, bytes | None]) -> Difference:
    """The pixels of two pictures compared; each with its file's bytes where there is a file."""
    (one, one_data), (two, two_data) = first, second
    if one.pixels_sha256 and one.pixels_sha256 == two.pixels_sha256:
        return Difference("identical", 0, 0.0)
    if one_data is None or two_data is None:
        verdict: Verdict = "different" if one.pixels_sha256 and two.pixels_sha256 else "unknown"
        return Difference(verdict, None, None, ("A file is missing, so how far they differ cannot be told.",))
    lossy = [record for record in (one, two) if not (record.path or "").lower().endswith(LOSSLESS)]
    notes = ("A file is lossy (JPEG, WEBP or AVIF): it differs from the pixels that were made.",) if lossy else ()
    with pictures.both_opened(one_data, two_data) as (a, b):
        a, b = a.convert("RGB"), b.convert("RGB")
        if a.size != b.size:
            return Difference("other size", None, None, notes)
        if not lossy and _digest(a) == _digest(b):
            return Difference("identical", 0, 0.0)
        delta = ImageChops.difference(a, b)
        extrema = [high for _, high in delta.getextrema()]  # type: ignore[misc]  # of RGB: a pair for each channel
        return Difference("different", int(max(extrema)), sum(ImageStat.Stat(delta).mean) / 3, notes)


def _describe(record: Record) -> dict[tuple[Group, str], str]:
    facts: dict[tuple[Group, str], str] = {}
    try:
        values = exact_params(record).model_dump(mode="json")
    except InvalidParams:
        values = {
            name: getattr(record, name)
            for name in ("prompt", "negative_prompt", "sampler", "schedule", "seed", "steps", "cfg_scale")
        }
    values.update(width=record.width, height=record.height)
    if not values.get("variation_strength"):
        values.pop("variation_seed", None)  # it has no effect
    for name, value in values.items():
        if name not in ("checkpoint", "vae", "batch_size", "batch_count"):
            facts["parameter", name] = value if isinstance(value, str) else json.dumps(value)
    facts["model", "checkpoint"] = _model(record.checkpoint)
    facts["model", "vae"] = _model(record.vae) if record.vae else "in the checkpoint"
    for network in record.networks:
        facts["model", f"{network.kind} {network.name}"] = network.sha256[:12] or "used"
    for name, text in record.environment.items():
        facts["environment", name] = text
    return facts


def _model(model: UsedModel | None) -> str:
    if model is None:
        return ""
    return f"{model.name} [{model.sha256[:10]}]" if model.sha256 else model.name


def _digest(image: Any) -> str:
    return hashlib.sha256(image.tobytes()).hexdigest()
