"""Every parameter that draws has a picture here that is made again from its row, bit for bit.

Each case makes two pictures in one batch and replays the second alone. The last test holds that no field of the params
is left out: whoever adds one adds a case.
"""

from __future__ import annotations

from typing import Any

import pytest
from embedded import EMBEDDED_CHECKPOINT
from network_files import write_embedding, write_lora
from workshop import Workshop, params

from webui import events
from webui.names import SAMPLER_NAMES, SCHEDULE_NAMES
from webui.params import GenerationParams

SMALL = {"width": 32, "height": 32, "steps": 3, "batch_size": 2}
STEPWISE = {"sampler": "Euler a", "steps": 4}

CASES: dict[str, dict[str, Any]] = {
    "two prompts, one of them scheduled": {
        "prompt": "a [red:green:2] apple AND a (blue:1.3) bird :0.7",
        "negative_prompt": "[dark|grey]",
        **STEPWISE,
    },
    "old timelines": {"prompt": "a [red:green:1.0] apple", "old_prompt_timelines": True, **STEPWISE},
    "compatibility": {"prompt": "an apple at 12:30", "prompt_compatibility": True},
    "emphasis": {"prompt": "a (red:1.5) [apple]", "emphasis": "No norm", "clip_skip": 2},
    "long prompts": {"prompt": "apple, " * 45, "negative_prompt": "x", "comma_backtrack": 3, "pad_conds": True},
    "choices": {"prompt": "a {red|green|blue|pink} __thing__", "wildcards": True},
    "another VAE": {"vae": "None"},
    "oblong": {"width": 40, "height": 64},
    "several batches": {"batch_count": 2},
    "faster": {"guidance_end": 0.6, "feature_reuse": 2},
    "guidance": {
        "cfg_scale": 3.5,
        "cfg_rescale": 0.7,
        "skip_early_cfg": 0.3,
        "negative_guidance_min_sigma": 3.0,
        "negative_guidance_all_steps": True,
    },
    "dynamic thresholding": {"dynamic_thresholding_percentile": 0.9, "dynamic_thresholding_mimic_scale": 5.0},
    "churn": {"sampler": "Euler", "s_churn": 5.0, "s_tmin": 0.1, "s_tmax": 10.0, "s_noise": 1.01},
    "eta": {"sampler": "DDIM", "eta": 0.6, "quantize_timesteps": True, "zero_terminal_snr": True},
    "the range of the schedule": {
        "schedule": "Polyexponential",
        "sigma_min": 0.1,
        "sigma_max": 12.0,
        "rho": 2.0,
        "discard_penultimate_sigma": True,
        "sgm_noise_multiplier": True,
    },
    "beta": {"schedule": "Beta", "beta_alpha": 0.5, "beta_beta": 0.7},
    "own sigmas": {"sigmas": (14.0, 5.0, 1.0, 0.3)},
    "variations": {"variation_seed": 3, "variation_strength": 0.4},
    "noise": {"rng": "NV", "seed_resize_width": 64, "seed_resize_height": 24, "ensd": 31337, "sampler": "Euler a"},
    "a LoRA": {"prompt": "a red apple <lora:film:0.7:0.4>"},
    "a refiner": {"refiner": EMBEDDED_CHECKPOINT.stem, "refiner_switch_at": 0.5, "refiner_switch_by_steps": True},
    "an embedding": {"prompt": "a red badhands apple"},
    "an embedding's name as a word": {"prompt": "a red badhands apple", "read_as_words": "badhands"},
    "JPEG": {"image_format": "jpeg", "image_quality": 60},
    "AVIF": {"image_format": "avif", "image_quality": 60},
    **{name: {"sampler": name} for name, info in SAMPLER_NAMES.items() if not info.flow},
    # It takes as many steps as it needs, hundreds from noise to picture.
    "DPM adaptive": {"sampler": "DPM adaptive", "sigma_min": 2.0, "sigma_max": 3.0},
    **{f"schedule {name}": {"schedule": name, "sampler": "Euler"} for name in SCHEDULE_NAMES},
}

# Fields whose replay is held elsewhere, or that draw nothing.
ELSEWHERE = {
    "checkpoint": "test_history_engine.py, under another name",
    "extensions": "engine/test_engine_extensions.py",
    "save": "a picture that is kept nowhere has no row",
    "sources": "each picture of a folder is recorded as one alone: engine/test_engine_folders.py",
    **dict.fromkeys(
        (
            *("original_width", "original_height", "crop_left", "crop_top", "target_width", "target_height"),
            *("aesthetic_score", "negative_aesthetic_score"),
        ),
        "of SDXL, which the embedded model is not: engine/test_replay_of_families.py",
    ),
    "faces": "engine/faces/test_engine_faces.py",
    **dict.fromkeys(
        ("init", "inpaint", "hires", "sd_upscale", "extras", "tiling_x", "tiling_y", "vae_tiling"),
        "of pictures to start from: test_replay_of_pictures.py",
    ),
}


@pytest.fixture(scope="module")
def stocked(workshop: Workshop) -> Workshop:
    """The workshop with a wildcard, a LoRA and an embedding."""
    (workshop.paths.wildcards / "thing.txt").write_text("apple\nbird\nrocket\n")
    write_lora(workshop.engine)
    write_embedding(workshop.engine)
    workshop.catalog.refresh()
    return workshop


@pytest.mark.parametrize("name", CASES)
def test_a_later_picture_of_a_batch_is_replayed_alone_and_identical(name: str, stocked: Workshop) -> None:
    history = stocked.history
    job, told = stocked.make(params(**{**SMALL, **CASES[name]}))
    card = history.of_job("", job)[-1]
    hashes = [event.pixels_sha256 for event in told if isinstance(event, events.Image)]
    assert len(set(hashes)) == len(hashes)  # the pictures of the batch differ, so the right one must be found
    child = stocked.replay(card.id)
    assert history.get("", child).record.pixels_sha256 == hashes[-1]
    assert history.difference("", card.id, child).verdict == "identical"


def test_no_field_of_the_params_is_without_a_replay() -> None:
    tried = {field for case in CASES.values() for field in case} | set(SMALL) | {"seed"}
    assert set(GenerationParams.model_fields) - tried == set(ELSEWHERE)
