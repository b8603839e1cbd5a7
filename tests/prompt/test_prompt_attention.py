"""Emphasis means what it means in AUTOMATIC1111, but for the mended faults, and costs no more than its length."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webui.errors import InvalidParams
from webui.prompt import bracket_problems, parse_attention, parse_pieces
from webui.prompt.limits import MAX_DEPTH, MAX_WEIGHT

CASES = json.loads((Path(__file__).parent / "cases.json").read_text(encoding="utf-8"))["attention"]
MENDED = {"(a:1..5)": [["a:1..5", 1.1]]}  # a number that is none ended the generation there

language = st.lists(
    st.sampled_from(["(", ")", "[", "]", ":", "1.2", "1..5", "-.5", " ", "\\", "BREAK", "a", "é", "\n", "b c", ":1)"]),
    max_size=30,
).map("".join)


@pytest.mark.parametrize(("text", "expected"), CASES, ids=[text for text, _ in CASES])
def test_every_verified_case_of_the_grammar(text: str, expected: Any) -> None:
    assert parse_attention(text) == MENDED.get(text, expected)


def test_a_break_inside_brackets_is_a_break() -> None:
    assert [piece.is_break for piece in parse_pieces("(a BREAK b:1.2)")] == [False, True, False]


def test_compatible_reading_takes_a_break_inside_brackets_for_a_word_unless_its_weight_is_minus_one() -> None:
    def breaks(text: str) -> int:
        return sum(piece.is_break for piece in parse_pieces(text, compatible=True))

    assert breaks("a BREAK b") == 1
    assert breaks("(a BREAK b)") == 0
    assert breaks("(a BREAK b:1)") == 1


def test_the_word_break_with_an_escape_inside_is_a_word() -> None:
    (piece,) = parse_pieces("(B\\REAK:-1.5)")
    assert piece.text == "BREAK"
    assert not piece.is_break


def test_modes_of_emphasis_read_brackets_as_text_or_forget_the_weights() -> None:
    assert parse_pieces("(a:1.5) BREAK b", emphasis="None") == [("(a:1.5) BREAK b", 1.0, False)]
    assert parse_pieces("(a:1.5) b", emphasis="Ignore") == [("a", 1.0, False), (" b", 1.0, False)]


@given(language)
def test_any_text_parses_or_is_refused_and_no_character_is_invented(text: str) -> None:
    try:
        pieces = parse_pieces(text)
    except InvalidParams:
        return
    joined = "".join(piece.text for piece in pieces)
    assert len(joined) <= len(text)
    assert set(joined) <= set(text)
    assert all(abs(piece.weight) <= MAX_WEIGHT for piece in pieces if not piece.is_break)
    assert all(a.weight != b.weight or a.is_break or b.is_break for a, b in pairwise(pieces))


@given(st.text(st.characters(exclude_characters="()[]:\\"), max_size=100).filter(lambda text: "BREAK" not in text))
def test_text_without_brackets_stays_as_it_is(text: str) -> None:
    assert parse_attention(text) == [[text, 1.0]]


@given(language)
def test_a_text_without_bracket_problems_has_as_many_openings_as_closings(text: str) -> None:
    if not bracket_problems(text):
        plain = text.replace("\\\\", "").replace("\\(", "").replace("\\)", "").replace("\\[", "").replace("\\]", "")
        assert plain.count("(") == plain.count(")")
        assert plain.count("[") == plain.count("]")


def test_bracket_problems_name_the_place_and_the_bracket() -> None:
    found = [(problem.position, problem.bracket) for problem in bracket_problems("a (b [c) d] e) <lora:x \\( [")]
    assert found == [(13, ")"), (15, "<"), (26, "[")]
    assert bracket_problems("(a [b)] <lora:x:1> \\(") == []
    assert "is never closed: a (cat" in bracket_problems("a (cat")[0].message


# Hostile text: each of these took seconds to hours in grammars of this kind.
@pytest.mark.timeout(20)
@pytest.mark.parametrize("text", ["(" * 100_000 + "a" + ")" * 100_000, "[" * 100_000, "(" * 100_000, "(a:1.1" * 50_000])
def test_H089_brackets_nested_past_the_limit_are_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(InvalidParams, match=rf"deeper than {MAX_DEPTH} levels"):
        parse_attention(text)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "text",
    [")" * 100_000, "]" * 100_000, "(a)" * 60_000, ":" * 200_000, " " * 1_000_000, ": " * 100_000, "\\" * 200_000,
     "BREAK " * 30_000, "(" * 60 + "a[]" * 60_000, ":1" * 100_000, "(a:" + "1" * 200_000],
)  # fmt: skip
def test_H089_long_texts_of_brackets_cost_their_length(text: str) -> None:
    try:
        assert parse_attention(text)
    except InvalidParams as error:
        assert error.advice  # noqa: PT017


@pytest.mark.parametrize("text", ["(a:99999)", "(" * 80 + "a", "(a:" + "9" * 400 + ")", "((a:999):999)"])
def test_H089_a_weight_past_the_limit_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(InvalidParams, match="weights go up to 1000"):
        parse_attention(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(a:1e308)", [["a:1e308", 1.1]]),
        ("(a:nan)", [["a:nan", 1.1]]),
        ("(a:-5)", [["a", -5.0]]),
        ("(a:1.1", [["a:1.1", 1.1]]),
        ("(a:.)", [["a:.", 1.1]]),
    ],
)
def test_H089_what_only_looks_like_a_weight_is_text(text: str, expected: list[list[Any]]) -> None:
    assert parse_attention(text) == expected
