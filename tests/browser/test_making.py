"""Making pictures on the real page with the real model."""

from __future__ import annotations

import urllib.parse
import urllib.request
from typing import Any

import pytest
from running_server import RunningServer
from steps import (
    SLOW,
    Late,
    focused,
    frames,
    generate,
    job_of,
    press,
    ready,
    set_values,
    shown_picture,
    until,
    wait_for,
    wait_for_end,
    wait_for_step,
)

pytestmark = pytest.mark.browser


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url) as response:
        return bytes(response.read())


def test_a_prompt_becomes_a_picture_and_the_shown_file_is_the_saved_one(page: Any, server: RunningServer) -> None:
    page.get_by_label("Prompt", exact=True).fill("a red apple")
    wait_for(page, "document.querySelector('.tokens').textContent === '3/75'")
    set_values(page, steps=8, seed="7")
    job = generate(page)
    view = wait_for_end(page, job)
    source = shown_picture(page)
    path = urllib.parse.unquote(urllib.parse.urlsplit(source).path).removeprefix("/outputs/")
    assert path == view["images"][0]["path"]
    saved = (server.outputs / path).read_bytes()
    assert fetch(source) == saved
    in_page = page.evaluate("async src => Array.from(new Uint8Array(await (await fetch(src)).arrayBuffer()))", source)
    assert bytes(in_page) == saved
    assert saved.index(b"parameters") < saved.index(b"IDAT")
    text = page.locator("#stage pre").inner_text()
    assert text == view["images"][0]["infotext"]
    assert "Seed: 7" in text
    facts = page.locator("#stage .facts").inner_text()
    assert "128 × 128" in facts
    assert "peak memory" in facts
    times = page.locator("#stage .times").inner_text()
    assert all(f"{stage} " in times for stage in ("sample", "decode", "save")), times
    until(lambda: page.title() == "Latent WebUI")
    copies = [p for p in (server.data_dir / "cache" / "gradio").rglob("*") if p.is_file()]
    assert copies == []


def test_the_picture_on_the_stage_is_marked_and_replayed_where_it_stands(page: Any, server: RunningServer) -> None:
    set_values(page, prompt="a red apple", steps=2, width=64, height=64, seed="7", batch_size=2)
    job = wait_for_end(page, generate(page))["id"]
    page.locator("#stage .thumb").nth(1).click()
    second = page.evaluate("latent.stage.picture().index")
    assert second == 1

    def row() -> Any:
        cards = server.json(f"/history?q=job:{job}")["cards"]
        return next(card for card in cards if card["picture_index"] == second)

    star = page.locator("#stage").get_by_role("button", name="Favourite")
    star.click()
    wait_for(page, "document.querySelector('#stage [aria-pressed=true] use[href*=star-full]')")
    until(lambda: row()["favourite"])
    page.locator("#stage .frame").click(position={"x": 5, "y": 5})  # the viewer
    page.keyboard.press("f")
    until(lambda: not row()["favourite"])
    page.keyboard.press("Escape")
    assert star.get_attribute("aria-pressed") == "false"
    page.locator("#stage").get_by_role("button", name="Replay").click()
    verdict = page.locator(".stage-verdict")
    verdict.get_by_text("Every pixel is the same.").wait_for()
    child = server.json("/history?limit=1")["cards"][0]
    assert (child["parent"], child["seed"]) == (row()["id"], 8)
    verdict.get_by_role("button", name="Open").click()
    page.get_by_role("dialog", name="Picture").get_by_text("a red apple").first.wait_for()


def test_the_preview_changes_and_progress_is_told_while_it_runs(page: Any) -> None:
    set_values(page, prompt="a castle", steps=100, **SLOW)
    page.evaluate(
        """() => { window.seen = { previews: new Set(), facts: new Set(), titles: new Set(), boxes: new Set() };
        const image = document.querySelector('#stage img[data-part=image]');
        setInterval(() => {
          if (!image.hidden && image.dataset.kind === 'preview') seen.previews.add(image.src);
          seen.facts.add(document.querySelector('#stage .facts').textContent);
          seen.titles.add(document.title);
          const box = document.querySelector('#stage .frame').getBoundingClientRect();
          seen.boxes.add([box.x, box.y, box.width, box.height].map(Math.round).join());
        }, 30); }"""
    )
    job = generate(page)
    wait_for(page, "seen.previews.size >= 3")
    seen = page.evaluate("Object.fromEntries(Object.entries(seen).map(([k, v]) => [k, [...v]]))")
    assert all(f"/jobs/{job}/preview.jpg" in source for source in seen["previews"])
    assert any("step " in f and "/100" in f and "left" in f for f in seen["facts"])
    assert any("/100 · " in title for title in seen["titles"])
    assert len(seen["boxes"]) == 1, "the stage moved"
    page.get_by_role("button", name="Interrupt").first.click()
    wait_for_end(page, job, "interrupted")


