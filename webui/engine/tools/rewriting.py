"""Model files to new model files: other number formats, fewer tensors. A slice of one tensor at a time is in memory.

The new file appears whole or not at all, and never in place of another one.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from webui.engine.files.safefile import DTYPE_NAMES, Specs, write_pieces
from webui.engine.files.weights import Weights
from webui.errors import BadModelFile, InvalidParams
from webui.paths import streamed_new

Progress = Callable[[int, int], None]  # tensors done, tensors in all

SLICE = 2**17  # numbers that are in memory at once; half a MB of fp32 for each file that is read
PRECISIONS: dict[str, torch.dtype | None] = {
    "keep": None,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp32": torch.float32,
}
EMA = "model_ema."
# What training leaves in a checkpoint, and the noise schedule, which every program works out by itself.
_TRAINING = (EMA, "loss.", "optimizer", "lr_schedulers", "callbacks", "loops.")
_SCHEDULE = frozenset(
    {
        "betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod",
        "log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod",
        "posterior_variance", "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2",
        "lvlb_weights", "logvar", "scale_factor", "global_step", "epoch",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Written:
    """A new model file: how many tensors it has, and how many of the source were left out."""

    path: Path
    tensors: int
    left_out: int
    bytes: int


def prune(
    source: Weights,
    target: Path,
    *,
    precision: str = "fp16",
    use_ema: bool = False,
    metadata: Mapping[str, str] | None = None,
    progress: Progress = lambda _done, _total: None,
) -> Written:
    """Write what the networks need of `source`: no averaged copy, no state of the training, no noise schedule.

    `use_ema` puts the averaged weights (EMA) in the place of the trained ones. Raises `InvalidParams` for a precision
    that is not known, for EMA weights that are not there and for a target that is, `OSError` when the disk refuses.
    """
    kept = [name for name in source.tensors if not _is_spare(name)]
    averaged = {name: _ema_name(name) for name in kept if _ema_name(name) in source.tensors} if use_ema else {}
    if use_ema and not averaged:
        raise InvalidParams("The file holds no averaged weights (EMA).", "Prune it without them.")
    origin = {name: averaged.get(name, name) for name in kept}
    return rewrite(source, target, origin, precision=precision, metadata=metadata, progress=progress)


def convert(
    source: Weights, target: Path, *, precision: str = "keep", progress: Progress = lambda _done, _total: None
) -> Written:
    """Write all of `source` as .safetensors. A pickle-based file was read in a process of its own by `open_weights`.

    Raises as `prune` does.
    """
    return rewrite(source, target, {name: name for name in source.tensors}, precision=precision, progress=progress)


def rewrite(
    source: Weights,
    target: Path,
    origin: Mapping[str, str],
    *,
    precision: str,
    metadata: Mapping[str, str] | None = None,
    progress: Progress,
) -> Written:
    """Write the tensors that `origin` names: new name -> name in `source`."""
    dtype = precision_dtype(precision)
    specs = {
        name: (dtype if dtype and source.is_float(old) else source.dtype(old), source.tensors[old].shape)
        for name, old in origin.items()
    }

    def pieces(name: str) -> Iterator[Tensor]:
        return sliced(source, origin[name], specs[name][0])

    size = write_model(target, specs, pieces, {**source.metadata, **(metadata or {})}, progress)
    return Written(target, len(specs), len(source.tensors) - len(set(origin.values())), size)


def sliced(source: Weights, name: str, dtype: torch.dtype) -> Iterator[Tensor]:
    """The numbers of a tensor in `dtype`, flat, a slice at a time; what was read of the file is given back."""
    flat = source.tensor(name).reshape(-1)
    for start in range(0, flat.numel(), SLICE):
        yield flat[start : start + SLICE].to(dtype)
        source.release(name, min(start + SLICE, flat.numel()))


def write_model(
    target: Path,
    specs: Specs,
    pieces: Callable[[str], Iterable[Tensor]],
    metadata: Mapping[str, str],
    progress: Progress,
) -> int:
    """Write a new .safetensors file, its tensors in the order of `specs`; returns its size in bytes.

    `pieces` gives a tensor's numbers in pieces (see `write_pieces`). Raises `InvalidParams` when the file exists.
    """
    check_target(target)
    written = 0

    def counted(name: str) -> Iterable[Tensor]:
        nonlocal written
        progress(written, len(specs))
        written += 1
        return pieces(name)

    try:
        with _one_thread(), streamed_new(target) as file:
            write_pieces(file, specs, counted, metadata)
    except FileExistsError:
        raise _taken(target) from None
    progress(len(specs), len(specs))
    return target.stat().st_size


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Slices are too small to be shared out: measured beside other work, a second thread costs 20 times the time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def check_target(target: Path) -> None:
    """Raises `InvalidParams` for a name that cannot be written: another suffix, or a file that is there."""
    if target.suffix.lower() != ".safetensors":
        raise InvalidParams(f'"{target.name}" does not end in .safetensors.', "Model files are written in that format.")
    if target.exists() or target.is_symlink():
        raise _taken(target)


def precision_dtype(precision: str) -> torch.dtype | None:
    """The number format of that name; None: each tensor keeps its own. Raises `InvalidParams`."""
    if precision not in PRECISIONS:
        raise InvalidParams(f'There is no precision "{precision[:40]}".', f"Known: {', '.join(PRECISIONS)}.")
    return PRECISIONS[precision]


def check_computable(source: Weights, names: Iterable[str]) -> None:
    """Raises `BadModelFile` for numbers that cannot be written again (packed formats)."""
    for name in names:
        if source.dtype(name) not in DTYPE_NAMES:
            raise BadModelFile(
                f'"{name[:80]}" in {source.path.name} is stored in {source.tensors[name].dtype}.',
                "Take the file in fp16, bf16 or fp32.",
            )


def as_json(value: object) -> str:
    """Compact and sorted, so that equal recipes are equal texts."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _is_spare(name: str) -> bool:
    return name.startswith(_TRAINING) or name in _SCHEDULE or name.endswith(".position_ids")


def _ema_name(name: str) -> str:
    """Where LDM's LitEma keeps the average of a parameter: its name without dots."""
    return EMA + name.removeprefix("model.").replace(".", "") if name.startswith("model.") else ""


def _taken(target: Path) -> InvalidParams:
    return InvalidParams(f'"{target.name}" is there already.', "Choose another name; files are never overwritten.")
