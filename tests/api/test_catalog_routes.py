"""What is here: models, tokens, the worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from embedded import EMBEDDED_CHECKPOINT, link_or_copy
from faces import as_viewer
from fake_jobs import FakeCatalog, FakeJobs
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
from test_card_routes import write_lora

from webui.api.catalog import catalog_routes, model_view
from webui.api.viewer import identify_by
from webui.catalog import Catalog
from webui.identity import OWNER
from webui.paths import Paths
from webui.settings import Settings, SettingsStore


def test_models_tell_size_family_and_why_one_cannot_run(web: Any) -> None:
    found = web.get("/models").json()
    by_name = {m["name"]: m for m in found["checkpoints"]}
    assert by_name[EMBEDDED_CHECKPOINT.name]["runnable"] is True
    assert by_name[EMBEDDED_CHECKPOINT.name]["native_size"] == 128
    assert by_name["sdxl-base.safetensors"]["runnable"] is False
    assert by_name["sdxl-base.safetensors"]["reason"]
    assert found["default_checkpoint"] == EMBEDDED_CHECKPOINT.name
    assert found["vaes"][0]["size"] > 0


def test_refresh_looks_again(web: Any, fake_jobs: FakeJobs) -> None:
    before = fake_jobs.catalog.refreshed
    assert web.post("/models/refresh").status_code == 200
    assert fake_jobs.catalog.refreshed == before + 1


def test_a_chosen_model_is_loaded_ahead(web: Any, fake_jobs: FakeJobs) -> None:
    answer = web.post("/models/select", json={"checkpoint": EMBEDDED_CHECKPOINT.name, "vae": "None"})
    assert answer.json()["name"] == EMBEDDED_CHECKPOINT.name
    assert fake_jobs.selected == (EMBEDDED_CHECKPOINT.name, "None")


@pytest.mark.parametrize("body", [{"checkpoint": "nope"}, {"checkpoint": 5}, {"checkpoint": "sdxl-base.safetensors"}])
def test_a_model_that_cannot_be_loaded_is_refused(web: Any, body: dict[str, Any]) -> None:
    answer = web.post("/models/select", json=body)
    assert answer.status_code == 422
    assert answer.json()["message"]


def test_tokens_are_counted_in_chunks_of_75(web: Any) -> None:
    assert web.get("/tokens", params={"text": ""}).json() == {"count": 0, "limit": 75}
    assert web.get("/tokens", params={"text": "a red apple"}).json() == {"count": 3, "limit": 75}
    long = web.post("/tokens", json={"text": "cat " * 100}).json()
    assert long["count"] >= 100
    assert long["limit"] == 150


def test_hostile_texts_are_counted_or_refused_but_never_break_the_counter(web: Any) -> None:
    for text in ("(" * 5000, "[a:b:c:d]" * 100, "\x00\x01", "👩‍👩‍👧‍👦" * 50, "<lora:x:1>", "a:1e308)"):
        answer = web.post("/tokens", json={"text": text})
        assert answer.status_code in (200, 422), text[:10]
        assert "count" in answer.json() or answer.json()["message"]
    assert web.post("/tokens", json={"text": 5}).status_code == 422
    assert web.post("/tokens", json={"text": "x" * 200_001}).status_code == 422


def test_the_status_tells_the_worker_and_its_memory(web: Any) -> None:
    status = web.get("/status").json()
    assert status["worker"]["state"] in ("ready", "busy")
    memory = status["worker"]["memory"]
    assert 0 < memory["used"] <= memory["peak"] <= memory["total"]
    assert status["boot"]
    for quality in (80, 90):
        assert web.post("/sdapi/v1/options", json={"jpeg_quality": quality}).status_code == 200
        assert web.get("/status").json()["saving"] == {"image_format": "png", "image_quality": quality}


def test_the_worker_is_started_anew_on_request(web: Any, fake_jobs: FakeJobs) -> None:
    before = fake_jobs.restarts
    assert web.post("/worker/restart").json()["state"]
    assert fake_jobs.restarts == before + 1


def test_only_this_machine_is_told_where_the_outputs_are(full_app: Any, fake_jobs: FakeJobs) -> None:
    from starlette.testclient import TestClient

    near = TestClient(as_viewer(full_app), client=("127.0.0.1", 1)).get("/status").json()
    far = TestClient(as_viewer(full_app), client=("192.168.1.9", 1)).get("/status").json()
    assert near["outputs"] == str(fake_jobs.outputs)
    assert far["outputs"] == ""


def test_what_suits_a_distilled_model_is_told_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "Stable-diffusion"
    folder.mkdir(parents=True)
    for name in ("plain", "emoji-lightning-2step"):
        link_or_copy(EMBEDDED_CHECKPOINT, folder / f"{name}.safetensors")
    views = {model.stem: model_view(model, Settings()) for model in Catalog(Paths.under(tmp_path)).checkpoints}
    assert views["plain"].suggestion is None
    told = views["emoji-lightning-2step"].suggestion
    assert told is not None
    assert (told.kind, told.sampler, told.schedule, told.steps, told.cfg_scale) == (
        "Lightning", "Euler", "SGM Uniform", 2, 1.0,
    )  # fmt: skip


def test_what_suits_a_lora_of_the_prompt_is_told_by_its_name(tmp_path: Path) -> None:
    paths = Paths.under(tmp_path)
    for name in ("film", "swift-lcm"):
        write_lora(paths.loras[0] / f"{name}.safetensors")
    app = FastAPI(dependencies=[Depends(identify_by(lambda _: OWNER))])
    store = SettingsStore(Settings(), paths.config_file)
    app.include_router(catalog_routes(FakeJobs(paths.outputs, FakeCatalog()), Catalog(paths), store, paths.outputs, ""))
    client = TestClient(app)
    told = client.get("/models/suggestion", params={"lora": ["film", "nothing", "SWIFT-lcm"]}).json()
    assert (told["lora"], told["kind"], told["sampler"], told["cfg_scale"]) == ("SWIFT-lcm", "LCM", "LCM", 1.5)
    assert client.get("/models/suggestion", params={"lora": "film"}).json() is None
