"""Words can be read: contrast of at least 4.5:1 in both themes, from the stylesheet's own variables."""

from __future__ import annotations

import re

import pytest

from webui.ui.markup import STATIC

STYLE = (STATIC / "style.css").read_text()
PAIRS = [
    ("text", "bg"),
    ("text", "surface"),
    ("text", "hover"),
    ("muted", "bg"),
    ("muted", "surface"),
    ("muted", "sunken"),
    ("muted", "hover"),
    ("muted", "accent-soft"),
    ("accent", "surface"),
    ("accent", "bg"),
    ("on-accent", "accent"),
    ("on-accent", "accent-hover"),
    ("bad", "bg"),
    ("bad", "surface"),
    ("warn", "bg"),
    ("bg", "text"),
]


def variables(selector: str) -> dict[str, str]:
    """The colours that the first rule with that selector sets."""
    body = re.search(re.escape(selector) + r" \{(.*?)\n\s*\}", STYLE, re.S)
    assert body, selector
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", body.group(1)))


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


LIGHT, DARK = ":root", ':root[data-theme="dark"]'


@pytest.mark.parametrize("theme", [LIGHT, DARK])
@pytest.mark.parametrize(("front", "back"), PAIRS)
def test_words_stand_out(theme: str, front: str, back: str) -> None:
    colours = variables(theme)
    light, dark = sorted((luminance(colours[front]), luminance(colours[back])), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_the_words_of_a_card_that_cannot_run_are_not_faded() -> None:
    rules = re.findall(r"^(#cards-grid \.useless[^{]*?) \{(.*)\}", STYLE, re.MULTILINE)
    faded = [selector for selector, body in rules if "opacity" in body]
    assert faded == ["#cards-grid .useless :is(img, .no-picture)"]


def test_a_dark_system_gets_the_same_dark_colours() -> None:
    assert variables(":root:not([data-theme])") == variables(DARK)
    assert set(variables(DARK)) <= set(variables(LIGHT)) | {"chevron"}


def test_every_block_of_the_stylesheet_is_closed_before_the_next_part_begins() -> None:
    """A brace that is missing hides whole parts of the page behind a media query, and no browser says so."""
    depth = 0
    for part in re.split(r"/\*(.*?)\*/", STYLE, flags=re.DOTALL)[::2]:
        for number, line in enumerate(part.splitlines()):
            depth += line.count("{") - line.count("}")
            assert 0 <= depth <= 2, (number, line)
    assert depth == 0
    for heading in re.finditer(r"^/\* --- (.*?) -+ \*/", STYLE, flags=re.MULTILINE):
        before = re.sub(r"/\*.*?\*/", "", STYLE[: heading.start()], flags=re.DOTALL)
        assert before.count("{") == before.count("}"), heading[1]
