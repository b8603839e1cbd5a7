"""What the routes answer, as far as it has a fixed shape."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel


class GenerationView(BaseModel):
    images: list[str]
    parameters: dict[str, Any]
    info: str


class ExtrasView(BaseModel):
    html_info: str
    image: str


class ExtrasBatchView(BaseModel):
    html_info: str
    images: list[str]


class PngInfoView(BaseModel):
    info: str
    items: dict[str, Any]
    parameters: dict[str, Any]


class ProgressState(BaseModel):
    """`job` is the id of the job in /jobs."""

    skipped: bool = False
    interrupted: bool = False
    stopping_generation: bool = False
    job: str = ""
    job_count: int = 0
    job_timestamp: str = "0"
    job_no: int = 0
    sampling_step: int = 0
    sampling_steps: int = 0


class ProgressView(BaseModel):
    progress: float = 0.0
    eta_relative: float = 0.0
    state: ProgressState
    current_image: str | None = None
    textinfo: str | None = None


class TaskView(BaseModel):
    """`live_preview` is a data URI; it is left out when the client has seen that one."""

    active: bool = False
    queued: bool = False
    completed: bool = False
    progress: float | None = None
    eta: float | None = None
    live_preview: str | None = None
    id_live_preview: int | None = None
    textinfo: str | None = None


class PendingTasks(BaseModel):
    size: int
    tasks: list[str]
