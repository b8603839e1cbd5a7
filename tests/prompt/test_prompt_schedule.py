"""Prompt editing, alternation and AND mean what they mean in AUTOMATIC1111, but for the mended fault."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webui.errors import InvalidParams
from webui.prompt import denoiser_calls, parse_schedule, split_and, text_at
from webui.prompt.limits import MAX_PARTS
from webui.prompt.schedule import scheduled_texts

CASES = json.loads((Path(__file__).parent / "cases.json").read_text(encoding="utf-8"))
LONG = "fantasy landscape"

language = st.lists(
    st.sampled_from(["(", ")", "[", "]", ":", "|", "3", ".5", " ", "\\", "a", "b", "[a|b]", "[a:b:3]", "\n"]),
    max_size=20,
).map("".join)


@pytest.mark.parametrize(("text", "expected"), CASES["schedule"], ids=[text for text, _ in CASES["schedule"]])
def test_every_verified_schedule(text: str, expected: Any) -> None:
    assert parse_schedule(text, 100 if text.startswith(LONG) else 10) == expected


@pytest.mark.parametrize(("text", "base", "hires", "hires6"), CASES["hires"])
def test_every_verified_schedule_of_a_second_pass(text: str, base: Any, hires: Any, hires6: Any) -> None:
    assert parse_schedule(text, 10) == base
    assert parse_schedule(text, 10, 10) == hires
    assert parse_schedule(text, 10, 6) == hires6


@pytest.mark.parametrize(("text", "old", "old_hires6"), CASES["old"])
def test_every_verified_schedule_of_the_old_timelines(text: str, old: Any, old_hires6: Any) -> None:
    assert parse_schedule(text, 10, old_timelines=True) == old
    assert parse_schedule(text, 10, 6, old_timelines=True) == old_hires6


@pytest.mark.parametrize(
    ("text", "base", "hires", "old"),
    [
        ("[a:b:5.]", [[10, "a"]], [[10, "a"]], [[5, "a"], [10, "b"]]),
        ("[a:b:1.]", [[10, "a"]], [[10, "b"]], [[1, "a"], [10, "b"]]),
        ("[a:b: 0. ]", [[10, "b"]], [[10, "b"]], [[10, "b"]]),
        ("[a:b:-1.]", [[10, "b"]], [[10, "b"]], [[10, "b"]]),
        ("[a:b:+3.e-1]", [[3, "a"], [10, "b"]], [[10, "b"]], [[3, "a"], [10, "b"]]),
        ("[b:5.]", [[10, ""]], [[10, ""]], [[5, ""], [10, "b"]]),
        ("[a:b:.]", [[10, "[a:b:.]"]], [[10, "[a:b:.]"]], [[10, "[a:b:.]"]]),
        ("[a:b:1..]", [[10, "[a:b:1..]"]], [[10, "[a:b:1..]"]], [[10, "[a:b:1..]"]]),
    ],
)
def test_digits_may_lack_on_one_side_of_the_dot(text: str, base: Any, hires: Any, old: Any) -> None:
    """The number of AUTOMATIC1111's grammar is lark's SIGNED_NUMBER, whose DECIMAL is `INT "." INT? | "." INT`."""
    assert parse_schedule(text, 10) == base
    assert parse_schedule(text, 10, 10) == hires
    assert parse_schedule(text, 10, old_timelines=True) == old


def test_the_first_entry_lasts_one_call_longer_than_its_number_says() -> None:
    schedule, _ = scheduled_texts("[a:b:3]", 10)
    assert "".join(text_at(schedule, call) for call in range(10)) == "aaaabbbbbb"
    alternation, _ = scheduled_texts("[a|b]", 6)
    assert "".join(text_at(alternation, call) for call in range(6)) == "aababa"


def test_calls_after_the_last_entry_use_it() -> None:
    schedule, _ = scheduled_texts("[a:b:3]", 4)
    assert text_at(schedule, 99) == "b"


def test_second_order_samplers_count_calls() -> None:
    assert denoiser_calls(20, second_order=True) == 40
    assert denoiser_calls(20, second_order=False) == 20


def test_a_text_outside_the_grammar_is_one_entry_and_says_so() -> None:
    assert scheduled_texts("a | [b:c:5]", 10) == (((10, "a | [b:c:5]"),), False)
    assert scheduled_texts("a [b:c:5] \\", 10)[1] is False


@given(language, st.integers(1, 12))
def test_any_text_has_a_schedule_that_ends_with_the_last_step(text: str, steps: int) -> None:
    schedule = parse_schedule(text, steps)
    ends = [end for end, _ in schedule]
    assert ends == sorted(set(ends))
    assert ends[-1] == steps
    assert all(1 <= end <= steps for end in ends)


@given(language)
def test_a_text_without_editing_is_unchanged(text: str) -> None:
    if "[" not in text:
        assert parse_schedule(text, 10) == [[10, text]]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("text", ["[" * 100_000, "([" * 50_000 + "a" + "])" * 50_000])
def test_H089_brackets_nested_past_the_limit_are_refused(text: str) -> None:
    with pytest.raises(InvalidParams, match="nested deeper"):
        parse_schedule(text, 20)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "text",
    ["[a:b:c:d]", "[a|b|]", "[a:99999999999]", "[:::]", "[a:1e999]", "[a:-1e999]", "[a|b]" * 1000,
     "[" + "a|" * 1000 + "]", "[a:b:3]" * 20_000, ")" * 200_000, ":" * 200_000, "[a] " * 40_000,
     "[a:b:0." + "3" * 100_000 + "]"],
)  # fmt: skip
def test_H090_odd_and_long_editing_gives_a_schedule(text: str) -> None:
    assert parse_schedule(text, 20)[-1][0] == 20


@pytest.mark.timeout(20)
def test_H090_more_changes_than_can_be_prepared_are_refused() -> None:
    with pytest.raises(InvalidParams, match="changes in 40,000 places"):
        parse_schedule("[a|b]" * 40_000, 1000)


def test_a_repeated_text_is_kept_once() -> None:
    schedule, _ = scheduled_texts("[a|b] " + "x" * 1000, 1000)
    assert len({id(entry.text) for entry in schedule}) == 2


# --- AND -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "expected"), CASES["and"], ids=[text for text, _ in CASES["and"]])
def test_every_verified_case_of_and_with_the_compatibility_switch(text: str, expected: Any) -> None:
    assert split_and(text, compatible=True) == expected


@pytest.mark.parametrize(("text", "expected"), CASES["and"], ids=[text for text, _ in CASES["and"]])
def test_without_the_switch_a_number_at_the_end_is_a_weight_only_beside_and(text: str, expected: Any) -> None:
    assert split_and(text) == (expected if "AND" in text.split() else [[text.rstrip(), 1.0]])


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "text", [" " * 1_000_000, "a AND :nan", ":" * 200_000, "a AND b:" + "1" * 100_000, "a AND :1e5"]
)
def test_H091_odd_weights_and_spaces_are_text_or_refused(text: str) -> None:
    try:
        parts = split_and(text)
    except InvalidParams as error:
        assert "weights go up to" in error.message  # noqa: PT017
    else:
        assert all(weight == 1.0 for _, weight in parts)


def test_H091_a_thousand_parts_are_refused_in_a_sentence() -> None:
    with pytest.raises(InvalidParams, match="1,001 parts joined by AND"):
        split_and("a AND " * 1000 + "b")
    assert len(split_and(" AND ".join("a" * MAX_PARTS))) == MAX_PARTS
