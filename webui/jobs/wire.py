"""What travels over the pipe between the front and the worker: framed JSON with at most one binary part.

A frame is the length of the JSON (4 bytes, big-endian), the JSON, and the bytes of a preview or an unsaved picture.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field, replace
from typing import Any

from webui.events import KINDS, Event, Image, to_json_dict

MAX_FRAME = 2**30  # bytes: a picture of 200 megapixels and its transparency, uncompressed, fits
_LENGTH = struct.Struct(">I")
_BINARY = {"preview": "jpeg", "image": "png"}  # the one binary field of an event


@dataclass(frozen=True, slots=True)
class Message:
    """One message. `kind` says what `data` holds; `job` is the job it is about, "" for none.

    To the worker: job (params, user, made: the events of pictures that are saved), interrupt, skip, load (checkpoint,
    vae), clear (names of caches), stop.
    From it: ready (report), broken (error), heartbeat (memory), event, idle (caches), device_lost, log.
    """

    kind: str
    job: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    blob: bytes = b""


def encode(message: Message) -> bytes:
    head = json.dumps({"kind": message.kind, "job": message.job, "data": message.data}).encode()
    return _LENGTH.pack(len(head)) + head + message.blob


def decode(frame: bytes) -> Message:
    """Raises ValueError for what is no frame."""
    try:
        (length,) = _LENGTH.unpack_from(frame)
        head = json.loads(frame[4 : 4 + length])
        return Message(head["kind"], head["job"], head["data"], frame[4 + length :])
    except (struct.error, KeyError, TypeError) as error:
        raise ValueError(f"not a frame: {error}") from error


def event_message(job: str, event: Event) -> Message:
    """An event as a message."""
    data = to_json_dict(event)
    binary = _BINARY.get(data["kind"])
    return Message("event", job, data, getattr(event, binary) if binary else b"")


def message_event(message: Message) -> Event:
    """The event in a message. Raises ValueError for one that this version does not know."""
    data = dict(message.data)
    kind = str(data.pop("kind", ""))
    if kind not in KINDS:
        raise ValueError(f"unknown event {kind!r:.60}")
    if kind in _BINARY:
        data[_BINARY[kind]] = message.blob
    try:
        event: Event = KINDS[kind](**data)
    except TypeError as error:
        raise ValueError(f"not an event: {error}") from error
    return event


def without_bytes(event: Event) -> Event:
    """A picture that could not be saved, without its pixels; every other event as it is."""
    return replace(event, png=b"") if isinstance(event, Image) and event.png else event
