"""Wildcards and variants: chosen by the seed alone, read from their folder alone, bounded however they are nested."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webui.prompt import expand_wildcards, list_wildcards


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "wildcards"
    (folder / "place").mkdir(parents=True)
    (folder / "animal.txt").write_text("\ufeff# comment\ncat\n\ndog\nbird\n", encoding="utf-8")
    (folder / "place" / "city.txt").write_text("__animal__ town\n", encoding="utf-8")
    (folder / "loop.txt").write_text("x __loop__\n", encoding="utf-8")
    (folder / "bomb.txt").write_text("__bomb____bomb__\n", encoding="utf-8")
    (folder / "empty.txt").write_text("# nothing\n", encoding="utf-8")
    (tmp_path / "secret.txt").write_text("secret\n", encoding="utf-8")
    return folder


def expand(text: str, seed: int = 1, root: Path | None = None) -> str:
    return expand_wildcards(text, seed=seed, root=root)[0]


def test_a_wildcard_is_a_line_of_its_file(root: Path) -> None:
    chosen = {expand("a __animal__!", seed, root) for seed in range(50)}
    assert chosen == {"a cat!", "a dog!", "a bird!"}
    assert expand("__place/city__", 3, root) in {"cat town", "dog town", "bird town"}
    assert list_wildcards(root) == ["animal", "bomb", "empty", "loop", "place/city"]


def test_the_choice_depends_on_the_seed_alone(root: Path) -> None:
    text = "__animal__ {a|b|c} {2$$d|e|f}"
    assert expand(text, 7, root) == expand(text, 7, root)
    assert len({expand(text, seed, root) for seed in range(30)}) > 5
    prompt, negative = (expand_wildcards(text, seed=7, root=root, stream=s)[0] for s in ("prompt", "negative"))
    assert (prompt, negative) == (expand(text, 7, root), negative)


def test_choices_stay_the_same_between_versions() -> None:
    assert [expand("{a|b|c|d}", seed) for seed in range(8)] == ["a", "d", "b", "b", "d", "c", "c", "a"]


def test_variants_may_be_several_weighted_nested_or_empty() -> None:
    assert {expand("{a|b}", seed) for seed in range(30)} == {"a", "b"}
    assert {expand("{2$$a|b}", seed) for seed in range(30)} == {"a, b", "b, a"}
    assert {expand("{a|b|2$$c|d}", seed).count(", ") for seed in range(30)} == {1}
    assert {expand("{2$$ and $$a|b}", seed) for seed in range(30)} == {"a and b", "b and a"}
    assert {len(expand("{1-3$$a|b|c}", seed).split(", ")) for seed in range(60)} == {1, 2, 3}
    assert expand("{9$$a|b}").count(",") == 1
    assert {expand("{0::a|1::b}", seed) for seed in range(30)} == {"b"}
    assert {expand("{a|{b|c}}", seed) for seed in range(60)} == {"a", "b", "c"}
    assert {expand("x{|y}", seed) for seed in range(30)} == {"x", "xy"}


@pytest.mark.parametrize(
    "text", ["{a}", "{{masterpiece}}", "{prompt}", "{a|b", "a|b}", "\\{a|b\\}", "_a_", "__", "____", "__ a__"]
)
def test_what_is_neither_stays_as_it_is(text: str) -> None:
    assert expand_wildcards(text, seed=1) == (text, ())


def test_alternation_inside_a_variant_belongs_to_the_prompt() -> None:
    assert {expand("{[a|b]|c}", seed) for seed in range(30)} == {"[a|b]", "c"}


def test_what_cannot_be_chosen_is_left_and_said(root: Path) -> None:
    text, warnings = expand_wildcards("__animl__ __empty__", seed=1, root=root)
    assert text == "__animl__ __empty__"
    assert 'Did you mean "animal"' in warnings[0].text
    assert "no lines" in warnings[1].text


@pytest.mark.parametrize(
    "name", ["../secret", "..", "place/../../secret", "/etc/passwd", "animal.txt/../../secret", "C:x"]
)
def test_H077_a_wildcard_never_leaves_its_folder(root: Path, name: str) -> None:
    text, _ = expand_wildcards(f"__{name}__", seed=1, root=root)
    assert text == f"__{name}__"


@pytest.mark.timeout(20)
def test_H077_wildcards_that_name_themselves_end(root: Path) -> None:
    text, warnings = expand_wildcards("__loop__", seed=1, root=root)
    assert text.count("x") <= 30
    assert warnings
    text, warnings = expand_wildcards("__bomb__", seed=1, root=root)
    assert len(text) <= 200_000
    assert warnings


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "text", ["{" * 100_000, "{a|" * 20_000 + "}" * 20_000, "_" * 200_000, "__a" * 60_000, "{a|b}" * 40_000]
)
def test_H077_hostile_braces_cost_their_length(root: Path, text: str) -> None:
    assert len(expand_wildcards(text, seed=1, root=root)[0]) <= len(text)


@given(st.text("{}|_$2:[]a ,", max_size=40), st.integers(0, 100))
def test_any_text_expands(text: str, seed: int) -> None:
    first, _ = expand_wildcards(text, seed=seed)
    assert first == expand_wildcards(text, seed=seed)[0]
