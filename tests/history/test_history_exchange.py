"""Taking pictures in from other programs, and the history out and in as JSON lines."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from history_studio import Studio, draw, ids
from hypothesis import given
from hypothesis import strategies as st
from PIL import PngImagePlugin

from webui.errors import InvalidParams, WebUIError
from webui.history import History
from webui.history.importer import ImportProgress
from webui.history.records import Record, State, checked, from_line, to_line
from webui.history.replay import exact_params
from webui.paths import Paths
from webui.provenance import UsedModel

A1111 = """masterpiece, castle on a hill <lora:filmgrain:0.8>
Negative prompt: EasyNegative
Steps: 30, Sampler: DPM++ 2M SDE, Schedule type: Exponential, CFG scale: 6, Seed: 12345, Size: 64x48, \
Model hash: 31e35c80fc, Model: sd_xl_base_1.0, VAE hash: 235745af8d, VAE: sdxl_vae.safetensors, Clip skip: 2, \
Lora hashes: "filmgrain: 63cabf0b2a0d", TI hashes: "EasyNegative: 66a7279a88dd", Version: v1.9.4"""
FORGE = """forge castle
Steps: 20, Sampler: Euler, Schedule type: Simple, CFG scale: 1, Distilled CFG Scale: 3.5, Seed: 77, Size: 64x48, \
Model hash: c161224931, Model: flux1-dev, Version: f2.0.1v1.10.1, Module 1: ae"""
COMFYUI = {
    "3": {
        "class_type": "KSampler",
        "inputs": {
            "seed": 156680208700286, "steps": 22, "cfg": 8.0, "sampler_name": "dpmpp_2m", "scheduler": "karras",
            "denoise": 1.0, "model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0],
        },
    },
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "v1-5-pruned-emaonly.ckpt"}},
    "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 48, "batch_size": 1}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "comfy castle", "clip": ["4", 1]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "comfy fog", "clip": ["4", 1]}},
    "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
    "9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "ComfyUI", "images": ["8", 0]}},
}  # fmt: skip
INVOKEAI = {
    "app_version": "4.2.9", "generation_mode": "txt2img", "positive_prompt": "invoke castle",
    "negative_prompt": "invoke fog", "width": 64, "height": 48, "seed": 4242, "rand_device": "cpu", "cfg_scale": 7.5,
    "steps": 25, "scheduler": "euler_a",
    "model": {"key": "x", "hash": "blake3:00", "name": "dreamshaper-8", "base": "sd-1", "type": "main"},
}  # fmt: skip
FOOOCUS = {
    "adaptive_cfg": 7, "base_model": "juggernautXL_v8Rundiffusion", "base_model_hash": "aeb7e9e689", "clip_skip": 2,
    "created_by": "", "guidance_scale": 4.0, "loras": [["sd_xl_offset_example-lora_1.0", 0.1, "4852686128"]],
    "metadata_scheme": "fooocus", "negative_prompt": "fooocus fog", "performance": "Speed", "prompt": "fooocus castle",
    "resolution": "(64, 48)", "sampler": "dpmpp_2m_sde_gpu", "scheduler": "karras", "seed": "987", "sharpness": 2.0,
    "steps": 30, "styles": "[]", "vae": "Default (model)", "version": "Fooocus v2.5.5",
}  # fmt: skip


def picture(path: Path, **chunks: str) -> Path:
    """A PNG with these text chunks."""
    texts = PngImagePlugin.PngInfo()
    for key, value in chunks.items():
        texts.add_text(key, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    draw(len(path.name)).save(path, pnginfo=texts)
    return path


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """The outputs of five programs, side by side."""
    root = tmp_path / "others"
    picture(root / "a1111" / "00001-12345.png", parameters=A1111)
    picture(root / "forge" / "00001-77.png", parameters=FORGE)
    picture(root / "ComfyUI" / "ComfyUI_00001_.png", prompt=json.dumps(COMFYUI), workflow='{"nodes": []}')
    picture(root / "invokeai" / "b7.png", invokeai_metadata=json.dumps(INVOKEAI))
    picture(root / "fooocus" / "2024.png", parameters=json.dumps(FOOOCUS), fooocus_scheme="fooocus")
    return root


# --- folders ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "search", "facts"),
    [
        ("A1111", "masterpiece", ("EasyNegative", 12345, 30, "DPM++ 2M SDE", "sd_xl_base_1.0", "31e35c80fc")),
        ("Forge", "forge", ("", 77, 20, "Euler", "flux1-dev", "c161224931")),
        ("ComfyUI", "comfy", ("comfy fog", 156680208700286, 22, "DPM++ 2M", "v1-5-pruned-emaonly", "")),
        ("InvokeAI", "invoke", ("invoke fog", 4242, 25, "Euler a", "dreamshaper-8", "")),
        ("Fooocus", "fooocus", ("fooocus fog", 987, 30, "DPM++ 2M SDE", "juggernautXL_v8Rundiffusion", "aeb7e9e689")),
    ],
)
def test_a_folder_of_each_program_is_taken_in_by_its_metadata(
    source: str, search: str, facts: tuple[Any, ...], foreign: Path, history: History
) -> None:
    result = history.import_folder(foreign, user="")
    assert (result.found, result.added, result.known, result.refused) == (5, 5, 0, 0)
    [picture_id] = ids(history, search)
    record = history.get("", picture_id).record
    assert record.source == source
    assert record.checkpoint is not None
    found = (record.negative_prompt, record.seed, record.steps, record.sampler)
    assert (*found, record.checkpoint.name, record.checkpoint.sha256) == facts
    assert (record.width, record.height) == (64, 48)
    assert exact_params(record).seed == facts[1]
    assert history.thumbnail("", picture_id)[1]


def test_networks_and_the_vae_of_an_imported_picture_are_known(foreign: Path, history: History) -> None:
    history.import_folder(foreign / "a1111")
    record = history.get("", 1).record
    assert record.vae == UsedModel("vae", "sdxl_vae.safetensors", "235745af8d")
    assert UsedModel("lora", "filmgrain", "63cabf0b2a0d") in record.networks
    assert UsedModel("embedding", "EasyNegative", "66a7279a88dd") in record.networks
    assert ids(history, "lora:filmgrain vae:2357 model:xl_base is:imported") == [1]


def test_the_files_are_neither_copied_nor_changed_and_deleting_only_forgets_them(
    foreign: Path, history: History, studio: Studio
) -> None:
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in foreign.rglob("*.png")}
    history.import_folder(foreign)
    assert history.file("", 1) in before
    history.delete("", [1, 2])
    history.empty_trash("")
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in foreign.rglob("*.png")} == before
    assert not list(studio.paths.outputs.rglob("*.png"))


def test_an_import_that_was_broken_off_goes_on_and_a_second_one_adds_only_what_is_new(
    foreign: Path, history: History
) -> None:
    told: list[ImportProgress] = []
    halves = iter([False, False, True])
    first = history.import_folder(foreign, progress=told.append, stop=lambda: next(halves))
    assert (first.added, first.complete) == (2, False)
    second = history.import_folder(foreign, progress=told.append)
    assert (second.added, second.known, second.complete) == (3, 2, True)
    picture(foreign / "a1111" / "00002-9.png", parameters=A1111.replace("12345", "9"))
    third = history.import_folder(foreign)
    assert (third.added, third.known) == (1, 5)
    assert len(ids(history)) == 6
    assert (told[-1].done, told[-1].total, told[-1].added) == (5, 5, 3)


def test_imported_pictures_take_the_place_of_their_own_date(foreign: Path, history: History, studio: Studio) -> None:
    studio.save(seed=1)
    old = foreign / "a1111" / "00001-12345.png"
    os.utime(old, (1_000_000_000, 1_000_000_000))
    history.import_folder(foreign / "a1111")
    studio.save(seed=2)
    cards = history.page("").cards
    assert [card.seed for card in cards] == [2, 1, 12345]
    assert cards[-1].day == "2001-09-09"


def test_pictures_without_metadata_are_left_out_unless_they_are_wanted(tmp_path: Path, history: History) -> None:
    folder = tmp_path / "mixed"
    picture(folder / "photo.png")
    picture(folder / "made.png", parameters=A1111)
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    (folder / "notes.txt").write_text("x")
    result = history.import_folder(folder)
    assert (result.found, result.added, result.plain, result.refused) == (3, 1, 1, 1)
    assert result.unreadable[0].startswith("broken.png: ")
    again = history.import_folder(folder, everything=True)
    assert (again.added, again.known) == (1, 1)


def test_a_folder_inside_one_that_is_known_is_not_taken_in_twice(foreign: Path, history: History) -> None:
    history.import_folder(foreign)
    assert history.import_folder(foreign / "forge").known == 1
    assert len(ids(history)) == 5


def test_a_folder_inside_outputs_is_part_of_the_outputs(history: History, paths: Paths) -> None:
    picture(paths.outputs / "old" / "x.png", parameters=A1111)
    assert history.import_folder(paths.outputs / "old").added == 1
    assert history.reconcile().indexed == 0
    assert history.get("", 1).record.folder == ""


def test_a_picture_that_was_missing_is_found_by_the_next_import(foreign: Path, history: History) -> None:
    path = foreign / "forge" / "00001-77.png"
    history.import_folder(foreign / "forge")
    with history._database.write() as db:
        db.execute("UPDATE pictures SET state='missing'")
    assert history.import_folder(foreign / "forge").added == 0
    assert history.file("", 1) == path


@pytest.mark.parametrize("name", ["nothing", "a1111/00001-12345.png"])
def test_what_is_no_folder_is_refused(name: str, foreign: Path, history: History) -> None:
    with pytest.raises(InvalidParams):
        history.import_folder(foreign / name)


# --- JSON lines ------------------------------------------------------------------------------------------------------


def test_what_was_exported_and_imported_again_is_the_same_history(
    studio: Studio, history: History, tmp_path: Path
) -> None:
    for seed in range(3):
        studio.save_for("anna" if seed == 1 else "", seed=seed, prompt=f"castle {seed}")
    history.set_favourite(None, [2], True)
    history.change_tags(None, [2], add=["best"])
    history.set_notes(None, 3, "print")
    history.link(None, "job-later", 1, "variation", {"seed": 9})
    list(studio.recorder.following((studio.save(seed=9) and None for _ in range(1)), job="job-later"))  # type: ignore[misc]
    history.delete(None, [1])
    history.restore(None, [1])
    lines = list(history.export(None))
    assert all(line.endswith("\n") for line in lines)
    other_paths = Paths.under(tmp_path / "other")
    other_paths.make_folders()
    other = History(other_paths)
    result = other.import_lines(None, lines)
    assert (result.added, result.known, result.refused) == (4, 0, 0)
    for card in history.page(None).cards:
        mine, theirs = history.get(None, card.id).record, other.get(None, card.id).record
        assert theirs.state is State.missing  # the files are not part of it
        assert mine == Record(**{**{f: getattr(theirs, f) for f in Record.__dataclass_fields__}, "state": mine.state})
    assert [card.cursor for card in history.page(None).cards] == [card.cursor for card in other.page(None).cards]
    again = other.import_lines(None, lines)
    assert (again.added, again.known) == (0, 4)
    other.stop()


def test_an_import_adds_marks_to_what_is_there(studio: Studio, history: History) -> None:
    studio.save(seed=1)
    [line] = history.export(None)
    data = {**json.loads(line), "favourite": True, "tags": ["x"], "notes": "from the backup"}
    assert history.import_lines(None, [json.dumps(data)]).known == 1
    record = history.get("", 1).record
    assert (record.favourite, record.tags, record.notes) == (True, ("x",), "from the backup")


def test_a_users_lines_become_that_users_and_claim_no_file(studio: Studio, history: History) -> None:
    path = studio.save_for("anna", seed=1)
    [line] = history.export(None)
    result = history.import_lines("ben", [line])
    assert result.added == 1
    [mine] = ids(history, user="ben")
    record = history.get("ben", mine).record
    assert (record.user, record.path, record.state) == ("ben", None, State.missing)
    assert history.file("anna", 1) == path
    assert history.import_lines("ben", [line]).added == 0


def test_a_folder_in_a_line_is_believed_on_the_command_line_alone(
    foreign: Path, history: History, tmp_path: Path
) -> None:
    secret = tmp_path / "home" / "photo.png"
    picture(secret)
    line = json.dumps({"latent_history": 1, "folder": str(secret.parent), "path": "photo.png", "prompt": "mine"})
    for user in (None, "ben"):
        assert history.import_lines(user, [line]).added == 1
    for picture_id in ids(history, user=None):
        assert history.get(None, picture_id).record.folder == ""
        for call in (history.file, history.thumbnail):
            with pytest.raises(WebUIError):
                call(None, picture_id)
    history.import_folder(foreign / "forge")
    lines = list(history.export(None, "forge"))
    assert str(foreign) not in "".join(lines)
    assert str(foreign) in "".join(history.export(None, "forge", folders=True))
    other_paths = Paths.under(tmp_path / "other")
    other_paths.make_folders()
    other = History(other_paths)
    assert other.import_lines(None, history.export(None, "forge", folders=True), folders=True).added == 1
    assert other.file(None, ids(other)[0]) == foreign / "forge" / "00001-77.png"
    other.stop()


@pytest.mark.parametrize(
    "path", ["../../etc/passwd", "/etc/passwd", "a/../../x.png", "a\\b.png", "x\0.png", "", "line\nbreak.png"]
)
def test_a_line_never_leads_out_of_the_folder(path: str, history: History) -> None:
    line = json.dumps({"latent_history": 1, "path": path, "prompt": "x"})
    result = history.import_lines(None, [line])
    assert (result.added, result.refused) == (0, 1)
    assert "path" in result.problems[0]


@pytest.mark.parametrize(
    "line",
    [
        "not json", "[]", "{}", '{"latent_history": 2}', '{"latent_history": 1, "state": "writing"}', "null",
        "[" * 100_000, '{"latent_history": 1, "path": "' + "x" * 2_000_000 + '"}',
    ],
)  # fmt: skip
def test_a_line_that_is_no_record_is_named_and_passed_over(line: str, history: History) -> None:
    result = history.import_lines(None, ["", line, '{"latent_history": 1, "prompt": "fine"}'])
    assert (result.added, result.refused) == (1, 1)
    assert result.problems[0].startswith("Line 2: ")


def test_hostile_values_are_left_out(history: History) -> None:
    line = json.dumps(
        {
            "latent_history": 1, "prompt": 5, "seed": 2**70, "width": -4, "created": 1e300, "tags": "x", "steps": True,
            "cfg_scale": "7", "checkpoint": {"kind": "os", "name": "x"}, "thumbnail": "../../x", "position": -1,
            "environment": {"torch": 5, "device": "cpu"}, "favourite": 1, "user": "a\nb\x00", "parent": 77,
        }
    )  # fmt: skip
    assert history.import_lines(None, [line]).added == 1
    record = history.get(None, 1).record
    assert (record.prompt, record.seed, record.width, record.steps, record.cfg_scale) == ("", None, 0, None, None)
    assert (record.checkpoint, record.environment, record.favourite) == (None, {"device": "cpu"}, False)
    assert (record.user, record.parent, len(record.thumbnail)) == ("a\nb", None, 32)


@given(st.text(max_size=300))
def test_any_text_as_a_line_is_a_record_or_refused(text: str) -> None:
    try:
        record, _ = from_line(text)
    except WebUIError:
        return
    assert checked(record) == record


@given(
    st.builds(
        Record,
        prompt=st.text(max_size=50),
        notes=st.text(max_size=50),
        seed=st.none() | st.integers(-1, 2**63 - 1),
        cfg_scale=st.none() | st.floats(0, 100),
        tags=st.lists(st.text(max_size=20), max_size=4).map(tuple),
        created=st.floats(0, 1e11),
        path=st.none() | st.just("a/b.png"),
        favourite=st.booleans(),
        networks=st.lists(st.builds(UsedModel, st.just("lora"), st.text(min_size=1, max_size=9)), max_size=3).map(
            tuple
        ),
    )
)
def test_a_checked_record_survives_its_line(record: Record) -> None:
    clean = checked(record)
    assert from_line(to_line(clean, 5)) == (clean, 5)
