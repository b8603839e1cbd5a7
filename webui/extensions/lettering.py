"""The letters of a sheet: a font that has what is written, and a readable form where no font has it."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

# Of Linux, Windows and macOS, those with most scripts first; the last ones have Chinese, Japanese and Korean.
_SYSTEM = (
    *("DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf", "FreeSans.ttf", "segoeui.ttf"),
    *("Arial Unicode.ttf", "arial.ttf", "Arial.ttf", "Helvetica.ttc", "Ubuntu-R.ttf", "Roboto-Regular.ttf"),
    *("NotoSansCJK-Regular.ttc", "wqy-zenhei.ttc", "msyh.ttc", "YuGothM.ttc", "malgun.ttf", "Hiragino Sans GB.ttc"),
)
_OWN = ""  # Pillow's own font
_PROBE = 20  # pixels: the size at which glyphs are compared
_NO_CHARACTER = "\uffff"  # no font has a glyph for it, so it is drawn as whatever stands for a missing one
# What Unicode does not take apart. Keys are single characters.
_PLAIN = {
    "ł": "l",
    "Ł": "L",
    "ø": "o",
    "Ø": "O",
    "đ": "d",
    "Đ": "D",
    "ħ": "h",
    "ı": "i",
    "ß": "ss",
    "þ": "th",
    "æ": "ae",
    "Æ": "AE",
    "œ": "oe",
    "Œ": "OE",
    "×": "x",
    "÷": "/",
    "−": "-",
    "–": "-",
    "—": "-",
    "→": "->",
    "“": '"',
    "”": '"',
    "„": '"',
    "«": '"',
    "»": '"',
    "‘": "'",
    "’": "'",
    "‚": "'",
    "·": ".",
    "•": ".",
}


@dataclass(frozen=True, slots=True)
class Lettering:
    """One font for a whole sheet."""

    name: str

    def font(self, size: int) -> Font:
        """It, in a size in pixels."""
        return _font(self.name, size)

    def readable(self, text: str) -> str:
        """The text with what the font has no glyph for in another form: "e" for "é", "?" as the last resort."""
        return "".join(one if _has(self.name, one) else self._folded(one) for one in text)

    def _folded(self, character: str) -> str:
        apart = _PLAIN.get(character) or unicodedata.normalize("NFKD", character)
        plain = "".join(_PLAIN.get(one, one) for one in apart if not unicodedata.combining(one))
        return plain if plain and all(_has(self.name, one) for one in plain) else "?"


def lettering(texts: Iterable[str]) -> Lettering:
    """The font that has the most of these texts' characters.

    Pillow's own goes first, so that a sheet whose letters it has is the same on every machine.
    """
    wanted = {character for text in texts for character in text}
    best, fewest = _OWN, len(wanted) + 1
    for name in _known():
        missing = sum(not _has(name, character) for character in wanted)
        if missing < fewest:
            best, fewest = name, missing
        if not missing:
            break
    return Lettering(best)


def _known() -> Iterator[str]:
    """The fonts that are here, looked for one by one as they are needed."""
    yield _OWN
    yield from (name for name in _SYSTEM if _is_here(name))


@cache
def _is_here(name: str) -> bool:
    try:
        ImageFont.truetype(name, _PROBE)
    except OSError:
        return False
    return True


@lru_cache(maxsize=64)
def _font(name: str, size: int) -> Font:
    return ImageFont.truetype(name, size) if name else ImageFont.load_default(size)


@lru_cache(maxsize=4096)
def _has(name: str, character: str) -> bool:
    """Whether the font draws the character as something else than the sign for a missing one."""
    if character.isspace():
        return True
    if unicodedata.category(character) in ("Cc", "Cs", "Cn"):
        return False
    return _drawn(name, character) != _drawn(name, _NO_CHARACTER)


@lru_cache(maxsize=4096)
def _drawn(name: str, character: str) -> tuple[tuple[int, int], bytes]:
    mask = _font(name, _PROBE).getmask(character)
    return mask.size, bytes(mask)
