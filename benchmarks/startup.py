"""How long a start takes, side by side with a bare Gradio page on the same machine in the same run.

    .venv/bin/python benchmarks/startup.py [--rounds 3] [--json FILE] [--without-browser]

Both are started as a user starts them: `python3 app.py` with the system's Python (which hands over to .venv), and
`python hello.py` with .venv's. Rounds alternate. Measured from the start of the process, in seconds:

answers    the address gives its first page with status 200 (ours: the start page)
served     the full page and its configuration are served
cpu        processor seconds of the server's own process until then (Linux): steady on a busy machine
usable     in Chromium, which was started before: the page's main button can be clicked
picture    a job of 20 steps, sent as soon as the server takes it, is saved
again      the same job once more, now that everything is loaded
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

REPO_ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO_ROOT))

from webui.launcher import AT_HOME, Home  # noqa: E402
from webui.paths import write_atomic  # noqa: E402

LIMIT = 120.0  # seconds for anything
STEPS = 20
TARGETS = {
    "answers": "below 1.5 s",
    "served": "at most 1.5 times the bare page's",
    "usable": "at most 1.5 times the bare page's",
}

HELLO = """
import sys
import gradio as gr

with gr.Blocks() as page:
    name, greeting = gr.Textbox(label="Name"), gr.Textbox(label="Greeting")
    gr.Button("Greet").click(lambda who: f"Hello {who}", name, greeting)
page.launch(server_port=int(sys.argv[1]), quiet=True)
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def fetch(url: str, body: dict[str, Any] | None = None) -> tuple[int, bytes]:
    """(status, body) of an answer, or (0, b"") while nobody answers."""
    request = urllib.request.Request(
        url, None if body is None else json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError:
        return 0, b""


def until(what: str, ready: Callable[[], Any], process: subprocess.Popen[bytes], pause: float = 0.01) -> Any:
    """The first true answer of `ready`. Raises `RuntimeError` when the process ends or the time is up."""
    limit = time.perf_counter() + LIMIT
    while time.perf_counter() < limit:
        if found := ready():
            return found
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode} before: {what}")
        time.sleep(pause)
    raise RuntimeError(f"not within {LIMIT:.0f} s: {what}")


@contextlib.contextmanager
def running(command: list[str], log: Path) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    """A server process and the moment it was started; ended as Ctrl+C does."""
    with log.open("wb") as out:
        began = time.perf_counter()
        process = subprocess.Popen(command, env=os.environ | AT_HOME, stdout=out, stderr=subprocess.STDOUT)
        try:
            yield process, began
        except RuntimeError as error:
            raise SystemExit(f"{error}\n{log.read_text(errors='replace')[-3000:]}") from error
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def cpu_seconds(pid: int) -> float:
    """Processor time of one process without its children; 0 where the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def is_full_page(url: str) -> bool:
    """Whether the address serves Gradio's page (the start page has no configuration) with its configuration."""
    status, config = fetch(f"{url}/config")
    return status == 200 and b'"components"' in config and b"gradio" in fetch(url)[1]


def measure_server(command: list[str], url: str, log: Path, browser: Any, button: str, jobs: bool) -> dict[str, float]:
    """One start of a server and what could be measured of it."""
    found: dict[str, float] = {}
    with running(command, log) as (process, began):

        def since() -> float:
            return time.perf_counter() - began

        until("an answer", lambda: fetch(url)[0] == 200, process)
        found["answers"] = since()
        if browser is not None:
            page = browser.new_page()
            page.goto(url, timeout=LIMIT * 1000)
            page.get_by_role("button", name=button, exact=True).first.click(trial=True, timeout=LIMIT * 1000)
            found["usable"] = since()
            page.close()
            return found  # Chromium took its share of the processor: the other numbers come from rounds without it
        until("the full page", lambda: is_full_page(url), process, 0.1)
        found["served"] = since()
        if cpu := cpu_seconds(process.pid):
            found["cpu"] = cpu
        if jobs:
            body = {"prompt": "a red apple", "steps": STEPS, "seed": 7}
            sent = until("a job taken", lambda: _created(fetch(f"{url}/jobs", body)), process)
            until("a picture", lambda: _done(url, sent), process, 0.05)
            found["picture"] = since()
            second = time.perf_counter()
            sent = _created(fetch(f"{url}/jobs", body))
            until("a second picture", lambda: _done(url, sent), process, 0.05)
            found["again"] = time.perf_counter() - second
    return found


