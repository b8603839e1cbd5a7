"""H106-H110: several people on one queue: each sees and steers their own, and every picture is what it says."""

from __future__ import annotations

import io
import json
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from embedded import EMBEDDED_CHECKPOINT
from painter import Atelier
from people import SMALL, as_base64, over, sdapi, submit, wait_until_running
from PIL import Image

# --- whose ------------------------------------------------------------------------------------------------------------


def test_H106_nobody_sees_anothers_job_preview_progress_or_pictures(house: Atelier) -> None:
    done = over(house, submit(house, "ann"), "ann")
    picture = done["images"][0]["path"]
    house.hold()
    running = submit(house, "ann", "held")
    wait_until_running(house, running, "ann")
    try:
        bob = {"x-user": "bob"}
        for address in (
            f"/jobs/{done['id']}",
            f"/jobs/{running}",
            f"/jobs/{running}/preview.jpg",
            f"/jobs/{running}/events",
            f"/jobs/{done['id']}/pictures/0.png",
            f"/outputs/{picture}",
        ):
            assert house.client.get(address, headers=bob).status_code == 404, address
        assert house.client.post("/inputs", params={"output": picture}, headers=bob).status_code == 404
        assert house.client.get("/jobs", headers=bob).json() == {"jobs": []}
        assert house.client.get("/status", headers=bob).json()["running"] == []
        progress = house.client.get("/sdapi/v1/progress", headers=bob).json()
        assert progress["current_image"] is None
        assert progress["state"]["job"] == ""
        for address in ("/status", "/sdapi/v1/progress"):
            assert "held" not in house.client.get(address, headers=bob).text
        assert house.client.get(f"/outputs/{picture}", headers={"x-user": "ann"}).status_code == 200
        assert house.client.get(f"/jobs/{running}", headers={"x-user": "root"}).status_code == 200
    finally:
        house.let_go()
    over(house, running, "ann")


def test_H106_a_picture_to_start_from_is_for_whoever_brought_it_or_made_something_from_it(house: Atelier) -> None:
    ann, bob, root = ({"x-user": name} for name in ("ann", "bob", "root"))
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "orchid").save(buffer, "PNG")
    brought = house.client.post("/inputs", content=buffer.getvalue(), headers=ann).json()
    reference = brought["reference"]
    start = {"prompt": "x", "steps": 1, "width": 64, "height": 64, "init": {"image": reference}}

    def seen(who: dict[str, str]) -> list[int]:
        asked = [house.client.get(brought["url"] + more, headers=who).status_code for more in ("", "/info")]
        return [*asked, house.client.post("/jobs", json=start, headers=who).status_code]

    submit(house, "bob", reference)  # as a prompt it is no picture
    assert seen(bob) == [404, 404, 404]
    assert seen(ann) == [200, 200, 201]
    assert seen(root) == [200, 200, 201]
    assert sdapi(house, "img2img", {**SMALL, "init_images": [as_base64(Image.new("RGB", (64, 64)))]}, "bob").is_success
    assert seen(bob) == [404, 404, 404]
    for mark in house.paths.outputs.rglob("*.user"):
        mark.unlink()
    assert seen(ann) == [200, 200, 201], "a job of hers was made from it"
    house.client.post("/inputs", content=buffer.getvalue(), headers=bob)
    assert seen(bob) == [200, 200, 201], "he has it himself"


def test_H107_nobody_stops_skips_moves_or_repeats_anothers_job(house: Atelier) -> None:
    house.hold()
    running = submit(house, "ann", "held")
    waiting = submit(house, "ann")
    wait_until_running(house, running, "ann")
    bob = {"x-user": "bob"}
    for job in (running, waiting):
        for action in ("interrupt", "skip", "cancel", "move-up", "retry"):
            answer = house.client.post(f"/jobs/{job}/{action}", headers=bob)
            assert answer.status_code == 403, action
            assert answer.json()["error"] == "Forbidden"
        assert house.client.post(f"/jobs/{job}/move", json={"position": 0}, headers=bob).status_code == 403
    assert house.client.post("/jobs/no-such-job/interrupt", headers=bob).status_code == 404
    for route in ("interrupt", "skip"):
        answer = sdapi(house, route, {}, "bob")
        assert answer.status_code == 403
        assert answer.json()["detail"].startswith("The job that runs is somebody else's.")
    assert house.client.get(f"/jobs/{running}", headers={"x-user": "ann"}).json()["state"] == "running"
    house.let_go()
    assert over(house, running, "ann")["state"] == "done"
    assert over(house, waiting, "ann")["state"] == "done"
    assert sdapi(house, "interrupt", {}, "bob").status_code == 200  # nothing runs any more


