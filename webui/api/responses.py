"""What the native routes answer, as types; they make the API description at /openapi.json."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class ErrorView(BaseModel):
    """Every error of every route."""

    error: str
    message: str
    advice: str = ""


class JobCreated(BaseModel):
    id: str


class Accepted(BaseModel):
    """The request was taken; `changed` is false when the job was not in a state where it does anything."""

    changed: bool


class Position(BaseModel):
    """A place in the queue; 0 is the next to run."""

    position: int = Field(ge=0, le=10**6, strict=True)


class InputView(BaseModel):
    """A stored picture to start from; jobs name it by `reference`. Size in pixels, upright."""

    reference: str
    width: int
    height: int
    format: str
    has_alpha: bool
    url: str


class ImageView(BaseModel):
    """A finished picture; `path` is relative to the outputs folder and served below /outputs/."""

    index: int
    path: str
    seed: int
    width: int
    height: int
    infotext: str
    error: str = ""


class CacheView(BaseModel):
    """What the engine keeps from job to job; `limit` is in bytes, 0 for none, `most` in entries, 0 for any number."""

    name: str
    title: str
    entries: int
    bytes: int
    most: int
    limit: int
    held: list[str] = Field(description="Names of what is in it, where there are some")


class CacheList(BaseModel):
    """Empty while no job has run. As it was when the last one ended."""

    caches: list[CacheView]


class CachesCleared(BaseModel):
    """`waits`: a job runs, and they are cleared when it is over."""

    waits: bool


class NoticeView(BaseModel):
    code: str
    text: str


class JobView(BaseModel):
    """A job as a page sees it. `rev` grows with every change; times are unix seconds."""

    id: str
    rev: int
    user: str = ""
    state: str
    position: int | None = None
    params: dict[str, Any]
    sources: int = 0
    """How many pictures of a folder it works through; 0: it is no such job."""
    created: float
    started: float | None = None
    finished: float | None = None
    phase: str = ""
    line: str = ""
    step: int = 0
    steps: int = 0
    batch: int = 0
    batches: int = 0
    rate: float = 0.0
    seconds_left: float | None = None
    progress: float = 0.0
    preview: int = 0
    images: list[ImageView] = []
    """Its pictures, or those of them that were asked for."""
    image_count: int = 0
    """How many pictures it has made."""
    warnings: list[NoticeView] = []
    seconds: dict[str, float] = {}
    peak_memory: int | None = None
    error: ErrorView | None = None


class JobList(BaseModel):
    jobs: list[JobView]


class SuggestionView(BaseModel):
    """What suits a model that was distilled to few steps ("LCM", "Turbo", "Lightning", ...)."""

    kind: str
    sampler: str
    schedule: str
    steps: int
    cfg_scale: float


class LoraSuggestionView(SuggestionView):
    """Settings that suit a LoRA, by the name that was asked for."""

    lora: str


class ModelView(BaseModel):
    """A model file. `reason` says why it cannot be used, "" when it can."""

    name: str
    title: str
    family: str
    size: int
    native_size: int
    prediction: str
    short_hash: str | None
    runnable: bool
    reason: str
    suggestion: SuggestionView | None


class ModelList(BaseModel):
    checkpoints: list[ModelView]
    vaes: list[ModelView]
    upscalers: list[ModelView]
    face_restorers: list[ModelView]
    default_checkpoint: str
    default_vae: str


class MemoryView(BaseModel):
    """Bytes. On CUDA the device's, on CPU the worker's resident set against the machine's RAM."""

    device: str = ""
    used: int
    reserved: int = 0
    total: int
    peak: int = 0


class WorkerView(BaseModel):
    """The engine worker: starting, ready, busy, restarting or failed."""

    state: str
    device: str = ""
    memory: MemoryView | None = None
    detail: str = ""


class ActivityView(BaseModel):
    """The job that runs now, in short."""

    id: str
    phase: str
    step: int
    steps: int
    batch: int
    batches: int
    progress: float


