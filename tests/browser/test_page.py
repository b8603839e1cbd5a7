"""The page itself: values that stay, tabs, phone, keyboard, hostile names."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from embedded import EMBEDDED_CHECKPOINT
from PIL import Image, PngImagePlugin
from running_server import RunningServer
from steps import (
    SLOW,
    Late,
    focused,
    frames,
    generate,
    press,
    ready,
    set_values,
    settled_box,
    until,
    wait_for,
    wait_for_end,
    wait_for_step,
)

pytestmark = pytest.mark.browser


def test_every_value_survives_a_reload_and_can_be_reset(page: Any) -> None:
    page.get_by_label("Prompt", exact=True).fill("kept prompt")
    page.get_by_label("number input for Sampling steps").fill("33")
    page.get_by_label("number input for Width").fill("256")
    page.get_by_label("number input for Width").press("Tab")
    page.locator("#f-sampler input").click()
    page.get_by_role("option", name="Euler a", exact=True).click()
    page.locator("#f-seed input").fill("9007199254740993")
    page.locator("#group-more > .label-wrap").click()
    page.get_by_label("CFG rescale").fill("0.7")
    expected = {
        "prompt": "kept prompt",
        "steps": 33,
        "width": 256,
        "sampler": "Euler a",
        "seed": "9007199254740993",
        "cfg_rescale": 0.7,
    }
    wait_for(page, "e => Object.entries(e).every(([k, v]) => latent.form.values[k] === v)", arg=expected)
    page.reload()
    ready(page)
    values = page.evaluate("latent.form.values")
    assert {key: values[key] for key in expected} == expected
    assert page.get_by_label("Prompt", exact=True).input_value() == "kept prompt"
    assert page.get_by_label("number input for Sampling steps").input_value() == "33"
    assert page.locator("#f-sampler input").input_value() == "Euler a"
    assert page.locator("#f-seed input").input_value() == "9007199254740993"

    page.get_by_role("button", name="Reset size").click()
    wait_for(page, "latent.form.values.width === 128 && latent.form.values.steps === 33")
    assert page.get_by_label("number input for Width").input_value() == "128"
    page.get_by_role("button", name="Reset all values").click()
    wait_for(page, "latent.form.values.steps === 20 && latent.form.values.prompt === ''")
    assert page.locator("#f-sampler input").input_value() == "DPM++ 2M"


def test_kept_values_that_are_no_longer_possible_fall_back(page: Any) -> None:
    page.evaluate(
        """() => { latent.form.ready = false; clearTimeout(latent.form.saving);
        localStorage.setItem('latent.form', JSON.stringify({
        checkpoint: 'gone.safetensors', vae: 'gone.pt', sampler: 'Gone', steps: 'many', width: 100000, cfg_scale: null,
        prompt: 'still here', seed: 'x', pad_conds: 3, nothing: 1 })); }"""
    )
    page.reload()
    ready(page)
    values = page.evaluate("latent.form.values")
    assert values["prompt"] == "still here"
    assert values["checkpoint"] == EMBEDDED_CHECKPOINT.name
    assert (values["vae"], values["sampler"], values["steps"], values["width"]) == ("Automatic", "DPM++ 2M", 20, 2048)
    page.evaluate(
        "clearTimeout(latent.form.saving); localStorage.setItem('latent.form', 'no json {');latent.form.ready = false"
    )
    page.reload()
    ready(page)
    assert page.evaluate("latent.form.values.steps") == 20


def test_swap_dice_and_native_size(page: Any) -> None:
    set_values(page, width=256, height=64, seed="5")
    page.get_by_role("button", name="Swap width and height").click()
    wait_for(page, "latent.form.values.width === 64 && latent.form.values.height === 256")
    page.get_by_role("button", name="Random seed").click()
    wait_for(page, "latent.form.values.seed === '-1'")
    page.get_by_role("button", name="Native size of the checkpoint").click()
    wait_for(page, "latent.form.values.width === 128 && latent.form.values.height === 128")


def test_the_size_follows_the_checkpoint_until_the_user_sets_it(page: Any) -> None:
    page.evaluate(
        """() => { const one = latent.models.list.checkpoints[0];
        const more = { ...one, name: 'big.safetensors', title: 'big.safetensors', native_size: 512 };
        latent.models.take({ ...latent.models.list, checkpoints: [one, more] }); }"""
    )
    choose(page, "big")
    wait_for(page, "latent.form.values.width === 512 && latent.form.values.checkpoint === 'big.safetensors'")
    set_values(page, width=640)
    choose(page, "emoji")
    wait_for(page, f"latent.form.values.checkpoint === '{EMBEDDED_CHECKPOINT.name}'")
    assert page.evaluate("[latent.form.values.width, latent.form.values.height]") == [640, 512]


def test_a_choice_is_not_set_back_by_a_value_on_its_way(page: Any) -> None:
    page.locator("#group-hires button.label-wrap").click()
    chooser = page.locator("select[data-field='hires.upscaler']")
    chooser.wait_for()
    before = chooser.input_value()
    chosen = chooser.evaluate(
        """node => { const other = [...node.options].find(({ value }) => value !== node.value).value;
        node.value = other; node.dispatchEvent(new Event('change', { bubbles: true }));
        latent.form.tell(); // another field changed before the form has this one
        return [other, node.value]; }"""
    )
    assert chosen[0] == chosen[1] != before


def choose(page: Any, search: str) -> None:
    """Choose a checkpoint by typing a part of its name."""
    box = page.get_by_role("combobox", name="Checkpoint")
    box.click()
    box.fill(search)
    box.press("Enter")


def test_png_info_reads_a_picture_and_sends_every_field(page: Any, pages: Any, server: RunningServer) -> None:
    made = {
        "prompt": "a panda, (round:1.2)",
        "negative_prompt": "blurry",
        "steps": 6,
        "seed": "4242",
        "width": 192,
        "height": 64,
        "sampler": "Euler a",
        "schedule": "Karras",
        "cfg_scale": 4.5,
        "clip_skip": 2,
    }
    set_values(page, **made)
    view = wait_for_end(page, generate(page))
    file = server.outputs / view["images"][0]["path"]
    other = pages.open()
    other.locator("#tab-png-info-button").click()
    other.locator("#tab-png-info .drop input[type=file]").set_input_files(str(file))
    table = other.locator(".png-info table:not(.changes)")
    table.wait_for()
    assert "a panda, (round:1.2)" in table.inner_text()
    assert "4242" in table.inner_text()
    other.get_by_text("Text as it is in the file").click()
    assert other.locator(".png-info pre").first.inner_text() == view["images"][0]["infotext"]
    other.get_by_role("button", name="Send to txt2img").click()
    wait_for(other, "latent.form.values.seed === '4242'")
    values = other.evaluate("latent.form.values")
    assert {key: values[key] for key in made} == made
    assert other.get_by_label("Prompt", exact=True).is_visible()


def test_png_info_takes_the_picture_from_the_stage_and_refuses_what_is_none(page: Any, tmp_path: Any) -> None:
    set_values(page, prompt="a lion", steps=4, seed="3")
    wait_for_end(page, generate(page))
    page.locator("#stage .actions").get_by_role("button", name="PNG info").click()
    page.locator(".png-info table:not(.changes)").wait_for()
    assert "a lion" in page.locator(".png-info table:not(.changes)").inner_text()
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n nonsense")
    page.locator("#tab-png-info .drop input[type=file]").set_input_files(str(broken))
    page.locator(".png-info .problem").wait_for()
    assert page.locator(".png-info table").count() == 0


def test_png_info_shows_the_picture_that_was_chosen_last(page: Any) -> None:
    def picture(prompt: str) -> dict[str, Any]:
        info = PngImagePlugin.PngInfo()
        info.add_text("parameters", f"{prompt}\nSteps: 5, Sampler: Euler, Seed: 1, Size: 64x64")
        buffer = io.BytesIO()
        Image.new("RGB", (64, 64)).save(buffer, "PNG", pnginfo=info)
        return {"name": f"{prompt}.png", "mimeType": "image/png", "buffer": buffer.getvalue()}

    page.locator("#tab-png-info-button").click()
    late = Late(page, "**/png-info", first=1)
    for prompt in ("an older one", "a newer one"):
        page.locator("#tab-png-info .drop input[type=file]").set_input_files(picture(prompt))
        late.wait()
    table = page.locator(".png-info table:not(.changes)")
    table.get_by_text("a newer one").wait_for()
    late.come()
    assert "a newer one" in table.inner_text()


def test_text_in_a_picture_is_shown_and_never_run(page: Any, tmp_path: Any) -> None:
    info = PngImagePlugin.PngInfo()
    hostile = '<img src=x onerror="alert(1)"><script>alert(2)</script>'
    info.add_text("parameters", f"{hostile}\nSteps: 5, Sampler: Euler, Seed: 1, Size: 64x64, Model: {hostile}")
    info.add_text("Comment", hostile)
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "PNG", pnginfo=info)
    (tmp_path / "hostile.png").write_bytes(buffer.getvalue())
    page.locator("#tab-png-info-button").click()
    page.locator("#tab-png-info .drop input[type=file]").set_input_files(str(tmp_path / "hostile.png"))
    page.locator(".png-info table:not(.changes)").wait_for()
    assert hostile in page.locator(".png-info table:not(.changes)").inner_text()
    assert page.locator(".png-info table img, .png-info script").count() == 0


def test_model_names_are_shown_and_never_run(page: Any, server: RunningServer) -> None:
    folder = server.data_dir / "models" / "Stable-diffusion"
    name = '<img src=x onerror=alert(1)>"quoted`.safetensors'
    (folder / name).write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{}      ")
    page.get_by_role("button", name="Refresh the model lists").click()
    wait_for(page, "latent.models.list.checkpoints.length === 2")
    page.get_by_role("combobox", name="Checkpoint").click()
    option = page.locator("#pick-checkpoint-list li", has_text="onerror")
    assert option.get_attribute("aria-disabled") == "true"
    assert page.locator("#pick-checkpoint-list img").count() == 0
    assert option.locator("small").inner_text().strip()
    option.click(force=True)
    assert page.evaluate("latent.form.values.checkpoint") == EMBEDDED_CHECKPOINT.name
    (folder / name).unlink()
    page.get_by_role("button", name="Refresh the model lists").click()
    wait_for(page, "latent.models.list.checkpoints.length === 1")


def test_the_queue_shows_moves_and_cancels(page: Any, server: RunningServer) -> None:
    set_values(page, prompt="running one", steps=150, **SLOW)
    running = generate(page)
    wait_for_step(page, running)
    waiting = []
    for name in ("first", "second"):
        set_values(page, prompt=f"waiting {name}", steps=4, width=128, height=128)
        count = page.evaluate("latent.stage.mine.length")
        page.get_by_role("button", name="Generate", exact=True).click()
        wait_for(page, "n => latent.stage.mine.length > n", arg=count)
        waiting.append(page.evaluate("latent.stage.mine.at(-1)"))
    page.locator("#tab-queue-button").click()
    rows = page.locator("[data-part=pending] .job")
    until(lambda: [r.get_attribute("data-id") for r in rows.all()] == waiting)
    page.locator(f"[data-id='{waiting[1]}']").get_by_role("button", name="Move up").click()
    until(lambda: [r.get_attribute("data-id") for r in rows.all()] == waiting[::-1])
    page.locator(f"[data-id='{waiting[0]}']").get_by_role("button", name="Cancel").click()
    until(lambda: server.json(f"/jobs/{waiting[0]}")["state"] == "cancelled")
    page.locator(f"[data-part=running] [data-id='{running}']").get_by_role("button", name="Interrupt").click()
    until(lambda: server.json(f"/jobs/{running}")["state"] == "interrupted")
    done = page.locator(f"[data-part=finished] [data-id='{waiting[1]}']")
    until(lambda: server.json(f"/jobs/{waiting[1]}")["state"] == "done")
    done.locator("img").wait_for()
    done.get_by_role("button", name="Make again").click()
    newest = until(lambda: server.json("/jobs?limit=1")["jobs"][0]["id"] not in (running, *waiting))
    assert newest


class Jobs:
    """A queue that is told to the page; `asked` are the ways it was steered."""

    def __init__(self, page: Any, **states: str) -> None:
        self.jobs = [self.job(name, state) for name, state in states.items()]
        self.asked: list[str] = []
        self.hold = False
        self.held: list[Any] = []
        page.route("**/jobs?order=turn*", self._answer)
        page.route(re.compile("/jobs/[a-z]+/(move-up|cancel|interrupt|retry)$"), self._steer)

    @staticmethod
    def job(name: str, state: str, **more: Any) -> dict[str, Any]:
        params = {"prompt": name, "width": 64, "height": 64, "sampler": "Euler", "steps": 9}
        params |= {"batch_count": 1, "batch_size": 1, "extras": None}
        known = {"id": name, "state": state, "rev": 1, "params": params, "images": [], "progress": 0, "position": 0}
        known |= {"phase": "sampling", "step": 1, "steps": 9, "line": "", "error": None, "sources": 0, "preview": 0}
        return {**known, "started": None, "finished": None, **more}

    def _answer(self, route: Any) -> None:
        self.held.append(route) if self.hold else route.fulfill(json={"jobs": self.jobs})

    def _steer(self, route: Any) -> None:
        self.asked.append("/".join(route.request.url.rsplit("/", 2)[1:]))
        route.fulfill(json={"changed": True, "id": "again"})


def shown_jobs(page: Any, part: str, *names: str) -> None:
    wait_for(
        page,
        "([part, names]) => [...document.querySelectorAll(`[data-part=${part}] .job`)].map(row => row.dataset.id)"
        ".join() === names",
        arg=[part, ",".join(names)],
    )


def test_the_queue_is_drawn_anew_and_neither_the_focus_nor_a_press_is_lost(page: Any) -> None:
    queue = Jobs(page, running="running", first="pending", second="pending", over="done")
    first, second = queue.jobs[1:3]
    second["position"] = 1
    page.locator("#tab-queue-button").click()
    shown_jobs(page, "finished", "over")
    again = page.locator("[data-id=over]").get_by_role("button", name="Make again")
    again.focus()
    queue.jobs = [*queue.jobs[:3], Jobs.job("newer", "done"), queue.jobs[3]]  # another job ended
    shown_jobs(page, "finished", "newer", "over")
    assert again.evaluate("node => node === document.activeElement")
    up = page.locator("[data-id=second]").get_by_role("button", name="Move up")
    up.focus()
    first |= {"position": 1, "rev": 2}
    second |= {"position": 0, "rev": 2}
    page.keyboard.press("Enter")
    shown_jobs(page, "pending", "second", "first")
    assert queue.asked == ["second/move-up"]
    assert up.evaluate("node => node === document.activeElement")
    cancel = page.locator("[data-id=second]").get_by_role("button", name="Cancel")

    def the_other_goes() -> None:
        queue.jobs.remove(first)
        shown_jobs(page, "pending", "second")

    press(page, cancel, the_other_goes)
    until(lambda: page.wait_for_timeout(10) or queue.asked[1:] == ["second/cancel"])
    page.locator("[data-id=running]").get_by_role("button", name="Interrupt").focus()
    queue.jobs[0] |= {"state": "interrupted", "rev": 2}
    page.locator("[data-part=finished] [data-id=running]").wait_for()
    assert focused(page) == "Show"
    assert page.evaluate("document.activeElement.closest('.job').dataset.id") == "running"


def test_a_picture_of_the_queue_is_opened_while_its_preview_changes(page: Any) -> None:
    queue = Jobs(page, running="running")
    page.route("**/preview.jpg*", lambda route: route.fulfill(body=b"", content_type="image/jpeg"))
    queue.jobs[0]["preview"] = 1
    page.locator("#tab-queue-button").click()
    link = page.get_by_label("Open the picture")
    link.focus()

    def another_preview() -> None:
        queue.jobs[0] |= {"preview": 2, "rev": 2}
        wait_for(page, "document.querySelector('.job img').getAttribute('src').endsWith('n=2')")

    with page.context.expect_page() as opened:
        press(page, link, another_preview)
    assert opened.value.url.endswith("n=2")
    assert link.evaluate("node => node === document.activeElement")


def test_an_older_answer_never_brings_a_job_back_into_the_queue(page: Any) -> None:
    queue = Jobs(page, first="pending", second="pending")
    page.locator("#tab-queue-button").click()
    shown_jobs(page, "pending", "first", "second")
    queue.hold, before = True, list(queue.jobs)
    until(lambda: page.wait_for_timeout(10) or queue.held)
    queue.hold = False
    del queue.jobs[0]
    page.locator("[data-id=first]").get_by_role("button", name="Cancel").click()
    shown_jobs(page, "pending", "second")
    queue.held[0].fulfill(json={"jobs": before})
    frames(page)
    shown = page.locator("[data-part=pending] .job").evaluate_all("rows => rows.map(row => row.dataset.id)")
    assert shown == ["second"]


def test_an_older_answer_never_undoes_what_the_header_tells(page: Any) -> None:
    asked: list[Any] = []
    page.route(re.compile("//[^/]+/status$"), lambda route: route.continue_() if asked else asked.append(route))
    until(lambda: page.wait_for_timeout(10) or asked)
    with page.expect_response(re.compile("//[^/]+/status$")):
        page.evaluate("latent.status.hurry()")
    older = {**asked[0].fetch().json(), "waiting": 7}
    asked[0].fulfill(json=older)
    frames(page)
    assert "7 waiting" not in page.locator("#activity").inner_text()


def test_a_message_stays_while_its_button_is_pressed_or_has_the_focus(page: Any) -> None:
    tell = "latent.tools.say('Taken.', '', { label: 'Undo', run: () => { window.undone = (window.undone ?? 0) + 1; } })"
    undo = page.locator(".toast").get_by_role("button", name="Undo")
    page.evaluate(tell)
    press(page, undo, lambda: page.evaluate("latent.tools.say('Another.')"))
    assert page.evaluate("window.undone") == 1
    page.mouse.move(5, 5)
    page.evaluate(tell)
    page.locator("#show-keys").focus()
    undo.focus()
    page.evaluate("latent.tools.say('Another.')")
    page.locator(".toast").get_by_text("Another.").wait_for()
    page.keyboard.press("Enter")
    assert page.evaluate("window.undone") == 2
    until(lambda: focused(page) == "Keys")  # where the focus came from


def test_settings_are_saved_found_reset_and_refused_at_the_field(page: Any, server: RunningServer) -> None:
    page.locator("#tab-settings-button").click()
    quality = page.get_by_role("spinbutton", name="Quality")
    quality.fill("61")
    quality.press("Tab")
    config = server.data_dir / "config.yaml"
    until(lambda: config.exists() and "quality: 61" in config.read_text())
    quality.fill("500")
    quality.press("Tab")
    error = page.locator("[data-key='saving.quality'] [role=alert]")
    error.wait_for(state="visible")
    assert "between 1 and 100" in error.inner_text()
    assert "quality: 61" in config.read_text()
    page.get_by_role("button", name="Reset Quality").press("Enter")
    error.wait_for(state="hidden")
    assert quality.evaluate("node => node === document.activeElement")  # the button that was pressed is hidden
    until(lambda: "quality" not in config.read_text())
    page.get_by_label("Search the settings").fill("preview size")
    assert page.locator(".setting:visible").count() == 1
    page.get_by_label("Search the settings").fill("no such thing")
    assert page.get_by_text("No setting matches.").is_visible()
    page.reload()
    ready(page)
    assert page.get_by_role("spinbutton", name="Quality").input_value() == "90"


def test_words_typed_before_the_settings_have_come_sift_them_when_they_come(page: Any) -> None:
    held: list[Any] = []

    def hold(route: Any) -> None:
        held.append(route) if "read_settings" in (route.request.post_data or "") else route.continue_()

    page.route("**/component_server/", hold)
    page.reload()
    ready(page)
    page.locator("#tab-settings-button").click()
    page.get_by_label("Search the settings").fill("preview size")
    until(lambda: page.wait_for_timeout(10) or held)
    assert page.locator(".setting[data-key]").count() == 0  # the rows of caches may be there
    for route in held:
        route.continue_()
    page.locator(".setting:visible").first.wait_for()
    assert page.locator(".setting:visible").count() == 1
    assert page.locator(".setting[data-key]").count() > 20


def test_what_is_typed_into_a_setting_stays_when_an_earlier_value_is_saved(page: Any, server: RunningServer) -> None:
    page.locator("#tab-settings-button").click()
    quality = page.get_by_role("spinbutton", name="Quality")
    late = Late(page, "**/component_server/", wanted="save_setting")
    quality.fill("61")
    quality.press("Tab")
    late.wait()
    quality.fill("7")
    late.come()
    page.locator("[data-key='saving.quality']").get_by_text("Saved.").wait_for()
    assert quality.input_value() == "7"
    page.get_by_role("button", name="Reset Quality").click()
    kept = server.data_dir / "config.yaml"
    until(lambda: page.wait_for_timeout(10) or "quality" not in kept.read_text())  # requests still go through `late`


def test_what_is_kept_in_memory_is_shown_in_the_settings_and_cleared(page: Any, server: RunningServer) -> None:
    set_values(page, prompt="a red apple", steps=1)
    wait_for_end(page, generate(page))
    page.locator("#tab-settings-button").click()
    kept = page.locator(".caches")
    prompts = kept.locator("[data-cache=prompts]")
    prompts.wait_for()
    assert "64 MB at most" in prompts.inner_text()
    assert EMBEDDED_CHECKPOINT.name in kept.locator("[data-cache=checkpoints]").inner_text()
    prompts.get_by_role("button", name="Clear Prompts").press("Enter")
    kept.get_by_text("Cleared.", exact=True).wait_for()
    assert "Empty" in prompts.inner_text()
    assert focused(page) == "Clear Prompts"
    assert prompts.get_by_role("button", name="Clear Prompts").is_disabled()
    until(lambda: {c["name"]: c["entries"] for c in server.json("/caches")["caches"]}["checkpoints"] == 1)
    kept.get_by_role("button", name="Clear all").press("Enter")
    kept.locator("[data-cache=checkpoints]").get_by_text("Empty").wait_for()
    assert focused(page) == "Clear all"
    page.get_by_label("Search the settings").fill("preview size")
    assert kept.is_hidden()


@pytest.mark.parametrize("width", [390, 768])
def test_on_a_phone_the_picture_comes_right_below_generate(pages: Any, width: int) -> None:
    page = pages.open(viewport={"width": width, "height": 844}, has_touch=True, is_mobile=True)
    set_values(page, prompt="a turtle", steps=100, **SLOW)
    before = settled_box(page, "#generate")  # the prompt's field takes the height of its text some frames later
    job = generate(page)
    wait_for_step(page, job)
    page.locator("#activity").wait_for(state="visible")
    assert settled_box(page, "#generate") == before, "the page moved"
    page.locator("#interrupt").click()
    wait_for_end(page, job, "interrupted")
    parts = ["#f-prompt", "#generate", "#stage .frame", "#stage .actions", "#group-sampling"]
    tops = [page.locator(part).bounding_box()["y"] for part in parts]
    assert tops == sorted(tops)
    generate_box, frame = page.locator("#generate").bounding_box(), page.locator("#stage .frame").bounding_box()
    assert frame["y"] - (generate_box["y"] + generate_box["height"]) < 48
    for tab in ("txt2img", "png-info", "queue", "settings"):
        page.locator(f"#tab-{tab}-button").click()
        page.wait_for_timeout(200)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, tab
    page.locator("#tab-txt2img-button").click()
    small = page.evaluate(
        """() => [...document.querySelectorAll('button, [role=combobox], [role=tab], a[role=button]')]
        .filter(e => e.offsetParent && e.getBoundingClientRect().width > 0)
        .map(e => e.closest('.container > .wrap') ?? e)
        .map(e => [e.id || e.getAttribute('aria-label') || e.textContent.trim(), e.getBoundingClientRect()])
        .filter(([, b]) => b.height < 43.5).map(([n, b]) => `${n}: ${b.height}`)"""
    )
    assert small == []


def test_at_the_first_visit_a_prompt_is_in_the_box_and_an_emptied_box_stays_empty(page: Any) -> None:
    box = page.get_by_label("Prompt", exact=True)
    assert box.input_value() == "a red apple"
    box.fill("")
    wait_for(page, "latent.form.values.prompt === ''")
    page.evaluate("latent.tools.tabStore.set('tab', 'x-gone')")  # of an extension that was there
    page.reload()
    ready(page)
    assert box.is_visible()
    assert box.input_value() == ""


def test_a_page_that_nobody_touches_asks_for_no_frames(page: Any) -> None:
    """Requests for frames are numbered, so two of the test's own tell how many there were between them."""
    count = "new Promise(done => { const n = {0}; setTimeout(() => done({0} - n - 1), 300); })"
    count = count.replace("{0}", "requestAnimationFrame(() => {})")

    def rests() -> bool:
        page.wait_for_timeout(1000)  # to look is to touch it
        return page.evaluate(count) == 0

    until(rests)


