"""Extensions in the real page: panels, a plot that grows, its cells, presets, and switching one off."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from running_server import RunningServer
from steps import Late, focused, frames, generate, press, set_values, shown_picture, wait_for, wait_for_end

# the middle of a cell of the shown grid, in the picture's element
CELL = r"""([column, row]) => {
  const image = document.querySelector('#stage img[data-part=image]'), box = image.getBoundingClientRect();
  const layout = /Grid layout: (\d+)x(\d+) of (\d+)x(\d+) at (\d+)\+(\d+) margin (\d+)/;
  const [, , w, h, left, top, margin] = latent.stage.picture().infotext.match(layout).slice(1).map(Number);
  const scale = Math.min(box.width / image.naturalWidth, box.height / image.naturalHeight);
  return [(box.width - image.naturalWidth * scale) / 2 + (left + (column + 0.5) * (w + margin)) * scale,
          (box.height - image.naturalHeight * scale) / 2 + (top + (row + 0.5) * (h + margin)) * scale];
}"""


def reset(page: Any) -> None:
    page.evaluate("latent.form.reset(latent.form.spec.keys.filter((name) => name !== 'prompt'))")
    wait_for(page, "!latent.form.values.extensions")


def test_a_plot_of_two_axes_ends_with_its_grid_and_a_cell_shows_its_own_parameters(page: Any) -> None:
    reset(page)
    set_values(page, seed="5", steps=2)
    page.get_by_label("Script", exact=True).select_option("xyz-plot")
    page.get_by_label("X type").select_option("Steps")
    page.get_by_label("X values").fill("2, 3")
    page.get_by_label("Y type").select_option("Seed")
    page.get_by_label("Y values").fill("8, 9")
    page.get_by_label("Y values").blur()
    wait_for(page, "latent.panels.values()['xyz-plot']?.y_values === '8, 9'")
    view = wait_for_end(page, generate(page))
    assert [image["seed"] for image in view["images"]] == [8, 8, 9, 9, 5]
    assert "/txt2img-grids/" in shown_picture(page)
    text = page.locator("#stage pre")
    assert "Script: X/Y/Z plot" in text.inner_text()
    # the second column of the second row: 3 steps, seed 9
    place = page.evaluate(CELL, [1, 1])
    page.locator("#stage img[data-part=image]").click(position={"x": place[0], "y": place[1]})
    wait_for(page, "latent.stage.picture().index === 3")
    assert "Steps: 3, " in text.inner_text()
    assert "Seed: 9, " in text.inner_text()
    wait_for(page, "latent.stage.picture().params.seed === 9")
    page.get_by_role("button", name="Reuse parameters").click()
    wait_for(page, "latent.form.values.seed === '9' && latent.form.values.steps === 3")
    assert page.evaluate("latent.form.values.extensions") == ""
    assert page.get_by_label("Script", exact=True).input_value() == ""


def test_a_panel_changes_the_picture_survives_a_reload_and_comes_back_with_reuse(pages: Any) -> None:
    context = pages.context()
    page = pages.open(context)
    reset(page)
    set_values(page, seed="5", steps=3)
    plain = wait_for_end(page, generate(page))["images"][0]
    page.get_by_role("switch", name="Detail").check()
    page.get_by_label("Amount").fill("0.8")
    page.get_by_label("Amount").blur()
    wait_for(page, "latent.panels.values().detail?.amount === 0.8")
    changed = wait_for_end(page, generate(page))["images"][0]
    assert '"amount\\": 0.8' in changed["infotext"]
    assert changed["infotext"] != plain["infotext"]
    page.wait_for_timeout(300)  # the form keeps itself with a delay
    page.reload()
    wait_for(page, "document.documentElement?.dataset.ready === 'true' && latent.form.ready")
    assert page.get_by_label("Amount").input_value() == "0.8"
    reset(page)
    assert page.get_by_label("Amount").count() == 0


def test_two_values_that_are_typed_one_after_the_other_are_both_kept(page: Any) -> None:
    reset(page)
    page.get_by_label("Script", exact=True).select_option("xyz-plot")
    page.get_by_label("X values").wait_for()
    page.evaluate(
        """() => { for (const [key, value] of [['x_values', '2, 3'], ['y_values', '8, 9']]) {
          const input = document.querySelector(`#panel-xyz-plot-${key}`);
          input.value = value;
          input.dispatchEvent(new Event('input'));
        } }"""
    )
    wait_for(page, "latent.panels.values()['xyz-plot'].y_values === '8, 9'")
    assert page.evaluate("latent.panels.values()['xyz-plot'].x_values") == "2, 3"


def test_a_panel_that_is_switched_on_takes_nothing_that_is_typed_into_another(page: Any) -> None:
    reset(page)
    page.get_by_label("Script", exact=True).select_option("xyz-plot")
    page.get_by_label("X values").wait_for()
    page.evaluate(
        """() => { document.querySelector('#panel-on-detail').click();
        document.querySelector('#panel-xyz-plot-x_values').focus();
        document.execCommand('insertText', false, '2, '); }"""
    )
    page.get_by_label("Amount").wait_for()
    wait_for(page, "latent.form.values.extensions.includes('detail')")
    frames(page)
    page.keyboard.type("3")
    assert page.get_by_label("X values").input_value() == "2, 3"


@pytest.mark.parametrize(
    ("script", "fields", "prompt", "pictures"),
    [
        ("prompt-matrix", {}, "a red apple | a tree", 3),
        ("prompts-from-file", {"Prompts": "a dog\n--prompt a cat --seed 4"}, "", 2),
        ("loopback", {"Loops": "2"}, "a red apple", 3),
        ("dynamic-prompts", {}, "a {red|blue} apple", 2),
        ("generate-forever", {"Stop after": "2"}, "a red apple", 2),
    ],
)
def test_every_script_runs_from_its_panel(
    page: Any, script: str, fields: dict[str, str], prompt: str, pictures: int
) -> None:
    reset(page)
    set_values(page, seed="5", steps=2, prompt=prompt)
    page.get_by_label("Script", exact=True).select_option(script)
    for label, value in fields.items():
        page.get_by_label(label, exact=True).fill(value)
        page.get_by_label(label, exact=True).blur()
    wait_for(page, "name => name in latent.panels.values()", arg=script)
    view = wait_for_end(page, generate(page))
    assert len(view["images"]) == pictures
    assert [warning for warning in view["warnings"] if warning["code"] in ("extension", "cell")] == []


def test_a_preset_is_taken_undone_kept_and_deleted(page: Any) -> None:
    reset(page)
    page.get_by_role("button", name="Presets").click()
    box = page.get_by_role("dialog", name="Presets")
    box.get_by_role("button", name="Quality").click()
    wait_for(page, "latent.form.values.steps === 35 && latent.form.values.sampler === 'DPM++ 2M SDE'")
    page.get_by_role("button", name="Undo").click()
    wait_for(page, "latent.form.values.steps === 20")
    set_values(page, steps=11, **{"hires.on": True, "hires.scale": 1.5})
    page.get_by_role("button", name="Presets").click()
    box.get_by_label("Keep what differs").fill("Eleven")
    box.get_by_role("button", name="Save").click()
    box.get_by_role("button", name="Eleven").first.wait_for()
    set_values(page, steps=20, **{"hires.on": False, "hires.scale": 2})
    box.get_by_role("button", name="Eleven").first.click()
    wait_for(page, "latent.form.values['hires.on'] && latent.form.values['hires.scale'] === 1.5")
    page.get_by_role("button", name="Presets").click()
    box.get_by_role("button", name="Delete Eleven").click()
    box.get_by_role("button", name="Delete Eleven").wait_for(state="detached")


def test_a_late_list_of_presets_takes_neither_the_focus_nor_a_press(page: Any) -> None:
    reset(page)
    page.get_by_role("button", name="Presets").click()
    box = page.get_by_role("dialog", name="Presets")
    quality = box.get_by_role("button", name="Quality")
    quality.wait_for()
    for act in ("focus", "press"):
        page.keyboard.press("Escape")
        late = Late(page, "**/presets")
        page.get_by_role("button", name="Presets").click()
        late.wait()
        if act == "focus":
            quality.focus()
            late.come()
            assert focused(page).startswith("Quality")
        else:
            press(page, quality, late.come)
            wait_for(page, "latent.form.values.steps === 35", timeout=10_000)


def test_a_preset_from_a_file_keeps_every_digit_of_its_seed(page: Any, server: RunningServer) -> None:
    """2**53 + 1 is the first whole number that JavaScript does not hold."""
    reset(page)
    text = json.dumps({"Long": {"seed": 2**53 + 1, "steps": 12}})
    page.get_by_role("button", name="Presets").click()
    box = page.get_by_role("dialog", name="Presets")
    file = {"name": "presets.json", "mimeType": "application/json", "buffer": text.encode()}
    box.locator("input[type=file]").set_input_files(file)
    box.get_by_role("button", name="Long").first.wait_for()
    assert server.json("/extensions/presets/export") == json.loads(text)
    with page.expect_download() as download:
        box.get_by_role("button", name="Export").click()
    assert json.loads(Path(download.value.path()).read_text()) == json.loads(text)
    box.get_by_role("button", name="Long").first.click()
    wait_for(page, "latent.form.values.steps === 12")
    assert page.evaluate("latent.form.values.seed") == str(2**53 + 1)


def test_the_tab_lists_extensions_with_their_times_and_switching_one_off_takes_its_panel_away(
    page: Any, server: RunningServer
) -> None:
    page.get_by_role("tab", name="Extensions").click()
    entry = page.locator("[data-extension=loopback]")
    entry.get_by_text("Feeds each picture back").wait_for()
    try:
        entry.get_by_role("switch").uncheck()
        wait_for(page, "![...document.querySelectorAll('#script option')].some((o) => o.value === 'loopback')")
    finally:
        server.post("/extensions/loopback/enable")


def test_an_older_answer_never_switches_an_extension_back_and_the_focus_stays(page: Any, server: RunningServer) -> None:
    page.get_by_role("tab", name="Extensions").click()
    detail, loopback = (
        page.locator(f"[data-extension={name}]").get_by_role("switch") for name in ("detail", "loopback")
    )
    loopback.wait_for()
    try:
        late = Late(page, "**/extensions/loopback/disable")
        loopback.click()
        late.wait()
        with page.expect_response("**/panels"):
            detail.click()
        page.get_by_text("Detail is off.").wait_for()
        page.get_by_label("Script", exact=True).wait_for(state="attached")
        late.come()
        page.get_by_text("Loopback is off.").wait_for()
        assert (loopback.is_checked(), detail.is_checked()) == (False, False)
        assert page.evaluate("document.activeElement.id") == "extension-detail"
    finally:
        for name in ("loopback", "detail"):
            server.post(f"/extensions/{name}/enable")
