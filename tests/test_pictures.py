"""Pictures: written so that every program finds the text, opened with bounds, read wherever the text may be."""

from __future__ import annotations

import gzip
import io
import json
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, PngImagePlugin, features

from webui import pictures
from webui.errors import BadPicture
from webui.paths import REPO_ROOT
from webui.pictures.containers import picture_size, png_chunks, sniff
from webui.pictures.exif import read_exif

TEXT = "a cat\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 64x48"
WIDE = "日本語 😀 é\nSteps: 1"
FORMATS = ("png", "jpeg", "webp", "avif")


def picture(width: int = 64, height: int = 48, mode: str = "RGB") -> Image.Image:
    source = Image.linear_gradient("L").resize((width, height))
    return Image.merge("RGB", (source, source.transpose(Image.Transpose.ROTATE_180), source)).convert(mode)


def save(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_with(*chunks: bytes) -> bytes:
    """A small PNG with these chunks right after IHDR."""
    data = save(picture(), "PNG")
    return data[:33] + b"".join(chunks) + data[33:]


# --- writing ---------------------------------------------------------------------------------------------------------


def test_a_png_is_as_small_as_with_the_slow_search_for_repetitions() -> None:
    drawn = Image.open(REPO_ROOT / "docs/images/embedded-model.jpg").convert("RGB").resize((256, 256))
    assert len(pictures.encode(drawn)) < 1.02 * len(save(drawn, "PNG", compress_level=9))


@pytest.mark.parametrize("text", [TEXT, WIDE, "x" * 100_000])
@pytest.mark.parametrize("kind", FORMATS)
def test_what_is_written_reads_back(kind: str, text: str) -> None:
    data = pictures.encode(picture(), kind, 90, text)
    assert pictures.read_text(data)[0] == text
    opened = pictures.open_image(data)
    assert opened.size == (64, 48)
    assert opened.format == sniff(data)


def test_the_png_text_is_the_first_chunk_after_the_header() -> None:
    first = pictures.encode(picture(), "png", 90, TEXT, {"latent-webui": "{}"})
    assert [block.kind for block in png_chunks(first)][:4] == ["IHDR", "tEXt", "tEXt", "IDAT"]
    assert first[41:52] == b"parameters\0"
    wide = pictures.encode(picture(), "png", 90, WIDE)
    assert [block.kind for block in png_chunks(wide)][:2] == ["IHDR", "iTXt"]
    assert pictures.read_text(first) == (TEXT, {"latent-webui": "{}"})


def test_png_keeps_every_pixel_and_pillow_reads_its_text() -> None:
    image = picture()
    loaded = Image.open(io.BytesIO(pictures.encode(image, "png", 1, TEXT)))
    assert loaded.tobytes() == image.tobytes()
    assert loaded.info["parameters"] == TEXT


def test_the_exif_comment_is_plain_bytes_as_the_standard_says() -> None:
    data = pictures.encode(picture(), "webp", 90, TEXT)
    kind = data[data.index(b"\x92\x86") + 2 :][:2]
    assert kind == b"\0\7"  # UNDEFINED: readers of the field do not find a list of numbers


@pytest.mark.parametrize("kind", ["jpeg", "webp", "avif"])
def test_the_exif_comment_is_unicode_in_big_endian_order(kind: str) -> None:
    loaded = Image.open(io.BytesIO(pictures.encode(picture(), kind, 90, WIDE)))
    comment = loaded.getexif().get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment]
    assert comment == b"UNICODE\0" + WIDE.encode("utf-16-be")


@pytest.mark.parametrize(
    ("kind", "size", "text", "expected"),
    [
        ("jpeg", (65_501, 16), "", "PNG"),
        ("jpeg", (65_500, 16), "", "JPEG"),
        ("webp", (16, 16_384), "", "PNG"),
        ("webp", (16, 16_383), "", "WEBP"),
        ("jpeg", (16, 16), "x" * 40_000, "PNG"),
        ("webp", (16, 16), "x" * 40_000, "WEBP"),
        ("avif", (32_769, 16), "", "PNG"),
        ("avif", (32_768, 16), "", "AVIF"),
        ("avif", (16, 16), "x" * 40_000, "AVIF"),
    ],
)
def test_what_a_format_cannot_hold_is_a_png(kind: str, size: tuple[int, int], text: str, expected: str) -> None:
    assert pictures.file_format(kind, *size, text).upper() == expected
    assert sniff(pictures.encode(Image.new("L", size), kind, 50, text)) == expected