def test_interrupt_keeps_the_picture_as_it_stands(page: Any, server: RunningServer) -> None:
    set_values(page, prompt="a fox", steps=150, **SLOW)
    job = generate(page)
    wait_for_step(page, job, 5)
    page.locator("#interrupt").click()
    view = wait_for_end(page, job, "interrupted")
    assert view["step"] < 150
    assert page.locator("#interrupt").is_disabled()
    assert focused(page) == "Interrupt"
    if view["images"]:
        assert (server.outputs / view["images"][0]["path"]).is_file()
        shown_picture(page)
    again = generate(page)
    assert again != job
    page.locator("#interrupt").click()
    wait_for_end(page, again, "interrupted" if page.evaluate("latent.stage.view.started") else "cancelled")


def test_a_reloaded_page_finds_its_job_again_and_shows_the_result(page: Any) -> None:
    set_values(page, prompt="a robot", steps=50, **SLOW)
    job = generate(page)
    wait_for_step(page, job, 5)
    page.reload()
    wait_for_step(page, job, 6)
    view = wait_for_end(page, job)
    assert view["images"][0]["path"] in urllib.parse.unquote(shown_picture(page))


def test_a_page_closed_while_it_ran_shows_the_result_when_opened_again(pages: Any) -> None:
    context = pages.context()
    page = pages.open(context)
    set_values(page, prompt="a house", steps=30, **SLOW)
    job = generate(page)
    wait_for_step(page, job, 2)
    page.close()
    again = pages.open(context)
    wait_for_end(again, job)
    shown_picture(again)


def test_a_second_browser_sees_the_running_job_and_may_interrupt_it(pages: Any) -> None:
    first = pages.open()
    set_values(first, prompt="a bus", steps=150, **SLOW)
    job = generate(first)
    wait_for_step(first, job)
    second = pages.open()
    wait_for_step(second, job, 3)
    second.locator("#interrupt").click()
    wait_for_end(first, job, "interrupted")
    wait_for_end(second, job, "interrupted")


def test_six_tabs_stay_alive_and_each_gets_its_own_picture(pages: Any, server: RunningServer) -> None:
    context = pages.context()
    tabs = [pages.open(context) for _ in range(6)]
    jobs = []
    for number, tab in enumerate(tabs):
        set_values(tab, prompt=f"a house number {number}", steps=6, seed=str(100 + number))
        jobs.append(generate(tab))
    assert len(set(jobs)) == 6
    views = [wait_for_end(tab, job) for tab, job in zip(tabs, jobs, strict=True)]
    assert len({view["images"][0]["path"] for view in views}) == 6
    assert [view["params"]["prompt"] for view in views] == [f"a house number {n}" for n in range(6)]
    assert [view["images"][0]["seed"] for view in views] == list(range(100, 106))


def test_jobs_queue_up_and_the_stage_follows_one_after_the_other(page: Any) -> None:
    set_values(page, prompt="a green car", steps=20, **SLOW)
    first = generate(page)
    wait_for_step(page, first)
    page.get_by_role("button", name="Generate", exact=True).click()
    wait_for(page, "latent.stage.mine.length === 2")
    second = page.evaluate("latent.stage.mine[1]")
    assert job_of(page) == first
    wait_for(page, "document.querySelector('#stage .facts').textContent.includes('1 more waiting')")
    wait_for_end(page, second)
    assert page.locator("#stage .thumb").count() == 2


