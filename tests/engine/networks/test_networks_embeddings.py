"""Textual inversion embeddings in every format, found in prompts by their tokens."""

from __future__ import annotations

import base64
import json
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from embedded import install_embedded
from engine_runs import make_engine, run
from network_files import loaded, vectors, write, write_embedding, write_lora
from PIL import Image, PngImagePlugin
from safetensors.torch import load_file
from torch import Tensor

from webui import infotext
from webui.catalog.lookup import bundled_vectors
from webui.catalog.picture_embedding import _noise, read_picture_embedding
from webui.engine import Engine
from webui.engine.files.weights import Weights
from webui.engine.networks.embeddings import bundled_embeddings, inserted
from webui.errors import BadModelFile
from webui.prompt import EmbeddingNames, chunk_text, clip_tokenizer

PROMPT = "a red apple, badhands"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    root = tmp_path_factory.mktemp("embeddings")
    install_embedded(root)
    engine = make_engine(root, model__allow_pickle=True)
    yield engine
    engine.close()


@pytest.fixture
def folder(engine: Engine) -> Iterator[Path]:
    folder = engine._tools.paths.embeddings[-1]
    yield folder
    for path in folder.iterdir():
        path.unlink()


def picture(engine: Engine, prompt: str = PROMPT, **fields: Any) -> list[str]:
    done = run(engine, prompt=prompt, steps=2, width=64, height=64, **fields)
    assert [w.text for w in done.warnings] == []
    return done.digests


def png_with_text(path: Path, table: Tensor) -> None:
    content = {"string_to_param": {"*": {"TORCHTENSOR": table.tolist()}}, "name": "badhands", "step": 5}
    info = PngImagePlugin.PngInfo()
    info.add_text("sd-ti-embedding", base64.b64encode(json.dumps(content).encode()).decode())
    Image.new("RGB", (8, 8), "white").save(path, pnginfo=info)


