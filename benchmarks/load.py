"""The real server under load: many people at once, who disconnect, interrupt and change options. A table out.

    python benchmarks/load.py [--clients 20] [--jobs 500] [--steps 2] [--side 64] [--minutes 11] [--json FILE]

Each client is a user of its own and does its jobs one after the other, of two checkpoints in turn: four of five through
/jobs, of which some are interrupted while they wait or run, the fifth through /sdapi/v1 with options of its own. An
administrator changes options and selects models meanwhile, and somebody loads the page every half second. At the end it
is checked that

- every job is in exactly one final state, and the events of each told exactly one end, though listeners went away in
  the middle and came back with the last number that they had seen: no picture and no number is missing or told twice;
- the parameters text inside every picture names the prompt, the seed, the checkpoint and the options of its request;
- nobody saw a job of anybody else;
- the memory of the front and of the worker is what it was after the first jobs;
- the page came within 300 ms while a job ran (95 of 100 times), and no process is left.

The exit code is 1 when one of these does not hold. After `--minutes` no new job is begun, and that is a fault, too.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import io
import json
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from embedded import EMBEDDED_CHECKPOINT
from PIL import Image
from running_server import RunningServer

from webui.accounts import Accounts
from webui.paths import write_atomic

FINAL = ("done", "interrupted", "cancelled", "failed", "lost")
PASSWORD = "a long password"
CHECKPOINTS = (EMBEDDED_CHECKPOINT.stem, "second")
GROWTH = 1.1  # of the memory late in the run over that early in it
SLOW_PAGE = 0.3  # seconds
SAY_EVERY = 10.0  # seconds
LONG = 60  # steps of a job that is interrupted while it runs
PATIENCE = 20.0  # seconds, until the last process has ended


@dataclass
class Result:
    """What the clients found. Written under `lock`."""

    states: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    pictures: int = 0
    breaks: int = 0
    interrupts: int = 0
    refused: int = 0  # by a full queue, and asked again
    changes: int = 0  # of options and models
    idle_pages: list[float] = field(default_factory=list)  # seconds
    busy_pages: list[float] = field(default_factory=list)  # seconds, while a job ran
    memory: dict[str, list[int]] = field(default_factory=lambda: {"front": [], "worker": []})  # bytes
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fault(self, text: str) -> None:
        with self.lock:
            self.faults.append(text)

    @property
    def over(self) -> int:
        with self.lock:
            return sum(self.states.values())


class Page(TypedDict):
    requests: int
    ms: dict[str, float]  # see `percentiles`


class Client:
    """One user's program."""

    def __init__(self, server: RunningServer, name: str, token: str) -> None:
        self.server, self.name = server, name
        self.headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=300)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), self.headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def insist(self, path: str, body: Any, result: Result) -> tuple[int, bytes]:
        """The answer once the queue has room."""
        while True:
            status, answer = self.ask("POST", path, body)
            if status != 429:
                return status, answer
            with result.lock:
                result.refused += 1
            time.sleep(1)

    def listen(self, job: str, rng: random.Random, result: Result, begun: Callable[[], None]) -> list[dict[str, Any]]:
        """The job's events, with breaks in the middle; what came before a break is not asked for again. `begun` is
        called at each step."""
        told: list[dict[str, Any]] = []
        while not told or told[-1]["kind"] not in ("finished", "failed"):
            connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=300)
            try:
                last = {"last-event-id": str(told[-1]["sequence"])} if told else {}
                connection.request("GET", f"/jobs/{job}/events", headers={**self.headers, **last})
                response = connection.getresponse()
                if response.status == 204:
                    return told
                patience = rng.choice((2, 5, 10**9))
                for line in response:
                    if line.startswith(b"data: "):
                        told.append(json.loads(line[6:]))
                        patience -= 1
                        if told[-1]["kind"] == "step":
                            begun()
                    if patience <= 0:
                        with result.lock:
                            result.breaks += 1
                        break
            finally:
                connection.close()
        return told


