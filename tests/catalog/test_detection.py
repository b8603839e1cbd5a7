"""What a file is follows from its tensors' names and shapes alone."""

from __future__ import annotations

import pytest
from embedded import EMBEDDED_CHECKPOINT
from model_files import TEXT, UNET, VAE, Shapes, header, kohya_lora, ldm_vae, sd1, sd2, sdxl, unet

from webui.catalog.detect import detect
from webui.catalog.families import RUNNABLE_FAMILIES, Family
from webui.catalog.header import read_header
from webui.catalog.sidecar import Sidecar

FLUX: Shapes = {
    UNET + "double_blocks.0.img_attn.norm.key_norm.scale": (128,),
    UNET + "guidance_in.in_layer.bias": (3072,),
    UNET + "img_in.weight": (3072, 64),
}


def without(shapes: Shapes, *names: str) -> Shapes:
    return {n: s for n, s in shapes.items() if n not in names}


def test_the_embedded_checkpoint_is_a_runnable_sd1_of_its_own_size():
    found = detect(read_header(EMBEDDED_CHECKPOINT))
    assert (found.kind, found.family, found.reason) == ("checkpoint", Family.SD1, "")
    assert (found.in_channels, found.latent_channels, found.context_dim, found.has_vae) == (4, 4, 128, True)


CHECKPOINTS: list[tuple[str, Shapes, Family, str]] = [
    ("SD1", sd1(768), Family.SD1, "eps"),
    (
        "SD1 with the text encoder's old key names",
        {n.replace("text_model.", ""): s for n, s in sd1(768).items()},
        Family.SD1,
        "eps",
    ),
    ("SD1 inpainting", sd1(768, 9), Family.SD1_INPAINTING, "eps"),
    ("SD1 ip2p", sd1(768, 8), Family.SD1_IP2P, "eps"),
    ("SD2", sd2(), Family.SD2, "v"),
    ("SD2 inpainting", sd2(9), Family.SD2_INPAINTING, "eps"),
    (
        "SD2 depth",
        {**sd2(5), "depth_model.model.pretrained.act_postprocess3.0.project.0.bias": (1,)},
        Family.SD2_DEPTH,
        "eps",
    ),
    ("SD2 unCLIP L", {**sd2(), "embedder.model.ln_final.weight": (768,)}, Family.SD2_UNCLIP, "v"),
    ("SD2 unCLIP H", {**sd2(), "embedder.model.ln_final.weight": (1024,)}, Family.SD2_UNCLIP, "v"),
    ("SD2.1 Turbo", {**unet(1024), "conditioner.embedders.0.model.ln_final.weight": (1024,)}, Family.SD2, "v"),
    ("SDXL", sdxl(), Family.SDXL, "eps"),
    ("SDXL inpainting", sdxl(9), Family.SDXL_INPAINTING, "eps"),
    ("SDXL ip2p", sdxl(8), Family.SDXL_IP2P, "eps"),
    ("SDXL v", {**sdxl(), "v_pred": (0,), "ztsnr": (0,)}, Family.SDXL, "v"),
    ("Playground", {**sdxl(), "edm_mean": (4,)}, Family.PLAYGROUND, "eps"),
    (
        "SSD-1B",
        without(sdxl(), UNET + "middle_block.1.transformer_blocks.0.attn1.to_q.weight"),
        Family.SSD_1B,
        "eps",
    ),
    ("refiner", {**unet(1280), "conditioner.embedders.0.model.ln_final.weight": (1280,)}, Family.SDXL_REFINER, "eps"),
    (
        "Alt-Diffusion",
        {**unet(768), "cond_stage_model.roberta.encoder.layer.0.weight": (1,)},
        Family.ALT_DIFFUSION,
        "eps",
    ),
    (
        "SD3",
        {UNET + "joint_blocks.0.context_block.adaLN_modulation.1.bias": (9216,), UNET + "pos_embed": (1, 36864, 1536)},
        Family.SD3,
        "flow",
    ),
    (
        "SD3.5 medium",
        {UNET + "joint_blocks.0.context_block.adaLN_modulation.1.bias": (9216,), UNET + "pos_embed": (1, 147456, 1536)},
        Family.SD35,
        "flow",
    ),
    (
        "SD3.5 large",
        {
            "joint_blocks.0.context_block.adaLN_modulation.1.bias": (14592,),
            "joint_blocks.37.x_block.mlp.fc1.weight": (9728, 2432),
        },
        Family.SD35,
        "flow",
    ),
    ("Flux", FLUX, Family.FLUX, "flow"),
    ("Flux, bare", {n.removeprefix(UNET): s for n, s in FLUX.items()}, Family.FLUX, "flow"),
    ("Flux fill", {**FLUX, UNET + "img_in.weight": (3072, 384)}, Family.FLUX_FILL, "flow"),
    ("Flux depth", {**FLUX, UNET + "img_in.weight": (3072, 128)}, Family.FLUX_CONTROL, "flow"),
    ("Flux.2", {"single_stream_modulation.lin.weight": (1, 1)}, Family.FLUX2, "flow"),
    ("Chroma", {**FLUX, UNET + "distilled_guidance_layer.in_proj.bias": (5120,)}, Family.CHROMA, "flow"),
    ("Cascade", {"clip_txt_mapper.weight": (1, 1)}, Family.CASCADE, "eps"),
    ("Z-Image", {"layers.0.adaLN_modulation.0.weight": (1, 1)}, Family.Z_IMAGE, "flow"),
    ("Lumina 2", {"cap_embedder.0.weight": (1,)}, Family.LUMINA2, "flow"),
    ("Wan", {"head.modulation": (1, 2, 8), "blocks.0.cross_attn.k.weight": (8, 8)}, Family.WAN, "flow"),
    ("Flux.3", {"early_stream_modulations.image.lin.weight": (1, 1)}, Family.FLUX3, "flow"),
    ("HiDream", {"double_stream_blocks.0.block.adaLN_modulation.1.bias": (1,)}, Family.HIDREAM, "flow"),
    ("Qwen-Image", {"txt_in.text_norm.weight": (1,)}, Family.QWEN_IMAGE, "flow"),
    ("LTX", {"patchify_proj.weight": (1, 1)}, Family.LTX, "flow"),
    ("AuraFlow", {"double_layers.0.attn.w1q.weight": (1, 1)}, Family.AURA_FLOW, "flow"),
]


