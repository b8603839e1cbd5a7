"""The Settings tab: every entry of `webui.settings`, by group. Pure functions at the top, the mount below."""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable
from dataclasses import asdict
from enum import Enum
from typing import TYPE_CHECKING, Any, cast

import gradio as gr

from webui import settings as all_settings
from webui.caches import CACHES, CacheState
from webui.errors import NotFound, SettingsError
from webui.settings import BOUNDS, Settings, SettingsStore
from webui.settings import keys as setting_keys
from webui.ui.common import mounted, viewer_of
from webui.ui.markup import markup

if TYPE_CHECKING:
    from webui.catalog import Catalog
    from webui.jobs.service import JobService

SCRIPTS = ("settings.js",)

# --- pure -------------------------------------------------------------------------------------------------------------

TITLES = {
    "model": "Model",
    "device": "Device",
    "preview": "Preview",
    "saving": "Saving",
    "queue": "Queue",
    "page": "Page",
    "server": "Server",
    "extensions": "Extensions",
}

# key -> (label, what it does)
WORDS: dict[str, tuple[str, str]] = {
    "model.checkpoint": ("Checkpoint at start", "Name or hash. Empty: the first of your own, else the one that ships."),
    "model.vae": ("VAE at start", "Automatic, None, or a file name."),
    "model.vae_overrides_preferences": (
        "A chosen VAE wins",
        "Over the one that a checkpoint's own notes prefer.",
    ),
    "model.checkpoints_in_memory": (
        "Checkpoints in memory",
        "How many stay loaded, so that going back to one takes no time.",
    ),
    "model.memory_limit_gb": (
        "Memory for checkpoints",
        "GB that all loaded ones may take together; the one not used for longest goes first. 0: their number decides.",
    ),
    "model.allow_pickle": (
        "Open .ckpt and .pt files",
        "Old formats that can carry programs. They are read through an allow-list; prefer .safetensors.",
    ),
    "device.use_cpu": ("Use the CPU", "Even when there is a GPU."),
    "device.precision": ("Precision", "auto: fp16 on CUDA, bf16 on a CPU that has it, else fp32."),
    "device.vae_precision": ("VAE precision", "auto: the same, raised by itself when a picture would turn black."),
    "device.weights": (
        "Weights in memory",
        "full: as they are computed with. int8, float8: half the memory of fp16; pictures differ a little.",
    ),
    "device.attention": (
        "Attention",
        "auto: xformers where it works, PyTorch's own elsewhere and on an NVIDIA H100 or newer.",
    ),
    "device.graphs": (
        "CUDA graphs",
        "A step is recorded once for each size and then repeated by one call. Not with medvram, lowvram or a limit.",
    ),
    "device.kernels": (
        "Fused kernels",
        "On a GPU in half precision: norms, activations and sums in fewer passes. Off if they could not be made there.",
    ),
    "device.compile": (
        "Compile the UNet",
        "By torch.compile: faster steps, after minutes at the first picture of each size. Needs a C++ compiler.",
    ),
    "device.memory": (
        "Memory saving",
        "medvram keeps one network on the device at a time, lowvram one layer: slower, smaller.",
    ),
    "device.vram_limit_gb": (
        "VRAM for networks",
        "GB of them that stay on the GPU; those not used for longest wait in RAM. 0: all stay there.",
    ),
    "preview.enabled": ("Live preview", "Show the picture while it forms."),
    "preview.every_seconds": ("Preview every", "Seconds between two previews. Usual: 0.25 to 1."),
    "preview.max_side": ("Preview size", "Pixels of the longer side."),
    "saving.format": (
        "File format",
        "png keeps every pixel; jpeg, webp and avif are smaller. All carry the parameters.",
    ),
    "saving.quality": ("Quality", "Of JPEG, WEBP and AVIF, 1 to 100. Usual: 90."),
    "queue.max_pending": ("Longest queue", "Jobs that may wait; more are refused."),
    "queue.max_pending_per_user": ("Longest queue of one user", "Jobs that one signed-in user may have waiting."),
    "queue.worker_timeout_seconds": (
        "Worker timeout",
        "Seconds without a sign of life until the worker is started again.",
    ),
    "page.theme": ("Theme", "For browsers that have not chosen one by the button in the header."),
    "server.port": ("Port", "Where the page is found. 0: any free one."),
    "extensions.disabled": ("Switched off", "Names of extensions, with commas; easier in the tab Extensions."),
    "extensions.safe_mode": ("Safe mode", "Start without any extension."),
    "server.open_browser": ("Open a browser", "At the start, when there is a display."),
}

