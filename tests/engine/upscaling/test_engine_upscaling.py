"""Upscaler networks: every way of naming their tensors, tiles without a seam, and bounded memory."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_runs import make_engine, pixels_of, run, run_until
from picture_inputs import keep, scene
from PIL import Image
from safetensors.torch import save_file
from upscaler_models import compact, seeded, tensors_of

from webui.engine import upscaling
from webui.engine.control import Control
from webui.engine.desk import EngineDesk
from webui.engine.upscaling.files import network_of
from webui.engine.upscaling.rrdb import RRDBNet
from webui.engine.upscaling.tiles import TILE, enlarge_tiled, spans
from webui.errors import BadModelFile, ModelNotFound, UnsupportedModel, WebUIError
from webui.events import Event, Memory, Started
from webui.paths import REPO_ROOT

EMBEDDED = sorted((REPO_ROOT / "models" / "ESRGAN").glob("*.safetensors"))


def rrdb(doublings: int = 2, unshuffle: int = 1) -> RRDBNet:
    return seeded(lambda: RRDBNet(channels=8, growth=4, blocks=2, doublings=doublings, unshuffle=unshuffle))


def basicsr(key: str) -> str:
    for i in range(4):
        key = key.replace(f"conv_up.{i}.", f"conv_up{i + 1}.")
    return key


def second_release(key: str) -> str:
    key = basicsr(key).replace("body.0.rdb", "RRDB_trunk.0.RDB").replace("body.1.rdb", "RRDB_trunk.1.RDB")
    key = key.replace("conv_body.", "trunk_conv.").replace("conv_hr.", "HRconv.")
    return key.replace("conv_up1.", "upconv1.").replace("conv_up2.", "upconv2.")


def first_release(key: str) -> str:
    numbers = {"conv_first.": "model.0.", "conv_body.": "model.1.sub.2.", "conv_up.0.": "model.3."}
    numbers |= {"conv_up.1.": "model.6.", "conv_hr.": "model.8.", "conv_last.": "model.10."}
    for mine, theirs in numbers.items():
        if key.startswith(mine):
            return key.replace(mine, theirs)
    block, dense, conv, kind = key.removeprefix("body.").split(".")
    return f"model.1.sub.{block}.{dense.replace('rdb', 'RDB')}.{conv}.0.{kind}"


X = torch.rand(1, 3, 16, 20, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("rename", [basicsr, second_release, first_release])
@pytest.mark.parametrize("wrapper", ["", "params_ema."])
def test_esrgan_is_read_under_each_of_its_names(rename: Any, wrapper: str) -> None:
    network = rrdb()
    found = network_of(tensors_of(network, lambda key: wrapper + rename(key)), "x")
    assert found.scale == 4
    assert torch.equal(found(X), network(X))


def test_the_smoothed_copy_is_taken_where_there_are_two() -> None:
    smooth, rough = rrdb(), rrdb()
    both = {f"params_ema.{basicsr(k)}": v for k, v in smooth.state_dict().items()}
    both |= {f"params.{basicsr(k)}": v + 1 for k, v in rough.state_dict().items()}
    assert torch.equal(network_of(both, "x")(X), smooth(X))


@pytest.mark.parametrize(("doublings", "unshuffle", "scale"), [(1, 1, 2), (2, 2, 2), (2, 4, 1), (3, 1, 8)])
def test_the_scale_follows_from_the_tensors(doublings: int, unshuffle: int, scale: int) -> None:
    found = network_of(tensors_of(rrdb(doublings, unshuffle), basicsr), "x")
    assert found.scale == scale
    assert found(X).shape == (1, 3, 16 * scale, 20 * scale)


@pytest.mark.parametrize("unshuffle", [2, 4])
def test_a_network_that_folds_pixels_takes_a_picture_of_any_size(unshuffle: int) -> None:
    network = rrdb(2, unshuffle)
    odd = X[..., :15, :17]
    whole = torch.nn.functional.pad(odd, (0, -17 % unshuffle, 0, 1), mode="replicate")
    assert network(odd).shape[-2:] == (15 * network.scale, 17 * network.scale)
    assert torch.equal(network(odd), network(whole)[..., : 15 * network.scale, : 17 * network.scale])
    assert enlarged(network, scene(63, 47), 40).shape == (47 * network.scale, 63 * network.scale, 3)


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_compact_is_read_at_every_scale(scale: int) -> None:
    network = compact(scale)
    found = network_of(tensors_of(network), "x")
    assert found.scale == scale
    assert torch.equal(found(X), network(X))


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lambda t: {"x.weight": torch.zeros(3)}, UnsupportedModel),
        (lambda t: {k: v for k, v in t.items() if "conv_hr" not in k}, BadModelFile),
        (lambda t: {**t, "conv_last.weight": torch.zeros(3, 9, 3, 3)}, BadModelFile),
        (lambda t: {**t, "conv_first.weight": torch.zeros(8, 5, 3, 3)}, BadModelFile),
        (lambda t: {**t, "more.weight": torch.zeros(1)}, BadModelFile),
        (lambda t: {k: v for k, v in t.items() if not k.startswith("conv_first")}, BadModelFile),
    ],
)
def test_tensors_that_do_not_fit_are_refused_in_words(spoil: Any, error: type[WebUIError]) -> None:
    with pytest.raises(error, match="upscaler"):
        network_of(spoil(tensors_of(rrdb(), basicsr)), "broken.safetensors")


def enlarged(network: Any, image: Image.Image, tile: int) -> Any:
    with torch.inference_mode():
        return enlarge_tiled(np.asarray(image), network, network.scale, reach=network.reach, tile=tile)


@pytest.mark.parametrize("build", [rrdb, compact])
@pytest.mark.parametrize("tile", [40, 64])
def test_tiles_give_what_the_whole_picture_gives_within_one_of_255(build: Any, tile: int) -> None:
    network, image = build(), scene(150, 110)
    whole = enlarged(network, image, 1000).astype(int)
    pieces = enlarged(network, image, tile).astype(int)
    assert whole.std() > 5
    assert np.abs(whole - pieces).max() <= 1


@pytest.mark.skipif(not EMBEDDED, reason="this checkout has no embedded upscaler")
def test_the_embedded_upscaler_shows_no_seam() -> None:
    from webui.engine.files.weights import Weights

    weights = Weights(EMBEDDED[0])
    network = network_of({name: weights.tensor(name) for name in weights.tensors}, "embedded")
    image = scene(96, 72)
    whole = enlarged(network, image, 1000).astype(int)
    assert np.abs(whole - enlarged(network, image, 40).astype(int)).max() <= 1
    plain = np.asarray(image.resize((96 * network.scale, 72 * network.scale), Image.Resampling.BICUBIC), dtype=int)
    assert np.abs(whole - plain).mean() < 12  # it is the same picture


def test_no_tile_is_larger_than_asked_for_whatever_the_picture() -> None:
    seen: list[tuple[int, ...]] = []

    def run(x: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(x.shape))
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)

    result = enlarge_tiled(np.asarray(scene(700, 300)), run, 2, reach=8, tile=64)
    assert result.shape == (600, 1400, 3)
    assert max(max(shape[2:]) for shape in seen) <= 64 + 2 * 8
    assert (result == np.asarray(scene(700, 300)).repeat(2, 0).repeat(2, 1)).all()


@pytest.mark.parametrize("length", [1, 7, 63, 64, 65, 71, 72, 73, 500])
def test_pieces_cover_a_side_and_overlap(length: int) -> None:
    found = list(spans(length, 64))
    assert found[0][0] == 0
    assert found[-1][1] == length
    assert all(0 < end - start <= 64 for start, end in found)
    assert all(after[0] == before[1] - 8 and after[1] - after[0] > 8 for before, after in pairwise(found))


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Any:
    root: Path = tmp_path_factory.mktemp("upscaling")
    folder = root / "models" / "ESRGAN"
    folder.mkdir(parents=True)
    save_file(tensors_of(compact(2)), folder / "small x2.safetensors")
    save_file(tensors_of(rrdb(), basicsr), folder / "RealESRGAN_x4plus.safetensors")
    torch.save({"params_ema": tensors_of(compact(2))}, folder / "old.pth")
    engine = make_engine(root)
    yield engine
    engine.close()


def test_a_network_is_applied_until_the_size_is_reached(engine: Any) -> None:
    upscalers = engine._tools.upscalers
    image = scene(24, 16)
    with torch.inference_mode():
        assert upscalers.enlarge(image, "small x2", (96, 64)).size == (96, 64)
        assert upscalers.enlarge(image, "small x2", (50, 33)).size == (50, 33)
        assert upscalers.enlarge(image, "Lanczos", (48, 32)).tobytes() == image.resize((48, 32), 1).tobytes()
        assert upscalers.enlarge(image, "Nearest", (48, 32)).tobytes() == image.resize((48, 32), 0).tobytes()
    assert upscalers.scale("small x2") == 2


def test_a_network_runs_once_at_the_same_size_where_it_is_asked_to_and_never_to_shrink(engine: Any) -> None:
    image, upscalers = scene(24, 16), engine._tools.upscalers
    with torch.inference_mode():
        large = upscalers.enlarge(image, "small x2", (48, 32))
        once = upscalers.enlarge(image, "small x2", (24, 16), as_large=True)
        assert once.tobytes() == large.resize((24, 16), Image.Resampling.LANCZOS).tobytes()
        assert upscalers.enlarge(image, "small x2", (24, 16)).tobytes() == image.tobytes(), "as hires does at scale 1"
        small = upscalers.enlarge(image, "small x2", (12, 8), as_large=True)
    assert small.tobytes() == image.resize((12, 8), Image.Resampling.LANCZOS).tobytes()
    reference = keep(engine._tools.paths.outputs, image)
    done = run(engine, extras={"image": reference, "upscaler": "small x2", "scale": 1.0})
    assert pixels_of(done.images[0]).tobytes() == once.tobytes()


def test_what_a_network_makes_in_between_is_never_there_where_it_would_be_larger_than_a_result(
    engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, upscalers = scene(40, 230), engine._tools.upscalers
    wanted = upscalers.enlarge(image, "RealESRGAN_x4plus", (60, 345))
    monkeypatch.setattr(upscaling, "MAX_RESULT_PIXELS", 60 * 345)
    monkeypatch.setattr(upscaling, "enlarge_tiled", lambda *_given, **_more: pytest.fail("all of it was made"))
    made = upscalers.enlarge(image, "RealESRGAN_x4plus", (60, 345))
    assert np.abs(np.asarray(made).astype(int) - np.asarray(wanted)).max() <= 1


def test_each_tile_is_told_so_that_a_slow_machine_is_not_taken_for_one_that_hangs(engine: Any) -> None:
    told: list[Event] = []
    began: list[int] = []
    with torch.inference_mode():
        engine._tools.upscalers.enlarge(
            scene(TILE + 10, TILE + 10), "small x2", (400, 400), emit=told.append, check=lambda: began.append(len(told))
        )
    assert len(began) == 4
    assert began == list(range(began[0], began[0] + 4))  # one event between each check and the next
    assert all(isinstance(event, Memory) and event.used > 0 for event in told[began[0] :])


def test_automatic1111s_name_finds_the_file_and_an_unknown_one_is_told_apart(engine: Any) -> None:
    upscalers = engine._tools.upscalers
    assert [m.name for m in upscalers.used("R-ESRGAN 4x+")] == ["RealESRGAN_x4plus.safetensors"]
    assert upscalers.used("Lanczos") == ()
    with pytest.raises(ModelNotFound, match='Did you mean "small x2"'):
        upscalers.enlarge(scene(8, 8), "small x3", (16, 16))


def test_a_script_is_told_whether_there_is_an_upscaler(engine: Any) -> None:
    desk = EngineDesk(engine._tools.paths, engine._tools.catalog)
    named = ("lanczos ", "latent (BICUBIC)", "small x2", "R-ESRGAN 4x+")
    assert [desk.upscaler(name) for name in named] == ["Lanczos", "Latent (bicubic)", "small x2", "R-ESRGAN 4x+"]
    with pytest.raises(ModelNotFound, match="small x2"):
        desk.upscaler("smal x2")


def test_a_pth_is_opened_through_the_allow_list_and_only_when_that_is_allowed(engine: Any, tmp_path: Path) -> None:
    with pytest.raises(WebUIError, match="allow_pickle"):
        engine._tools.upscalers.enlarge(scene(8, 8), "old", (16, 16))
    root = engine._tools.paths.data_dir
    allowed = make_engine(root, model__allow_pickle=True)
    with torch.inference_mode():
        made = allowed._tools.upscalers.enlarge(scene(8, 8), "old", (16, 16))
        same = engine._tools.upscalers.enlarge(scene(8, 8), "small x2", (16, 16))
    allowed.close()
    assert made.tobytes() == same.tobytes()


@pytest.mark.parametrize("interrupts", [False, True])
def test_a_skip_ends_one_picture_of_a_folder_and_an_interrupt_the_job(engine: Any, interrupts: bool) -> None:
    def stop(event: Event, control: Control) -> None:
        if isinstance(event, Started):  # told once, before the first picture is enlarged
            (control.interrupt if interrupts else control.skip)()

    outputs = engine._tools.paths.outputs
    sources = tuple({"image": keep(outputs, scene(16, 16, seed)), "name": f"{seed}.png"} for seed in range(3))
    done = run_until(engine, stop, extras={"upscaler": "small x2", "scale": 2.0}, sources=sources)
    assert [image.index for image in done.images] == ([] if interrupts else [1, 2])
    assert done.finished.interrupted is interrupts


def test_a_skipped_picture_that_is_alone_is_no_interrupted_job(engine: Any) -> None:
    controls: list[Control] = []

    def skip(event: Event, control: Control) -> None:
        if isinstance(event, Started):
            control.skip()
            controls.append(control)

    image = keep(engine._tools.paths.outputs, scene(16, 16))
    for one in ({"sources": ({"image": image},)}, {}):
        extras = {"upscaler": "small x2", "scale": 2.0, **({} if one else {"image": image})}
        done = run_until(engine, skip, extras=extras, **one)
        assert (done.finished.pictures, done.finished.interrupted) == (0, False)
    assert not any(control.skipped for control in controls)
