"""What people see in the terminal and what the log keeps."""

from __future__ import annotations

import io
import logging
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webui import console as console_module
from webui.console import Console, clean, memory_line, size, step_line
from webui.errors import WebUIError
from webui.events import Event, Failed, Finished, Image, Loaded, Loading, Memory, Started, Step, Warning

CPU = Memory("cpu", int(1.3 * 2**30), 0, 16 * 2**30, int(1.6 * 2**30))
CUDA = Memory("cuda", 2 * 2**30, 3 * 2**30, 8 * 2**30, int(2.5 * 2**30))
LOADING = [
    Loading("checkpoint", "a.safetensors", "Loading weights [0a1b2c3d4e] from models/Stable-diffusion/a.safetensors"),
    Loaded("checkpoint", "a.safetensors", "0a1b2c3d4e", "", {"read": 0.3, "convert": 0.9}),
    Loading("vae", "a.vae.pt", "Loading VAE weights found near the checkpoint: models/Stable-diffusion/a.vae.pt"),
    Loaded("vae", "a.vae.pt", None, "found near the checkpoint", {"read": 0.2}),
]
JOB = [
    *LOADING,
    Started(2, 512, 512, 20),
    *(Step(step, 20, batch, 2, 8.123, 1.0) for batch in (1, 2) for step in range(1, 21)),
    Image(0, "/out/00000-7.png", 7, 512, 512, "text", "0"),
    CPU,
    Finished(2, {"load": 1.5, "sample": 4.0, "total": 5.5}, int(1.7 * 2**30)),
]
HOSTILE = "a\x1b[31mred\x07\x9b2J\r\n2030-01-01 CRITICAL webui: forged\u202eevil\u2028line\x00"


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[tuple[Console, io.StringIO]]:
    file = io.StringIO()
    with Console(tmp_path / "logs", file=file).running() as console:
        yield console, file


def log_of(folder: Path) -> str:
    return (folder / "logs" / "webui.log").read_text(encoding="utf-8")


def run(console: Console, events: list[Event], job: str = "0123456789ab") -> None:
    for event in events:
        console.handle(job, event)


def test_without_a_terminal_there_is_no_control_code(plain: tuple[Console, io.StringIO]) -> None:
    console, file = plain
    console.started({"models": 0.1, "page": 1.2}, ["http://127.0.0.1:7860"])
    run(console, JOB)
    run(console, [Warning("w", "careful"), Failed({"error": "OutOfMemory", "message": "No room.", "advice": "Less."})])
    logging.getLogger("webui.anything").warning("a warning")
    console.error(WebUIError("Bad.", "Do better."))
    text = file.getvalue()
    assert "\x1b" not in text
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", text)
    assert "Bad. Do better." in text


def test_the_lines_are_those_that_users_know(plain: tuple[Console, io.StringIO]) -> None:
    console, file = plain
    console.started({"models": 0.1, "page": 1.2}, ["http://127.0.0.1:7860"])
    run(console, JOB)
    assert file.getvalue().splitlines() == [
        "Startup time: 1.3s (models: 0.1s, page: 1.2s)",
        "Latent WebUI is at http://127.0.0.1:7860",
        "Loading weights [0a1b2c3d4e] from models/Stable-diffusion/a.safetensors",
        "Model loaded in 1.2s (read: 0.3s, convert: 0.9s)",
        "Loading VAE weights found near the checkpoint: models/Stable-diffusion/a.vae.pt",
        "VAE loaded in 0.2s (read: 0.2s)",
        "Job 01234567: 2 pictures of 512x512 in 20 steps",
        "Job 01234567: step 20/20 (batch 2/2), 8.1 it/s, 1.0 s left",
        "Job 01234567: 2 pictures in 5.5s (load 1.5s, sample 4.0s), peak memory 1.70 GB",
    ]