def one_job(client: Client, number: int, options: argparse.Namespace, result: Result) -> None:
    """Begun, followed, and checked; what goes wrong is a fault and no end of the whole."""
    if time.monotonic() > options.until:
        return
    try:
        turn = number + number // options.clients  # so that each client does some of every kind
        checkpoint = CHECKPOINTS[turn % 2]
        (through_sdapi if turn % 5 == 4 else through_jobs)(client, number, checkpoint, options, result)
    except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
        result.fault(f"{number}: {type(error).__name__}: {error}")


def through_jobs(client: Client, number: int, checkpoint: str, options: argparse.Namespace, result: Result) -> None:
    rng = random.Random(number)
    wanted = {"prompt": f"picture {number} of {client.name}", "seed": number, "checkpoint": checkpoint}
    size = {"width": options.side, "height": options.side, "steps": options.steps, "sampler": "Euler a"}
    fate = rng.choices(("left alone", "interrupted at once", "interrupted at work"), (80, 10, 10))[0]
    if fate == "interrupted at work":
        size["steps"] = LONG
    status, body = client.insist("/jobs", {**wanted, **size}, result)
    if status != 201:
        result.fault(f"{number}: not taken: {status} {body[:200]!r}")
        return
    job = json.loads(body)["id"]
    if fate == "interrupted at once":
        interrupt(client, job, result)
    stopped: list[str] = []

    def begun() -> None:
        if fate == "interrupted at work" and not stopped:
            stopped.append(job)
            interrupt(client, job, result)

    told = client.listen(job, rng, result, begun)
    view = json.loads(client.ask("GET", f"/jobs/{job}?wait=60")[1])
    with result.lock:
        result.states[view["state"]] += 1
        result.ids.append(job)
    if view["state"] not in FINAL or view["user"] != client.name:
        result.fault(f"{number}: ended as {view['state']} of {view['user']}")
    numbers = [one["sequence"] for one in told]
    ends = [one["kind"] for one in told if one["kind"] in ("finished", "failed")]
    images = [one["path"] for one in told if one["kind"] == "image"]
    if numbers != sorted(set(numbers)) or len(ends) != 1 or images != [one["path"] for one in view["images"]]:
        result.fault(f"{number}: events {len(ends)} ends, pictures {images} of {len(view['images'])}")
    if view["state"] == "done" and len(images) != 1:
        result.fault(f"{number}: done with {len(images)} pictures")
    others = {one["user"] for one in json.loads(client.ask("GET", "/jobs?limit=20")[1])["jobs"]} - {client.name}
    if others:
        result.fault(f"{number}: {client.name} sees jobs of {others}")
    for image in view["images"]:
        check_picture(client.ask("GET", f"/outputs/{image['path']}")[1], number, wanted, 1, result)


def interrupt(client: Client, job: str, result: Result) -> None:
    status, body = client.ask("POST", f"/jobs/{job}/interrupt", {})
    with result.lock:
        result.interrupts += 1
    if status != 200:
        result.fault(f"interrupting: {status} {body[:200]!r}")


def through_sdapi(client: Client, number: int, checkpoint: str, options: argparse.Namespace, result: Result) -> None:
    """As a client of AUTOMATIC1111: options of this request alone, while an administrator changes everybody's."""
    wanted = {"prompt": f"picture {number} of {client.name}", "seed": number, "checkpoint": checkpoint}
    skip = 1 + number % 2
    body = {
        "prompt": wanted["prompt"],
        "seed": number,
        "width": options.side,
        "height": options.side,
        "steps": options.steps,
        "sampler_name": "Euler a",
        "override_settings": {"sd_model_checkpoint": wanted["checkpoint"], "CLIP_stop_at_last_layers": skip},
    }
    status, answer = client.insist("/sdapi/v1/txt2img", body, result)
    if status != 200:
        result.fault(f"{number}: {status} {answer[:200]!r}")
        return
    data = json.loads(answer)
    job = json.loads(data["info"])["job_id"]
    view = json.loads(client.ask("GET", f"/jobs/{job}")[1])
    with result.lock:
        result.states[view["state"]] += 1
        result.ids.append(job)
    if len(data["images"]) != 1:
        result.fault(f"{number}: {len(data['images'])} pictures in the answer")
    for image in data["images"]:
        check_picture(base64.b64decode(image), number, wanted, skip, result)


