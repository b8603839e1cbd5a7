"""The Gradio page mounted with its traps closed (security.md A0), and what the app serves around it."""

from __future__ import annotations

import time
from typing import Any

import gradio as gr
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from webui.api.docs_page import docs_page
from webui.extensions import Tab
from webui.server.app import mount_page, with_head
from webui.server.extensions import mount_extension_tabs
from webui.server.frontend import PAGE_COMPONENTS, needed_assets
from webui.ui.making import MODULES
from webui.ui.markup import STATIC
from webui.ui.page import SCRIPTS


def test_a_client_cannot_have_a_file_of_this_machine_copied_into_the_served_cache(tmp_path: Any) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("the secret")
    with gr.Blocks() as demo:
        file = gr.File()
        name = gr.Textbox()
        file.change(lambda f: str(f), file, name, api_name="read", queue=False)
    app = mount_page(FastAPI(), demo)
    with TestClient(app) as client:
        body = {"data": [{"path": str(secret), "meta": {"_type": "gradio.FileData"}}]}
        answer = client.post("/gradio_api/run/read", json=body)
        assert answer.status_code != 200
        assert "the secret" not in answer.text
        assert client.get(f"/gradio_api/file={secret}").status_code in (403, 404)


class OneTab:
    """Extensions, of which one has a page."""

    def __init__(self) -> None:
        self.on, self.host = True, self

    def ask(self, _hook: str) -> list[Any]:
        return [("tabby", Tab("Tabby", self.build))]

    def guard(self, _name: str, _hook: str, build: Any) -> Any:
        return build()

    def is_on(self, name: str) -> bool:
        return self.on and name == "tabby"

    def build(self) -> gr.Blocks:
        with gr.Blocks() as blocks:
            text = gr.Textbox()
            text.change(lambda one: one, text, text)
        return blocks


@pytest.mark.parametrize("root_path", ["", "/studio"])
def test_an_extensions_page_works_under_a_sub_path_and_goes_when_it_is_switched_off(root_path: str) -> None:
    app, extensions, page = FastAPI(), OneTab(), "/extensions/tabby/page"
    assert [tab.address for tab in mount_extension_tabs(app, extensions, root_path)] == [f"{page[1:]}/"]  # type: ignore[arg-type]
    with TestClient(app, base_url="https://pics.example.org") as client:
        config = client.get(f"{page}/config").json()
        assert config["root"] == f"https://pics.example.org{root_path}{page}"
        body = {"data": ["hi"], "fn_index": config["dependencies"][0]["id"], "session_hash": "s"}
        assert client.post(f"{page}/gradio_api/run/predict", json=body).json()["data"] == ["hi"]
        assert client.post(f"{page}/gradio_api/queue/join", json=body).status_code == 200
        file = {"files": ("x.txt", b"x")}
        assert client.post(f"{page}/gradio_api/upload", files=file).status_code == 200
        assert client.post(f"{page}/gradio_api/process_recording", files=file).status_code == 404
        extensions.on = False
        assert client.get(f"{page}/config").status_code == 404
        assert client.post(f"{page}/gradio_api/upload", files=file).status_code == 404


def test_gradio_leaves_cross_origin_rules_to_us(web: Any) -> None:
    preflight = {
        "host": "192.168.1.5:7860",
        "origin": "http://evil.example",
        "access-control-request-method": "POST",
    }
    for path in ("/jobs", "/gradio_api/queue/join", "/"):
        answer = web.options(path, headers=preflight)
        assert "access-control-allow-origin" not in answer.headers
    answer = web.get("/status", headers={"origin": "http://evil.example"})
    assert "access-control-allow-origin" not in answer.headers


def test_the_page_keeps_no_connection_open(web: Any) -> None:
    assert web.get("/config").json()["connect_heartbeat"] is False


def test_no_event_of_the_page_is_an_api(web: Any) -> None:
    config = web.get("/config").json()
    assert config["dependencies"]
    assert {d["api_visibility"] for d in config["dependencies"]} == {"private"}
    assert not any(d["queue"] for d in config["dependencies"])
    assert web.get("/gradio_api/info").json()["named_endpoints"] == {}


def test_a_field_that_changes_tells_its_own_value_alone(web: Any) -> None:
    """At a key that is typed, Gradio looks for each input of the event in its whole tree of components."""
    changes = [d for d in web.get("/config").json()["dependencies"] if d["targets"][0][1] == "change"]
    assert len(changes) > 50
    assert all(len(d["inputs"]) == 1 for d in changes)


