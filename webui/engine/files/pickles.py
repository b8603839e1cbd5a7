"""Reading .ckpt and .pt files without running what is in them.

A pickle is a program; only those whose every instruction and every named global is on the lists below are read at all,
by torch's own restricted reader (`weights_only`), in a process of its own with limits, where a crash of that reader
hurts nobody. Plain, dense tensors come out, into a .safetensors file in the cache; everything else is dropped. The
rest of the product never sees the pickle. Rules and measured attacks: security.md H035-H049.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pickletools
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from webui.errors import BadModelFile, SaveError, UnsafeFile, WebUIError, error_from_dict
from webui.paths import REPO_ROOT

MAX_PICKLE_SIZE = 64 * 2**20  # bytes of data.pkl; that of a full SD1.5 checkpoint has 0.3 MB
MAX_TENSORS = 50_000
ABANDONED_SECONDS = 3600.0  # without a write, a copy that is being made belongs to nobody any more
MAX_DEPTH = 3  # tables inside of tables
MAX_SETTINGS, MAX_SETTING = 100, 1000  # plain values that are kept, and their characters

_STORAGES = ("Float", "Half", "BFloat16", "Double", "Int", "Long", "Short", "Char", "Byte", "Bool")
_TENSOR_GLOBALS = frozenset(
    {
        "collections OrderedDict",
        "torch._utils _rebuild_tensor_v2",
        "torch._utils _rebuild_tensor_v3",  # of float8
        "torch._utils _rebuild_parameter",
        "torch.nn.parameter Parameter",
        "torch Size",
        "_codecs encode",
        "__builtin__ set",
        "builtins set",
        *(f"torch {kind}Storage" for kind in _STORAGES),
        *(f"torch.storage {kind}" for kind in ("UntypedStorage", "TypedStorage")),
        *(f"torch {kind}" for kind in ("float16", "bfloat16", "float32", "float64", "int64", "int32", "int16")),
        *(f"torch {kind}" for kind in ("int8", "uint8", "bool", "float8_e4m3fn", "float8_e5m2")),
    }
)
# Training leftovers in the first SD checkpoints. They are read as `Inert` and dropped; the real ones are not imported.
_INERT_GLOBALS = frozenset(
    {
        "pytorch_lightning.callbacks.model_checkpoint ModelCheckpoint",
        "pytorch_lightning.utilities.enums _FaultTolerantMode",
        "numpy.core.multiarray scalar",
        "numpy._core.multiarray scalar",
        "numpy dtype",
    }
)
_TABLE_GLOBAL = "torch.nn.modules.container ParameterDict"  # of early textual inversions: their one table is in it
# What torch.save writes, and no more: no STACK_GLOBAL, INST, OBJ, EXT, PERSID (text), frames or buffers.
_OPCODES = (
    "GLOBAL NEWOBJ REDUCE BUILD APPEND APPENDS SETITEM SETITEMS MARK TUPLE TUPLE1 TUPLE2 TUPLE3 NONE NEWFALSE NEWTRUE "
    "EMPTY_TUPLE EMPTY_LIST EMPTY_DICT EMPTY_SET BINPERSID BININT BININT1 BININT2 BINFLOAT BINUNICODE SHORT_BINSTRING "
    "LONG1 BINGET LONG_BINGET BINPUT LONG_BINPUT PROTO STOP"
)
_MEMBER = re.compile(
    r"[^/\\]{1,255}/(data\.pkl|version|byteorder|\.format_version|\.storage_alignment|\.data/serialization_id|data/\d+)"
)
_TABLES = ("state_dict", "params_ema", "params")  # where checkpoints and upscalers keep their tensors; the first counts
_PLAIN_FLAGS = 0x0808  # sizes after the data, UTF-8 names; no encryption, no patches


class Inert:
    """Stands in for an object that nobody needs: takes anything, does nothing."""

    def __new__(cls, *_args: Any, **_named: Any) -> Inert:
        return super().__new__(cls)

    def __setstate__(self, _state: Any) -> None:
        """Dropped."""


class Table:
    """Stands in for a ParameterDict: keeps the parameters that its state holds."""

    def __init__(self, *_args: Any, **_named: Any) -> None:
        self.entries: dict[Any, Any] = {}

    def __setstate__(self, state: Any) -> None:
        entries = state.get("_parameters") if isinstance(state, dict) else None
        self.entries = entries if isinstance(entries, dict) else {}


def converted(path: Path, cache_dir: Path) -> Path:
    """The .safetensors file in the cache with the tensors of the pickle-based file `path`; made when it is not there.

    Raises `UnsafeFile` when the file holds anything but plain tensors, `BadModelFile` when it is damaged, `SaveError`
    when the cache cannot be written.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise BadModelFile(f"{path.name} cannot be opened: {error.strerror}.") from None
    folder = cache_dir / "converted"
    base = hashlib.sha256(str(path).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    mark = hashlib.sha256(repr((status.st_size, status.st_mtime_ns, status.st_ino)).encode()).hexdigest()[:16]
    target = folder / f"{base}-{mark}.safetensors"
    if target.is_file():
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob(f"{base}-*.safetensors"):
            old.unlink(missing_ok=True)  # of the file as it was before
        for left in folder.glob(".tmp-*.safetensors"):  # of conversions that were killed; one that runs still writes
            with contextlib.suppress(FileNotFoundError):  # another process had the same thought
                if time.time() - left.stat().st_mtime > ABANDONED_SECONDS:
                    left.unlink()
    except OSError as error:
        raise _not_written(path, folder, error) from None
    _convert_apart(path, target, status.st_size)
    return target


def _convert_apart(path: Path, target: Path, size: int) -> None:
    """Run `main` below in a process of its own and report what became of it."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONUTF8": "1"}
    command = [sys.executable, "-m", "webui.engine.files.pickles", str(path), str(target)]
    seconds = 120 + size / 10e6
    try:
        done = subprocess.run(
            command, cwd=REPO_ROOT, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        raise UnsafeFile(f"Reading {path.name} took too long; it was not opened.", _ADVICE) from None
    if done.returncode == 0 and target.is_file():
        return
    try:
        report = json.loads(done.stdout.decode("utf-8", "replace").strip().splitlines()[-1])
        error = error_from_dict({key: str(report[key]) for key in ("error", "message", "advice")})
    except (ValueError, KeyError, IndexError, TypeError):
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
        error = UnsafeFile(f"{path.name} made its reader crash ({how}); it was not opened.", _ADVICE)
    raise error


_ADVICE = "Do not trust this file; get the model as .safetensors."


def main(arguments: list[str]) -> int:
    """The other process: convert SOURCE to TARGET; on failure say why, as one line of JSON."""
    source, target = Path(arguments[0]), Path(arguments[1])
    try:
        _limit_process(source.stat().st_size)
        check_archive(source)
        tensors = read_tensors(source)
        try:
            _write(*tensors, target)
        except OSError as error:
            raise _not_written(source, target.parent, error) from None
        return 0
    except WebUIError as error:
        report = error.to_dict()
    except Exception as error:  # whatever a hostile file provokes means the same: it is not opened
        first = (str(error).strip().splitlines() or [""])[0][:200]
        message = f"{source.name} is not a file of plain tensors ({type(error).__name__}: {first})."
        report = UnsafeFile(message, _ADVICE).to_dict()
    print(json.dumps(report))
    return 1


def check_archive(path: Path) -> None:
    """Every rule that can be checked without unpickling. Raises `UnsafeFile` or `BadModelFile`."""
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            raise UnsafeFile(
                f"{path.name} is a pickle of the old kind, without an archive around it; those are not opened.", _ADVICE
            )
    try:
        with zipfile.ZipFile(path) as archive:
            pickle = _checked_members(path, archive)
            broken = archive.testzip()
            data = archive.read(pickle)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        raise BadModelFile(f"{path.name} is a damaged archive ({error}).", "Download it again.") from None
    if broken:
        raise BadModelFile(f"{path.name} is damaged: a part of it has a wrong checksum.", "Download it again.")
    _check_program(path, data)


def _checked_members(path: Path, archive: zipfile.ZipFile) -> str:
    """The name of the archive's one pickle."""
    infos = archive.infolist()
    names = [info.filename for info in infos]
    whole = path.stat().st_size
    odd = next((name for name in names if not _MEMBER.fullmatch(name) or ".." in name), None)
    if odd is not None:
        raise UnsafeFile(f"{path.name} holds {odd[:80]!r}, which no model file does.", _ADVICE)
    if len(set(names)) != len(names) or len({name.partition("/")[0] for name in names}) != 1 or archive.comment:
        raise UnsafeFile(f"{path.name} is an archive that different readers read differently.", _ADVICE)
    if len(names) > MAX_TENSORS:
        raise UnsafeFile(f"{path.name} holds more than {MAX_TENSORS:,} parts.", _ADVICE)
    if any(i.compress_type != zipfile.ZIP_STORED or i.flag_bits & ~_PLAIN_FLAGS for i in infos):
        raise UnsafeFile(f"{path.name} holds compressed or encrypted parts, which torch never writes.", _ADVICE)
    if sum(i.file_size for i in infos) > whole:
        raise UnsafeFile(f"{path.name} claims more content than it has bytes.", _ADVICE)
    pickles = [i for i in infos if i.filename.endswith("/data.pkl")]
    if len(pickles) != 1 or pickles[0].file_size > MAX_PICKLE_SIZE:
        raise UnsafeFile(f"{path.name} has no index of tensors, or one of an impossible size.", _ADVICE)
    return pickles[0].filename


def _check_program(path: Path, data: bytes) -> None:
    """Every instruction and every global of the pickle is on the lists; nothing is executed for it."""
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name == "GLOBAL":
            if argument not in _TENSOR_GLOBALS | _INERT_GLOBALS | {_TABLE_GLOBAL}:
                named = str(argument).replace(" ", ".")[:100]
                raise UnsafeFile(f"{path.name} holds {named}, which a file of plain tensors never needs.", _ADVICE)
        elif opcode.name not in _OPCODES.split():
            raise UnsafeFile(f"{path.name} holds the instruction {opcode.name}, which torch never writes.", _ADVICE)


def read_tensors(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The dense tensors of a checked archive by name, still memory-mapped, and its plain settings as JSON texts.

    Raises `UnsafeFile`.
    """
    import torch

    stubs: list[Any] = [(Inert, name.replace(" ", ".")) for name in _INERT_GLOBALS]
    stubs.append((Table, _TABLE_GLOBAL.replace(" ", ".")))
    with torch.serialization.safe_globals(stubs):
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    for table in _TABLES:
        if isinstance(content, dict) and isinstance(content.get(table), dict):
            content = content[table]
    if not isinstance(content, dict):
        raise UnsafeFile(f"{path.name} is not a table of tensors.", _ADVICE)
    found: dict[str, Any] = {}
    for name, value in _plain_entries(content):
        _check_dense(path, name, value)
        found[name] = value.detach()
    if not found:
        raise UnsafeFile(f"{path.name} holds no tensors.", _ADVICE)
    held = sum(t.numel() * t.element_size() for t in found.values())
    if held > 2 * path.stat().st_size:  # shared tensors are written twice; more than that is a bomb
        raise UnsafeFile(f"{path.name} would unfold to {held:,} bytes.", _ADVICE)
    return found, dict(_settings(content))


def _plain_entries(content: dict[Any, Any], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Tensors by name, those of tables inside (embeddings and hypernetworks have such) under dotted names."""
    import torch

    for key, value in content.items():
        name = f"{prefix}{key}"
        if not isinstance(key, str | int) or name.startswith(("loss.", "optimizer")):
            continue
        inner = value.entries if isinstance(value, Table) else value
        if isinstance(inner, list | tuple):
            inner = dict(enumerate(inner))
        if isinstance(inner, torch.Tensor):
            yield name, inner
        elif isinstance(inner, dict) and depth < MAX_DEPTH:
            yield from _plain_entries(inner, f"{name}.", depth + 1)


def _settings(content: dict[Any, Any]) -> Iterator[tuple[str, str]]:
    """The plain values beside the tensors (a hypernetwork's activation function is one), each as JSON."""
    plain = {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, str | int | float | bool)}
    for key, value in list(plain.items())[:MAX_SETTINGS]:
        text = json.dumps(value)
        if len(key) <= MAX_SETTING and len(text) <= MAX_SETTING:
            yield key, text


def _check_dense(path: Path, name: str, value: Any) -> None:
    """Only what a memory block with a shape can be, inside of its block."""
    import torch

    from webui.engine.files.safefile import DTYPE_NAMES

    plain = (
        type(value) in (torch.Tensor, torch.nn.Parameter)
        and value.layout is torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
        and not value.is_nested
        and value.dtype in DTYPE_NAMES
    )
    if not plain:
        raise UnsafeFile(f'{path.name}: "{name[:80]}" is not a plain dense tensor.', _ADVICE)
    if value.numel():
        last = value.storage_offset() + sum((s - 1) * st for s, st in zip(value.shape, value.stride(), strict=True))
        elements = value.untyped_storage().nbytes() // value.element_size()
        if last >= elements or value.numel() > elements or min(value.stride(), default=0) < 0:
            raise UnsafeFile(f'{path.name}: "{name[:80]}" claims more values than there are.', _ADVICE)


def _write(tensors: dict[str, Any], settings: dict[str, str], target: Path) -> None:
    """Under a temporary name, flushed, then renamed: a crash leaves no half file under the final name."""
    from webui.engine.files.safefile import write_safetensors

    specs = {name: (t.dtype, tuple(t.shape)) for name, t in tensors.items()}
    handle, temporary = tempfile.mkstemp(prefix=".tmp-", suffix=".safetensors", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            write_safetensors(file, specs, tensors.__getitem__, {**settings, "format": "pt"})
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(target)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _not_written(source: Path, folder: Path, error: OSError) -> SaveError:
    """The disk refused: nothing is said against the file."""
    try:
        free = f"{shutil.disk_usage(folder).free / 2**30:.1f} GB are free there"
    except OSError:
        free = "how much is free there cannot be told"
    return SaveError(
        f"The safetensors copy of {source.name} could not be written into the cache: {error.strerror or error}.",
        f"Make room in {folder} ({free}), or get the model as .safetensors.",
    )


def _limit_process(size: int) -> None:
    """Bound what this process may use (POSIX): processor time, file size, memory, no core dump."""
    if sys.platform == "win32":
        return
    import resource

    def lower(kind: int, wanted: int) -> None:
        _, hard = resource.getrlimit(kind)
        value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(kind, (value, hard))

    lower(resource.RLIMIT_CORE, 0)
    lower(resource.RLIMIT_CPU, 60 + size // 10_000_000)
    lower(resource.RLIMIT_FSIZE, 2 * size + 64 * 2**20)
    if sys.platform == "linux":
        lower(resource.RLIMIT_DATA, 8 * 2**30 + 2 * size)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
