"""Adapters come on and go off again: afterwards a model is what it was, bit by bit and in the same memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from network_models import (
    WIDTH,
    adapters_of,
    fingerprint,
    lora_file,
    small_text_encoder,
    small_unet,
    unet_output,
)
from recording_bus import RecordingBus

from webui.engine.memory.residency import Residency
from webui.engine.networks import lora
from webui.engine.networks.algebra import Misfit
from webui.engine.networks.attachment import Attachment, AttachmentSwitch, ChangedWeights
from webui.engine.networks.layer_names import layer_places
from webui.engine.networks.lora import CheckpointAdapters, Strength
from webui.engine.networks.lora_file import LoraFile
from webui.settings import MemoryMode

CROSS = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
SELF = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
CONV = "lora_unet_up_blocks_1_resnets_0_conv1"
TEXT = "lora_te_text_model_encoder_layers_1_mlp_fc1"


def tensors(seed: int = 5, rank: int = 4) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def pair(layer: str, out: int, inputs: int, *kernel: int) -> dict[str, torch.Tensor]:
        ones = [1] * len(kernel)
        return {
            f"{layer}.lora_up.weight": torch.randn(out, rank, *ones, generator=generator),
            f"{layer}.lora_down.weight": torch.randn(rank, inputs, *kernel, generator=generator),
            f"{layer}.alpha": torch.tensor(2.0),
        }

    return pair(CROSS, 32, WIDTH) | pair(SELF, 64, 64) | pair(CONV, 32, 96, 3, 3) | pair(TEXT, 64, WIDTH)


@pytest.fixture
def file(tmp_path: Path) -> LoraFile:
    return lora_file(tmp_path / "a.safetensors", tensors())


def model(dtype: torch.dtype = torch.float32) -> tuple[Any, CheckpointAdapters]:
    unet = small_unet(dtype)
    return unet, adapters_of(unet, small_text_encoder(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_on_and_off_again_leaves_the_very_same_weights(dtype: torch.dtype, file: LoraFile) -> None:
    unet, adapters = model(dtype)
    before, output = fingerprint(unet), unet_output(unet)
    adapters.use("unet", [Strength(file, 0.8)])
    assert sum(fingerprint(unet)[name] != before[name] for name in before) == 3
    assert not torch.equal(unet_output(unet), output)
    adapters.use("unet", [])
    assert fingerprint(unet) == before
    assert torch.equal(unet_output(unet), output)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_changed_weight_is_computed_in_fp32_and_rounded_once(dtype: torch.dtype, file: LoraFile) -> None:
    unet, adapters = model(dtype)
    own = unet.get_submodule("mid_block.attentions.0.transformer_blocks.0.attn1.to_q").weight
    before = own.data.float()
    t = tensors()
    delta = (t[f"{SELF}.lora_up.weight"] * (2.0 / 4 * 0.8)) @ t[f"{SELF}.lora_down.weight"]
    adapters.use("unet", [Strength(file, 0.8)])
    assert torch.equal(own.data, (before + delta).to(dtype))


def test_several_files_add_up_in_any_number(file: LoraFile, tmp_path: Path) -> None:
    second = lora_file(tmp_path / "b.safetensors", tensors(6))
    unet, adapters = model()
    own = unet.get_submodule("mid_block.attentions.0.transformer_blocks.0.attn1.to_q").weight
    before = own.data.clone()
    differences = []
    for strengths in ([Strength(file, 1.0)], [Strength(second, -0.5)], [Strength(file, 1.0), Strength(second, -0.5)]):
        adapters.use("unet", strengths)
        differences.append(own.data - before)
    torch.testing.assert_close(differences[0] + differences[1], differences[2], rtol=1e-5, atol=1e-5)


def test_a_set_that_was_attached_before_is_not_computed_again(file: LoraFile) -> None:
    unet, adapters = model()
    own = unet.get_submodule("mid_block.attentions.0.transformer_blocks.0.attn1.to_q").weight
    adapters.use("unet", [Strength(file, 0.8)])
    first = own.data_ptr()
    adapters.use("unet", [])
    adapters.use("unet", [Strength(file, 0.8)])
    assert own.data_ptr() == first
    adapters.use("unet", [Strength(file, 0.7)])
    assert own.data_ptr() != first


def test_a_file_that_was_replaced_is_another_set(file: LoraFile, tmp_path: Path) -> None:
    unet, adapters = model()
    adapters.use("unet", [Strength(file, 1.0)])
    first = unet_output(unet)
    (tmp_path / "new").mkdir()
    lora_file(tmp_path / "new" / "a.safetensors", tensors(7))
    (tmp_path / "new" / "a.safetensors").replace(tmp_path / "a.safetensors")
    adapters.use("unet", [Strength(LoraFile(type(file.weights)(tmp_path / "a.safetensors")), 1.0)])
    assert not torch.equal(unet_output(unet), first)


def test_kept_sets_are_bounded_and_the_attached_one_stays() -> None:
    network = torch.nn.Linear(256, 256)
    own = network.weight.data_ptr()
    switch = AttachmentSwitch(network, torch.device("cpu"), cache_bytes=600_000)  # two of 262,144 bytes
    for number in range(6):
        switch.use((number + 1,), lambda n=number: ChangedWeights({"weight": torch.full((256, 256), float(n))}))
        assert bool((network.weight == number).all())
        assert switch.nbytes <= 900_000
    switch.clear()
    assert (switch.nbytes, network.weight.data_ptr()) == (0, own)


def test_a_set_that_cannot_be_computed_leaves_nothing_attached(file: LoraFile) -> None:
    network = torch.nn.Linear(2, 2)
    before = network.weight.data.clone()
    switch = AttachmentSwitch(network, torch.device("cpu"))
    switch.use((1,), lambda: ChangedWeights({"weight": torch.zeros(2, 2)}))

    def fail() -> ChangedWeights:
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError):
        switch.use((2,), fail)
    assert torch.equal(network.weight, before)
    assert switch.key == ()


def test_text_encoder_and_unet_have_weights_of_their_own(file: LoraFile) -> None:
    unet, adapters = model()
    output = unet_output(unet)
    adapters.use("te1", [Strength(file, 1.0)])
    assert torch.equal(unet_output(unet), output)
    assert adapters.counts(file).applied == 4


def test_weights_of_a_text_encoder_wait_where_text_encoders_live(file: LoraFile) -> None:
    encoder = small_text_encoder()
    networks = {"unet": small_unet(), "te1": encoder}
    adapters = CheckpointAdapters(networks, torch.device("meta"), text_home=torch.device("cpu"))
    before = fingerprint(encoder)
    adapters.use("te1", [Strength(file, 1.0)])
    assert fingerprint(encoder) != before
    adapters.use("te1", [])
    assert fingerprint(encoder) == before  # on the meta device they would have been lost


def test_a_frugal_job_keeps_changed_weights_at_its_own_home_and_the_next_one_does_not(
    file: LoraFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Attachment, "attach", lambda _: None)  # nothing comes back from the meta device
    device = torch.device("meta")
    residency = Residency(device, MemoryMode.normal, bus=RecordingBus())
    networks = {"unet": small_unet(), "te1": small_text_encoder()}
    adapters = CheckpointAdapters(networks, lambda: residency.home, device=torch.device("cpu"))
    (unet, _) = adapters.switches

    def kept() -> set[str]:
        return {tensor.device.type for changed in unet._kept.values() for tensor in changed.tensors.values()}

    for weight in (1.0, 0.5):
        adapters.use("unet", [Strength(file, weight)])
    assert (kept(), unet.entries) == ({"meta"}, 2)
    with residency.at_least(MemoryMode.lowvram, []):
        adapters.settle()
        assert unet.entries == 0
        adapters.use("unet", [Strength(file, 0.5)])
        assert (kept(), unet.entries) == ({"cpu"}, 1)
    adapters.use("unet", [Strength(file, 0.5)])
    assert (kept(), unet.entries) == ({"meta"}, 1)


def test_changed_weights_are_computed_on_the_device_wherever_the_network_is(
    file: LoraFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, str]] = []

    def change(_strength: Any, _layer: Any, weight: torch.Tensor, bias: torch.Tensor) -> None:
        seen.append((weight.device.type, bias.device.type))
        raise Misfit("not asked for")

    monkeypatch.setattr(lora, "_change", change)
    networks = {"unet": small_unet(), "te1": small_text_encoder()}
    adapters = CheckpointAdapters(networks, torch.device("cpu"), device=torch.device("meta"))
    for network in networks:
        adapters.use(network, [Strength(file, 1.0)])
    assert seen == [("meta", "meta")] * 4


def test_layers_that_find_no_place_are_counted_with_the_reason(tmp_path: Path) -> None:
    wrong = tensors()
    wrong[f"{SELF}.lora_up.weight"] = torch.zeros(32, 4)
    wrong["lora_unet_down_blocks_7_nothing.lora_up.weight"] = torch.zeros(4, 4)
    wrong["odd.tensor"] = torch.zeros(1)
    file = lora_file(tmp_path / "a.safetensors", wrong)
    unet, adapters = model()
    before = unet.get_submodule("mid_block.attentions.0.transformer_blocks.0.attn1.to_q").weight.data.clone()
    for network in ("unet", "te1"):
        adapters.use(network, [Strength(file, 1.0)])
    counts = adapters.counts(file)
    assert (counts.applied, counts.skipped) == (3, 3)
    assert counts.reasons[0] == f"{SELF}: its tensors are 32x64 instead of 64x64"
    assert "no such layer" in counts.reasons[1]
    assert "no kind" in counts.reasons[2]
    after = unet.get_submodule("mid_block.attentions.0.transformer_blocks.0.attn1.to_q").weight.data
    assert torch.equal(after, before)


def test_ranks_can_be_left_out(file: LoraFile) -> None:
    unet, adapters = model()
    own = unet.get_submodule("mid_block.attentions.0.transformer_blocks.0.attn1.to_q").weight
    before, t = own.data.clone(), tensors()
    adapters.use("unet", [Strength(file, 1.0, dyn_rank=2)])
    up, down = t[f"{SELF}.lora_up.weight"][:, :2], t[f"{SELF}.lora_down.weight"][:2]
    torch.testing.assert_close(own.data - before, up @ down * 0.5, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (CROSS, "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"),
        (CROSS, "lycoris_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"),
        (CROSS, "lora_unet_input_blocks_1_1_transformer_blocks_0_attn2_to_k"),
        (CROSS, "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k"),
        (CROSS, "base_model.model.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"),
        (SELF, "lora_unet_middle_block_1_transformer_blocks_0_attn1_to_q"),
        (CONV, "lora_unet_output_blocks_2_0_in_layers_2"),
        (TEXT, "lora_te1_text_model_encoder_layers_1_mlp_fc1"),
        (TEXT, "text_encoder.text_model.encoder.layers.1.mlp.fc1"),
        (TEXT, "text_encoder.encoder.layers.1.mlp.fc1"),
        (TEXT, "text_encoders.clip_l.transformer.text_model.encoder.layers.1.mlp.fc1"),
        (TEXT, "text_encoders.clip_h.transformer.text_model.encoder.layers.1.mlp.fc1"),
        (CROSS, "oft_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"),
    ],
)
def test_every_trainers_name_of_a_layer_means_the_same(ours: str, theirs: str, tmp_path: Path) -> None:
    t = tensors()
    results = []
    for name in (ours, theirs):
        own = {name + key.removeprefix(ours): tensor for key, tensor in t.items() if key.startswith(ours)}
        file = lora_file(tmp_path / f"{len(results)}.safetensors", own)
        _unet, adapters = model()
        network = "te1" if ours == TEXT else "unet"
        adapters.use(network, [Strength(file, 1.0)])
        assert adapters.places(file) == 1
        results.append(adapters._switches[network].changed.tensors)
    assert list(results[0]) == list(results[1])
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


def test_the_first_attention_processors_of_diffusers_are_read(tmp_path: Path) -> None:
    layer = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.processor."
    generator = torch.Generator().manual_seed(1)
    file = lora_file(
        tmp_path / "a.safetensors",
        {
            f"{layer}to_k_lora.down.weight": torch.randn(4, WIDTH, generator=generator),
            f"{layer}to_k_lora.up.weight": torch.randn(32, 4, generator=generator),
            f"{layer}to_out_lora.down.weight": torch.randn(4, 32, generator=generator),
            f"{layer}to_out_lora.up.weight": torch.randn(32, 4, generator=generator),
        },
    )
    _unet, adapters = model()
    adapters.use("unet", [Strength(file, 1.0)])
    assert (adapters.counts(file).applied, adapters.counts(file).skipped) == (2, 0)
    assert set(adapters._switches["unet"].changed.tensors) == {
        "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight",
        "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_out.0.weight",
    }


def test_the_first_text_encoder_loras_of_diffusers_are_read(tmp_path: Path) -> None:
    layer = "text_encoder.text_model.encoder.layers.1.self_attn."
    pairs = {
        f"{layer}{name}_lora.{side}.weight": torch.ones(shape)
        for name in ("to_q", "to_k", "to_v", "to_out")
        for side, shape in (("down", (4, WIDTH)), ("up", (WIDTH, 4)))
    }
    _unet, adapters = model()
    file = lora_file(tmp_path / "a.safetensors", pairs)
    adapters.use("te1", [Strength(file, 1.0)])
    assert (adapters.counts(file).applied, adapters.counts(file).skipped) == (4, 0)
    changed = adapters._switches["te1"].changed.tensors
    assert {name.split(".")[-2] for name in changed} == {"q_proj", "k_proj", "v_proj", "out_proj"}


def test_the_second_text_encoder_has_names_of_its_own() -> None:
    layer = "text_encoders.clip_g.transformer.text_model.encoder.layers.1.mlp.fc1"
    assert layer_places({"te2": small_text_encoder()})[layer].network == "te2"


def test_a_tensor_that_would_unfold_to_another_size_is_not_computed(tmp_path: Path) -> None:
    bomb = {f"{SELF}.lokr_w1": torch.zeros(4096, 4096), f"{SELF}.lokr_w2": torch.zeros(4096, 4096)}
    _unet, adapters = model()
    file = lora_file(tmp_path / "a.safetensors", bomb)
    adapters.use("unet", [Strength(file, 1.0)])
    assert adapters.counts(file).skipped == 1
