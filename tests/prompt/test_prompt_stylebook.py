"""Styles are edited one row at a time; everything else in their files stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from webui.errors import InvalidParams, NotFound, SaveError
from webui.paths import Paths
from webui.prompt import Style, StyleBook

CSV = "\ufeffname,prompt,negative_prompt,mood\n# old,x,y,\nPhoto,photo of {prompt},blurry,calm\n\nInk,ink,,\n"


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths.under(tmp_path)
    paths.styles_file.write_text(CSV, encoding="utf-8")
    (tmp_path / "styles").mkdir()
    (tmp_path / "styles" / "more.csv").write_text("name,prompt,negative_prompt\nNight,at night,\nInk,chinese ink,\n")
    return paths


@pytest.fixture
def book(paths: Paths) -> StyleBook:
    return StyleBook(paths.styles_files, paths.styles_file)


def names(book: StyleBook) -> list[str]:
    return [style.name for style in book.read()[0]]


def test_all_files_are_read_and_a_later_one_wins(book: StyleBook) -> None:
    assert names(book) == ["Photo", "Ink", "Night"]
    assert book.apply("a", "", ["Ink"]) == ("a, chinese ink", "")


def test_a_new_style_goes_into_the_first_file_and_the_old_file_stays_as_backup(book: StyleBook, paths: Paths) -> None:
    book.save(Style("  Two\n words ", 'say "hi",\nthen', "dark"))
    assert names(book) == ["Photo", "Ink", "Two words", "Night"]
    text = paths.styles_file.read_text(encoding="utf-8-sig")
    assert "# old,x,y," in text
    assert "Photo,photo of {prompt},blurry,calm" in text
    assert paths.styles_file.with_name("styles.csv.bak").read_text(encoding="utf-8") == CSV


def test_files_of_the_user_win_and_the_first_takes_new_styles(paths: Paths, tmp_path: Path) -> None:
    old = tmp_path / "old webui"
    old.mkdir()
    for name, text in (("b.csv", "Ink,from b,"), ("a.csv", "Ink,from a,"), ("mine.csv", "Chalk,chalk,")):
        (old / name).write_text(f"name,prompt,negative_prompt\n{text}\n")
    given = Paths.under(paths.data_dir, styles=(old / "?.csv", old / "mine.csv", old / "not-yet.csv"))
    book = StyleBook(given.styles_files, given.styles_file)
    assert names(book) == ["Photo", "Ink", "Night", "Chalk"]
    assert book.apply("x", "", ["Ink"]) == ("x, from b", "")
    book.save(Style("New", "new"))
    assert "New,new," in (old / "mine.csv").read_text()
    assert "New" not in paths.styles_file.read_text()


def test_a_style_is_changed_where_it_is_and_other_columns_stay(book: StyleBook, paths: Paths) -> None:
    book.save(Style("Portrait", "portrait of {prompt}"), before="Photo")
    assert "Portrait,portrait of {prompt},,calm" in paths.styles_file.read_text()
    book.save(Style("Night", "by night"), before="Night")
    assert "by night" in (paths.data_dir / "styles" / "more.csv").read_text()
    assert names(book) == ["Portrait", "Ink", "Night"]


def test_a_deleted_style_can_be_written_again(book: StyleBook) -> None:
    gone = book.delete("Photo")
    assert names(book) == ["Ink", "Night"]
    book.save(gone)
    assert "Photo" in names(book)
    with pytest.raises(NotFound):
        book.delete("nothing")


def test_names_that_cannot_be_are_refused(book: StyleBook) -> None:
    for name in ("", "  ", "# note", "x" * 300):
        with pytest.raises(InvalidParams):
            book.save(Style(name, "x"))
    with pytest.raises(InvalidParams, match="already"):
        book.save(Style("Photo", "x"))
    with pytest.raises(InvalidParams, match="already"):
        book.save(Style("Photo", "x"), before="Ink")
    with pytest.raises(NotFound):
        book.save(Style("New", "x"), before="gone")


def test_a_file_that_cannot_be_read_in_full_is_never_written_over(paths: Paths, book: StyleBook) -> None:
    paths.styles_file.write_bytes(b"name,prompt\nA,\xff\xfe\n")
    with pytest.raises(SaveError):
        book.save(Style("B", "x"))
    assert paths.styles_file.read_bytes() == b"name,prompt\nA,\xff\xfe\n"


def test_a_file_changed_by_another_program_is_read_again(paths: Paths, book: StyleBook) -> None:
    assert "Late" not in names(book)
    paths.styles_file.write_text(CSV + "Late,later,\n", encoding="utf-8")
    assert "Late" in names(book)


def test_a_style_that_the_prompt_holds_already_is_not_added_again(book: StyleBook) -> None:
    once = book.apply("a cat", "dark", ["Photo", "Night"])
    assert once == ("photo of a cat, at night", "dark, blurry")
    assert book.apply(*once, ["Photo", "Night"]) == once
    names, *plain = book.recognise(*once)
    assert (sorted(names), plain) == (["Night", "Photo"], ["a cat", "dark"])
    assert book.apply("a cat", "dark", names) == once  # in the order found, which need not be the one applied
