"""Files to networks: names, shapes, and the same results as diffusers' own pipeline on the same weights."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from embedded import EMBEDDED_CHECKPOINT
from engine_runs import make_engine, pixels_of, rewrite, run

from benchmarks.make_sd15 import TEXT, UNET, VAE, specs
from webui.catalog.families import Family
from webui.catalog.sidecar import read_metadata
from webui.engine import Engine
from webui.engine.checkpoints.loaded import LoadedCheckpoint
from webui.engine.checkpoints.loader import (
    Target,
    _without_the_optional,
    fill,
    live_from_file,
    plan_text_encoder,
    plan_unet,
    plan_vae,
)
from webui.engine.files.dims import text_dims, text_encoders, unet_dims, vae_dims
from webui.engine.files.weights import Weights
from webui.errors import BadModelFile
from webui.paths import PACKAGE_DATA

FP32 = Target(torch.device("cpu"), torch.float32)
OPTIONAL = ("xformers", "scipy", "peft")
ASKED = "diffusers.utils.import_utils"


def loaded(engine: Engine) -> LoadedCheckpoint:
    """The checkpoint in the engine's memory."""
    list(engine.load())
    return engine._tools.store._checkpoints[str(next(iter(engine._tools.catalog.checkpoints)).path)]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """diffusers' own reading of the embedded checkpoint, by the configs in its metadata."""
    import transformers
    from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint

    weights = Weights(EMBEDDED_CHECKPOINT)
    tensors = {name: weights.tensor(name).clone() for name in weights.tensors}
    configs = {key: json.loads(weights.metadata[key]) for key in ("unet_config", "vae_config", "text_config")}
    unet = UNet2DConditionModel.from_config(configs["unet_config"])
    vae = AutoencoderKL.from_config(configs["vae_config"])
    text = transformers.CLIPTextModel(transformers.CLIPTextConfig(**configs["text_config"]))
    unet_tensors = {k: v for k, v in tensors.items() if k.startswith("model.diffusion_model.")}
    unet.load_state_dict(convert_ldm_unet_checkpoint(unet_tensors, unet.config))
    vae.load_state_dict(convert_ldm_vae_checkpoint(dict(tensors), vae.config))
    prefix = "cond_stage_model.transformer.text_model."
    text.load_state_dict(
        {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix) and "position_ids" not in k}
    )
    scheduler = PNDMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1)
    scheduler.register_to_config(prediction_type="v_prediction", skip_prk_steps=True)
    words = PACKAGE_DATA / "clip"
    tokenizer = transformers.CLIPTokenizer(
        str(words / "vocab.json"), str(words / "merges.txt"), model_max_length=77, pad_token="<|endoftext|>"
    )
    return StableDiffusionPipeline(
        vae=vae.float().eval(),
        text_encoder=text.float().eval(),
        tokenizer=tokenizer,
        unet=unet.float().eval(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def test_the_embedded_checkpoint_is_used_to_the_last_tensor(engine: Engine) -> None:
    unused = loaded(engine).unused
    assert set(unused) == {
        "alphas_cumprod",
        "cond_stage_model.transformer.text_model.embeddings.position_ids",
    }


def test_a_unet_step_equals_diffusers(engine: Engine, pipeline: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    x, context = torch.randn(2, 4, 16, 24, generator=generator), torch.randn(2, 77, 128, generator=generator)
    t = torch.tensor([999.0, 12.5])
    with torch.inference_mode():
        ours = loaded(engine).unet(x, t, encoder_hidden_states=context, return_dict=False)[0]
        theirs = pipeline.unet(x, t, encoder_hidden_states=context, return_dict=False)[0]
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_decode_and_an_encode_equal_diffusers(engine: Engine, pipeline: Any) -> None:
    checkpoint = loaded(engine)
    vae = checkpoint.baked
    assert vae is not None
    generator = torch.Generator().manual_seed(0)
    latents, pixels = torch.randn(1, 4, 8, 12, generator=generator), torch.rand(1, 3, 64, 96, generator=generator)
    with torch.inference_mode():
        theirs = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor, return_dict=False)[0]
        torch.testing.assert_close(vae.decode_raw(latents), theirs, rtol=1e-4, atol=1e-4)
        mean = pipeline.vae.encode(pixels).latent_dist.mean * pipeline.vae.config.scaling_factor
        torch.testing.assert_close(vae.encode_mean(pixels), mean, rtol=1e-4, atol=1e-4)


def test_a_whole_picture_is_that_of_diffusers(engine: Engine, pipeline: Any) -> None:
    """DDIM has the same definition in both, so the pictures agree to a few steps of brightness."""
    from diffusers import DDIMScheduler

    ours = pixels_of(run(engine, sampler="DDIM", steps=10, cfg_scale=5.0, seed=3).images[0]).astype(int)
    pipeline.scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        steps_offset=1,
        clip_sample=False,
        set_alpha_to_one=True,
    )
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        "a red apple",
        num_inference_steps=10,
        guidance_scale=5.0,
        width=128,
        height=128,
        output_type="np",
        latents=torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(3)),
    ).images[0]
    difference = abs(ours - theirs * 255)
    assert difference.mean() < 3
    assert difference.max() < 60


