"""The API's description as one plain page: routes by group, their fields, an example to copy. No script, no network."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html import escape
from typing import Any

GROUPS = {
    "jobs": "Jobs: queue, follow and steer them",
    "inputs": "Pictures to start from",
    "pictures": "Finished pictures",
    "catalog": "Models and the state of the engine",
    "prompts": "Styles, completion, tokens, parameters texts",
    "history": "The history",
    "network": "Sign-in and the link for other devices",
    "sdapi": "/sdapi/v1: for clients of AUTOMATIC1111",
    "openai": "/v1: for clients of OpenAI's image route",
}
MAX_FIELDS = 200
_EXAMPLE_ADDRESS = "http://127.0.0.1:7860"
_CODE = re.compile(r"`([^`<>]{1,200})`")
_PLACE = re.compile(r"\{(\w+)\}")
_TAIL = "".join(("</main>", "</body>", "</html>"))


def docs_page(schema: dict[str, Any]) -> str:
    """The page for an OpenAPI description."""
    groups: dict[str, list[str]] = {name: [] for name in GROUPS}
    for path, methods in schema["paths"].items():
        for method, route in methods.items():
            tag = str((route.get("tags") or ["other"])[0])
            groups.setdefault(tag, []).append(_route(method, path, route, schema))
    shown = {tag: routes for tag, routes in groups.items() if routes}
    contents = "".join(f'<li><a href="#{escape(tag)}">{escape(_title(tag))}</a></li>' for tag in shown)
    body = "".join(
        f'<h2 class="group" id="{escape(tag)}">{escape(_title(tag))}</h2>{"".join(routes)}'
        for tag, routes in shown.items()
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>API · Latent WebUI</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="stylesheet" href="ui/style.css"></head><body class="docs-page"><main><h1>API of Latent WebUI</h1>'
        '<p>For programs: <a href="openapi.json">openapi.json</a>. Requests from other machines carry the access token'
        " (<code>Authorization: Bearer TOKEN</code>) or a user and password (HTTP Basic).</p>"
        f"<ul>{contents}</ul>{body}{_TAIL}"
    )


def _title(tag: str) -> str:
    return GROUPS.get(tag, tag.capitalize())


def _route(method: str, path: str, route: dict[str, Any], schema: dict[str, Any]) -> str:
    about = "".join(f"<p>{_text(part)}</p>" for part in str(route.get("description", "")).split("\n\n") if part)
    rows = [
        (p["name"], p["in"], _kind(p.get("schema", {})), p.get("description", "")) for p in route.get("parameters", ())
    ]
    body = _body(route)
    rows += [(name, "body", _kind(field), _default(field)) for name, field in _fields(body, schema)]
    table = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{escape(where)}</td><td>{escape(kind)}</td>"
        f"<td>{escape(note)}</td></tr>"
        for name, where, kind, note in rows[:MAX_FIELDS]
    )
    details = (
        f"<details><summary>{len(rows)} field{'' if len(rows) == 1 else 's'}</summary><table>{table}</table></details>"
        if rows
        else ""
    )
    return (
        f"<section><h3><code>{method.upper()} {escape(path)}</code></h3>{about}{details}"
        f"<pre>{escape(_example(method, path, body, schema))}</pre></section>"
    )


def _text(words: str) -> str:
    """Words of a docstring, with what stands between backticks as code."""
    return _CODE.sub(r"<code>\1</code>", escape(words))


def _body(route: dict[str, Any]) -> dict[str, Any]:
    """The content entry of the JSON body, or of bytes where there is none, {} without a body."""
    content = route.get("requestBody", {}).get("content", {})
    found: dict[str, Any] = content.get("application/json") or next(iter(content.values()), {})
    return {**found, "binary": bool(content) and "application/json" not in content} if found else {}


def _resolved(part: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    name = str(part.get("$ref", "")).rpartition("/")[2]
    found: dict[str, Any] = schema.get("components", {}).get("schemas", {}).get(name, {}) if name else part
    return found


def _fields(body: dict[str, Any], schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from _resolved(body.get("schema", {}), schema).get("properties", {}).items()


def _kind(field: dict[str, Any]) -> str:
    """A field's type and bounds, in a few words."""
    options = field.get("anyOf", [field])
    words = []
    for option in options:
        name = str(option.get("type") or str(option.get("$ref", "")).rpartition("/")[2] or "any")
        if name == "null":
            continue
        if "enum" in option:
            name = " | ".join(map(str, option["enum"]))
        low, high = option.get("minimum", option.get("exclusiveMinimum")), option.get("maximum")
        if low is not None or high is not None:
            name += f" {'' if low is None else f'{low:g}'}..{'' if high is None else f'{high:g}'}"
        words.append(name)
    return " or ".join(words)


def _default(field: dict[str, Any]) -> str:
    default = field.get("default")
    note = str(field.get("description", ""))
    told = "" if default is None or default in ("", {}, []) else f"default {json.dumps(default)}"
    return "; ".join(part for part in (told, note) if part)


def _example(method: str, path: str, body: dict[str, Any], schema: dict[str, Any]) -> str:
    """A line for the shell."""
    address = _EXAMPLE_ADDRESS + _PLACE.sub(lambda found: found[1].upper(), path)
    if method == "get":
        return f"curl -N {address}" if path.endswith("/events") else f"curl {address}"
    if body.get("binary"):
        return f"curl -X POST {address} --data-binary @picture.png"
    example = body.get("example") or _resolved(body.get("schema", {}), schema).get("example")
    if example is None:
        return f"curl -X POST {address}" + (" -H 'content-type: application/json' -d '{...}'" if body else "")
    return f"curl -X POST {address} -H 'content-type: application/json' \\\n  -d '{json.dumps(example)}'"
