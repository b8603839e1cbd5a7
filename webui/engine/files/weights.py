"""The one way to open a file of weights.

A .safetensors file has its header checked by `webui.catalog.header` and is then memory-mapped: a tensor is a view on
the mapping until somebody converts or copies it. The mapping is private, so writing to such a view changes memory and
never the file. A pickle-based file (.ckpt, .pt) is first converted once, in a process of its own (`webui.engine.
pickles`), and only when the settings allow it.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from pathlib import Path

import torch

from webui.catalog.header import Header, TensorInfo, read_header
from webui.engine.files.pickles import converted
from webui.errors import BadModelFile, UnsafeFile

PICKLE_SUFFIXES = frozenset({".ckpt", ".pt", ".pth", ".bin"})

Fingerprint = tuple[int, int, int]  # size, mtime_ns, inode

_DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I16": torch.int16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I32": torch.int32,
    "F32": torch.float32,
    "I64": torch.int64,
    "F64": torch.float64,
}
_FLOATS = frozenset({"F8_E4M3", "F8_E5M2", "F16", "BF16", "F32", "F64"})


class Weights:
    """An open, memory-mapped .safetensors file. Views on it keep the mapping alive by themselves."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.header: Header = read_header(path)
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            self.fingerprint: Fingerprint = (status.st_size, status.st_mtime_ns, status.st_ino)
            if status.st_size != self.header.file_size:
                raise BadModelFile("The file changed while it was read.", "Wait until it is complete; then try again.")
            self.mapping = _map_private(file.fileno(), status.st_size)

    @property
    def metadata(self) -> dict[str, str]:
        return self.header.metadata

    @property
    def tensors(self) -> dict[str, TensorInfo]:
        """Name to type, shape and place of every tensor; nothing is read for it."""
        return self.header.tensors

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name to shape of every tensor."""
        return {name: info.shape for name, info in self.header.tensors.items()}

    def is_float(self, name: str) -> bool:
        return self.header.tensors[name].dtype in _FLOATS

    def dtype(self, name: str) -> torch.dtype:
        """The tensor's type. Raises `BadModelFile` for those that torch does not compute with."""
        kind = self.header.tensors[name].dtype
        if kind not in _DTYPES:
            raise BadModelFile(f'The tensor "{name[:80]}" has the type {kind}, which is not used in models.')
        return _DTYPES[kind]

    def tensor(self, name: str) -> torch.Tensor:
        """A view on the file: nothing is read before its values are used."""
        info = self.header.tensors[name]
        count = 1
        for side in info.shape:
            count *= side
        dtype = self.dtype(name)
        if count == 0:
            return torch.empty(info.shape, dtype=dtype)
        start, _ = self.header.byte_range(name)
        if start % dtype.itemsize:  # the format allows it, torch does not
            raw = torch.frombuffer(self.mapping, dtype=torch.uint8, count=count * dtype.itemsize, offset=start).clone()
            return raw.view(dtype).reshape(info.shape)
        return torch.frombuffer(self.mapping, dtype=dtype, count=count, offset=start).reshape(info.shape)

    def release(self, name: str, numbers: int | None = None) -> None:
        """Tell the system that the pages of the tensor, or of its first `numbers`, are not needed any more.

        Only where no view on them is left in use: whatever was written to such a view is lost.
        """
        if hasattr(self.mapping, "madvise") and hasattr(mmap, "MADV_DONTNEED"):
            start, end = self.header.byte_range(name)
            if numbers is not None:
                end = start + numbers * self.dtype(name).itemsize
            first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
            last = end // mmap.PAGESIZE * mmap.PAGESIZE
            if last > first:
                self.mapping.madvise(mmap.MADV_DONTNEED, first, last - first)


def open_weights(path: Path, *, allow_pickle: bool, cache_dir: Path) -> Weights:
    """Open `path`, whatever its suffix.

    Raises `ModelNotFound`, `BadModelFile`, or `UnsafeFile` for a pickle that is not allowed or not harmless.
    """
    if path.suffix.lower() in PICKLE_SUFFIXES:
        if not allow_pickle:
            raise UnsafeFile(
                f"{path.name} is a pickle-based file, and opening those is switched off.",
                'Get it as .safetensors, or switch on "allow_pickle" in the settings for models.',
            )
        path = converted(path, cache_dir)
    return Weights(path)


def file_fingerprint(path: Path) -> Fingerprint | None:
    """What changes when the file is replaced or written; None when it is gone."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ino


def _map_private(descriptor: int, size: int) -> mmap.mmap:
    try:
        mapping = mmap.mmap(descriptor, size, access=mmap.ACCESS_COPY)
    except (OSError, ValueError) as error:
        raise BadModelFile(f"The file cannot be memory-mapped: {error}.", "Copy it to a local disk.") from None
    if hasattr(mapping, "madvise") and hasattr(mmap, "MADV_SEQUENTIAL"):
        with contextlib.suppress(OSError):
            mapping.madvise(mmap.MADV_SEQUENTIAL)
    return mapping
