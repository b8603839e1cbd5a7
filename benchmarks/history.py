"""Times of the history at a hundred thousand pictures, and of an import. One command, a table out.

    python benchmarks/history.py [--rows 100000] [--files 1000] [--without-browser]

Each picture has a prompt of its own (25 words, drawn as words are in a language): the hardest case for the text
index, since real histories repeat prompts. Times are the best and the median of several runs of the calls that the
page makes; the first page is also asked for in a fresh process, with nothing in memory. In Chromium, on the real page:
from the press on the tab to the first pictures on the screen, a jump into the middle, and the time between two frames
while it scrolls.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from PIL import Image

from webui import infotext, pictures
from webui.history import History, Recorder
from webui.history.recorder import history_file
from webui.history.records import Record
from webui.history.rows import insert
from webui.params import make_params
from webui.paths import Paths, write_new
from webui.provenance import Environment, SavedPicture, UsedModel

DAY = 86_400
CHUNK = 1000


def vocabulary(rng: random.Random) -> tuple[list[str], list[float]]:
    """Three thousand words, the common ones much more common (Zipf)."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(rng.choices(letters, k=rng.randint(3, 9))) for _ in range(3000)]
    return words, [1 / (rank + 1) for rank in range(len(words))]


def fill(history: History, rows: int, rng: random.Random) -> tuple[float, list[str]]:
    """Write the rows as an import would; gives the seconds and the words, the most common first."""
    words, weights = vocabulary(rng)
    checkpoints = [UsedModel("checkpoint", f"model{n}.safetensors", f"{n:02x}" * 32) for n in range(20)]
    start = time.time() - 400 * DAY
    began = time.perf_counter()
    for first in range(0, rows, CHUNK):
        with history._database.write() as db:
            for n in range(first, min(rows, first + CHUNK)):
                params = make_params({"prompt": " ".join(rng.choices(words, weights, k=25)), "seed": n})
                record = Record(
                    path=f"txt2img-images/{n // 250:04}/{n:05d}-{n}.png",
                    created=start + n * 345.6,
                    prompt=params.prompt,
                    negative_prompt=" ".join(rng.choices(words, weights, k=15)),
                    checkpoint=rng.choice(checkpoints),
                    sampler="Euler a" if n % 3 else "DPM++ 2M",
                    schedule="Automatic",
                    seed=n,
                    width=512,
                    height=768 if n % 2 else 512,
                    steps=20,
                    cfg_scale=7.0,
                    params=params.canonical_json(),
                    infotext=infotext.format(params),
                    favourite=n % 100 == 0,
                    tags=("best",) if n % 1000 == 0 else (),
                )
                insert(db, record)
    return time.perf_counter() - began, words


def timed(call: Callable[[], object], runs: int = 7) -> tuple[float, float]:
    """(best, median) in milliseconds."""
    times = []
    for _ in range(runs):
        began = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - began))
    return min(times), statistics.median(times)


def row(label: str, best: float, median: float | None = None) -> None:
    print(f"{label:<58}{best:>10.1f} ms" + (f"{median:>10.1f} ms" if median is not None else ""))


def cold_first_page(data_dir: Path) -> float:
    """A new process opens the file and asks for the first page; milliseconds of that alone."""
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom webui.history import History\nfrom webui.paths import Paths\n"
        "began = time.perf_counter()\nhistory = History(Paths.under(Path(sys.argv[1])))\n"
        "assert len(history.page('').cards) == 60\nprint(1000 * (time.perf_counter() - began))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    done = subprocess.run(
        [sys.executable, "-c", script, str(data_dir)], capture_output=True, text=True, check=True, env=environment
    )
    return float(done.stdout)


def deep_cursor(history: History, pages: int) -> str:
    cursor = ""
    for _ in range(pages):
        cursor = history.page("", after=cursor, limit=500).older
    return cursor


