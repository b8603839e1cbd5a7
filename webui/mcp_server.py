"""An MCP server: a program that speaks the Model Context Protocol can make pictures and search the history.

It runs as a process of its own, speaks over standard input and output, and is a client of a running server like any
other (`webui.client`), with that client's rights. The package `mcp` is optional and is loaded here alone.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from webui.client import Client
from webui.errors import WebUIError

if TYPE_CHECKING:
    from mcp.server.mcpserver import MCPServer

INSTRUCTIONS = (
    "Makes pictures from text with a Stable Diffusion model on this machine, and searches those made before. A prompt"
    " is a list of words and short phrases in the order of their weight, separated by commas."
)
MAX_PICTURES = 4  # of one call; each goes through the conversation
MAX_FOUND = 50


class McpMissing(WebUIError):
    """The optional package is not installed."""


def build(client: Client) -> MCPServer[Any]:
    """The server with its tools. Raises `McpMissing` with what to install."""
    try:
        from mcp.server.mcpserver import Image, MCPServer
        from mcp.server.mcpserver.exceptions import ToolError
    except ImportError:
        raise McpMissing(
            "The package mcp is not installed.", f"Run: {sys.executable} -m pip install -r requirements-mcp.txt"
        ) from None

    server: MCPServer[Any] = MCPServer("latent-webui", title="Latent WebUI", instructions=INSTRUCTIONS)

    def generate(
        prompt: str,
        negative_prompt: str = "",
        width: int | None = None,
        height: int | None = None,
        steps: int = 20,
        seed: int = -1,
        count: int = 1,
        checkpoint: str | None = None,
    ) -> list[Any]:
        """Make pictures from a prompt. Sizes are pixels in multiples of 8; without them the model's own size is taken.
        A seed of -1 draws one; equal seeds give equal pictures. The answer holds the pictures and their seeds."""
        if not 1 <= count <= MAX_PICTURES:
            raise ToolError(f"count must be between 1 and {MAX_PICTURES}.")
        chosen = {"width": width, "height": height, "checkpoint": checkpoint}
        params: dict[str, Any] = {name: value for name, value in chosen.items() if value is not None}
        try:
            made = client.generate(
                prompt, negative_prompt=negative_prompt, steps=steps, seed=seed, batch_count=count, **params
            )
        except WebUIError as error:
            raise ToolError(str(error)) from error
        told = [f"seed {one.seed}, {one.width}x{one.height}" for one in made.job.images]
        told += [f"note: {text}" for text in made.job.warnings]
        images = [Image(data=data, format=_kind(data)) for data in made.pictures]
        return [*images, "\n".join(told)]

    def search_history(query: str = "", limit: int = 20) -> list[dict[str, Any]]:
        """Find pictures made before, the newest first. The query is words of the prompt, and fields such as seed:7,
        model:NAME, size:512x768, date:2026-11 and fav: for favourites; a minus before one excludes it."""
        try:
            found = client.history(query, max(1, min(limit, MAX_FOUND)))
        except WebUIError as error:
            raise ToolError(str(error)) from error
        return [
            {"id": one.id, "prompt": one.prompt, "seed": one.seed, "width": one.width, "height": one.height}
            for one in found
        ]

    def show_picture(picture_id: int) -> list[Any]:
        """One picture of the history, by the id that search_history gave."""
        try:
            data = client.history_file(picture_id)
        except WebUIError as error:
            raise ToolError(str(error)) from error
        return [Image(data=data, format=_kind(data))]

    def list_models() -> list[dict[str, str]]:
        """The models that can be used, for `checkpoint` of generate."""
        try:
            models = client.models()
        except WebUIError as error:
            raise ToolError(str(error)) from error
        return [{"name": model.name, "family": model.family} for model in models if model.runnable]

    for shows in (generate, show_picture):
        server.tool(structured_output=False)(shows)
    for tells in (search_history, list_models):
        server.tool()(tells)
    return server


def serve(client: Client) -> None:
    """Speak over standard input and output until the other side ends. Raises `McpMissing`."""
    build(client).run("stdio")


def _kind(data: bytes) -> str:
    """The format of a picture file, as media types name it."""
    if data[4:8] == b"ftyp":
        return "avif"
    return "png" if data[:4] == b"\x89PNG" else "jpeg" if data[:2] == b"\xff\xd8" else "webp"
