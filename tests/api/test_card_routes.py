"""The cards: what model files there are, with pictures and notes; written by administrators alone."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from webui import pictures
from webui.api.cards import card_routes
from webui.api.common import add_error_handlers
from webui.api.viewer import identify_by
from webui.catalog import Catalog
from webui.catalog.lookup import find_network, tag_names
from webui.identity import OWNER, Viewer
from webui.paths import Paths
from webui.settings import Settings, SettingsStore

BLOCK = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_"


def write_lora(path: Path, metadata: dict[str, str] | None = None, width: int = 768) -> Path:
    """A valid .safetensors file of zeros with a LoRA's names."""
    shapes = {f"{BLOCK}attn2_to_k.lora_down.weight": (4, width), f"{BLOCK}attn2_to_k.lora_up.weight": (320, 4)}
    header: dict[str, Any] = {"__metadata__": metadata or {}}
    end = 0
    for name, (rows, columns) in shapes.items():
        header[name] = {"dtype": "F16", "shape": [rows, columns], "data_offsets": [end, end + 2 * rows * columns]}
        end += 2 * rows * columns
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(end))
    return path


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths.under(tmp_path)
    paths.make_folders()
    return paths


@pytest.fixture
def client_of(paths: Paths) -> Callable[..., TestClient]:
    def make(viewer: Viewer = OWNER, owns: bool = True) -> TestClient:
        app = FastAPI(dependencies=[Depends(identify_by(lambda _: viewer))])
        add_error_handlers(app)
        store = SettingsStore(Settings(), paths.config_file)
        cache = paths.cache_dir / "previews"
        app.include_router(card_routes(Catalog(paths), store, paths.outputs, cache, lambda _viewer, _path: owns))
        return TestClient(app)

    return make


def picture(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pictures.encode(Image.new("RGB", (600, 800), "teal"), "png", 90, text))
    return path


def test_a_card_has_name_family_folder_tag_and_alias(paths: Paths, client_of: Callable[..., TestClient]) -> None:
    write_lora(paths.loras[0] / "styles" / "ink" / "wash.safetensors", {"ss_output_name": "oldname"})
    (card,) = client_of().get("/cards?kind=lora").json()["cards"]
    assert (card["name"], card["label"], card["folder"]) == ("styles/ink/wash.safetensors", "wash", "styles/ink")
    assert (card["family"], card["base"], card["variant"]) == ("SD1", "SD1", "LoRA")
    assert card["insert"] == "<lora:wash:1>"
    assert "oldname" in card["words"]
    assert str(paths.data_dir) not in json.dumps(card)


def test_a_tag_names_the_folder_where_two_files_have_one_name_and_escapes_what_would_begin_a_comment(
    paths: Paths, client_of: Callable[..., TestClient]
) -> None:
    folder = paths.loras[0]
    for name in ("SD15/detail", "SDXL/detail", "detail", "x/my#style"):
        write_lora(folder / f"{name}.safetensors")
    cards = client_of().get("/cards?kind=lora").json()["cards"]
    assert {card["name"]: card["insert"] for card in cards} == {
        "SD15/detail.safetensors": "<lora:SD15/detail:1>",
        "SDXL/detail.safetensors": "<lora:SDXL/detail:1>",
        "detail.safetensors": "<lora:detail:1>",
        "x/my#style.safetensors": r"<lora:my\#style:1>",
    }
    loras = Catalog(paths).loras
    assert {find_network(loras, tag).name for tag in tag_names(loras).values()} == {lora.name for lora in loras}


def test_notes_decide_what_a_click_inserts_and_other_programs_entries_stay(
    paths: Paths, client_of: Callable[..., TestClient]
) -> None:
    path = write_lora(paths.loras[0] / "film.safetensors")
    path.with_suffix(".json").write_text(json.dumps({"civitai id": 5, "notes": "old"}))
    client = client_of()
    notes = {"activation text": "grainy film", "negative text": "digital", "preferred weight": 0.7, "notes": "new"}
    answer = client.post("/cards/notes", json={"kind": "lora", "name": "film.safetensors", "notes": notes})
    assert answer.status_code == 200
    assert answer.json()["notes"]["activation_text"] == "grainy film"
    (card,) = client.get("/cards?kind=lora").json()["cards"]
    assert (card["insert"], card["negative"]) == ("<lora:film:0.7> grainy film", "digital")
    assert json.loads(path.with_suffix(".json").read_text()) == {"civitai id": 5, **notes}
    assert json.loads(path.with_name("film.json.bak").read_text()) == {"civitai id": 5, "notes": "old"}


@pytest.mark.parametrize(
    "body",
    [
        {"kind": "lora", "name": "film.safetensors", "notes": {"preferred weight": "much"}},
        {"kind": "lora", "name": "film.safetensors", "notes": {"preferred weight": 1e9}},
        {"kind": "lora", "name": "film.safetensors", "notes": {"notes": 5}},
        {"kind": "lora", "name": "film.safetensors", "notes": {"notes": "x" * 300_000}},
        {"kind": "lora", "name": "film.safetensors", "notes": []},
        {"kind": "lora", "name": "../film.safetensors", "notes": {}},
        {"kind": "etc", "name": "film.safetensors", "notes": {}},
    ],
)
def test_notes_that_make_no_sense_are_refused_and_nothing_is_written(
    body: dict[str, Any], paths: Paths, client_of: Callable[..., TestClient]
) -> None:
    path = write_lora(paths.loras[0] / "film.safetensors")
    answer = client_of().post("/cards/notes", json=body)
    assert answer.status_code in (404, 422)
    assert answer.json()["message"]
    assert not path.with_suffix(".json").exists()


