"""The tokenizer is CLIP's: equal to transformers' on any text."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from webui.paths import PACKAGE_DATA
from webui.prompt import ClipTokenizer, clip_tokenizer
from webui.prompt.tokenizer import BOS, EOS

CORPUS = [
    "",
    " ",
    "a photo of an astronaut riding a horse on mars",
    "masterpiece, best quality, 1girl, (solo:1.2), [[blurry]]",
    "It's the dog's; they'll, we've, I'm, you'd, isn't 'S 'LL",
    "12345 3.14 ½ Ⅷ ٣ 一二三 x² ",
    "İstanbul ẞ ß ŉ ǅ Ω K Å ﬁ ﷺ",
    "e\u0301 é \u1e9b\u0323 \ud55c\uae00 \u1112\u1161\u11ab 日本語 ไทย العربية עברית हिन्दी",
    "👩‍👩‍👧‍👦 🏳️‍🌈 😀😀 ❤️ \u200b\u200d\ufeff \u202e rtl",
    "tab\tnew\nline\r\nfeed\x0bx\x0cy\x1cz\x85 \u00a0 \u3000 \u2028",
    "<|startoftext|>a<|endoftext|>b <|ENDOFTEXT|> <| endoftext |>",
    "\x00\x01\x7f\x80\x9f\ufffd\U0010ffff",
    "http://a.b/c?d=e&f=g#h foo_bar __baz__ C++ C# $100 50% ...!!! ----",
    "supercalifragilisticexpialidocious" * 20,
    "a" * 5000,
    "a\u0301" * 2000,
    "\u0301" * 3000,
    ",".join("abcdefghij"),
]
characters = st.characters(exclude_categories=["Cs"])
texts = st.lists(
    st.text(characters, max_size=12)
    | st.sampled_from([*CORPUS[2:8], "'s", "'re", " ", "\n", ",", "<|endoftext|>", "ab", "THE", "\u0301", "１", "٣"]),
    max_size=8,
).map("".join)


@pytest.fixture(scope="session")
def reference() -> Any:
    from transformers import CLIPTokenizer

    folder = PACKAGE_DATA / "clip"
    return CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)


def encode(reference: Any, text: str) -> list[int]:
    return list(reference(text, add_special_tokens=False, truncation=False, verbose=False)["input_ids"])


@pytest.mark.parametrize("text", CORPUS, ids=range(len(CORPUS)))
def test_equal_to_transformers_on_a_corpus_of_oddities(reference: Any, text: str) -> None:
    assert clip_tokenizer().encode(text) == encode(reference, text)


@settings(max_examples=600, deadline=None)
@given(texts)
def test_equal_to_transformers_on_any_text(reference: Any, text: str) -> None:
    assert clip_tokenizer().encode(text) == encode(reference, text)


def test_the_numbers_of_the_ends_and_the_comma() -> None:
    tokenizer = clip_tokenizer()
    assert (tokenizer.bos, tokenizer.eos) == (BOS, EOS)
    assert tokenizer.encode(",") == [tokenizer.comma] == [267]


def test_a_lone_surrogate_does_not_stop_it() -> None:
    assert clip_tokenizer().encode("a \ud800 b")


@pytest.mark.timeout(30)
@pytest.mark.parametrize("text", ["a" * 1_000_000, " " * 1_000_000, "\U0001f600" * 100_000, "\u0301" * 100_000])
def test_H088_a_long_text_costs_its_length(text: str) -> None:
    assert isinstance(clip_tokenizer().encode(text), list)


def test_a_folder_without_the_vocabulary_is_an_error(tmp_path: Any) -> None:
    with pytest.raises(OSError, match=r"vocab\.json"):
        ClipTokenizer(tmp_path)