def _created(answer: tuple[int, bytes]) -> str:
    return str(json.loads(answer[1])["id"]) if answer[0] == 201 else ""


def _done(url: str, job: str) -> bool:
    status, body = fetch(f"{url}/jobs/{job}")
    view = json.loads(body) if status == 200 else {}
    if view.get("state") in ("failed", "cancelled", "lost"):
        raise RuntimeError(f"the job ended as {view['state']}: {view.get('error')}")
    return view.get("state") == "done"


@contextlib.contextmanager
def chromium(wanted: bool) -> Iterator[Any]:
    """A Chromium that is already running, or None where there is none."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not wanted or path is None:
        yield None
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


def measure(rounds: int, with_browser: bool) -> dict[str, dict[str, list[float]]]:
    """Every number of every round, by server and what was measured."""
    numbers: dict[str, dict[str, list[float]]] = {"ours": {}, "bare gradio": {}}
    with tempfile.TemporaryDirectory() as scratch, chromium(with_browser) as browser:
        hello = Path(scratch) / "hello.py"
        hello.write_text(HELLO)
        data = Path(scratch) / "data"
        (data / "models").mkdir(parents=True)
        (data / "models" / "Stable-diffusion").symlink_to(REPO_ROOT / "models" / "Stable-diffusion")
        home = Home(REPO_ROOT)
        system_python = getattr(sys, "_base_executable", sys.executable)
        subprocess.run([system_python, REPO_ROOT / "app.py", "--version"], check=True, stdout=subprocess.DEVNULL)
        for number in range(rounds):
            for visitor in [None] if browser is None else [None, browser]:
                port = free_port()
                url = f"http://127.0.0.1:{port}"
                bare = measure_server(
                    [str(home.python), str(hello), str(port)], url, Path(scratch) / "log", visitor, "Greet", False
                )
                port = free_port()
                url = f"http://127.0.0.1:{port}"
                command = [system_python, str(REPO_ROOT / "app.py")]
                command += ["--port", str(port), "--no-browser", "--data-dir", str(data)]
                ours = measure_server(command, url, Path(scratch) / "log", visitor, "Generate", True)
                for name, found in (("ours", ours), ("bare gradio", bare)):
                    for what, seconds in found.items():
                        if what != "answers" or visitor is None:
                            numbers[name].setdefault(what, []).append(seconds)
            print(f"round {number + 1} of {rounds} done", file=sys.stderr)
    return numbers


def table(numbers: dict[str, dict[str, list[float]]]) -> str:
    """Medians with the range, and the ratio to the bare page."""
    lines = [f"{'seconds':<10}{'ours':>20}{'bare gradio':>20}{'ratio':>8}   target"]
    for what, ours in numbers["ours"].items():
        bare = numbers["bare gradio"].get(what)
        ratio = f"{statistics.median(ours) / statistics.median(bare):.2f}" if bare else ""
        other = _spread(bare) if bare else ""
        lines.append(f"{what:<10}{_spread(ours):>20}{other:>20}{ratio:>8}   {TARGETS.get(what, '')}".rstrip())
    return "\n".join(lines)


def _spread(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.2f} ({min(seconds):.2f}-{max(seconds):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write every number into this file")
    parser.add_argument("--without-browser", action="store_true", help="leave out what is measured in Chromium")
    options = parser.parse_args()
    numbers = measure(options.rounds, not options.without_browser)
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()}
    print(table(numbers))
    print(json.dumps({"machine": machine, "seconds": numbers}))
    if options.json:
        write_atomic(options.json, json.dumps({"machine": machine, "seconds": numbers}, indent=1).encode())


if __name__ == "__main__":
    main()
