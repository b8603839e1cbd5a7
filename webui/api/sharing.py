"""Links to single pictures: made, listed and ended by their owner, and what people see who have one."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from fastapi import APIRouter, Response

from webui import pictures
from webui.api.common import NO_STORE
from webui.api.history_responses import Changed, PictureId, SharedView, ShareMade, ShareRequest, ShareView, params_of
from webui.api.pictures import PICTURE, picture_response
from webui.api.viewer import CurrentViewer
from webui.history.store import History
from webui.history.thumbnails import read_picture


def sharing_routes(history: History) -> APIRouter:
    """Below /history/ID for whoever makes links, and /shared/TOKEN for whoever has one."""
    router = APIRouter()

    @router.post("/history/{picture_id}/share", status_code=201)
    def share(picture_id: PictureId, body: ShareRequest, viewer: CurrentViewer) -> ShareMade:
        """Make a link to the picture that works without an account, until it is ended."""
        made = history.share(viewer.scope, picture_id, days=body.days, with_parameters=body.with_parameters)
        return ShareMade(id=made.id, path=f"shared/{made.token}", expires=made.expires)

    @router.get("/history/{picture_id}/shares")
    def shares(picture_id: PictureId, response: Response, viewer: CurrentViewer) -> list[ShareView]:
        """The picture's links that are in force."""
        response.headers.update(NO_STORE)
        return [ShareView(**asdict(one)) for one in history.shares(viewer.scope, picture_id)]

    @router.post("/history/shares/{share_id}/revoke")
    def revoke(share_id: PictureId, viewer: CurrentViewer) -> Changed:
        """End a link."""
        history.revoke(viewer.scope, share_id)
        return Changed(changed=1)

    @router.get("/shared/{token}")
    def shared(token: str, response: Response) -> SharedView:
        """What a link shows. Needs no account: the token is the right to see it."""
        response.headers.update(NO_STORE)
        picture, with_parameters = history.shared(token)
        record = picture.record
        return SharedView(
            picture=f"shared/{token}/picture",
            width=record.width,
            height=record.height,
            created=record.created,
            infotext=record.infotext if with_parameters else "",
            params=params_of(picture) if with_parameters else None,
        )

    @router.get("/shared/{token}/picture", response_class=Response, responses=PICTURE)
    def shared_picture(token: str) -> Response:
        """The shared picture; without the text inside it when the parameters were not shared."""
        path, with_parameters = history.shared_file(token)
        if with_parameters:
            response = picture_response(path)
            response.headers.update(NO_STORE)
            return response
        return Response(_without_text(path), media_type="image/png", headers=NO_STORE)

    return router


def _without_text(path: Path) -> bytes:
    with pictures.opened(read_picture(path)) as image:
        return pictures.encode(pictures.without_stealth(image), "png")