def picture_with_pixels(path: Path, table: Tensor) -> None:
    """The low bits of two blocks at the edges, as AUTOMATIC1111 writes them."""
    content = {"string_to_param": {"*": {"TORCHTENSOR": table.tolist()}}, "name": "badhands"}
    data = zlib.compress(json.dumps(content).encode(), 9)
    height, columns = 64, -(-len(data) // (64 * 3))
    block = np.zeros(height * columns * 3, dtype=np.uint8)
    block[: len(data)] = np.frombuffer(data, dtype=np.uint8)
    noise = _noise(block.size) & 0x0F
    low, high = ((half ^ noise).reshape(height, columns, 3) for half in (block & 0x0F, block >> 4))
    black = np.zeros((height, 4, 3), dtype=np.uint8)
    middle = np.full((height, 64, 3), 0xF0, dtype=np.uint8)
    edge = np.full((height, 1, 3), 0x0F, dtype=np.uint8)
    edges = [edge | 0x50, low | 0x50, black, middle, black, high | 0x50, edge | 0x50]
    Image.fromarray(np.concatenate(edges[1:-1], axis=1)).save(path)


FORMATS: dict[str, Any] = {
    "a.safetensors": lambda path, table: write(path, {"emb_params": table}),
    "concept.safetensors": lambda path, table: write(path, {"<badhands>": table}),
    "a1111.pt": lambda path, table: torch.save(
        {"string_to_token": {"*": 265}, "string_to_param": {"*": table}, "name": "x", "step": 5}, path
    ),
    "early.pt": lambda path, table: torch.save(
        {"string_to_param": torch.nn.ParameterDict({"*": torch.nn.Parameter(table)}), "step": 5}, path
    ),
    "diffusers.bin": lambda path, table: torch.save({"<cat>": table}, path),
    "shared.png": png_with_text,
    "pixels.webp": None,
}


@pytest.fixture(scope="module")
def expected(engine: Engine) -> list[str]:
    folder = engine._tools.paths.embeddings[-1]
    path = write_embedding(engine)
    made = picture(engine)
    path.unlink()
    assert made != picture(engine)
    assert list(folder.iterdir()) == []
    return made


@pytest.mark.parametrize("name", [name for name in FORMATS if FORMATS[name]])
def test_every_format_gives_the_same_picture(name: str, engine: Engine, folder: Path, expected: list[str]) -> None:
    table = vectors(loaded(engine))
    path = folder / f"badhands{Path(name).suffix}"
    FORMATS[name](path, table)
    assert picture(engine) == expected


def test_vectors_are_read_from_the_pixels_of_a_picture(tmp_path: Path) -> None:
    table = torch.randn(3, 16, generator=torch.Generator().manual_seed(1)).half().float()
    picture_with_pixels(tmp_path / "a.png", table)
    found = read_picture_embedding(tmp_path / "a.png")
    assert found.name == "badhands"
    assert torch.equal(torch.from_numpy(found.vectors), table)


def test_an_ordinary_picture_holds_no_embedding(tmp_path: Path) -> None:
    Image.effect_noise((64, 64), 50).convert("RGB").save(tmp_path / "a.png")
    with pytest.raises(BadModelFile, match="without an embedding"):
        read_picture_embedding(tmp_path / "a.png")


def test_a_preview_beside_an_embedding_is_no_embedding(engine: Engine, folder: Path, expected: list[str]) -> None:
    write_embedding(engine)
    Image.new("RGB", (8, 8)).save(folder / "badhands.png")
    Image.new("RGB", (8, 8)).save(folder / "badhands.preview.png")
    assert picture(engine) == expected
    assert [model.name for model in engine._tools.catalog.embeddings] == ["badhands.safetensors"]


def test_it_works_in_the_negative_prompt_and_its_weight_acts_on_all_its_vectors(engine: Engine, folder: Path) -> None:
    without = picture(engine, negative_prompt="(badhands:1.2)")
    write_embedding(engine)
    with_it = picture(engine, negative_prompt="(badhands:1.2)")
    assert len({without[0], with_it[0], picture(engine, negative_prompt="badhands")[0]}) == 3


def test_hash_and_record_name_what_was_used_and_nothing_else(engine: Engine, folder: Path) -> None:
    write_embedding(engine)
    write_embedding(engine, "unused", seed=5)
    image = run(engine, prompt=PROMPT, steps=1, width=64, height=64).images[0]
    catalog = engine._tools.catalog
    digest = catalog.sha256(next(m for m in catalog.embeddings if m.stem == "badhands"))
    assert f'TI hashes: "badhands: {digest[:12]}"' in image.infotext
    assert infotext.parse(image.infotext).embedding_hashes == {"badhands": digest[:12]}


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"emb_params": (2, 1024)}, "made for a model with 1024 numbers a token"),
        ({"clip_l": (2, 768), "clip_g": (2, 1280)}, "768 and 1280 numbers"),
        ({"emb_params": (80, 128)}, "80 vectors"),
    ],
)
def test_one_that_does_not_fit_is_words_and_the_reason_is_said(
    tensors: dict[str, tuple[int, ...]], said: str, engine: Engine, folder: Path
) -> None:
    without = picture(engine)
    write(folder / "badhands.safetensors", {name: torch.ones(shape) for name, shape in tensors.items()})
    done = run(engine, prompt=PROMPT, steps=2, width=64, height=64)
    assert done.digests == without
    assert [w.code for w in done.warnings] == ["embedding"]
    assert said in done.warnings[0].text


def test_the_longest_name_is_taken_and_one_that_cannot_be_used_leaves_room(engine: Engine, folder: Path) -> None:
    write_embedding(engine, "bad", seed=8)
    short = picture(engine, "a red apple, bad hands v5")
    write_embedding(engine, "bad hands v5", seed=9)
    assert picture(engine, "a red apple, bad hands v5") != short
    write(folder / "bad hands v5.safetensors", {"emb_params": torch.ones(1, 999)})
    assert run(engine, prompt="a red apple, bad hands v5", steps=2, width=64, height=64).digests == short