def test_nothing_of_the_source_but_pixels_is_written() -> None:
    image = picture()
    image.info.update(icc_profile=b"secret profile", exif=b"Exif\0\0MM", comment=b"secret")
    for kind in FORMATS:
        data = pictures.encode(image, kind, 90, TEXT)
        assert b"secret" not in data
        assert "icc_profile" not in Image.open(io.BytesIO(data)).info


@pytest.mark.parametrize("mode", ["RGBA", "LA", "L", "P", "1"])
@pytest.mark.parametrize("kind", FORMATS)
def test_every_mode_can_be_written(kind: str, mode: str) -> None:
    image = picture(mode="RGBA" if mode == "LA" else mode).convert(mode)
    assert pictures.open_image(pictures.encode(image, kind, 90, TEXT)).size == (64, 48)


@pytest.mark.parametrize("text", ["a\0b", "a\ud800b"])
def test_characters_that_no_chunk_can_hold_are_left_out(text: str) -> None:
    for kind in FORMATS:
        assert pictures.read_text(pictures.encode(picture(), kind, 90, text))[0] in ("ab", "a?b")


# --- reading ---------------------------------------------------------------------------------------------------------


def test_compressed_and_international_chunks_are_read() -> None:
    data = png_with(
        chunk(b"zTXt", b"parameters\0\0" + zlib.compress(TEXT.encode())),
        chunk(b"iTXt", b"prompt\0\1\0en\0Prompt\0" + zlib.compress(WIDE.encode())),
        chunk(b"iTXt", b"workflow\0\0\0\0\0" + WIDE.encode()),
        chunk(b"tEXt", b"parameters\0second"),
    )
    assert pictures.read_text(data) == (TEXT, {"prompt": WIDE, "workflow": WIDE})


def test_text_after_the_pixels_is_read() -> None:
    data = save(picture(), "PNG")
    assert pictures.read_text(data[:-12] + chunk(b"tEXt", b"parameters\0late") + data[-12:])[0] == "late"


def test_the_exif_comment_wins_over_the_png_text() -> None:
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = b"UNICODE\0" + "exif".encode("utf-16-be")
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("parameters", "png")
    assert pictures.read_text(save(picture(), "PNG", exif=exif.tobytes(), pnginfo=chunks)) == (
        "exif",
        {"parameters": "png"},
    )


@pytest.mark.parametrize(
    ("comment", "expected"),
    [
        (b"UNICODE\0" + TEXT.encode("utf-16-be"), TEXT),
        (b"UNICODE\0" + TEXT.encode("utf-16-le"), TEXT),
        (b"UNICODE\0" + TEXT.encode("utf-16"), TEXT),
        (b"UNICODE\0" + TEXT.encode("utf-16-be") + b"\0", TEXT),
        (b"ASCII\0\0\0" + TEXT.encode(), TEXT),
        (b"\0" * 8 + TEXT.encode(), TEXT),
        (TEXT.encode(), TEXT),
        (b"JIS\0\0\0\0\0" + "日本".encode("iso2022_jp"), "日本"),
        (b"UNICODE\0\xd8", ""),
    ],
)
def test_H066_comments_of_every_character_set(comment: bytes, expected: str) -> None:
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = comment
    assert pictures.read_text(save(picture(), "JPEG", exif=exif))[0] == expected


def test_avif_of_other_programs_and_gif_are_read() -> None:
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = b"UNICODE\0" + WIDE.encode("utf-16-be")
    assert pictures.read_text(save(picture(), "AVIF", exif=exif.tobytes()))[0] == WIDE
    assert pictures.read_text(save(picture(), "GIF", comment=TEXT.encode()))[0] == TEXT


def test_the_size_and_text_of_an_avif_are_known_without_its_pixels() -> None:
    data = pictures.encode(picture(640, 480), "avif", 90, TEXT)
    pixels = data.index(b"mdat") + 400  # the text comes first
    assert picture_size(data[:pixels], "AVIF") == (640, 480)
    assert pictures.read_text(data[:pixels])[0] == TEXT
    with pytest.raises(BadPicture, match="damaged"):
        pictures.open_image(data[:pixels])


def test_an_avif_that_is_turned_is_opened_upright() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    upright = pictures.open_image(save(picture(), "AVIF", exif=exif))  # kept as a turn of the pixels, not as EXIF
    assert upright.size == (48, 64)


def test_without_avif_in_pillow_a_png_is_written_and_reading_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    data = pictures.encode(picture(), "avif", 90, TEXT)
    monkeypatch.setattr(features, "check", lambda name: name != "avif")
    assert sniff(pictures.encode(picture(), "avif", 90, TEXT)) == "PNG"
    assert pictures.read_text(data)[0] == TEXT
    with pytest.raises(BadPicture, match="Pillow"):
        pictures.open_image(data)