def check_picture(data: bytes, number: int, wanted: dict[str, Any], skip: int, result: Result) -> None:
    """Whether a picture tells its own request and nobody else's options."""
    text = Image.open(io.BytesIO(data)).info.get("parameters", "")
    facts = [wanted["prompt"] + "\n", f"Seed: {wanted['seed']},", f"Model: {wanted['checkpoint']}"]
    missing = [fact for fact in facts if fact not in text]
    if missing or ("Clip skip: 2" in text) != (skip == 2):
        result.fault(f"{number}: its picture does not tell {missing or 'its clip skip'}: {text[:300]}")
    with result.lock:
        result.pictures += 1


def meddle(admin: Client, result: Result, stop: threading.Event) -> None:
    """Options and models change all the time."""
    rng = random.Random(1)
    while not stop.wait(1.0):
        admin.ask("POST", "/models/select", {"checkpoint": rng.choice(CHECKPOINTS)})
        changed = {"CLIP_stop_at_last_layers": rng.choice((1, 2)), "send_seed": rng.random() < 0.5}
        status, body = admin.ask("POST", "/sdapi/v1/options", changed)
        if status != 200:
            result.fault(f"options: {status} {body[:200]!r}")
        result.changes += 2


def look(admin: Client, result: Result, stop: threading.Event) -> None:
    """How long the page takes, and how much memory the two processes have."""
    while not stop.wait(0.5):
        busy = bool(json.loads(admin.ask("GET", "/status")[1])["running"])
        began = time.perf_counter()
        status, _ = admin.ask("GET", "/")
        (result.busy_pages if busy else result.idle_pages).append(time.perf_counter() - began)
        if status != 200:
            result.fault(f"the page answered {status}")
        result.memory["front"].append(resident(admin.server.pid))
        result.memory["worker"].append(max((resident(pid) for pid in admin.server.children()), default=0))


def resident(pid: int) -> int:
    """Bytes of memory of a process, 0 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def tell(result: Result, options: argparse.Namespace, stop: threading.Event) -> None:
    began = time.monotonic()
    while not stop.wait(SAY_EVERY):
        slow = sorted(result.busy_pages[-40:])
        page = f", page {1000 * statistics.median(slow):.0f} ms" if slow else ""
        seconds, faults = time.monotonic() - began, len(result.faults)
        print(f"{seconds:5.0f} s: {result.over} of {options.jobs} jobs{page}, {faults} faults", flush=True)


def run(options: argparse.Namespace) -> Result:
    result, stop = Result(), threading.Event()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        data = Path(folder)
        accounts = Accounts(data / "users.json")
        names = [f"user{n}" for n in range(options.clients)]
        for name in (*names, "root"):
            accounts.add(name, PASSWORD, admin=name == "root")
        tokens = {name: accounts.new_token(name) for name in (*names, "root")}
        models = data / "models" / "Stable-diffusion"
        models.mkdir(parents=True)
        for suffix in (".safetensors", ".yaml"):
            (models / f"second{suffix}").write_bytes(EMBEDDED_CHECKPOINT.with_suffix(suffix).read_bytes())
        with RunningServer(data, headers={"authorization": f"Bearer {tokens['root']}"}) as server:
            server.wait_until_ready(worker=True)
            processes = [server.pid, *server.children()]
            work(server, tokens, options, result, stop)
        until = time.monotonic() + PATIENCE
        while (left := [pid for pid in processes if resident(pid)]) and time.monotonic() < until:
            time.sleep(0.1)
        if left:
            result.fault(f"processes are left: {left}")
    return result


def work(
    server: RunningServer, tokens: dict[str, str], options: argparse.Namespace, result: Result, stop: threading.Event
) -> None:
    admin = Client(server, "root", tokens["root"])
    beside = [
        threading.Thread(target=meddle, args=(admin, result, stop), daemon=True),
        threading.Thread(target=look, args=(admin, result, stop), daemon=True),
        threading.Thread(target=tell, args=(result, options, stop), daemon=True),
    ]
    for thread in beside:
        thread.start()
    clients = [Client(server, name, token) for name, token in tokens.items() if name != "root"]
    options.until = time.monotonic() + 60 * options.minutes

    def all_of(first: int) -> None:
        for number in range(first, options.jobs, len(clients)):
            one_job(clients[first], number, options, result)

    try:
        with ThreadPoolExecutor(len(clients)) as pool:
            list(pool.map(all_of, range(len(clients))))
    finally:
        stop.set()
        for thread in beside:
            thread.join(30)
    kept = json.loads(admin.ask("GET", "/jobs?limit=500")[1])["jobs"]
    unfinished = Counter(job["state"] for job in kept if job["state"] not in FINAL)
    if unfinished:
        result.fault(f"jobs without an end: {dict(unfinished)}")
    if len(set(result.ids)) != len(result.ids) or not {job["id"] for job in kept} <= set(result.ids):
        result.fault("the queue holds jobs that nobody made, or one that two made")
    if result.over < options.jobs:
        result.fault(f"only {result.over} of {options.jobs} jobs within {options.minutes:g} minutes")


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Of latencies, in milliseconds."""
    ordered = sorted(seconds)
    at = {"50": 0.5, "95": 0.95, "99": 0.99, "100": 1.0}
    return {name: round(1000 * ordered[min(len(ordered) - 1, int(p * len(ordered)))], 1) for name, p in at.items()}


