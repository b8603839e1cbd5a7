"""The real server under load: many people at once, who disconnect, interrupt and change options. A table out.

    python benchmarks/load.py [--clients 20] [--jobs 500] [--steps 4] [--side 128]

Each client is a user of its own and does its jobs one after the other, of two checkpoints in turn; an administrator
changes options and selects models meanwhile, and somebody loads the page every half second. At the end it is checked
that

- every job is in exactly one final state, and the events of each told exactly one end, though listeners went away in
  the middle and came back with the last number that they had seen;
- the parameters text inside every picture names the prompt, the seed and the checkpoint of its own request;
- nobody saw a job of anybody else;
- the memory of the front is what it was after the first jobs, within a tenth.

The exit code is 1 when one of these does not hold.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import random
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from PIL import Image
from running_server import EMBEDDED_CHECKPOINT, RunningServer

from webui.accounts import Accounts

FINAL = ("done", "interrupted", "cancelled", "failed", "lost")
PASSWORD = "a long password"


@dataclass
class Result:
    """What the clients found. Written under `lock`."""

    states: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    pictures: int = 0
    breaks: int = 0
    latencies: list[float] = field(default_factory=list)
    rss: list[int] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fault(self, text: str) -> None:
        with self.lock:
            self.faults.append(text)


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

    def listen(self, job: str, rng: random.Random, result: Result) -> list[dict[str, Any]]:
        """The job's events, with breaks in the middle; what came before a break is not asked for again."""
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
                    if patience <= 0:
                        with result.lock:
                            result.breaks += 1
                        break
            finally:
                connection.close()
        return told


def one_job(client: Client, number: int, options: argparse.Namespace, result: Result) -> None:
    rng = random.Random(number)
    checkpoint = ("emoji-proto-128", "second")[number % 2]
    wanted = {"prompt": f"picture {number} of {client.name}", "seed": number, "checkpoint": checkpoint}
    size = {"width": options.side, "height": options.side, "steps": options.steps, "sampler": "Euler a"}
    while True:
        status, body = client.ask("POST", "/jobs", {**wanted, **size})
        if status != 429:
            break
        time.sleep(1)
    if status != 201:
        result.fault(f"{number}: not taken: {status} {body[:200]!r}")
        return
    job = json.loads(body)["id"]
    if rng.random() < 0.15:
        delay = threading.Timer(rng.random() * 5, client.ask, ("POST", f"/jobs/{job}/interrupt", {}))
        delay.start()
    told = client.listen(job, rng, result)
    view = json.loads(client.ask("GET", f"/jobs/{job}?wait=60")[1])
    with result.lock:
        result.states[view["state"]] += 1
    if view["state"] not in FINAL or view["user"] != client.name:
        result.fault(f"{number}: ended as {view['state']} of {view['user']}")
    numbers = [one["sequence"] for one in told]
    ends = [one["kind"] for one in told if one["kind"] in ("finished", "failed")]
    images = [one for one in told if one["kind"] == "image"]
    if numbers != sorted(set(numbers)) or len(ends) != 1 or len(images) != len(view["images"]):
        result.fault(f"{number}: events {len(ends)} ends, {len(images)} of {len(view['images'])} pictures")
    for image in view["images"]:
        data = client.ask("GET", f"/outputs/{image['path']}")[1]
        text = Image.open(io.BytesIO(data)).info["parameters"]
        for fact in (wanted["prompt"], f"Seed: {number},", f"Model: {checkpoint}"):
            if str(fact) not in text:
                result.fault(f"{number}: {fact} is not in its picture: {text[:300]}")
        with result.lock:
            result.pictures += 1


def meddle(admin: Client, stop: threading.Event) -> None:
    """Options and models change all the time."""
    rng = random.Random(1)
    while not stop.wait(1.0):
        admin.ask("POST", "/models/select", {"checkpoint": rng.choice(("emoji-proto-128", "second"))})
        admin.ask("POST", "/sdapi/v1/options", {"samples_format": "png", "CLIP_stop_at_last_layers": 1})


def look(admin: Client, result: Result, stop: threading.Event) -> None:
    """How long the page takes, and how much memory the front has."""
    while not stop.wait(0.5):
        began = time.perf_counter()
        status, _ = admin.ask("GET", "/")
        result.latencies.append(time.perf_counter() - began)
        if status != 200:
            result.fault(f"the page answered {status}")
        pages = int(Path(f"/proc/{admin.server.pid}/statm").read_text().split()[1])
        result.rss.append(pages * 4096)


def run(options: argparse.Namespace) -> Result:
    result, stop = Result(), threading.Event()
    with tempfile.TemporaryDirectory() as folder:
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
            admin = Client(server, "root", tokens["root"])
            beside = [
                threading.Thread(target=meddle, args=(admin, stop)),
                threading.Thread(target=look, args=(admin, result, stop)),
            ]
            for thread in beside:
                thread.start()
            clients = [Client(server, name, tokens[name]) for name in names]
            with ThreadPoolExecutor(options.clients) as pool:
                work = [
                    pool.submit(one_job, clients[n % options.clients], n, options, result) for n in range(options.jobs)
                ]
                for done in work:
                    done.result()
            stop.set()
            for thread in beside:
                thread.join()
            kept = json.loads(admin.ask("GET", "/jobs?limit=500")[1])["jobs"]
            left = [job["state"] for job in kept if job["state"] not in FINAL]
            if left:
                result.fault(f"jobs without an end: {Counter(left)}")
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--side", type=int, default=128)
    options = parser.parse_args()
    began = time.perf_counter()
    result = run(options)
    seconds = time.perf_counter() - began
    early = statistics.median(result.rss[len(result.rss) // 5 : len(result.rss) // 5 + 10])
    late = statistics.median(result.rss[-10:])
    if late > 1.1 * early:
        result.fault(f"the front grew from {early / 2**20:.0f} to {late / 2**20:.0f} MB")
    slow = sorted(result.latencies)
    print(f"{options.jobs} jobs of {options.clients} clients in {seconds:.0f} s: {dict(result.states)}")
    print(f"{result.pictures} pictures checked, {result.breaks} listeners broke off and came back")
    print(f"page: median {1000 * statistics.median(slow):.0f} ms, 95 % {1000 * slow[int(0.95 * len(slow))]:.0f} ms")
    print(f"memory of the front: {early / 2**20:.0f} MB early, {late / 2**20:.0f} MB late")
    for fault in result.faults[:20]:
        print("FAULT", fault)
    print(f"{len(result.faults)} faults")
    return int(bool(result.faults))


if __name__ == "__main__":
    sys.exit(main())