def test_comfyui_keeps_its_graph_in_odd_entries_of_webp() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = 'workflow:{"nodes": []}'
    exif[ExifTags.Base.Model] = 'prompt:{"1": {}}'
    assert pictures.read_text(save(picture(), "WEBP", exif=exif)) == (
        "",
        {"workflow": '{"nodes": []}', "prompt": '{"1": {}}'},
    )


def hide(text: bytes, mark: bytes, channels: str, length: int | None = None) -> bytes:
    """A PNG with text in the lowest bits, column by column."""
    content = mark + struct.pack(">I", len(text) * 8 if length is None else length) + text
    bits = [byte >> shift & 1 for byte in content for shift in range(7, -1, -1)]
    image = picture(96, 80, "RGBA" if channels == "A" else "RGB")
    pixels = image.load()
    assert pixels is not None
    places = [(x, y, band) for x in range(96) for y in range(80) for band in ((3,) if channels == "A" else (0, 1, 2))]
    for (x, y, band), bit in zip(places, bits, strict=False):
        value = list(pixels[x, y])  # type: ignore[arg-type]
        value[band] = value[band] & 254 | bit
        pixels[x, y] = tuple(value)
    return save(image, "PNG")


@pytest.mark.parametrize(
    ("mark", "channels", "packed"),
    [
        (b"stealth_pnginfo", "A", False),
        (b"stealth_pngcomp", "A", True),
        (b"stealth_rgbinfo", "RGB", False),
        (b"stealth_rgbcomp", "RGB", True),
    ],
)
def test_text_hidden_in_the_pixels_is_found(mark: bytes, channels: str, packed: bool) -> None:
    text = gzip.compress(WIDE.encode()) if packed else WIDE.encode()
    assert pictures.read_text(hide(text, mark, channels)) == (WIDE, {})


@pytest.mark.parametrize("channels", ["A", "RGB"])
def test_text_hidden_in_the_pixels_can_be_taken_out(channels: str) -> None:
    mark = b"stealth_pnginfo" if channels == "A" else b"stealth_rgbinfo"
    before = pictures.open_image(hide(WIDE.encode(), mark, channels))
    after = pictures.without_stealth(before)
    assert pictures.read_text(save(after, "PNG")) == ("", {})
    assert np.abs(np.asarray(before, dtype=int) - np.asarray(after)).max() == 1
    assert pictures.without_stealth(after) is after


def test_hidden_chunks_of_novelai_are_chunks() -> None:
    chunks = {"Software": "NovelAI", "Comment": '{"uc": "x"}', "Description": "1girl"}
    hidden = gzip.compress(json.dumps(chunks).encode())
    assert pictures.read_text(hide(hidden, b"stealth_pngcomp", "A")) == ("", chunks)


def test_a_picture_that_is_open_is_not_decoded_for_its_text_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    data = hide(b"a cat", b"stealth_pnginfo", "A")
    image = pictures.open_image(data)
    monkeypatch.setattr("webui.pictures.stealth.open_image", lambda _: pytest.fail("decoded again"))
    assert pictures.read_text(data, image) == ("a cat", {})


def test_what_is_no_picture_is_refused_for_reading_too() -> None:
    with pytest.raises(BadPicture):
        pictures.read_text(b"<svg/>")


# --- hostile files ---------------------------------------------------------------------------------------------------


def header_only(width: int, height: int, depth: int = 1, colour: int = 0) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    ("width", "height"), [(100_000, 100_000), (13_000, 13_000), (30_000, 30_000), (2**31 - 1, 1), (8193, 8192)]
)
def test_H055_H056_H057_a_picture_past_the_limit_is_refused_before_it_is_decoded(width: int, height: int) -> None:
    data = header_only(width, height) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    with pytest.raises(BadPicture, match=f"{width}x{height} pixels"):
        pictures.open_image(data)
    if width * height > pictures.MAX_RESULT_PIXELS:  # up to there, one is decoded while no other is
        with pytest.raises(BadPicture, match=f"{width}x{height} pixels"), pictures.opened(data):
            pytest.fail("it was opened")
    pictures.read_text(data)


def test_the_largest_picture_that_is_allowed_opens() -> None:
    data = save(Image.new("1", (8192, 8192)), "PNG")
    assert pictures.open_image(data).size == (8192, 8192)