def test_a_batch_fills_the_strip_and_the_viewer_walks_through_it(page: Any) -> None:
    set_values(page, prompt="a rocket", steps=5, batch_count=3, seed="50")
    job = generate(page)
    wait_for_end(page, job)
    thumbs = page.locator("#stage .thumb")
    assert thumbs.count() == 3
    first = shown_picture(page)
    page.locator("#stage img[data-part=image]").click()
    viewer = page.locator("#viewer")
    assert viewer.is_visible()
    assert "1 of 3" in viewer.inner_text()
    page.keyboard.press("ArrowRight")
    assert "2 of 3" in viewer.inner_text()
    assert "seed 51" in viewer.inner_text()
    page.keyboard.press("Escape")
    assert not viewer.is_visible()
    with page.context.expect_page() as opened:
        page.get_by_role("button", name="Open", exact=True).click()
    assert opened.value.url.endswith(page.evaluate("latent.stage.picture().src"))
    wait_for(page, "src => document.querySelector('#stage img[data-part=image]').src !== src", arg=first)
    assert "Seed: 51" in page.locator("#stage pre").inner_text()
    page.get_by_role("button", name="Reuse seed").click()
    wait_for(page, "latent.form.values.seed === '51'")


class Told:
    """A job that is told to the page and not run: `now` is its view."""

    def __init__(self, page: Any, name: str, **more: Any) -> None:
        params = {"prompt": name, "width": 64, "height": 64, "batch_count": 4, "batch_size": 1}
        self.now = {"id": name, "rev": 1, "state": "running", "phase": "sampling", "params": params, "images": []}
        self.now |= {"step": 1, "steps": 9, "batch": 1, "batches": 4, "progress": 0.1, "rate": 0, "seconds_left": None}
        self.now |= {"warnings": [], "seconds": {}, "position": None, "peak_memory": 0, "error": None, "preview": 0}
        self.now |= more
        page.route(f"**/jobs/{name}*", self._answer)

    def _answer(self, route: Any) -> None:
        asked = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(route.request.url).query))
        if asked.get("rev") == str(self.now["rev"]):
            route.fulfill(status=204)
            return
        images = self.now["images"]
        route.fulfill(json={**self.now, "images": images[int(asked.get("known", 0)) :], "image_count": len(images)})

    def go_on(self, **more: Any) -> None:
        self.now |= {"rev": self.now["rev"] + 1, **more}

    def pictures(self, count: int) -> list[dict[str, Any]]:
        facts = {"width": 64, "height": 64, "infotext": "a text\nSteps: 9, Seed: 1", "error": ""}
        return [{**facts, "index": n, "seed": n, "path": f"told/{self.now['id']}-{n}.png"} for n in range(count)]


def test_the_strip_grows_and_neither_the_focus_nor_a_press_nor_the_place_is_lost(page: Any) -> None:
    job = Told(page, "told")
    job.go_on(images=job.pictures(2))
    page.evaluate("latent.stage.follow('told')")
    thumbs = page.locator("#stage .thumb")
    thumbs.nth(1).focus()
    place = "[...document.querySelectorAll('#stage .thumb')].indexOf(document.activeElement)"
    assert page.evaluate(place) == 1

    def another() -> None:
        job.go_on(images=job.pictures(3))
        thumbs.nth(2).wait_for()

    press(page, thumbs.nth(1), another)
    wait_for(page, "latent.stage.picture()?.index === 1")
    assert page.evaluate(place) == 1
    page.set_viewport_size({"width": 390, "height": 500})
    page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
    low = page.evaluate("scrollY")
    assert low > 200
    job.go_on(images=job.pictures(4))
    thumbs.nth(3).wait_for()
    frames(page)
    assert page.evaluate("scrollY") == low
    assert page.evaluate(place) == 1


def test_a_late_look_for_an_earlier_job_never_takes_the_stage_from_a_newer_one(page: Any) -> None:
    set_values(page, prompt="an earlier one", steps=1, width=64, height=64)
    earlier = generate(page)
    wait_for_end(page, earlier)
    wait_for(page, "latent.stage.mine.length === 0")
    late = Late(page, f"**/jobs/{earlier}*")
    page.reload()
    ready(page)
    late.wait()
    set_values(page, prompt="a newer one")
    newer = generate(page)
    late.come()
    assert job_of(page) == newer
    wait_for_end(page, newer)


