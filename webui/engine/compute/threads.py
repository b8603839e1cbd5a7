"""How many of a processor's threads a network runs on: as many as its work feeds.

A network call is some hundred operations, and each of them is cut into equal parts and waited for. Where a part is
smaller than what the cutting costs, more threads are slower. Measured with the embedded model at 128x128 (0.8 GFLOP a
call, 20 steps guided, two threads of one core): 2.1 CPU seconds with one thread, 2.4 with two; with a busy neighbour
1.1 to 1.8 times as long by the clock. At 256x256 (3.2 GFLOP) there is no difference left, and a full-size model (400
GFLOP a call at 512x512) takes every thread there is.

The number can change the last bits of a result. So it follows from the network and the size of its input alone, and
never from what else runs, and each network call sets its own: what is kept between jobs (encoded prompts, patched
weights) is the same whichever job made it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

FLOP_A_THREAD = 1.5e9  # of a call: some ten million for each part of an operation, or 50 to 100 microseconds


def threads_for(flop: float, available: int | None = None) -> int:
    """The threads for a network call of so many floating-point operations.

    `available`: how many there are; what torch was told, if not given.
    """
    available = torch.get_num_threads() if available is None else available
    return max(1, min(available, int(flop / FLOP_A_THREAD)))


@contextlib.contextmanager
def suited(flop: float, device: torch.device) -> Iterator[None]:
    """Run the block on the threads that suit a network call of `flop` operations; not inside of another such block."""
    before = torch.get_num_threads()
    threads = threads_for(flop, before)
    if device.type != "cpu" or threads == before:
        yield
        return
    torch.set_num_threads(threads)  # less than a microsecond
    try:
        yield
    finally:
        torch.set_num_threads(before)


def unet_flop(unet: Any) -> float:
    """Floating-point operations of a UNet call for each latent cell, without those of attention itself.

    Each weight of a level meets each cell of that level once; a level has a quarter of the cells of the one above.
    """
    depth = len(unet.down_blocks) - 1
    cells: float = sum(_numbers(block) / 4**level for level, block in enumerate(unet.down_blocks))
    cells += _numbers(unet.mid_block) / 4**depth
    cells += sum(_numbers(block) / 4 ** (depth - level) for level, block in enumerate(unet.up_blocks))
    return 2.0 * cells


def vae_flop(vae: Any) -> tuple[float, float]:
    """The same of a VAE for each latent cell: (encode, decode)."""
    encoder, decoder = vae.encoder, vae.decoder
    depth = len(encoder.down_blocks) - 1
    encode = sum(_numbers(block) * 4 ** (depth - level) for level, block in enumerate(encoder.down_blocks))
    decode = sum(_numbers(block) * 4**level for level, block in enumerate(decoder.up_blocks))
    return 2.0 * (encode + _numbers(encoder.mid_block)), 2.0 * (decode + _numbers(decoder.mid_block))


def text_flop(encoder: Any, tokens: int) -> float:
    """The same of a text encoder for a whole chunk of `tokens`; its table of words is only looked into."""
    table: int = encoder.get_input_embeddings().weight.numel()
    return 2.0 * (_numbers(encoder) - table) * tokens


def _numbers(module: Any) -> int:
    numbers: int = 0 if module is None else sum(p.numel() for p in module.parameters())
    return numbers
