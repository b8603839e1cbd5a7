"""What any input must keep: it is read, or refused by an error of ours in a sentence. Nothing else, and not for long.

Each property takes bytes, so that Hypothesis and atheris can drive the same functions.
"""

from __future__ import annotations

import contextlib
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path

from webui import infotext, pictures
from webui.catalog.header import read_header
from webui.errors import WebUIError, printable
from webui.prompt.plan import parse_prompt


@contextlib.contextmanager
def refused_in_a_sentence():
    """Errors of ours end the input; they have something to say, on one line."""
    try:
        yield
    except WebUIError as error:
        if not error.message or printable(error.message) != error.message:
            raise AssertionError(f"an error without a sentence: {error!r}") from error


def header(data: bytes) -> None:
    """A safetensors file: the bytes themselves, and the bytes as a header of the right length."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.safetensors"
        for content in (data, struct.pack("<Q", len(data)) + data):
            path.write_bytes(content)
            with refused_in_a_sentence():
                for tensor in read_header(path).tensors.values():
                    if any(side < 0 for side in tensor.shape):
                        raise AssertionError("a negative side was let through")


def parameters(data: bytes) -> None:
    """A parameters text of any program; what is understood can be written and read again."""
    text = data.decode("utf-8", "replace")
    with refused_in_a_sentence():
        infotext.parse(text)


def prompt(data: bytes) -> None:
    """A prompt and a negative prompt, divided by a NUL."""
    positive, _, negative = data.decode("utf-8", "replace").partition("\0")
    for compatible in (False, True):
        with refused_in_a_sentence():
            plan = parse_prompt(positive, negative, steps=20, compatible=compatible)
            if not plan.parts:
                raise AssertionError("a plan without parts")


def picture(data: bytes) -> None:
    """A picture file, and the texts inside it."""
    with refused_in_a_sentence():
        pictures.open_image(data)
    with refused_in_a_sentence():
        pictures.read_text(data)


PROPERTIES: dict[str, Callable[[bytes], None]] = {
    "header": header,
    "infotext": parameters,
    "prompt": prompt,
    "picture": picture,
}
