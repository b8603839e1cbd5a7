"""Routes of extensions on the full app: the list, switches, panels, presets, routes and tabs of their own."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from extensions.extension_folders import write_extension
from faces import as_viewer
from fake_jobs import FakeCatalog, FakeJobs
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from starlette.testclient import TestClient

from webui.api.viewer import guarded_viewer
from webui.events import Extensions
from webui.extensions.front import FrontExtensions
from webui.identity import OWNER, Viewer
from webui.params import params_from_json
from webui.paths import Paths
from webui.server.app import build_app
from webui.server.options import ServeOptions
from webui.settings import Settings, SettingsStore

FRONT = """
import gradio as gr
from fastapi import APIRouter
from webui.extensions import Tab, hookimpl

@hookimpl
def routes(folder):
    router = APIRouter()
    @router.get("/hello")
    def hello():
        return {"hello": folder.name}
    return router

@hookimpl
def tab():
    def build():
        with gr.Blocks() as blocks:
            gr.Markdown("a page of my own")
        return blocks
    return Tab("My tab", build)

@hookimpl
def metadata_reader(text, chunks):
    return "a cat\\nSteps: 9, Sampler: Euler, Seed: 1" if text.startswith("MINE") else None
"""


class Served:
    """The full app with extensions, as an administrator and as somebody else see it."""

    def __init__(self, root: Path, jobs: FakeJobs) -> None:
        paths = Paths.under(root)
        paths.make_folders()
        store = SettingsStore(Settings(), paths.config_file)
        self.extensions = FrontExtensions(paths, store)
        self.store = store
        self.switched: list[str] = []
        self.extensions.use(lambda settings: self.switched.append(settings.extensions.disabled))
        more: Any = {"viewer_of": guarded_viewer, "extensions": self.extensions}
        app = build_app(jobs, jobs.catalog, store, paths, ServeOptions(), **more)
        self.app = app

    def client(self, viewer: Viewer = OWNER) -> TestClient:
        return TestClient(as_viewer(self.app, viewer), base_url="http://127.0.0.1:7860", client=("127.0.0.1", 5000))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("served")
    write_extension(root, "mine", FRONT, asks="routes tab metadata_reader", side="front")
    write_extension(root, "wrong", "raise RuntimeError('on the front')", asks="routes", side="front")
    jobs = FakeJobs(root / "outputs", FakeCatalog(), seconds_per_step=0.01)
    jobs.start()
    yield Served(root, jobs)
    jobs.stop()


def one(data: Any, name: str) -> dict[str, Any]:
    return next(entry for entry in data["extensions"] if entry["name"] == name)


def test_the_list_names_every_extension_with_its_hooks_and_the_reason_why_one_is_not_used(served: Served) -> None:
    data = served.client().get("/extensions").json()
    assert one(data, "mine")["asks"] == ["routes", "tab", "metadata_reader"]
    assert one(data, "mine")["problem"] == ""
    assert len(one(data, "mine")["hash"]) == 12
    assert {use["hook"] for use in one(data, "mine")["uses"]} >= {"routes", "tab"}
    assert "RuntimeError: on the front" in one(data, "wrong")["problem"]
    assert {"detail", "xyz-plot", "presets"} <= {entry["name"] for entry in data["extensions"]}


def test_what_the_worker_says_of_its_side_is_shown_too(served: Served) -> None:
    report = {
        "uses": {"detail": {"step": {"calls": 3, "seconds": 0.5, "failures": 3}}},
        "off": {"detail": "It failed."},
    }
    served.extensions.heard(Extensions(report))
    shown = one(served.client().get("/extensions").json(), "detail")
    assert shown["uses"] == [{"side": "engine", "hook": "step", "calls": 3, "seconds": 0.5, "failures": 3}]
    assert shown["problem"] == "It failed."


def test_an_extension_s_routes_and_page_are_there_until_it_is_switched_off(served: Served) -> None:
    client = served.client()
    assert client.get("/extensions/mine/hello").json() == {"hello": "mine"}
    assert client.get("/extensions/mine/page/").status_code == 200
    assert '"My tab"' in client.get("/").text
    assert one(client.post("/extensions/mine/disable").json(), "mine")["enabled"] is False
    assert served.switched[-1] == "mine"
    assert served.store.current.extensions.disabled == "mine"
    assert client.get("/extensions/mine/hello").status_code == 404
    assert one(client.post("/extensions/mine/enable").json(), "mine")["enabled"] is True
    assert client.get("/extensions/mine/hello").status_code == 200


def test_only_an_administrator_switches_extensions(served: Served) -> None:
    answer = served.client(Viewer("ann")).post("/extensions/detail/disable")
    assert answer.status_code == 403
    assert served.client(Viewer("ann")).get("/extensions").status_code == 200
    assert served.client().post("/extensions/no-such/disable").status_code == 404


def test_panels_are_told_as_the_page_draws_them_and_go_with_their_extension(served: Served) -> None:
    client = served.client()
    panels = {panel["name"]: panel for panel in client.get("/panels").json()["panels"]}
    assert panels["detail"]["fields"][0]["key"] == "amount"
    assert panels["xyz-plot"]["kind"] == "script"
    client.post("/extensions/detail/disable")
    assert "detail" not in {panel["name"] for panel in client.get("/panels").json()["panels"]}
    client.post("/extensions/detail/enable")


def test_a_metadata_reader_turns_a_foreign_text_into_parameters(served: Served) -> None:
    found = served.client().post("/infotext", json={"text": "MINE 1234"}).json()
    assert found["params"]["steps"] == 9
    assert found["prompt"] == "a cat"
    assert served.client().post("/infotext", json={"text": "a dog"}).json()["prompt"] == "a dog"
    buffer, texts = io.BytesIO(), PngInfo()
    texts.add_text("parameters", "MINE 1234")
    Image.new("RGB", (8, 8)).save(buffer, "PNG", pnginfo=texts)
    picture = {"image": base64.b64encode(buffer.getvalue()).decode()}
    assert served.client().post("/sdapi/v1/png-info", json=picture).json()["parameters"]["Steps"] in (9, "9")


def test_presets_are_kept_for_each_user_and_checked_before(served: Served) -> None:
    ann, bob = served.client(Viewer("ann")), served.client(Viewer("bob"))
    mine = {"name": " My  best ", "fields": {"steps": 33}}
    assert ann.post("/extensions/presets/save", json=mine).status_code == 200
    own = [preset for preset in ann.get("/presets").json()["presets"] if preset["own"]]
    assert own == [{"name": "My best", "fields": {"steps": 33}, "families": [], "about": "", "own": True}]
    assert not [preset for preset in bob.get("/presets").json()["presets"] if preset["own"]]
    refused = ann.post("/extensions/presets/save", json={"name": "x", "fields": {"steps": 0}})
    assert refused.status_code == 422
    assert "steps" in refused.json()["message"]
    exported = ann.get("/extensions/presets/export").json()
    assert bob.post("/extensions/presets/import", json=exported).json() == {"presets": 1}
    assert ann.post("/extensions/presets/delete", json={"name": "My best"}).json() == {"presets": 0}
    assert ann.post("/extensions/presets/delete", json={"name": "My best"}).status_code == 404
    assert bob.get("/extensions/presets/export").json() == exported


def test_every_shipped_preset_is_a_valid_request(served: Served) -> None:
    presets = served.client().get("/presets").json()["presets"]
    assert len(presets) >= 6
    for preset in presets:
        params_from_json(json.dumps(preset["fields"]))


def test_presets_that_fail_while_they_are_listed_cost_nobody_elses(tmp_path: Path) -> None:
    code = """
        from webui.extensions import Preset, hookimpl
        @hookimpl
        def presets():
            yield Preset("one", {"steps": 5})
            raise OSError("the server is away")
    """
    write_extension(tmp_path, "broken", code, asks="presets", side="front")
    extensions = FrontExtensions(Paths.under(tmp_path), SettingsStore(Settings(), tmp_path / "config.yaml"))
    assert "Quality" in {preset.name for preset in extensions.presets("")}
    assert "the server is away" in extensions.host.take_notices()[0]
