"""`Host`: the extensions of one side of the program, loaded, asked, timed, and switched off when they keep failing.

An exception in a hook never reaches whoever asks: it is logged with the extension's name and the hook counts as not
answered. After three, the extension is off for the rest of this process, and a notice says so. What is meant for the
user, a `WebUIError` such as a request that cannot be expanded, passes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pluggy

from webui.errors import WebUIError, printable
from webui.extensions.discovery import Found
from webui.extensions.loading import Side, load_side
from webui.extensions.manifest import BadExtension, Manifest
from webui.extensions.specs import ENGINE_HOOKS, FRONT_HOOKS, PROJECT, EngineHooks, FrontHooks, Values

MAX_FAILURES = 3

T = TypeVar("T")
_log = logging.getLogger(__name__)


@dataclass
class HookUse:
    """How a hook of an extension was used in this process."""

    calls: int = 0
    seconds: float = 0.0
    failures: int = 0


@dataclass
class _Record:
    uses: dict[str, HookUse] = field(default_factory=dict)
    failures: int = 0
    off: str = ""  # the notice with which it was switched off


class Host:
    """Extensions by name. `Host()` has none.

    `side` decides which module of each is loaded; below `data` each has a folder of its own. `problems` has a sentence
    for each that did not load.
    """

    def __init__(self, found: Iterable[Found] = (), side: Side = "front", data: Path | None = None) -> None:
        self.side: Side = side
        self._data = data
        self.problems: dict[str, str] = {}
        self.manifests: dict[str, Manifest] = {}
        self._records: dict[str, _Record] = {}
        self._notices: list[str] = []
        self._plugins = pluggy.PluginManager(PROJECT)
        self._plugins.add_hookspecs(EngineHooks if side == "engine" else FrontHooks)
        for one in found:
            if not one.usable or one.manifest is None:
                continue
            try:
                self._load(one, one.manifest)
            except BadExtension as error:
                self.problems[one.name] = error.message
                _log.warning("The extension %s is not used: %s", one.name, error.message, exc_info=error.__cause__)
            else:
                self.manifests[one.name] = one.manifest
                self._records[one.name] = _Record()

    def _load(self, one: Found, manifest: Manifest) -> None:
        module = load_side(one.folder, manifest, self.side)
        if module is None:
            return
        try:
            self._plugins.register(module, manifest.name)
        except (pluggy.PluginValidationError, ValueError) as error:
            raise BadExtension(f"It does not fit the hooks: {printable(str(error))}") from error
        wrong = self._misfit(module, manifest)
        if wrong:
            self._plugins.unregister(module)
            raise BadExtension(wrong)

    def _misfit(self, module: Any, manifest: Manifest) -> str:
        """Why the hooks that a module implements are not those that its manifest asks for."""
        callers = self._plugins.get_hookcallers(module) or []
        known = ENGINE_HOOKS if self.side == "engine" else FRONT_HOOKS
        for caller in callers:
            if caller.name not in known:
                return f'There is no hook "{caller.name}" in {self.side}.py.'
            if caller.name not in manifest.asks:
                return f'It uses the hook "{caller.name}" without asking for it in its manifest.'
            for implementation in caller.get_hookimpls():
                if implementation.plugin is module and (implementation.hookwrapper or implementation.wrapper):
                    return f'"{caller.name}" is a wrapper around other extensions, which is not allowed.'
        return ""

    # Asking

    def ask(self, hook: str, values: Mapping[str, Values] | None = None, **arguments: Any) -> Iterator[tuple[str, Any]]:
        """(extension, answer) of each that implements the hook and answers something, in the order of their names.

        With `values` only the extensions named there are asked, each with its own. Each is asked when the iteration
        comes to it.
        """
        caller = getattr(self._plugins.hook, hook)
        implementations = sorted(caller.get_hookimpls(), key=_order)
        for implementation in implementations:
            name = implementation.plugin_name
            if self.is_off(name) or (values is not None and name not in values):
                continue
            given = arguments if values is None else {**arguments, "values": values[name]}
            if "folder" in implementation.argnames:
                given = {**given, "folder": self._folder(name)}
            chosen = [given[parameter] for parameter in implementation.argnames]
            answer = self.guard(name, hook, lambda call=implementation.function, args=chosen: call(*args))  # type: ignore[misc]
            if answer is not None:
                yield name, answer

    def _folder(self, name: str) -> Path:
        if self._data is None:
            raise WebUIError("There is no data folder here.", "Start the whole program.")
        folder = self._data / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def rewrite(self, hook: str, argument: str, start: T, values: Mapping[str, Values], **arguments: Any) -> T:
        """Pass `start` through every extension of `values` that implements the hook; each sees the last answer."""
        for name in sorted(values):
            for _, answer in self.ask(hook, {name: values[name]}, **{argument: start}, **arguments):
                start = answer
        return start

    def guard(self, name: str, hook: str, call: Callable[[], T]) -> T | None:
        """`call()`, timed; None when it fails. Raises only `WebUIError`, which is meant for the user."""
        record = self._records[name]
        use = record.uses.setdefault(hook, HookUse())
        use.calls += 1
        began = time.perf_counter()
        try:
            return call()
        except WebUIError:
            raise
        except Exception as error:
            use.failures += 1
            record.failures += 1
            _log.exception("The extension %s failed in its hook %s", name, hook)
            self._failed(name, hook, error, record)
            return None
        finally:
            use.seconds += time.perf_counter() - began

    def _failed(self, name: str, hook: str, error: Exception, record: _Record) -> None:
        what = printable(f"{type(error).__name__}: {error}")[:200]
        text = f"The extension {name} failed in {hook} ({what}); that part of its work was left out."
        if record.failures >= MAX_FAILURES and not record.off:
            record.off = f"It failed {record.failures} times, last in {hook} ({what}), and was switched off."
            text += " It failed too often and is switched off until the next start."
        self._notices.append(text)

    # What became of it

    def is_off(self, name: str) -> bool:
        """Whether it was switched off for failing too often, or is not loaded."""
        record = self._records.get(name)
        return record is None or bool(record.off)

    def take_notices(self) -> list[str]:
        """What the user has to be told since the last time."""
        notices, self._notices = self._notices, []
        return notices

    def report(self) -> dict[str, Any]:
        """Plain data for the list of extensions: problems, hooks, times, and what was switched off."""
        hooks: dict[str, list[str]] = {name: [] for name in self.manifests}
        for name in self.manifests:
            plugin = self._plugins.get_plugin(name)
            callers = (self._plugins.get_hookcallers(plugin) or []) if plugin is not None else []
            hooks[name] = sorted(caller.name for caller in callers)
        return {
            "problems": dict(self.problems),
            "hooks": hooks,
            "uses": {
                name: {
                    hook: {"calls": use.calls, "seconds": round(use.seconds, 6), "failures": use.failures}
                    for hook, use in record.uses.items()
                }
                for name, record in self._records.items()
            },
            "off": {name: record.off for name, record in self._records.items() if record.off},
        }


def _order(implementation: Any) -> tuple[int, str]:
    """`tryfirst` before the others, `trylast` after them, else by name: never by the order of loading."""
    return (-1 if implementation.tryfirst else 1 if implementation.trylast else 0, implementation.plugin_name)
