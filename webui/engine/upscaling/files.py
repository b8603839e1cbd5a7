"""From an upscaler's file to its network: which architecture its tensors are of, and what each is called here.

RRDBNet has had three ways of naming: that of ESRGAN's first release (`model.1.sub.0.RDB1.conv1.0`), that of its second
(`RRDB_trunk.0.RDB1.conv1`), and BasicSR's (`body.0.rdb1.conv1`), which is used here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from webui.engine.spandrel_models import Wanted, load_by_spandrel
from webui.engine.upscaling.compact import Compact
from webui.engine.upscaling.rrdb import RRDBNet
from webui.errors import BadModelFile, UnsupportedModel

WRAPPERS = ("params_ema.", "params.", "module.", "generator.", "state_dict.")
MAX_SCALE = 16
_OLD_NAMES = (
    (re.compile(r"^model\.1\.sub\.(\d+)\.RDB(\d)\.conv(\d)(?:\.0)?\."), r"body.\1.rdb\2.conv\3."),
    (re.compile(r"^RRDB_trunk\.(\d+)\.RDB(\d)\.conv(\d)\."), r"body.\1.rdb\2.conv\3."),
    (re.compile(r"^model\.1\.sub\.\d+\.(?=weight|bias)"), "conv_body."),
    (re.compile(r"^trunk_conv\."), "conv_body."),
    (re.compile(r"^HRconv\."), "conv_hr."),
    (re.compile(r"^upconv(\d)\."), r"conv_up\1."),
    (re.compile(r"^model\.0\."), "conv_first."),
)
_NUMBERED = re.compile(r"^model\.(\d+)\.(?:weight|bias)$")
_DOUBLING = re.compile(r"^conv_up(\d)\.")

UPSCALERS = Wanted("upscaler", "Use an ESRGAN, Real-ESRGAN or Compact model, or install requirements-spandrel.txt.")

Network = RRDBNet | Compact


def network_of(tensors: Mapping[str, Tensor], name: str) -> Any:
    """The network in evaluation mode, in fp32, on the CPU. It has `scale` and `reach`.

    Raises `UnsupportedModel` for another architecture (unless spandrel is installed and knows it), `BadModelFile` when
    the tensors do not fit together.
    """
    plain = _unwrapped(tensors)
    for matches, build in _KNOWN:
        if matches(plain):
            try:
                network = build(plain)
            except (KeyError, RuntimeError, ValueError, ZeroDivisionError) as error:
                reason = str(error).strip().splitlines()[0][:200]
                raise BadModelFile(f'The upscaler "{name}" is damaged: {reason}.', "Get the file again.") from None
            return network.eval().requires_grad_(False)
    return _by_spandrel(plain, name)


def _unwrapped(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the wrapper that a trainer left around the names; of several copies the smoothed one ("ema")."""
    for wrapper in WRAPPERS:
        inside = {key.removeprefix(wrapper): value for key, value in tensors.items() if key.startswith(wrapper)}
        if inside:
            return inside
    return dict(tensors)


def _is_rrdb(tensors: Mapping[str, Tensor]) -> bool:
    first = ("model.1.sub.0.RDB1.conv1.0.weight", "RRDB_trunk.0.RDB1.conv1.weight", "body.0.rdb1.conv1.weight")
    return any(key in tensors for key in first)


def _rrdb(tensors: Mapping[str, Tensor]) -> RRDBNet:
    named = {_new_name(key): value for key, value in _last_layers(tensors).items()}
    doublings = len({match[1] for key in named if (match := _DOUBLING.match(key))})
    named = {_DOUBLING.sub(lambda m: f"conv_up.{int(m[1]) - 1}.", key): value for key, value in named.items()}
    first, dense = named["conv_first.weight"], named["body.0.rdb1.conv1.weight"]
    unshuffle = round((first.shape[1] / 3) ** 0.5)
    if 3 * unshuffle**2 != first.shape[1] or 2**doublings % unshuffle:
        raise ValueError("its first layer does not take a picture")
    blocks = 1 + max(int(match[1]) for key in named if (match := re.match(r"body\.(\d+)\.", key)))
    _bounded(blocks=blocks, channels=first.shape[0], scale=2**doublings)
    with torch.device("meta"):
        network = RRDBNet(
            channels=first.shape[0],
            growth=dense.shape[0],
            blocks=blocks,
            doublings=doublings,
            unshuffle=unshuffle,
        )
    _fill(network, named)
    return network