@pytest.mark.parametrize(
    ("shapes", "family", "prediction"), [c[1:] for c in CHECKPOINTS], ids=[c[0] for c in CHECKPOINTS]
)
def test_a_checkpoint_is_known_by_its_keys(shapes: Shapes, family: Family, prediction: str):
    found = detect(header(shapes))
    assert (found.kind, found.family, found.prediction) == ("checkpoint", family, prediction)
    assert (found.reason == "") == (family in RUNNABLE_FAMILIES)
    assert family in RUNNABLE_FAMILIES or family.value in found.reason


def test_the_variants_of_flux_are_told_apart():
    assert detect(header(FLUX)).variant == "dev"
    assert detect(header(without(FLUX, UNET + "guidance_in.in_layer.bias"))).variant == "schnell"


def test_sd1_with_three_levels_and_narrow_vectors_is_still_sd1():
    found = detect(header(sd1(width=32)))
    assert (found.family, found.context_dim, found.reason) == (Family.SD1, 32, "")


def test_the_prediction_type_comes_from_the_sidecar_then_from_marks_then_from_the_family():
    shapes = {**sd1(), "v_pred": (0,)}
    assert detect(header(sd1()), Sidecar(parameterization="v")).prediction == "v"
    assert detect(header(shapes)).prediction == "v"
    assert detect(header(shapes), Sidecar(parameterization="eps")).prediction == "eps"
    assert detect(header(sd1())).prediction_known
    assert not detect(header(sd2())).prediction_known
    assert detect(header(sd2()), Sidecar(parameterization="eps")).prediction_known


