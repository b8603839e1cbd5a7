"""The files under /ui and /assets: the right ones, compressed once, kept by browsers."""

from __future__ import annotations

import gzip
import re

import pytest
from asgi_client import ask, hello

from webui.server import frontend
from webui.server.frontend import asset_folder, needed_assets
from webui.server.start_page import page_files, start_page
from webui.server.static_files import static_files
from webui.ui.markup import STATIC, static_version

APP = static_files(hello)


def test_our_files_are_kept_as_long_as_they_are_the_same() -> None:
    current = ask(APP, path="/ui/style.css", query=f"v={static_version()}", headers={"accept-encoding": "gzip, br"})
    assert current.headers["content-type"].startswith("text/css")
    assert "immutable" in current.headers["cache-control"]
    assert gzip.decompress(current.body) == (STATIC / "style.css").read_bytes()
    old = ask(APP, path="/ui/style.css", query="v=old")
    assert old.headers["cache-control"] == "no-cache"
    assert old.body == (STATIC / "style.css").read_bytes()
    assert ask(APP, "HEAD", "/ui/style.css").body == b""


@pytest.mark.parametrize(
    "path",
    [
        "/ui/..%2fpage.py",
        "/ui/../page.py",
        "/ui/missing.js",
        "/ui/.hidden",
        "/ui",
        "/ui/",
        "/ui/..\\page.py",
        "/uix/a.js",
    ],
)
def test_what_is_no_file_of_ours_goes_to_the_app(path: str) -> None:
    assert ask(APP, path=path).body == b"hello"


def test_only_reading_is_served() -> None:
    assert ask(APP, "POST", "/ui/style.css").body == b"hello"


def test_every_script_that_the_page_needs_is_found_before_gradio_is_imported() -> None:
    """Read from Gradio's own files, whose layout may change: then this list must follow."""
    folder = asset_folder()
    assert folder is not None
    names = needed_assets()
    assert len(names) > 40
    assert names[0].startswith("index-")
    for script in [name for name in names if name.endswith(".js")]:  # what a file of the list imports is in it
        text = (folder / script).read_text(encoding="utf-8")
        static = set(re.findall(r"""(?:from|import)\s*["'`]\./([\w.-]+\.js)["'`]""", text))
        assert static <= set(names), script
    for name in names:
        answer = ask(APP, path=f"/assets/{name}")
        assert answer.status == 200
        assert "immutable" in answer.headers["cache-control"]
        assert answer.body == (folder / name).read_bytes()


def test_the_start_page_has_the_browser_fetch_them() -> None:
    page = start_page()
    for address in page_files():
        assert f'<link rel="prefetch" href="{address}">' in page
        path, _, query = f"/{address}".partition("?")
        assert ask(APP, path=path, query=query).status == 200


@pytest.mark.parametrize("entry", ["", "<script src='./assets/index-x.js'></script>", "assets/index-made.js"])
def test_a_gradio_that_is_laid_out_otherwise_costs_only_the_head_start(
    entry: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    assets = tmp_path_factory.mktemp("frontend") / "assets"
    assets.mkdir()
    (assets.parent / "index.html").write_text(entry)
    (assets / "index-made.js").write_text('m.f=["./core-a.js"]; import(`./core-a.js`),__vite__mapDeps([7])')
    monkeypatch.setattr(frontend, "asset_folder", lambda: assets)
    assert needed_assets.__wrapped__() == ()