# When a change is in force. The rest: the engine worker is replaced when it has nothing to do.
AT_RESTART = frozenset({"server.port", "server.open_browser", "extensions.disabled", "extensions.safe_mode"})
AT_ONCE = frozenset(
    {"page.theme", "model.checkpoint", "model.vae", "saving.format", "saving.quality"}
    | {"queue.max_pending", "queue.max_pending_per_user", "queue.worker_timeout_seconds"}
)


def entry(key: str, settings: Settings, suggestions: tuple[str, ...] = ()) -> dict[str, Any]:
    """One setting as the page draws it."""
    value, default = all_settings.get(settings, key), all_settings.get(Settings(), key)
    choices = enum_choices(key)
    if isinstance(default, bool):
        kind = "bool"
    elif choices:
        kind = "choice"
    elif isinstance(default, int | float):
        kind = "number"
    else:
        kind = "text"
    low, high = BOUNDS.get(key, (None, None))
    label, tip = WORDS[key]
    return {
        "key": key,
        "label": label,
        "tip": tip,
        "kind": kind,
        "choices": choices,
        "suggestions": list(suggestions),
        "low": low,
        "high": high,
        "whole": isinstance(default, int),
        "value": value,
        "default": default,
        "effect": "restart" if key in AT_RESTART else "now" if key in AT_ONCE else "worker",
    }


def enum_choices(key: str) -> list[str]:
    """The values an entry may have, [] where it is not one of a few."""
    group, _, name = key.partition(".")
    group_type = typing.get_type_hints(Settings)[group]
    kind = typing.get_type_hints(group_type)[name]
    return [member.value for member in kind] if isinstance(kind, type) and issubclass(kind, Enum) else []


def groups(settings: Settings, suggestions: dict[str, tuple[str, ...]] | None = None) -> list[dict[str, Any]]:
    """All settings by group, in the order of `webui.settings`."""
    found = suggestions or {}
    by_group: dict[str, list[dict[str, Any]]] = {}
    for key in setting_keys():
        by_group.setdefault(key.partition(".")[0], []).append(entry(key, settings, found.get(key, ())))
    return [{"id": name, "title": TITLES[name], "entries": entries} for name, entries in by_group.items()]


def save_entry(store: SettingsStore, apply: Callable[[Settings], None], data: Any) -> dict[str, Any]:
    """Save one setting and put it in force: `{"key", "value"}` -> `{"value"}` as it is now, or `{"error"}` in words."""
    if not isinstance(data, dict) or not isinstance(data.get("key"), str):
        return {"error": "The request is not understood. Reload the page."}
    key, value = cast(str, data["key"]), data.get("value")
    if value is None:
        return {"error": "A number is missing."}
    try:
        default = all_settings.get(Settings(), key) if key in setting_keys() else None
        if isinstance(default, int) and not isinstance(default, bool) and isinstance(value, float):
            value = int(value) if value.is_integer() else value
        changed = store.change({key: value})
        apply(changed)
        return {"value": all_settings.get(changed, key)}
    except SettingsError as error:
        return {"error": str(error)}


def cache_rows(caches: Iterable[CacheState]) -> list[dict[str, Any]]:
    """What is kept in memory, as the page draws it."""
    return [{**asdict(cache), "title": cache.title, "tip": CACHES[cache.name][1]} for cache in caches]


# --- layout -----------------------------------------------------------------------------------------------------------


def build(jobs: JobService, store: SettingsStore, catalog: Catalog) -> None:
    """The tab's content. Called inside a `gr.Tab`."""

    def read_settings(_: Any, request: gr.Request) -> list[dict[str, Any]]:
        if not viewer_of(request).admin:
            return []
        suggestions = {
            "model.checkpoint": tuple(m.name for m in catalog.checkpoints if m.runnable),
            "model.vae": ("Automatic", "None", *(m.name for m in catalog.vaes if m.runnable)),
        }
        return groups(store.current, suggestions)

    def save_setting(data: Any, request: gr.Request) -> dict[str, Any]:
        if not viewer_of(request).admin:
            return {"error": "Settings are for administrators alone."}
        return save_entry(store, jobs.apply_settings, data)

    def read_caches(_: Any, request: gr.Request) -> list[dict[str, Any]]:
        return cache_rows(jobs.caches()) if viewer_of(request).admin else []

    def clear_cache(name: Any, request: gr.Request) -> dict[str, Any]:
        if not viewer_of(request).admin:
            return {"error": "This is for administrators alone."}
        try:
            return {"waits": jobs.clear_caches([name] if isinstance(name, str) and name else [])}
        except NotFound as error:
            return {"error": str(error)}

    functions = [read_settings, save_setting, read_caches, clear_cache]
    mounted("settings", markup("settings"), server_functions=functions)
