"""`app.py users`: add, list, make tokens, remove; and what `serve` makes of its flags about people."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from webui.accounts import Accounts
from webui.cli import main
from webui.cli.serve import credential, network, sub_path
from webui.errors import SettingsError

PASSWORD = "correct horse"


@pytest.fixture
def users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def run(*arguments: str) -> int:
        monkeypatch.setattr("sys.stdin", io.StringIO(PASSWORD + "\n"))
        return main(["users", *arguments, "--data-dir", str(tmp_path)])

    return run


def test_users_are_added_listed_given_tokens_and_removed(
    users, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert users("add", "ann") == 0
    assert users("add", "root", "--admin") == 0
    accounts = Accounts(tmp_path / "users.json")
    assert accounts.sign_in("ann", PASSWORD) is not None
    capsys.readouterr()
    assert users("token", "ann") == 0
    token = capsys.readouterr().out.strip()
    assert accounts.of_token(token).name == "ann"  # type: ignore[union-attr]
    assert users("list") == 0
    assert capsys.readouterr().out == "ann\tuser\t1 API token\nroot\tadmin\t0 API tokens\n"
    assert users("token", "ann", "--revoke") == 0
    assert accounts.of_token(token) is None
    assert users("remove", "ann") == 0
    assert accounts.find("ann") is None


def test_what_cannot_be_done_is_told_without_the_password(users, capsys: pytest.CaptureFixture[str]) -> None:
    assert users("add", "a b") == 1
    assert users("remove", "nobody") == 1
    assert users("token", "nobody") == 1
    told = capsys.readouterr()
    assert PASSWORD not in told.out + told.err


def test_flags_about_people_and_proxies_are_checked_at_the_door() -> None:
    assert credential("ann:a:b") == ("ann", "a:b")
    with pytest.raises(SettingsError) as refusal:
        credential("only-a-secret")
    assert "only-a-secret" not in str(refusal.value)
    assert network("10.1.2.3/16") == "10.1.0.0/16"
    assert sub_path("studio/") == "/studio"
    for wrong in ("proxy.example", "1.2.3", ""):
        with pytest.raises(SettingsError):
            network(wrong)
    with pytest.raises(SettingsError):
        sub_path("../x")
