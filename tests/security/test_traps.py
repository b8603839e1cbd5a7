"""The five traps of the page's framework (A0), the order of the guards (A4), and the door in front of every route.

A new version of the framework can open any of them again, so each has its test here for good.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asgi_client import Answer, ask
from faces import as_viewer

from webui.accounts import Accounts
from webui.identity import Viewer
from webui.server.access import Access
from webui.server.boot import guarded
from webui.server.links import OneTimeLinks
from webui.server.options import ServeOptions
from webui.server.sessions import Sessions

PEER = "192.168.1.20"
HOST = "192.168.1.5:7860"
PASSWORD = "correct horse"
LONG_BASIC = "Basic " + "A" * 10**7
FOREIGN = ["evil.example", "evil.example:7860", "192.168.1.5.evil.example", "", "a/b", "[::1", "x@192.168.1.5"]
TELLING = ("/sdapi/v1/cmd-flags", "/sdapi/v1/options", "/openapi.json", "/config", "/", "/status", "/models", "/me")
OPTIONS = ServeOptions(host="0.0.0.0", cors_origins=("https://friend.example",), access_token="the-access-token")

# What a stranger may reach, and the answer that is right for it. Everything else says 401.
OPEN = {
    ("POST", "/sign-in"): 401,
    ("POST", "/sign-out"): 303,
    ("GET", "/shared/{token}"): 404,
    ("GET", "/shared/{token}/picture"): 404,
}


@pytest.fixture(scope="module")
def accounts(tmp_path_factory: pytest.TempPathFactory) -> Accounts:
    made = Accounts(tmp_path_factory.mktemp("accounts") / "users.json")
    made.add("ann", PASSWORD)
    return made


@pytest.fixture(autouse=True, scope="module")
def _own_address() -> Iterator[None]:
    """The address that the network knows this machine by: tests reach no network to find out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("webui.server.addresses.lan_address", lambda: "192.168.1.5")
        yield


@pytest.fixture(scope="module")
def door(_own_address: None, full_app: Any, web: Any, accounts: Accounts) -> Any:
    """The full app behind every guard, as a server on a network has it. (`web` has started it.)"""
    return guarded(full_app, OPTIONS, Access(OPTIONS, accounts, Sessions(b"k" * 32), OneTimeLinks()))


@pytest.fixture(scope="module")
def token(accounts: Accounts) -> str:
    return accounts.new_token("ann")


def from_network(door: Any, method: str, path: str, headers: dict[str, str] | None = None, **more: Any) -> Answer:
    return ask(door, method, path, {"host": HOST, **(headers or {})}, client=PEER, **more)


def routes(app: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """(method, path) of every route, of included routers and mounted apps too."""
    for route in app.routes:
        path = prefix + (getattr(route, "path", None) or "")
        included = getattr(route, "original_router", None)
        inner = getattr(route, "app", None)
        if included is not None:
            yield from routes(included, prefix + (getattr(route.include_context, "prefix", "") or ""))
        elif type(route).__name__ == "Mount":
            yield "GET", f"{path}/anything"
            if hasattr(inner, "routes"):
                yield from routes(inner, path.rstrip("/"))
        else:
            yield from ((method, path) for method in sorted(getattr(route, "methods", None) or {"GET"}))


def test_H112_every_route_says_401_to_a_stranger_but_for_an_explicit_list(full_app: Any, door: Any) -> None:
    described = full_app.openapi()["paths"]
    every = {*routes(full_app), *OPEN, *((m.upper(), path) for path, methods in described.items() for m in methods)}
    seen = {path for _, path in every}
    assert {"/jobs/{job_id}/events", "/gradio_api/upload", "/sdapi/v1/txt2img"} <= seen, sorted(seen)
    wrong = []
    for method, path in sorted(every):
        filled = re.sub(r"\{[^}]*\}", "1", path)
        answer = from_network(door, method, filled)
        if answer.status != OPEN.get((method, path), 401):
            wrong.append(f"{method} {path}: {answer.status}")
    assert not wrong, "\n".join(wrong)
    for method, path in (("GET", "/no-such-route"), ("PUT", "/jobs"), ("OPTIONS", "/jobs"), ("TRACE", "/")):
        assert from_network(door, method, path).status in (401, 403), (method, path)


def test_H112_with_a_credential_the_same_routes_answer(door: Any, token: str) -> None:
    for path in ("/", "/jobs", "/models", "/status", "/sdapi/v1/options", "/config", "/openapi.json", "/history"):
        assert from_network(door, "GET", path, {"authorization": f"Bearer {token}"}).status == 200, path


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Bearer",
        "Bearer ",
        "Basic",
        "Basic !!!",
        "Basic Og==",
        "Digest x",
        "Bearer " + "x" * 10**6,
        "Basic " + "A" * 10**7,
    ],
)
def test_H112_odd_credentials_are_none(door: Any, value: str) -> None:
    assert from_network(
        door,
        "GET",
        "/jobs",
        {"authorization": value},
    ).status in (401, 429)


