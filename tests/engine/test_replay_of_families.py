"""Pictures of every family that runs are made again bit for bit; so is what SDXL and its refiner alone are told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from family_models import RECIPES, write_checkpoint
from workshop import Workshop, opened, params

from webui import events
from webui.paths import Paths

SIZES = {
    "original_width": 96,
    "original_height": 80,
    "crop_left": 7,
    "crop_top": 5,
    "target_width": 128,
    "target_height": 112,
}
SCORES = {"aesthetic_score": 8.5, "negative_aesthetic_score": 1.0}
REFINED = {"checkpoint": "sdxl", "refiner": "sdxl-refiner", "refiner_switch_at": 0.4}
# What is asked for, and the same without the fields that are tried: those have to change the picture.
CASES: dict[str, tuple[dict[str, Any], dict[str, Any] | None]] = {
    "sizes and crop": ({"checkpoint": "sdxl", **SIZES}, {"checkpoint": "sdxl"}),
    "the refiner's scores": ({**REFINED, **SCORES}, REFINED),
    "a refiner by steps": ({**REFINED, "refiner_switch_by_steps": True, "refiner_switch_at": 0.6}, REFINED),
    "the refiner alone": ({"checkpoint": "sdxl-refiner", **SCORES}, {"checkpoint": "sdxl-refiner"}),
    "an LCM": ({"checkpoint": "sd1-lcm", "sampler": "LCM", "cfg_scale": 2.0}, None),
    **{name: ({"checkpoint": name}, None) for name in RECIPES if name not in ("sdxl", "sdxl-refiner", "sd1-lcm")},
}


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    def install(paths: Paths) -> None:
        for number, (name, recipe) in enumerate(RECIPES.items()):
            write_checkpoint(paths.checkpoints[0] / f"{name}.safetensors", recipe, seed=number)

    with opened(tmp_path_factory.mktemp("families"), install) as workshop:
        yield workshop


def hashes(told: list[events.Event]) -> list[str]:
    return [event.pixels_sha256 for event in told if isinstance(event, events.Image)]


@pytest.mark.parametrize("name", CASES)
def test_a_later_picture_of_a_batch_is_replayed_alone_and_identical(name: str, families: Workshop) -> None:
    asked, without = CASES[name]
    history, small = families.history, {"batch_size": 2, "negative_prompt": "blurry"}
    job, told = families.make(params(**small, **asked))
    card = history.of_job("", job)[-1]
    child = families.replay(card.id)
    assert history.get("", child).record.pixels_sha256 == hashes(told)[-1]
    assert history.difference("", card.id, child).verdict == "identical"
    if without is not None:
        assert hashes(families.make(params(**small, **without))[1])[-1] != hashes(told)[-1]
