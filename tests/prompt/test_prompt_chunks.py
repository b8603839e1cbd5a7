"""Chunks of 75 tokens: padding, BREAK, the comma backtrack, embeddings, and what the counter shows."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from webui.prompt import Chunk, EmbeddingNames, PlacedEmbedding, chunk_text, clip_tokenizer, count_tokens
from webui.prompt.limits import MAX_CHUNKS
from webui.prompt.tokenizer import BOS, EOS

TOKENIZER = clip_tokenizer()
WORD = TOKENIZER.encode("cat")[0]
COMMA = TOKENIZER.comma


def chunks(text: str, **options: object) -> list[Chunk]:
    return chunk_text(text, TOKENIZER, **options)  # type: ignore[arg-type]


def body(chunk: Chunk) -> list[int]:
    """The tokens before the padding."""
    ids = list(chunk.ids[1:-1])
    while ids and ids[-1] == EOS:
        ids.pop()
    return ids


def cats(count: int) -> str:
    return " ".join(["cat"] * count)


def test_an_empty_prompt_is_one_chunk_of_padding() -> None:
    assert chunks("") == [Chunk((BOS, *[EOS] * 76), (1.0,) * 77)]


def test_a_short_prompt_is_padded_with_eos_or_for_openclip_with_zero_after_it() -> None:
    assert chunks("cat")[0].ids == (BOS, WORD, *[EOS] * 75)
    assert chunks("cat", pad=0)[0].ids == (BOS, WORD, EOS, *[0] * 74)


@pytest.mark.parametrize(("words", "sizes"), [(75, [75]), (76, [75, 1]), (150, [75, 75]), (151, [75, 75, 1])])
def test_H088_a_prompt_is_cut_after_75_tokens(words: int, sizes: list[int]) -> None:
    assert [len(body(chunk)) for chunk in chunks(cats(words))] == sizes


def test_weights_stand_beside_their_tokens_and_the_ends_weigh_one() -> None:
    (chunk,) = chunks("cat (cat:1.5) [cat]")
    assert chunk.weights[:5] == (1.0, 1.0, 1.5, pytest.approx(1 / 1.1), 1.0)
    assert chunks("(cat:1.5)", emphasis="Ignore")[0].weights == (1.0,) * 77
    assert body(chunks("(cat)", emphasis="None")[0]) == TOKENIZER.encode("(cat)")


def test_break_ends_a_chunk_also_inside_brackets() -> None:
    assert [body(chunk) for chunk in chunks("cat BREAK cat")] == [[WORD], [WORD]]
    assert [body(chunk) for chunk in chunks("(cat BREAK cat:1.2)")] == [[WORD], [WORD]]
    assert [len(body(chunk)) for chunk in chunks("cat BREAK BREAK cat")] == [1, 0, 1]
    assert len(chunks("(cat BREAK cat:1.2)", compatible=True)) == 1


def test_a_phrase_that_would_be_cut_moves_to_the_next_chunk() -> None:
    text = f"{cats(60)}, {cats(20)}"
    assert [len(body(chunk)) for chunk in chunks(text)] == [61, 20]
    assert [len(body(chunk)) for chunk in chunks(text, comma_backtrack=0)] == [75, 6]
    assert [len(body(chunk)) for chunk in chunks(text, comma_backtrack=14)] == [75, 6]
    assert [len(body(chunk)) for chunk in chunks(text, comma_backtrack=15)] == [61, 20]


def test_weights_move_with_their_phrase() -> None:
    second = chunks(f"{cats(60)}, ({cats(20)}:1.3)")[1]
    assert second.weights[1:21] == (1.3,) * 20


def test_a_comma_right_after_a_full_chunk_opens_the_next() -> None:
    first, second = chunks(f"{cats(70)}, {cats(4)}, cat")
    assert len(body(first)) == 75
    assert body(second)[0] == COMMA


def test_an_embedding_is_placed_whole_and_the_longest_name_wins() -> None:
    names = EmbeddingNames({"bad": 2, "bad hands": 3, "": 4, "huge": 500}, TOKENIZER)
    (chunk,) = chunks("cat, (BAD hands:1.2), bad", embeddings=names)
    assert chunk.embeddings == (PlacedEmbedding(3, "bad hands", 3), PlacedEmbedding(7, "bad", 2))
    assert chunk.ids[3:6] == (0, 0, 0)
    assert chunk.weights[3:6] == (1.2,) * 3
    first, second = chunks(f"{cats(73)} bad hands", embeddings=names)
    assert len(body(first)) == 73
    assert second.embeddings == (PlacedEmbedding(1, "bad hands", 3),)


def test_an_embedding_after_the_comma_moves_with_its_phrase() -> None:
    names = EmbeddingNames({"bad": 2}, TOKENIZER)
    first, second = chunks(f"{cats(60)}, bad {cats(20)}", embeddings=names)
    assert first.embeddings == ()
    assert second.embeddings == (PlacedEmbedding(1, "bad", 2),)


def test_H093_an_embedding_named_like_a_regular_expression_is_a_name() -> None:
    names = EmbeddingNames({"(.*)+$": 1, "a|b": 1}, TOKENIZER)
    assert chunks("cat cat", embeddings=names)[0].embeddings == ()
    assert len(chunks("a|b", embeddings=names)[0].embeddings) == 1


@pytest.mark.timeout(30)
def test_H091_a_thousand_breaks_are_cut_at_the_limit() -> None:
    assert len(chunks("a BREAK " * 1000)) == MAX_CHUNKS


pieces = st.lists(st.sampled_from(["cat", ",", "BREAK", "(", ")", ":1.2)", "dog house", "[", "]", "😀"]), max_size=120)


@settings(max_examples=60, deadline=None)
@given(pieces.map(" ".join), st.sampled_from([0, 5, 20, 74]), st.sampled_from(["Original", "Ignore", "None"]))
def test_every_chunk_has_77_places_and_no_token_is_lost(text: str, backtrack: int, emphasis: str) -> None:
    found = chunks(text, comma_backtrack=backtrack, emphasis=emphasis)
    assert all(len(chunk.ids) == len(chunk.weights) == 77 for chunk in found)
    assert all(chunk.ids[0] == BOS and chunk.ids[-1] == EOS for chunk in found)
    assert all(chunk.weights[0] == chunk.weights[-1] == 1.0 for chunk in found)
    uncut = [token for chunk in chunks(text, comma_backtrack=0, emphasis=emphasis) for token in body(chunk)]
    assert [token for chunk in found for token in body(chunk)] == uncut


# --- the counter -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", (0, 75)),
        ("cat", (1, 75)),
        (cats(75), (75, 75)),
        (cats(76), (76, 150)),
        ("cat BREAK cat", (76, 150)),
        ("cat <lora:x:1> # comment", (1, 75)),
        ("(cat:1.2)", (1, 75)),
        ("cat AND cat dog", (2, 75)),
        ("[cat:cat dog bird:5]", (3, 75)),
        ("[cat|dog bird]", (2, 75)),
        (f"{cats(60)}, {cats(20)}", (95, 150)),
    ],
)
def test_the_counter_shows_the_longest_of_what_will_be_encoded(text: str, expected: tuple[int, int]) -> None:
    assert count_tokens(text, TOKENIZER) == expected