def test_users_read_cards_and_do_not_write_beside_the_models(
    paths: Paths, client_of: Callable[..., TestClient]
) -> None:
    path = write_lora(paths.loras[0] / "film.safetensors")
    client = client_of(Viewer("ann", admin=False))
    assert client.get("/cards?kind=lora").status_code == 200
    for route, more in (("notes", {"notes": {"notes": "x"}}), ("preview", {"picture": "a.png"})):
        answer = client.post(f"/cards/{route}", json={"kind": "lora", "name": "film.safetensors", **more})
        assert answer.status_code == 403
    assert [p.name for p in path.parent.iterdir()] == ["film.safetensors"]


def test_a_picture_of_the_same_stem_is_the_preview_made_small(
    paths: Paths, client_of: Callable[..., TestClient]
) -> None:
    path = write_lora(paths.loras[0] / "film.safetensors")
    write_lora(paths.loras[0] / "plain.safetensors")
    picture(path.with_name("film.preview.png"))
    client = client_of()
    cards = {card["label"]: card for card in client.get("/cards?kind=lora").json()["cards"]}
    assert cards["film"]["preview"]
    assert not cards["plain"]["preview"]
    answer = client.get("/cards/preview.webp", params={"kind": "lora", "name": "film.safetensors"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/webp")
    assert max(Image.open(io.BytesIO(answer.content)).size) == 320
    assert client.get("/cards/preview.webp", params={"kind": "lora", "name": "plain.safetensors"}).status_code == 404


def test_the_last_picture_becomes_the_preview_with_its_text(paths: Paths, client_of: Callable[..., TestClient]) -> None:
    path = write_lora(paths.loras[0] / "film.safetensors")
    picture(paths.outputs / "txt2img-images" / "a.png", "a red apple\nSteps: 3")
    client = client_of()
    before = client.get("/cards?kind=lora").json()["cards"][0]["preview"]
    body = {"kind": "lora", "name": "film.safetensors", "picture": "txt2img-images/a.png"}
    assert client.post("/cards/preview", json=body).status_code == 200
    assert pictures.read_text(path.with_suffix(".png").read_bytes())[0] == "a red apple\nSteps: 3"
    assert client.get("/cards?kind=lora").json()["cards"][0]["preview"] != before


@pytest.mark.parametrize("name", ["../config.yaml", "/etc/passwd", "nothing.png", ""])
def test_nothing_but_a_saved_picture_becomes_a_preview(
    name: str, paths: Paths, client_of: Callable[..., TestClient]
) -> None:
    path = write_lora(paths.loras[0] / "film.safetensors")
    (paths.data_dir / "config.yaml").write_text("a: 1")
    body = {"kind": "lora", "name": "film.safetensors", "picture": name}
    assert client_of().post("/cards/preview", json=body).status_code == 404
    picture(paths.outputs / "a.png")
    assert client_of(owns=False).post("/cards/preview", json={**body, "picture": "a.png"}).status_code == 404
    assert not path.with_suffix(".png").exists()


def test_details_tell_the_training_and_the_words_of_its_captions(
    paths: Paths, client_of: Callable[..., TestClient]
) -> None:
    many = {f"word {n}": n + 1 for n in range(500)}
    metadata = {
        "ss_network_dim": "32",
        "ss_sd_model_name": "v1-5-pruned",
        "ss_num_epochs": "None",
        "ss_tag_frequency": json.dumps({"10_a": many, "5_b": {"word 1": 5000}, "broken": 3}),
    }
    write_lora(paths.loras[0] / "film.safetensors", metadata)
    details = client_of().get("/cards/details", params={"kind": "lora", "name": "film.safetensors"}).json()
    facts = {fact["name"]: fact["value"] for fact in details["facts"]}
    assert (facts["Dimension"], facts["Base model"]) == ("32", "v1-5-pruned")
    assert "Epochs" not in facts
    assert details["tags"][0] == {"name": "word 1", "value": "5002"}
    assert len(details["tags"]) == 60


def test_every_kind_has_cards_and_one_that_cannot_be_used_says_why(
    paths: Paths, client_of: Callable[..., TestClient]
) -> None:
    write_lora(paths.embeddings[0] / "bad.safetensors")
    write_lora(paths.loras[0] / "xl.safetensors", width=2048)
    client = client_of()
    (embedding,) = client.get("/cards?kind=embedding").json()["cards"]
    assert "not a textual inversion" in embedding["reason"]
    (lora,) = client.get("/cards?kind=lora").json()["cards"]
    assert (lora["family"], lora["reason"]) == ("SDXL", "")
    assert client.get("/cards?kind=checkpoint").json()["cards"] == []
    assert client.get("/cards?kind=hypernetwork").json()["cards"] == []
    assert client.get("/cards?kind=vae").status_code == 422


def test_two_thousand_files_are_listed_without_opening_one(
    paths: Paths, client_of: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = write_lora(paths.loras[0] / "f" / "lora_0.safetensors").read_bytes()
    for number in range(1, 2000):
        (paths.loras[0] / "f" / f"lora_{number}.safetensors").write_bytes(first)
    client = client_of()
    assert len(client.get("/cards?kind=lora").json()["cards"]) == 2000
    opened: list[Any] = []
    real = Path.open
    monkeypatch.setattr(Path, "open", lambda self, *a, **k: (opened.append(self), real(self, *a, **k))[1])
    cards = client.get("/cards?kind=lora").json()["cards"]
    assert [card["label"] for card in cards[:3]] == ["lora_0", "lora_1", "lora_2"]
    assert opened == []
