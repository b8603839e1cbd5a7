"""Readers of others find in our files what they are made to find.

One more, sd-prompt-reader, asks for an older Pillow than ours: `python benchmarks/readers.py` runs all of
them, each in an environment of its own.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

from benchmarks.readers import PARAMS, write
from webui import pictures


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_sd_parsers_finds_prompts_sampler_and_model(kind: str, tmp_path: Path) -> None:
    sd_parsers: Any = pytest.importorskip("sd_parsers")
    found = sd_parsers.ParserManager().parse(str(write(tmp_path, kind)))
    assert found is not None
    assert found.full_prompt == PARAMS["prompt"]
    assert found.full_negative_prompt == PARAMS["negative_prompt"]
    (sampler,) = found.samplers
    assert (sampler.name, sampler.parameters["seed"]) == ("DPM++ 2M", "77")
    assert (sampler.parameters["cfg_scale"], sampler.parameters["steps"]) == ("6.5", "12")
    assert [(model.name, model.hash) for model in found.models] == [("emoji", "0123456789")]


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "avif"])
def test_sd_geninfo_finds_the_same_text(kind: str, tmp_path: Path) -> None:
    sd_geninfo: Any = pytest.importorskip("sd_geninfo.sd_geninfo")
    file = write(tmp_path, kind)
    with Image.open(file) as image:
        text, _ = sd_geninfo.read_geninfo(image)
    assert text == pictures.read_text(file.read_bytes())[0]


def test_sdgp_finds_prompts_and_settings_of_a_png(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sdgp.Gtk", ModuleType("sdgp.Gtk"))  # its windows; reading needs none
    sdgp: Any = pytest.importorskip("sdgp")
    found = sdgp.read_exif(str(write(tmp_path, "png")))
    assert (found["prompt"], found["negativePrompt"]) == (PARAMS["prompt"], "Negative prompt: blurry, lowres")
    assert (found["Steps"], found["Sampler"], found["Seed"], found["Size"]) == ("12", "DPM++ 2M", "77", "64x48")
    assert found["Model hash"] == "0123456789"
