"""The properties of `properties`, by Hypothesis: from nothing, and from what looks almost right."""

from __future__ import annotations

import io
import json

from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin
from properties import header, parameters, picture, prompt

FEW = settings(max_examples=60)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)
tensor = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F16", "F32", "BF16", "F4", "Q8", ""]) | json_values,
        "shape": st.lists(st.integers(-2, 2**40), max_size=4) | json_values,
        "data_offsets": st.lists(st.integers(-5, 2**64), max_size=3) | json_values,
    }
)
words = st.lists(
    st.sampled_from(
        [
            "(",
            ")",
            "[",
            "]",
            ":",
            "|",
            "1.1",
            "nan",
            "AND",
            "BREAK",
            "<lora:",
            ">",
            "\\",
            ",",
            "\n",
            "\0",
            "__",
            "{",
            "}",
        ]
    )
    | st.text(max_size=4),
    max_size=60,
).map(" ".join)
lines = st.lists(
    st.sampled_from(["Steps: ", "Seed: ", "Size: ", "Negative prompt: ", "Sampler: ", '"', ", ", "\n", "{"])
    | st.text(max_size=8)
    | st.integers().map(str),
    max_size=40,
).map("".join)


@FEW
@given(
    st.binary(max_size=300)
    | st.dictionaries(st.text(max_size=8), tensor | json_values, max_size=4).map(
        lambda value: json.dumps(value).encode()
    )
)
def test_any_header_is_read_or_refused_in_a_sentence(data: bytes) -> None:
    header(data)


@FEW
@given(st.binary(max_size=300) | lines.map(lambda text: text.encode("utf-8", "replace")))
def test_any_parameters_text_is_read_or_refused_in_a_sentence(data: bytes) -> None:
    parameters(data)


@FEW
@given(st.binary(max_size=200) | words.map(lambda text: text.encode("utf-8", "replace")))
def test_any_prompt_is_planned_or_refused_in_a_sentence(data: bytes) -> None:
    prompt(data)


def _files() -> list[bytes]:
    made = []
    for kind in ("PNG", "JPEG", "WEBP", "AVIF"):
        buffer = io.BytesIO()
        info = PngImagePlugin.PngInfo()
        info.add_text("parameters", "a cat\nSteps: 20, Seed: 5", zip=True)
        extra = {"pnginfo": info} if kind == "PNG" else {}
        Image.new("RGB", (16, 16), "red").save(buffer, kind, **extra)
        made.append(buffer.getvalue())
    return made


@FEW
@given(st.data())
def test_any_picture_file_is_opened_or_refused_in_a_sentence(data: st.DataObject) -> None:
    whole = bytearray(data.draw(st.sampled_from(_files())))
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at : at + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
        if not whole:
            break
    picture(bytes(whole[: data.draw(st.integers(0, len(whole)))]) + data.draw(st.binary(max_size=20)))
