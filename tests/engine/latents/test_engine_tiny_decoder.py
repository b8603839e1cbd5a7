"""The small decoder of previews: read from the published layout, used for the latents it knows, never in the way."""

from __future__ import annotations

import io
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file

from webui.engine.latents.preview import render
from webui.engine.latents.tiny_decoder import FOLDER, TinyDecoder, find_tiny_decoder, load_tiny_decoder

CPU = torch.device("cpu")


def published(folder: Path, name: str = "taesd_decoder.safetensors") -> tuple[Path, TinyDecoder]:
    """A file with the published names: layers numbered from 1, without the clamp."""
    torch.manual_seed(0)
    decoder = TinyDecoder().eval()
    tensors = {key.removeprefix("layers."): value.clone() for key, value in decoder.state_dict().items()}
    assert {"1.weight", "3.conv.0.weight", "7.weight", "18.conv.4.bias", "19.weight"} <= set(tensors)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / name)
    return folder / name, decoder


def test_it_is_found_by_family_and_read_as_it_was_published(tmp_path: Path) -> None:
    path, decoder = published(tmp_path / FOLDER)
    assert find_tiny_decoder(tmp_path, sdxl=False) == path
    assert find_tiny_decoder(tmp_path, sdxl=True) is None
    loaded = load_tiny_decoder(path, CPU, allow_pickle=False, cache_dir=tmp_path)
    x = torch.randn(1, 4, 6, 5, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(loaded(x), decoder(x))
        assert loaded(x).shape == (1, 3, 48, 40)
        assert loaded(x * 100).isfinite().all()


def test_a_file_that_is_none_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / FOLDER
    folder.mkdir()
    save_file({"1.weight": torch.zeros(64, 4, 3, 3)}, folder / "taesd_decoder.safetensors")
    (folder / "taesdxl_decoder.pth").write_bytes(b"nothing")
    for sdxl in (False, True):
        path = find_tiny_decoder(tmp_path, sdxl=sdxl)
        assert path is not None
        assert load_tiny_decoder(path, CPU, allow_pickle=True, cache_dir=tmp_path) is None


def test_a_preview_with_it_has_the_pictures_own_size_up_to_the_limit(tmp_path: Path) -> None:
    _, decoder = published(tmp_path / FOLDER)
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    with torch.no_grad(), Image.open(io.BytesIO(render(latents, torch.zeros(5, 3), 512, decoder))) as picture:
        assert picture.size == (128, 64)
    with torch.no_grad(), Image.open(io.BytesIO(render(latents, torch.zeros(5, 3), 64, decoder))) as picture:
        assert picture.size == (64, 32)
