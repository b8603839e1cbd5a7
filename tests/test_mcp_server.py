"""MCP is optional: what happens where the package is missing, and what its command accepts."""

from __future__ import annotations

import sys

import pytest

from webui.cli import main
from webui.cli.remote import credentials
from webui.client import Client
from webui.errors import InvalidParams
from webui.mcp_server import McpMissing, build


def test_without_the_package_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name == "mcp" or name.startswith("mcp.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mcp", None)
    with pytest.raises(McpMissing, match=r"requirements-mcp\.txt"):
        build(Client())
    assert main(["mcp", "--url", "http://127.0.0.1:9"]) == 1
    assert "pip install -r requirements-mcp.txt" in capsys.readouterr().err


@pytest.mark.parametrize("url", ["http://127.0.0.1:abc", "http://[", "http://127.0.0.1:99999", "127.0.0.1", "http://"])
def test_what_is_no_address_is_told(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["caches", "list", "--url", url]) == 1
    assert "is not an address. Write it like http://127.0.0.1:7860." in capsys.readouterr().err


def test_a_user_and_a_password_are_told_apart_at_the_first_colon() -> None:
    assert credentials("") == {}
    assert credentials("anna:se:cret") == {"user": "anna", "password": "se:cret"}
    for wrong in ("anna", ":secret"):
        with pytest.raises(InvalidParams):
            credentials(wrong)