def test_the_viewer_keeps_its_picture_when_the_next_job_begins_behind_it(page: Any) -> None:
    first, second = Told(page, "first", state="done"), Told(page, "second")
    first.go_on(images=first.pictures(1))
    page.evaluate("latent.stage.follow('first')")
    wait_for(page, "latent.stage.picture()?.job === 'first'")
    page.locator("#stage .center").get_by_text("The file is not where it was.").wait_for()
    assert page.locator("#stage img[data-part=image]").is_hidden()
    page.evaluate("latent.viewer.open()")
    page.evaluate("latent.stage.follow('second')")
    second.go_on(images=second.pictures(1))
    wait_for(page, "latent.stage.pictures().length === 2")
    second.go_on(state="done")
    wait_for(page, "latent.stage.view.state === 'done'")
    assert page.evaluate("latent.stage.picture().job") == "first"  # what F marks and R makes again
    page.keyboard.press("ArrowLeft")
    wait_for(page, "latent.stage.picture().job === 'second'")
    assert "1 of 2" in page.locator("#viewer").inner_text()


def test_skip_leaves_one_picture_and_goes_on(page: Any) -> None:
    set_values(page, prompt="a sunset", steps=60, batch_count=2, **SLOW)
    job = generate(page)
    wait_for_step(page, job, 3)
    page.locator("#skip").click()
    wait_for(page, "id => latent.stage.view.id === id && latent.stage.view.batch === 2", arg=job)
    page.locator("#interrupt").click()
    wait_for_end(page, job, "interrupted")


def test_an_example_fills_the_prompt_and_makes_it(page: Any) -> None:
    wait_for(page, "document.querySelector('#stage .chip') || latent.stage.view")
    chip = page.locator("#stage .chip").first
    if not chip.count():  # this browser context is fresh, but a job of another may be running
        page.reload()
    prompt = chip.inner_text()
    set_values(page, steps=5)
    job = generate(page, chip.click)
    assert wait_for_end(page, job)["params"]["prompt"] == prompt
    assert page.get_by_label("Prompt", exact=True).input_value() == prompt


def test_a_job_that_is_refused_says_why_on_the_stage_and_what_to_do(page: Any) -> None:
    set_values(page, prompt="x", sigmas="1, 2, many")
    page.get_by_role("button", name="Generate", exact=True).click()
    problem = page.locator("#stage .problem")
    problem.wait_for()
    assert "Own sigmas: not a list of numbers." in problem.inner_text()
    assert "Separate the numbers by commas." in problem.inner_text()
    set_values(page, sigmas="", steps=4)
    wait_for_end(page, generate(page))
    assert problem.count() == 0


def test_a_lost_connection_is_told_and_recovers_without_losing_the_job(page: Any) -> None:
    set_values(page, prompt="a rainbow", steps=40, **SLOW)
    job = generate(page)
    wait_for_step(page, job)
    banner = page.locator("#banner")
    for answer in (lambda route: route.abort(), lambda route: route.fulfill(body='{"id": "')):  # none, and one cut off
        page.route("**/*", answer)
        banner.wait_for(state="visible")
        assert "Connection lost" in banner.inner_text()
        page.unroute("**/*")
        banner.wait_for(state="hidden")
    wait_for_end(page, job)
    shown_picture(page)


def test_a_job_that_ended_while_another_was_shown_does_not_come_back_with_the_next(page: Any) -> None:
    first = Told(page, "first")
    Told(page, "other", state="done")
    page.evaluate("latent.stage.submitted('first')")
    wait_for(page, "latent.stage.view.state === 'running'")
    page.evaluate("latent.stage.follow('other')")  # as by Show in the queue
    wait_for(page, "latent.stage.view.id === 'other' && latent.stage.view.state === 'done'")
    first.go_on(state="done", images=first.pictures(1))
    third = Told(page, "third")
    page.evaluate(
        """() => { const { stage } = latent, { follow } = stage;
        stage.followed = [];
        stage.follow = (id, ...rest) => { stage.followed.push(id); follow.call(stage, id, ...rest); };
        stage.submitting(); stage.submitted('third'); }"""
    )
    wait_for(page, "latent.stage.view?.id === 'third'")
    assert page.evaluate("[latent.stage.followed, latent.stage.mine]") == [["third"], ["third"]]
    assert page.evaluate("latent.stage.pictures().map(picture => picture.job)") == ["first"]
    Told(page, "again", state="pending")
    page.route("**/jobs/third/retry", lambda route: route.fulfill(json={"id": "again"}))
    third.go_on(state="failed", error={"message": "No", "advice": "Why"})
    page.get_by_role("button", name="Try again").press("Enter")
    wait_for(page, "latent.stage.view.id === 'again' && latent.stage.view.rev === 1")
    assert page.evaluate("document.activeElement.dataset.part") == "frame"