def test_the_keyboard_alone_is_enough(page: Any) -> None:
    page.get_by_label("Prompt", exact=True).focus()
    page.keyboard.press("Control+a")
    page.keyboard.type("a mushroom")
    set_values(page, steps=150, **SLOW)
    job = generate(page, lambda: page.keyboard.press("Control+Enter"))
    assert page.get_by_label("Prompt", exact=True).input_value() == "a mushroom"
    wait_for_step(page, job)
    page.keyboard.press("Escape")
    wait_for_end(page, job, "interrupted")
    order = []
    for _ in range(8):
        page.keyboard.press("Tab")
        order.append(page.evaluate("document.activeElement.id || document.activeElement.closest('[id^=f-]')?.id || ''"))
    assert order[0] == "f-negative_prompt"
    assert [name for name in order if name in ("show-styles", "generate")] == ["show-styles", "generate"]
    page.keyboard.press("?")
    assert page.locator("#keys").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("#keys").is_visible()
    page.evaluate("latent.tabs.show('history')")
    page.keyboard.press("Control+Enter")  # nothing there is made by it
    page.evaluate("latent.tabs.show('txt2img')")
    assert page.evaluate("document.querySelector('#stage').dataset.state") == "interrupted"
    ring = page.evaluate(
        "() => { document.querySelector('#generate').focus({ focusVisible: true });"
        " return getComputedStyle(document.activeElement).outlineStyle; }"
    )
    assert ring == "solid"


