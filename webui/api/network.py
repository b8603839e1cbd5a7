"""Who one is, and how another device gets here: /me, /network and the link that signs it in."""

from __future__ import annotations

from typing import Protocol

from fastapi import APIRouter, Request, Response

from webui.api.common import ERRORS, NO_STORE
from webui.api.responses import LinkView, NetworkView, ViewerView
from webui.api.viewer import CurrentViewer
from webui.errors import InvalidParams
from webui.identity import Viewer


class Network(Protocol):
    """What is needed of `webui.server.network.Network`."""

    @property
    def open_to_all(self) -> bool: ...

    def signed_in_by_name(self) -> bool: ...

    def address(self, scheme: str, host: str) -> str: ...

    def link(self, address: str, viewer: Viewer) -> str: ...

    def qr(self, text: str) -> str: ...


def network_routes(network: Network) -> APIRouter:
    """The routes of the share dialog."""
    router = APIRouter(tags=["network"], responses=ERRORS)

    def address_for(request: Request) -> str:
        return network.address(request.scope["scheme"], request.headers.get("host", ""))

    @router.get("/me", response_model=ViewerView)
    def me(response: Response, viewer: CurrentViewer) -> ViewerView:
        """Who asks: the name, "" without accounts, and the role."""
        response.headers.update(NO_STORE)
        return ViewerView(name=viewer.name, admin=viewer.admin)

    @router.get("/network", response_model=NetworkView)
    def about(request: Request, response: Response, _: CurrentViewer) -> NetworkView:
        """The page's address for other devices of the network, "" when they cannot reach it."""
        response.headers.update(NO_STORE)
        return NetworkView(
            address=address_for(request), by_name=network.signed_in_by_name(), open_to_all=network.open_to_all
        )

    @router.post("/network/link", response_model=LinkView, status_code=201)
    def link(request: Request, viewer: CurrentViewer) -> LinkView:
        """Make a link that signs another device in as whoever asks: once, within a quarter of an hour."""
        address = address_for(request)
        if not address:
            raise InvalidParams("Other devices cannot reach this server.", "Start it with --listen.")
        made = network.link(address, viewer)
        return LinkView(link=made, qr=network.qr(made))

    return router
