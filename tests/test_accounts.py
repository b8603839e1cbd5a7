"""Accounts: hashed passwords in a file that a running server reads again, and that never lets anybody in by mistake."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from webui.accounts import Accounts, hash_password, password_fits
from webui.errors import AccountError, NotFound


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "users.json"


def test_a_password_is_kept_as_a_salted_hash(path: Path) -> None:
    accounts = Accounts(path)
    accounts.add("ann", "correct horse", admin=True)
    accounts.add("bob", "correct horse")
    text = path.read_text()
    assert "correct horse" not in text
    ann, bob = (user["password"] for user in json.loads(text)["users"])
    assert ann.startswith("scrypt$16384$8$1$")
    assert ann != bob
    assert accounts.sign_in("ann", "correct horse").admin  # type: ignore[union-attr]
    assert not accounts.sign_in("bob", "correct horse").admin  # type: ignore[union-attr]
    if os.name == "posix":
        assert path.stat().st_mode & 0o077 == 0


def test_a_wrong_password_and_an_unknown_name_sign_nobody_in(path: Path) -> None:
    accounts = Accounts(path)
    accounts.add("ann", "correct horse")
    for name, password in (("ann", "wrong"), ("ann", ""), ("nobody", "correct horse"), ("", ""), ("ann", "x" * 10**6)):
        assert accounts.sign_in(name, password) is None


def test_a_token_is_shown_once_and_kept_as_a_hash(path: Path) -> None:
    accounts = Accounts(path)
    accounts.add("ann", "correct horse")
    token = accounts.new_token("ann")
    assert token not in path.read_text()
    assert accounts.of_token(token).name == "ann"  # type: ignore[union-attr]
    assert accounts.of_token(token[:-1]) is None
    accounts.add("ann", "another password")
    assert accounts.of_token(token) is not None
    with pytest.raises(NotFound):
        accounts.new_token("nobody")


def test_what_another_process_changes_is_in_force_at_once(path: Path) -> None:
    server, command = Accounts(path), Accounts(path)
    assert not server.exist
    command.add("ann", "correct horse")
    assert server.exist
    assert server.sign_in("ann", "correct horse") is not None
    command.remove("ann")
    assert not server.exist


BAD_NAME = '{"users": [{"name": "a b", "admin": true, "password": "x"}]}'


@pytest.mark.parametrize("text", ["", "{", "[]", '{"users": [{}]}', BAD_NAME, "[" * 9999])
def test_a_file_that_cannot_be_read_lets_nobody_in(path: Path, text: str) -> None:
    path.write_text(text)
    accounts = Accounts(path)
    assert accounts.exist
    assert accounts.list() == []
    with pytest.raises(AccountError):
        accounts.add("ann", "correct horse")
    assert path.read_text() == text


def test_administrators_of_the_command_line_are_in_no_file(path: Path) -> None:
    accounts = Accounts(path, [("root", "for this run")])
    assert accounts.exist
    assert accounts.sign_in("root", "for this run").admin  # type: ignore[union-attr]
    accounts.add("ann", "correct horse")
    assert "root" not in path.read_text()
    assert [account.name for account in accounts.list()] == ["ann", "root"]


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a/b", "../a", "a\nb", "<b>", "x" * 65, ".hidden", "a\0"])
def test_a_name_that_cannot_stand_everywhere_is_refused(path: Path, name: str) -> None:
    with pytest.raises(AccountError):
        Accounts(path).add(name, "correct horse")


@pytest.mark.parametrize("password", ["", "short", "x" * 1025])
def test_a_password_too_short_or_too_long_is_refused(password: str) -> None:
    with pytest.raises(AccountError) as refusal:
        hash_password(password)
    assert not password or password not in str(refusal.value)


@pytest.mark.parametrize("stored", ["", "scrypt", "md5$1$1$1$00$00", "scrypt$99999999$8$1$00$00", "scrypt$a$8$1$00$00"])
def test_a_stored_hash_of_another_kind_fits_no_password(stored: str) -> None:
    assert not password_fits("correct horse", stored)
