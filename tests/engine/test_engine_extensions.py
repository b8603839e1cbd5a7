"""Extensions in the real engine: their hooks on the way of a picture, and jobs made of many cells."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from embedded import EMBEDDED_CHECKPOINT, install_embedded
from engine_runs import Run, pixels_of, run, run_until
from extensions.extension_folders import host_of, write_extension

from webui.engine import Engine, denoise, expansion
from webui.engine.control import Control
from webui.engine.extensions import register_functions
from webui.engine.saving.ledger import Ledger
from webui.events import Event, Extensions, Image, Loading, Preview, Started
from webui.names import PIXEL_UPSCALERS
from webui.params import WHOLE_JOB, make_params
from webui.paths import Paths
from webui.provenance import SavedPicture
from webui.settings import Settings, changed

HOOK = "from webui.extensions import Cell, Draft, Expansion, Sheet, hookimpl\n"
STEP = HOOK + (
    "class Shift:\n"
    "    def __init__(self, amount): self.amount = amount\n"
    "    def before(self, step): step.x = step.x * 1.0\n"
    "    def after(self, step): step.denoised = step.denoised + self.amount\n"
    "@hookimpl\n"
    "def step(values): return Shift(values['amount'])\n"
)
FAILING_STEP = HOOK + (
    "class Bad:\n"
    "    def before(self, step):\n"
    "        step.cfg_scale = 0.0\n"
    "        raise ValueError('half way')\n"
    "    def after(self, step):\n"
    "        step.denoised = step.denoised * 0\n"
    "        raise ValueError('at the end')\n"
    "@hookimpl\n"
    "def step(): return Bad()\n"
)
DECODED = HOOK + "@hookimpl\ndef decoded(pixels, index, values): return 255 - pixels\n"
PARAMS = HOOK + (
    "@hookimpl\n"
    "def params(request, values):\n"
    "    return request.changed(seed=request.seed + int(values['amount'])).without_extension('reseed')\n"
)
POLISH = HOOK + (
    "@hookimpl\ndef params(request, values): return request.changed(prompt=request.prompt + ', masterpiece')\n"
)
NOTED = HOOK + (
    "import pathlib\n"
    "@hookimpl\n"
    "def saved(picture):\n"
    "    with open(pathlib.Path(__file__).with_name('saved.txt'), 'a') as file:\n"
    "        file.write(str(picture.path) + chr(10))\n"
)
SERIES = HOOK + (
    "from PIL import Image\n"
    "def cells(request, count):\n"
    "    made = []\n"
    "    for i in range(count):\n"
    "        result = yield Cell(request.changed(seed=request.seed + i, steps=2), f'cell {i}')\n"
    "        if result.interrupted:\n"
    "            break\n"
    "        made += result.pictures\n"
    "        yield Draft(result.pictures[0] if result.pictures else Image.new('RGB', (8, 8)))\n"
    "    sheet = Image.new('RGB', (len(made) * 16, 16))\n"
    "    for i, picture in enumerate(made):\n"
    "        sheet.paste(picture.resize((16, 16)), (i * 16, 0))\n"
    "    yield Sheet(sheet, (('Script', 'Series'),))\n"
    "@hookimpl\n"
    "def expand(request, values):\n"
    "    return Expansion(cells(request, int(values['amount'])), int(values['amount']))\n"
)
ROUNDS = HOOK + (
    "def cells(request, count):\n"
    "    for i in range(count):\n"
    "        result = yield Cell(request.changed(seed=request.seed + i), f'round {i}')\n"
    "        if result.interrupted:\n"
    "            return\n"
    "@hookimpl\n"
    "def expand(request, values): return Expansion(cells(request, int(values['amount'])), 0)\n"
)


class Bench:
    """An engine with extensions, and what it recorded."""

    def __init__(self, root: Path) -> None:
        install_embedded(root)
        self.records: list[SavedPicture] = []
        self.paths = Paths.under(root)
        self.paths.make_folders()
        self.host = host_of(root)
        settings = changed(Settings(), {"device.precision": "fp32"})
        self.engine = Engine(settings, self.paths, save_hook=self._record, extensions=self.host)

    def _record(self, picture: SavedPicture):  # type: ignore[no-untyped-def]
        from contextlib import nullcontext

        self.records.append(picture)
        return nullcontext()

    def run(self, **fields: object) -> Run:
        return run(self.engine, **{"steps": 2, **fields})


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    root = tmp_path_factory.mktemp("extended")
    write_extension(root, "shift", STEP, asks="step")
    write_extension(root, "negative", DECODED, asks="decoded")
    write_extension(root, "reseed", PARAMS, asks="params")
    write_extension(root, "polish", POLISH, asks="params")
    write_extension(root, "noted", NOTED, asks="saved")
    write_extension(root, "series", SERIES, asks="expand")
    write_extension(root, "rounds", ROUNDS, asks="expand")
    write_extension(root, "broken-step", FAILING_STEP, asks="step")
    made = Bench(root)
    yield made
    made.engine.close()


def test_a_job_that_names_no_extension_is_what_it_is_without_any(bench: Bench, engine: Engine) -> None:
    assert bench.run().digests == run(engine, steps=2).digests


def test_a_step_hook_changes_the_picture_by_its_value_and_the_same_value_gives_the_same_picture(bench: Bench) -> None:
    plain = bench.run().digests
    assert bench.run(extensions={"shift": {"amount": 0.0}}).digests == plain
    changed_once = bench.run(extensions={"shift": {"amount": 0.5}})
    assert changed_once.digests != plain
    assert bench.run(extensions={"shift": {"amount": 0.5}}).digests == changed_once.digests
    assert bench.run().digests == plain
    assert '"shift' in changed_once.images[0].infotext.replace("\\", "")


def test_a_hook_sees_every_picture_once_it_is_decoded(bench: Bench) -> None:
    plain, negative = bench.run(batch_size=2), bench.run(batch_size=2, extensions={"negative": {}})
    for before, after in zip(plain.images, negative.images, strict=True):
        assert np.array_equal(pixels_of(after), 255 - pixels_of(before))


def test_a_job_can_be_rewritten_and_what_is_recorded_makes_the_same_picture_again(bench: Bench) -> None:
    rewritten = bench.run(extensions={"reseed": {"amount": 3}})
    recorded = bench.records[-1].params
    assert recorded.seed == 10
    assert recorded.extension_values == {}
    assert rewritten.digests == bench.run(seed=10).digests


def test_a_rewriting_is_done_once_with_a_script_and_never_by_a_replay(bench: Bench) -> None:
    made = bench.run(extensions={"polish": {}})
    recorded = bench.records[-1].params
    assert (recorded.prompt.count("masterpiece"), recorded.extension_values) == (1, {})
    assert run(bench.engine, **recorded.model_dump()).digests == made.digests
    bench.records.clear()
    bench.run(extensions={"polish": {}, "series": {"amount": 1}})
    assert [one.params.prompt.count("masterpiece") for one in bench.records] == [1, 1]


def test_an_extension_is_told_of_pictures_and_of_sheets(bench: Bench) -> None:
    images = bench.run(seed=77, extensions={"series": {"amount": 1}}).images
    told = (bench.paths.extensions[0] / "noted" / "saved.txt").read_text().split("\n")
    assert {image.path for image in images} <= set(told)


def test_a_failing_step_hook_leaves_the_picture_as_it_would_have_been_and_is_told(bench: Bench) -> None:
    plain = bench.run().digests
    failing = bench.run(extensions={"broken-step": {}})
    assert failing.digests == plain
    assert any("broken-step failed in step" in warning.text for warning in failing.warnings)
    assert any("switched off" in warning.text for warning in failing.warnings)
    assert bench.run(extensions={"broken-step": {}}).digests == plain
    [report] = failing.of(Extensions)
    assert report.report["off"].keys() == {"broken-step"}


def test_a_job_with_values_of_an_extension_that_is_not_here_is_refused(bench: Bench) -> None:
    error = bench.run(extensions={"shfit": {"amount": 1.0}}).error
    assert error["error"] == "InvalidParams"
    assert '"shift"' in error["advice"]


def test_cells_are_pictures_of_their_own_and_a_sheet_is_one_of_the_whole_job(bench: Bench) -> None:
    bench.records.clear()
    result = bench.run(extensions={"series": {"amount": 3}})
    assert [image.index for image in result.images] == [0, 1, 2, 3]
    assert [image.seed for image in result.images] == [7, 8, 9, 7]
    for offset in range(3):
        assert result.digests[offset] == bench.run(seed=7 + offset).digests[0]
    cells, sheet = bench.records[:3], bench.records[3]
    assert all(cell.params.extension_values == {} for cell in cells)
    assert sheet.index == WHOLE_JOB
    assert sheet.params.extension_values == {"series": {"amount": 3.0}}
    assert sheet.models == cells[0].models
    assert (sheet.width, sheet.height) == (48, 16)
    assert "txt2img-grids" in sheet.path.parts
    assert "Script: Series" in result.images[3].infotext
    assert result.started.pictures == 3
    assert result.finished.pictures == 4
    assert [step.batch for step in result.steps] == [1, 1, 2, 2, 3, 3]
    assert {step.batches for step in result.steps} == {3}


def test_the_same_request_makes_the_same_sheet_so_a_replay_of_it_is_exact(bench: Bench) -> None:
    first, second = (bench.run(extensions={"series": {"amount": 2}}) for _ in range(2))
    assert first.digests == second.digests
    params = make_params({"extensions": {"series": {"amount": 2}}, "batch_count": 3})
    assert params.single(WHOLE_JOB) == params


def test_an_interrupted_job_of_cells_goes_on_where_it_ended_when_it_is_queued_again(bench: Bench) -> None:
    def stop(event: Event, control: Control) -> None:
        if isinstance(event, Image) and event.index == 1:
            control.interrupt()

    fields = {"extensions": {"series": {"amount": 4}}, "seed": 40, "steps": 2}
    cut = run_until(bench.engine, stop, **fields)
    assert cut.finished.interrupted
    assert [image.seed for image in cut.images] == [40, 41, 40]  # two cells, and the sheet of them
    bench.records.clear()
    whole = bench.run(**fields)
    assert [image.seed for image in whole.images] == [40, 41, 42, 43, 40]
    assert [image.path for image in whole.images[:2]] == [image.path for image in cut.images[:2]]
    assert len(bench.records) == 3  # two cells that were missing, and the whole sheet
    bench.records.clear()
    bench.run(**fields)
    assert len(bench.records) == 5  # it was complete, so there was nothing to resume


def test_a_finished_cell_whose_file_is_gone_is_made_again(bench: Bench) -> None:
    def stop(event: Event, control: Control) -> None:
        if isinstance(event, Image) and event.index == 0:
            Path(event.path).unlink()
            control.interrupt()

    fields = {"extensions": {"series": {"amount": 2}}, "seed": 60, "steps": 2}
    run_until(bench.engine, stop, **fields)
    whole = bench.run(**fields)
    assert [image.seed for image in whole.images] == [60, 61, 60]
    assert Path(whole.images[0].path).is_file()


def test_a_skip_while_the_checkpoint_of_a_cell_loads_skips_that_cell_and_no_more(tmp_path: Path) -> None:
    """Its checkpoint is not in memory yet, so the first cell loads it."""
    skips: list[Event] = []

    def skip_once(event: Event, control: Control) -> None:
        if isinstance(event, Loading) and not skips:
            skips.append(event)
            control.skip()

    write_extension(tmp_path, "series", SERIES, asks="expand")
    bench = Bench(tmp_path)
    try:
        done = run_until(bench.engine, skip_once, extensions={"series": {"amount": 3}})
    finally:
        bench.engine.close()
    assert skips
    assert [image.seed for image in done.images] == [8, 9, 7]  # two cells, and the sheet
    assert not done.finished.interrupted


def test_a_script_whose_only_cell_is_skipped_ends_without_pictures_and_is_no_failure(bench: Bench) -> None:
    def skip(event: Event, control: Control) -> None:
        if isinstance(event, Started):
            control.skip()

    done = run_until(bench.engine, skip, extensions={"rounds": {"amount": 1}}, seed=70)
    assert (done.finished.pictures, done.finished.interrupted) == (0, False)


def test_a_skip_that_comes_while_a_cell_is_saved_does_not_reach_the_next_one(bench: Bench) -> None:
    def skip(event: Event, control: Control) -> None:
        if isinstance(event, Image) and event.index == 0:
            control.skip()

    done = run_until(bench.engine, skip, extensions={"series": {"amount": 2}}, seed=72)
    assert [image.seed for image in done.images] == [72, 73, 72]
    assert not any("Stopped at step" in image.infotext for image in done.images)


def test_an_interrupt_after_the_last_cell_leaves_a_complete_job(bench: Bench) -> None:
    def stop(event: Event, control: Control) -> None:
        if isinstance(event, Image) and event.index == 1:
            control.interrupt()

    fields: dict[str, Any] = {"extensions": {"series": {"amount": 2}}, "seed": 80, "steps": 2}
    done = run_until(bench.engine, stop, **fields)
    assert [image.seed for image in done.images] == [80, 81, 80]
    assert not done.finished.interrupted
    assert not Ledger.of(bench.paths.cache_dir, make_params({"prompt": "a red apple", **fields}))._path.exists()
    assert {image.path for image in bench.run(**fields).images}.isdisjoint(image.path for image in done.images)


def test_the_time_left_of_a_resumed_job_is_reckoned_with_what_is_made_now(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock of its own: a step takes a second, and looking a finished cell up takes a hundred."""

    def stop(event: Event, control: Control) -> None:
        if isinstance(event, Image) and event.index == 1:
            control.interrupt()

    fields: dict[str, Any] = {"extensions": {"series": {"amount": 4}}, "seed": 90, "steps": 2}
    run_until(bench.engine, stop, **fields)
    now = [0.0]
    call, find = denoise.UnetEvaluator.__call__, Ledger.find

    def slow_call(self: Any, *arguments: Any) -> Any:
        now[0] += 1
        return call(self, *arguments)

    def slow_find(self: Ledger, *arguments: Any) -> Any:
        found = find(self, *arguments)
        now[0] += 100 if found else 0
        return found

    monkeypatch.setattr(denoise.UnetEvaluator, "__call__", slow_call)
    monkeypatch.setattr(Ledger, "find", slow_find)
    monkeypatch.setattr(expansion, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    resumed = bench.run(**fields)
    assert [step.batch for step in resumed.steps] == [3, 3, 4, 4]
    assert [step.seconds_left for step in resumed.steps] == pytest.approx([3, 2, 1, 0])


def test_a_users_job_goes_on_where_it_ended_and_nobody_elses(bench: Bench) -> None:
    params = make_params({"prompt": "a red apple", "steps": 2, "seed": 95, "extensions": {"series": {"amount": 2}}})
    control = Control()
    first: list[Image] = []
    for event in bench.engine.generate(params, control, user="ann"):
        if isinstance(event, Image):
            first.append(event)
            control.interrupt()
    assert [image.seed for image in first] == [95, 95]  # a cell, and the sheet of what was made

    def paths_of(user: str) -> list[str]:
        return [event.path for event in bench.engine.generate(params, user=user) if isinstance(event, Image)]

    assert first[0].path not in paths_of("bob")
    assert paths_of("ann")[0] == first[0].path


def test_drafts_are_shown_in_place_of_the_pictures_in_the_making(bench: Bench) -> None:
    result = bench.run(extensions={"series": {"amount": 2}})
    drafts = [preview for preview in result.of(Preview) if preview.step == 0]
    assert len(drafts) == 2
    after = result.events.index(drafts[0])
    assert all(event.step == 0 for event in result.events[after:] if isinstance(event, Preview))


def test_a_cell_that_fails_is_told_and_the_others_are_made(tmp_path: Path) -> None:
    code = SERIES.replace(
        "request.changed(seed=request.seed + i, steps=2)",
        "request.changed(seed=request.seed + i, steps=2, **[{'faces': {}}, {'checkpoint': 'no such file'}, {}][i])",
    )
    write_extension(tmp_path, "series", code, asks="expand")
    bench = Bench(tmp_path)
    try:
        result = bench.run(extensions={"series": {"amount": 3}})
    finally:
        bench.engine.close()
    assert [image.seed for image in result.images] == [7, 9, 7]
    assert any("cell 1" in warning.text and "no such file" in warning.text for warning in result.warnings)
    unrestored = [warning.text for warning in result.warnings if warning.code == "faces"]
    assert len(unrestored) == 1
    assert "no effect: There is no face restoration model. Put a" in unrestored[0]
    assert EMBEDDED_CHECKPOINT.is_file()


def test_a_script_that_fails_half_way_keeps_what_it_made_and_says_so(tmp_path: Path) -> None:
    code = SERIES.replace("        made += result.pictures\n", "        1 / i\n        made += result.pictures\n")
    write_extension(tmp_path, "series", code.replace("range(count)", "range(1, -1, -1)"), asks="expand")
    bench = Bench(tmp_path)
    try:
        result = bench.run(extensions={"series": {"amount": 2}})
    finally:
        bench.engine.close()
    assert len(result.images) == 2
    assert any("series failed in expand (ZeroDivisionError" in warning.text for warning in result.warnings)


def test_an_upscaler_and_a_preprocessor_of_an_extension_work_on_pictures(tmp_path: Path) -> None:
    import io

    from PIL import Image as PillowImage

    from webui.inputs import InputStore

    grey = HOOK + (
        "from PIL import Image\n"
        "@hookimpl\n"
        "def preprocess(picture, values): return Image.new('RGB', picture.size, (int(values['amount']),) * 3)\n"
    )
    write_extension(tmp_path, "grey", grey, asks="preprocess")
    quarter = HOOK + "@hookimpl\ndef upscalers(): return {'Flat': lambda p, size: p.resize((1, 1)).resize((9, 9))}\n"
    write_extension(tmp_path, "flat", quarter, asks="upscalers", more='[[upscalers]]\nname = "Flat"\n')
    bench = Bench(tmp_path)
    buffer = io.BytesIO()
    PillowImage.new("RGB", (64, 64), (200, 30, 30)).save(buffer, "PNG")
    image = InputStore(bench.paths.outputs).add(buffer.getvalue()).reference
    keep = {"width": 64, "height": 64, "init": {"image": image, "denoising_strength": 0.0}}
    try:
        red = pixels_of(bench.run(**keep).images[0]).mean(axis=(0, 1))
        grey_pixels = pixels_of(bench.run(**keep, extensions={"grey": {"amount": 100.0}}).images[0]).mean(axis=(0, 1))
        tiled = bench.run(**keep, sd_upscale={"overlap": 8, "scale": 1.0}, extensions={"grey": {"amount": 100.0}})
        tiles = pixels_of(tiled.images[0]).mean(axis=(0, 1))
        flat = pixels_of(bench.run(extras={"image": image, "upscaler": "flat", "scale": 2.0}).images[0])
    finally:
        bench.engine.close()
        PIXEL_UPSCALERS.remove("Flat")
    assert red[0] - red[2] > 60
    assert abs(grey_pixels[0] - grey_pixels[2]) < 40
    assert abs(tiles[0] - tiles[2]) < 40
    assert flat.shape == (128, 128, 3)
    assert np.unique(flat.reshape(-1, 3), axis=0).shape[0] == 1


@pytest.mark.parametrize("answer", ["5", "{'Mine': 5}"])
def test_an_answer_that_holds_no_functions_is_a_failure_of_its_extension_alone(tmp_path: Path, answer: str) -> None:
    more = '[[upscalers]]\nname = "Mine"\n'
    code = HOOK + f"@hookimpl\ndef upscalers(): return {answer}\n"
    write_extension(tmp_path, "mine", code, asks="upscalers", more=more)
    host = host_of(tmp_path)
    try:
        register_functions(host, Mock())
    finally:
        PIXEL_UPSCALERS.remove("Mine")
    assert "mine failed in upscalers (TypeError" in host.take_notices()[0]


def test_samplers_and_schedules_of_an_extension_are_chosen_by_name(tmp_path: Path) -> None:
    """In a process of its own: names that are made known stay known."""
    import subprocess
    import sys

    more = (
        '[[samplers]]\nname = "Half Euler"\naliases = ["half_euler"]\n'
        '[[schedules]]\nname = "Straight"\nalias = "straight"\n'
    )
    code = HOOK + (
        "def half(model, x, sigmas, report):\n"
        "    for i, (a, b) in enumerate(zip(sigmas, sigmas[1:])):\n"
        "        denoised = model(x, a)\n"
        "        x = denoised + (x - denoised) * (b / a)\n"
        "        report(i, a, b, x, denoised)\n"
        "    return x\n"
        "@hookimpl\n"
        "def samplers(): return {'Half Euler': half}\n"
        "@hookimpl\n"
        "def schedules(): return {'Straight': lambda n, low, high: [high + (low - high) * i / n for i in range(n)]}\n"
    )
    write_extension(tmp_path, "own", code, asks="samplers schedules", more=more)
    script = (
        "import sys\nfrom pathlib import Path\n"
        "sys.path[:0] = ['tests', 'tests/engine']\n"
        "from engine_runs import run\n"
        "from test_engine_extensions import Bench\n"
        f"bench = Bench(Path({str(tmp_path)!r}))\n"
        "own = run(bench.engine, sampler='half_euler', schedule='straight', steps=3)\n"
        "print(own.digests[0], own.images[0].infotext.count('Sampler: Half Euler, Schedule type: Straight'))\n"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split()[-1] == "1"
