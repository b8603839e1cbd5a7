"""What the command line decides about the server for one run."""

from __future__ import annotations

from dataclasses import dataclass

LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """How to serve. Everything else comes from `webui.settings`.

    host: the address to bind; anything but a loopback name asks remote peers for the access token.
    port: 0 lets the system choose one.
    api: also offer the interactive API description at /docs.
    open_browser: open the page in the system's browser when the server answers.
    theme: "system", "light" or "dark"; "" means the setting `page.theme`.
    cors_origins: web origins, such as "https://example.org", that may call the API from a browser.
    allowed_hosts: host names besides the bound ones under which the server may be addressed (a reverse proxy's).
    access_token: the token that remote peers show; "" draws a new one at each start.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    api: bool = False
    open_browser: bool = False
    theme: str = ""
    cors_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    access_token: str = ""

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return self.host in LOOPBACK_HOSTS or self.host.startswith("127.")
