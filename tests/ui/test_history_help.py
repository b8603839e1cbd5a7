"""What the History tab offers for a search is what the search understands, and every script it names is served."""

from __future__ import annotations

import pytest

from webui.history.query import _FIELDS, parse_query
from webui.ui.history import SCRIPTS, SEARCH_FIELDS, SEARCH_WORDS, SearchField, spec
from webui.ui.markup import STATIC


@pytest.mark.parametrize("field", SEARCH_FIELDS, ids=lambda field: field.name)
def test_every_filter_in_the_help_is_understood(field: SearchField) -> None:
    assert field.name in _FIELDS
    assert field.example.startswith(field.name + ":")
    for text in (field.example, *(f"{field.name}:{value}" for value in field.values)):
        query = parse_query(text)
        assert query.problems == ()
        assert len(query.terms) == 1


@pytest.mark.parametrize(("example", "terms"), list(zip((e for e, _ in SEARCH_WORDS), (2, 1, 1), strict=True)))
def test_every_example_of_words_means_what_it_says(example: str, terms: int) -> None:
    query = parse_query(example)
    assert query.problems == ()
    assert len(query.terms) == terms
    assert query.terms[-1].exclude is example.startswith("-")


def test_the_filters_of_the_issue_are_all_offered() -> None:
    offered = {field["name"] for field in spec()["fields"]}
    assert {"model", "sampler", "lora", "seed", "size", "date", "fav", "tag"} <= offered


def test_every_script_of_the_tab_is_there() -> None:
    assert [name for name in SCRIPTS if not (STATIC / name).is_file()] == []