def test_slow_jobs_are_told_now_and_then_without_a_terminal(
    plain: tuple[Console, io.StringIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    console, file = plain
    now = [1000.0]
    monkeypatch.setattr(console_module.time, "monotonic", lambda: now[0])
    console.handle("job", Started(1, 64, 64, 20))
    console.handle("job", CPU)
    for step in range(1, 20):
        now[0] += 1.0
        console.handle("job", Step(step, 20, 1, 1, 1.0, 20.0 - step))
    lines = [line for line in file.getvalue().splitlines() if "step" in line]
    assert [re.search(r"step (\d+)/", line).group(1) for line in lines[1:]] == ["5", "10", "15"]  # type: ignore[union-attr]
    assert "RAM of the worker 1.30 GB / total 16.00 GB, peak 1.60 GB" in lines[1]


def test_in_a_terminal_a_bar_moves_and_memory_stands_below_it(tmp_path: Path) -> None:
    file = io.StringIO()
    with Console(tmp_path, file=file, terminal=True).running() as console:
        assert console.interactive
        console.handle("0123456789ab", Started(1, 512, 512, 20))
        console.handle("", CUDA)
        console.handle("0123456789ab", Step(12, 20, 1, 1, 8.123, 1.0))
        shown = "step 12/20, 8.1 it/s, 1.0 s left"
        deadline = time.monotonic() + 30
        while shown not in file.getvalue() and time.monotonic() < deadline:
            time.sleep(0.02)
        console.handle("0123456789ab", Finished(1, {"total": 2.0}, 0))
    text = file.getvalue()
    assert "\x1b[" in text
    assert shown in text
    assert "VRAM allocated 2.00 GB / reserved 3.00 GB / total 8.00 GB, peak 2.50 GB" in text
    assert "\u2501" in text
    assert text.rstrip().endswith("Job 01234567: 1 picture in 2.0s, peak memory 2.50 GB")


@pytest.mark.parametrize("terminal", [False, True])
def test_H115_names_cannot_colour_the_screen_or_forge_a_log_line(tmp_path: Path, terminal: bool) -> None:
    file = io.StringIO()
    with Console(tmp_path / "logs", file=file, terminal=terminal).running() as console:
        console.say("[bold]not markup[/bold] :smile:")
        run(
            console,
            [
                Loading("checkpoint", HOSTILE, HOSTILE),
                Warning("w", HOSTILE),
                Image(0, HOSTILE, 1, 1, 1, "", "", error=HOSTILE),
                Failed({"error": "EngineFault", "message": HOSTILE, "advice": HOSTILE}),
            ],
        )
        logging.getLogger("webui.x").warning("%s", HOSTILE)
        try:
            raise RuntimeError(HOSTILE)
        except RuntimeError:
            logging.getLogger("webui.x").exception("it failed")
    screen = re.sub(r"\x1b\[[0-9;]*m", "", file.getvalue()) if terminal else file.getvalue()
    for text in (screen, log_of(tmp_path)):
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\u2028]", text)
        assert not re.search(r"^2030", text, re.MULTILINE)
    assert "[bold]not markup[/bold] :smile:" in screen
    assert "    | RuntimeError" in log_of(tmp_path)


@given(st.text())
def test_cleaned_text_is_one_printable_line(text: str) -> None:
    line = clean(text)
    assert len(line.splitlines()) <= 1
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]", line)
    line.encode("utf-8")


def test_long_lines_are_cut() -> None:
    assert len(clean("x" * 10**6)) < 2100


def test_the_log_has_everything_and_rotates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console_module, "LOG_BYTES", 2000)
    with Console(tmp_path / "logs", file=io.StringIO()).running() as console:
        run(console, JOB)
        assert "Loading weights [0a1b2c3d4e]" in log_of(tmp_path)
        assert "saved /out/00000-7.png" in log_of(tmp_path)
        for number in range(500):
            logging.getLogger("webui.jobs").info("line %d", number)
    files = sorted((tmp_path / "logs").iterdir())
    assert len(files) == 1 + console_module.LOG_FILES
    assert all(file.stat().st_size <= 2000 for file in files)
    assert "line 499" in log_of(tmp_path)


def test_warnings_of_ours_are_shown_and_those_of_libraries_only_logged(plain: tuple[Console, io.StringIO]) -> None:
    _, file = plain
    logging.getLogger("webui.jobs").warning("first line\nsecond line")
    logging.getLogger("diffusers").warning("chatter of a library")
    logging.getLogger("webui.jobs").info("a detail")
    logging.getLogger("webui.jobs").info("Device: cpu", extra={"show": True})
    assert file.getvalue() == "first line\nDevice: cpu\n"


def test_a_log_folder_that_cannot_be_written_is_told_and_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file where the folder should be")
    file = io.StringIO()
    with Console(tmp_path / "logs", file=file).running() as console:
        console.say("on it goes")
    assert "There is no log file" in file.getvalue()
    assert file.getvalue().endswith("on it goes\n")


@pytest.mark.parametrize("closed", [True, False])
def test_a_stream_that_cannot_be_written_ends_nothing(tmp_path: Path, closed: bool) -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    with Console(tmp_path / "logs", file=file).running() as console:
        if closed:
            file.close()
        console.say("Bücher 本 \U0001f34e")
        run(console, JOB)
        console.say("still here")
        if not closed:
            file.flush()
            written = file.buffer.getvalue()  # type: ignore[attr-defined]
            assert b"B?cher ? ?" in written
            assert b"still here" in written
    assert "Bücher 本" in log_of(tmp_path)


def test_many_threads_may_log_and_show_at_once(plain: tuple[Console, io.StringIO]) -> None:
    console, file = plain

    def show() -> None:
        for _ in range(50):
            run(console, JOB)
            console.warn("noticed")

    def log() -> None:
        for _ in range(300):
            logging.getLogger("webui.jobs").warning("logged")

    threads = [threading.Thread(target=target, daemon=True) for target in (show, log, log, show)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert file.getvalue().count("logged\n") == 600


def test_numbers_read_well() -> None:
    assert size(1.5 * 2**30) == "1.50 GB"
    assert size(700 * 2**20) == "700 MB"
    assert [size(count) for count in (0, 1, 1025, 2**20 - 1)] == ["0 kB", "1 kB", "2 kB", "1024 kB"]
    assert step_line(Step(3, 20, 1, 1, 0.25, 400.0)) == "step 3/20, 4.0 s/it, 7 min left"
    assert step_line(Step(3, 20, 1, 1, 0.0, 7200.0)).endswith("2.0 h left")
    assert memory_line(CPU, 2 * 2**30).endswith("peak 2.00 GB")


def test_the_terminal_and_the_jobs_never_import_torch() -> None:
    code = "import sys, webui.jobs.service, webui.console; sys.exit('torch' in sys.modules or 'gradio' in sys.modules)"
    root = Path(__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
