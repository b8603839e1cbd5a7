"""From a file of weights to a network that can run.

The module is built on the meta device (shapes alone, no memory, no random fill). Every parameter is matched with a
tensor of the file first: a wrong or incomplete file is refused before a byte of it is read. Then the tensors are taken
in the order in which they lie in the file: those that fit stay memory-mapped, the others are converted one at a time
and their pages given back, so that no more than the result and one tensor are in memory.
"""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch

from webui.engine.compute.attention import Attention, AttentionProcessor
from webui.engine.compute.blocks import with_own_blocks
from webui.engine.compute.projections import lay_side_by_side
from webui.engine.compute.storage import pack, scale_name, with_scales
from webui.engine.files.dims import TextDims, UnetDims, VaeDims
from webui.engine.files.keys import WHOLE, Part, text_names, text_part, unet_names, vae_names
from webui.engine.files.weights import Weights
from webui.errors import BadModelFile

Names = Callable[[str], tuple[str, ...]]

MAX_EXAMPLES = 3  # of missing or misshapen tensors in a message
_OPTIONAL = ("xformers", "scipy", "peft")  # for diffusers and transformers, and not wanted of them here


@dataclass(frozen=True, slots=True)
class Target:
    """Where a network is to live and in which number format; `storage`: that of its large weights, where another."""

    device: torch.device
    dtype: torch.dtype
    channels_last: bool = True
    storage: torch.dtype | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """A module without weights, and which tensor of the file goes where."""

    module: Any
    sources: dict[str, str]  # parameter -> name in the file
    weights: Weights
    parts: dict[str, Part] = field(default_factory=dict)  # parameter -> what of that tensor, where it is not all

    @property
    def used(self) -> set[str]:
        """Names in the file."""
        return set(self.sources.values())