def test_H112_a_thousand_guesses_are_answered_without_being_looked_at(
    full_app: Any, accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    monkeypatch.setattr(accounts, "sign_in", lambda name, password: looked.append(password))
    door = guarded(full_app, OPTIONS, Access(OPTIONS, accounts, Sessions(b"k" * 32), OneTimeLinks()))
    answers = [from_network(door, "POST", "/sign-in", body=f"user=ann&password={n}".encode()) for n in range(1000)]
    assert [answer.status for answer in answers[:5]] == [401] * 5
    assert {answer.status for answer in answers[5:]} == {429}
    assert len(looked) == 5


# --- A0 ---------------------------------------------------------------------------------------------------------------


def events_of(web: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = web.get("/config").json()["dependencies"]
    return found


@pytest.mark.parametrize("how", ["path", "url", "stream"])
def test_H103_H104_no_event_of_the_page_takes_a_file_of_this_machine(web: Any, face_paths: Any, how: str) -> None:
    secret = face_paths.data_dir / "secret.txt"
    secret.write_text("the secret text")
    given: dict[str, Any] = {"path": str(secret), "meta": {"_type": "gradio.FileData"}}
    if how == "url":
        given = {"path": "/", "url": "http://127.0.0.1:9/x", "meta": {"_type": "gradio.FileData"}}
    if how == "stream":
        given |= {"is_stream": True, "orig_name": "../../x"}
    for event in events_of(web):
        body = {"data": [given] * len(event["inputs"]), "fn_index": event["id"], "session_hash": "s"}
        answer = web.post("/gradio_api/run/predict", json=body)
        assert "the secret text" not in answer.text
        assert str(secret) not in answer.text
    copies = [path for path in face_paths.cache_dir.rglob("*") if path.is_file() and path.name != "queue.sqlite"]
    assert not any(b"the secret text" in path.read_bytes() for path in copies)
    for address in (f"/gradio_api/file={secret}", f"/file={secret}", f"/gradio_api/file=/{secret}"):
        assert web.get(address).status_code in (403, 404), address


def test_H103_mounting_the_page_leaves_the_check_of_files_on(full_app: Any) -> None:
    demos = [r.app.blocks for r in full_app.routes if hasattr(getattr(r, "app", None), "blocks")]
    assert demos
    assert all(demo.has_launched for demo in demos)


def test_H105_an_event_that_is_hidden_unknown_or_somebody_elses_gives_nothing(full_app: Any, web: Any) -> None:
    """Never a fault of the server, never an event begun, never a word of another session."""
    events = events_of(web)
    ours = next(event for event in events if event["backend_fn"])
    values = [None] * len(ours["inputs"])
    right = {"data": values, "fn_index": ours["id"], "session_hash": "s", "trigger_id": ours["targets"][0][0]}
    bodies = [{**right, "fn_index": index} for index in (-1, 10**6, 2**70, "x", None, 1.5, True, [ours["id"]])]
    bodies += [{**right, "fn_index": event["id"]} for event in events if not event["backend_fn"]]
    bodies += [{**right, "trigger_id": trigger} for trigger in (-1, 10**6, "x", True, [1])]
    bodies += [{**right, "session_hash": session} for session in (5, ["s"], "x" * 10**5, "a\r\nb")]
    bodies += [{**right, "data": data} for data in ([], values[1:], [*values, None], "x", {"0": 1}, None)]
    bodies += [right, {**right, "data": [{"a": [1]}] * len(values)}]  # the right event with values of no component
    for body in bodies:
        for route in ("run/predict", "run/on_generate", "api/predict", "api/on_generate"):
            refused(web.post(f"/gradio_api/{route}", json=body), body)
        refused(web.post("/gradio_api/queue/join", json=body), body)
    for route in ("queue/data?session_hash=s", "call/on_generate/x", "queue/status"):
        refused(web.get(f"/gradio_api/{route}"), route)
    refused(web.post("/gradio_api/call/on_generate", json={"data": values}), "call")
    for route in ("upload", "upload?upload_id=x"):
        refused(web.post(f"/gradio_api/{route}", files={"files": ("x.html", b"<b>x</b>", "text/html")}), route)
    refused(web.get("/gradio_api/upload_progress?upload_id=x"), "upload_progress")
    refused(web.post("/gradio_api/cancel", json={"session_hash": "s", "fn_index": 0, "event_id": "x"}), "cancel")
    for route in (
        "process_recording",
        "vibe-edit",
        "undo-vibe-edit",
        "call/v2/x",
        "stream/x",
        "reset",
        "no/such/route",
    ):
        refused(web.post(f"/gradio_api/{route}"), route)
    for route in ("proxy=https://evil.example/", "vibe-code", "profiling/traces", "file=/etc/hosts", "heartbeat/x"):
        refused(web.get(f"/gradio_api/{route}"), route)
    settings = component_with(web, "save_setting")
    for component, name in (
        (10**6, "save_setting"),
        ("x", "save_setting"),
        (True, "save_setting"),
        (1, "__class__"),
        (1, "postprocess"),
        (settings, "__init__"),
        (settings, ["save_setting"]),
        (settings, None),
    ):
        body = {"component_id": component, "fn_name": name, "session_hash": "x", "data": {}}
        refused(web.post("/gradio_api/component_server/", json=body), body)
    for raw in (b"", b"[]", b"{", b"[" * 10**5, b"\xff", b'{"data": "' + b"x" * 5 * 2**20 + b'"}'):
        refused(web.post("/gradio_api/run/predict", content=raw, headers={"content-type": "application/json"}), raw[:9])
    assert web.get("/status").status_code == 200


def refused(answer: Any, what: Any) -> None:
    assert 400 <= answer.status_code < 500, (what, answer.status_code, answer.text[:200])
    assert set(answer.json()) == {"error", "message", "advice"}, answer.text[:200]
    assert "Traceback" not in answer.text
    assert str(Path(__file__).parent.parent.parent) not in answer.text


def component_with(web: Any, function: str) -> int:
    components = web.get("/config").json()["components"]
    return next(int(one["id"]) for one in components if function in (one["props"].get("server_fns") or ()))


def test_H105_a_user_changes_no_setting_through_the_page(full_app: Any, web: Any) -> None:
    components = web.get("/config").json()["components"]
    settings = next(c for c in components if "save_setting" in (c["props"].get("server_fns") or ()))
    body = {"data": {"key": "queue.max_pending", "value": 1}, "component_id": settings["id"], "session_hash": "x"}
    ann = as_viewer(full_app, Viewer("ann"))

    def call(name: str) -> Answer:
        sent = json.dumps({**body, "fn_name": name}).encode()
        return ask(ann, "POST", "/gradio_api/component_server/", {"content-type": "application/json"}, body=sent)

    assert json.loads(call("save_setting").body) == {"error": "Settings are for administrators alone."}
    assert json.loads(call("read_settings").body) == []


EVIL = "http://evil.example"


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": EVIL},
        {"origin": "null"},
        {"origin": "http://192.168.1.5:notaport"},
        {"origin": "http://192.168.1.5.evil.example"},
        {"origin": "http://192.168.1.5:7861"},
        {"origin": "http://user@192.168.1.5:7860"},
        {"origin": "file://"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_H111_changes_from_other_sites_are_refused_before_anything_looks_at_them(
    door: Any, token: str, headers: dict[str, str]
) -> None:
    signed_in = {"authorization": f"Bearer {token}", **headers}
    for path, kind in (
        ("/jobs", "application/json"),
        ("/jobs", "text/plain"),
        ("/sdapi/v1/txt2img", "application/x-www-form-urlencoded"),
        ("/gradio_api/upload", "multipart/form-data; boundary=x"),
        ("/gradio_api/queue/join", "application/json"),
        ("/sign-in", "application/x-www-form-urlencoded"),
        ("/network/link", "application/json"),
    ):
        answer = from_network(door, "POST", path, {**signed_in, "content-type": kind}, body=b"{}")
        assert answer.status == 403, (path, kind)


@pytest.mark.parametrize("host", FOREIGN)
def test_H111_another_host_name_is_refused(door: Any, token: str, host: str) -> None:
    assert from_network(door, "GET", "/jobs", {"authorization": f"Bearer {token}", "host": host}).status == 400


def test_H111_no_other_origin_is_let_in_but_the_named_one(door: Any, token: str) -> None:
    def preflight(origin: str, path: str) -> Answer:
        return from_network(door, "OPTIONS", path, {"origin": origin, "access-control-request-method": "POST"})

    for path in ("/jobs", "/sdapi/v1/txt2img", "/gradio_api/queue/join", "/"):
        for origin in (EVIL, "null", "http://localhost:3000", "http://127.0.0.1:8000"):
            assert "access-control-allow-origin" not in preflight(origin, path).headers, (path, origin)
    answer = from_network(door, "GET", "/jobs", {"authorization": f"Bearer {token}", "origin": EVIL})
    assert "access-control-allow-origin" not in answer.headers
    assert "access-control-allow-credentials" not in answer.headers


def test_H111_a_named_origin_may_call_with_a_credential(
    face_paths: Any, fake_jobs: Any, accounts: Accounts, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from webui.api.viewer import guarded_viewer
    from webui.server import app as app_module
    from webui.settings import Settings, SettingsStore

    monkeypatch.setattr(app_module, "mount_page", lambda app, demo: app)
    store = SettingsStore(Settings(), face_paths.config_file)
    given = (fake_jobs, fake_jobs.catalog, store, face_paths, OPTIONS)
    app = app_module.build_app(*given, viewer_of=guarded_viewer)
    door = guarded(app, OPTIONS, Access(OPTIONS, accounts, Sessions(b"k" * 32), OneTimeLinks()))
    friend = {"origin": "https://friend.example"}
    asked = from_network(door, "OPTIONS", "/jobs", {**friend, "access-control-request-method": "POST"})
    assert (asked.status, asked.headers["access-control-allow-origin"]) == (200, friend["origin"])
    assert from_network(door, "GET", "/jobs", friend).status == 401
    answer = from_network(door, "GET", "/jobs", {**friend, "authorization": f"Bearer {token}"})
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, friend["origin"])
    assert "access-control-allow-credentials" not in answer.headers, "a cookie is never taken from another site"


def test_H111_a_web_socket_is_closed_whoever_asks(door: Any) -> None:
    import asyncio

    said: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        said.append(message["type"])

    async def refuse(scope: Any, receive: Any, send: Any) -> None:
        from webui.server.switchboard import Progress, Switchboard

        await Switchboard(Progress(()), "")(scope, receive, send)

    options = ServeOptions()
    access = Access(options, Accounts(Path("/nonexistent/users.json")), Sessions(b"k" * 32), OneTimeLinks())
    scope = {
        "type": "websocket",
        "path": "/queue/join",
        "headers": [(b"host", b"127.0.0.1"), (b"origin", EVIL.encode())],
        "client": ("127.0.0.1", 1),
    }
    asyncio.run(guarded(refuse, options, access)(scope, receive, send))
    assert "websocket.accept" not in said


def test_the_guards_stand_in_their_order(full_app: Any, accounts: Accounts) -> None:
    """Host before size, size before origin, origin before credentials, credentials before the rate (A4)."""
    door = guarded(full_app, OPTIONS, Access(OPTIONS, accounts, Sessions(b"k" * 32), OneTimeLinks()))
    worst = {"host": "evil.example", "origin": EVIL, "content-length": "99999999999"}
    assert from_network(door, "POST", "/jobs", worst).status == 400
    worst["host"] = HOST
    assert from_network(door, "POST", "/jobs", worst).status == 413
    del worst["content-length"]
    assert from_network(door, "POST", "/jobs", worst).status == 403
    del worst["origin"]
    assert from_network(door, "POST", "/jobs", worst).status == 401


def test_every_answer_carries_the_security_headers_also_a_refusal(door: Any) -> None:
    for path in ("/", "/jobs", "/ui/page.js", "/shared/x"):
        headers = from_network(door, "GET", path).headers
        assert "default-src 'self'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "SAMEORIGIN"
    assert from_network(door, "GET", "/jobs", {"host": "evil.example"}).headers["x-content-type-options"] == "nosniff"


def test_no_route_sends_a_browser_to_another_server(web: Any) -> None:
    for path in (
        "/gradio_api/file=https://evil.example/x",
        "/file=https://evil.example",
        "//evil.example/",
        "/?next=https://evil.example",
        "/gradio_api/proxy=https://evil.example/",
        "/login/huggingface?_target_url=https://evil.example",
        "/logout",
    ):
        answer = web.get(path, follow_redirects=False)
        where = answer.headers.get("location", "")
        assert "evil.example" not in where, path


def test_H113_no_answer_tells_a_secret_a_path_or_the_environment(
    door: Any, token: str, face_paths: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATENT_TEST_SECRET", "value-of-the-environment")
    secrets = ["the-access-token", PASSWORD, token, "value-of-the-environment", "scrypt$", str(Path.home()) + "/"]
    for path in TELLING:
        answer = from_network(door, "GET", path, {"authorization": f"Bearer {token}"})
        assert answer.status == 200, path
        text = answer.body.decode()
        for secret in (*secrets, str(face_paths.data_dir)):
            assert secret not in text, (path, secret)
    assert "the-access-token" not in repr(OPTIONS)
    assert PASSWORD not in repr(ServeOptions(auth=(("ann", PASSWORD),)))


def test_H113_a_link_that_signs_in_is_in_no_log(tmp_path: Path) -> None:
    import logging

    from webui.console import Console

    console = Console(tmp_path)
    console.say("the page is there")
    console.whisper("http://192.168.1.5:7860/?token=secret-token")
    for handler in logging.getLogger().handlers:
        handler.flush()
    logged = "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    assert "secret-token" not in logged
