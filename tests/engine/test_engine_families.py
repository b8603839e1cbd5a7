"""Every family that runs, against diffusers' own pipeline on the same small file: the same prompts, latents, steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from engine_runs import pixels_of, run
from family_models import RECIPES, SIDE
from family_runs import SHAPE, Models, condition, same_picture
from safetensors.torch import load_file, save_file

from webui import infotext
from webui.engine.files.dims import END
from webui.engine.files.weights import Weights
from webui.engine.refiner import Switch
from webui.events import Loading
from webui.prompt import chunk_text, clip_tokenizer
from webui.sampling import sigma_table

INPAINTING = ("sd1-inpainting", "sd2-inpainting", "sdxl-inpainting")
TEXT_TO_IMAGE = ("sd2", "sd2-v", "sd2-zero-snr", "sdxl", "sdxl-v")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Any:
    models = Models(tmp_path_factory.mktemp("families"))
    yield models
    models.engine.close()


@pytest.mark.parametrize("name", RECIPES)
def test_the_catalog_names_the_family_and_lets_it_run(models: Models, name: str) -> None:
    file = models.engine._tools.catalog.find_checkpoint(name)
    recipe = RECIPES[name]
    wanted = "v" if recipe.prediction == "v" or "v_pred" in recipe.marks else "eps"
    assert (file.family, file.reason, file.prediction, file.native_size) == (recipe.family, "", wanted, SIDE)
    assert file.zero_terminal_snr == ("ztsnr" in recipe.marks)


@pytest.mark.parametrize("name", RECIPES)
def test_every_tensor_is_used_but_those_that_no_network_of_the_family_reads(models: Models, name: str) -> None:
    rest = set(models.checkpoint(name).unused)
    spare = {key for key in rest if key.endswith(("logit_scale", "text_projection")) or ".resblocks.3." in key}
    assert rest - spare == set(RECIPES[name].marks)
    assert ("text_projection" in " ".join(spare)) == name.startswith("sd2")  # SDXL pools with it


@pytest.mark.parametrize("name", ["sd2", "sdxl", "sdxl-refiner"])
@pytest.mark.parametrize("negative", ["", "blurry, grey"])
def test_prompts_are_encoded_as_diffusers_encodes_them(models: Models, name: str, negative: str) -> None:
    found = condition(models, name, "a red apple on a table", negative)
    prompts, uncond = found.at(0, with_uncond=True)
    pipeline = models.pipeline(name)
    with torch.inference_mode():
        theirs = pipeline.encode_prompt(
            prompt="a red apple on a table",
            negative_prompt=negative or None,
            device="cpu",
            num_images_per_prompt=1,
            do_classifier_free_guidance=True,
        )
    torch.testing.assert_close(prompts, theirs[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(uncond[None], theirs[1], rtol=1e-4, atol=1e-4)
    pooled = found.pooled_at(0)
    assert (pooled is None) == (name == "sd2")
    if pooled is not None:
        torch.testing.assert_close(pooled[0], theirs[2], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(pooled[1][None], theirs[3], rtol=1e-4, atol=1e-4)


def test_an_empty_negative_prompt_is_zeros_for_sdxl_and_words_for_its_refiner(models: Models) -> None:
    for name, zero in (("sdxl", True), ("sdxl-refiner", False)):
        found = condition(models, name, "a", "  ")
        _, pooled = found.pooled_at(0) or (None, None)
        assert pooled is not None
        assert bool((found.at(0, True)[1] == 0).all()) == bool((pooled == 0).all()) == zero  # type: ignore[operator]


def test_clip_skip_1_and_2_mean_the_same_for_sd2_which_was_trained_with_the_last_layer_but_one(models: Models) -> None:
    first, second, third = (condition(models, "sd2", "a cat", clip_skip=n).at(0, False)[0] for n in (1, 2, 3))
    assert torch.equal(first, second)
    assert not torch.equal(second, third)


@pytest.mark.parametrize("name", ["sdxl", "sdxl-refiner"])
def test_clip_skip_has_no_say_in_sdxl(models: Models, name: str) -> None:
    """Each encoder's last layer but one, before the norm, as transformers' own encoders of the same file give it."""
    ids = torch.tensor([chunk_text("a cat", clip_tokenizer())[0].ids])
    end = ids[0].tolist().index(END) + 1
    pipeline = models.pipeline(name)
    wanted = []
    with torch.inference_mode():
        if pipeline.text_encoder is not None:
            wanted.append(pipeline.text_encoder(ids, output_hidden_states=True).hidden_states[-2][0])
        ids[0, end:] = 0  # what the second one is padded with
        wanted.append(pipeline.text_encoder_2(ids, output_hidden_states=True).hidden_states[-2][0])
    for skip in (1, 2, 3, 12):
        found = condition(models, name, "a cat", clip_skip=skip)
        torch.testing.assert_close(found.at(0, False)[0][0], torch.cat(wanted, dim=-1), rtol=1e-4, atol=1e-4)


def test_a_clip_skip_that_sdxl_does_not_heed_is_told(models: Models) -> None:
    told = {}
    for skip in (2, 3):
        made = run(models.engine, checkpoint="sdxl", clip_skip=skip, width=64, height=64, steps=1)
        told[skip] = [warning.text for warning in made.warnings if warning.code == "clip_skip"]
    assert told == {2: [], 3: ["Clip skip 3 had no effect: this model reads its text from one layer."]}


def test_the_pooled_vector_is_that_of_the_first_chunk_and_emphasis_leaves_it_alone(models: Models) -> None:
    plain, *others = (
        condition(models, "sdxl", text).pooled_at(0)[0]  # type: ignore[index]
        for text in ("a cat", "a cat BREAK a dog", "a (cat:1.4)")
    )
    assert all(torch.equal(plain, other) for other in others)


@pytest.mark.parametrize("name", TEXT_TO_IMAGE)
def test_a_whole_picture_is_that_of_diffusers(models: Models, name: str) -> None:
    same_picture(models, name, {"negative_prompt": "blurry"}, {
        "negative_prompt": "blurry", "width": SIDE, "height": SIDE,
    })  # fmt: skip


def test_sizes_and_crop_are_told_to_sdxl_as_diffusers_tells_them(models: Models) -> None:
    told = {"original_width": 512, "original_height": 384, "crop_left": 16, "crop_top": 32, "target_width": 256}
    same_picture(models, "sdxl", told, {
        "width": SIDE, "height": SIDE, "original_size": (384, 512), "crops_coords_top_left": (32, 16),
        "target_size": (SIDE, 256),
    })  # fmt: skip
    plain, other = (run(models.engine, checkpoint="sdxl", **words).digests for words in ({}, told))
    assert plain != other


def test_a_batch_of_sdxl_equals_its_singles(models: Models) -> None:
    batch = run(models.engine, checkpoint="sdxl", batch_size=2, prompt="a {cat|dog|bird}").digests
    singles = [run(models.engine, checkpoint="sdxl", seed=7 + i, prompt="a {cat|dog|bird}").digests[0] for i in (0, 1)]
    assert batch == singles


@pytest.mark.parametrize("cfg_scale", [1.0, 8.0])
def test_an_lcm_is_told_its_guidance_and_draws_what_diffusers_draws(models: Models, cfg_scale: float) -> None:
    pipeline, table = models.pipeline("sd1-lcm"), models.checkpoint("sd1-lcm").table
    pipeline.scheduler.set_timesteps(4)
    sigmas = tuple(float(table[t]) for t in pipeline.scheduler.timesteps)
    pipeline.scheduler.init_noise_sigma = sigmas[0] / (1 + sigmas[0] ** 2) ** 0.5  # its own is 1, a quarter % more
    words = {"prompt": "a red apple", "width": SIDE, "height": SIDE}
    made = run(models.engine, checkpoint="sd1-lcm", sampler="LCM", steps=4, sigmas=(*sigmas, 0.0), seed=3,
               cfg_scale=cfg_scale, quantize_timesteps=True, **words)  # fmt: skip
    picture = pipeline(
        **words,
        num_inference_steps=4,
        guidance_scale=cfg_scale,
        generator=torch.Generator().manual_seed(3),
        output_type="np",
    ).images[0]
    ours = pixels_of(made.images[0]).astype(int)
    assert ours.max() - ours.min() > 30  # not one grey area
    assert abs(ours - picture * 255).max() <= 1.01


def test_an_lcm_that_is_told_its_guidance_reads_no_negative_prompt_and_says_so(models: Models) -> None:
    plain, negative, weak = (
        run(models.engine, checkpoint="sd1-lcm", sampler="LCM", cfg_scale=scale, negative_prompt=text)
        for scale, text in ((8.0, ""), (8.0, "blurry"), (4.0, ""))
    )
    assert plain.digests == negative.digests != weak.digests
    assert [w.code for w in plain.warnings] == []
    assert [w.code for w in negative.warnings] == ["negative"]
    assert "trained with its guidance" in negative.warnings[0].text


@pytest.mark.parametrize("name", INPAINTING)
def test_an_inpainting_checkpoint_without_a_picture_draws_what_diffusers_draws_under_a_full_mask(
    models: Models, name: str
) -> None:
    pipeline = models.pipeline(name)
    with torch.inference_mode():
        grey = pipeline.vae.encode(torch.zeros(1, 3, SIDE, SIDE)).latent_dist.mean * pipeline.vae.config.scaling_factor
    same_picture(models, name, {"negative_prompt": "blurry"}, {
        "negative_prompt": "blurry", "width": SIDE, "height": SIDE, "strength": 1.0,
        "image": torch.zeros(1, 3, SIDE, SIDE), "mask_image": torch.ones(1, 1, SIDE, SIDE),
        "masked_image_latents": grey,
    })  # fmt: skip


def test_the_channels_of_an_inpainting_unet_are_the_mask_and_the_hidden_picture(models: Models) -> None:
    from webui.catalog import VaeChoice
    from webui.engine.latents.inpainting import inpaint_channels

    name = "sd1-inpainting"
    checkpoint, module = models.checkpoint(name), models.pipeline(name).vae
    with torch.inference_mode():
        vae = models.engine._tools.store.vae(checkpoint, VaeChoice(None), lambda _event: None)
        pixels = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 2 - 1
        mask = torch.zeros(1, 1, SIDE, SIDE)
        mask[..., : SIDE // 2] = 1
        found = inpaint_channels(vae, pixels, mask)
        hidden = module.encode(pixels * (mask < 0.5)).latent_dist.mean * module.config.scaling_factor
        seen = inpaint_channels(vae, pixels, mask, strength=0.0)
        whole = module.encode(pixels).latent_dist.mean * module.config.scaling_factor
    assert found[0, 0].tolist() == [[1.0] * 4 + [0.0] * 4] * 8
    torch.testing.assert_close(found[:, 1:], hidden, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(seen[:, 1:], whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("bias", "predicts", "words"), [(-3.0, "v", "velocity (v)"), (1.0, "eps", "noise (eps)")])
def test_an_sd2_model_that_does_not_say_what_it_predicts_is_tried_once_it_is_loaded(
    models: Models, bias: float, predicts: str, words: str
) -> None:
    tensors = load_file(models.files["sd2"])
    tensors["model.diffusion_model.out.2.bias"] += bias
    said = {key: value for key, value in Weights(models.files["sd2"]).metadata.items() if key != "prediction_type"}
    folder = models.files["sd2"].parent
    save_file(tensors, folder / f"silent-{predicts}.safetensors", said)
    save_file(tensors, folder / f"marked-{predicts}.safetensors", {**said, "prediction_type": predicts})
    models.engine._tools.catalog.refresh()
    file = models.engine._tools.catalog.find_checkpoint(f"silent-{predicts}")
    assert not file.prediction_known
    assert "until then" in file.problems[0]
    lines = [event.line for event in models.engine.load(file.name) if isinstance(event, Loading)]
    assert any(f"tried, it is {words}" in line for line in lines)
    small = {"width": SIDE, "height": SIDE, "steps": 2}
    silent, marked = (run(models.engine, checkpoint=f"{n}-{predicts}", **small) for n in ("silent", "marked"))
    assert silent.digests == marked.digests
    assert not any("does not say what it predicts" in line for line in marked.lines)


def test_a_refiner_goes_on_where_the_base_stopped_as_in_diffusers(models: Models) -> None:
    base, refiner = models.pipeline("sdxl"), models.pipeline("sdxl-refiner")
    base.scheduler.set_timesteps(4)
    words = {"prompt": "a red apple", "negative_prompt": "blurry"}
    settings = {"sampler": "Euler", "steps": 4, "cfg_scale": 5.0, "quantize_timesteps": True, "seed": 3}
    sigmas = tuple(float(s) for s in base.scheduler.sigmas)
    made = run(models.engine, checkpoint="sdxl", refiner="sdxl-refiner", refiner_switch_at=0.5, sigmas=sigmas,
               **settings, **words)  # fmt: skip
    shared = {"num_inference_steps": 4, "guidance_scale": 5.0, "output_type": "latent", **words}
    half = base(
        width=SIDE,
        height=SIDE,
        denoising_end=0.5,
        latents=torch.randn(SHAPE, generator=torch.Generator().manual_seed(3)),
        **shared,
    ).images
    latents = refiner(image=half, denoising_start=0.5, **shared).images
    with torch.inference_mode():
        decoded = base.vae.decode(latents / base.vae.config.scaling_factor, return_dict=False)[0]
    picture = base.image_processor.postprocess(decoded, output_type="np")[0]
    assert abs(pixels_of(made.images[0]).astype(int) - picture * 255).max() <= 1.01
    assert set(models.engine.loaded) == {"sdxl.safetensors", "sdxl-refiner.safetensors"}
    alone = run(models.engine, checkpoint="sdxl", sigmas=sigmas, **settings, **words)
    assert alone.digests != made.digests
    assert models.engine.loaded == ("sdxl.safetensors",)  # one is kept, as the settings say
    told = infotext.parse(made.images[0].infotext).params
    assert told["refiner"].startswith("sdxl-refiner [")
    assert told["refiner_switch_at"] == 0.5
    again = {name: value for name, value in told.items() if name not in ("width", "height")}
    assert run(models.engine, **again).digests == made.digests
    assert "Refiner" not in alone.images[0].infotext


def test_a_refiner_of_other_latents_is_refused_by_name(models: Models) -> None:
    error = run(models.engine, checkpoint="sd2", refiner="sdxl-refiner").error
    assert error["error"] == "UnsupportedModel"
    assert "SDXL refiner" in error["message"]
    assert "SD2" in error["message"]


def test_the_switch_counts_trained_timesteps_or_calls() -> None:
    table = sigma_table()
    by_time = Switch(0.8, False, 20, table)
    assert not by_time.reached(float(table[200]), 19)
    assert by_time.reached(float(table[199]), 0)
    by_calls = Switch(0.8, True, 20, table)
    assert not by_calls.reached(0.0, 15)
    assert by_calls.reached(float(table[-1]), 16)


@pytest.mark.parametrize("name", ["sd1-lcm", "sd2-zero-snr", "sdxl", "sdxl-refiner", *INPAINTING])
def test_a_diffusers_folder_is_the_same_model_as_the_single_file(models: Models, name: str) -> None:
    folder = models.root / "models" / "Stable-diffusion" / f"{name}-folder"
    models.pipeline(name).save_pretrained(folder)
    found = models.engine._tools.catalog.find_checkpoint(folder.name)
    recipe = RECIPES[name]
    assert (found.family, found.reason) == (recipe.family, "")
    assert found.zero_terminal_snr == ("ztsnr" in recipe.marks)
    small = {"width": SIDE, "height": SIDE, "steps": 2}
    single = run(models.engine, checkpoint=f"{name}.safetensors", **small).digests
    assert run(models.engine, checkpoint=folder.name, **small).digests == single
