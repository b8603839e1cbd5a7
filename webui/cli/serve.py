"""`app.py` or `app.py serve`: the page, the API and the engine behind them."""

from __future__ import annotations

import ipaddress
import os
import re
import sys
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from webui.cli.flags import Folders, Machine, expanded, load_settings
from webui.errors import SettingsError
from webui.settings import Theme

_PAGE = "Page"
_HOST_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_USUAL_PORTS = {"http": 80, "https": 443}  # a browser leaves them out
TOKEN_VARIABLE, AUTH_VARIABLE = "LATENT_WEBUI_TOKEN", "LATENT_WEBUI_AUTH"


def _option(
    flag: str,
    help_text: str,
    *,
    low: int | None = None,
    high: int | None = None,
    metavar: str | None = None,
    envvar: str | None = None,
) -> Any:
    return typer.Option(flag, help=help_text, rich_help_panel=_PAGE, min=low, max=high, metavar=metavar, envvar=envvar)


@expanded()
def serve(
    folders: Folders,
    machine: Machine,
    listen: Annotated[bool, _option("--listen", "Let other devices of the network in, who sign in.")] = False,
    port: Annotated[
        int | None, _option("--port", "The port (7860); 0 takes a free one.", metavar="N", low=0, high=65535)
    ] = None,
    theme: Annotated[Theme | None, _option("--theme", "Colours of the page.")] = None,
    no_browser: Annotated[bool, _option("--no-browser", "Do not open a browser.")] = False,
    share: Annotated[bool, _option("--share", "Not available; says why.")] = False,
    allow_host: Annotated[
        list[str] | None,
        _option("--allow-host", "Another host name under which this server is addressed.", metavar="NAME"),
    ] = None,
    cors_origin: Annotated[
        list[str] | None,
        _option("--cors-origin", "A web origin that may call the API from a browser.", metavar="ORIGIN"),
    ] = None,
    access_token: Annotated[
        str,
        _option("--access-token", "A token that signs others in, while nobody has an account.", envvar=TOKEN_VARIABLE),
    ] = "",
    auth: Annotated[
        list[str] | None,
        _option(
            "--auth",
            f"An administrator for this run (or one in {AUTH_VARIABLE}); see `app.py users` for lasting ones.",
            metavar="NAME:PASSWORD",
        ),
    ] = None,
    no_auth: Annotated[
        bool, _option("--no-auth", "Whoever reaches the server may do everything, without signing in.")
    ] = False,
    tls_certfile: Annotated[
        str, _option("--tls-certfile", "Speak https: the certificate with its chain (PEM).", metavar="FILE")
    ] = "",
    tls_keyfile: Annotated[str, _option("--tls-keyfile", "The key of the certificate (PEM).", metavar="FILE")] = "",
    root_path: Annotated[
        str, _option("--root-path", "The sub-path under which a reverse proxy shows the page.", metavar="PATH")
    ] = "",
    trusted_proxy: Annotated[
        list[str] | None,
        _option("--trusted-proxy", "A reverse proxy whose X-Forwarded headers are believed.", metavar="ADDRESS"),
    ] = None,
) -> None:
    """Serve the page (the default command)."""
    if share:
        raise SettingsError(
            "--share is not available: a public address would lead through somebody else's server, to a page without"
            " accounts.",
            "Use --listen in your own network, or a tunnel of your own, such as: ssh -L 7860:127.0.0.1:7860 HOST",
        )
    from webui.cli.combinations import bad_combinations, installed_versions
    from webui.console import Console
    from webui.server import ServeOptions
    from webui.server import serve as run_server

    given = os.environ.get(AUTH_VARIABLE, "")  # by hand: as a list's variable it would be cut at its spaces
    credentials = auth or ([given] if given else [])
    paths = folders.paths()
    settings, problems = load_settings(paths, machine.overrides())
    console = Console(paths.log_dir)
    for problem in (*problems, *bad_combinations(installed_versions(), os.environ)):
        console.warn(problem)
    options = ServeOptions(
        host="0.0.0.0" if listen else "127.0.0.1",
        port=settings.server.port if port is None else port,
        open_browser=settings.server.open_browser and not no_browser and has_display(),
        theme=theme.value if theme else "",
        cors_origins=tuple(map(web_origin, cors_origin or ())),
        allowed_hosts=tuple(map(host_name, allow_host or ())),
        access_token=access_token,
        auth=tuple(map(credential, credentials)),
        no_auth=no_auth,
        root_path=sub_path(root_path),
        trusted_proxies=tuple(map(network, trusted_proxy or ())),
        tls_cert=tls_certfile,
        tls_key=tls_keyfile,
    )
    code = run_server(
        settings,
        paths,
        options,
        say=console.say,
        whisper=console.whisper,
        on_event=console.handle,
        on_ready=lambda stages: console.started(stages, ()),
    )
    raise typer.Exit(code)


