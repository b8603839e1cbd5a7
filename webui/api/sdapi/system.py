"""Options, the machine's memory, looking for files again, and what clients of other programs ask at their start."""

from __future__ import annotations

import os
from typing import Any

from fastapi import APIRouter

from webui.api.common import AsciiJSON
from webui.api.encoded import decode_picture, encode_picture
from webui.api.sdapi.context import Context
from webui.api.sdapi.errors import SdapiRoute
from webui.api.sdapi.requests import Detection
from webui.api.viewer import AdminOnly
from webui.errors import InvalidParams
from webui.settings import Settings

CONTROLNET_VERSION = 3  # of the routes, which clients check


def system_routes(context: Context) -> APIRouter:
    """/options, /cmd-flags, /memory, the refresh routes, and what is not offered."""
    router = APIRouter(route_class=SdapiRoute)

    @router.get("/options")
    def options() -> dict[str, Any]:
        """Every option that clients of that program use, with its value."""
        return context.options.told()

    @router.post("/options", dependencies=[AdminOnly])
    def set_options(body: dict[str, Any]) -> None:
        """Set options for good; unknown ones are ignored. For one request alone there is `override_settings`."""
        context.options.change(body)

    @router.get("/cmd-flags")
    def cmd_flags() -> dict[str, Any]:
        """The flags of that program that have a meaning here. No secret and no path is among them."""
        return flags(context.store.current)

    @router.get("/memory")
    def memory() -> dict[str, Any]:
        """Bytes of the machine's memory, and of the GPU's where there is one."""
        return memory_view(context.jobs.worker()["memory"])

    def refresh() -> None:
        context.catalog.refresh()

    for name in ("checkpoints", "vae", "loras", "embeddings"):
        router.add_api_route(
            f"/refresh-{name}",
            refresh,
            methods=["POST"],
            dependencies=[AdminOnly],
            response_model=None,
            name=f"refresh_{name}",
            description="Look into the model folders again.",
        )

    @router.post("/unload-checkpoint", dependencies=[AdminOnly])
    def unload_checkpoint() -> dict[str, Any]:
        """Give the memory of all models back, as soon as no job runs. The next job loads what it needs."""
        context.jobs.unload()
        return {}

    @router.post("/reload-checkpoint", dependencies=[AdminOnly])
    def reload_checkpoint() -> dict[str, Any]:
        """Have the selected checkpoint in memory before a request needs it."""
        settings = context.store.current.model
        chosen = context.catalog.default_checkpoint(settings.checkpoint, allow_pickle=settings.allow_pickle)
        if chosen is not None:
            context.jobs.set_selected(chosen.name, settings.vae)
        return {}

    for name in ("create/embedding", "create/hypernetwork", "train/embedding", "train/hypernetwork"):
        router.add_api_route(
            f"/{name}",
            _no_training,
            methods=["POST"],
            name=name.replace("/", "_"),
            description="Networks are not trained here.",
        )
    return router


def controlnet_routes() -> APIRouter:
    """/controlnet: what its clients ask before they show their controls. There are no units here."""
    router = APIRouter(prefix="/controlnet", route_class=SdapiRoute)

    @router.get("/version")
    def version() -> dict[str, int]:
        """The version of these routes."""
        return {"version": CONTROLNET_VERSION}

    @router.get("/model_list")
    def model_list() -> dict[str, list[str]]:
        """ControlNet models that can be used: none."""
        return {"model_list": []}

    @router.get("/module_list")
    def module_list() -> dict[str, Any]:
        """Preprocessors."""
        return {"module_list": ["none"], "module_detail": {"none": {"model_free": False, "sliders": []}}}

    @router.get("/control_types")
    def control_types() -> dict[str, Any]:
        """Models and preprocessors by what they follow."""
        every = {"module_list": ["none"], "model_list": ["None"], "default_option": "none", "default_model": "None"}
        return {"control_types": {"All": every}}

    @router.get("/settings")
    def settings() -> dict[str, int]:
        """How many units a request can have."""
        return {"control_net_unit_count": 0}

    @router.post("/detect")
    def detect(body: Detection) -> AsciiJSON:
        """Run a preprocessor; "none" gives the pictures back as they are."""
        if body.controlnet_module.casefold() != "none":
            raise InvalidParams(
                f"There is no preprocessor {body.controlnet_module[:80]}.", 'There is "none", which changes nothing.'
            )
        images = body.controlnet_input_images or body.controlnet_images
        if not images:
            raise InvalidParams("controlnet_input_images: there is no picture.", "Send at least one.")
        found = [encode_picture(decode_picture(image, "controlnet_input_images")) for image in images]
        return AsciiJSON({"images": found, "info": "Success"})

    return router


def flags(settings: Settings) -> dict[str, Any]:
    """Flags by that program's names."""
    device = settings.device
    return {
        "api": True,
        "nowebui": False,
        "api_auth": None,
        "gradio_auth": None,
        "share": False,
        "medvram": device.memory.value == "medvram",
        "lowvram": device.memory.value == "lowvram",
        "xformers": device.attention.value == "xformers",
        "opt_sdp_attention": device.attention.value == "sdpa",
        "no_half": device.precision.value == "fp32",
        "no_half_vae": device.vae_precision.value == "fp32",
        "use_cpu": ["all"] if device.use_cpu else [],
        "api_server_stop": False,
    }


def memory_view(worker: dict[str, Any] | None) -> dict[str, Any]:
    """`ram` of the machine; `cuda` as the worker last measured it."""
    return {"ram": _ram(), "cuda": _cuda(worker)}


def _ram() -> dict[str, Any]:
    try:
        page, total, free = (os.sysconf(name) for name in ("SC_PAGE_SIZE", "SC_PHYS_PAGES", "SC_AVPHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return {"error": "This system does not tell."}
    return {"free": free * page, "used": (total - free) * page, "total": total * page}


def _cuda(worker: dict[str, Any] | None) -> dict[str, Any]:
    if worker is None or worker["device"] == "cpu":
        return {"error": "There is no GPU in use."}
    used, reserved, total, peak = (int(worker[name]) for name in ("used", "reserved", "total", "peak"))
    free = max(0, total - used)
    return {
        "system": {"free": free, "used": used, "total": total},
        "active": {"current": used, "peak": peak},
        "allocated": {"current": used, "peak": peak},
        "reserved": {"current": reserved, "peak": max(reserved, peak)},
        "inactive": {"current": max(0, reserved - used), "peak": max(0, reserved - used)},
        "events": {"retries": 0, "oom": 0},
    }


def _no_training() -> dict[str, str]:
    raise InvalidParams(
        "Networks are not trained here.", "Train them with another program, and put the file into models/."
    )
