"""Routes about what is here: model files and the state of the worker."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import StringConstraints

from webui.api.common import ERRORS, JsonBody, fields_of
from webui.api.responses import (
    ActivityView,
    LoraSuggestionView,
    ModelList,
    ModelView,
    SavingView,
    StatusView,
    SuggestionView,
    WorkerView,
)
from webui.api.viewer import AdminOnly, CurrentViewer
from webui.catalog import can_run
from webui.catalog.suggestions import suggestion_for
from webui.errors import InvalidParams, UnsupportedModel
from webui.identity import OWNER, Viewer
from webui.jobs.states import JobState
from webui.names import AUTOMATIC

if TYPE_CHECKING:
    from webui.catalog import Catalog
    from webui.catalog.models import ModelFile
    from webui.jobs.service import JobService
    from webui.settings import Settings, SettingsStore

RECENT, MAX_LISTED = 40, 500
MAX_LORAS = 32
LoraName = Annotated[str, StringConstraints(max_length=300)]
LOOPBACK = ("127.", "::1")


def model_view(model: ModelFile, settings: Settings) -> ModelView:
    """What a page or a client needs to know of a model file; no path of this machine."""
    runs, found = model.runnable or can_run(model, settings), suggestion_for(model)
    return ModelView(
        name=model.name,
        title=model.title,
        family=str(model.family),
        size=model.size,
        native_size=model.native_size,
        prediction=model.prediction,
        short_hash=model.short_hash,
        runnable=runs,
        reason="" if runs else model.reason,
        suggestion=None if found is None else SuggestionView(**dataclasses.asdict(found)),
    )


def model_list(catalog: Catalog, store: SettingsStore) -> ModelList:
    """Checkpoints, VAEs, upscalers, face restorers, with those that cannot run; and the checkpoint used by default."""
    settings = store.current
    default = catalog.default_checkpoint(settings.model.checkpoint, allow_pickle=settings.model.allow_pickle)
    return ModelList(
        checkpoints=[model_view(m, settings) for m in catalog.checkpoints],
        vaes=[model_view(m, settings) for m in catalog.vaes],
        upscalers=[model_view(m, settings) for m in catalog.upscalers],
        face_restorers=[model_view(m, settings) for m in catalog.face_restorers],
        default_checkpoint=default.name if default else "",
        default_vae=settings.model.vae,
    )


def activity(view: dict[str, Any]) -> ActivityView:
    """The short form of a running job's view."""
    return ActivityView(**{name: view[name] for name in ActivityView.model_fields})


def queue_state(jobs: JobService, viewer: Viewer, *, busy: bool) -> tuple[list[ActivityView], int]:
    """What runs of the viewer's jobs, and how many jobs of everybody wait.

    Looks at the newest jobs alone unless the one that runs is older.
    """
    views = jobs.list(RECENT, pictures=0)
    running = [v for v in views if v["state"] == "running"]
    if busy and not running and len(views) == RECENT:
        running = jobs.list(MAX_LISTED, states=(JobState.running,), pictures=0)
    positions = [v["position"] for v in views if v["position"] is not None]
    return [activity(v) for v in running if viewer.owns(v["user"])], max(positions, default=-1) + 1


def catalog_routes(jobs: JobService, catalog: Catalog, store: SettingsStore, outputs: Path, boot: str) -> APIRouter:
    """/models and /status."""
    router = APIRouter(tags=["catalog"], responses=ERRORS)

    @router.get("/models", response_model=ModelList)
    def models() -> ModelList:
        """Checkpoints and VAEs with size, family, and why one cannot run."""
        return model_list(catalog, store)

    @router.post("/models/refresh", response_model=ModelList, dependencies=[AdminOnly])
    def refresh() -> ModelList:
        """Look into the model folders again."""
        catalog.refresh()
        return model_list(catalog, store)

    @router.post("/models/select", response_model=ModelView)
    def select(body: JsonBody, viewer: CurrentViewer) -> ModelView:
        """Have a model loaded before a job asks for it: `{"checkpoint": ..., "vae": ...}`.

        For users it is looked up and not loaded: what is in memory serves everybody, and each job brings its own.
        """
        data = fields_of(body)
        checkpoint, vae = data.get("checkpoint", ""), data.get("vae", AUTOMATIC)
        if not isinstance(checkpoint, str) or not isinstance(vae, str):
            raise InvalidParams("checkpoint, vae: must be names.", "Take them from /models.")
        model = catalog.find_checkpoint(checkpoint)
        if not can_run(model, store.current):
            raise UnsupportedModel(f'The checkpoint "{model.name}" cannot be used: {model.reason}')
        if viewer.admin:
            jobs.set_selected(model.name, vae)
        return model_view(model, store.current)

    @router.get("/models/suggestion", response_model=LoraSuggestionView | None)
    def suggestion(response: Response, lora: Annotated[list[LoraName], Query(max_length=MAX_LORAS)]) -> Any:
        """Settings that suit the first of these LoRAs (`lora=NAME`, as in a prompt) that is made for few steps."""
        response.headers["cache-control"] = "no-store"
        for name in lora:
            model = catalog.find_network("lora", name)
            found = None if model is None else suggestion_for(model)
            if found is not None:
                return LoraSuggestionView(lora=name, **dataclasses.asdict(found))
        return None

    @router.get("/status", response_model=StatusView)
    def status(request: Request, response: Response, viewer: CurrentViewer) -> StatusView:
        """The worker, its memory, what runs and how much waits."""
        response.headers["cache-control"] = "no-store"
        worker = WorkerView.model_validate(jobs.worker())
        running, waiting = queue_state(jobs, viewer, busy=worker.state == "busy")
        peer, saving = request.client.host if request.client else "", store.current.saving
        return StatusView(
            boot=boot,
            worker=worker,
            running=running,
            waiting=waiting,
            problem=jobs.problem,
            outputs=str(outputs) if viewer == OWNER and peer.startswith(LOOPBACK) else "",
            saving=SavingView(image_format=saving.format.value, image_quality=saving.quality),
        )

    @router.post("/worker/restart", response_model=WorkerView, dependencies=[AdminOnly])
    def restart_worker() -> WorkerView:
        """Start the engine worker anew: at once if it was given up, else when it has nothing to do."""
        jobs.restart_worker()
        return WorkerView.model_validate(jobs.worker())

    return router
