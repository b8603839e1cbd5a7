"""Readers of others find in our files what they are made to find. Each runs where it is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from webui import infotext, pictures
from webui.params import make_params

PARAMS = {
    "prompt": "a cat, (fluffy:1.2) <lora:film:0.8>",
    "negative_prompt": "blurry, lowres",
    "width": 64,
    "height": 48,
    "seed": 77,
    "steps": 12,
    "cfg_scale": 6.5,
    "sampler": "DPM++ 2M",
    "schedule": "Karras",
}


@pytest.fixture(params=["png", "jpeg", "webp"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    text = infotext.format(
        make_params(PARAMS), model_name="emoji", model_hash="0123456789", extra=[("TI hashes", "a: 1, b: 2")]
    )
    path = tmp_path / f"picture.{request.param}"
    path.write_bytes(pictures.encode(Image.new("RGB", (64, 48)), request.param, 90, text))
    return path


def test_sd_parsers_finds_prompts_sampler_and_model(file: Path) -> None:
    sd_parsers: Any = pytest.importorskip("sd_parsers")
    found = sd_parsers.ParserManager().parse(str(file))
    assert found is not None
    assert found.full_prompt == PARAMS["prompt"]
    assert found.full_negative_prompt == PARAMS["negative_prompt"]
    (sampler,) = found.samplers
    assert (sampler.name, sampler.parameters["seed"]) == ("DPM++ 2M", "77")
    assert (sampler.parameters["cfg_scale"], sampler.parameters["steps"]) == ("6.5", "12")
    assert [(model.name, model.hash) for model in found.models] == [("emoji", "0123456789")]


def test_sd_geninfo_finds_the_same_text(file: Path) -> None:
    sd_geninfo: Any = pytest.importorskip("sd_geninfo.sd_geninfo")
    with Image.open(file) as image:
        text, _ = sd_geninfo.read_geninfo(image)
    assert text == pictures.read_text(file.read_bytes())[0]


def test_sd_prompt_reader_finds_prompts_and_size(file: Path) -> None:
    module: Any = pytest.importorskip("sd_prompt_reader.image_data_reader", exc_type=ImportError)
    found = module.ImageDataReader(str(file))
    assert (found.positive, found.negative) == (PARAMS["prompt"], PARAMS["negative_prompt"])
    assert (int(found.width), int(found.height)) == (64, 48)
