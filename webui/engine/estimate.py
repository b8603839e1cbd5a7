"""How much memory a job takes, from the dimensions of its networks alone, and what follows where there is less.

Activations are counted in numbers a cell: what a block holds at its fullest moment, while the skip connections of the
levels above wait. Held against torch's own account of a call (tests/engine/test_engine_estimate.py), the estimate for a
UNet is between 0.6 and 1.7 times the truth, that for a VAE between 0.6 and 2.5 times.
"""

from __future__ import annotations

from dataclasses import dataclass

from webui.engine.compute.attention import SLICE_BYTES
from webui.engine.files.dims import UnetDims, VaeDims
from webui.engine.memory.residency import MODES, resident_bytes
from webui.engine.memory.streaming import SLOTS
from webui.settings import MemoryMode

# Numbers a cell and channel that a block holds at its fullest. A residual block: its input twice (as it is and
# normalised), its result twice. A transformer: the picture three times (input, residual, normalised), and the gated
# unit eight times for its product and four for its result.
_RESIDUAL_INPUT, _RESIDUAL_OUTPUT = 2, 2
_TRANSFORMER = 3 + 8 + 4
# Of a VAE, in numbers a pixel and channel. A decoder's picture comes to its full size with the channels of the second
# level, and its norms are computed in fp32.
_VAE_HELD = 8.5
_SCALE = 8  # pixels a latent cell
USABLE = 0.9  # of the free memory: the rest is for what no estimate knows


def unet_activations(
    dims: UnetDims, height: int, width: int, pictures: int, itemsize: int, attention: str = "sdpa"
) -> int:
    """Bytes that a UNet call holds at its peak, weights apart, for `pictures` of `height` x `width` latent cells.

    `pictures`: all that go through together, prompts and negative prompts apart. `itemsize`: bytes a number.
    """
    cells = height * width
    widths = dims.channels
    held = float(widths[0])  # skip connections so far, in numbers a cell of the full size
    peak = 0.0
    for level, channels in enumerate(widths):
        share, before = 0.25**level, widths[max(0, level - 1)]
        for _ in range(dims.layers):
            peak = max(peak, held + share * _busy(before, channels, dims.depths[level]))
            held += channels * share
            before = channels
        if level < len(widths) - 1:
            held += channels * share / 4
    share = 0.25 ** (len(widths) - 1)
    peak = max(peak, held + share * _busy(widths[-1], widths[-1], dims.mid_depth))
    below = widths[-1]
    for level, channels in reversed(list(enumerate(widths))):
        share, above = 0.25**level, widths[max(0, level - 1)]
        for layer in range(dims.layers + 1):
            skip = channels if layer < dims.layers else above
            peak = max(peak, held + share * _busy(below + skip, channels, dims.depths[level]))
            held -= skip * share
            below = channels
    numbers = peak * cells * pictures * itemsize
    return int(numbers) + (3 * SLICE_BYTES if attention == "sliced" else 0)


def vae_activations(dims: VaeDims, height: int, width: int, itemsize: int) -> int:
    """Bytes that a decode or encode of `height` x `width` latent cells holds at its peak, weights apart.

    Too high makes tiles early, too low ends in the retry that `webui.engine.latents.vae` has for running out of memory.
    """
    return int(_VAE_HELD * max(dims.channels[:2]) * height * width * _SCALE**2 * itemsize)


@dataclass(frozen=True, slots=True)
class Need:
    """What a job takes on the device, in bytes."""

    unet: int  # weights
    texts: int  # of all text encoders, which are there while prompts are encoded
    vae: int
    others: int  # weights of what other jobs left there
    layer: int  # the largest of all their layers
    step: int  # activations of a UNet call with everything of a batch in it
    least_step: int  # with one picture and one prompt
    codec: int  # activations of the VAE, in tiles where that is allowed

    def peak(self, mode: MemoryMode, *, apart: bool) -> int:
        """The most that is on the device at once. `apart`: pictures and prompts go through the UNet one by one."""
        step = self.least_step if apart else self.step
        if mode is MemoryMode.normal:
            return self.unet + self.vae + self.others + max(self.texts, step, self.codec)
        unet, texts, vae = (self._of_one(mode, size) for size in (self.unet, self.texts, self.vae))
        return max(unet + step, texts, vae + self.codec)

    def _of_one(self, mode: MemoryMode, size: int) -> int:
        """What is on the device of a network of `size` bytes while it is in use."""
        resident = resident_bytes(mode, size, self.layer)
        return size if resident == size else resident + SLOTS * self.layer


@dataclass(frozen=True, slots=True)
class Choice:
    """How a job is done, the least frugal way that fits."""

    mode: MemoryMode
    apart: bool
    needed: int  # bytes, as it was asked for
    free: int  # bytes

    @property
    def text(self) -> str:
        """What was decided and why, for the user."""
        how = ["one picture and one prompt at a time"] if self.apart else []
        if self.mode is MemoryMode.medvram:
            how.append("one network on the GPU at a time")
        if self.mode is MemoryMode.lowvram:
            how.append("one layer on the GPU at a time")
        return (
            f"This job would take about {_gigabytes(self.needed)} of GPU memory, and {_gigabytes(self.free)} can be "
            f"used: it is made with {' and '.join(how)}."
        )


def choose(need: Need, free: int, mode: MemoryMode) -> Choice:
    """The least frugal way, from `mode` on, that fits into `free` bytes; the most frugal one where none does.

    `free`: as if no network were there. 0: nobody knows, so everything is done as it was asked for.
    """
    needed = need.peak(mode, apart=False)
    usable = int(free * USABLE)
    ways = [(later, apart) for later in MODES[MODES.index(mode) :] for apart in (False, True)]
    fitting = (way for way in ways if not free or need.peak(way[0], apart=way[1]) <= usable)
    chosen, apart = next(fitting, ways[-1])
    return Choice(chosen, apart, needed, usable)


def _busy(entering: int, channels: int, depth: int) -> float:
    """Numbers a cell that a residual block, and the transformer after it where there is one, hold at their fullest."""
    residual = _RESIDUAL_INPUT * entering + _RESIDUAL_OUTPUT * channels
    return max(residual, _TRANSFORMER * channels if depth else 0)


def _gigabytes(size: int) -> str:
    return f"{size / 2**30:.1f} GB"