def credential(text: str) -> tuple[str, str]:
    """("ann", "secret") of "ann:secret". Raises `SettingsError`, without repeating what was typed."""
    name, colon, password = text.partition(":")
    if not colon:
        raise SettingsError("--auth needs a name and a password.", "Write it like this: --auth ann:a-long-password")
    return name, password


def host_name(text: str) -> str:
    """ "pics.example.org" of "https://Pics.Example.org:8443/": a name as it is compared. Raises `SettingsError`."""
    try:
        return str(ipaddress.ip_address(text.strip("[]")))
    except ValueError:
        name = _lower_name(text if "//" in text else f"//{text}", ("http", "https", ""))
    if not name:
        raise SettingsError(f'--allow-host: "{text[:80]}" is no host name.', "Such as pics.example.org.")
    return name


def web_origin(text: str) -> str:
    """ "https://app.example.org" of "https://App.example.org:443/", as browsers send it. Raises `SettingsError`."""
    if text in ("*", "null"):
        return text
    name = _lower_name(text)
    scheme = urlsplit(text).scheme if name else ""
    if not scheme:
        raise SettingsError(
            f'--cors-origin: "{text[:80]}" is no web origin.', "Such as https://app.example.org, without a path."
        )
    port = urlsplit(text).port
    shown = f":{port}" if port and port != _USUAL_PORTS.get(scheme) else ""
    return f"{scheme}://{f'[{name}]' if ':' in name else name}{shown}"


def _lower_name(url: str, schemes: tuple[str, ...] = ()) -> str:
    """The host of an address that consists of nothing else but a scheme and a port; "" for any other text."""
    try:
        parts = urlsplit(url)
        name, _ = (parts.hostname or "").rstrip("."), parts.port
        if not name.isascii():
            name = name.encode("idna").decode()  # as it stands in requests
    except ValueError:
        return ""
    more = parts.path.strip("/") or parts.query or parts.fragment or parts.username is not None
    if more or (schemes and parts.scheme.lower() not in schemes):
        return ""
    return name if ":" in name or _HOST_NAME.fullmatch(name) else ""


def network(text: str) -> str:
    """An address or a network. Raises `SettingsError`."""
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError:
        raise SettingsError(
            f'--trusted-proxy: "{text}" is no address.', "Such as 127.0.0.1, or 172.16.0.0/12 for Docker's networks."
        ) from None


def sub_path(text: str) -> str:
    """ "/studio" of "studio". Raises `SettingsError`."""
    from webui.server.proxies import checked_root_path

    try:
        return checked_root_path(text)
    except ValueError:
        raise SettingsError(f'--root-path: "{text}" is no path.', "Such as /studio.") from None


def has_display() -> bool:
    """Whether a browser could open a window here, for somebody who sits in front of it."""
    if os.environ.get("SSH_CONNECTION") or os.environ.get("CI"):
        return False
    return sys.platform in ("win32", "darwin") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
