"""What there is to choose from: samplers, models, networks, styles. Names alone, and no path of this machine."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter

from webui.api.sdapi.context import Context
from webui.api.sdapi.errors import SdapiRoute
from webui.api.sdapi.scripts import script_infos, script_titles
from webui.catalog import can_run
from webui.catalog.lookup import vectors_in
from webui.names import LATENT_UPSCALERS, PIXEL_UPSCALERS, SAMPLER_NAMES, SCHEDULE_NAMES, SamplerName, ScheduleName

if TYPE_CHECKING:
    from webui.catalog.models import ModelFile

_NO_RHO = -1.0  # what that program says of a schedule without one


def list_routes(context: Context) -> APIRouter:
    """Every GET that lists something."""
    router = APIRouter(route_class=SdapiRoute)
    catalog = context.catalog

    @router.get("/samplers")
    def samplers() -> list[dict[str, Any]]:
        """Samplers by name; requests may use any alias, in any case."""
        return [sampler_view(sampler) for sampler in SAMPLER_NAMES.values()]

    @router.get("/schedulers")
    def schedulers() -> list[dict[str, Any]]:
        """Noise schedules; requests may use name, label or alias, in any case."""
        return [schedule_view(schedule) for schedule in SCHEDULE_NAMES.values()]

    @router.get("/sd-models")
    def checkpoints() -> list[dict[str, Any]]:
        """The checkpoints that can run; requests may name them by title, name or hash."""
        settings = context.store.current
        return [checkpoint_view(model) for model in catalog.checkpoints if can_run(model, settings)]

    @router.get("/sd-vae")
    def vaes() -> list[dict[str, Any]]:
        """The VAE files."""
        return [{"model_name": model.name, "filename": f"VAE/{model.name}"} for model in catalog.vaes]

    @router.get("/sd-modules")
    def modules() -> list[dict[str, Any]]:
        """The same under the name that Forge gives it."""
        return vaes()

    @router.get("/upscalers")
    def upscalers() -> list[dict[str, Any]]:
        """What enlarges pictures: plain filters first, then the models."""
        filters = [_upscaler(name, None, 4) for name in PIXEL_UPSCALERS]
        return [*filters, *(_upscaler(model.stem, model.name, _scale(model)) for model in _usable(catalog.upscalers))]

    @router.get("/latent-upscale-modes")
    def latent_modes() -> list[dict[str, Any]]:
        """Ways to enlarge latents, for `hr_upscaler`."""
        return [{"name": name} for name in LATENT_UPSCALERS]

    @router.get("/realesrgan-models")
    def realesrgan() -> list[dict[str, Any]]:
        """The upscaler models of that family."""
        found = [model for model in _usable(catalog.upscalers) if "real" in f"{model.variant} {model.stem}".lower()]
        return [{"name": model.stem, "path": f"ESRGAN/{model.name}", "scale": _scale(model)} for model in found]

    @router.get("/face-restorers")
    def face_restorers() -> list[dict[str, Any]]:
        """Face restoration models: what `face_restoration_model` may be, beside the names of their makes."""
        return [{"name": model.stem, "cmd_dir": None} for model in _usable(catalog.face_restorers)]

    @router.get("/loras")
    def loras() -> list[dict[str, Any]]:
        """LoRA files, for `<lora:name:1>` in a prompt."""
        return [lora_view(model) for model in catalog.loras]

    @router.get("/embeddings")
    def embeddings() -> dict[str, Any]:
        """Textual inversion embeddings: those that can be used, and the others."""
        loaded = {model.stem: embedding_view(model) for model in catalog.embeddings if model.runnable}
        return {
            "loaded": loaded,
            "skipped": {model.stem: embedding_view(model) for model in catalog.embeddings if model.stem not in loaded},
        }

    @router.get("/hypernetworks")
    def hypernetworks() -> list[dict[str, Any]]:
        """Hypernetwork files, for `<hypernet:name:1>` in a prompt."""
        return [{"name": m.stem, "path": f"hypernetworks/{m.name}"} for m in _usable(catalog.hypernetworks)]

    @router.get("/prompt-styles")
    def styles() -> list[dict[str, Any]]:
        """Styles, for `styles` in a request."""
        return [
            {"name": style.name, "prompt": style.prompt, "negative_prompt": style.negative_prompt}
            for style in context.styles.read()[0]
        ]

    @router.get("/scripts")
    def scripts() -> dict[str, list[str]]:
        """Scripts by title in lower case."""
        return script_titles(context.extensions.panels())

    @router.get("/script-info")
    def infos() -> list[dict[str, Any]]:
        """The arguments of scripts, in their order."""
        return script_infos(context.extensions.panels())

    @router.get("/extensions")
    def extensions() -> list[dict[str, Any]]:
        """The extensions of this program; those of other programs do not run here."""
        return [extension_view(one) for one in context.extensions.listing()]

    for path, about in (
        ("/artists", "Long gone, and asked for by old clients."),
        ("/artist-categories", "Long gone, and asked for by old clients."),
    ):
        router.add_api_route(path, _nothing, methods=["GET"], description=about, name=path.strip("/"))
    return router


def _nothing() -> list[Any]:
    return []


def sampler_view(sampler: SamplerName) -> dict[str, Any]:
    """A sampler with its flags as text, as that program has them."""
    options = {"scheduler": SCHEDULE_NAMES[sampler.default_schedule].alias}
    flags = {
        "second_order": sampler.second_order,
        "uses_ensd": sampler.ancestral,
        "brownian_noise": sampler.brownian,
        "discard_next_to_last_sigma": sampler.discard_penultimate,
    }
    return {
        "name": sampler.name,
        "aliases": list(sampler.aliases),
        "options": {**options, **{name: "True" for name, on in flags.items() if on}},
    }


def schedule_view(schedule: ScheduleName) -> dict[str, Any]:
    return {
        "name": schedule.alias,
        "label": schedule.name,
        "aliases": list(schedule.more_aliases) or None,
        "default_rho": schedule.default_rho or _NO_RHO,
        "need_inner_model": schedule.name in ("SGM Uniform", "Simple", "Normal", "DDIM", "Beta", "Turbo"),
    }


def checkpoint_view(model: ModelFile) -> dict[str, Any]:
    return {
        "title": model.title,
        "model_name": model.model_name,
        "hash": model.short_hash,
        "sha256": model.sha256,
        "filename": f"Stable-diffusion/{model.name}",
        "config": None,
    }


def lora_view(model: ModelFile) -> dict[str, Any]:
    return {
        "name": model.stem,
        "alias": model.metadata.get("ss_output_name") or model.stem,
        "path": f"Lora/{model.name}",
        "metadata": dict(model.metadata),
    }


def embedding_view(model: ModelFile) -> dict[str, Any]:
    """How many vectors of which width; who trained it with what is not in these files."""
    return {
        "step": None,
        "sd_checkpoint": None,
        "sd_checkpoint_name": None,
        "shape": model.context_dim or None,
        "vectors": vectors_in(model) or None,
    }


def extension_view(extension: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": extension["name"],
        "remote": "",
        "branch": "",
        "commit_hash": extension["hash"],
        "version": extension["version"],
        "commit_date": 0,
        "enabled": extension["enabled"],
    }


def _upscaler(name: str, model: str | None, scale: int) -> dict[str, Any]:
    return {
        "name": name,
        "model_name": model and name,
        "model_path": model and f"ESRGAN/{model}",
        "model_url": None,
        "scale": scale,
    }


def _usable(models: Iterable[ModelFile]) -> list[ModelFile]:
    return [model for model in models if model.runnable]


def _scale(model: ModelFile) -> int:
    """ "ESRGAN x4": the factor that the file's tensors tell."""
    digits = model.variant.rpartition("x")[2]
    return int(digits) if digits.isdecimal() and len(digits) == 1 else 4
