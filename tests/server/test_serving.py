"""The real server as a process: it answers before gradio is there, stays light, and ends when it is told."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import signal
import socket
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from running_server import RunningServer, free_port

from webui.errors import WebUIError
from webui.jobs.bus import MAX_WATCHERS
from webui.jobs.queue import JobQueue
from webui.jobs.states import JobState
from webui.paths import Paths
from webui.server import ServeOptions, boot, serve
from webui.settings import Settings

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("serving")
    (folder / "cache" / "gradio").mkdir(parents=True)
    (folder / "cache" / "gradio" / "left.png").write_bytes(b"of an earlier run")
    with RunningServer(folder) as running:
        yield running


def test_the_address_answers_before_gradio_is_imported(server: RunningServer) -> None:
    first = server.first_answer
    assert first.status == 200
    assert b"Latent WebUI" in first.body
    assert server.modules_at_first_answer.isdisjoint({"gradio", "fastapi", "torch"})


def test_it_becomes_the_full_page(server: RunningServer) -> None:
    server.wait_until_ready()
    assert b"window.latentBoot" in server.get("/").body
    assert json.loads(server.get("/start.json").body) == {"ready": True}


def test_what_an_earlier_run_left_in_the_upload_cache_is_gone(server: RunningServer) -> None:
    server.wait_until_ready()
    assert not (server.data_dir / "cache" / "gradio" / "left.png").exists()


def test_the_front_process_never_loads_torch(server: RunningServer) -> None:
    server.wait_until_ready()
    server.get("/models")
    server.get("/tokens?text=a%20cat")
    maps = Path(f"/proc/{server.pid}/maps").read_text()
    assert "libpython" in maps or "python" in maps
    assert "torch" not in maps


def test_a_server_without_work_sleeps(server: RunningServer) -> None:
    """How often its threads wake up in a second without work: Gradio alone would do so a thousand times."""

    def woken() -> int:
        told = [task.read_text() for task in Path(f"/proc/{server.pid}/task").glob("*/status")]
        return sum(int(text.split("\nvoluntary_ctxt_switches:")[1].split()[0]) for text in told)

    server.wait_until_ready(worker=True)
    for _ in range(30):
        before = woken()
        time.sleep(1)
        if (times := woken() - before) < 200:
            break
    assert times < 200


def test_the_guards_hold_for_the_whole_server(server: RunningServer) -> None:
    server.wait_until_ready()
    assert server.get("/", host="evil.example").status == 400
    assert server.post("/gradio_api/upload", b"x", {"origin": "http://evil.example"}).status == 403
    assert server.post("/jobs", b"{}", {"origin": "null", "content-type": "application/json"}).status == 403
    headers = server.get("/").headers
    assert headers["x-content-type-options"] == "nosniff"
    assert "server" not in headers


def test_a_second_server_on_the_port_says_so(server: RunningServer, tmp_path: Path) -> None:
    second = RunningServer(tmp_path, port=server.port)
    second.start()
    output, _ = second.process.communicate(timeout=30)
    assert second.process.returncode == 3
    assert f"Port {server.port} is in use" in output


def test_a_data_folder_that_cannot_be_used_is_told_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "locked" / "cache" / "access.key").mkdir(parents=True)  # a name in the way stops even the superuser
    for folder, named in (("file", "file/outputs"), ("locked", "locked/cache")):
        with pytest.raises(WebUIError) as caught:
            serve(Settings(), Paths.under(tmp_path / folder), ServeOptions(port=free_port()))
        assert caught.value.message.startswith(f"The data folder cannot be used: {tmp_path / named}")
        assert "--data-dir" in caught.value.advice


def test_ctrl_c_ends_everything(tmp_path: Path) -> None:
    with RunningServer(tmp_path) as running:
        running.wait_until_ready()
        children = running.children()
        assert children
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(timeout=20) == 0
        deadline = time.monotonic() + 10
        while alive := [child for child in children if _is_alive(child)]:
            assert time.monotonic() < deadline, f"left behind: {alive}"
            time.sleep(0.1)


def test_F35_a_sigterm_to_the_whole_group_keeps_the_waiting_jobs(tmp_path: Path) -> None:
    with RunningServer(tmp_path) as running:
        running.wait_until_ready(worker=True)
        jobs = []
        for steps in (1000, 1):
            body = json.dumps({"prompt": "x", "width": 64, "height": 64, "steps": steps, "batch_count": 50}).encode()
            jobs.append(json.loads(running.post("/jobs", body, {"content-type": "application/json"}).body)["id"])
        deadline = time.monotonic() + 60
        while not json.loads(running.get(f"/jobs/{jobs[0]}").body)["step"]:
            assert time.monotonic() < deadline, "the first job never began"
            time.sleep(0.05)
        os.killpg(running.pid, signal.SIGTERM)  # what systemctl stop and the end of a session do
        assert running.process.wait(timeout=60) == 0
    queue = JobQueue(Paths.under(tmp_path).queue_db)
    states = [queue.get(job).state for job in jobs]
    queue.close()
    assert states == [JobState.interrupted, JobState.pending]


def test_the_jobs_are_held_at_the_first_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    async def app(*_: object) -> None:
        raise AssertionError("nobody asks")

    told: list[str] = []
    monkeypatch.setattr(os, "_exit", lambda status: told.append(f"left {status}"))
    server = boot._Server(uvicorn.Config(app))
    server.on_signal = lambda: told.append("held")
    server.handle_exit(signal.SIGTERM, None)
    assert told == ["held"]
    assert server.should_exit
    server.handle_exit(signal.SIGTERM, None)
    assert told[1] == "left 130"


def test_H114_a_thousand_idle_listeners_and_half_sent_requests_leave_the_server_answering(
    server: RunningServer,
) -> None:
    server.wait_until_ready(worker=True)
    files = Path(f"/proc/{server.pid}/fd")
    before = len(list(files.iterdir()))
    allowed = min(limit for limit in resource.getrlimit(resource.RLIMIT_NOFILE) if limit > 0)
    count = max(50, min(MAX_WATCHERS + 20, allowed - 200))

    def submit(**params: object) -> str:
        body = json.dumps({"prompt": "x", "width": 128, "height": 128, **params}).encode()
        return str(json.loads(server.post("/jobs", body, {"content-type": "application/json"}).body)["id"])

    running, waiting = submit(steps=1000, batch_count=50), submit(steps=1)
    request = f"GET /jobs/{waiting}/events HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode()
    with contextlib.ExitStack() as opened:
        sockets = []
        for number in range(count + 40):
            one = opened.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=60))
            one.sendall(request if number < count else request[: 5 + number % 40])  # the last ones never finish
            sockets.append(one)
        answers = Counter(one.recv(12) for one in sockets[:count])
        assert answers[b"HTTP/1.1 200"] >= min(count, MAX_WATCHERS) - 10  # the server itself watches, too
        assert set(answers) <= {b"HTTP/1.1 200", b"HTTP/1.1 503"}, answers
        for path in ("/status", "/jobs", "/", f"/jobs/{waiting}"):
            assert server.get(path).status == 200, path
        for one in sockets[::2]:  # half of them go without a word
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            one.close()
        assert server.get("/status").status == 200
        for job in (waiting, running):
            assert server.post(f"/jobs/{job}/cancel").status == 200
    deadline = time.monotonic() + 60
    while len(list(files.iterdir())) > before + 20:
        assert time.monotonic() < deadline, "connections that ended are still open"
        time.sleep(0.1)


def test_other_devices_sign_in_by_the_link_that_is_printed(tmp_path: Path) -> None:
    with RunningServer(tmp_path, host="0.0.0.0") as running:
        link = re.search(r"which works once: (http://([\d.]+):\d+)/\?token=(\S+)", running.log())
        if link is None or link[2].startswith("127."):
            pytest.skip("this machine is on no network")
        # from here the machine's own network address is "another machine"; a process of its own, because tests may
        # connect to loopback alone
        program = """
import sys, urllib.error, urllib.request
base, token = sys.argv[1:]
opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
def ask(path, body=None, **headers):
    try:
        return opener.open(urllib.request.Request(base + path, body, headers)).status
    except urllib.error.HTTPError as error:
        return error.code
page = {"Accept": "text/html"}
print(ask("/status"), ask("/", **page), ask("/?token=wrong", **page), ask("/?token=" + token, **page), ask("/status"))
form = ("token=" + token).encode()
print(ask("/sign-in", form), ask("/start.json"), ask("/sign-out", b""), ask("/status"), ask("/sign-in", form))
"""
        found = subprocess.run([sys.executable, "-c", program, link[1], link[3]], capture_output=True, text=True)
        assert found.stdout.split() == ["401"] * 3 + ["200", "401"] + ["200", "200"] + ["401"] * 3, found.stderr
        assert running.get("/start.json").status == 200
        assert len(re.findall(r"which works once", running.log())) == 2, "after its use there is another one"


def _is_alive(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
