"""Several people on one server: signing in and out, what each sees, and another device by its QR code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from running_server import RunningServer
from steps import focused, generate, ready, set_values, wait_for, wait_for_end

from webui.accounts import Accounts

pytestmark = pytest.mark.browser
PASSWORD = "correct horse"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("people")
    accounts = Accounts(folder / "users.json")
    accounts.add("root", PASSWORD, admin=True)
    accounts.add("ann", PASSWORD)
    accounts.add("bob", PASSWORD)
    token = accounts.new_token("root")
    with RunningServer(folder, host="0.0.0.0", headers={"authorization": f"Bearer {token}"}) as running:
        running.wait_until_ready(worker=True)
        yield running


def signed_in(pages: Any, server: RunningServer, name: str, **options: Any) -> Any:
    page = pages.context(**options).new_page()
    page.goto(server.url)
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    return ready(page)


def test_a_wrong_password_says_so_and_a_right_one_opens_the_page(pages: Any, server: RunningServer) -> None:
    page = pages.context().new_page()
    page.goto(server.url)
    page.get_by_label("Name").fill("ann")
    page.get_by_label("Password").fill("wrong")
    page.get_by_role("button", name="Sign in").click()
    page.get_by_text("The name or the password is wrong.").wait_for()
    page.get_by_label("Name").fill("ann")
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    ready(page)
    assert page.get_by_role("button", name="Sign out ann").is_visible()


def test_each_sees_their_own_jobs_and_pictures_and_an_administrator_all(pages: Any, server: RunningServer) -> None:
    ann = signed_in(pages, server, "ann")
    set_values(ann, prompt="a picture of ann's", steps=2)
    job = generate(ann)
    picture = "/outputs/" + wait_for_end(ann, job)["images"][0]["path"]
    status = "async path => (await fetch(path)).status"
    assert ann.evaluate(status, picture) == 200
    bob, root = signed_in(pages, server, "bob"), signed_in(pages, server, "root")
    assert bob.evaluate(status, picture) == 404
    assert bob.evaluate(status, f"/jobs/{job}") == 404
    assert root.evaluate(status, picture) == 200
    for page, shown in ((bob, 0), (root, 1)):
        page.get_by_role("tab", name="Queue").click()
        wait_for(page, "document.querySelector('.queue section:not([hidden]), .queue p:not([hidden])')")
        assert page.locator(".queue .job", has_text="a picture of ann's").count() == shown
        count = page.evaluate("async () => (await (await fetch('history/ids')).json()).ids.length")
        assert count == shown
    for page, may in ((bob, False), (root, True)):
        page.evaluate("latent.styles.open()")
        page.locator("#styles").get_by_text("No styles yet.").wait_for()
        assert page.get_by_role("button", name="New from the prompt").is_visible() == may
        page.keyboard.press("Escape")
    root.get_by_role("tab", name="txt2img").click()
    set_values(root, prompt="mine", steps=1, width=64, height=64)
    wait_for_end(root, generate(root))
    for page in (bob, root):
        page.get_by_role("tab", name="History").click()
    whose = root.get_by_label("Whose pictures")
    whose.wait_for()
    assert whose.locator("option").all_inner_texts() == ["Everybody's pictures", "ann (1)", "My pictures (1)"]
    root.locator(".history-grid [data-id]").nth(1).wait_for()
    assert root.get_by_role("gridcell", name="a picture of ann's, by ann").count() == 1
    whose.select_option("ann")
    wait_for(root, "document.querySelectorAll('.history-grid [data-id]').length === 1")
    assert root.get_by_label("Search the history").input_value() == "user:ann"
    whose.select_option("Everybody's pictures")
    wait_for(root, "document.querySelectorAll('.history-grid [data-id]').length === 2")
    bob.locator(".history-empty").get_by_text("No pictures yet").wait_for()
    assert bob.get_by_label("Whose pictures").is_hidden()
    assert root.evaluate("latent.history.withUser('user:ann castle', 'bob b')") == 'user:"bob b" castle'
    assert root.evaluate("latent.history.withUser('castle user:\"bob b\" fog')") == "castle fog"
    assert bob.locator("#tab-settings-button").is_hidden()
    assert root.locator("#tab-settings-button").is_visible()
    saved = bob.evaluate(
        """async () => {
          const config = window.gradio_config;
          const settings = config.components.find((c) => c.props?.server_fns?.includes("save_setting"));
          const body = { data: { key: "queue.max_pending", value: 1 }, component_id: settings.id,
            fn_name: "save_setting", session_hash: "x" };
          const answer = await fetch("gradio_api/component_server/", { method: "POST", body: JSON.stringify(body),
            headers: { "content-type": "application/json" } });
          return [answer.status, await answer.json()]; }"""
    )
    assert saved == [200, {"error": "Settings are for administrators alone."}]


def test_another_device_signs_in_by_the_link_of_the_dialog(pages: Any, server: RunningServer) -> None:
    ann = signed_in(pages, server, "ann", viewport={"width": 390, "height": 844})
    ann.get_by_role("button", name="Share on this network").click()
    dialog = ann.get_by_role("dialog", name="Share on this network")
    code = dialog.get_by_role("img", name="QR code of the link")
    code.wait_for()
    assert code.evaluate("image => image.decode().then(() => image.naturalWidth > 0)")
    assert ann.evaluate("document.documentElement.scrollWidth <= innerWidth")
    first = dialog.locator("code").first.inner_text()
    dialog.get_by_role("button", name="Another link").press("Enter")
    wait_for(ann, "first => document.querySelector('#share-dialog code').textContent !== first", arg=first)
    assert focused(ann) == "Another link"
    link = dialog.locator("code").first.inner_text()
    assert re.fullmatch(r"http://[\w.:-]+/\?token=[\w-]{20,}", link)
    phone = pages.context().new_page()
    phone.goto(server.url + "/" + link.rpartition("/")[2])  # by loopback: tests reach no network
    ready(phone)
    assert phone.get_by_role("button", name="Sign out ann").is_visible()
    assert "token" not in phone.url


def test_signing_out_leaves_nothing_of_what_was_typed(pages: Any, server: RunningServer) -> None:
    page = signed_in(pages, server, "ann")
    set_values(page, prompt="something private")
    wait_for(page, "localStorage.getItem('latent.form')?.includes('private')")
    page.get_by_role("button", name="Sign out ann").click()
    page.get_by_role("button", name="Sign in").wait_for()
    assert page.evaluate("JSON.stringify(localStorage)") == "{}"
    page.goto(server.url)
    assert page.get_by_label("Password").is_visible()
