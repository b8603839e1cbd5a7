"""The engine's caches with their sizes and bounds, and how each is emptied."""

from __future__ import annotations

from collections.abc import Iterable

from webui.caches import CacheState, known_caches
from webui.engine.checkpoints.models import EXTERNAL_VAES
from webui.engine.kept_networks import KEPT
from webui.engine.memory.usage import give_back
from webui.engine.networks.attachment import CACHE_BYTES
from webui.engine.networks.library import KEPT_FILES
from webui.engine.shared import Tools


def cache_states(tools: Tools) -> tuple[CacheState, ...]:
    """All of them, in the order of `webui.caches.CACHES`. To be asked while no job runs."""
    store, chunks, files, upscalers = tools.store, tools.chunks, tools.library.held, tools.upscalers.networks.held
    faces = tools.faces.networks.held
    switches = [switch for loaded in store.checkpoints for switch in loaded.switches]
    return (
        CacheState(
            "checkpoints",
            len(store.checkpoints),
            sum(loaded.bytes for loaded in store.checkpoints),
            store.keep,
            store.limit,
            store.loaded,
        ),
        CacheState(
            "vaes",
            len(store.external_vaes),
            sum(vae.bytes for vae in store.external_vaes),
            EXTERNAL_VAES,
            0,
            tuple(vae.name for vae in store.external_vaes),
        ),
        CacheState(
            "loras",
            sum(switch.entries for switch in switches),
            sum(switch.nbytes for switch in switches),
            0,
            CACHE_BYTES * max(1, len(switches)),
        ),
        CacheState("graphs", len(tools.graphs), tools.graphs.bytes, tools.graphs.keep, 0),
        CacheState("networks", len(files), sum(files.values()), KEPT_FILES, 0, tuple(files)),
        CacheState("prompts", chunks.entries, chunks.bytes, 0, chunks.limit),
        CacheState("upscalers", len(upscalers), sum(upscalers.values()), KEPT, 0, tuple(upscalers)),
        CacheState("faces", len(faces), sum(faces.values()), KEPT, 0, tuple(faces)),
    )


def clear_caches(tools: Tools, names: Iterable[str]) -> None:
    """Empty these, or all where none is named, and give the memory back. No job may run."""
    for name in known_caches(names):
        if name == "checkpoints":
            tools.store.drop_checkpoints()
        elif name == "vaes":
            tools.store.drop_vaes()
        elif name == "loras":
            for loaded in tools.store.checkpoints:
                if loaded.adapters is not None:
                    loaded.adapters.clear()
        elif name == "graphs":
            tools.graphs.clear()
        elif name == "networks":
            tools.library.close()
        elif name == "prompts":
            tools.chunks.clear()
        elif name == "upscalers":
            tools.upscalers.networks.clear()
        else:
            tools.faces.networks.clear()
    give_back(tools.device.device)
