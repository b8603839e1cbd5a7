"""The routes of the prompt boxes: styles, completion, tokens, parameters of other programs."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_jobs import FakeJobs, FakeModel
from network_files import write
from PIL import Image, PngImagePlugin

from webui.api.completion import complete
from webui.api.parameters import ParametersReader
from webui.catalog import Catalog
from webui.catalog.components import bundled_in
from webui.catalog.lookup import BUNDLED
from webui.paths import Paths
from webui.prompt import StyleBook
from webui.settings import Settings, SettingsStore


@pytest.fixture(autouse=True)
def library(face_paths: Paths, fake_jobs: FakeJobs) -> Iterator[None]:
    face_paths.styles_file.write_text('name,prompt,negative_prompt\nPhoto,"photo of {prompt}, 8k",lowres\n')
    (face_paths.wildcards / "things").mkdir(parents=True, exist_ok=True)
    for name in ("animal", "things/animated"):
        (face_paths.wildcards / f"{name}.txt").write_text("x")
    yield
    face_paths.styles_file.unlink(missing_ok=True)


def test_styles_are_listed_saved_and_deleted(web: Any) -> None:
    assert [s["name"] for s in web.get("/styles").json()["styles"]] == ["Photo"]
    answer = web.post("/styles", json={"name": "Night", "prompt": "at night", "negative_prompt": ""})
    assert [(s["name"], s["file"]) for s in answer.json()["styles"]] == [
        ("Photo", "styles.csv"),
        ("Night", "styles.csv"),
    ]
    assert web.post("/styles", json={"name": "Night", "prompt": "x"}).status_code == 422
    left = web.post("/styles/delete", json={"name": "Night"}).json()["styles"]
    assert [s["name"] for s in left] == ["Photo"]
    assert web.post("/styles/delete", json={"name": "Night"}).status_code == 404
    assert web.post("/styles", json={"name": ["x"]}).status_code == 422


def test_completion_ranks_beginnings_before_what_only_holds_the_letters(web: Any) -> None:
    found = web.get("/completions", params={"kind": "wildcard", "q": "ani"}).json()
    assert [(f["label"], f["insert"]) for f in found] == [
        ("animal", "__animal__"),
        ("things/animated", "__things/animated__"),
    ]
    assert [f["label"] for f in web.get("/completions", params={"kind": "wildcard", "q": "tga"}).json()] == [
        "things/animated"
    ]
    assert [f["kind"] for f in web.get("/completions", params={"q": "phot"}).json()] == ["style"]
    assert web.get("/completions", params={"q": "x" * 101}).status_code == 422


def test_tokens_are_those_of_the_text_that_is_encoded(web: Any) -> None:
    def count(**body: Any) -> int:
        return int(web.post("/tokens", json=body).json()["count"])

    assert count(text="cat") == 1
    assert count(text="cat <lora:x:1> # note") == 1
    assert count(text="cat", styles=["Photo"]) == count(text="photo of cat, 8k")
    assert count(text="dark", styles=["Photo"], negative=True) == count(text="dark, lowres")
    assert count(text="cat", styles=["gone"]) == 1
    assert count(text="a AND b b b") == 3
    assert count(text="a AND b b b", negative=True) == 5
    assert count(text="[a:b c d:0.5] e") == 4
    assert count(text="((cat))", emphasis="None") == 3
    assert web.post("/tokens", json={"text": "a", "styles": "Photo"}).status_code == 422
    assert web.post("/tokens", json={"text": "a", "steps": -5}).status_code == 422


def test_an_embedding_takes_as_many_tokens_as_it_has_vectors_where_the_checkpoint_can_use_it(
    web: Any, fake_jobs: FakeJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def count(text: str, **body: Any) -> int:
        return int(web.post("/tokens", json={"text": text, **body}).json()["count"])

    words = count("a bad-hands-5 b")
    four = FakeModel("bad-hands-5.pt", kind="embedding", variant="4 vectors")
    wide = FakeModel("wide.safetensors", kind="embedding", variant="1 vector", context_dim=2048)
    closed = FakeModel("closed.bin", kind="embedding", variant="9 vectors", runnable=False)
    monkeypatch.setattr(fake_jobs.catalog, "embeddings", (four, wide, closed))
    assert count("a bad-hands-5 b") == 6 != words
    assert count("a BAD-hands-5 b", negative=True, checkpoint="photo/base-v15.safetensors") == 6
    assert count("wide, bad-hands-5") == 6
    assert count("wide, bad-hands-5", read_as_words="x, Bad-Hands-5") == 7
    assert count("bad-hands-5", checkpoint="no such checkpoint") == 4
    assert web.get("/tokens", params={"text": "a bad-hands-5"}).json()["count"] == 5
    assert count("closed") == 1  # it may not be opened, so it is a word
    assert count("[bad-hands-5:x y:0.5] z") == 5
    monkeypatch.setattr(fake_jobs.catalog, "embeddings", (FakeModel("wide.pt", variant="9 vectors", context_dim=2048),))
    assert (count("wide"), count("wide", checkpoint="photo/base-v15.safetensors")) == (9, 1)


def test_an_embedding_inside_of_a_lora_counts_while_the_text_names_the_lora(web: Any, fake_jobs: FakeJobs) -> None:
    shapes = {"bundle_emb.v1.5style.emb_params": (8, 768), "bundle_emb.out.emb_params_out": (8, 768)}
    fake_jobs.catalog.loras = (FakeModel("film.safetensors", metadata={BUNDLED: json.dumps(bundled_in(shapes))}),)
    try:
        for text, tokens in (("v1.5style", 5), ("v1.5style <lora:film:1>", 8), ("v1.5style # <lora:film:1>", 5)):
            assert web.post("/tokens", json={"text": text}).json()["count"] == tokens
            beside = {"text": "v1.5style", "negative": True, "prompt": text}
            assert web.post("/tokens", json=beside).json()["count"] == tokens
    finally:
        fake_jobs.catalog.loras = ()


def test_a_text_is_read_in_the_terms_of_this_machine(web: Any) -> None:
    text = (
        "photo of a cat, 8k\nNegative prompt: dark, lowres\nSteps: 9, Sampler: Euler a, CFG scale: 5, Seed: 3, "
        "Size: 512x768, Model hash: 6ce0161689, Model: v1-5-pruned-emaonly, VAE: nowhere.pt"
    )
    found = web.post("/infotext", json={"text": text}).json()
    assert (found["prompt"], found["negative_prompt"], found["styles"]) == ("a cat", "dark", ["Photo"])
    assert found["params"]["checkpoint"] == "photo/base-v15.safetensors"
    assert "vae" not in found["params"]
    notes = [model["note"] for model in found["models"]]
    assert "is called photo/base-v15.safetensors here" in notes[0]
    assert notes[1].startswith("There is no VAE nowhere.pt")
    assert (found["params"]["steps"], found["params"]["height"]) == (9, 768)


def test_a_model_of_the_same_name_but_other_content_is_told(web: Any) -> None:
    text = "x\nSteps: 9, Sampler: Euler a, Seed: 3, Model hash: ffffffffff, Model: base-v15"
    (model,) = web.post("/infotext", json={"text": text}).json()["models"]
    assert model["here"] == "photo/base-v15.safetensors"
    assert "other content" in model["note"]


def test_a_lora_is_found_under_its_name_here_by_its_hash(web: Any, fake_jobs: FakeJobs) -> None:
    lora = FakeModel("grain_v2.safetensors", "SD1", metadata={"sshs_model_hash": "63cabf0b2a0d" + "0" * 52})
    fake_jobs.catalog.loras = (lora,)
    text = 'a <lora:film:0.8>\nSteps: 9, Sampler: Euler, Seed: 3, Lora hashes: "film: 63cabf0b2a0d"'
    try:
        found = web.post("/infotext", json={"text": text}).json()
    finally:
        fake_jobs.catalog.loras = ()
    assert found["prompt"] == "a <lora:grain_v2:0.8>" == found["params"]["prompt"]
    assert "called" in found["models"][0]["note"]


@pytest.fixture
def reader(tmp_path: Path) -> ParametersReader:
    """Reads texts where two LoRAs are called detail and one is called other, with all hashes known."""
    paths = Paths.under(tmp_path)
    paths.make_folders()
    for seed, name in enumerate(("SD15/detail", "SDXL/detail", "other")):
        names = ("up", "down")
        write(
            paths.loras[0] / f"{name}.safetensors",
            {f"lora_unet_a.lora_{n}.weight": torch.ones(seed + 1) for n in names},
        )
    catalog = Catalog(paths)
    for lora in catalog.loras:
        catalog.sha256(lora), catalog.addnet_hash(lora)
    catalog.refresh()
    return ParametersReader(catalog, SettingsStore(Settings(), paths.config_file), StyleBook(list, paths.styles_file))


def pasted(reader: ParametersReader, prompt: str, name: str, of: str, more: str = "") -> tuple[dict[str, Any], str]:
    """The params, and the note on the first LoRA, where "Lora hashes" has the hash of the file `of` under `name`."""
    loras = {lora.name_without_suffix: reader._catalog.addnet_hash(lora)[:12] for lora in reader._catalog.loras}
    hashes = f'Lora hashes: "{name}: {loras.get(of, of)}"'
    view = reader.view(reader.read(f"{prompt}\nSteps: 9, Sampler: Euler, Seed: 3, Size: 64x64, {more}{hashes}"))
    return view.params, view.models[0].note


@pytest.mark.parametrize(
    ("name", "of", "here", "note"),
    [
        ("detail", "SDXL/detail", "SDXL/detail", 'is called "SDXL/detail" here'),
        ("detail", "SD15/detail", "detail", ""),
        ("other", "SDXL/detail", "SDXL/detail", 'is called "SDXL/detail" here'),
        ("other", "0123456789ab", "other", "has other content"),
        ("gone", "other", "other", 'is called "other" here'),
        ("SDXL/detail", "", "SDXL/detail", ""),
    ],
)
def test_the_hash_says_which_lora_a_tag_means_before_the_name(
    name: str, of: str, here: str, note: str, reader: ParametersReader
) -> None:
    params, said = pasted(reader, f"a <lora:{name}:0.8>", name, of)
    assert params["prompt"] == f"a <lora:{here}:0.8>"
    assert note in said if note else not said


def test_tags_of_the_hires_prompt_get_the_names_that_loras_have_here_too(reader: ParametersReader) -> None:
    hires = 'Denoising strength: 0.5, Hires upscale: 2, Hires upscaler: Latent, Hires prompt: "b <lora:gone:1>", '
    params, said = pasted(reader, "a", "gone", "other", hires)
    assert params["hires"]["prompt"] == "b <lora:other:1>"
    assert "is called" in said


def test_an_embedding_is_known_by_its_hash_before_its_name(web: Any, fake_jobs: FakeJobs) -> None:
    named = FakeModel("bad.pt", short_hash="1111111111")
    fake_jobs.catalog.embeddings = (named, FakeModel("worse.pt", short_hash="2222222222"))
    try:
        for digest, here, said in (
            ("111111111100", "bad", ""),
            ("222222222200", "worse", "is called"),
            ("333333333333", "bad", "other content"),
        ):
            text = f'bad\nSteps: 9, Sampler: Euler, Seed: 3, TI hashes: "bad: {digest}"'
            (found,) = web.post("/infotext", json={"text": text}).json()["models"]
            assert found["here"] == here
            assert said in found["note"] if said else not found["note"]
    finally:
        fake_jobs.catalog.embeddings = ()


def test_completion_tells_files_of_one_name_apart_and_escapes_what_would_begin_a_comment(
    reader: ParametersReader,
) -> None:
    catalog = reader._catalog
    other = next(lora for lora in catalog.loras if lora.stem == "other")
    other.path.rename(other.path.with_name("my#style.safetensors"))
    catalog.refresh()
    found = complete("", ["lora"], catalog, StyleBook(list, other.path), other.path)
    assert {f.insert for f in found} == {"<lora:SD15/detail:1>", "<lora:SDXL/detail:1>", r"<lora:my\#style:1>"}


def test_a_picture_of_another_program_is_read(web: Any) -> None:
    graph = {
        "1": {"class_type": "KSampler", "inputs": {"seed": 5, "steps": 8, "cfg": 3.5, "sampler_name": "euler",
              "scheduler": "normal", "positive": ["2", 0], "negative": ["3", 0]}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "a fox"}},
        "3": {"class_type": "CLIPTextEncode", "inputs": {"text": "rain"}},
    }  # fmt: skip
    info = PngImagePlugin.PngInfo()
    info.add_text("prompt", json.dumps(graph))
    buffer = io.BytesIO()
    Image.new("RGB", (48, 32)).save(buffer, "PNG", pnginfo=info)
    found = web.post("/png-info", content=buffer.getvalue()).json()
    assert found["dialect"] == "ComfyUI"
    assert (found["prompt"], found["negative_prompt"], found["params"]["seed"]) == ("a fox", "rain", 5)
    assert "prompt" in found["other"]


def test_hostile_texts_are_answered(web: Any) -> None:
    for text in (
        "",
        "{" * 10_000,
        "<lora:x:1>" * 500,
        "Steps: 20, " * 5000,
        "\ud800".encode("utf-8", "replace").decode(),
    ):
        assert web.post("/infotext", json={"text": text}).status_code == 200
    assert web.post("/infotext", json={"text": 5}).status_code == 422