def grown(result: Result) -> dict[str, dict[str, float]]:
    """Megabytes of each process after the first fifth of the run and at its end. Adds a fault for growth."""
    found = {}
    for name, samples in result.memory.items():
        early, late = samples[len(samples) // 5 :][:10], samples[-10:]
        if not early:
            continue
        before, after = statistics.median(early), statistics.median(late)
        found[name] = {"early": round(before / 2**20, 1), "late": round(after / 2**20, 1)}
        if after > GROWTH * before:
            result.fault(f"the {name} grew from {before / 2**20:.0f} to {after / 2**20:.0f} MB")
    return found


def report(result: Result, options: argparse.Namespace, seconds: float) -> dict[str, Any]:
    memory = grown(result)
    pages: dict[str, Page] = {
        name: {"requests": len(one), "ms": percentiles(one)}
        for name, one in (("while a job runs", result.busy_pages), ("while none runs", result.idle_pages))
        if one
    }
    busy = pages.get("while a job runs")
    if busy is None or busy["ms"]["95"] > 1000 * SLOW_PAGE:
        result.fault(f"the page while a job runs: {busy}")
    return {
        "clients": options.clients,
        "jobs": options.jobs,
        "steps": options.steps,
        "side": options.side,
        "seconds": round(seconds, 1),
        "states": dict(result.states),
        "pictures checked": result.pictures,
        "listeners that broke off and came back": result.breaks,
        "interrupts": result.interrupts,
        "changes of options and models": result.changes,
        "refused by a full queue": result.refused,
        "page": pages,
        "memory in MB": memory,
        "faults": result.faults,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--minutes", type=float, default=11.0)
    parser.add_argument("--json", type=Path, help="also write the report into this file")
    options = parser.parse_args()
    began = time.perf_counter()
    result = run(options)
    told = report(result, options, time.perf_counter() - began)
    for name, value in told.items():
        if name != "faults":
            print(f"{name:40} {value if isinstance(value, int | float) else json.dumps(value)}")
    for fault in result.faults[:20]:
        print("FAULT", fault)
    print(f"{len(result.faults)} faults")
    if options.json:
        write_atomic(options.json, json.dumps(told, indent=1).encode())
    return int(bool(result.faults))


if __name__ == "__main__":
    sys.exit(main())
