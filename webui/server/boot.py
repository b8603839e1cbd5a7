"""From process start to the full page, and to an orderly end.

Order of events: the socket is bound (a port in use is told before anything else is loaded); uvicorn serves the start
page; a thread reads the model folders, starts the engine worker, imports gradio and builds the full app; the
switchboard hands over to it. Ctrl+C ends everything within five seconds, a second one at once.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import threading
import time
import traceback
import webbrowser
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from webui.accounts import Accounts
from webui.errors import WebUIError
from webui.events import Event
from webui.paths import Paths
from webui.server.access import Access
from webui.server.addresses import bind, check_tls, host_names, own_address, shared_address
from webui.server.asgi import App, Receive, Scope, Send
from webui.server.attempts import limit_changes
from webui.server.guards import body_limit, same_origin, security_headers, trusted_hosts
from webui.server.links import OneTimeLinks, qr_lines
from webui.server.network import Network
from webui.server.options import ServeOptions
from webui.server.proxies import below, forwarded
from webui.server.sessions import Sessions, signing_key
from webui.server.static_files import static_files
from webui.server.switchboard import Progress, Switchboard
from webui.settings import Settings, SettingsStore

if TYPE_CHECKING:
    from webui.extensions.front import FrontExtensions
    from webui.history import History
    from webui.jobs.service import JobService

Say = Callable[[str], None]
Ready = Callable[[Mapping[str, float]], None]
STOP_SECONDS = 4.0  # for the worker, after the connections had theirs
GRACEFUL_SECONDS = 2
CLEAN_SECONDS = 4 * 3600.0  # between two looks for uploads that nothing needs
REMEMBERED_JOBS = 5000  # that are asked for pictures without a row at the start

MODELS, PAGE, BUILD = "Reading the model folders", "Loading the interface", "Building the page"


class _Server(uvicorn.Server):
    """uvicorn, but a signal ends `run` normally instead of being raised again, so that the worker is stopped too."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.on_signal: Callable[[], None] = lambda: None  # called at the first one, in its handler

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {sig: signal.signal(sig, self.handle_exit) for sig in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            os._exit(130)  # the second one: at once
        self.on_signal()
        super().handle_exit(sig, frame)


class _Builder:
    """Builds everything behind the start page, in a thread of its own."""

    def __init__(
        self,
        settings: Settings,
        paths: Paths,
        options: ServeOptions,
        switchboard: Switchboard,
        progress: Progress,
        network: Network,
        say: Say,
        on_event: Callable[[str, Event], None] | None,
        on_ready: Ready | None,
    ) -> None:
        self._settings = settings
        self._paths = paths
        self._options = options
        self._switchboard = switchboard
        self._progress = progress
        self._network = network
        self._say = say
        self._on_event = on_event
        self._on_ready = on_ready
        self._began = time.monotonic()
        self.jobs: JobService | None = None
        self.history: History | None = None
        self.extensions: FrontExtensions | None = None
        self._held = False
        self._over = threading.Event()
        self.failure: WebUIError | None = None  # the start cannot go on: `serve` raises it
        self.on_failure: Callable[[], None] = lambda: None

    def start(self) -> None:
        threading.Thread(target=self._run, name="build-page", daemon=True).start()

    def hold(self) -> None:
        """The server is about to stop: no waiting job begins any more. For signal handlers."""
        self._held = True
        if self.jobs is not None:
            self.jobs.hold()

    def end(self) -> None:
        """The server has stopped, and so has what is done beside it."""
        self._over.set()

    def _run(self) -> None:
        try:
            self._build()
        except WebUIError as error:
            self.failure = error
            self.on_failure()
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            self._progress.error = f"The page could not be built ({type(error).__name__}). The terminal shows why."
            self._say(self._progress.error)

    def _build(self) -> None:
        progress, store = self._progress, SettingsStore(self._settings, self._paths.config_file)
        with progress.step(MODELS):
            from webui.catalog import Catalog
            from webui.extensions.door import CheckedResolver
            from webui.extensions.front import FrontExtensions
            from webui.history import History
            from webui.jobs.service import JobService

            catalog = Catalog(self._paths)
            self.history = history = History(self._paths)
            self.extensions = extensions = FrontExtensions(self._paths, store)
            for name, problem in extensions.host.problems.items():
                self._say(f"The extension {name} is not used: {problem}")
            checked = CheckedResolver(catalog, extensions.panels)
            jobs = JobService(self._settings, self._paths, checked, on_event=self._heard)
            extensions.use(jobs.apply_settings)
            jobs.start()
            self.jobs = jobs
            if self._held:  # by a signal that came before there was something to hold
                jobs.hold()
            progress.engine = lambda: str(jobs.worker()["state"])
        # what pages uploaded in an earlier run; the jobs' lock says that no other instance uses it
        shutil.rmtree(self._paths.cache_dir / "gradio", ignore_errors=True)
        with progress.step(PAGE):
            from webui.api.viewer import guarded_viewer
            from webui.server.app import build_app
        with progress.step(BUILD):
            network = self._network
            app = build_app(
                jobs, catalog, store, self._paths, self._options, history, guarded_viewer, network, extensions
            )
            self._switchboard.hand_over(app)
        if self._on_ready is not None:
            self._on_ready(progress.seconds)
        self._say(f"The page is ready after {time.monotonic() - self._began:.1f} s.")
        catalog.hash_in_background()
        self._keep_history(jobs, history)

    def _heard(self, job: str, event: Event) -> None:
        """Every event of a job: the history looks out for pictures, the console shows it all."""
        if self.history is not None:
            self.history.heard(event)
        if self.extensions is not None:
            self.extensions.heard(event)
        if self._on_event is not None:
            self._on_event(job, event)

    def _keep_history(self, jobs: JobService, history: History) -> None:
        """Bring rows and files together; what the queue still knows of a file counts more than the file's own text."""
        from webui.history.reconcile import Origin, origins_of

        def origins() -> dict[str, Origin]:
            return origins_of(jobs.list(REMEMBERED_JOBS))

        history.start(origins)
        threading.Thread(target=self._clean_inputs, args=(jobs, history), name="clean-inputs", daemon=True).start()

    def _clean_inputs(self, jobs: JobService, history: History) -> None:
        """Remove uploads that nothing needs, now and then, once the history is whole: what it does not know looks
        unneeded."""
        from webui.inputs import InputStore

        history.wait()
        while not self._over.is_set():
            if not history.banner():
                try:
                    cleaned = InputStore(self._paths.outputs).clean(history.inputs() | jobs.inputs())
                except WebUIError as error:
                    self._say(f"Uploaded pictures were not cleaned up: {error}")
                else:
                    if cleaned.removed:
                        self._say(f"{cleaned.removed} uploaded pictures that nothing needs any more were removed.")
            self._over.wait(CLEAN_SECONDS)


def guarded(app: App, options: ServeOptions, access: Access) -> App:
    """The guards around `app`, outermost first: headers, proxy, host, size, origin, access, rate."""
    guards = access.guard(limit_changes(app))
    guards = same_origin(guards, options.cors_origins)
    guards = body_limit(guards)
    guards = trusted_hosts(guards, host_names(options), any_address=not options.loopback)
    guards = forwarded(below(guards, options.root_path), options.trusted_proxies)
    guards = security_headers(guards)

    async def entry(scope: Scope, receive: Receive, send: Send) -> None:
        await (app if scope["type"] == "lifespan" else guards)(scope, receive, send)

    return entry


def serve(
    settings: Settings,
    paths: Paths,
    options: ServeOptions | None = None,
    *,
    say: Say = print,
    whisper: Say = print,
    on_event: Callable[[str, Event], None] | None = None,
    on_ready: Ready | None = None,
) -> int:
    """Serve until Ctrl+C or SIGTERM; returns the exit code. Raises `WebUIError` when the address cannot be had,
    or the data folder cannot be used.

    `say` prints a line for the user, `whisper` one that belongs into no log (a link that signs in); `on_event` hears
    every job's events (the console); `on_ready` is told what each step of the start took, in seconds, once the page is
    there.
    """
    options = options or ServeOptions(port=settings.server.port)
    check_tls(options.tls_cert, options.tls_key)
    accounts = Accounts(paths.users_file, options.auth)
    sock = bind(options.host, options.port)
    port = int(sock.getsockname()[1])
    try:
        key = _prepared(paths)
    except WebUIError:
        sock.close()
        raise
    os.environ.update(  # gradio and the hub read these when they are imported
        GRADIO_ANALYTICS_ENABLED="False",
        GRADIO_RUN_HISTORY="false",
        GRADIO_TEMP_DIR=str(paths.cache_dir / "gradio"),
        HF_HUB_OFFLINE="1",
    )
    links = OneTimeLinks()
    sessions = Sessions(key, paths.cache_dir / "signed-out.json")
    access = Access(options, accounts, sessions, links)
    network = Network(options, port, accounts, links)
    progress = Progress((MODELS, PAGE, BUILD))
    switchboard = Switchboard(progress, options.theme or settings.page.theme.value)
    builder = _Builder(settings, paths, options, switchboard, progress, network, say, on_event, on_ready)

    def started() -> None:
        say(f"Latent WebUI is at {own_address(options, port)}")
        _tell_others(options, network, links, say, whisper)
        builder.start()
        if options.open_browser:
            threading.Thread(target=webbrowser.open, args=(own_address(options, port),), daemon=True).start()

    switchboard.on_startup = started
    server = _Server(
        uvicorn.Config(
            guarded(static_files(switchboard), options, access),
            log_level="warning",
            access_log=False,
            lifespan="on",
            ws="none",
            server_header=False,
            proxy_headers=False,  # `forwarded` believes those that were named, and nobody else
            ssl_certfile=options.tls_cert or None,
            ssl_keyfile=options.tls_key or None,
            timeout_graceful_shutdown=GRACEFUL_SECONDS,
        )
    )
    server.on_signal = builder.hold
    builder.on_failure = lambda: setattr(server, "should_exit", True)
    try:
        server.run(sockets=[sock])
    finally:
        builder.end()
        _stop(builder.jobs)
        if builder.history is not None:
            builder.history.stop()
    if builder.failure is not None:
        raise builder.failure
    return 0


def _prepared(paths: Paths) -> bytes:
    """Make what is missing on the disk. Gives the key that signs sessions. Raises `WebUIError` where that fails."""
    try:
        paths.make_folders()
        return signing_key(paths.cache_dir / "access.key")
    except OSError as error:
        folder = error.filename or paths.data_dir
        raise WebUIError(
            f"The data folder cannot be used: {folder}: {error.strerror or error}.",
            "Give write access to it, or choose another one with --data-dir or --outputs-dir.",
        ) from error


def _tell_others(options: ServeOptions, network: Network, links: OneTimeLinks, say: Say, whisper: Say) -> None:
    """How other devices come in: the address, and where nobody has an account a link that signs one browser in."""
    address = shared_address(options, network.port)
    if options.no_auth:
        say("Whoever reaches this server may do everything on it: it was started with --no-auth.")
    if not address and not options.behind_proxy:
        return
    if network.open_to_all or network.accounts.exist:
        if address:
            say(f"Other devices of the network: {address}")
            for line in qr_lines(address):
                whisper(line)
        return

    def tell(_: str = "") -> None:
        link = f"{address or own_address(options, network.port)}{options.root_path}/?token={links.make('')}"
        whisper(f"Other devices sign in by this link, which works once: {link}")
        for line in qr_lines(link) if address else ():
            whisper(line)

    links.on_used = tell  # the next device finds a fresh one in the terminal
    tell()


def _stop(jobs: JobService | None) -> None:
    """Stop the worker; if that hangs, end the process all the same."""
    if jobs is None:
        return
    overdue = threading.Timer(STOP_SECONDS, os._exit, args=(1,))
    overdue.daemon = True
    overdue.start()
    jobs.stop()
    overdue.cancel()
