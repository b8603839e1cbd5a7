"""Choosing, swapping and rescuing the VAE."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from embedded import EMBEDDED_CHECKPOINT
from engine_runs import make_engine, pixels_of, rewrite, run

from webui import infotext
from webui.engine import Engine
from webui.engine.latents import vae as module
from webui.engine.latents.vae import Vae, _spans, decode, decode_tiled
from webui.events import Warning

PREFIX = "first_stage_model."


def extract(target: Path, change: Any = lambda name, tensor: tensor, prefix: str = "") -> Path:
    """The embedded model's VAE as a file of its own, its tensors changed by `change(name, tensor)`."""

    def vae(tensors: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        for name, tensor in tensors.items():
            if name.startswith(PREFIX):
                short = name.removeprefix(PREFIX)
                yield prefix + short, change(short, tensor)

    return rewrite(EMBEDDED_CHECKPOINT, target, vae)


def brighter(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Another VAE: its pictures are brighter."""
    return tensor + 0.5 if name == "decoder.conv_out.bias" else tensor


def overflowing(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Nearly the same pictures, by way of activations that fp16 cannot hold; the weights themselves fit.

    What the last level's first block gives is 8000 times as large; the normalisation before the last convolution takes
    that back.
    """
    if name.startswith(("decoder.up.0.block.0.nin_shortcut", "decoder.up.0.block.0.conv2")):
        tensor = tensor * 8000
        assert bool(torch.isfinite(tensor).all())
    return tensor


@pytest.fixture
def active(engine: Engine) -> Vae:
    list(engine.load(vae="None"))
    checkpoint = next(iter(engine._tools.store._checkpoints.values()))
    assert checkpoint.baked is not None
    return checkpoint.baked


def test_automatic_takes_the_baked_vae_and_says_so(own_engine: Engine) -> None:
    done = run(own_engine)
    assert [line.split(" from ")[0] for line in done.lines] == [
        f"Loading weights [{done.loaded[0].short_hash}]",
        "Using the VAE in the checkpoint",
    ]
    assert done.loaded[0].source.endswith(EMBEDDED_CHECKPOINT.name)
    assert set(done.loaded[0].seconds) >= {"calculate hash", "create model", "load weights", "total"}
    assert run(own_engine).lines == []  # nothing to load


def test_a_vae_beside_the_checkpoint_is_taken_by_its_whole_stem(data_dir: Path) -> None:
    folder = data_dir / "models" / "Stable-diffusion"
    extract(folder / f"{EMBEDDED_CHECKPOINT.stem[:-1]}.vae.safetensors", brighter)  # another stem
    engine = make_engine(data_dir)
    baked = run(engine)
    assert baked.lines[-1] == "Using the VAE in the checkpoint"
    near = extract(folder / f"{EMBEDDED_CHECKPOINT.stem}.vae.safetensors", brighter)
    engine._tools.catalog.refresh()
    done = run(engine)
    assert done.lines == [f"Loading VAE weights found near the checkpoint: {near}"]
    assert pixels_of(done.images[0]).mean() > pixels_of(baked.images[0]).mean() + 5
    assert f"VAE: {EMBEDDED_CHECKPOINT.stem}.vae.safetensors" in done.images[0].infotext
    assert f"VAE hash: {done.loaded[-1].short_hash}" in done.images[0].infotext
    none = run(engine, vae="None")
    assert none.lines == ["Using the VAE in the checkpoint"]
    assert none.digests == baked.digests
    engine.close()


def test_a_vae_named_after_the_checkpoint_is_taken_and_a_text_without_one_stays_with_the_baked(data_dir: Path) -> None:
    engine = make_engine(data_dir)
    baked = run(engine)
    named = extract(data_dir / "models" / "VAE" / f"{EMBEDDED_CHECKPOINT.stem}.vae.safetensors", brighter)
    engine._tools.catalog.refresh()
    done = run(engine)
    assert done.lines == [f"Loading VAE weights named after the checkpoint: {named}"]
    assert pixels_of(done.images[0]).mean() > pixels_of(baked.images[0]).mean() + 5
    for made in (baked, done):  # the text alone says which VAE it was, whatever the form had
        read = infotext.parse(made.images[0].infotext).params
        assert run(engine, **{"vae": named.name, **read}).digests == made.digests
    engine.close()


@pytest.mark.parametrize("prefix", ["", PREFIX])
def test_a_vae_file_is_swapped_alone(data_dir: Path, prefix: str) -> None:
    engine = make_engine(data_dir)
    path = extract(data_dir / "models" / "VAE" / "bright.safetensors", brighter, prefix)
    baked = run(engine)
    unet = next(iter(engine._tools.store._checkpoints.values())).unet
    done = run(engine, vae="bright.safetensors")
    assert done.lines == [f"Loading VAE weights specified in settings: {path}"]
    assert [event.what for event in done.loaded] == ["vae"]
    assert next(iter(engine._tools.store._checkpoints.values())).unet is unet
    again = run(engine, vae="None")
    assert again.digests == baked.digests
    back = run(engine, vae="bright.safetensors")
    assert back.lines == ["Loading VAE weights specified in settings: cached bright.safetensors"]
    assert back.loaded[0].reused
    assert back.digests == done.digests
    engine.close()


@pytest.mark.parametrize("safer", ["fp32", "bf16"])
def test_F08_a_vae_that_overflows_in_fp16_is_decoded_again_in_a_safer_precision_and_that_is_remembered(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, safer: str
) -> None:
    """bf16 has the range of fp32 in half the memory, so it comes first where the processor computes in it."""
    monkeypatch.setattr("webui.engine.compute.device.cpu_has_bf16", lambda: safer == "bf16")
    extract(data_dir / "models" / "VAE" / "wild.safetensors", overflowing)
    engine = make_engine(data_dir, device__vae_precision="fp16")
    done = run(engine, vae="wild.safetensors", width=64, height=64, batch_size=2)
    assert [w.code for w in done.warnings] == ["vae_precision"]  # once, not for each picture
    assert "wild.safetensors" in done.warnings[0].text
    assert "fp16" in done.warnings[0].text
    assert safer in done.warnings[0].text
    assert all(pixels_of(image).std() > 5 for image in done.images)
    again = run(engine, vae="wild.safetensors", width=64, height=64, batch_size=2)
    assert again.warnings == []
    assert again.digests == done.digests
    run(engine, vae="None", width=64, height=64)
    engine._tools.store._vaes.clear()
    assert run(engine, vae="wild.safetensors", width=64, height=64).warnings == []  # also after it was loaded anew
    whole = make_engine(data_dir, device__vae_precision=safer)
    assert run(whole, vae="wild.safetensors", width=64, height=64, batch_size=2).digests == done.digests
    engine.close()
    whole.close()


def test_a_vae_for_which_memory_does_not_suffice_in_another_precision_stays_as_it_was(own_engine: Engine) -> None:
    before = run(own_engine).digests
    vae = next(iter(own_engine._tools.store._checkpoints.values())).baked
    assert vae is not None
    dtype, reload = vae.dtype, vae._reload

    def full(wanted: torch.dtype) -> Any:
        if wanted is not dtype:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return reload(wanted)

    vae._reload = full
    with pytest.raises(torch.OutOfMemoryError):
        vae.change_dtype(torch.float64)
    assert vae.dtype is dtype
    assert run(own_engine).digests == before


def test_a_vae_that_never_gives_a_picture_ends_the_job_and_saves_nothing(data_dir: Path) -> None:
    extract(
        data_dir / "models" / "VAE" / "broken.safetensors",
        lambda name, tensor: tensor * float("nan") if name == "decoder.conv_out.bias" else tensor,
    )
    engine = make_engine(data_dir)
    failed = run(engine, vae="broken.safetensors")
    assert failed.error["error"] == "NanDetected"
    assert "broken.safetensors" in failed.error["message"]
    assert failed.images == []
    assert not list((data_dir / "outputs").rglob("*.png"))
    assert run(engine).finished.pictures == 1
    engine.close()


def test_a_vae_of_another_kind_is_refused_by_name(data_dir: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = extract(data_dir / "models" / "VAE" / "odd.safetensors")
    tensors = load_file(path)
    tensors["decoder.conv_in.weight"] = torch.zeros(128, 16, 3, 3)
    save_file(tensors, path)
    engine = make_engine(data_dir)
    failed = run(engine, vae="odd.safetensors")
    assert failed.error["error"] in ("BadModelFile", "UnsupportedModel")
    assert "odd.safetensors" in failed.error["message"]
    assert run(engine).finished.pictures == 1
    engine.close()


def test_F02_no_memory_for_a_decode_means_tiles(engine: Engine, active: Vae, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(engine, width=192, height=128, vae="None")
    real = Vae.decode_raw

    def tight(self: Vae, latents: torch.Tensor) -> torch.Tensor:
        if latents.shape[2] * latents.shape[3] > 16 * 16:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return real(self, latents)

    monkeypatch.setattr(Vae, "decode_raw", tight)
    tiled = run(engine, width=192, height=128, vae="None")
    assert [w.code for w in tiled.warnings] == ["vae_tiled"]
    difference = np.abs(pixels_of(whole.images[0]).astype(int) - pixels_of(tiled.images[0]).astype(int))
    assert difference.mean() < 6


@pytest.mark.parametrize(("tiling", "free", "largest"), [("On", 0, 64), ("Off", 1, 72), ("Automatic", 0, 72)])
def test_tiles_are_made_when_asked_for_and_never_when_forbidden(
    tiling: Any, free: int, largest: int, engine: Engine, active: Vae, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`free` memory of one byte would mean tiles, of 0 that nobody knows."""
    sides: list[int] = []
    real = Vae.decode_raw

    def seen(self: Vae, latents: torch.Tensor) -> torch.Tensor:
        sides.append(max(latents.shape[2:]))
        return real(self, latents)

    told: list[Warning] = []
    monkeypatch.setattr(Vae, "decode_raw", seen)
    monkeypatch.setattr(module, "free_memory", lambda _device: free)
    latents = torch.randn(1, 4, 72, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        pixels = decode(active, latents, engine.device, told.append, lambda: None, tiling=tiling)
    assert pixels.shape == (576, 64, 3)
    assert max(sides) == largest
    assert told == []


def test_other_errors_of_a_decode_are_not_taken_for_missing_memory(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(self: Vae, latents: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("a defect")

    monkeypatch.setattr(Vae, "decode_raw", broken)
    with caplog.at_level(logging.ERROR):
        failed = run(engine)
    assert failed.error["error"] == "EngineFault"
    assert "a defect" in caplog.text


@pytest.mark.parametrize(("length", "tile"), [(16, 64), (64, 64), (65, 64), (100, 64), (33, 16), (500, 32)])
def test_tiles_cover_everything_and_overlap(length: int, tile: int) -> None:
    spans = list(_spans(length, tile))
    assert spans[0][0] == 0
    assert spans[-1][1] == length
    assert all(end - start <= tile for start, end in spans)
    assert all(a[1] - b[0] >= min(module.OVERLAP, tile // 2) - 1 for a, b in pairwise(spans))


def test_tiles_blend_without_seams(engine: Engine, active: Vae) -> None:
    """Where neighbours agree the blend is exact: a decoder without memory of its surroundings."""

    class Nearest:
        dims = active.dims

        def decode_raw(self, latents: torch.Tensor) -> torch.Tensor:
            return latents[:, :3].repeat_interleave(8, 2).repeat_interleave(8, 3)

    latents = torch.randn(1, 4, 40, 56, generator=torch.Generator().manual_seed(0))
    stand_in: Any = Nearest()
    torch.testing.assert_close(decode_tiled(stand_in, latents, 16), stand_in.decode_raw(latents))


def test_latents_that_are_no_numbers_are_never_decoded(engine: Engine, active: Vae) -> None:
    from webui.errors import NanDetected

    told: list[Warning] = []
    with pytest.raises(NanDetected), torch.inference_mode():
        decode(active, torch.full((1, 4, 8, 8), float("nan")), engine.device, told.append, lambda: None)
    assert told == []
