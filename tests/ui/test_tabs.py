"""What the tabs do before anything is drawn: submitting, settings, the page's head."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_form import values

from webui import settings as all_settings
from webui.errors import QueueFull
from webui.settings import ImageFormat, Settings, SettingsStore
from webui.ui.making import EXAMPLES, submit_values
from webui.ui.markup import FOLDER, STATIC, markup
from webui.ui.page import script_json
from webui.ui.settings import WORDS, groups, save_entry


def test_generate_answers_with_the_jobs_id() -> None:
    seen: list[Any] = []
    settings = Settings()
    settings.saving.format = ImageFormat.webp
    answer = submit_values(lambda params: seen.append(params) or "job-1", settings, values(prompt="a fox"), 3)
    assert answer == {"n": 3, "job": "job-1"}
    assert seen[0].prompt == "a fox"
    assert seen[0].image_format == "webp"


def test_generate_answers_with_the_reason_when_the_job_is_refused() -> None:
    def full(params: Any) -> str:
        raise QueueFull("The queue is full.", "Wait.")

    assert submit_values(full, Settings(), values(), 1)["error"]["message"] == "The queue is full."
    assert "seed" in submit_values(full, Settings(), values(seed="x"), 2)["error"]["message"].lower()


def test_every_setting_is_on_the_page_with_words_of_its_own() -> None:
    shown = [entry for group in groups(Settings()) for entry in group["entries"]]
    assert [entry["key"] for entry in shown] == all_settings.keys()
    assert set(WORDS) == set(all_settings.keys())
    by_key = {entry["key"]: entry for entry in shown}
    assert by_key["device.precision"]["choices"] == ["auto", "fp16", "bf16", "fp32"]
    assert by_key["saving.quality"]["kind"] == "number"
    assert (by_key["saving.quality"]["low"], by_key["saving.quality"]["high"]) == (1, 100)
    assert by_key["preview.enabled"]["kind"] == "bool"
    assert by_key["server.port"]["effect"] == "restart"


def test_a_setting_is_saved_and_put_in_force(tmp_path: Path) -> None:
    store, applied = SettingsStore(Settings(), tmp_path / "config.yaml"), []
    assert save_entry(store, applied.append, {"key": "saving.quality", "value": 75.0}) == {"value": 75}
    assert store.current.saving.quality == 75
    assert applied[-1].saving.quality == 75
    assert all_settings.load(tmp_path / "config.yaml")[0].saving.quality == 75


@pytest.mark.parametrize(
    "data",
    [
        {"key": "saving.quality", "value": 500},
        {"key": "saving.quality", "value": 7.5},
        {"key": "saving.quality", "value": None},
        {"key": "preview.enabled", "value": "yes"},
        {"key": "device.precision", "value": "fp8"},
        {"key": "nothing", "value": 1},
        {"key": ["saving"], "value": 1},
        {"value": 1},
        "text",
        {"key": "model.vae", "value": "${oc.env:HOME}"},
        {"key": "model.vae", "value": {"a": 1}},
    ],
)
def test_an_impossible_value_is_told_at_the_field_and_nothing_is_saved(tmp_path: Path, data: Any) -> None:
    store, applied = SettingsStore(Settings(), tmp_path / "config.yaml"), []
    answer = save_entry(store, applied.append, data)
    assert answer["error"]
    assert applied == []
    assert store.current == Settings()
    assert not (tmp_path / "config.yaml").exists()


def test_what_the_command_line_set_is_not_written_to_the_file(tmp_path: Path) -> None:
    in_force = all_settings.changed(Settings(), {"device.use_cpu": True})
    store = SettingsStore(in_force, tmp_path / "config.yaml")
    store.change({"saving.quality": 60})
    assert store.current.device.use_cpu is True
    assert "use_cpu" not in (tmp_path / "config.yaml").read_text()


def test_no_name_can_break_out_of_the_pages_script() -> None:
    hostile = {"name": "</script><img src=x onerror=alert(1)><!--", "more": "\u2028&"}
    text = script_json(hostile)
    assert "<" not in text
    assert ">" not in text
    assert json.loads(text) == hostile


def test_every_icon_that_is_used_exists() -> None:
    import re

    sprite = (STATIC / "icons.svg").read_text()
    have = set(re.findall(r'<symbol id="([\w-]+)"', sprite))
    used = {name for file in FOLDER.glob("*.html") for name in re.findall(r"icons\.svg#([\w-]+)", file.read_text())}
    script = "".join(file.read_text() for file in STATIC.glob("*.js"))
    used |= set(re.findall(r'[bB]utton\([^,]+, "([\w-]+)"', script)) | set(re.findall(r'icon\("([\w-]+)"\)', script))
    assert used <= have
    assert have


def test_the_stylesheet_and_the_scripts_load_nothing_from_elsewhere() -> None:
    for file in (STATIC / "style.css", *STATIC.glob("*.js")):
        text = file.read_text().replace("http://www.w3.org", "")
        assert "http://" not in text, file.name
        assert "https://" not in text, file.name
    assert "@import" not in (STATIC / "style.css").read_text()


def test_user_text_is_never_made_into_markup() -> None:
    script = "\n".join(file.read_text() for file in STATIC.glob("*.js"))
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"):
        assert way not in script


def test_pieces_carry_no_unfilled_place() -> None:
    for file in FOLDER.glob("*.html"):
        assert "[[" not in markup(file.stem)


def test_examples_suit_both_kinds_of_checkpoint() -> None:
    assert "a red apple" in EXAMPLES["small"]
    assert all(6 <= len(prompts) <= 10 for prompts in EXAMPLES.values())