def test_H107_an_administrator_ends_anybodys_job(house: Atelier) -> None:
    house.hold()
    running = submit(house, "ann", "held")
    wait_until_running(house, running, "ann")
    assert sdapi(house, "interrupt", {}, "root").status_code == 200
    assert over(house, running, "ann")["state"] == "interrupted"
    house.let_go()


def test_users_take_turns_and_each_is_told_the_place(house: Atelier) -> None:
    house.hold()
    running = submit(house, "cid", "held")
    wait_until_running(house, running, "cid")
    ann = [submit(house, "ann", f"ann {n}") for n in range(3)]
    bob = submit(house, "bob", "bob's only one")

    def place(job: str, user: str) -> Any:
        return house.client.get(f"/jobs/{job}", headers={"x-user": user}).json()["position"]

    places = sorted([place(bob, "bob"), *(place(job, "ann") for job in ann)])
    assert places == [0, 1, 2, 3]
    assert place(bob, "bob") <= 1
    house.let_go()
    for job in ann:
        over(house, job, "ann")
    assert over(house, bob, "bob")["finished"] < over(house, ann[1], "ann")["finished"]


def test_H108_H109_every_picture_names_the_checkpoint_that_its_own_request_named(house: Atelier) -> None:
    names = (EMBEDDED_CHECKPOINT.stem, "second", "third")

    def make(number: int) -> None:
        user, name = f"user{number % 5}", names[number % 3]
        if number % 4 == 0:
            house.client.post(
                "/models/select", json={"checkpoint": names[(number + 1) % 3]}, headers={"x-user": "root"}
            )
            changed = {"samples_format": "png", "sd_model_checkpoint": names[(number + 2) % 3]}
            assert sdapi(house, "options", changed, "root").status_code == 200
        body = {
            **SMALL,
            "prompt": f"number {number}",
            "seed": number,
            "override_settings": {"sd_model_checkpoint": name},
        }
        answer = sdapi(house, "txt2img", body, user)
        assert answer.status_code == 200, answer.text
        text = json.loads(answer.json()["info"])["infotexts"][0]
        assert text.startswith(f"number {number}\n"), text
        assert f"Seed: {number}," in text
        assert re.search(rf"Model: {name}(,|$)", text), text

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(make, range(30)))
    sdapi(house, "options", {"sd_model_checkpoint": names[0]}, "root")


def test_H110_one_task_id_of_two_people_is_two_tasks_and_a_key_twice_is_one_job(house: Atelier) -> None:
    for user in ("ann", "bob"):
        answer = sdapi(house, "txt2img", {**SMALL, "prompt": f"of {user}", "force_task_id": "task(same)"}, user)
        assert answer.status_code == 200, answer.text
        assert json.loads(answer.json()["info"])["infotexts"][0].startswith(f"of {user}")
    assert sdapi(house, "txt2img", {**SMALL, "force_task_id": "task(same)"}, "ann").status_code == 200
    body = {"prompt": "once", "steps": 1, "width": 64, "height": 64}
    made = {
        house.client.post("/jobs", json=body, headers={"x-user": "ann", "idempotency-key": "k"}).json()["id"]
        for _ in range(5)
    }
    assert len(made) == 1


def test_styles_are_everybodys_and_written_by_administrators_alone(house: Atelier) -> None:
    style = {"name": "ink", "prompt": "{prompt}, ink", "negative_prompt": ""}
    ann, root = {"x-user": "ann"}, {"x-user": "root"}
    assert house.client.post("/styles", json=style, headers=ann).status_code == 403
    assert house.client.post("/styles", json=style, headers=root).status_code == 200
    assert [one["name"] for one in house.client.get("/styles", headers=ann).json()["styles"]] == ["ink"]
    answer = sdapi(house, "txt2img", {**SMALL, "prompt": "a crane", "styles": ["ink"]}, "ann")
    assert json.loads(answer.json()["info"])["prompt"] == "a crane, ink"
    assert house.client.post("/styles/delete", json={"name": "ink"}, headers=ann).status_code == 403
    assert house.client.post("/styles/delete", json={"name": "ink"}, headers=root).status_code == 200