def test_zero_terminal_snr_is_read_from_its_mark():
    assert detect(header({**sd1(), "ztsnr": (0,)})).zero_terminal_snr
    assert not detect(header(sd1())).zero_terminal_snr


def test_a_unet_without_text_encoder_does_not_run_and_says_what_is_missing():
    bare = {n.removeprefix(UNET): s for n, s in unet(768).items()}
    for shapes in (unet(768), bare):
        found = detect(header(shapes))
        assert (found.kind, found.family, found.variant) == ("checkpoint", Family.SD1, "UNet only")
        assert "text encoder and VAE are missing" in found.reason


def test_a_checkpoint_without_vae_runs_with_another_one():
    found = detect(header({n: s for n, s in sd1().items() if not n.startswith(VAE)}))
    assert (found.family, found.reason, found.has_vae) == (Family.SD1, "", False)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        (UNET + "input_blocks.0.0.weight", (16, 5, 3, 3)),
        (UNET + "input_blocks.0.0.weight", (16,)),
        (UNET + "input_blocks.0.0.weight", ()),
        (UNET + "out.2.weight", (8, 16, 3, 3)),
        (UNET + "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight", (16,)),
        (TEXT + "embeddings.token_embedding.weight", (8,)),
        (TEXT + "embeddings.token_embedding.weight", (16, 9)),
        (VAE + "decoder.conv_in.weight", (16, 16, 3, 3)),
        (VAE + "decoder.conv_in.weight", (1,)),
    ],
)
def test_H028_right_keys_with_wrong_shapes_are_not_runnable_and_do_not_raise(name: str, shape: tuple[int, ...]):
    found = detect(header({**sd1(), name: shape}))
    assert found.kind == "checkpoint"
    assert found.reason


TE1 = kohya_lora(768, "lora_te1_")
LORAS: list[tuple[str, Shapes, dict[str, str], Family, str]] = [
    ("kohya SD1", kohya_lora(768), {}, Family.SD1, "LoRA"),
    ("kohya small", kohya_lora(32), {}, Family.SD1, "LoRA"),
    ("kohya SD2", kohya_lora(1024), {}, Family.SD2, "LoRA"),
    ("kohya SDXL by width", {n: s for n, s in kohya_lora(2048).items() if "te_" not in n}, {}, Family.SDXL, "LoRA"),
    ("kohya SDXL by its second text encoder", kohya_lora(768, "lora_te2_"), {}, Family.SDXL, "LoRA"),
    ("an SDXL text encoder alone", {n: s for n, s in TE1.items() if "te1_" in n}, {}, Family.SDXL, "LoRA"),
    ("SD1 with SDXL's name of the text encoder", TE1, {}, Family.SD1, "LoRA"),
    ("SD2 with SDXL's name of the text encoder", kohya_lora(1024, "lora_te1_"), {}, Family.SD2, "LoRA"),
    ("kohya OFT", {"oft_unet_down_blocks_0_attentions_0_proj_in.oft_blocks": (4, 8, 8)}, {}, Family.SD1, "OFT"),
    ("kohya Flux", {"lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": (4, 8)}, {}, Family.FLUX, "LoRA"),
    ("SD3", {"lora_unet_joint_blocks_0_x_block_attn_qkv.lora_down.weight": (4, 8)}, {}, Family.SD3, "LoRA"),
    (
        "diffusers",
        {"unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.weight": (4, 768)},
        {},
        Family.SD1,
        "LoRA",
    ),
    (
        "diffusers, older",
        {"unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.processor.to_k_lora.down.weight": (4, 1024)},
        {},
        Family.SD2,
        "LoRA",
    ),
    (
        "diffusers Flux",
        {"transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight": (4, 3072)},
        {},
        Family.FLUX,
        "LoRA",
    ),
    (
        "SDXL by depth",
        {"lora_unet_input_blocks_8_1_transformer_blocks_9_ff_net_2.lora_down.weight": (4, 8)},
        {},
        Family.SDXL,
        "LoRA",
    ),
    (
        "diffusers SDXL by depth",
        {"unet.down_blocks.2.attentions.1.transformer_blocks.9.ff.net.2.lora_A.weight": (4, 8)},
        {},
        Family.SDXL,
        "LoRA",
    ),
    ("Wan", {"diffusion_model.blocks.0.cross_attn.k.lora_A.weight": (4, 8)}, {}, Family.WAN, "LoRA"),
    ("LoHa", {"lora_unet_down_blocks_0_attentions_0_proj_in.hada_w1_a": (4, 8)}, {}, Family.SD1, "LoHa"),
    ("LoKr", {"lora_unet_down_blocks_0_attentions_0_proj_in.lokr_w1": (4, 8)}, {}, Family.SD1, "LoKr"),
    (
        "by metadata",
        {"lora_unet_mid_block_attentions_0_proj_in.lora_down.weight": (4, 8)},
        {"ss_base_model_version": "sdxl_base_v1-0"},
        Family.SDXL,
        "LoRA",
    ),
    ("unknown base", {"some.module.lora_A.weight": (4, 8)}, {}, Family.UNKNOWN, "LoRA"),
]


