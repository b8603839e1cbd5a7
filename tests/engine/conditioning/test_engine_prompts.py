"""Each picture has its own prompt once wildcards are chosen, and what had no effect is said."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engine_runs import QUICK, run

from webui import infotext, pictures
from webui.engine import Engine
from webui.engine.conditioning.prompts import picture_params
from webui.params import make_params

MIXED = "a {red|green|blue|(yellow:1.3)} {apple|car AND a red car :0.5|[cat:dog:2]}"


@pytest.fixture(scope="module")
def wildcards(engine: Engine) -> Path:
    root = engine._tools.paths.wildcards
    (root / "things").mkdir(parents=True, exist_ok=True)
    (root / "animal.txt").write_text("cat\ndog\nfox\n")
    (root / "things" / "colour.txt").write_text("red\n{dark |}blue\n")
    return root


@pytest.mark.parametrize("sampler", ["Euler a", "DPM++ 2M SDE", "Euler CFG++"])
@pytest.mark.parametrize("cfg_scale", [5.0, 1.0])
def test_a_batch_of_different_prompts_equals_its_singles(engine: Engine, sampler: str, cfg_scale: float) -> None:
    fields = {**QUICK, "prompt": MIXED, "negative_prompt": "{blurry|dark}", "sampler": sampler, "cfg_scale": cfg_scale}
    fields |= {"batch_size": 4, "batch_count": 2, "width": 64, "height": 64, "steps": 3}
    batch = run(engine, **fields)
    prompts = [infotext.parse(image.infotext).prompt for image in batch.images]
    assert len(set(prompts)) > 3
    assert not any("{" in prompt for prompt in prompts)
    for index in (1, 6):
        alone = run(engine, **make_params(fields).single(index).model_dump())
        assert alone.digests == [batch.digests[index]]
        assert infotext.parse(alone.images[0].infotext).prompt == prompts[index]


def test_the_text_in_the_picture_alone_makes_it_again(engine: Engine, wildcards: Path) -> None:
    fields = {"prompt": "a __things/colour__ __animal__", "negative_prompt": "__animal__", "batch_size": 3}
    batch = run(engine, **fields)
    (wildcards / "animal.txt").write_text("bus\n")
    for image in batch.images:
        text, _ = pictures.read_text(Path(image.path).read_bytes())
        params = make_params({**infotext.parse(text).params, "checkpoint": None})
        assert "__" not in params.prompt
        assert run(engine, **params.model_dump()).digests == [image.pixels_sha256]
    (wildcards / "animal.txt").write_text("cat\ndog\nfox\n")


def test_prompt_and_negative_prompt_choose_apart(tmp_path: Path) -> None:
    both = "{" + "|".join(f"w{n}" for n in range(50)) + "}"
    params = make_params({"prompt": both, "negative_prompt": both, "seed": 3, "batch_count": 5})
    chosen = [picture_params(params, index, tmp_path)[0] for index in range(5)]
    assert len({c.prompt for c in chosen}) > 2
    assert any(c.prompt != c.negative_prompt for c in chosen)
    again = picture_params(params.single(2), 0, tmp_path)[0]
    assert (again.prompt, again.negative_prompt) == (chosen[2].prompt, chosen[2].negative_prompt)


def test_what_could_not_be_chosen_is_said_and_kept_as_words(engine: Engine, wildcards: Path) -> None:
    done = run(engine, prompt="a red __animl__", steps=1)
    assert [w.code for w in done.warnings] == ["wildcard"]
    assert 'Did you mean "animal"?' in done.warnings[0].text
    read = infotext.parse(done.images[0].infotext).params
    assert (read["prompt"], read["wildcards"]) == ("a red __animl__", False)
    assert run(engine, prompt="a red __animl__", wildcards=False, steps=1).digests == done.digests


def test_wildcards_that_are_switched_off_are_words_and_that_is_said(engine: Engine) -> None:
    done = run(engine, prompt="a {red|blue} apple", wildcards=False, steps=1)
    assert infotext.parse(done.images[0].infotext).prompt == "a {red|blue} apple"
    assert "switched off" in done.warnings[0].text
    assert not run(engine, prompt="a {prompt} apple", wildcards=False, steps=1).warnings


def test_a_prompt_without_choices_is_the_jobs_own(tmp_path: Path) -> None:
    params = make_params({"prompt": "a_b {x} [a|b]", "seed": 1})
    assert picture_params(params, 0, tmp_path)[0] is params


def test_a_negative_prompt_at_cfg_1_is_said_to_have_no_effect(engine: Engine) -> None:
    def codes(**fields: Any) -> list[str]:
        return [w.code for w in run(engine, steps=1, negative_prompt="blurry", **fields).warnings]

    assert codes(cfg_scale=1.0) == ["negative"]
    assert codes(cfg_scale=1.5) == []
    assert codes(cfg_scale=1.0, prompt="a cat AND a dog") == []
    assert codes(cfg_scale=1.0, sampler="Euler CFG++") == []


def test_an_open_bracket_and_a_mistyped_lora_are_named(own_engine: Engine, write_network: Callable[..., Path]) -> None:
    write_network("Lora/filmgrain.safetensors", {"lora_unet_x.lora_down.weight": (4, 320)})
    own_engine._tools.catalog.refresh()
    done = run(own_engine, prompt="a (red apple <lora:filmgrian:0.8> <lora:filmgrain:1> <hypernet:old:1>", steps=1)
    texts = [w.text for w in done.warnings]
    assert texts[0].startswith('In the prompt: "(" is never closed')
    assert 'There is no LoRA "filmgrian"' in texts[1]
    assert 'Did you mean "filmgrain"?' in texts[1]
    assert "none of its 1 layers is in this model" in texts[2]
    assert 'There is no hypernetwork "old"' in texts[3]


def test_an_embedding_of_another_models_width_is_said_to_be_words(
    own_engine: Engine, write_network: Callable[..., Path]
) -> None:
    write_network("embeddings/badhands.safetensors", {"emb_params": (2, 1024)})
    own_engine._tools.catalog.refresh()
    done = run(own_engine, prompt="a red apple", negative_prompt="(badhands:1.2)", steps=1)
    assert [w.code for w in done.warnings] == ["embedding"]
    assert '"badhands"' in done.warnings[0].text
    assert "1024" in done.warnings[0].text
    assert not run(own_engine, prompt="a red apple", negative_prompt="bad hands", steps=1).warnings


def test_a_text_too_long_for_jpeg_makes_a_png_with_a_pngs_name(engine: Engine) -> None:
    image = run(engine, image_format="jpeg", prompt="a red apple # " + "x" * 40_000, steps=1).images[0]
    assert image.path.endswith(".png")
    assert Path(image.path).read_bytes().startswith(b"\x89PNG")


@pytest.fixture
def write_network(data_dir: Path) -> Callable[..., Path]:
    """Write a .safetensors file of zeros below models/."""
    import json

    def write(name: str, shapes: dict[str, tuple[int, ...]]) -> Path:
        header, offset = {}, 0
        for tensor, shape in shapes.items():
            size = 2 * shape[0] * shape[1]
            header[tensor] = {"dtype": "F16", "shape": list(shape), "data_offsets": [offset, offset + size]}
            offset += size
        text = json.dumps(header).encode()
        path = data_dir / "models" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(offset))
        return path

    return write