@contextlib.contextmanager
def _without_the_optional() -> Iterator[None]:
    """diffusers and transformers import some packages wherever they are installed, for what nobody here asks of them:
    together 3 seconds at each start. xformers also prints a warning when its compiled part does not fit; our own
    backend (`attention.py`) imports it where it is wanted.

    Whether there is such a package, diffusers asks once, as it is imported: where somebody else (a script, an
    extension) did that before, it is too late to hide it.
    """
    early = "diffusers.utils.import_utils" not in sys.modules
    hidden = [name for name in _OPTIONAL if early and name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@cache
def import_libraries() -> None:
    """Import what the networks come from: seconds, the first time. Everything else here does it when needed.

    Python's collector then leaves all that is there in peace: a million objects that stay for good, which it would look
    at each time that memory is given back. So call it while no job has objects of its own. While the libraries are made
    it rests: it would find nothing, and take a fifth of the time for that.
    """
    with _without_the_optional(), _without_collector():
        import diffusers.models.autoencoders.autoencoder_kl
        import diffusers.models.unets.unet_2d_condition  # noqa: F401
        import transformers.models.clip.modeling_clip  # noqa: F401
    gc.collect()
    gc.freeze()


def meta_unet(dims: UnetDims) -> Any:
    """The UNet on the meta device. Raises ValueError for dimensions that do not go together."""
    with _without_the_optional():
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    with torch.device("meta"):
        return with_own_blocks(UNet2DConditionModel(**dims.diffusers_config()))


def meta_vae(dims: VaeDims) -> Any:
    """The VAE on the meta device. Raises ValueError for dimensions that do not go together."""
    with _without_the_optional():
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    with torch.device("meta"):
        return with_own_blocks(AutoencoderKL(**dims.diffusers_config()))


def meta_text_encoder(dims: TextDims) -> Any:
    """The text encoder on the meta device. Raises ValueError for dimensions that do not go together."""
    with _without_the_optional():
        from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection
    kind = CLIPTextModelWithProjection if dims.projection else CLIPTextModel
    with torch.device("meta"):
        return kind(CLIPTextConfig(**dims.transformers_config()))


def plan_unet(weights: Weights, dims: UnetDims) -> Plan:
    """Raises `BadModelFile` when the file lacks a tensor of this UNet or has one in another shape."""
    return _plan("UNet", lambda: meta_unet(dims), weights, lambda p: unet_names(p, dims))


def plan_vae(weights: Weights, dims: VaeDims) -> Plan:
    """Raises `BadModelFile` when the file lacks a tensor of this VAE or has one in another shape."""
    return _plan("VAE", lambda: meta_vae(dims), weights, lambda p: vae_names(p, dims))


def plan_text_encoder(weights: Weights, dims: TextDims) -> Plan:
    """Raises `BadModelFile` when the file lacks a tensor of this text encoder or has one in another shape."""
    return _plan(
        "text encoder",
        lambda: meta_text_encoder(dims),
        weights,
        lambda p: text_names(p, dims),
        lambda p: text_part(p, dims),
    )


def fill(plan: Plan, target: Target) -> Any:
    """Read the planned tensors into the module; returns it, ready to run on the target device."""
    weights = plan.weights
    plan.module.requires_grad_(False)
    stored = with_scales(plan.module) if target.storage else ()
    expected = plan.module.state_dict()
    state: dict[str, torch.Tensor] = {}
    with torch.inference_mode(False), torch.no_grad():  # ordinary tensors, that a LoRA may change later
        for parameter, name in sorted(plan.sources.items(), key=lambda item: weights.tensors[item[1]].start):
            part = plan.parts.get(parameter, WHOLE)
            view = part.of(weights.tensor(name)).reshape(expected[parameter].shape)
            if target.storage and parameter in stored:
                state[parameter] = torch.empty_like(view, dtype=target.storage, **_place(view, target))
                scale = expected[scale_name(parameter)]
                state[scale_name(parameter)] = torch.empty_like(scale, dtype=target.dtype, device=target.device)
                pack(view, state[parameter], state[scale_name(parameter)])
            else:
                state[parameter] = _placed(view, weights.is_float(name), target)
            if state[parameter].data_ptr() != view.data_ptr():
                weights.release(name)
        plan.module.load_state_dict(state, strict=True, assign=True)
        _fill_buffers(plan.module, target.device)
    return plan.module.eval()


def use_attention(module: Any, attention: Attention) -> None:
    """Let every attention layer of a diffusers network run on our backend."""
    module.set_attn_processor(AttentionProcessor(attention))
    if next(module.parameters()).is_cuda:
        lay_side_by_side(module)


def live_from_file(module: Any, weights: Weights) -> bool:
    """Whether any parameter is still a view on the file, so that a change of the file would change the network."""
    start = torch.frombuffer(weights.mapping, dtype=torch.uint8, count=1).data_ptr()
    end = start + weights.header.file_size
    return any(start <= p.data_ptr() < end for p in module.parameters())


def _plan(
    what: str,
    build: Callable[[], Any],
    weights: Weights,
    names: Names,
    part_of: Callable[[str], Part] = lambda _parameter: WHOLE,
) -> Plan:
    try:
        module = build()
    except (ValueError, ZeroDivisionError) as error:  # channels that heads or groups do not divide, and the like
        first = (str(error).strip().splitlines() or [""])[0][:160]
        raise BadModelFile(f"The {what} in the file has impossible dimensions ({first}).") from None
    sources: dict[str, str] = {}
    parts: dict[str, Part] = {}
    missing: list[str] = []
    misshapen: list[str] = []
    for parameter, tensor in module.state_dict().items():
        candidates, part = names(parameter), part_of(parameter)
        name = next((n for n in candidates if n in weights.tensors), None)
        if name is None:
            missing.append(candidates[0])
        elif not _fits(part.shape(weights.tensors[name].shape), tuple(tensor.shape)):
            found = "x".join(map(str, weights.tensors[name].shape))
            wanted = "x".join(map(str, tensor.shape))
            misshapen.append(f"{name} is {found} instead of {wanted}")
        else:
            sources[parameter] = name
            if part is not WHOLE:
                parts[parameter] = part
    _refuse(what, missing, misshapen, len(sources))
    return Plan(module, sources, weights, parts)


def _refuse(what: str, missing: list[str], misshapen: list[str], found: int) -> None:
    total = found + len(missing) + len(misshapen)
    if misshapen:
        raise BadModelFile(
            f"The {what} in the file has {len(misshapen)} of {total} tensors in a wrong shape: {_some(misshapen)}.",
            "The file is of another architecture, or damaged; choose another one.",
        )
    if missing:
        raise BadModelFile(
            f"The file lacks {len(missing)} of the {total} tensors of its {what}: {_some(missing)}.",
            "The file is of another architecture, or incomplete; choose another one.",
        )


def _some(items: list[str]) -> str:
    more = len(items) - MAX_EXAMPLES
    return ", ".join(item[:200] for item in items[:MAX_EXAMPLES]) + (f" and {more} more" if more > 0 else "")


def _fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Equal, or equal but for 1s at the end: a 1x1 convolution is a linear layer (the VAE's attention)."""
    longer, shorter = (shape, wanted) if len(shape) > len(wanted) else (wanted, shape)
    return longer[: len(shorter)] == shorter and all(side == 1 for side in longer[len(shorter) :])


def _placed(view: torch.Tensor, is_float: bool, target: Target) -> torch.Tensor:
    """The tensor in the target's device, number format and memory format; the view itself where it has them already.

    Convolutions with their channels last need no reordering before each step: measured in benchmarks.
    """
    return view.to(dtype=target.dtype if is_float else view.dtype, **_place(view, target))


def _place(view: torch.Tensor, target: Target) -> dict[str, Any]:
    if view.ndim == 4 and target.channels_last and view.shape[2:] != (1, 1):
        return {"device": target.device, "memory_format": torch.channels_last}
    return {"device": target.device}


def _fill_buffers(module: Any, device: torch.device) -> None:
    """Buffers that no file holds. There is one: CLIP's position numbers."""
    for name, buffer in module.named_buffers():
        if buffer.device.type != "meta":
            continue
        owner, _, last = name.rpartition(".")
        if last != "position_ids":
            raise NotImplementedError(f"no value is known for the buffer {name}")
        positions = torch.arange(buffer.shape[-1], device=device).expand(buffer.shape).contiguous()
        module.get_submodule(owner).register_buffer(last, positions, persistent=False)