def test_a_pressed_button_keeps_the_focus_while_it_cannot_be_pressed_again(page: Any) -> None:
    refresh = page.locator("#refresh-models")
    late = Late(page, "**/models/refresh")
    refresh.press("Enter")
    late.wait()
    assert refresh.is_disabled()
    assert float(refresh.evaluate("node => getComputedStyle(node).opacity")) < 1
    page.keyboard.press("Enter")
    page.keyboard.press("Space")
    refresh.click(force=True)
    frames(page)
    assert len(late.held) == 1
    assert refresh.evaluate("node => node === document.activeElement")
    late.come()
    page.locator(".toast").get_by_text("found.").wait_for()
    assert refresh.is_enabled()
    page.evaluate("latent.runButtons.update({ running: true })")
    page.locator("#interrupt").focus()
    page.evaluate("latent.runButtons.update({})")
    assert page.locator("#interrupt").is_disabled()
    assert focused(page) == "Interrupt"
    assert page.locator("#skip").evaluate("node => node.disabled")  # has no focus to lose: the Tab key passes it by


def test_the_focus_goes_on_from_a_button_that_is_gone(page: Any) -> None:
    told = page.evaluate("latent.status.data")
    told |= {"running": [{"id": "x", "phase": "starting"}], "worker": {**told["worker"], "state": "failed"}}
    page.route(re.compile("//[^/]+/status$"), lambda route: route.fulfill(json=told))
    for button, next_to_it in (("#activity .icon-only", "Share on this network"), ("#restart-worker", "Keys")):
        page.evaluate("latent.status.hurry()")
        page.locator(button).wait_for()
        page.locator(button).focus()
        before = told.copy()
        told |= {"running": [], "worker": {**told["worker"], "state": "ready"}}
        page.evaluate("latent.status.hurry()")
        page.locator(button).wait_for(state="hidden")
        assert focused(page) == next_to_it
        told |= before


