"""What the engine keeps in memory from job to job, as plain data: it is shown and cleared in several places."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from webui.errors import NotFound, near_matches

# name -> (title, what is in it)
CACHES: dict[str, tuple[str, str]] = {
    "checkpoints": ("Checkpoints", "Loaded models, with their text encoders and the VAE inside."),
    "vaes": ("VAEs", "Loaded from files of their own."),
    "loras": ("Patched weights", "Layers as sets of LoRAs change them, ready for the next picture with the same set."),
    "graphs": ("Recorded UNets", "What a GPU does in a UNet call, for each size and set of LoRAs: CUDA graphs."),
    "networks": ("Network files", "LoRAs, embeddings and hypernetworks that are open."),
    "prompts": ("Prompts", "Texts as the text encoders read them."),
    "upscalers": ("Upscalers", "Loaded networks that enlarge."),
    "faces": ("Face restorers", "Loaded networks that restore faces."),
}


@dataclass(frozen=True, slots=True)
class CacheState:
    """One cache. `most` entries and `limit` bytes are its bounds, 0 where only the other counts.

    `held`: names of what is in it, where they mean something.
    """

    name: str
    entries: int
    bytes: int
    most: int
    limit: int
    held: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        return CACHES[self.name][0]


def known_caches(names: Iterable[str]) -> tuple[str, ...]:
    """The names in the order of `CACHES`; all of them where none is given. Raises `NotFound` for one that is none."""
    wanted = set(names)
    for name in sorted(wanted - CACHES.keys()):
        raise NotFound(f'There is no cache "{name[:80]}".', near_matches(name, CACHES) or f"They are: {_listed()}.")
    return tuple(name for name in CACHES if not wanted or name in wanted)


def _listed() -> str:
    return ", ".join(CACHES)
