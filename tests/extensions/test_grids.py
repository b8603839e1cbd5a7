"""Grids of pictures: legends that any text fits, in letters that can be read."""

from __future__ import annotations

import pytest
from PIL import Image

from webui.extensions import Grid, Square
from webui.extensions import lettering as letters
from webui.extensions.grids import wrap


def counted(text: str) -> float:
    return float(len(text))


def test_words_are_broken_at_spaces_and_long_ones_inside() -> None:
    assert wrap("a red castle\nat night", counted, 6) == ["a red", "castle", "at", "night"]
    assert wrap("abcdefghij kl", counted, 4) == ["abcd", "efgh", "ij", "kl"]
    assert wrap("abc", counted, 0.5) == ["a", "b", "c"]


def test_a_long_word_is_measured_few_times_and_no_line_is_made_that_has_no_room() -> None:
    asked: list[int] = []

    def length(text: str) -> float:
        asked.append(len(text))
        return float(len(text))

    assert wrap("a" * 2000, length, 30, 3) == ["a" * 30] * 3
    assert len(asked) < 60


def test_a_label_of_any_length_is_drawn() -> None:
    picture = Image.new("RGB", (64, 64), "red")
    error = "no" * 20_000
    sheet = Grid([[Square(picture), Square(None, error)]], (64, 64), ["a" * 50_000, "b"], ["c" * 50_000]).draw()
    assert sheet.height < 400


@pytest.mark.parametrize(("text", "read"), [("Łódź, café, 2×3", "Lodz, cafe, 2x3"), ("a 猫 → b", "a ? -> b")])
def test_what_no_font_has_is_written_in_letters_that_are_there(
    monkeypatch: pytest.MonkeyPatch, text: str, read: str
) -> None:
    monkeypatch.setattr(letters, "_SYSTEM", ())
    assert letters.lettering([text]).readable(text) == read


def test_a_font_of_the_system_is_taken_for_what_pillow_s_own_has_not() -> None:
    assert letters.lettering(["a castle, 20 steps"]).name == ""
    chosen = letters.lettering(["Зима, café"])
    if chosen.name:  # a machine without any fonts folds them
        assert chosen.readable("Зима, café") == "Зима, café"