def searching(paths: Paths, rows: int) -> None:
    history = History(paths)
    seconds, words = fill(history, rows, random.Random(1))
    size = history_file(paths).stat().st_size / 2**20
    print(f"{rows:,} rows written in {seconds:.1f} s ({1000 * seconds / rows:.2f} ms each), {size:.0f} MB\n")
    print(f"{'':<58}{'best':>13}{'median':>13}")
    row("first page, fresh process", cold_first_page(paths.data_dir))
    row("first page", *timed(lambda: history.page("")))
    deep = deep_cursor(history, rows // 1000)
    row(f"a page {rows // 2:,} rows further", *timed(lambda: history.page("", after=deep)))
    rare, common = words[2500], words[0]
    for label, text in (
        ("a word in nearly every prompt", common),
        ("a word in some hundred prompts", words[500]),
        ("a rare word", rare),
        ("two letters", "qz"),
        ("nothing found", "nosuchword"),
        ("without a common word", f"-{common}"),
        ("model:", "model:model7"),
        ("a rare seed", "seed:12345"),
        ("a month long ago", f"date:{time.strftime('%Y-%m', time.localtime(time.time() - 380 * DAY))}"),
        ("favourites with a word", f"fav: {words[20]}"),
        ("tag:", "tag:best"),
        ("everything at once", f"{words[3]} -{words[40]} model:model7 sampler:euler size:512x768 fav:no"),
    ):
        found = len(history.page("", text).cards)
        row(f"first page of a search: {label} ({found})", *timed(partial(history.page, "", text)))
    after = history.page("", words[500]).older
    row("the next page of a search", *timed(lambda: history.page("", words[500], after=after)))
    row("days with counts", *timed(lambda: history.days("")))
    row("days of a search", *timed(lambda: history.days("", words[20])))
    row("prompt history, first page", *timed(lambda: history.prompts("")))
    row("prompt history, a word", *timed(lambda: history.prompts("", rare)))
    row("more like this", *timed(lambda: history.similar("", rows // 2)))
    row("one picture with everything", *timed(lambda: history.get("", rows // 2)))
    history.stop()


# Until every cell in sight knows its picture; the page has no other way to say that it is there.
_SHOWN = """const began = performance.now();
  const shown = () => {
    const cells = [...document.querySelectorAll('.history-grid .cell')].filter((cell) => {
      const box = cell.getBoundingClientRect();
      return box.bottom > 0 && box.top < innerHeight;
    });
    return cells.length > 0 && cells.every((cell) => cell.dataset.id);
  };
  const look = (done) => (shown() ? done(performance.now() - began) : requestAnimationFrame(() => look(done)));"""
# From the press on the tab.
_OPEN = f"""() => new Promise((done) => {{
  {_SHOWN}
  document.querySelector('#tab-history-button').click();
  look(done);
}})"""
# From a jump to a share of the whole height, where nothing has been read yet.
_JUMP = f"""(share) => new Promise((done) => {{
  {_SHOWN}
  scrollTo(0, document.documentElement.scrollHeight * share);
  requestAnimationFrame(() => look(done));
}})"""
# Milliseconds between frames while the page scrolls 400 pixels with each.
_SCROLL = """(frames) => new Promise((done) => {
  const times = [];
  let last = null;
  const step = (now) => {
    if (last !== null) times.push(now - last);
    last = now;
    if (times.length === frames) return done(times);
    scrollBy(0, 400);
    requestAnimationFrame(step);
  };
  requestAnimationFrame(step);
})"""
FIRST_PAGE_TARGET = 300.0  # ms
FRAMES = 240


def in_browser(paths: Paths, runs: int = 5) -> None:
    """The tab on the real page, each time on a page that was just opened."""
    from benchmarks.startup import chromium, free_port, is_full_page, running, until

    url = f"http://127.0.0.1:{(port := free_port())}"
    command = [sys.executable, "-m", "webui", "--port", str(port), "--no-browser", "--data-dir", str(paths.data_dir)]
    with chromium(True) as browser:
        if browser is None:
            print("No Chromium here: the tab was not timed.")
            return
        with running(command, paths.data_dir / "server.log") as (process, _):
            until("the full page", lambda: is_full_page(url), process, 0.1)
            times, jumps, frames = [], [], []
            for run in range(runs):
                page = browser.new_page(viewport={"width": 1440, "height": 900})
                page.goto(url)
                page.wait_for_function("document.documentElement.dataset.ready === 'true'")
                page.wait_for_load_state("networkidle")
                times.append(float(page.evaluate(_OPEN)))
                jumps.append(float(page.evaluate(_JUMP, (run + 1) / (runs + 1))))
                if run == runs - 1:
                    frames = sorted(float(gap) for gap in page.evaluate(_SCROLL, FRAMES))
                page.close()
            print("\nIn Chromium")
            row("from the press on the tab to the first page", min(times), statistics.median(times))
            met = "met" if statistics.median(times) < FIRST_PAGE_TARGET else "missed"
            print(f"  target: {FIRST_PAGE_TARGET:.0f} ms, {met}")
            row("a jump to a place that was not read yet", min(jumps), statistics.median(jumps))
            row("between two frames of scrolling: median, worst of a hundred", statistics.median(frames),
                frames[len(frames) * 99 // 100])  # fmt: skip


def recording(paths: Paths, count: int = 200) -> None:
    """What the history adds to the saving of a picture."""
    picture = Image.effect_noise((512, 512), 60).convert("RGB")
    params = make_params({"prompt": "a castle by the sea", "seed": 1, "width": 512, "height": 512})
    text = infotext.format(params)
    data = pictures.encode(picture, "png", 90, text)
    recorder = Recorder(paths)
    plain, recorded = [], []
    for n in range(count):
        began = time.perf_counter()
        write_new(paths.outputs / "plain" / f"{n}.png", data)
        plain.append(1000 * (time.perf_counter() - began))
        path = paths.outputs / "recorded" / f"{n}.png"
        saved = SavedPicture(params, 0, path, 512, 512, text, f"{n:064x}", Environment(torch="2"), ())
        began = time.perf_counter()
        with recorder.saving(saved):
            write_new(path, data)
        recorded.append(1000 * (time.perf_counter() - began))
    recorder.close()
    row("saving a file, without the history (median)", statistics.median(plain))
    row("saving a file, with its row (median)", statistics.median(recorded))


def importing(paths: Paths, folder: Path, files: int) -> None:
    """Files of 512x512 pixels with metadata, about 500 KB each, most of them links to a few."""
    folder.mkdir()
    rng = random.Random(2)
    words, weights = vocabulary(rng)
    for n in range(min(files, 50)):
        params = make_params({"prompt": " ".join(rng.choices(words, weights, k=25)), "seed": n})
        picture = Image.effect_noise((512, 512), 60).convert("RGB")
        write_new(folder / f"{n:05d}.png", pictures.encode(picture, "png", 90, infotext.format(params)))
    for n in range(50, files):
        os.link(folder / f"{n % 50:05d}.png", folder / f"{n:05d}.png")
    history = History(paths)
    began = time.perf_counter()
    result = history.import_folder(folder)
    seconds = time.perf_counter() - began
    print(f"\nimport: {result.added} pictures in {seconds:.1f} s, {result.added / seconds:.0f} a second")
    began = time.perf_counter()
    history.import_folder(folder)
    print(f"the same folder again: {time.perf_counter() - began:.2f} s")
    began = time.perf_counter()
    history.reconcile()
    print(f"start-up, rows and files compared: {time.perf_counter() - began:.2f} s")
    key, data = history.thumbnail("", result.added)
    history.thumbnails.drop(key)

    def make() -> None:
        history.thumbnails.drop(key)
        history.thumbnail("", result.added)

    row("a thumbnail, made", *timed(make))
    row(f"a thumbnail, from the cache ({len(data) / 1024:.0f} KB)", *timed(lambda: history.thumbnail("", result.added)))
    history.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--without-browser", action="store_true", help="leave out what is measured in Chromium")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        searching(fresh(root / "search"), arguments.rows)
        if not arguments.without_browser:
            in_browser(fresh(root / "search"))
        recording(fresh(root / "record"))
        importing(fresh(root / "import"), root / "others", arguments.files)


def fresh(root: Path) -> Paths:
    paths = Paths.under(root)
    paths.make_folders()
    return paths


if __name__ == "__main__":
    main()