def test_gradios_own_history_of_runs_is_off(web: Any) -> None:
    assert web.get("/config").json()["run_history"] is False
    assert web.get("/gradio_api/runs").status_code == 404


def test_the_page_names_no_other_server_and_brings_our_files(web: Any) -> None:
    page = web.get("/").text
    head = page.partition("<body")[0]
    for foreign in ("github", "gradio.app", "googleapis", "cdn.", "og:image"):
        assert foreign not in head.replace("window.gradio_config", "")
    assert "ui/style.css?v=" in head
    assert "ui/app.js?v=" in head
    assert "window.latentBoot" in head


def test_the_scripts_come_as_one_file_that_the_browser_keeps_as_long_as_it_is_the_same(web: Any) -> None:
    page = web.get("/").text
    version = page.partition('src="ui/app.js?v=')[2].partition('"')[0]
    current = web.get(f"/ui/app.js?v={version}")
    assert current.headers["content-type"].startswith("text/javascript")
    assert current.headers["content-encoding"] == "gzip"
    assert "immutable" in current.headers["cache-control"]
    assert "immutable" not in web.get("/ui/app.js?v=old").headers["cache-control"]
    plain = web.get("/ui/app.js", headers={"accept-encoding": "identity"})
    assert plain.text == current.text
    for script in (STATIC / name for name in SCRIPTS):
        assert script.read_text() in plain.text


def test_every_script_of_the_page_s_folder_is_in_the_page_or_fetched_by_it(web: Any) -> None:
    head = web.get("/").text.partition("<body")[0]
    assert all(f'"./ui/{name}":"./ui/{name}?v=' in head for name in MODULES)
    assert sorted((*SCRIPTS, *MODULES)) == sorted(path.name for path in STATIC.glob("*.js"))


def test_the_page_names_the_scripts_of_its_own_components_alone(web: Any, full_app: Any) -> None:
    """What is named in vain costs; what is missing is only loaded later."""
    types = {component["type"] for component in web.get("/config").json()["components"]}
    assert set(PAGE_COMPONENTS) <= types
    head = web.get("/").text.partition("<body")[0]
    assert f'href="./assets/{needed_assets()[0]}"' in head


def test_pages_and_json_are_compressed_but_pictures_are_not(web: Any, fake_jobs: Any) -> None:
    assert web.get("/", headers={"accept-encoding": "gzip"}).headers["content-encoding"] == "gzip"
    job = web.post("/jobs", json={"prompt": "x", "steps": 1}).json()["id"]
    while not web.get(f"/jobs/{job}").json()["images"]:
        time.sleep(0.01)
    path = web.get(f"/jobs/{job}").json()["images"][0]["path"]
    answer = web.get(f"/outputs/{path}", headers={"accept-encoding": "gzip"})
    assert "content-encoding" not in answer.headers


def test_the_interactive_docs_are_gradios_nowhere_and_ours_need_no_network(web: Any) -> None:
    page = web.get("/docs").text
    assert "/jobs/{job_id}/interrupt" in page
    assert "src=" not in page
    assert "https://" not in page


def test_the_head_goes_before_the_end_of_the_head_alone() -> None:
    html = '<head><meta property="og:title" content="G" /><title>t</title><script>"</head>"</script></head><body>'
    changed = with_head(html.replace('"</head>"', '""'), "<link>")
    assert changed == '<head><title>t</title><script>""</script><link></head><body>'


def test_the_docs_page_has_every_routes_fields_and_a_line_to_copy(web: Any) -> None:
    page = web.get("/docs").text
    assert "curl -N http://127.0.0.1:7860/jobs/JOB_ID/events" in page
    assert "a red apple on a table" in page
    for field in ("cfg_scale", "denoising_strength", "override_settings", "response_format"):
        assert f"<code>{field}</code>" in page, field
    assert "<code>Idempotency-Key</code>" in page
    for group in ("jobs", "sdapi", "openai", "history"):
        assert f'id="{group}"' in page


def test_the_docs_page_escapes_what_it_shows() -> None:
    schema = {"paths": {"/<b>": {"get": {"description": "<script>", "parameters": []}}}}
    page = docs_page(schema)
    assert "<script>" not in page
    assert "<b>" not in page