@pytest.mark.timeout(20)
def test_H058_H059_H060_text_chunks_are_bounded() -> None:
    big = chunk(b"zTXt", b"parameters\0\0" + zlib.compress(b"x" * 2 * 2**20))
    with pytest.raises(BadPicture):
        pictures.open_image(png_with(big))
    many = [chunk(b"zTXt", b"k%d\0\0" % i + zlib.compress(b"x" * 2**20)) for i in range(70)]
    text, chunks = pictures.read_text(png_with(*many))
    assert (text, sum(map(len, chunks.values())) <= 18 * 2**20) == ("", True)
    huge = png_with(chunk(b"tEXt", b"parameters\0" + b"x" * 60 * 2**20))
    with pytest.raises(BadPicture, match="60 MB of text"):
        pictures.open_image(huge)
    assert pictures.read_text(huge) == ("", {"parameters": f"(too long to be shown: {4 * 2**20:,} characters)"})
    assert pictures.read_text(png_with(big))[1]["parameters"].startswith("(too long")
    bomb = chunk(b"zTXt", b"parameters\0\0" + zlib.compress(b"x" * 100 * 2**20))
    assert pictures.read_text(png_with(bomb))[1]["parameters"].startswith("(too long")


def test_H061_H062_broken_characters_are_replaced_and_nul_is_gone() -> None:
    bad = chunk(b"iTXt", b"parameters\0\0\0\0\0a\xff\xfeb\xc3")
    assert pictures.read_text(png_with(bad))[0] == "a\ufffd\ufffdb\ufffd"
    assert pictures.read_text(png_with(chunk(b"tEXt", b"parameters\0a\0b\x1b[31m\r\n")))[0] == "ab\x1b[31m\r\n"


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", FORMATS)
def test_H063_a_truncated_file_is_refused_wherever_it_ends(kind: str) -> None:
    noise = Image.effect_noise((200, 200), 80).convert("RGB")
    data = pictures.encode(noise, kind, 90, TEXT)
    for tenth in range(1, 10):
        part = data[: len(data) * tenth // 10]
        with pytest.raises(BadPicture):
            pictures.open_image(part)
        pictures.read_text(part) if sniff(part) else None


@pytest.mark.parametrize(
    "data",
    [
        header_only(0, 5),
        header_only(2**31, 1),
        header_only(64, 64)[:-4] + b"\0\0\0\0" + chunk(b"IDAT", zlib.compress(bytes(600))) + chunk(b"IEND", b""),
        b"\x89PNG\r\n\x1a\n" + chunk(b"IDAT", b""),
        b"\x89PNG\r\n\x1a\n",
        header_only(64, 64, 16, 7) + chunk(b"IDAT", b"") + chunk(b"IEND", b""),
        header_only(64, 64, 8, 2) + chunk(b"IDAT", b"not deflated") + chunk(b"IEND", b""),
    ],
)
def test_H064_a_damaged_header_is_refused(data: bytes) -> None:
    with pytest.raises(BadPicture):
        pictures.open_image(data)


@pytest.mark.timeout(60)
def test_H065_of_many_frames_the_first_is_opened() -> None:
    frames = [Image.new("L", (2, 2), i % 256) for i in range(1000)]
    for kind in ("PNG", "WEBP"):
        data = save(frames[0], kind, save_all=True, append_images=frames[1:])
        assert pictures.open_image(data).size == (2, 2)
    gif = save(frames[0], "GIF", save_all=True, append_images=frames[1:], comment=b"c")
    assert pictures.read_text(gif)[0] == "c"
    with pytest.raises(BadPicture):
        pictures.open_image(gif)


@pytest.mark.timeout(30)
def test_H066_a_thousand_exif_segments_are_refused() -> None:
    data = save(picture(), "JPEG")
    segment = b"\xff\xe1" + struct.pack(">H", 65_000) + b"Exif\0\0" + b"MM\0*" + b"\0" * 64_988
    with pytest.raises(BadPicture, match="MB of EXIF"):
        pictures.open_image(data[:2] + segment * 1000 + data[2:])
    other = b"\xff\xe5" + struct.pack(">H", 65_000) + b"\0" * 64_998
    assert pictures.open_image(data[:2] + other * 1000 + data[2:]).size == (64, 48)


def test_H066_exif_directories_that_name_themselves_end() -> None:
    loop = b"MM\0*\0\0\0\x08" + b"\0\1" + struct.pack(">HHII", 0x8769, 4, 1, 8) + b"\0\0\0\x08"
    assert read_exif(loop) == {0x8769: 8}
    assert read_exif(b"II*\0\xff\xff\xff\xff") == {}
    assert read_exif(b"II*\0\x08\0\0\0\xff\xff") == {}
    assert pictures.open_image(save(picture(), "JPEG", exif=b"Exif\0\0" + loop)).size == (64, 48)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_opened_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    data = save(picture(), "PNG", exif=exif)
    from PIL import ImageOps

    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    opened = pictures.open_image(data)
    assert opened.size == expected.size
    assert opened.tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    "image",
    [
        Image.new("CMYK", (8, 8)),
        Image.new("L", (1, 1)),
        Image.new("L", (1, 16_384)),
        Image.new("L", (16_383, 1)),
    ],
)
def test_H067_unusual_modes_and_sides_open(image: Image.Image) -> None:
    data = save(image, "JPEG")
    assert pictures.open_image(data).convert("RGB").size == image.size


