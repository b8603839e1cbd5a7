"""Routes that make new model files: for administrators alone."""

from __future__ import annotations

import dataclasses

from fastapi import APIRouter
from pydantic import BaseModel

from webui.api.common import ERRORS, JsonBody, fields_of
from webui.api.viewer import AdminOnly
from webui.jobs.model_tools import ModelTools


class ToolView(BaseModel):
    """What runs or ran last: its last words, its exit code when it is done, the new file's name."""

    running: bool
    lines: list[str]
    code: int | None
    output: str


def model_tool_routes(tools: ModelTools) -> APIRouter:
    """/models/tools."""
    router = APIRouter(tags=["catalog"], responses=ERRORS, dependencies=[AdminOnly])

    @router.get("/models/tools", response_model=ToolView)
    def state() -> ToolView:
        """What runs, or how it ended."""
        return ToolView(**dataclasses.asdict(tools.state))

    @router.post("/models/tools", response_model=ToolView)
    def start(body: JsonBody) -> ToolView:
        """Merge, prune or convert: `{"tool": "merge", "a": ..., "b": ..., "method": "slerp", "alpha": 0.5, ...}`.

        `output` is the new file's name in the checkpoint folder, `c` the third model of add-difference, `vae` one to
        put inside, `precision` fp16, bf16, fp32 or keep. Convert takes a .ckpt file as `a` and lays the new one beside
        it where no `output` is given.
        """
        return ToolView(**dataclasses.asdict(tools.start(fields_of(body))))

    return router
