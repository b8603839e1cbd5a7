"""A small client for scripts: `Client().generate("a red apple").save("apple.png")`. The standard library alone.

It speaks the native routes. Errors of the server are raised as the classes of `webui.errors`, with their advice.

    from webui.client import Client

    client = Client("http://127.0.0.1:7860")
    job = client.submit("a red apple", steps=20, seed=7)
    for event in client.events(job):
        print(event.kind, event.data)
    for number, picture in enumerate(client.pictures(client.job(job))):
        Path(f"apple-{number}.png").write_bytes(picture)
"""

from __future__ import annotations

import base64
import http.client
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from webui.errors import InvalidParams, SaveError, WebUIError, error_from_dict
from webui.paths import write_new

WAIT_SECONDS = 30.0  # of one long question; the server allows a minute
MAX_RECONNECTS = 20  # in a row, without any event between them
ENDS = ("finished", "failed")


class Unreachable(WebUIError):
    """The server does not answer, or what answers is not this program."""

    status = 503


@dataclass(frozen=True, slots=True)
class Image:
    """A finished picture. `path` is its name below /outputs/, "" when it is in no file."""

    index: int
    path: str
    seed: int
    width: int
    height: int
    infotext: str
    error: str = ""


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it stands. `progress` is 0 to 1; `error` is None unless it failed; `params` is the whole request."""

    id: str
    state: str
    position: int | None
    progress: float
    phase: str
    step: int
    steps: int
    seconds_left: float | None
    params: Mapping[str, Any]
    images: tuple[Image, ...]
    warnings: tuple[str, ...]
    error: WebUIError | None

    @property
    def over(self) -> bool:
        return self.state not in ("pending", "running")


@dataclass(frozen=True, slots=True)
class Event:
    """What a job said. `kind` and the entries of `data` are described in the API guide."""

    job: str
    sequence: int
    kind: str
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Model:
    """A model file."""

    name: str
    title: str
    family: str
    runnable: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Cache:
    """What the server keeps of one kind. `most` entries and `limit` bytes are its bounds, 0 for none."""

    name: str
    title: str
    entries: int
    bytes: int
    most: int
    limit: int


@dataclass(frozen=True, slots=True)
class Found:
    """A picture of the history."""

    id: int
    created: float
    prompt: str
    width: int
    height: int
    seed: int | None
    favourite: bool


class Client:
    """One server. `token` is sent as a bearer, `user` and `password` as HTTP Basic. Safe to use from any thread.

    Every method raises `Unreachable` when there is no server, and the server's own error otherwise.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:7860",
        *,
        token: str = "",
        user: str = "",
        password: str = "",
        timeout: float = 60.0,
    ) -> None:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:  # a port that is no number, a bracket that is left open
            host = None
        if host is None or parts.scheme not in ("http", "https"):
            raise InvalidParams(f"{url[:200]!r} is not an address.", "Write it like http://127.0.0.1:7860.")
        self._secure = parts.scheme == "https"
        self._host, self._port = host, port
        self._base = parts.path.rstrip("/")
        self._timeout = timeout
        self._headers: dict[str, str] = {}
        if token:
            self._headers["authorization"] = f"Bearer {token}"
        elif user:
            credential = base64.b64encode(f"{user}:{password}".encode()).decode()
            self._headers["authorization"] = f"Basic {credential}"

    # Jobs

    def submit(self, prompt: str = "", *, key: str | None = None, **params: Any) -> str:
        """Queue a job and give its id at once. `params` are the fields of `GenerationParams`.

        The same `key` again gives the job that the first call made.
        """
        headers = {"idempotency-key": key} if key else {}
        answer = self._json("POST", "/jobs", {"prompt": prompt, **params}, headers)
        return str(answer["id"])

    def generate(self, prompt: str = "", *, key: str | None = None, **params: Any) -> Made:
        """Make pictures and wait for them. Raises what the job failed with."""
        job = self.wait(self.submit(prompt, key=key, **params))
        if job.error is not None:
            raise job.error
        return Made(job, tuple(self.pictures(job)))

    def job(self, job_id: str) -> Job:
        """The job as it stands."""
        return _job(self._json("GET", f"/jobs/{quote(job_id, safe='')}"))

    def jobs(self, state: str = "", limit: int = 50) -> list[Job]:
        """The newest jobs first; `state` keeps those in that state alone."""
        query = urlencode({"limit": limit, **({"state": state} if state else {})})
        return [_job(view) for view in self._json("GET", f"/jobs?{query}")["jobs"]]

    def wait(self, job_id: str, seconds: float | None = None) -> Job:
        """The job once it is over, or as it stands after `seconds`."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while True:
            left = WAIT_SECONDS if deadline is None else min(WAIT_SECONDS, max(0.0, deadline - time.monotonic()))
            patience = min(left, max(1.0, self._timeout / 2))
            job = _job(self._json("GET", f"/jobs/{quote(job_id, safe='')}?wait={patience:.3f}"))
            if job.over or (deadline is not None and time.monotonic() >= deadline):
                return job

    def events(self, job_id: str, after: int | None = None) -> Iterator[Event]:
        """What the job says, to its end. A connection that breaks is made again behind the last event."""
        tries = 0
        while True:
            try:
                for event in self._stream(job_id, after):
                    after, tries = event.sequence, 0
                    yield event
                    if event.kind in ENDS:
                        return
                if self.job(job_id).over:
                    return
            except Unreachable:
                if tries >= MAX_RECONNECTS:
                    raise
            tries += 1
            time.sleep(min(2.0, 0.1 * 2**tries))

    def cancel(self, job_id: str) -> bool:
        """Take a waiting job out of the queue, or end a running one. False when it was over."""
        return self._steer(job_id, "cancel")

    def skip(self, job_id: str) -> bool:
        """Leave the picture in the making and go on with the next."""
        return self._steer(job_id, "skip")

    def move(self, job_id: str, position: int = 0) -> bool:
        """Let a waiting job run at another place of the queue; 0 is the next."""
        return self._steer(job_id, "move", {"position": position})

    def retry(self, job_id: str) -> str:
        """Queue a job that is over once more; gives the new id."""
        return str(self._json("POST", f"/jobs/{quote(job_id, safe='')}/retry")["id"])

    def preview(self, job_id: str) -> bytes | None:
        """The picture in the making as JPEG, None while there is none."""
        return self._bytes("GET", f"/jobs/{quote(job_id, safe='')}/preview.jpg") or None

    # Pictures

    def pictures(self, job: Job) -> Iterator[bytes]:
        """The files of a job's pictures."""
        for image in job.images:
            path = f"/outputs/{quote(image.path)}" if image.path else f"/jobs/{job.id}/pictures/{image.index}.png"
            yield self._bytes("GET", path)

    def upload(self, picture: bytes) -> str:
        """Keep a picture to start from; gives the reference for `init`, `inpaint` and `extras`."""
        return str(json.loads(self._bytes("POST", "/inputs", picture, {"content-type": "image/png"}))["reference"])

    def read(self, picture: bytes) -> dict[str, Any]:
        """What the text inside a picture says; `params` are those that can be made again."""
        answer: dict[str, Any] = json.loads(self._bytes("POST", "/png-info", picture, {"content-type": "image/png"}))
        return answer

    # What there is

    def models(self) -> list[Model]:
        """The checkpoints."""
        found = self._json("GET", "/models")["checkpoints"]
        return [Model(**{name: one[name] for name in Model.__slots__}) for one in found]

    def caches(self) -> list[Cache]:
        """What the server keeps in memory from job to job. For administrators."""
        return [
            Cache(
                name=str(view["name"]),
                title=str(view["title"]),
                entries=int(view["entries"]),
                bytes=int(view["bytes"]),
                most=int(view["most"]),
                limit=int(view["limit"]),
            )
            for view in self._json("GET", "/caches")["caches"]
        ]

    def clear_caches(self, name: str = "") -> bool:
        """Empty that cache, or all; whether that waits for a running job. For administrators."""
        return bool(self._json("DELETE", f"/caches/{quote(name, safe='')}" if name else "/caches")["waits"])

    def history(self, search: str = "", limit: int = 50) -> list[Found]:
        """Pictures made before, the newest first, in the search language of the history."""
        found = self._json("GET", f"/history?{urlencode({'q': search, 'limit': limit})}")["cards"]
        return [Found(**{name: one[name] for name in Found.__slots__}) for one in found]

    def history_file(self, picture_id: int) -> bytes:
        """The file of a picture of the history."""
        return self._bytes("GET", f"/history/{picture_id}/file")

    # The wire

    def _steer(self, job_id: str, action: str, body: Any = None) -> bool:
        return bool(self._json("POST", f"/jobs/{quote(job_id, safe='')}/{action}", body)["changed"])

    def _json(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Any:
        sent = None if body is None else json.dumps(body).encode()
        answer = self._bytes(method, path, sent, {"content-type": "application/json", **(headers or {})})
        try:
            return json.loads(answer)
        except ValueError:
            raise Unreachable("What answers there is not this program.", "Check the address.") from None

    def _bytes(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> bytes:
        connection = self._connect()
        try:
            response = self._ask(connection, method, path, body, headers or {})
            return response.read()
        except (OSError, http.client.HTTPException) as error:
            raise _unreachable(error) from error
        finally:
            connection.close()

    def _stream(self, job_id: str, after: int | None) -> Iterator[Event]:
        headers = {"accept": "text/event-stream", **({} if after is None else {"last-event-id": str(after)})}
        connection = self._connect()
        try:
            response = self._ask(connection, "GET", f"/jobs/{quote(job_id, safe='')}/events", None, headers)
            data = ""
            for line in response:
                text = line.decode().rstrip("\r\n")
                if text.startswith("data: "):
                    data = text.removeprefix("data: ")
                elif not text and data:
                    facts = json.loads(data)
                    data = ""
                    head = (facts.pop("job"), facts.pop("sequence"), facts.pop("kind"))
                    yield Event(*head, data=facts)
        except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
            raise _unreachable(error) from error
        finally:
            connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        return kind(self._host, self._port, timeout=self._timeout)

    def _ask(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str],
    ) -> http.client.HTTPResponse:
        connection.request(method, self._base + path, body, {**self._headers, **headers})
        response = connection.getresponse()
        if response.status >= 400:
            raise _error(response.status, response.read())
        return response


@dataclass(frozen=True, slots=True)
class Made:
    """A job that is over, with the files of its pictures."""

    job: Job
    pictures: tuple[bytes, ...]

    def save(self, *files: str | Path) -> None:
        """Write the pictures to these files, one each; an existing file is left alone. Raises `SaveError`."""
        for file, picture in zip(files, self.pictures, strict=False):
            try:
                write_new(Path(file), picture)
            except OSError as error:
                raise SaveError(f"{file} could not be written: {error.strerror or error}.", "Choose another.") from None


def _job(view: Mapping[str, Any]) -> Job:
    return Job(
        id=view["id"],
        state=view["state"],
        position=view["position"],
        progress=view["progress"],
        phase=view["phase"],
        step=view["step"],
        steps=view["steps"],
        seconds_left=view["seconds_left"],
        params=view["params"],
        images=tuple(Image(**{name: one[name] for name in Image.__slots__}) for one in view["images"]),
        warnings=tuple(one["text"] for one in view["warnings"]),
        error=error_from_dict(view["error"]) if view["error"] else None,
    )


def _error(status: int, body: bytes) -> WebUIError:
    try:
        found = json.loads(body)
        return error_from_dict({name: str(found[name]) for name in ("error", "message", "advice")})
    except (ValueError, KeyError, TypeError):
        return Unreachable(f"The server answered {status}.", "Check the address.")


def _unreachable(error: Exception) -> Unreachable:
    return Unreachable(f"The server does not answer ({error or type(error).__name__}).", "Is it running, and there?")
