"""How other devices get to this server, for the dialog "Share on this network" and for the terminal."""

from __future__ import annotations

from webui.accounts import Accounts
from webui.identity import Viewer
from webui.server.access import is_loopback
from webui.server.addresses import shared_address
from webui.server.guards import split_host
from webui.server.links import OneTimeLinks, qr_svg
from webui.server.options import LOOPBACK_HOSTS, ServeOptions

LINK_SECONDS = 15 * 60


class Network:
    """What `webui.api.network` tells and makes."""

    def __init__(self, options: ServeOptions, port: int, accounts: Accounts, links: OneTimeLinks) -> None:
        self._options = options
        self._links = links
        self.port = port
        self.accounts = accounts

    @property
    def open_to_all(self) -> bool:
        """Whether nobody is asked who they are."""
        return self._options.no_auth

    def signed_in_by_name(self) -> bool:
        return self.accounts.exist and not self._options.no_auth

    def address(self, scheme: str, host: str) -> str:
        """The page's address for other devices, "" when they cannot reach it.

        `scheme` and `host` are those of the request. Where they lead here through a name or a proxy, they are the
        answer; whoever uses the page on this machine itself gets the address of the network.
        """
        split = split_host(host)
        here = split is None or split[0] in LOOPBACK_HOSTS or is_loopback(split[0])
        base = shared_address(self._options, self.port) if here else f"{scheme}://{host}"
        return f"{base}{self._options.root_path}/" if base else ""

    def link(self, address: str, viewer: Viewer) -> str:
        """An address that signs another device in as the same viewer: once, within a quarter of an hour."""
        if self.open_to_all:
            return address
        return f"{address}?token={self._links.make(viewer.name, LINK_SECONDS)}"

    def qr(self, text: str) -> str:
        """The text as a QR code, in SVG."""
        return qr_svg(text)