@pytest.mark.parametrize("mode", ["I;16", "P", "LA", "1", "RGBA", "L"])
def test_H067_unusual_png_modes_open(mode: str) -> None:
    image = Image.new("RGBA", (8, 8), (255, 0, 0, 128)).convert("L" if mode == "I;16" else mode)
    data = save(image.convert("I;16") if mode == "I;16" else image, "PNG")
    assert pictures.open_image(data).convert("RGB").size == (8, 8)


def test_grey_of_16_bits_keeps_its_shades() -> None:
    ramp = np.tile(np.arange(0, 65536, 257, dtype=np.uint16), (4, 1))  # 0, 257, 514 ... 65535
    opened = pictures.open_image(save(Image.fromarray(ramp), "PNG"))
    assert opened.mode == "L"
    assert np.asarray(opened)[2].tolist() == list(range(256))
    clear = pictures.open_image(save(Image.fromarray(ramp), "PNG", transparency=257 * 3))
    assert (clear.mode, clear.info) == ("LA", {})
    assert [clear.getpixel((x, 0)) for x in (2, 3, 4)] == [(2, 255), (3, 0), (4, 255)]


def test_H067_a_transparent_palette_stays_transparent_and_a_profile_is_dropped() -> None:
    image = picture(mode="P")
    opened = pictures.open_image(save(image, "PNG", transparency=3))
    assert opened.info == {"transparency": 3}
    profile = bytes(20 * 2**20)
    data = save(picture(), "PNG", icc_profile=profile)
    try:
        assert "icc_profile" not in pictures.open_image(data).info
    except BadPicture as error:
        assert error.advice  # noqa: PT017


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x89PNG",
        b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        b"<html>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
        b"%PDF-1.7\n",
        b"SIMPLE  =                    T",
        b"8BPS\0\1" + bytes(40),
        b"\0\0\1\0" + bytes(40),
        b"II*\0" + bytes(40),
        b"GIF89a/*" + bytes(40),
        b"BM" + bytes(60),
        b"RIFF\x10\0\0\0WEBPVP8 ",
        b"\xff\xd8\xff\xe0",
    ],
)
def test_H068_other_formats_are_never_opened(data: bytes) -> None:
    with pytest.raises(BadPicture) as caught:
        pictures.open_image(data)
    assert caught.value.advice


def test_H076_a_hidden_text_of_absurd_length_is_ignored() -> None:
    for length in (2**32 - 1, 0, 7, 10**7):
        assert pictures.read_text(hide(b"x", b"stealth_pnginfo", "A", length)) == ("", {})
    assert pictures.read_text(hide(b"not gzip" * 4, b"stealth_pngcomp", "A")) == ("", {})
    bomb = gzip.compress(b"x" * 2**20)
    hidden, chunks = pictures.read_text(hide(bomb, b"stealth_rgbcomp", "RGB"))
    assert (len(hidden) <= pictures.MAX_INFOTEXT, chunks) == (True, {})


SEEDS = [pictures.encode(picture(), kind, 60, WIDE, {"a": "b"}) for kind in FORMATS]
SEEDS.append(save(picture(), "GIF", comment=b"c"))


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(SEEDS), st.lists(st.tuples(st.integers(0, 4000), st.binary(min_size=1, max_size=4)), max_size=6))
def test_a_damaged_file_is_opened_or_refused_and_its_text_is_bounded(
    data: bytes, damage: list[tuple[int, bytes]]
) -> None:
    damaged = bytearray(data)
    for position, content in damage:
        start = position % len(damaged)
        damaged[start : start + len(content)] = content
    for action in (pictures.open_image, pictures.read_text):
        try:
            action(bytes(damaged))
        except BadPicture as error:
            assert error.message  # noqa: PT017


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_the_size_in_the_header_is_the_pictures(kind: str) -> None:
    for options in ({}, {"lossless": True}) if kind == "WEBP" else ({},):
        assert picture_size(save(picture(), kind, **options), kind) == (64, 48)  # type: ignore[arg-type]