def test_every_name_of_full_size_sd15_is_that_of_diffusers_conversion() -> None:
    """Tensors that hold their own number go through diffusers' conversion and must come out under our names."""
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint

    from webui.engine.checkpoints.loader import meta_text_encoder, meta_unet, meta_vae
    from webui.engine.files.keys import text_names, unet_names, vae_names

    names = list(specs())
    assert len(names) == len(set(names)) == 686 + 248 + 196
    numbered = {name: torch.full((1, 1, 1, 1), float(i)) for i, name in enumerate(names)}
    unet = meta_unet(UNET)
    theirs = convert_ldm_unet_checkpoint(
        {k: v for k, v in numbered.items() if k.startswith("model.diffusion_model.")}, unet.config
    )
    ours = {p: numbered[unet_names(p, UNET)[0]] for p in unet.state_dict()}
    assert {k: int(v.flatten()[0]) for k, v in theirs.items()} == {k: int(v) for k, v in ours.items()}
    vae = meta_vae(VAE)
    theirs = convert_ldm_vae_checkpoint(
        {k: v for k, v in numbered.items() if k.startswith("first_stage_model.")}, vae.config
    )
    ours = {p: numbered[vae_names(p, VAE)[0]] for p in vae.state_dict()}
    assert {k: int(v.flatten()[0]) for k, v in theirs.items()} == {k: int(v) for k, v in ours.items()}
    text = meta_text_encoder(TEXT)
    assert {text_names(p, TEXT)[0] for p in text.state_dict()} <= set(names)


def test_dimensions_of_full_size_sd15_come_from_the_shapes_alone() -> None:
    shapes = {name: shape for name, (_, shape) in specs().items()}
    assert unet_dims(shapes, None) == UNET
    assert vae_dims(shapes, None) == VAE
    assert text_dims(shapes, None) == TEXT


@pytest.mark.parametrize(("present", "used"), [(24, 23), (23, 23)])
def test_sd2s_text_encoder_has_23_layers_also_where_the_file_left_out_the_one_that_nobody_reads(
    present: int, used: int
) -> None:
    from webui.engine.checkpoints.loader import meta_text_encoder
    from webui.engine.files.keys import text_names

    prefix = "cond_stage_model.model."
    block = {"attn.in_proj_weight": (3072, 1024), "mlp.c_fc.weight": (4096, 1024), "ln_1.weight": (1024,)}
    shapes = {
        f"{prefix}token_embedding.weight": (49408, 1024),
        f"{prefix}positional_embedding": (77, 1024),
        **{f"{prefix}transformer.resblocks.{i}.{n}": s for i in range(present) for n, s in block.items()},
    }
    (dims,) = text_encoders(shapes, None, Family.SD2)
    assert (dims.layers, dims.dropped) == (used, 1)
    wanted = {name for p in meta_text_encoder(dims).state_dict() for name in text_names(p, dims)}
    layers = {int(name.split("resblocks.")[1].split(".")[0]) for name in wanted if "resblocks." in name}
    assert layers == set(range(used))


def test_dimensions_of_the_embedded_model_come_from_its_metadata_and_shapes() -> None:
    weights = Weights(EMBEDDED_CHECKPOINT)
    shapes = {name: info.shape for name, info in weights.tensors.items()}
    sidecar = read_metadata(weights.metadata)
    assert unet_dims(shapes, sidecar).heads == (4, 4, 4)
    assert sidecar is not None
    assert sidecar.vae is not None
    assert vae_dims(shapes, sidecar).groups == 32
    other = replace(sidecar, vae=replace(sidecar.vae, norm_num_groups=8))
    assert vae_dims(shapes, other).groups == 8, "shapes do not tell: the metadata count"
    config = json.loads(weights.metadata["unet_config"])
    ours = unet_dims(shapes, sidecar).diffusers_config()
    for key in ("block_out_channels", "down_block_types", "up_block_types"):
        assert list(ours[key]) == config[key]
    assert (ours["layers_per_block"], ours["cross_attention_dim"]) == (1, 128)