@pytest.mark.parametrize(("shapes", "metadata", "family", "scheme"), [x[1:] for x in LORAS], ids=[x[0] for x in LORAS])
def test_a_lora_is_known_with_its_family(shapes: Shapes, metadata: dict[str, str], family: Family, scheme: str):
    found = detect(header(shapes, metadata))
    assert (found.kind, found.family, found.variant) == ("lora", family, scheme)
    assert (found.reason == "") == (family is Family.UNKNOWN or family in RUNNABLE_FAMILIES)
    assert not found.reason or str(family) in found.reason


def test_the_width_of_a_loras_prompt_vectors_is_known():
    assert detect(header(kohya_lora(32))).context_dim == 32


OTHERS: list[tuple[str, Shapes, str]] = [
    ("VAE in LDM's names", ldm_vae(), "vae"),
    (
        "VAE in diffusers' names",
        {"decoder.conv_in.weight": (8, 4, 3, 3), "decoder.up_blocks.0.resnets.0.conv1.weight": (1,)},
        "vae",
    ),
    ("VAE with the checkpoint's prefix", {VAE + n: s for n, s in ldm_vae().items()}, "vae"),
    ("TAESD", {"1.weight": (64, 4, 3, 3), "3.conv.0.weight": (64, 64, 3, 3)}, "vae"),
    ("ControlNet", {"control_model.input_blocks.0.0.weight": (320, 4, 3, 3)}, "controlnet"),
    (
        "ControlNet of diffusers",
        {**unet(768, prefix=""), "controlnet_cond_embedding.conv_in.weight": (16, 3, 3, 3)},
        "controlnet",
    ),
    ("control LoRA", {"lora_controlnet": (0,), "input_blocks.0.0.weight": (320, 4, 3, 3)}, "controlnet"),
    ("T2I adapter", {"adapter.body.0.in_conv.weight": (1,), "adapter.conv_in.weight": (1,)}, "t2i_adapter"),
    ("IP adapter", {"image_proj.proj.weight": (1, 1), "ip_adapter.1.to_k_ip.weight": (320, 768)}, "ip_adapter"),
    ("ESRGAN", {"model.1.sub.0.RDB1.conv1.0.weight": (32, 64, 3, 3), "model.0.weight": (64, 3, 3, 3)}, "upscaler"),
    ("Real-ESRGAN", {"params_ema.body.0.rdb1.conv1.weight": (1,), "params_ema.conv_first.weight": (1,)}, "upscaler"),
    ("Compact", {"body.0.weight": (64, 3, 3, 3), "body.1.weight": (64,), "body.2.weight": (64, 64, 3, 3)}, "upscaler"),
    ("SwinIR", {"layers.0.residual_group.blocks.0.attn.relative_position_bias_table": (1,)}, "upscaler"),
    ("GFPGAN", {"toRGB.0.weight": (3,), "stylegan_decoder.style_mlp.1.weight": (1,)}, "face_restorer"),
    (
        "CodeFormer",
        {f"params_ema.{n}": (1,) for n in ("position_emb", "idx_pred_layer.1.weight", "quantize.embedding.weight")},
        "face_restorer",
    ),
    (
        "RestoreFormer",
        {
            "quantize.embedding.weight": (1024, 256),
            "quant_conv.weight": (256, 256, 1, 1),
            "decoder.conv_in.weight": (512, 256, 3, 3),
            "decoder.mid.attn_1.norm2.weight": (512,),
        },
        "face_restorer",
    ),
    ("hypernetwork", {"768.0.linear.0.weight": (1536, 768)}, "hypernetwork"),
    ("CLIP", {"text_model.embeddings.token_embedding.weight": (49408, 768)}, "text_encoder"),
    ("T5", {"encoder.block.0.layer.0.SelfAttention.q.weight": (4096, 4096), "shared.weight": (1, 1)}, "text_encoder"),
    ("embedding", {"emb_params": (4, 768)}, "embedding"),
    ("embedding of diffusers", {"<cat>": (768,)}, "embedding"),
    ("embedding of SDXL", {"clip_g": (2, 1280), "clip_l": (2, 768)}, "embedding"),
    ("embedding of SDXL, diffusers", {"text_encoders_0": (2, 768), "text_encoders_1": (2, 1280)}, "embedding"),
    ("motion module", {"down_blocks.0.motion_modules.0.temporal_transformer.norm.weight": (320,)}, "unknown"),
    ("deep-compression autoencoder", {"decoder.stages.1.op_list.0.main.conv.conv.bias": (1,)}, "vae"),
    ("ControlNet of Z-Image", {"control_layers.14.adaLN_modulation.0.weight": (1, 1)}, "controlnet"),
    ("nothing known", {"some.weight": (3, 3), "other.bias": (3,)}, "unknown"),
    ("nothing at all", {}, "unknown"),
]


