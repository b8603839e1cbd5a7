"""What jobs say, for any number of watchers, in bounded memory.

All watchers read one log, each from its own sequence number on, so a slow or forgotten one holds nothing back and
costs nothing. What matters for the result (loading, images, warnings, the end) stays in the log; of what is only of
the moment (steps, memory, previews) the oldest goes first, and of previews the newest of each job alone is kept.
Sequence numbers grow across restarts, so a watcher can come back with the last one it has seen.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from weakref import WeakSet

from webui.errors import TooBusy
from webui.events import Event, Failed, Finished, Image, Memory, Preview, Step

KEPT_ENTRIES = 12_000  # more than the pictures of the largest job
KEPT_BYTES = 64 * 2**20  # of text and pixels in them
MOMENT_ENTRIES = 512
MAX_WATCHERS = 1000  # that follow over the network
MAX_WATCHERS_OF_ONE = 64  # of them those of one user


@dataclass(frozen=True, slots=True)
class Entry:
    """One event on the bus. `job` is "" for what belongs to no job (memory at rest, a model loaded ahead)."""

    sequence: int
    job: str
    event: Event


class Bus:
    """The log and its watchers. Every method is cheap and safe from any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._log: OrderedDict[int, Entry] = OrderedDict()  # by sequence, ascending
        self._kept: deque[int] = deque()  # sequences of what matters; may name entries that are gone
        self._moment: OrderedDict[int, None] = OrderedDict()
        self._preview_of: dict[str, int] = {}
        self._bytes = 0
        self._last = int(time.time() * 1000)
        self._closed = False
        self._followers: WeakSet[Watcher] = WeakSet()  # over the network; a forgotten one leaves by itself
        self._calls: dict[Watcher, Callable[[], None]] = {}  # of those that do not wait in a thread

    @property
    def last(self) -> int:
        """The sequence number of the newest event."""
        return self._last

    @property
    def closed(self) -> bool:
        return self._closed

    def publish(self, job: str, event: Event) -> int:
        """Append an event and wake the watchers. Gives its sequence number."""
        with self._changed:
            self._last += 1
            self._log[self._last] = Entry(self._last, job, event)
            self._bytes += _size(event)
            if isinstance(event, Step | Preview | Memory):
                self._moment[self._last] = None
                if isinstance(event, Preview):
                    self._drop(self._preview_of.get(job))
                    self._preview_of[job] = self._last
                while len(self._moment) > MOMENT_ENTRIES:
                    self._drop(next(iter(self._moment)))
            else:
                self._kept.append(self._last)
                if isinstance(event, Finished | Failed):
                    self._drop(self._preview_of.pop(job, None))
            while len(self._kept) > KEPT_ENTRIES or (self._bytes > KEPT_BYTES and self._kept):
                self._drop(self._kept.popleft())
            self._wake(job)
            return self._last

    def _wake(self, job: str | None) -> None:
        """Those who wait in a thread, and those who are called: of one job, or with None everybody."""
        self._changed.notify_all()
        for watcher, call in self._calls.items():
            if job is None or watcher.job in (None, job):
                call()

    def call(self, watcher: Watcher, back: Callable[[], None]) -> None:
        """Have `back` called whenever there may be something for the watcher, until it leaves. It must be quick, must
        not raise, and may be called from any thread."""
        with self._changed:
            self._calls[watcher] = back

    def watch(
        self,
        job: str | None = None,
        after: int | None = None,
        retold: Sequence[Event] | None = None,
        by: str | None = None,
    ) -> Watcher:
        """A watcher of one job, or of everything with None. It starts behind sequence number `after`, or now.

        A number that was never given is from a run whose clock was ahead: whoever watches a job is told all of it.

        `retold` tells how a job ended that is over; it is used when the log has forgotten that end.

        `by` is the user who follows over the network, "" for whoever has no name; None for what the server itself waits
        for, which nobody may take from the others. Raises `TooBusy` when a thousand follow already, or too many of one
        name.
        """
        with self._changed:
            if by is not None:
                of_one = sum(one.by == by for one in self._followers) if by else 0
                if len(self._followers) >= MAX_WATCHERS or of_one >= MAX_WATCHERS_OF_ONE:
                    raise TooBusy("Too many pages watch jobs.", "Close some of them and try again.")
            start = self._last if after is None else after
            if start > self._last:
                start = self._last if job is None else 0
            backlog: list[Entry] = []
            if job is not None and retold and not any(_ends(entry, job) for entry in self._log.values()):
                backlog = [Entry(self._last, job, event) for event in retold]
            watcher = Watcher(self, job, start, backlog, by)
            if by is not None:
                self._followers.add(watcher)
            return watcher

    def close(self) -> None:
        """No more events: every watcher ends once it has read what is there."""
        with self._changed:
            self._closed = True
            self._wake(None)

    def _drop(self, sequence: int | None) -> None:
        entry = self._log.pop(sequence, None) if sequence is not None else None
        if entry is not None:
            self._moment.pop(entry.sequence, None)
            self._bytes -= _size(entry.event)
            if self._preview_of.get(entry.job) == entry.sequence:
                del self._preview_of[entry.job]

    def next_after(self, sequence: int, job: str | None, timeout: float | None) -> Entry | None:
        """The first entry behind `sequence`, waiting up to `timeout` seconds for it (None: as long as it takes).

        None when there is none in time, or ever again.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while True:
                found = self._find(sequence, job)
                if found is not None or self._closed:
                    return found
                sequence = self._last  # what was looked through need not be looked through again
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return None
                self._changed.wait(left)

    def _find(self, sequence: int, job: str | None) -> Entry | None:
        if self._last - sequence <= len(self._log):
            entries = (self._log.get(number) for number in range(sequence + 1, self._last + 1))
        else:
            entries = (entry for entry in self._log.values() if entry.sequence > sequence)
        return next((e for e in entries if e is not None and (job is None or e.job == job)), None)

    def leave(self, watcher: Watcher) -> None:
        """A watcher has gone (`Watcher.close` calls this)."""
        with self._changed:
            self._followers.discard(watcher)
            self._calls.pop(watcher, None)


class Watcher:
    """Iterates over (sequence, event) until its job is over or the bus closes. For one thread."""

    def __init__(
        self, bus: Bus, job: str | None, after: int, backlog: Sequence[Entry] = (), by: str | None = None
    ) -> None:
        self._bus = bus
        self._backlog = deque(backlog)
        self.job = job
        self.by = by  # who follows over the network
        self._open = True
        self.sequence = after  # of the last event that was read

    def get(self, timeout: float | None = None) -> Entry | None:
        """The next entry, waiting for it up to `timeout` seconds; None when none came, or `ended`."""
        if not self._open:
            return None
        if self._backlog:
            entry: Entry | None = self._backlog.popleft()
        else:
            entry = self._bus.next_after(self.sequence, self.job, timeout)
        if entry is None:
            if self._bus.closed:
                self.close()
            return None
        self.sequence = entry.sequence
        if self.job is not None and _ends(entry, self.job):
            self.close()
        return entry

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return not self._open

    @property
    def caught_up(self) -> bool:
        """Whether everything there is was read."""
        return not self._backlog and self._bus.next_after(self.sequence, self.job, 0) is None

    def call(self, back: Callable[[], None]) -> None:
        """Have `back` called, from any thread, when `get(0)` may have something; it must be quick and not raise."""
        self._bus.call(self, back)

    def entries(self) -> Iterator[Entry]:
        """Like iterating, with the job's id beside each event."""
        while True:
            entry = self.get()
            if entry is None:
                return
            yield entry

    def __iter__(self) -> Iterator[tuple[int, Event]]:
        return ((entry.sequence, entry.event) for entry in self.entries())

    def close(self) -> None:
        """Stop watching. Closing twice is harmless."""
        if self._open:
            self._open = False
            self._bus.leave(self)


def _ends(entry: Entry, job: str) -> bool:
    return entry.job == job and isinstance(entry.event, Finished | Failed)


def _size(event: Event) -> int:
    """Bytes worth counting: encoded pictures and parameters texts."""
    if isinstance(event, Preview):
        return len(event.jpeg)
    if isinstance(event, Image):
        return len(event.png) + len(event.infotext)
    return 0