def test_everything_that_can_be_pressed_or_filled_has_a_name(page: Any) -> None:
    page.locator("#group-more > .label-wrap").click()
    page.locator("#group-variation > .label-wrap").click()
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('button, input, textarea, select, a[href]')]
        .filter(e => e.offsetParent && !e.closest('.visually-hidden'))
        .filter(e => !(e.getAttribute('aria-label') || e.textContent.trim() || e.title
                       || [...(e.labels ?? [])].some(l => l.textContent.trim())))
        .map(e => e.outerHTML.slice(0, 120))"""
    )
    assert nameless == []


def test_fields_for_text_and_numbers_have_an_edge_and_fit_their_text(page: Any) -> None:
    fields = page.evaluate(
        """() => [...document.querySelectorAll('#making textarea, #making input[type=number]')]
        .filter(e => e.offsetParent).map(e => {
          const style = getComputedStyle(e);
          const drawn = (side) => style[side + 'Style'] === 'solid' && parseFloat(style[side + 'Width']) >= 1;
          return [e.getAttribute('aria-label') || e.labels?.[0]?.textContent.trim() || e.id,
                  drawn('borderTop') || drawn('outline'), e.scrollHeight <= e.clientHeight];
        })"""
    )
    assert {"Prompt", "Negative prompt"} <= {name for name, _, _ in fields}
    assert [name for name, edge, fits in fields if not edge or not fits] == []


def test_the_theme_is_switched_in_all_tabs_and_what_was_kept_by_another_one_stays(page: Any) -> None:
    seen = []
    for _ in range(3):
        page.locator("#theme").click()
        seen.append(page.evaluate("document.documentElement.dataset.theme"))
    assert {"light", "dark"} == set(seen)
    while page.evaluate("document.documentElement.dataset.theme") != "dark":
        page.locator("#theme").click()
    wait_for(page, "!latent.form.saving")
    other = page.context.new_page()  # of this browser: what it keeps is what a page in it would keep
    other.goto(f"{page.url}ui/icon.svg")
    for theme in ("light", "dark"):
        other.evaluate("theme => localStorage.setItem('latent.theme', JSON.stringify(theme))", theme)
        wait_for(page, "theme => document.documentElement.dataset.theme === theme", arg=theme)
    other.evaluate("localStorage.setItem('latent.form', JSON.stringify({ prompt: 'typed there' }))")
    page.reload()
    ready(page)
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert page.evaluate("latent.form.values.prompt") == "typed there"


def test_memory_and_worker_are_told_live(page: Any) -> None:
    line = page.locator("#memory-line")
    until(lambda: "total" in line.inner_text())
    assert "used" in line.inner_text()
    assert "peak" in line.inner_text()
    assert "Worker" in page.locator("#worker-line").inner_text()
