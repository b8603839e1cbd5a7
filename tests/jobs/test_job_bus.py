"""The bus: every watcher gets what matters, nobody holds anything up, and memory stays bounded."""

from __future__ import annotations

import gc
import threading

import pytest

from webui.errors import TooBusy, WebUIError
from webui.events import Failed, Finished, Image, Memory, Preview, Started, Step, Warning
from webui.jobs import bus as bus_module
from webui.jobs.bus import Bus, Watcher


def step(number: int) -> Step:
    return Step(number, 100, 1, 1, 1.0, 1.0)


def image(number: int, png: bytes = b"") -> Image:
    return Image(number, f"/x/{number}.png", 1, 64, 64, "text", "0", png=png)


def rest(watcher: Watcher) -> list[object]:
    """What a watcher has to read at this moment."""
    return [entry.event for entry in iter(lambda: watcher.get(0), None)]


def test_F44_a_watcher_that_never_reads_costs_nothing_and_misses_only_what_is_of_the_moment() -> None:
    bus = Bus()
    slow = bus.watch()
    for number in range(20_000):
        bus.publish("a", step(number))
        bus.publish("a", Preview(bytes(1000), number))
        bus.publish("", Memory("cpu", number, 0, 0, 0))
        if number % 1000 == 0:
            bus.publish("a", image(number))
    bus.publish("a", Warning("w", "text"))
    bus.publish("a", Finished(20, {}, 0))
    assert len(bus._log) < bus_module.MOMENT_ENTRIES + 30
    assert bus._bytes < 10_000
    events = rest(slow)
    assert [e.index for e in events if isinstance(e, Image)] == list(range(0, 20_000, 1000))
    assert sum(isinstance(e, Warning | Finished) for e in events) == 2
    assert sum(isinstance(e, Preview) for e in events) == 0  # the job is over


def test_a_watcher_that_keeps_up_sees_every_step_in_order() -> None:
    bus = Bus()
    watcher = bus.watch("a")
    seen = []
    for number in range(3000):
        bus.publish("a", step(number))
        bus.publish("b", step(number))
        seen += rest(watcher)
    assert [e.step for e in seen if isinstance(e, Step)] == list(range(3000))


def test_of_previews_the_newest_of_each_job_is_kept() -> None:
    bus = Bus()
    watcher = bus.watch()
    for number in range(50):
        bus.publish("a", Preview(b"a", number))
        bus.publish("b", Preview(b"b", number))
    assert [e.step for e in rest(watcher) if isinstance(e, Preview)] == [49, 49]


def test_pictures_in_the_log_stay_within_a_number_of_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus_module, "KEPT_BYTES", 10_000)
    bus = Bus()
    watcher = bus.watch()
    for number in range(100):
        bus.publish("a", image(number, bytes(3000)))
    assert bus._bytes <= 10_000
    assert [e.index for e in rest(watcher) if isinstance(e, Image)] == [97, 98, 99]


def test_a_watcher_of_a_job_ends_with_it_and_one_of_all_goes_on() -> None:
    bus = Bus()
    one, every = bus.watch("a"), bus.watch()
    bus.publish("a", Started(1, 64, 64, 20))
    bus.publish("b", Failed({}))
    bus.publish("a", Finished(1, {}, 0))
    assert [type(event) for _, event in one] == [Started, Finished]
    assert one.ended
    assert len(rest(every)) == 3
    assert not every.ended
    bus.publish("c", Started(1, 64, 64, 20))
    bus.close()
    assert [entry.job for entry in every.entries()] == ["c"]
    assert every.ended


def test_reading_resumes_behind_a_sequence_number_and_numbers_grow_across_buses() -> None:
    bus = Bus()
    numbers = [bus.publish("a", image(n)) for n in range(5)]
    assert numbers == list(range(numbers[0], numbers[0] + 5))
    assert [e.index for e in rest(bus.watch("a", after=numbers[2])) if isinstance(e, Image)] == [3, 4]
    assert len(rest(bus.watch("a", after=numbers[4] + 100))) == 5  # of a run whose clock was ahead
    assert len(rest(bus.watch("a", after=0))) == 5


def test_a_forgotten_end_is_told_again_and_a_known_one_is_not() -> None:
    bus = Bus()
    told = [image(0), Finished(1, {}, 0)]
    assert [event for _, event in bus.watch("a", 0, told)] == told
    bus.publish("a", Finished(1, {}, 7))
    assert [event for _, event in bus.watch("a", 0, told)] == [Finished(1, {}, 7)]


def test_a_waiting_watcher_wakes_at_once_and_at_the_close() -> None:
    bus = Bus()
    got: list[object] = []
    threads = [threading.Thread(target=lambda: got.extend(bus.watch("a", 0))) for _ in range(5)]
    for thread in threads:
        thread.start()
    bus.publish("a", Started(1, 64, 64, 20))
    bus.close()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
    assert len(got) == 5


def test_watchers_are_limited_and_forgotten_ones_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus_module, "MAX_WATCHERS", 3)
    bus = Bus()
    held = [bus.watch(by="") for _ in range(3)]
    with pytest.raises(WebUIError):
        bus.watch(by="")
    held.pop().close()
    held.append(bus.watch(by=""))
    held.clear()
    gc.collect()
    assert [bus.watch(by="") for _ in range(3)]


def test_one_user_takes_no_places_of_the_others_and_nobody_those_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus_module, "MAX_WATCHERS", 5)
    monkeypatch.setattr(bus_module, "MAX_WATCHERS_OF_ONE", 3)
    bus = Bus()
    held = [bus.watch("a", by="ann") for _ in range(3)]
    with pytest.raises(TooBusy):
        bus.watch("a", by="ann")
    held += [bus.watch("a", by="bob") for _ in range(2)]
    with pytest.raises(TooBusy):
        bus.watch("a", by="cleo")
    assert bus.watch("a"), "what the server itself waits for"