def _last_layers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The first naming numbers what follows the blocks; how many doublings there are says what a number means."""
    numbers = sorted({int(match[1]) for key in tensors if (match := _NUMBERED.match(key))} - {0})
    if not numbers:
        return dict(tensors)
    *ups, detail, last = numbers
    names = {number: f"conv_up{i}" for i, number in enumerate(ups, start=1)} | {detail: "conv_hr", last: "conv_last"}
    return {
        f"{names[int(match[1])]}.{key.rpartition('.')[2]}"
        if (match := _NUMBERED.match(key)) and match[1] != "0"
        else key: value
        for key, value in tensors.items()
    }


def _new_name(key: str) -> str:
    for pattern, name in _OLD_NAMES:
        key = pattern.sub(name, key)
    return key


def _is_compact(tensors: Mapping[str, Tensor]) -> bool:
    first, second = tensors.get("body.0.weight"), tensors.get("body.1.weight")
    return first is not None and second is not None and first.ndim == 4 and second.ndim == 1


def _compact(tensors: Mapping[str, Tensor]) -> Compact:
    last = max(int(match[1]) for key in tensors if (match := re.match(r"body\.(\d+)\.", key)))
    out = tensors[f"body.{last}.weight"].shape[0]
    scale = round((out / 3) ** 0.5)
    if 3 * scale**2 != out:
        raise ValueError("its last layer does not give a picture")
    channels = tensors["body.0.weight"].shape[0]
    _bounded(blocks=last, channels=channels, scale=scale)
    with torch.device("meta"):
        network = Compact(channels=channels, convolutions=last // 2 - 1, scale=scale)
    _fill(network, tensors)
    return network


def _bounded(*, blocks: int, channels: int, scale: int) -> None:
    if blocks > 256 or channels > 1024 or not 1 <= scale <= MAX_SCALE:
        raise ValueError(f"a network of {blocks} blocks, {channels} channels and scale {scale} is beyond the bounds")


def _fill(network: Network, tensors: Mapping[str, Tensor]) -> None:
    """Put the weights in, as fp32. Raises RuntimeError naming what is missing or of another shape."""
    network.load_state_dict({key: value.float() for key, value in tensors.items()}, strict=True, assign=True)


_KNOWN: tuple[tuple[Callable[[Mapping[str, Tensor]], bool], Callable[[Mapping[str, Tensor]], Network]], ...] = (
    (_is_rrdb, _rrdb),
    (_is_compact, _compact),
)


def _by_spandrel(tensors: Mapping[str, Tensor], name: str) -> Any:
    """Any other architecture that the optional package spandrel knows."""
    found = load_by_spandrel(tensors, name, UPSCALERS)
    if found.purpose == "FaceSR":
        raise UnsupportedModel(
            f'The model "{name}" ({found.architecture.name}) restores faces and enlarges nothing.',
            "Move it to models/GFPGAN, and choose it for face restoration.",
        )
    return SpandrelNetwork(found)


class SpandrelNetwork:
    """A network of that package with what is asked of one here."""

    reach = 32  # pixels; it does not say how far it sees

    def __init__(self, model: Any) -> None:
        self._model = model.eval()
        self.scale = int(model.scale)

    def to(self, device: torch.device) -> SpandrelNetwork:
        self._model.to(device)
        return self

    def parameters(self) -> Iterator[Tensor]:
        return iter(self._model.model.parameters())

    def __call__(self, x: Tensor) -> Tensor:
        large: Tensor = self._model(x)
        return large
