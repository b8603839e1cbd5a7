"""The files in models/ do what training/README.md says of them, through the real engine, and are small."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from embedded import EMBEDDED_CHECKPOINT, install_embedded, link_or_copy
from engine_runs import make_engine, pixels_of, run
from picture_inputs import box_mask, keep
from PIL import Image

from training.adapters import BLOCK, blockiness
from training.evaluate import shape_tasks
from training.generate import Studio
from training.judge import background_of, colours_of, count_of, foreground, shape_of
from training.model import open_checkpoint
from training.scenes import draw
from training.vae import psnr
from webui.engine import Engine
from webui.engine.checkpoints.loader import Target, fill, plan_vae
from webui.engine.compute.device import cpu_has_bf16
from webui.engine.files.dims import vae_dims
from webui.engine.files.weights import Weights
from webui.paths import REPO_ROOT

MODELS = REPO_ROOT / "models"
MB = 10**6
USUAL = {"steps": 20, "sampler": "DPM++ 2M", "schedule": "Karras", "cfg_scale": 5.0, "width": 128, "height": 128}


@pytest.fixture(scope="module")
def studio() -> Studio:
    """In bf16 where the processor computes in it; elsewhere that takes twenty times as long as fp32."""
    return Studio.open(EMBEDDED_CHECKPOINT, torch.bfloat16 if cpu_has_bf16() else torch.float32)


@pytest.fixture(scope="module")
def equipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """With every file that ships."""
    root = tmp_path_factory.mktemp("equipped")
    install_embedded(root)
    for kind in ("Lora", "embeddings", "VAE"):
        (root / "models" / kind).mkdir(parents=True, exist_ok=True)
        for file in (MODELS / kind).glob("*.safetensors"):
            link_or_copy(file, root / "models" / kind / file.name)
    engine = make_engine(root)
    yield engine
    engine.close()


def drawn(engine: Engine, **fields: Any) -> np.ndarray:
    """The picture (H, W, 3), made without a warning."""
    made = run(engine, **{**USUAL, **fields})
    assert made.warnings == []
    return pixels_of(made.images[0])


@pytest.mark.skipif(not (REPO_ROOT / ".git").exists(), reason="not a clone: nobody knows what is tracked")
def test_the_files_are_as_small_as_was_promised() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPO_ROOT, capture_output=True, check=True, text=True)
    sizes = {name: (REPO_ROOT / name).stat().st_size for name in listed.stdout.split("\0") if name}
    assert sum(sizes.values()) < 58 * MB
    most = {"Stable-diffusion": 44, "VAE": 9, "Lora": 3, "embeddings": 1, "ESRGAN": 2}
    for name, size in sizes.items():
        if name.startswith("models/"):
            assert size <= most[name.split("/")[1]] * MB, name


def test_colours_and_shapes_are_what_was_asked_for(studio: Studio) -> None:
    tasks = shape_tasks(random.Random(3), 8)
    pictures = studio.draw([task.prompt for task in tasks])
    right = 0
    for task, picture in zip(tasks, pictures, strict=True):
        colours = colours_of(picture) == (task.scene.colours[0], task.scene.background)
        right += colours and shape_of(picture) == task.scene.shapes[0]
    assert right >= 7


def test_things_are_counted(studio: Studio) -> None:
    prompts = ["an apple", "two apples", "three cars", "four mushrooms"]
    counted = [count_of(picture) for picture in studio.draw(prompts)]
    assert sum(found == wanted for found, wanted in zip(counted, [1, 2, 3, 4], strict=True)) >= 3


def test_seeds_give_pictures_that_differ_in_more_than_noise(studio: Studio) -> None:
    pictures = studio.draw(["a red apple"] * 4).astype(float)
    backgrounds = np.stack([background_of(picture) for picture in pictures.astype(np.uint8)])
    assert np.ptp(backgrounds, axis=0).max() > 10
    differences = [np.abs(a - b).mean() for i, a in enumerate(pictures) for b in pictures[:i]]
    assert min(differences) > 5


@pytest.mark.parametrize("size", [(96, 96), (192, 128), (128, 192), (192, 192)])
def test_other_sizes_stay_sane(engine: Engine, size: tuple[int, int]) -> None:
    picture = drawn(engine, prompt="a red circle on a white background", seed=3, width=size[0], height=size[1])
    assert picture.shape == (size[1], size[0], 3)
    assert colours_of(picture) == ("red", "white")


def test_the_lora_makes_pixel_art(equipped: Engine) -> None:
    usual, blocks = [], []
    for seed in (5, 6):
        usual.append(drawn(equipped, prompt="a red apple, pixel art", seed=seed))
        blocks.append(drawn(equipped, prompt="a red apple, pixel art <lora:pixel-art:1>", seed=seed))
    assert blockiness(np.stack(usual)) < 1.6 / BLOCK  # of the contrast between neighbours; evenly spread: 1 / BLOCK
    assert blockiness(np.stack(blocks)) > 2 * blockiness(np.stack(usual))


def test_the_embedding_makes_things_golden_on_black(equipped: Engine) -> None:
    usual = drawn(equipped, prompt="a car", seed=5)
    golden = drawn(equipped, prompt="golden-night car", seed=5)
    assert background_of(usual).mean() > 128
    assert background_of(golden).mean() < 64
    assert colours_of(golden)[0] in ("yellow", "orange", "brown")


def test_the_second_vae_restores_better_and_its_choice_shows(equipped: Engine) -> None:
    (file,) = (MODELS / "VAE").glob("*.safetensors")
    weights = Weights(file)
    shapes = {name: info.shape for name, info in weights.tensors.items()}
    second = fill(plan_vae(weights, vae_dims(shapes, None)), Target(torch.device("cpu"), torch.float32))
    scenes = [draw(task.scene, [], 128) for task in shape_tasks(random.Random(4), 6)]
    pictures = np.stack([np.asarray(scene) for scene in scenes])
    first = open_checkpoint(EMBEDDED_CHECKPOINT).vae
    assert psnr(second, pictures).mean() > psnr(first, pictures).mean() + 0.3
    usual = drawn(equipped, prompt="a red apple", seed=5)
    chosen = drawn(equipped, prompt="a red apple", seed=5, vae=file.name)
    assert 0 < np.abs(usual.astype(float) - chosen.astype(float)).mean() < 8


def test_a_picture_from_a_picture_keeps_its_place(engine: Engine, root: Path) -> None:
    picture = Image.new("RGB", (128, 128), "white")
    picture.paste((30, 60, 220), (12, 12, 60, 60))
    source = keep(root / "outputs", picture)
    init = {"image": source, "denoising_strength": 0.6}
    made = drawn(engine, prompt="a red square on a white background", seed=5, init=init)
    assert colours_of(made) == ("red", "white")
    rows, columns = np.nonzero(foreground(made))
    assert rows.mean() < 56
    assert columns.mean() < 56


def test_inpainting_draws_into_its_place(engine: Engine, root: Path) -> None:
    source = keep(root / "outputs", Image.new("RGB", (128, 128), "white"))
    mask = keep(root / "outputs", box_mask((128, 128), (32, 32, 128, 128)))
    init, inpaint = {"image": source, "denoising_strength": 1.0}, {"mask": mask, "fill": "latent noise"}
    made = drawn(engine, prompt="a green circle on a white background", seed=5, init=init, inpaint=inpaint)
    assert colours_of(made) == ("green", "white")


def test_a_second_pass_keeps_the_picture(engine: Engine) -> None:
    hires = {"upscaler": "Latent", "scale": 1.5, "denoising_strength": 0.6}
    made = drawn(engine, prompt="a red circle on a blue background", seed=5, hires=hires)
    assert made.shape == (192, 192, 3)
    assert colours_of(made) == ("red", "blue")


@pytest.mark.parametrize("scale", [1.0, 3.0, 12.0])
def test_every_scale_of_guidance_gives_a_picture(engine: Engine, scale: float) -> None:
    made = drawn(engine, prompt="a red circle on a blue background", seed=5, cfg_scale=scale)
    assert colours_of(made)[1] == "blue"
    assert made.std() > 20
