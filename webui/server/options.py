"""What the command line decides about the server for one run."""

from __future__ import annotations

from dataclasses import dataclass, field

LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """How to serve. Everything else comes from `webui.settings`.

    host: the address to bind; anything but a loopback name lets others reach the server.
    port: 0 lets the system choose one.
    open_browser: open the page in the system's browser when the server answers.
    theme: "system", "light" or "dark"; "" means the setting `page.theme`.
    cors_origins: web origins, such as "https://example.org", that may call the API from a browser.
    allowed_hosts: host names besides the bound ones under which the server may be addressed (a reverse proxy's).
    access_token: a token of the user's own choice that signs in whoever shows it, as long as there are no accounts.
    auth: (name, password) of administrators for this run, besides those of the users file.
    no_auth: whoever reaches the server may do everything.
    root_path: the sub-path under which a reverse proxy shows the page, such as "/studio".
    trusted_proxies: addresses or networks of reverse proxies whose X-Forwarded headers are believed.
    tls_cert, tls_key: PEM files; with them the server speaks https.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    open_browser: bool = False
    theme: str = ""
    cors_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    access_token: str = field(default="", repr=False)
    auth: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    no_auth: bool = False
    root_path: str = ""
    trusted_proxies: tuple[str, ...] = ()
    tls_cert: str = ""
    tls_key: str = ""

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return self.host in LOOPBACK_HOSTS or self.host.startswith("127.")

    @property
    def behind_proxy(self) -> bool:
        """Whether somebody passes requests on to it, so that a connection from this machine proves nothing."""
        return bool(self.root_path or self.trusted_proxies or self.allowed_hosts)

    @property
    def scheme(self) -> str:
        return "https" if self.tls_cert else "http"
