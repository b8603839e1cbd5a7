"""The History tab in a real browser, on a real server that makes real pictures with the embedded model."""

from __future__ import annotations

import io
import json
import re
import sqlite3
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import painting
import pytest
from history_studio import Studio
from running_server import RunningServer
from steps import Late, focused, frames, press, until, wait_for

from webui.history import Recorder
from webui.paths import Paths

MANY = 100_000
PROMPTS = ("a red castle", "a green castle", "a fox", "a lighthouse")
WAIT = 20_000  # ms: a busy machine is slow, a broken page never gets there


@pytest.fixture(scope="module")
def studio_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server whose history holds twelve drawn pictures of two days."""
    data_dir = tmp_path_factory.mktemp("history-tab")
    paths = Paths.under(data_dir)
    paths.make_folders()
    recorder = Recorder(paths)
    studio = Studio(paths, recorder)
    for number in range(12):
        studio.save(prompt=PROMPTS[number % 4], negative_prompt="blurry" if number % 2 else "", seed=100 + number)
    recorder.close()
    with sqlite3.connect(paths.outputs / "history.sqlite") as db:
        db.execute("UPDATE pictures SET day='2026-01-05', created=created-86400*40, position=position-86400*40000"
                   " WHERE id <= 4")  # fmt: skip
    db.close()
    with RunningServer(data_dir) as server:
        server.wait_until_ready()
        yield server


NewPage = Callable[..., Any]


@pytest.fixture
def new_page(browser: Any, studio_server: RunningServer) -> Iterator[NewPage]:
    """Opens pages, each a browser of its own. A fault in the script or a request to elsewhere fails the test."""
    faults: list[str] = []
    contexts: list[Any] = []

    def open_page(path: str = "/", width: int = 1280, height: int = 800, context: Any = None) -> Any:
        if context is None:
            context = browser.new_context(viewport={"width": width, "height": height}, accept_downloads=True)
            contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(WAIT)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on(
            "request",
            lambda r: None if r.url.startswith((studio_server.url, "data:", "blob:")) else faults.append(r.url),
        )
        page.goto(studio_server.url + path)
        page.wait_for_selector("html[data-ready]")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []


@pytest.fixture
def page(new_page: NewPage) -> Any:
    """The History tab, with its pictures."""
    page = new_page()
    open_tab(page)
    return page


def open_tab(page: Any) -> None:
    page.get_by_role("tab", name="History").click()
    page.wait_for_selector(".cell[data-id] img")


def count(page: Any, text: str) -> None:
    wait_for(page, "text => document.querySelector('[data-part=count]').textContent === text", arg=text)


def search(page: Any, text: str) -> None:
    page.get_by_role("combobox", name="Search the history").fill(text)


def ids(page: Any) -> list[int]:
    found: list[int] = page.evaluate(
        "[...document.querySelectorAll('.cell[data-id]')].map(cell => Number(cell.dataset.id))"
    )
    return found


def pick(page: Any, *places: int) -> None:
    for place in places:
        page.locator(f".cell[data-index='{place}']").focus()
        page.keyboard.press("Space")


def test_the_grid_shows_the_newest_first_under_headings_of_days(page: Any) -> None:
    count(page, "12 pictures")
    assert ids(page) == list(range(12, 0, -1))
    assert page.locator(".day h2").all_text_contents() == ["Today", "Monday, January 5, 2026"]
    grid = page.get_by_role("grid", name="Pictures")
    assert grid.get_attribute("aria-rowcount") == str(page.locator(".history-grid [role=row]").count())


def test_a_search_runs_as_it_is_typed_and_helps_with_its_fields(page: Any) -> None:
    box = page.get_by_role("combobox", name="Search the history")
    box.press_sequentially("castle -gr")
    count(page, "3 pictures found")
    box.fill("samp")
    page.get_by_role("option", name="sampler:").wait_for()
    box.press("ArrowDown")
    box.press("Enter")
    assert box.input_value() == "sampler:"
    box.press_sequentially("karr")
    box.fill("seed:100..103")
    count(page, "4 pictures found")
    box.fill("size:wide")
    page.get_by_text("size: takes a width and a height").wait_for()
    box.fill("nothing of the kind")
    page.get_by_role("heading", name="Nothing found").wait_for()
    page.get_by_role("button", name="Show all pictures").click()
    count(page, "12 pictures")


def test_the_text_of_a_prompt_is_never_markup(page: Any, studio_server: RunningServer) -> None:
    body = json.dumps({"prompt": "<img src=x onerror=window.harm=1>", "steps": 1, "seed": 1, "width": 64, "height": 64})
    job = json.loads(studio_server.post("/jobs", body.encode(), {"content-type": "application/json"}).body)["id"]
    deadline = time.monotonic() + 120
    while studio_server.json(f"/jobs/{job}")["state"] != "done":
        assert time.monotonic() < deadline
        time.sleep(0.2)
    page.locator(".cell[data-id='13']").wait_for()  # arrives by itself
    page.locator(".cell[data-id='13']").click()
    page.locator(".panel .prompt-text", has_text="<img src=x").wait_for()
    assert page.evaluate("window.harm") is None
    page.keyboard.press("Escape")
    studio_server.post("/history/delete", b'{"ids":[13]}', {"content-type": "application/json"})
    studio_server.post("/history/trash/empty", b'{"ids":[13]}', {"content-type": "application/json"})


def test_keys_move_select_and_mark(page: Any) -> None:
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "history-search"
    page.keyboard.press("ArrowDown")
    focused = "Number(document.activeElement.dataset.index)"
    assert page.evaluate(focused) == 0
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    page.get_by_text("3 selected").first.wait_for()
    assert page.evaluate(focused) == 3
    page.keyboard.press("f")
    wait_for(page, "document.querySelectorAll('.cell .marks svg').length === 3")
    page.keyboard.press("Control+z")
    wait_for(page, "document.querySelectorAll('.cell .marks svg').length === 0")
    page.keyboard.press("Control+a")
    page.get_by_text("12 selected").first.wait_for()
    page.keyboard.press("Escape")
    assert page.locator(".selection").is_hidden()
    page.keyboard.press("End")
    assert page.evaluate(focused) == 11


def test_what_is_deleted_comes_back_by_undo(page: Any) -> None:
    pick(page, 1, 2)
    page.keyboard.press("Delete")
    count(page, "10 pictures")
    assert 11 not in ids(page)
    assert page.evaluate("document.querySelector('.history-grid').contains(document.activeElement)")
    page.get_by_role("button", name="Undo").click()
    count(page, "12 pictures")
    pick(page, 0)
    page.keyboard.press("Delete")
    count(page, "11 pictures")
    page.keyboard.press("Control+z")
    count(page, "12 pictures")


def test_the_trash_shows_what_is_in_it_and_gives_it_back(page: Any) -> None:
    pick(page, 0)
    page.keyboard.press("Delete")
    count(page, "11 pictures")
    page.get_by_role("button", name="Trash").click()
    count(page, "1 picture in the trash")
    late: list[Any] = []
    page.route("**/history/trash/empty", lambda route: late.append(route.request.post_data_json) or route.abort())
    search(page, "lighthouse")
    page.get_by_role("button", name="Delete what is found").click()
    page.get_by_role("button", name="Delete for good").click()
    until(lambda: page.wait_for_timeout(10) or late)
    assert late == [{"ids": [12]}], "under a search only what it finds is deleted"
    search(page, "")
    page.get_by_role("button", name="Empty the trash").wait_for()
    pick(page, 0)
    page.get_by_role("button", name="Restore").click()
    page.get_by_role("heading", name="The trash is empty").wait_for()
    page.get_by_role("button", name="Trash").click()
    count(page, "12 pictures")


def test_the_viewer_walks_tells_and_returns_the_focus(page: Any) -> None:
    page.locator(".cell[data-index='3']").focus()
    page.keyboard.press("Enter")
    viewer = page.get_by_role("dialog", name="Picture")
    viewer.get_by_text("4 of 12").wait_for()
    page.keyboard.press("ArrowRight")
    viewer.get_by_text("5 of 12").wait_for()
    viewer.get_by_role("cell", name="107", exact=True).wait_for()  # the seed
    assert "picture=8" in page.url
    assert viewer.locator("[data-do=replay]").bounding_box()["height"] < 60
    plain, more = page.evaluate(
        """async () => { const picture = await (await fetch('history/8')).json(), { details } = latent.history;
        const plain = details.parameterRows(picture);
        picture.params.hires = { scale: 1.5, steps: 9, upscaler: 'Lanczos', sampler: null };
        const { fields } = latentBoot.form;
        const asked = [[fields['hires.on'].label, 'on'], [fields['hires.scale'].label, '1.5'],
          [fields['hires.steps'].label, '9'], [fields['hires.upscaler'].label, 'Lanczos']];
        const known = plain.map(([name]) => name);
        return [plain, [asked, details.parameterRows(picture).filter(([name]) => !known.includes(name))]]; }"""
    )
    assert [row for row in plain if "object" in row[1]] == []
    assert sorted(more[1]) == sorted(more[0])
    page.keyboard.press("f")
    page.wait_for_selector("[data-act=favourite][aria-pressed=true]")
    page.keyboard.press("f")
    page.keyboard.press("Delete")
    viewer.get_by_text("5 of 11").wait_for()  # the next one stands in its place
    viewer.get_by_role("cell", name="106", exact=True).wait_for()
    page.keyboard.press("Control+z")
    viewer.get_by_text("5 of 12").wait_for()
    page.keyboard.press("Escape")
    wait_for(page, "document.activeElement.dataset.index === '4'")
    assert "picture" not in page.url


def test_marks_that_the_server_refuses_go_back_to_what_it_has(page: Any) -> None:
    starred = (
        "[...document.querySelectorAll('.cell .marks')].map(marks => Boolean(marks.querySelector('[href$=star-full]')))"
    )
    page.locator(".cell[data-index='1']").focus()
    with page.expect_response("**/history/favourite"):
        page.keyboard.press("f")
    page.route(
        re.compile("/history/(favourite|delete)$"),
        lambda route: route.fulfill(status=503, json={"error": "HistoryAway", "message": "No room.", "advice": ""}),
    )
    page.keyboard.press("Shift+ArrowRight")
    page.get_by_text("2 selected").first.wait_for()
    before = page.evaluate(starred)
    assert before.count(True) == 1
    for refused in ("Favourite", "Delete"):
        with page.expect_response(re.compile("/history/(ids|outline)")):
            page.locator(".selection").get_by_role("button", name=refused, exact=True).click()
        frames(page)
        assert page.evaluate(starred) == before
        assert page.locator(".cell[data-state=leaving]").count() == 0
    page.unroute_all()
    page.keyboard.press("Escape")
    page.locator(".cell[data-index='1']").focus()
    with page.expect_response("**/history/favourite"):
        page.keyboard.press("f")


def test_a_long_press_begins_a_selection_and_opens_nothing(page: Any) -> None:
    box = page.locator(".cell[data-index='2']").bounding_box()
    touch = page.context.new_cdp_session(page)
    points = [{"x": box["x"] + 40, "y": box["y"] + 40}]
    touch.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": points})
    page.get_by_text("1 selected").first.wait_for()
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    frames(page)
    assert page.locator("#history-viewer").is_hidden()
    assert page.evaluate("latent.history.gridNow.selected.size") == 1


def test_the_focus_stays_when_the_shape_comes_after_the_first_pictures(page: Any) -> None:
    late: list[Any] = []
    page.route("**/history/outline*", lambda route: late.append(route))
    search(page, "seed:101")
    count(page, "1 picture found")  # as far as the first page tells
    page.locator(".cell[data-index='0']").focus()
    with page.expect_response("**/history/outline*"):
        late.pop().continue_()
    page.unroute("**/history/outline*")
    wait_for(page, "latent.history.gridNow.blocks.every(block => block.cursor)")  # the whole shape is drawn
    page.keyboard.press("Space")
    page.get_by_text("1 selected").first.wait_for()


def test_a_picture_that_arrives_never_scrolls_back_to_the_focus(page: Any) -> None:
    page.set_viewport_size({"width": 390, "height": 500})
    page.locator(".cell[data-index='0']").focus()
    page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
    low = page.evaluate("scrollY")
    assert low > 200
    page.evaluate("latent.history.gridNow.refresh()")  # as after each picture that is made elsewhere
    assert page.evaluate("scrollY") == low
    assert page.evaluate("Number(document.activeElement.dataset.index)") == 0


def test_the_keys_of_the_viewer_go_on_after_a_button_of_the_details(page: Any) -> None:
    page.locator(".cell[data-index='9']").click()
    viewer = page.get_by_role("dialog", name="Picture")
    copy = viewer.get_by_role("button", name="Copy the prompt")
    copy.focus()
    page.keyboard.press("ArrowRight")
    viewer.get_by_role("cell", name="101", exact=True).wait_for()  # the seed: the next one's details are drawn
    until(lambda: focused(page) == "Copy the prompt")
    viewer.get_by_role("button", name="Next picture").click()  # it goes: this is the last one
    viewer.get_by_text("12 of 12").wait_for()
    page.keyboard.press("ArrowLeft")
    viewer.get_by_text("11 of 12").wait_for()


def test_what_is_looked_at_stays_when_the_picture_before_it_goes_late(page: Any) -> None:
    page.locator(".cell[data-index='3']").click()
    viewer = page.get_by_role("dialog", name="Picture")
    viewer.get_by_text("4 of 12").wait_for()
    late = Late(page, "**/history/delete")
    page.keyboard.press("Delete")
    late.wait()
    page.keyboard.press("ArrowRight")
    viewer.get_by_role("cell", name="107", exact=True).wait_for()
    tag = viewer.get_by_role("combobox", name="Add a tag")
    tag.fill("half a t")
    late.come()
    viewer.get_by_text("4 of 11").wait_for()
    assert "picture=8" in page.url
    page.keyboard.type("ag")
    assert tag.input_value() == "half a tag"
    tag.fill("")
    page.keyboard.press("Escape")
    page.keyboard.press("Control+z")
    viewer.get_by_text("of 12").wait_for()


def test_a_tag_is_taken_off_while_another_one_is_typed(page: Any) -> None:
    page.locator(".cell[data-index='5']").click()
    box = page.get_by_role("combobox", name="Add a tag")
    box.fill("first")
    page.keyboard.press("Enter")
    off = page.get_by_role("button", name="Remove the tag first")
    off.wait_for()
    box.fill("second")
    press(page, off, lambda: None)
    off.wait_for(state="detached", timeout=5_000)
    second = page.get_by_role("button", name="Remove the tag second")
    second.click()
    second.wait_for(state="detached")


def compared(page: Any) -> Any:
    """The dialog with the two newest pictures."""
    pick(page, 0, 1)
    page.get_by_role("button", name="Compare").click()
    box = page.get_by_role("dialog", name="Compare two pictures")
    box.get_by_role("row", name="Seed 110 111").wait_for()
    box.get_by_text("Different").wait_for()
    return box


def test_an_older_comparison_never_stands_under_a_newer_question(page: Any) -> None:
    box = compared(page)
    late = Late(page, "**/history/compare?*", first=1)
    everything = box.get_by_label("Show what is equal, too")
    everything.check()
    late.wait()
    everything.uncheck()
    frames(page)
    rows = box.locator(".rows tr").count()
    late.come()
    assert box.locator(".rows tr").count() == rows
    late = Late(page, "**/history/compare?*", first=1)
    everything.check()
    late.wait()
    box.get_by_role("button", name="Swap the pictures").click()
    box.get_by_role("row", name="Seed 111 110").wait_for()
    late.come()
    assert box.get_by_role("row", name="Seed 111 110").count() == 1


def test_a_press_on_the_bar_of_the_selection_is_not_lost_when_pictures_come(page: Any) -> None:
    pick(page, 0, 1)
    clear = page.locator(".selection").get_by_role("button", name="Clear")
    press(page, clear, lambda: page.evaluate("latent.history.gridNow.refresh()"))
    page.locator(".selection").wait_for(state="hidden", timeout=5_000)


def test_what_is_selected_belongs_to_the_search_that_is_shown(page: Any) -> None:
    page.locator(".cell[data-index='0']").focus()
    late = Late(page, "**/history/ids?*", first=1)
    page.keyboard.press("Control+a")
    late.wait()
    search(page, "seed:100..103")
    count(page, "4 pictures found")
    late.come()
    assert page.locator(".selection").is_hidden()
    pick(page, 0)
    late = Late(page, "**/history/ids?*", first=1)
    search(page, "seed:100")
    late.wait()  # the selection is looked for among what was found
    search(page, "seed:104..107")
    count(page, "4 pictures found")
    pick(page, 0, 1)
    page.get_by_text("2 selected").first.wait_for()
    late.come()
    assert page.locator(".selection").get_by_text("2 selected").is_visible()


def test_the_way_out_of_a_search_without_pictures_keeps_the_focus(page: Any) -> None:
    late = Late(page, "**/history/outline*", first=1)
    search(page, "nothing of the kind")
    late.wait()
    page.get_by_role("button", name="Show all pictures").focus()
    late.come()
    page.keyboard.press("Enter")
    count(page, "12 pictures")
    wait_for(page, "document.activeElement.dataset.index === '0'")


def test_tags_and_notes_are_kept_and_found(page: Any) -> None:
    page.locator(".cell[data-index='0']").click()
    page.get_by_role("combobox", name="Add a tag").fill("to print")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Remove the tag to print").wait_for()
    notes, late = page.get_by_role("textbox", name="Notes"), Late(page, "**/notes", first=1)
    notes.fill("for the")
    notes.blur()
    late.wait()
    notes.fill("for the kitchen")
    notes.blur()
    late.come()
    page.get_by_text("Saved.").wait_for()
    page.locator(".sharing > summary").click()
    page.get_by_role("button", name="Make a link").press("Enter")
    page.get_by_role("button", name="End", exact=True).press("Enter")
    page.get_by_text("The link has ended.").wait_for()
    wait_for(page, "!document.querySelector('.links').childElementCount")
    assert page.evaluate("document.activeElement.closest('.sharing') !== null")
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    search(page, 'tag:"to print" kitchen')
    count(page, "1 picture found")


def test_two_pictures_are_compared(page: Any) -> None:
    box = compared(page)
    slider = box.get_by_role("slider")
    slider.press("Home")
    assert box.locator(".pair").evaluate("node => node.style.getPropertyValue('--at')") == "0%"
    box.get_by_role("button", name="Side by side").click()
    assert slider.is_hidden()


def test_a_selection_is_downloaded_as_one_archive(page: Any, studio_server: RunningServer) -> None:
    pick(page, 0, 2)
    with page.expect_download() as started:
        page.locator(".selection").get_by_role("button", name="Download").click()
    with zipfile.ZipFile(io.BytesIO(Path(started.value.path()).read_bytes())) as archive:
        assert sorted(name.rpartition("-")[2] for name in archive.namelist()) == ["109.png", "111.png"]


def test_a_replay_says_that_the_pixels_are_identical_and_joins_the_family(
    new_page: NewPage, studio_server: RunningServer
) -> None:
    body = json.dumps({"prompt": "a rocket", "steps": 2, "seed": 5, "width": 64, "height": 64, "batch_size": 2})
    job = json.loads(studio_server.post("/jobs", body.encode(), {"content-type": "application/json"}).body)["id"]
    deadline = time.monotonic() + 120
    while studio_server.json(f"/jobs/{job}")["state"] != "done":
        assert time.monotonic() < deadline
        time.sleep(0.2)
    made = studio_server.json(f"/history?q=job:{job}")["cards"]
    second = max(made, key=lambda card: card["picture_index"])["id"]
    page = new_page(f"/?picture={second}")
    viewer = page.get_by_role("dialog", name="Picture")
    viewer.locator("[data-do=replay]").wait_for()
    page.keyboard.press("r")
    viewer.get_by_text("Every pixel is the same.").wait_for(timeout=120_000)
    viewer.get_by_role("treeitem").nth(1).wait_for()
    assert viewer.get_by_role("treeitem").all_text_contents()[1].startswith("replay, identical")
    asked = page.evaluate("latent.history.replay.request({ seed: '9007199254740993', steps: 2 }, false)")
    assert json.loads(asked) == {"changes": {"seed": 2**53 + 1, "steps": 2}, "anyway": False}
    viewer.locator("summary", has_text="Replay with").click()
    viewer.get_by_role("textbox", name="Seed").fill("77")
    viewer.get_by_role("button", name="Make it").press("Enter")
    until(lambda: focused(page) == "Replay with")  # its box is closed
    viewer.get_by_text("The new picture is a child of this one.").wait_for(timeout=120_000)
    viewer.get_by_role("treeitem", name="seed 77").wait_for()
    viewer.get_by_role("button", name="Use in txt2img").click()
    wait_for(page, "document.querySelector('#f-prompt textarea')?.value === 'a rocket'")
    assert page.locator("#f-seed textarea, #f-seed input").first.input_value() == "6"


def test_earlier_prompts_come_back_by_the_arrow_keys(new_page: NewPage, studio_server: RunningServer) -> None:
    known = [entry["prompt"] for entry in studio_server.json("/history/prompts")["prompts"]]
    studio_server.post("/history/drafts/txt2img", b'{"data": null}', {"content-type": "application/json"})
    page = new_page()
    area = page.locator("#f-prompt textarea")
    with page.expect_response(lambda response: "/history/prompts?" in response.url):
        area.fill("")
    page.wait_for_timeout(500)
    for prompt in known[:2]:
        page.keyboard.press("ArrowUp")
        assert area.input_value() == prompt
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert area.input_value() == ""
    area.fill("my own words")
    page.keyboard.press("ArrowUp")
    assert area.input_value() == "my own words"
    page.get_by_role("button", name="Earlier").click()
    page.get_by_role("combobox", name="Search earlier prompts").fill("lighthouse")
    page.get_by_role("option", name="a lighthouse").wait_for()
    wait_for(page, "document.querySelectorAll('#prompt-list li').length === 1")
    page.keyboard.press("Enter")
    wait_for(page, "document.querySelector('#f-prompt textarea')?.value === 'a lighthouse'")


def test_an_earlier_prompt_is_taken_from_the_search_that_was_typed(page: Any) -> None:
    page.get_by_role("tab", name="txt2img").click()
    page.get_by_role("button", name="Earlier").click()
    page.get_by_role("option", name="a lighthouse").wait_for()
    page.get_by_role("combobox", name="Search earlier prompts").fill("green")
    page.keyboard.press("Enter")  # before its answer is here
    wait_for(page, "latent.form.values.prompt === 'a green castle'", timeout=5_000)


def test_a_walk_through_earlier_prompts_goes_on_when_the_list_is_read_anew(
    new_page: NewPage, studio_server: RunningServer
) -> None:
    known = [entry["prompt"] for entry in studio_server.json("/history/prompts")["prompts"]]
    studio_server.post("/history/drafts/txt2img", b'{"data": null}', {"content-type": "application/json"})
    page = new_page()
    area = page.locator("#f-prompt textarea")
    with page.expect_response(lambda response: "/history/prompts?" in response.url):
        area.fill("")
    frames(page)
    page.locator("#f-negative_prompt textarea").focus()
    page.wait_for_timeout(1600)  # the list is read anew after so long
    late = Late(page, "**/history/prompts?*")
    area.focus()
    late.wait()
    for prompt in known[:2]:
        page.keyboard.press("ArrowUp")
        assert area.input_value() == prompt
    late.come()
    page.keyboard.press("ArrowUp")
    assert area.input_value() == known[2]


def test_a_draft_that_comes_late_never_replaces_what_is_typed_already(
    new_page: NewPage, studio_server: RunningServer
) -> None:
    page = new_page()
    body = json.dumps({"data": {"prompt": "typed elsewhere", "steps": 7}}).encode()
    studio_server.post("/history/drafts/txt2img", body, {"content-type": "application/json"})
    late = Late(page, "**/history/drafts/*", first=1, method="GET")
    page.reload()
    page.wait_for_selector("html[data-ready]")
    late.wait()
    page.locator("#f-prompt textarea").fill("typed here")
    wait_for(page, "latent.form.values.prompt === 'typed here'")
    late.come()
    frames(page)
    assert page.locator("#f-prompt textarea").input_value() == "typed here"
    draft = "/history/drafts/txt2img"
    until(lambda: page.wait_for_timeout(50) or studio_server.json(draft)["data"]["prompt"] == "typed here")


def test_what_is_typed_is_there_in_another_browser(new_page: NewPage, studio_server: RunningServer) -> None:
    first = new_page()
    first.locator("#f-prompt textarea").fill("typed on the first machine")
    deadline = time.monotonic() + 20
    while (studio_server.json("/history/drafts/txt2img")["data"] or {}).get("prompt") != "typed on the first machine":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    second = new_page()
    wait_for(second, "document.querySelector('#f-prompt textarea')?.value === 'typed on the first machine'")
    assert first.evaluate("latent.drafts.wins({data: {}, updated: 5}, {seen: 4, typed: 0})")
    assert not first.evaluate("latent.drafts.wins({data: {}, updated: 5}, {seen: 4, typed: 6})")
    assert not first.evaluate("latent.drafts.wins({data: null, updated: null}, {seen: 0, typed: 0})")


def test_an_inpainting_is_there_in_another_browser_with_its_picture_and_mask(
    new_page: NewPage, studio_server: RunningServer
) -> None:
    def wait_for_draft(**wanted: str) -> None:
        deadline = time.monotonic() + WAIT / 1000
        while not wanted.items() <= (draft := studio_server.json("/history/drafts/txt2img")["data"] or {}).items():
            assert time.monotonic() < deadline, draft
            time.sleep(0.1)

    first = new_page()
    painting.open_tab(first, "inpaint")
    painting.choose(first, painting.picture())
    painting.stroke(first, (40, 40), (90, 60))
    first.locator("#f-prompt textarea").fill("half a wall")
    mask = painting.mask_of(first)
    wait_for(first, "latent.form.values['inpaint.mask']")
    references = first.evaluate("[latent.form.values['init.image'], latent.form.values['inpaint.mask']]")
    wait_for_draft(**{"mode": "inpaint", "prompt": "half a wall", "inpaint.mask": references[1]})
    second = new_page()
    wait_for(second, "latent.form.values.mode === 'inpaint' && latent.form.values.prompt === 'half a wall'")
    second.locator("#tab-img2img-button").click()
    wait_for(second, "latent.canvas?.surface?.data.some(Boolean)")
    assert painting.mask_of(second).tobytes() == mask.tobytes()
    assert second.evaluate("[latent.form.values['init.image'], latent.form.values['inpaint.mask']]") == references
    second.evaluate("latent.form.set({ mode: 'txt2img', 'init.image': '', 'inpaint.mask': '' }, true)")
    wait_for_draft(**{"mode": "txt2img", "init.image": ""})


def test_the_tab_says_when_the_history_cannot_be_written(page: Any) -> None:
    trouble = {"banner": "The disk is full.", "busy": False}
    page.context.route("**/history/status", lambda route: route.fulfill(json=trouble))
    page.reload()
    open_tab(page)
    page.locator(".history").get_by_text("The disk is full. Pictures are still saved").wait_for()
    page.locator(".foot").get_by_text("The disk is full.").wait_for()


def test_nothing_scrolls_sideways_on_a_phone(new_page: NewPage) -> None:
    page = new_page(width=390, height=844)
    open_tab(page)
    pick(page, 0, 1)
    wide = "document.documentElement.scrollWidth > innerWidth"
    assert not page.evaluate(wide)
    page.keyboard.press("Escape")
    page.locator(".cell[data-index='0']").click()
    page.wait_for_selector(".panel table")
    assert not page.evaluate("document.querySelector('#history-viewer').scrollWidth > innerWidth")
    small = page.evaluate(
        "[...document.querySelectorAll('#history-viewer .top button')]"
        ".filter(node => node.offsetParent && node.getBoundingClientRect().height < 44).map(node => node.title)"
    )
    assert small == []
    assert page.locator("#history-viewer [data-do=replay]").bounding_box()["height"] < 60


def test_a_search_is_completed_where_the_caret_stands(page: Any) -> None:
    assert page.evaluate("latent.history.suggest('cat sa', 6).map(s => s.label)") == ["sampler:"]
    assert page.evaluate("latent.history.suggest('is:mi', 5).map(s => s.text)") == ["is:missing "]
    assert page.evaluate("latent.history.complete('cat sa fog', 6, 'sampler:')") == {
        "text": "cat sampler:fog", "caret": 12,
    }  # fmt: skip
    assert page.evaluate("latent.history.termAt('tag:\"two words', 14).value") == "two words"
    assert page.evaluate("latent.history.suggest('tag:p', 5, () => ['to print'])[0].text") == 'tag:"to print" '


def test_a_hundred_thousand_pictures_scroll_with_few_nodes(new_page: NewPage, studio_server: RunningServer) -> None:
    seed_many(studio_server.outputs / "history.sqlite", MANY)
    page = new_page()
    open_tab(page)
    known = sum(block[1] for block in studio_server.json("/history/outline")["blocks"])
    assert known > MANY
    count(page, f"{known:,} pictures")
    height = page.evaluate("document.documentElement.scrollHeight")
    most = 0
    for share in (0.1, 0.5, 0.75, 1.0, 0.33):
        page.evaluate("share => scrollTo(0, document.documentElement.scrollHeight * share)", share)
        wait_for(page, "document.querySelectorAll('.cell').length > 10 && !document.querySelector('.cell[aria-busy]')")
        most = max(most, page.evaluate("document.querySelectorAll('.history-grid *').length"))
        assert page.evaluate("document.documentElement.scrollHeight") == height  # nothing jumps
    assert most < 3000
    page.evaluate("scrollTo(0, 0)")
    search(page, "seed:54321")
    count(page, "1 picture found")


def seed_many(file: Path, number: int) -> None:
    """Rows like the newest one, a minute apart, further and further back."""
    with sqlite3.connect(file, timeout=30) as db:
        db.execute(
            "WITH RECURSIVE back(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM back WHERE n < ?)"
            " INSERT INTO pictures (position, created, day, user, state, shown, folder, path, text, checkpoint,"
            " sampler, seed, width, height, steps, cfg_scale, job, picture_index, relation, pixels_sha256, thumbnail)"
            " SELECT position - n * 60000, created - n * 60, date(created - n * 60, 'unixepoch'), user, 'missing', 1,"
            " folder, 'many/' || n || '.png', text, checkpoint, sampler, n, width, height, steps, cfg_scale, '', 0, '',"
            " '', thumbnail FROM back JOIN (SELECT * FROM pictures WHERE id = 12)",
            (number,),
        )
        db.execute(
            "INSERT INTO details SELECT p.id, '', '', '{}', '{}', '{}', 0, '' FROM pictures p"
            " WHERE NOT EXISTS (SELECT 1 FROM details WHERE picture = p.id)"
        )
    db.close()
