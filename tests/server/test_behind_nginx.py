"""Under a sub-path behind a real nginx that ends TLS, with TLS on the way to the server as well."""

from __future__ import annotations

import http.client
import json
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from running_server import Reply, RunningServer, free_port

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
OPENSSL = shutil.which("openssl")
pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="nginx as Debian has it"),
    pytest.mark.skipif(NGINX is None or OPENSSL is None, reason="no nginx or openssl here"),
]
TOKEN = "a-token-of-mine"
CONFIGURATION = """
daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log; worker_processes 1;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem;
    location /studio/ {{
      proxy_pass https://127.0.0.1:{upstream};
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_http_version 1.1;
      client_max_body_size 64m;
    }}
  }}
}}
"""


@dataclass
class Site:
    port: int
    server: RunningServer

    def connect(self) -> http.client.HTTPSConnection:
        unverified = ssl.create_default_context()
        unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=60, context=unverified)

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Reply:
        connection = self.connect()
        try:
            sent = {key.replace("_", "-"): value for key, value in headers.items()}
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder, port = tmp_path_factory.mktemp("nginx"), free_port()
    make = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -keyout key.pem -out cert.pem"
    subprocess.run([str(OPENSSL), *make.split()], cwd=folder, check=True, capture_output=True)
    options = {
        "root_path": "/studio",
        "trusted_proxies": ["127.0.0.1/32"],
        "access_token": TOKEN,
        "tls_cert": str(folder / "cert.pem"),
        "tls_key": str(folder / "key.pem"),
    }
    bearer = {"authorization": f"Bearer {TOKEN}"}
    with RunningServer(tmp_path_factory.mktemp("studio"), headers=bearer, options=options) as server:
        configuration = folder / "nginx.conf"
        configuration.write_text(CONFIGURATION.format(folder=folder, port=port, upstream=server.port))
        nginx = subprocess.Popen([str(NGINX), "-p", str(folder), "-c", str(configuration)], stderr=subprocess.PIPE)
        try:
            server.wait_until_ready(worker=True)
            _wait(folder / "nginx.pid", nginx)
            yield Site(port, server)
        finally:
            nginx.terminate()
            nginx.wait(timeout=20)


def _wait(file: Path, process: Any) -> None:
    deadline = time.monotonic() + 30
    while not (file.exists() and file.stat().st_size):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_visitor_signs_in_and_gets_the_page_under_the_sub_path(site: Site) -> None:
    page = site.ask("GET", "/studio/", accept="text/html")
    assert page.status == 401
    assert b'action="sign-in"' in page.body
    here = f"https://127.0.0.1:{site.port}"
    form = f"token={TOKEN}".encode()
    kind = {"content_type": "application/x-www-form-urlencoded", "origin": here}
    answer = site.ask("POST", "/studio/sign-in", form, **kind)
    assert (answer.status, answer.headers["location"]) == (303, "./")
    cookie = answer.headers["set-cookie"]
    assert "Secure" in cookie
    assert "Path=/studio;" in cookie
    full = site.ask("GET", "/studio/", cookie=cookie.partition(";")[0], accept="text/html").body.decode()
    assert "window.latentBoot" in full
    assert f'{here}/studio"' in full, "the page's framework builds whole addresses out of this"
    assert site.ask("GET", "/studio/config", cookie=cookie.partition(";")[0]).status == 200


def test_what_the_proxy_passes_on_is_nobodys_until_it_shows_a_credential(site: Site) -> None:
    for headers in ({}, {"x_forwarded_for": "127.0.0.1"}, {"x_real_ip": "127.0.0.1"}, {"forwarded": "for=127.0.0.1"}):
        assert site.ask("GET", "/studio/jobs", **headers).status == 401, headers
    assert site.ask("GET", "/studio/jobs", authorization=f"Bearer {TOKEN}").status == 200
    evil = {"authorization": f"Bearer {TOKEN}", "content_type": "application/json", "origin": "https://evil.example"}
    assert site.ask("POST", "/studio/jobs", b"{}", **evil).status == 403


def test_a_jobs_events_come_through_as_they_happen(site: Site) -> None:
    bearer = {"authorization": f"Bearer {TOKEN}"}
    body = json.dumps({"prompt": "x", "width": 128, "height": 128, "steps": 400}).encode()
    made = site.ask("POST", "/studio/jobs", body, content_type="application/json", **bearer)
    job = json.loads(made.body)["id"]
    connection = site.connect()
    try:
        connection.request("GET", f"/studio/jobs/{job}/events", headers=bearer)
        response = connection.getresponse()
        assert response.getheader("content-type", "").startswith("text/event-stream")
        while b"event: step" not in response.readline():
            assert not response.isclosed()
        view = json.loads(site.ask("GET", f"/studio/jobs/{job}", **bearer).body)
        assert view["state"] == "running", "the step was told while the job ran, not in a lump at its end"
    finally:
        connection.close()
        site.ask("POST", f"/studio/jobs/{job}/interrupt", b"", **bearer)