def test_an_embedding_is_never_split_over_two_parts_of_a_prompt() -> None:
    tokenizer = clip_tokenizer()
    names = EmbeddingNames({"badhands": 10}, tokenizer)
    chunks = chunk_text("cat " * 70 + "badhands dog", tokenizer, embeddings=names)
    assert len(chunks) == 2
    assert chunks[0].embeddings == ()
    (place,) = chunks[1].embeddings
    assert (place.position, place.vectors) == (1, 10)


def test_the_vectors_stand_exactly_where_the_prompt_has_them() -> None:
    layer = torch.nn.Embedding(10, 4)

    class Encoder(torch.nn.Module):
        def get_input_embeddings(self) -> torch.nn.Embedding:
            return layer

    ids, table = torch.arange(8)[None], torch.full((2, 4), 7.0)
    before = layer(ids)
    with inserted(Encoder(), [(3, table)]):
        after = layer(ids)
    assert torch.equal(after[0, 3:5], table)
    assert torch.equal(after[0, :3], before[0, :3])
    assert torch.equal(after[0, 5:], before[0, 5:])
    assert torch.equal(layer(ids), before)


def test_one_inside_of_a_lora_that_cannot_be_read_is_said_and_neither_the_lora_nor_the_others_are_lost(
    tmp_path: Path,
) -> None:
    table = torch.ones(2, 8)
    bundle = bundled_embeddings(
        Weights(
            write(
                tmp_path / "a.safetensors",
                {
                    "lora_unet_a.lora_up.weight": table,
                    "bundle_emb.v1.5style.emb_params": table.clone(),
                    "bundle_emb.v1.5style.emb_params_out": table.clone(),
                    "bundle_emb.two.clip_l": table.clone(),
                    "bundle_emb.two.clip_g": table.clone(),
                    "bundle_emb.old.string_to_param.*": table.clone(),
                    "bundle_emb.outside.clip_l_out": table.clone(),
                    "bundle_emb.damaged.emb_params": table * float("nan"),
                },
            )
        )
    )
    assert {e.name: e.widths for e in bundle.embeddings} == {"v1.5style": (8,), "two": (8, 8), "old": (8,)}
    assert [name for name, _ in bundle.problems] == ["damaged", "outside"]


def test_an_embedding_inside_of_a_lora_that_cannot_be_read_is_a_warning_with_the_loras_name(engine: Engine) -> None:
    path = write_lora(engine, "plain")
    plain = picture(engine, "a red apple <lora:plain:0.5>")
    write(path, {**load_file(path), "bundle_emb.badhands.emb_params": torch.full((2, 8), float("nan"))})
    engine._tools.catalog.refresh()
    done = run(engine, prompt="a red apple <lora:plain:0.5>", steps=2, width=64, height=64)
    assert done.digests == plain
    assert [w.text for w in done.warnings] == [
        'The embedding "badhands" in the LoRA "plain" cannot be used: the embedding\'s vectors are damaged.'
    ]
    path.unlink()


def test_an_embedding_inside_of_a_lora_is_known_while_the_lora_is_named(engine: Engine, folder: Path) -> None:
    path = write_lora(engine, "plain")
    tensors = load_file(path)
    bundled = {**tensors, "bundle_emb.badhands.string_to_param.*": vectors(loaded(engine))}
    write(path.with_name("bundle.safetensors"), bundled)
    engine._tools.catalog.refresh()
    assert [bundled_vectors(lora) for lora in engine._tools.catalog.loras] == [{"badhands": 2}, {}]
    assert picture(engine, f"{PROMPT} <lora:bundle:0.5>") != picture(engine, f"{PROMPT} <lora:plain:0.5>")
    write_embedding(engine)
    assert picture(engine, f"{PROMPT} <lora:bundle:0.5>") == picture(engine, f"{PROMPT} <lora:plain:0.5>")
    shutil.rmtree(path.parent)
    path.parent.mkdir()
