"""The whole plan of a prompt, and what had no effect said as data."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from webui.errors import InvalidParams
from webui.params import MAX_PROMPT_LENGTH
from webui.prompt import PromptPlan, clip_tokenizer, parse_prompt


def codes(plan: PromptPlan) -> list[str]:
    return [warning.code for warning in plan.warnings]


def test_a_plan_holds_parts_schedules_networks_and_the_negative_prompt() -> None:
    plan = parse_prompt(
        "# a note\na [cat:dog:.5] <lora:x:0.8> AND a house :0.5", "[ugly|bad] <b>", steps=4, tokenizer=clip_tokenizer()
    )
    assert [(part.weight, [tuple(entry) for entry in part.schedule]) for part in plan.parts] == [
        (1.0, [(2, "\na cat"), (4, "\na dog")]),
        (0.5, [(4, " a house")]),
    ]
    assert [entry.text for entry in plan.negative] == ["ugly <b>", "bad <b>"] * 2
    assert [network.name for network in plan.networks] == ["x"]
    assert plan.warnings == ()
    assert plan.texts() == ("\na cat", "\na dog", " a house", "ugly <b>", "bad <b>")


def test_the_second_pass_has_a_plan_of_its_own() -> None:
    plan = parse_prompt("[a:b:1.5]", steps=10, hires_steps=10)
    assert [tuple(entry) for entry in plan.parts[0].schedule] == [(5, "a"), (10, "b")]


def test_a_prompt_that_ends_in_a_number_is_no_weight_unless_compatible() -> None:
    assert parse_prompt("at 12:30", steps=2).parts[0].weight == 1.0
    plan = parse_prompt("at 12:30", steps=2, compatible=True)
    assert (plan.parts[0].weight, plan.texts()[0]) == (30.0, "at 12")


def test_and_in_the_negative_prompt_is_a_word() -> None:
    assert [entry.text for entry in parse_prompt("a", "b AND c:2", steps=1).negative] == ["b AND c:2"]


@pytest.mark.parametrize(
    ("prompt", "negative", "code", "words"),
    [
        ("a (cat", "", "bracket", 'In the prompt: "(" is never closed'),
        ("a", "b]", "bracket", 'In the negative prompt: "]" closes nothing'),
        ("<foo:x>", "", "network", "no networks of the kind"),
        ("<lora:x", "", "bracket", '"<" is never closed'),
        ("a", "<lora:x:1>", "network", "work in the prompt alone"),
        ("[a:b:3] | c", "", "schedule", "had no effect"),
        ("cat " * 20_000, "", "length", "after the first 9,600 tokens"),
        ("a BREAK " * 300, "", "length", "after the first 9,600 tokens"),
    ],
)
def test_what_has_no_effect_is_said(prompt: str, negative: str, code: str, words: str) -> None:
    plan = parse_prompt(prompt, negative, steps=5, tokenizer=clip_tokenizer())
    assert codes(plan) == [code]
    assert words in plan.warnings[0].text


def test_many_problems_are_summed_up() -> None:
    plan = parse_prompt(")" * 1000, steps=5)
    assert len(plan.warnings) <= 6
    assert "995 more brackets" in plan.warnings[-1].text


def test_brackets_are_no_problem_where_emphasis_is_off() -> None:
    assert parse_prompt("a :) (b", steps=5, emphasis="None").warnings == ()


@pytest.mark.parametrize("prompt", ["", "\0", "\ud800", "\u202e rtl \u200b", "😀" * 100, "e" + "\u0301" * 100_000])
def test_H088_odd_characters_are_only_characters(prompt: str) -> None:
    assert parse_prompt(prompt, prompt, steps=3, tokenizer=clip_tokenizer()).texts()


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "unit", ["(a:1.1)", "[a|b] ", "a, ", "<lora:x> ", "#\n", "{a|b}", "a BREAK ", "😀", ": ", "\\("]
)
def test_H088_the_longest_prompt_is_planned_or_refused(unit: str) -> None:
    prompt = unit * (MAX_PROMPT_LENGTH // len(unit))
    try:
        plan = parse_prompt(prompt, prompt, steps=20, tokenizer=clip_tokenizer())
    except InvalidParams as error:
        assert error.message.endswith(".")  # noqa: PT017
    else:
        assert plan.texts()


@settings(max_examples=150, deadline=None)
@given(st.text("ab ()[]:|1.<>#\\AND,{}_", max_size=60), st.text("ab ()[]:|1.<>#\\", max_size=30), st.booleans())
def test_any_prompt_is_planned_or_refused(prompt: str, negative: str, compatible: bool) -> None:
    try:
        plan = parse_prompt(prompt, negative, steps=6, compatible=compatible, tokenizer=clip_tokenizer())
    except InvalidParams:
        return
    assert plan.parts
    assert all(part.schedule[-1].end_step == 6 for part in plan.parts)
    assert plan.negative[-1].end_step == 6
