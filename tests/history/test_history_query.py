"""The search language: what is typed, and what it means."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webui.history.query import (
    MAX_TERMS,
    DateTerm,
    FlagTerm,
    RangeTerm,
    SizeTerm,
    Term,
    TextTerm,
    parse_query,
)

TODAY = datetime.date(2026, 3, 1)


def terms(text: str) -> tuple[Term, ...]:
    return parse_query(text, TODAY).terms


def test_words_and_phrases_are_looked_for_without_case() -> None:
    assert terms('Castle "Blue  Sky"') == (TextTerm("text", "castle"), TextTerm("text", "blue  sky"))


def test_a_minus_excludes_a_word_a_phrase_and_a_field() -> None:
    assert terms('-fog -"red car" -model:anime') == (
        TextTerm("text", "fog", exclude=True),
        TextTerm("text", "red car", exclude=True),
        TextTerm("model", "anime", exclude=True),
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model:Photon", TextTerm("model", "photon")),
        ("checkpoint:photon", TextTerm("model", "photon")),
        ("vae:mse", TextTerm("vae", "mse")),
        ('sampler:"Euler a"', TextTerm("sampler", "euler a")),
        ("schedule:karras", TextTerm("schedule", "karras")),
        ("lora:grain", TextTerm("lora", "grain")),
        ("negative:blurry", TextTerm("negative", "blurry")),
        ("tag:ca", TextTerm("tag", "ca")),
        ('tag:"cats"', TextTerm("tag", "cats", whole=True)),
        ("seed:7", RangeTerm("seed", 7, 7)),
        ("seed:-1", RangeTerm("seed", -1, -1)),
        ("seed:5..9", RangeTerm("seed", 5, 9)),
        ("seed:5..", RangeTerm("seed", 5, 2**63 - 1)),
        ("steps:..30", RangeTerm("steps", -(2**63) + 1, 30)),
        ("size:512x768", SizeTerm(512, 768)),
        ("SIZE:512×768", SizeTerm(512, 768)),
        ("size:1024", SizeTerm(1024, None)),
        ("date:2026", DateTerm("2026-01-01", "2026-12-31")),
        ("date:2024-02", DateTerm("2024-02-01", "2024-02-29")),
        ("date:2026-2-3", DateTerm("2026-02-03", "2026-02-03")),
        ("date:today", DateTerm("2026-03-01", "2026-03-01")),
        ("date:yesterday", DateTerm("2026-02-28", "2026-02-28")),
        ("date:2025-12..2026-01", DateTerm("2025-12-01", "2026-01-31")),
        ("date:..2025", DateTerm("0000-00-00", "2025-12-31")),
        ("fav:", FlagTerm("favourite")),
        ("fav:yes", FlagTerm("favourite")),
        ("fav:no", FlagTerm("favourite", exclude=True)),
        ("-fav:no", FlagTerm("favourite")),
        ("is:missing", FlagTerm("missing")),
        ("user:Anna", TextTerm("user", "Anna")),
        ('user:""', TextTerm("user", "")),
        ("job:0a1b", TextTerm("job", "0a1b")),
    ],
)
def test_fields(text: str, expected: Term) -> None:
    query = parse_query(text, TODAY)
    assert query.terms == (expected,)
    assert query.problems == ()


@pytest.mark.parametrize(
    "text", ["", "  ", "-", '"', '""', "model:", "seed:", 'tag:""', "size:512x", "date:20", "date:2026-", "is:"]
)
def test_what_is_not_finished_has_no_effect(text: str) -> None:
    assert parse_query(text, TODAY) == parse_query("")


@pytest.mark.parametrize(
    "text", ["seed:abc", "size:big", "date:2026-13", "date:2026-02-30", "date:..", "fav:maybe", "is:nice", "steps:.."]
)
def test_what_cannot_be_understood_is_named_and_has_no_effect(text: str) -> None:
    query = parse_query(text + " castle", TODAY)
    assert query.terms == (TextTerm("text", "castle"),)
    assert query.problems[0].startswith(text.partition(":")[0])


@pytest.mark.parametrize("text", ["(cat:1.2)", "<lora:x:1>", "http://x", "foo:bar", "a:b:c"])
def test_a_colon_in_a_word_of_a_prompt_is_text(text: str) -> None:
    assert terms(text) == (TextTerm("text", text),)


def test_a_phrase_that_is_still_open_reaches_to_the_end() -> None:
    assert terms('castle "blue sk') == (TextTerm("text", "castle"), TextTerm("text", "blue sk"))


def test_a_query_is_bounded() -> None:
    query = parse_query("x " * 3000, TODAY)
    assert len(query.terms) == MAX_TERMS
    assert len(query.problems) == 2


@given(st.text(max_size=200))
def test_any_text_can_be_typed(text: str) -> None:
    parse_query(text, TODAY)
