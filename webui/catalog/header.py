"""Reading the header of a .safetensors file, bounded, by ourselves.

The format (https://github.com/huggingface/safetensors#format): 8 bytes, the header's length N as a little-endian
unsigned integer; N bytes of JSON, `{"NAME": {"dtype": ..., "shape": [...], "data_offsets": [BEGIN, END]}, ...,
"__metadata__": {string: string}}`; then the tensors' bytes. Whoever wrote the file chose every one of these numbers, so
each is checked before it is used, and the JSON is taken apart tensor by tensor: neither time nor memory can exceed what
the bounds below allow. A file that passes may be memory-mapped: its tensors lie inside of it, without overlap or gap.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from webui.errors import BadModelFile, ModelNotFound

MAX_HEADER_SIZE = 32 * 2**20  # bytes
MAX_TENSORS = 50_000
MAX_NAME_LENGTH = 512  # characters
MAX_METADATA_SIZE = 16 * 2**20  # bytes, as written in the header; trainers put all their captions' words there
MAX_METADATA_ENTRIES = 100_000
MAX_DIMENSIONS = 16
_MAX_DESCRIPTION = 2048  # characters of one tensor's {...}

DTYPE_SIZES: dict[str, int] = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "U16": 2,
    "I16": 2,
    "F16": 2,
    "BF16": 2,
    "U32": 4,
    "I32": 4,
    "F32": 4,
    "U64": 8,
    "I64": 8,
    "F64": 8,
}

_BLANKS = (" ", "\t", "\r", "\n")
_BLANK = re.compile(r"[ \t\r\n]*")
# A tensor's member as every known writer lays it out, up to the comma or brace behind it.
_NUMBER = r"(?:0|[1-9][0-9]{0,17})"
_USUAL = re.compile(
    r'"(?!__metadata__")([^"\\\x00-\x1f]{1,512})":\{"dtype":"(\w{1,20})",'
    rf'"shape":\[((?:{_NUMBER}(?:,{_NUMBER}){{0,15}})?)\],"data_offsets":\[({_NUMBER}),({_NUMBER})\]\}}(?=[,}}])'
)
_SUB_BYTE = ("F4", "F6", "F8_E8M0")


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor's type and place. `start` and `end` are in bytes from `Header.data_start`, as the format has them."""

    dtype: str  # safetensors' name: "F16", "BF16", ...
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Header:
    """A checked header. The tensors fill the file from `data_start` to its end in some order, each byte once."""

    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]
    data_start: int  # bytes from the start of the file
    file_size: int

    def byte_range(self, name: str) -> tuple[int, int]:
        """The tensor's first byte and the one after its last, counted from the start of the file."""
        tensor = self.tensors[name]
        return self.data_start + tensor.start, self.data_start + tensor.end


def read_header(path: Path) -> Header:
    """The checked header of a .safetensors file.

    Symbolic links are followed, out of the model folders too: users share models between programs that way. What they
    lead to must be a regular file. Raises `ModelNotFound` when nothing is there, `BadModelFile` for everything else.
    """
    with open_regular(path) as file:
        return _read(file)


def open_regular(path: Path) -> _RegularFile:
    """Open a regular file for reading, without ever waiting on a pipe or waking a device.

    Raises `ModelNotFound` when the path leads nowhere, `BadModelFile` when it is something else or cannot be read.
    """
    try:
        # Looked at before it is opened: opening some devices has effects. Looked at again after, because it may have
        # been replaced in between; O_NONBLOCK keeps that open from waiting for a pipe's other end.
        _must_be_regular(path.stat())
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        what = "is a link that leads nowhere" if path.is_symlink() else "does not exist (any more)"
        raise ModelNotFound(f"The file {what}.", "Refresh the list; it may have been moved or deleted.") from None
    except (OSError, ValueError) as error:
        raise BadModelFile(f"The file cannot be opened: {_reason(error)}.", "Check the file and its rights.") from None
    try:
        status = os.fstat(descriptor)
        _must_be_regular(status)
    except BaseException:
        os.close(descriptor)
        raise
    return _RegularFile(descriptor, status)


class _RegularFile:
    """An open regular file; a context manager."""

    def __init__(self, descriptor: int, status: os.stat_result) -> None:
        self.status = status
        self._file = os.fdopen(descriptor, "rb", buffering=0)

    def __enter__(self) -> _RegularFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def seek(self, offset: int) -> None:
        self._file.seek(offset)

    def stat_now(self) -> os.stat_result:
        return os.fstat(self._file.fileno())

    def read_into(self, buffer: memoryview) -> int:
        """Fill as much of `buffer` as the file gives in one go; 0 at the end. Raises `BadModelFile`."""
        try:
            return self._file.readinto(buffer) or 0
        except OSError as error:
            raise BadModelFile(f"The file cannot be read: {_reason(error)}.", "Check the disk.") from None

    def read(self, count: int) -> bytes:
        """Up to `count` bytes, fewer only at the end of the file. Raises `BadModelFile`."""
        buffer = bytearray(count)
        view, filled = memoryview(buffer), 0
        while filled < count and (got := self.read_into(view[filled:])):
            filled += got
        return bytes(view[:filled])


