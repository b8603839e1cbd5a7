"""The real server in a process of its own, on a free port and a data folder of its own."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedded import EMBEDDED_CHECKPOINT, install_embedded

REPO_ROOT = Path(__file__).resolve().parent.parent

# Serves until a signal; exit code 3 for an error in words. Prints the modules that matter at the first answer.
_PROGRAM = """
import json, sys
from pathlib import Path

if __name__ == "__main__":
    from webui.errors import WebUIError
    from webui.paths import Paths
    from webui.server import ServeOptions, serve, switchboard
    from webui.settings import load

    page = switchboard.respond_page

    async def first(*args, **more):
        switchboard.respond_page = page
        print("MODULES", json.dumps(sorted({m.partition(".")[0] for m in sys.modules})), flush=True)
        await page(*args, **more)

    switchboard.respond_page = first
    paths = Paths.under(Path(sys.argv[1]))
    options = ServeOptions(port=int(sys.argv[2]), host=sys.argv[3], **json.loads(sys.argv[4]))
    try:
        sys.exit(serve(load(paths.config_file)[0], paths, options))
    except WebUIError as error:
        print(error, flush=True)
        sys.exit(3)
"""


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RunningServer:
    """`with RunningServer(folder) as server:` starts it and ends it."""

    def __init__(
        self,
        data_dir: Path,
        port: int | None = None,
        host: str = "127.0.0.1",
        *,
        headers: dict[str, str] | None = None,
        options: dict[str, Any] | None = None,
        packages: tuple[Path, ...] = (),
    ) -> None:
        self.data_dir = data_dir
        self.headers = headers or {}  # that every request of `ask` sends
        self.options = options or {}  # more of `ServeOptions`
        self.packages = (REPO_ROOT, *packages)  # where its processes look for modules first
        self.port = port or free_port()
        self.host = host
        self.process: subprocess.Popen[str]
        self.first_answer: Reply
        self._log = data_dir / "server.log"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def outputs(self) -> Path:
        return self.data_dir / "outputs"

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def modules_at_first_answer(self) -> set[str]:
        for line in self.log().splitlines():
            if line.startswith("MODULES "):
                return set(json.loads(line.removeprefix("MODULES ")))
        raise AssertionError("the start page was never asked for")

    def log(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def start(self, *, log: bool = False) -> None:
        """Start the process; its output goes to a file (`log`) or to the pipe."""
        if not (self.data_dir / "models" / "Stable-diffusion" / EMBEDDED_CHECKPOINT.name).exists():
            install_embedded(self.data_dir)
        program = self.data_dir / "serve_for_test.py"
        program.write_text(_PROGRAM)
        output: Any = self._log.open("w") if log else subprocess.PIPE
        self.process = subprocess.Popen(
            [sys.executable, str(program), str(self.data_dir), str(self.port), self.host, json.dumps(self.options)],
            cwd=REPO_ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, self.packages)), "PYTHONUNBUFFERED": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        if log:
            output.close()

    def __enter__(self) -> RunningServer:
        self.start(log=True)
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                self.first_answer = self.get("/")
                return self
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the server did not answer:\n{self.log()}")
            time.sleep(0.02)

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def ask(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=180)
        if self.options.get("tls_cert"):
            unverified = ssl.create_default_context()
            unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
            connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=180, context=unverified)
        try:
            connection.request(method, path, body, {**self.headers, **(headers or {})})
            response = connection.getresponse()
            found = {key.lower(): value for key, value in response.getheaders()}
            return Reply(response.status, found, response.read())
        finally:
            connection.close()

    def get(self, path: str, host: str = "") -> Reply:
        return self.ask("GET", path, headers={"Host": host} if host else {})

    def post(self, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Reply:
        return self.ask("POST", path, body, headers)

    def json(self, path: str) -> Any:
        reply = self.get(path)
        return json.loads(reply.body) if reply.body else None

    def wait_until_ready(self, *, worker: bool = False) -> None:
        """Wait for the full page, and with `worker` for the engine, too."""
        deadline = time.monotonic() + 180
        while not self.json("/start.json")["ready"] or (
            worker and self.json("/status")["worker"]["state"] in ("starting", "restarting")
        ):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the page was never ready:\n{self.log()}")
            time.sleep(0.1)

    def children(self) -> list[int]:
        """The process ids of the server's children (Linux)."""
        listed = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        every = [Path(f"/proc/{self.pid}/task/{t.name}/children") for t in Path(f"/proc/{self.pid}/task").iterdir()]
        return sorted({int(p) for path in every for p in path.read_text().split()} | {int(p) for p in listed})
