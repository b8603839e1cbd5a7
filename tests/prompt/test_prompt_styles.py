"""Styles: the CSV that users have is read whatever state it is in, merged, saved in one step, recognised again."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webui.errors import InvalidParams
from webui.prompt import Style, apply_styles, find_styles, read_styles, recognise, save_styles, shown_name
from webui.prompt.styles import MAX_FILE_SIZE

FILM = Style("Film", "film still, {prompt}, 35mm", "cartoon")
SHARP = Style("Sharp", "sharp focus", "blurry")


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_styles_wrap_or_follow_the_prompt_in_their_order() -> None:
    prompt, negative = apply_styles("a cat", "", [FILM, SHARP])
    assert prompt == "film still, a cat, 35mm, sharp focus"
    assert negative == "cartoon, blurry"
    assert apply_styles("", "x", [SHARP]) == ("sharp focus", "x, blurry")
    assert apply_styles("a", "b", [Style("Empty")]) == ("a", "b")


def test_a_saved_file_reads_back_and_the_one_before_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "styles.csv"
    styles = [Style('Ä, "quoted"', "two\nlines, {prompt}", "n"), Style("=1+1", "-x", "@y")]
    save_styles(path, [SHARP])
    save_styles(path, styles)
    read, problems = read_styles([path])
    assert problems == []
    assert [(s.name, s.prompt, s.negative_prompt) for s in read] == [
        (s.name, s.prompt, s.negative_prompt) for s in styles
    ]
    assert read_styles([tmp_path / "styles.csv.bak"])[0][0].name == "Sharp"


def test_several_files_are_one_list_and_the_later_wins(tmp_path: Path) -> None:
    first = write(tmp_path / "a.csv", "\ufeffname,prompt,negative_prompt\nA,one,\nB,two,\n")
    second = write(tmp_path / "b.csv", "name,text\nB,three\n#hidden,x\n,nameless\n")
    styles, problems = read_styles([first, tmp_path / "missing.csv", second])
    assert [(s.name, s.prompt, Path(s.source).name) for s in styles] == [("A", "one", "a.csv"), ("B", "three", "b.csv")]
    assert problems == []


def test_styles_of_a_pasted_prompt_are_recognised_and_taken_out() -> None:
    prompt, negative = apply_styles("a cat", "ugly", [FILM, SHARP])
    assert recognise(prompt, negative, [SHARP, FILM]) == (["Film", "Sharp"], "a cat", "ugly")
    assert recognise("a cat, 35mm", "", [FILM, SHARP]) == ([], "a cat, 35mm", "")
    assert recognise("sharp focus", "blurry", [SHARP]) == (["Sharp"], "", "")
    assert recognise("unsharp focus", "blurry", [SHARP]) == ([], "unsharp focus", "blurry")


words = st.text("abc ,", max_size=12).map(str.strip)


@given(words, words, st.lists(st.sampled_from([FILM, SHARP]), unique=True))
def test_recognition_undoes_application(prompt: str, negative: str, chosen: list[Style]) -> None:
    merged = apply_styles(prompt, negative, chosen)
    names, *rest = recognise(*merged, [FILM, SHARP])
    assert apply_styles(rest[0], rest[1], find_styles(names, [FILM, SHARP])) == tuple(part.strip() for part in merged)


def test_an_unknown_style_is_named_with_near_matches() -> None:
    with pytest.raises(InvalidParams) as caught:
        find_styles(["Shrap"], [FILM, SHARP])
    assert "Sharp" in caught.value.advice
    with pytest.raises(InvalidParams):
        find_styles(["__proto__"], [FILM])


@pytest.mark.timeout(20)
def test_H094_a_style_that_doubles_the_prompt_is_stopped_and_lists_are_bounded() -> None:
    doubling = Style("2", "{prompt}{prompt}")
    with pytest.raises(InvalidParams, match="longer than 200,000"):
        apply_styles("a", "", [doubling] * 100)
    with pytest.raises(InvalidParams, match="More than 1000 styles"):
        apply_styles("a", "", [SHARP] * 100_000)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\0\0",
        b'name,prompt\nA,"unclosed\nB,two\n',
        b"name,prompt\n" + b"x," * 100_000 + b"\nB,two\n",
        b"name,prompt\nA," + b"y" * 300_000 + b"\nB,two\n",
        b"\xff\xfe\x00name",
        b"colour,taste\nred,sweet\n",
        b"name\n" * 1000,
        b"x" * (MAX_FILE_SIZE + 1),
    ],
)
def test_H116_a_broken_styles_file_gives_what_can_be_read_and_a_sentence(tmp_path: Path, content: bytes) -> None:
    path = write(tmp_path / "styles.csv", content)
    styles, problems = read_styles([path])
    assert len(styles) <= 2
    assert all(problem.startswith("styles.csv") for problem in problems)


def test_H116_a_formula_is_text(tmp_path: Path) -> None:
    path = write(tmp_path / "styles.csv", "name,prompt,negative_prompt\n\"=cmd|'/c calc'!A1\",@SUM(1),+1\n")
    (style,), _ = read_styles([path])
    assert (style.name, style.prompt, style.negative_prompt) == ("=cmd|'/c calc'!A1", "@SUM(1)", "+1")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="where names may be any bytes")
def test_a_file_whose_name_is_no_text_is_named_escaped(tmp_path: Path) -> None:
    file = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.csv"))
    file.write_text("prompt\nx\n")
    assert shown_name(file) == r"\udcff.csv"
    assert read_styles([file])[1] == [r'\udcff.csv has no column "name"; its styles were not read.']
