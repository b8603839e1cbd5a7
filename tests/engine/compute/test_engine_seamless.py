"""Seamless tiling: circular padding comes on and goes off; VAE tiles; the memory that decides on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from embedded import install_embedded
from engine_runs import make_engine, pixels_of, run
from picture_inputs import keep, scene
from torch.nn import functional

from webui.engine import Engine
from webui.engine.compute.seamless import Seamless, seamless, unwrapped, wrapped
from webui.engine.latents import vae


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = tmp_path_factory.mktemp("seamless")
    install_embedded(root)
    engine = make_engine(root)
    yield engine
    engine.close()


@pytest.mark.parametrize("axes", [(True, False), (False, True), (True, True)])
def test_a_convolution_continues_at_the_opposite_edge_of_the_chosen_axes_alone(axes: tuple[bool, bool]) -> None:
    conv = torch.nn.Conv2d(2, 3, 3, padding=1)
    x = torch.rand(1, 2, 6, 8, generator=torch.Generator().manual_seed(0))
    plain = conv(x)
    with seamless(conv, axes):
        round_ = conv(x)
        rolled = conv(x.roll((2 if axes[1] else 0, 3 if axes[0] else 0), (2, 3)))
    assert torch.allclose(round_.roll((2 if axes[1] else 0, 3 if axes[0] else 0), (2, 3)), rolled, atol=1e-6)
    assert not torch.allclose(round_, plain)
    assert torch.equal(conv(x), plain)
    mode = functional.pad(x, (1, 1, 1, 1), mode="circular")
    if axes == (True, True):
        assert torch.allclose(round_, functional.conv2d(mode, conv.weight, conv.bias), atol=1e-6)


def test_taken_off_a_network_is_as_it_was_also_after_an_error() -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 3, padding=1), torch.nn.Conv2d(1, 1, 1))
    adapter = Seamless(network, (True, True))
    adapter.attach()
    assert network[0].padding == (0, 0)
    adapter.detach()
    assert network[0].padding == (1, 1)
    assert not network[0]._forward_pre_hooks
    with pytest.raises(KeyError), seamless(network, (True, False)):
        raise KeyError
    assert network[0].padding == (1, 1)


def test_what_is_wrapped_is_unwrapped_as_it_was() -> None:
    x = torch.rand(1, 2, 8, 10)
    assert torch.equal(unwrapped(wrapped(x, 3, (True, False)), 3, (True, False)), x)
    assert wrapped(x, 3, (True, False)).shape == (1, 2, 8, 16)


def jump(pixels: Any, axis: int) -> float:
    """How much larger the step over the edge is than the steps inside."""
    values = pixels.astype(float)
    inside = np.abs(np.diff(values, axis=axis)).mean()
    over = np.abs(values.take(0, axis) - values.take(-1, axis)).mean()
    return float(over / inside)


def test_a_seamless_picture_continues_over_its_edges_and_the_next_job_is_not_seamless(engine: Engine) -> None:
    fields = {"prompt": "a green field of flowers", "steps": 6, "cfg_scale": 3.0}
    plain = run(engine, **fields)
    both = run(engine, **fields, tiling_x=True, tiling_y=True)
    only_x = run(engine, **fields, tiling_x=True)
    assert len({plain.digests[0], both.digests[0], only_x.digests[0]}) == 3
    assert run(engine, **fields).digests == plain.digests
    assert jump(pixels_of(both.images[0]), 0) < 3
    assert jump(pixels_of(both.images[0]), 1) < 3
    assert "Tiling: True" in both.images[0].infotext
    assert "Tiling: x" in only_x.images[0].infotext


def test_where_memory_would_not_suffice_the_vae_works_in_tiles_from_the_start(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs: Path = engine._tools.paths.outputs
    reference = keep(outputs, scene(256, 192))
    init = {"image": reference, "denoising_strength": 0.0, "exact_steps": True}
    whole = run(engine, init=init)
    loaded = engine._tools.store._checkpoints.popitem()[1]
    engine._tools.store._checkpoints[str(loaded.file.path)] = loaded
    tile = vae.needed_memory(loaded.baked, 16, 16)
    monkeypatch.setattr(vae, "free_memory", lambda _device: int(tile / vae.USABLE) + 10)
    tiled = run(engine, init=init)
    assert {w.code for w in tiled.warnings} == {"vae_tiled"}
    assert len(tiled.warnings) == 2  # of the encode and of the decode
    difference = np.abs(pixels_of(whole.images[0]).astype(int) - pixels_of(tiled.images[0]))
    assert difference.mean() < 6
    monkeypatch.setattr(vae, "free_memory", lambda _device: 0)  # the system does not tell
    assert run(engine, init=init).digests == whole.digests


def test_a_seamless_picture_in_tiles_has_no_edge_either(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {"width": 192, "height": 128, "tiling_x": True, "steps": 3}
    whole = pixels_of(run(engine, **fields).images[0])
    monkeypatch.setattr(vae, "free_memory", lambda _device: 1)
    tiled = pixels_of(run(engine, **fields).images[0])
    assert np.abs(whole.astype(int) - tiled).mean() < 8
    assert jump(tiled, 1) < max(3.0, 1.5 * jump(whole, 1))
