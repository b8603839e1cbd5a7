"""What a running job says. Plain frozen data: they cross the process border, reach any number of watchers, and are
rendered by the console, the page and the API alike.

The order within a job: (`Loading` `Loaded`)* `Started` (`Step` | `Preview` | `Image` | `Warning` | `Memory`)*, perhaps
`Extensions`, and at last exactly one of `Finished` and `Failed`. Where wildcards choose other LoRAs for a later
picture, or an extension makes many jobs of one, `Loading` and `Loaded` come once more before it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

LoadedKind = Literal["checkpoint", "vae", "lora", "upscaler", "face restorer"]


@dataclass(frozen=True, slots=True)
class Loading:
    """A network is about to be read. `line` is the sentence users know from the console."""

    what: LoadedKind
    name: str
    line: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """A network is ready. `seconds` by stage, in the order they ran; `reused`: it was still in memory."""

    what: LoadedKind
    name: str
    short_hash: str | None
    source: str
    seconds: dict[str, float]
    reused: bool = False


@dataclass(frozen=True, slots=True)
class Started:
    """Sampling begins: how many pictures, of which size in pixels, in how many steps each batch."""

    pictures: int
    width: int
    height: int
    steps: int


@dataclass(frozen=True, slots=True)
class Step:
    """A sampling step ended. `step` of `steps` in this batch, `batch` of `batches` in this job (both from 1).

    `rate` is steps per second, `seconds_left` the estimate for the whole job.
    """

    step: int
    steps: int
    batch: int
    batches: int
    rate: float
    seconds_left: float


@dataclass(frozen=True, slots=True)
class Preview:
    """The picture as it stands, as an encoded JPEG; a batch is tiled into one picture."""

    jpeg: bytes
    step: int


@dataclass(frozen=True, slots=True)
class Image:
    """A picture was finished and saved.

    `path` is the saved file (absolute); `pixels_sha256` is over the RGB bytes, row by row. `error` names why it could
    not be saved; then `path` is "" and `png` holds the picture so that it is not lost. A picture that was not to be
    saved has neither path nor error, and `png` is the file that it would have become.
    """

    index: int
    path: str
    seed: int
    width: int
    height: int
    infotext: str
    pixels_sha256: str
    error: str = ""
    png: bytes = b""


@dataclass(frozen=True, slots=True)
class Warning:
    """Something the user should know about the result: a part of the request that had no effect, a retry."""

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory in bytes. On CUDA the device's, on CPU the process's resident set against the machine's RAM."""

    device: str
    used: int
    reserved: int
    total: int
    peak: int


@dataclass(frozen=True, slots=True)
class Extensions:
    """How the worker's extensions have done so far (`webui.extensions.Host.report`); said after each job."""

    report: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Finished:
    """The job is over and what it made is kept. `seconds` by stage: load, encode, sample, decode, save, total.

    Pictures are saved while the next ones are drawn: "save" is what the job had to wait for that.
    """

    pictures: int
    seconds: dict[str, float]
    peak_memory: int
    interrupted: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """The job is over without its result (pictures that were saved before stay). See `webui.errors`."""

    error: dict[str, str] = field(default_factory=dict)


Event = Loading | Loaded | Started | Step | Preview | Image | Warning | Memory | Extensions | Finished | Failed

KINDS: dict[str, type[Any]] = {
    cls.__name__.lower(): cls
    for cls in (Loading, Loaded, Started, Step, Preview, Image, Warning, Memory, Extensions, Finished, Failed)
}


def kind_of(event: Event) -> str:
    """The event's name on the wire: "step", "preview", ..."""
    return type(event).__name__.lower()


def to_json_dict(event: Event) -> dict[str, Any]:
    """The event without its binary fields, ready for JSON."""
    data = {key: value for key, value in asdict(event).items() if not isinstance(value, bytes)}
    return {"kind": kind_of(event), **data}
