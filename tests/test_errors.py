"""Errors cross processes as data and reach terminals, logs and responses as one clean line."""

from __future__ import annotations

import copy
import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webui import errors
from webui.errors import EngineFault, OutOfMemory, WebUIError, error_from_dict, near_matches, printable

ALL = [cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, WebUIError)]


@pytest.mark.parametrize("cls", ALL)
def test_every_error_survives_the_trip_as_plain_data(cls: type[WebUIError]) -> None:
    back = error_from_dict(json.loads(json.dumps(cls("What happened.", "What to do.").to_dict())))
    assert type(back) is cls
    assert (back.message, back.advice) == ("What happened.", "What to do.")
    assert 400 <= back.status < 600


@pytest.mark.parametrize("again", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_a_copy_keeps_the_advice(again: object) -> None:
    error = again(OutOfMemory("Too large.", "Make it smaller."))  # type: ignore[operator]
    assert str(error) == "Too large. Make it smaller."


def test_an_error_of_an_unknown_class_is_a_fault_of_the_engine() -> None:
    assert isinstance(error_from_dict({"error": "os.system", "message": "x"}), EngineFault)
    assert error_from_dict({}).message == ""


@given(st.text(), st.text())
def test_an_error_is_one_line_that_every_terminal_and_response_can_carry(message: str, advice: str) -> None:
    error = WebUIError(message, advice)
    line = str(error)
    assert line.encode("utf-8").decode() == line
    assert len(line.splitlines()) <= 1
    assert not any(ord(character) < 32 or 0x7F <= ord(character) < 0xA0 for character in line)


def test_a_file_name_cannot_paint_the_terminal_or_turn_the_text_around() -> None:
    assert printable("model\x1b[2J\x07.ckpt") == "model\ufffd[2J\ufffd.ckpt"
    assert printable("gnp\u202e.exe") == "gnp\ufffd.exe"
    assert printable("日本語 é 🍎.png") == "日本語 é 🍎.png"


def test_a_message_of_a_megabyte_is_cut() -> None:
    assert len(WebUIError("x" * 10**6).message) == errors.MAX_SENTENCE


def test_near_matches_quote_the_known_spelling_and_are_silent_when_nothing_is_near() -> None:
    assert near_matches("eulr A", ["Euler a", "Heun"]) == 'Did you mean "Euler a"?'
    assert near_matches("zzzz", ["Euler a", "Heun"]) == ""
    assert near_matches("", []) == ""
