"""Where the server can be reached: the listening socket, the names it answers to, the addresses to print."""

from __future__ import annotations

import errno
import socket
import ssl
import sys

from webui.errors import WebUIError
from webui.server.options import LOOPBACK_HOSTS, ServeOptions


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises `WebUIError` with what to do when the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    if sys.platform == "win32":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
    else:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        sock.listen(2048)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise WebUIError(
                f"Port {port} is in use by another program.",
                f"Close it, or choose another port: --port {port + 1 if port < 65535 else 7861}.",
            ) from error
        if error.errno == errno.EACCES:
            raise WebUIError(
                f"The system does not let this user open port {port}.", "Choose a port from 1024 on: --port 7860."
            ) from error
        raise WebUIError(
            f"The address {host}:{port} cannot be used: {error.strerror or error}.",
            "Use 127.0.0.1, or --listen for every network of this machine.",
        ) from error
    return sock


def lan_address() -> str | None:
    """This machine's address on its network, None without one. Nothing is sent: a UDP socket only picks a route."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # reserved for documentation: never a real host
            return str(probe.getsockname()[0])
        except OSError:
            return None


def host_names(options: ServeOptions) -> set[str]:
    """Every name under which this server may be addressed."""
    names = {*LOOPBACK_HOSTS, *options.allowed_hosts}
    if not options.loopback:
        own = socket.gethostname().lower()
        names |= {options.host, own, f"{own}.local"} | ({found} if (found := lan_address()) else set())
    return names


def own_address(options: ServeOptions, port: int) -> str:
    """The page's address for this machine."""
    host = "127.0.0.1" if options.host in ("0.0.0.0", "::") else options.host
    return _address(options, host, port)


def shared_address(options: ServeOptions, port: int) -> str:
    """The page's address for other devices; "" when the server listens to this machine alone."""
    if options.loopback:
        return ""
    wildcard = options.host in ("0.0.0.0", "::")
    return _address(options, (lan_address() or socket.gethostname()) if wildcard else options.host, port)


def _address(options: ServeOptions, host: str, port: int) -> str:
    shown = f"[{host}]" if ":" in host else host
    return f"{options.scheme}://{shown}:{port}"


def check_tls(cert: str, key: str) -> None:
    """Raises `WebUIError` when the files cannot be used together."""
    if bool(cert) != bool(key):
        raise WebUIError("TLS needs a certificate and a key.", "Give both: --tls-certfile FILE --tls-keyfile FILE.")
    if not cert:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password=lambda: "")
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise WebUIError(
            f"The TLS files cannot be used: {getattr(error, 'reason', None) or error}.",
            "They are PEM files: the certificate with its chain, and the key that belongs to it, without a password.",
        ) from error