def _must_be_regular(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise BadModelFile("This is a folder, not a file.")
    if not stat.S_ISREG(status.st_mode):
        raise BadModelFile("This is not a regular file (a pipe, socket or device).", "Remove it from the folder.")


def _read(file: _RegularFile) -> Header:
    size = file.status.st_size
    prefix = file.read(8)
    if len(prefix) < 8:
        raise _incomplete(size, None)
    length = int.from_bytes(prefix, "little")
    if length > MAX_HEADER_SIZE or length < 2:
        raise _not_safetensors(prefix, length)
    if 8 + length > size:
        raise _incomplete(size, 8 + length)
    raw = file.read(length)
    if len(raw) < length:
        raise _incomplete(8 + len(raw), 8 + length)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise _bad("its header is not UTF-8") from None
    tensors, metadata = _parse(text)
    _check_places(tensors, size, 8 + length)
    return Header(tensors, metadata, 8 + length, size)


def _parse(text: str) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    """The header's entries, one at a time, so that the first one out of bounds ends the work."""
    if text.count('"data_offsets"') > MAX_TENSORS:  # quick, and no valid header has one within a string
        raise _bad(f"it claims more than {MAX_TENSORS:,} tensors")
    tensors: dict[str, TensorInfo] = {}
    metadata: dict[str, str] | None = None
    position = 0
    try:
        if text[:1] != "{":
            raise _bad("its header is not a JSON object")
        position = _skip(text, 1)
        closed = text[position : position + 1] == "}"
        position += closed
        while not closed:
            usual = _USUAL.match(text, position)
            if usual:
                name, dtype, shape, start, end = usual.groups()
                info = _checked(name, dtype, tuple(map(int, shape.split(","))) if shape else (), int(start), int(end))
                position = usual.end()
            else:
                name, position = _string(text, position)
                position = _skip(text, _expect(text, _skip(text, position), ":"))
                if name == "__metadata__":
                    if metadata is not None:
                        raise _bad("its header has two metadata entries")
                    metadata, position = _metadata(text, position)
                    closed, position = _next_member(text, position)
                    continue
                info, position = _tensor(name, text, position)
            if name in tensors:
                raise _bad(f'the tensor "{name[:80]}" is there twice')
            if len(tensors) == MAX_TENSORS:
                raise _bad(f"it claims more than {MAX_TENSORS:,} tensors")
            tensors[name] = info
            closed, position = _next_member(text, position)
    except (ValueError, RecursionError):  # json.JSONDecodeError is a ValueError
        raise _bad("its header is not valid JSON") from None
    if text[position:].strip(" \t\r\n"):
        raise _bad("something follows the JSON in its header")
    return tensors, metadata or {}


def _skip(text: str, position: int) -> int:
    """The position of the next character that is not blank."""
    if text[position : position + 1] not in _BLANKS:
        return position
    match = _BLANK.match(text, position)
    return match.end() if match else position


def _expect(text: str, position: int, character: str) -> int:
    if text[position : position + 1] != character:
        raise ValueError(f"expected {character}")
    return position + 1


def _string(text: str, position: int) -> tuple[str, int]:
    """The JSON string that begins at `position`, and the position after it."""
    _expect(text, position, '"')
    found, end = _JSON.raw_decode(text, position)
    return str(found), end


def _next_member(text: str, position: int) -> tuple[bool, int]:
    """After a member: (True, after the closing brace) or (False, at the next member's name)."""
    position = _skip(text, position)
    if text[position : position + 1] == "}":
        return True, position + 1
    return False, _skip(text, _expect(text, position, ","))


def _metadata(text: str, position: int) -> tuple[dict[str, str], int]:
    """The object of strings at `position`, at most `MAX_METADATA_SIZE` long, of at most `MAX_METADATA_ENTRIES`."""
    limit = position + MAX_METADATA_SIZE
    bounded = text[:limit] if len(text) > limit else text
    found: dict[str, str] = {}
    try:
        position = _skip(bounded, _expect(bounded, position, "{"))
        closed = bounded[position : position + 1] == "}"
        position += closed
        while not closed:
            key, position = _string(bounded, position)
            position = _skip(bounded, _expect(bounded, _skip(bounded, position), ":"))
            if bounded[position : position + 1] not in ('"', ""):
                raise _bad("its metadata holds something other than texts")
            value, position = _string(bounded, position)
            if key in found:
                raise _bad(f"the metadata entry {key!a:.80} is there twice")
            found[_storable(key)] = _storable(value)
            if len(found) > MAX_METADATA_ENTRIES:
                raise _bad(f"its metadata has more than {MAX_METADATA_ENTRIES:,} entries")
            closed, position = _next_member(bounded, position)
    except ValueError:
        if len(bounded) < len(text):
            raise _bad(f"its metadata is larger than {MAX_METADATA_SIZE // 2**20} MB") from None
        raise
    return found, position


def _storable(text: str) -> str:
    """The text with lone surrogates (legal in JSON, in no encoding) replaced."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _check_name(name: str) -> None:
    if not name or len(name) > MAX_NAME_LENGTH:
        raise _bad(f"it has a tensor name of {len(name):,} characters")
    if not name.isprintable():  # control characters, NUL, surrogates, direction overrides, zero-width ones
        raise _bad("it has a tensor name with invisible characters")


def _tensor(name: str, text: str, position: int) -> tuple[TensorInfo, int]:
    """The description at `position`. It holds no nested object, so its first closing brace ends it."""
    _check_name(name)
    end = text.find("}", position, position + _MAX_DESCRIPTION) + 1
    if not end:
        raise _bad(f'the description of the tensor "{name[:80]}" does not end')
    pairs, length = _PAIRS.raw_decode(text[position:end])
    entry = dict(pairs) if isinstance(pairs, tuple) and position + length == end else {}
    if len(entry) != 3 or len(pairs) != 3 or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise _bad(f'the description of the tensor "{name[:80]}" is not dtype, shape and data_offsets')
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not _are_sizes(shape) or len(shape) > MAX_DIMENSIONS:
        raise _bad(f'the shape of the tensor "{name[:80]}" is not a list of sizes')
    if not _are_sizes(offsets) or len(offsets) != 2:
        raise _bad(f'the place of the tensor "{name[:80]}" is not a range of bytes')
    return _checked(name, entry["dtype"], tuple(shape), *offsets), end


def _checked(name: str, dtype: object, shape: tuple[int, ...], start: int, end: int) -> TensorInfo:
    """A tensor whose type is known and whose shape and bytes agree. Where in the file it lies is checked later."""
    _check_name(name)
    if not isinstance(dtype, str) or dtype not in DTYPE_SIZES:
        kind = "packs numbers into parts of bytes" if str(dtype).startswith(_SUB_BYTE) else "is not known"
        raise _bad(f'the tensor "{name[:80]}" has the type {dtype!r:.20}, which {kind}')
    size = DTYPE_SIZES[dtype] * math.prod(shape)
    if size >= 2**63:
        raise _bad(f'the shape of the tensor "{name[:80]}" is impossibly large')
    if size != end - start:
        raise _bad(f'the shape and the bytes of the tensor "{name[:80]}" disagree')
    return TensorInfo(dtype, shape, start, end)


_JSON = json.JSONDecoder()
_PAIRS = json.JSONDecoder(object_pairs_hook=tuple)  # pairs, so that a key given twice can be seen


def _are_sizes(value: object) -> TypeGuard[list[int]]:
    """Whether it is a list of integers from 0 to 2**63 - 1 (true and 2.0 are none)."""
    return isinstance(value, list) and all(type(v) is int and 0 <= v < 2**63 for v in value)


def _check_places(tensors: dict[str, TensorInfo], size: int, data_start: int) -> None:
    """The tensors must tile the rest of the file: every byte belongs to exactly one of them."""
    position, held = 0, size - data_start
    for start, end, name in sorted((t.start, t.end, n) for n, t in tensors.items()):
        if start != position:
            what = "overlaps another one" if start < position else "leaves a hole before it"
            raise _bad(f'the tensor "{name[:80]}" {what}')
        position = end
    if position > held:
        raise _incomplete(size, data_start + position)
    if position < held:
        raise _bad(f"{held - position:,} bytes follow its last tensor")


def _not_safetensors(prefix: bytes, length: int) -> BadModelFile:
    """What the file really is, where its first bytes tell."""
    if prefix.lstrip()[:1] == b"<":
        return BadModelFile(
            "This is a web page saved under a model's name.", "Download the model again; you may have to log in there."
        )
    if prefix[:4] == b"PK\x03\x04" or prefix[:1] == b"\x80":
        return BadModelFile(
            "This is a pickle-based file under the name of a .safetensors file.",
            "It is not opened. Get the model as a real .safetensors file.",
        )
    if prefix[:4] == b"GGUF":
        return BadModelFile("This is a GGUF file under the name of a .safetensors file.")
    if prefix == b"version ":
        return BadModelFile("This is a Git LFS pointer, not the model.", 'Run "git lfs pull" where it was cloned.')
    if length > MAX_HEADER_SIZE:
        return _bad(f"it claims a header of {length:,} bytes")
    return _bad("its header is empty")


def _incomplete(size: int, expected: int | None) -> BadModelFile:
    if not size:
        return BadModelFile("The file is empty.", "Download it again, or wait until the download begins.")
    of = f" of {_megabytes(expected)}" if expected else ""
    return BadModelFile(
        f"The file is incomplete: {_megabytes(size)}{of} are there.",
        "Wait until the download has finished; if there is none, download it again.",
    )


def _megabytes(size: int) -> str:
    return f"{size / 2**20:,.1f} MB" if size >= 2**20 else f"{size:,} bytes"


def _bad(why: str) -> BadModelFile:
    return BadModelFile(f"This is not a valid .safetensors file: {why}.", "Download it again from a source you trust.")


def _reason(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) else None
    return (text or str(error) or type(error).__name__).strip().rstrip(".")
