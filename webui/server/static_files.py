"""The files that never change under their address: Gradio's scripts, and our own with their version.

They are served before anything else is asked, from memory, compressed once, and a browser keeps them for good. Gradio
itself would compress each at every request and have it asked for again at every visit.
"""

from __future__ import annotations

import gzip
from functools import lru_cache
from pathlib import Path
from urllib.parse import parse_qs

from webui.errors import NotFound
from webui.paths import safe_path
from webui.server.asgi import App, Receive, Scope, Send, header, respond
from webui.server.frontend import asset_folder
from webui.ui.markup import STATIC, static_version

TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}
FOR_EVER = "public, max-age=31536000, immutable"
_SMALL = 1000  # bytes; below, compressing costs more than it saves


def static_files(app: App) -> App:
    """`app` with `/ui/NAME` and `/assets/NAME` in front of it; what is no such file goes to `app`."""

    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        found = _find(scope) if scope["type"] == "http" and scope.get("method") in ("GET", "HEAD") else None
        if found is None:
            await app(scope, receive, send)
            return
        path, caching = found
        headers = [("cache-control", caching), ("vary", "accept-encoding")]
        info = path.stat()
        plain, zipped = _content(path, info.st_mtime_ns, info.st_size)
        if zipped and "gzip" in header(scope, "accept-encoding"):
            await respond(scope, send, 200, zipped, TYPES[path.suffix], [*headers, ("content-encoding", "gzip")])
        else:
            await respond(scope, send, 200, plain, TYPES[path.suffix], headers)

    return served


def _find(scope: Scope) -> tuple[Path, str] | None:
    """The file that is asked for, and how long a browser may keep it."""
    _, folder, *rest = str(scope["path"]).split("/", 2)
    roots = {"ui": STATIC, "assets": asset_folder()}
    root = roots.get(folder)
    if root is None or not rest:
        return None
    try:
        path = safe_path(root, rest[0])
    except NotFound:
        return None
    if path.suffix not in TYPES:
        return None
    version = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("v", [""])[0]
    fixed = folder == "assets" or version == static_version()  # Gradio's names hold a hash of what is in them
    return path, FOR_EVER if fixed else "no-cache"


@lru_cache(maxsize=512)
def _content(path: Path, _changed: int, _size: int) -> tuple[bytes, bytes]:
    """(the bytes, the same compressed or b"")."""
    plain = path.read_bytes()
    text = path.suffix != ".woff2" and len(plain) >= _SMALL
    return plain, gzip.compress(plain, 6, mtime=0) if text else b""