def test_weights_in_the_right_type_stay_memory_mapped_and_others_are_converted() -> None:
    weights = Weights(EMBEDDED_CHECKPOINT)
    shapes = {name: info.shape for name, info in weights.tensors.items()}
    sidecar = read_metadata(weights.metadata)
    dims = text_dims(shapes, sidecar)
    as_stored = fill(plan_text_encoder(weights, dims), Target(torch.device("cpu"), torch.float16))
    assert live_from_file(as_stored, weights)
    converted = fill(plan_text_encoder(Weights(EMBEDDED_CHECKPOINT), dims), FP32)
    assert not live_from_file(converted, weights)
    for ours, theirs in zip(converted.parameters(), as_stored.parameters(), strict=True):
        assert torch.equal(ours, theirs.float())
    with torch.no_grad():
        before = EMBEDDED_CHECKPOINT.read_bytes()[-4096:]
        for parameter in as_stored.parameters():
            parameter.fill_(0.5)  # a private mapping: memory changes, the file does not
    assert EMBEDDED_CHECKPOINT.read_bytes()[-4096:] == before


def test_convolutions_have_their_channels_last() -> None:
    weights = Weights(EMBEDDED_CHECKPOINT)
    shapes = {name: info.shape for name, info in weights.tensors.items()}
    unet = fill(plan_unet(weights, unet_dims(shapes, read_metadata(weights.metadata))), FP32)
    assert unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    assert unet.dtype is torch.float32
    assert not any(p.requires_grad for p in unet.parameters())


@pytest.mark.parametrize("part", ["model.diffusion_model.out.2.bias", "first_stage_model.decoder.conv_out.bias"])
def test_a_missing_tensor_is_named(tmp_path: Path, part: str) -> None:
    path = rewrite(
        EMBEDDED_CHECKPOINT, tmp_path / "model.safetensors", lambda ts: ((k, v) for k, v in ts.items() if k != part)
    )
    weights = Weights(path)
    shapes = {name: info.shape for name, info in weights.tensors.items()}
    sidecar = read_metadata(weights.metadata)
    plan: Any = plan_unet if "diffusion" in part else plan_vae
    dims: Any = unet_dims(shapes, sidecar) if "diffusion" in part else vae_dims(shapes, sidecar)
    with pytest.raises(BadModelFile, match="lacks 1 of the") as caught:
        plan(weights, dims)
    assert part in caught.value.message


def test_old_names_of_the_vaes_attention_are_known(tmp_path: Path) -> None:
    """The first VAE files in the diffusers layout say query, key, value and proj_attn."""
    weights = Weights(EMBEDDED_CHECKPOINT)
    shapes = {name: info.shape for name, info in weights.tensors.items()}
    dims = vae_dims(shapes, read_metadata(weights.metadata))
    ours = fill(plan_vae(weights, dims), FP32).state_dict()
    old = {}
    for name, tensor in ours.items():
        for new, was in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
            name = name.replace(f".{new}.", f".{was}.") if ".attentions." in name else name
        old[name] = tensor.contiguous()
    from safetensors.torch import save_file

    save_file(old, tmp_path / "old.safetensors")
    again = Weights(tmp_path / "old.safetensors")
    dims = vae_dims({n: i.shape for n, i in again.tensors.items()}, None, like=dims)
    assert not dims.ldm
    for name, tensor in fill(plan_vae(again, dims), FP32).state_dict().items():
        assert torch.equal(tensor, ours[name])


def test_a_diffusers_folder_makes_the_same_picture_as_the_single_file(
    data_dir: Path, tmp_path: Path, pipeline: Any
) -> None:
    from diffusers import PNDMScheduler

    pipeline.scheduler = PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction"
    )
    folder = data_dir / "models" / "Stable-diffusion" / "as-folder"
    pipeline.save_pretrained(folder)
    engine = make_engine(data_dir)
    single = run(engine, checkpoint=EMBEDDED_CHECKPOINT.stem, width=64, height=64)
    assert run(engine, checkpoint="as-folder", width=64, height=64).digests == single.digests
    engine.close()


def found() -> list[str]:
    """The packages of which a library that asks hears that they are there, whether or not they are."""
    return [name for name in OPTIONAL if name not in sys.modules or sys.modules[name] is not None]


def test_packages_that_nobody_here_asks_of_the_libraries_are_hidden_while_those_are_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in (ASKED, *OPTIONAL):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with _without_the_optional():
        assert found() == []
        assert importlib.util.find_spec("scipy") is None
    assert found() == [*OPTIONAL]
    assert importlib.util.find_spec("scipy") is not None


def test_what_somebody_uses_already_is_not_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (ASKED, *OPTIONAL):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "scipy", sys)
    with _without_the_optional():
        assert found() == ["scipy"]
    assert sys.modules["scipy"] is sys
    monkeypatch.setitem(sys.modules, ASKED, sys)
    with _without_the_optional():
        assert found() == [*OPTIONAL]