class SavingView(BaseModel):
    """How the settings have pictures saved, as params of a job have it."""

    image_format: str
    image_quality: int


class StatusView(BaseModel):
    """`boot` changes when the server is started again; `outputs` is told to this machine alone.

    `problem` is a sentence about something that lasts (the job file cannot be written), "" normally.
    """

    boot: str
    worker: WorkerView
    running: list[ActivityView]
    waiting: int
    problem: str
    outputs: str
    saving: SavingView


class TokenCount(BaseModel):
    """How many tokens a text takes, and how many fit into the chunks it uses (75, 150, ...)."""

    count: int
    limit: int


class NotUnderstoodView(BaseModel):
    """A setting of a parameters text that has no effect here, and why."""

    key: str
    value: str
    reason: str


class ModelMention(BaseModel):
    """A model file that a text names: what it is called here, else the nearest name, and a sentence where needed."""

    kind: str
    name: str
    digest: str = ""
    here: str = ""
    nearest: str = ""
    note: str = ""


class ParametersView(BaseModel):
    """What a parameters text says. `fields` are its entries, in order, under AUTOMATIC1111's keys.

    `params` are those that can be made again, with the names that models have here. `styles` were recognised in the
    prompts and are taken out of them.
    """

    dialect: str
    prompt: str
    negative_prompt: str
    styles: list[str]
    fields: dict[str, str]
    params: dict[str, Any]
    not_understood: list[NotUnderstoodView]
    models: list[ModelMention]


class PictureText(ParametersView):
    """What a picture says about how it was made: its parameters text as it is, and its other texts."""

    infotext: str
    other: dict[str, str]
    width: int
    height: int
    format: str


class StyleView(BaseModel):
    name: str
    prompt: str
    negative_prompt: str
    file: str = ""


class StyleList(BaseModel):
    """`problems`: a sentence for each thing in the styles files that could not be read."""

    styles: list[StyleView]
    problems: list[str]


class CompletionView(BaseModel):
    """A name to complete to. `insert` takes the place of what was typed; "" for a style, which is chosen instead."""

    kind: str
    label: str
    insert: str
    note: str = ""


class ViewerView(BaseModel):
    """Who is signed in: "" where nobody has an account."""

    name: str
    admin: bool


class NetworkView(BaseModel):
    """How other devices get here. `by_name`: people sign in with a name and a password; `open_to_all`: nobody does."""

    address: str
    by_name: bool
    open_to_all: bool


class LinkView(BaseModel):
    """A link that signs one device in, and the same as a QR code in SVG."""

    link: str
    qr: str


class HookUseView(BaseModel):
    """How a hook of an extension did since its process began."""

    side: str
    hook: str
    calls: int
    seconds: float
    failures: int


class ExtensionView(BaseModel):
    """An extension that is here. `problem` says why it is not used, "" when it is (or is only switched off)."""

    name: str
    title: str
    version: str
    summary: str
    author: str
    licence: str
    asks: list[str]
    requires: list[str]
    hash: str
    source: str
    enabled: bool
    problem: str
    uses: list[HookUseView]


class ExtensionList(BaseModel):
    extensions: list[ExtensionView]


class PanelFieldView(BaseModel):
    """A field of a panel; `default` and the values are of the type that `kind` says."""

    key: str
    label: str
    kind: str
    default: bool | int | float | str
    low: float | None = None
    high: float | None = None
    step: float | None = None
    choices: list[str] = []
    choices_from: str | None = None
    tip: str = ""
    hidden: bool = False


class PanelView(BaseModel):
    """A panel of an extension, by whose name its values stand in a request's `extensions`."""

    name: str
    title: str
    kind: str
    note: str
    fields: list[PanelFieldView]


class PanelList(BaseModel):
    panels: list[PanelView]


class PresetView(BaseModel):
    """A named set of form fields; `families` for which it is meant, none for all."""

    name: str
    fields: dict[str, Any]
    families: list[str]
    about: str
    own: bool


class PresetList(BaseModel):
    presets: list[PresetView]