@pytest.mark.parametrize(("shapes", "kind"), [o[1:] for o in OTHERS], ids=[o[0] for o in OTHERS])
def test_other_kinds_are_known_by_their_keys(shapes: Shapes, kind: str):
    assert detect(header(shapes)).kind == kind


def test_what_spandrel_runs_is_offered_and_says_what_it_needs_when_it_is_used():
    for name in ("SwinIR", "GFPGAN", "CodeFormer"):
        assert detect(header(next(shapes for one, shapes, _ in OTHERS if one == name))).reason == ""


def test_a_vae_of_another_family_is_told_by_its_latent_channels():
    assert detect(header(ldm_vae(4))).reason == ""
    assert "16 latent channels" in detect(header(ldm_vae(16))).reason


@pytest.mark.parametrize(
    ("shape", "words"),
    [((10_000, 768), "10,000 vectors"), ((0, 768), "no vectors"), ((3, 4, 768), "no vectors"), ((4, 2048), "SDXL")],
)
def test_H031_an_embedding_that_cannot_be_used_says_why(shape: tuple[int, ...], words: str):
    assert words in detect(header({"emb_params": shape})).reason


def test_H031_an_embedding_of_a_small_model_keeps_its_width():
    found = detect(header({"emb_params": (2, 128)}))
    assert (found.family, found.context_dim, found.reason) == (Family.UNKNOWN, 128, "")


@pytest.mark.parametrize("name", ["../../etc/passwd", "__class__.__init__", "a.__class__.__base__", UNET + "../x"])
def test_H025_a_hostile_tensor_name_only_makes_a_file_unknown(name: str):
    assert detect(header({name: (1,)})).kind == "unknown"


def test_cosxl_is_not_taken_for_a_plain_sdxl():
    found = detect(header({**sdxl(), "edm_vpred.sigma_max": (1,), "edm_vpred.sigma_min": (1,)}))
    assert (found.family, found.variant) == (Family.SDXL, "CosXL")
    assert "CosXL" in found.reason
