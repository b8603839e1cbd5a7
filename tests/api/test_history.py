"""The history over HTTP: everything the page's tab needs, for each viewer what is theirs."""

from __future__ import annotations

import io
import json
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient
from history_studio import Studio
from PIL import Image

from webui.api.common import add_error_handlers
from webui.api.history import Viewer, history_routes
from webui.catalog import Catalog
from webui.errors import NotFound, QueueFull
from webui.history import History, Recorder
from webui.inputs import InputRights, InputStore
from webui.params import GenerationParams
from webui.paths import Paths


@dataclass
class Jobs:
    """Takes jobs, as `jobs.service.JobService.submit` does."""

    taken: list[tuple[GenerationParams, str]] = field(default_factory=list)
    full: bool = False

    def submit(self, params: GenerationParams, user: str = "") -> str:
        if self.full:
            raise QueueFull("The queue is full.")
        self.taken.append((params, user))
        return f"job{len(self.taken)}"


@dataclass
class Site:
    """The routes over a real history, and who asks is said in a header."""

    studio: Studio
    history: History
    jobs: Jobs
    client: TestClient

    def get(self, address: str, user: str = "", **words: Any) -> Any:
        return self.client.get(address, headers={"x-user": user}, **words)

    def post(self, address: str, body: Any, user: str = "") -> Any:
        return self.client.post(address, json=body, headers={"x-user": user})


def viewer_of(request: Request) -> Viewer:
    name = request.headers.get("x-user", "")
    return Viewer(name, admin=name == "admin")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    paths = Paths.under(tmp_path / "data")
    paths.make_folders()
    recorder, history, jobs, catalog = Recorder(paths), History(paths), Jobs(), Catalog(paths)
    rights = InputRights(InputStore(paths.outputs), history.made_from)
    app = FastAPI()
    add_error_handlers(app)
    app.include_router(history_routes(history, jobs, catalog, rights, viewer_of))  # type: ignore[arg-type]
    studio = Studio(paths, recorder, models=())
    with TestClient(app, base_url="http://127.0.0.1") as client:
        yield Site(studio, history, jobs, client)
    history.stop()
    recorder.close()
    catalog.close()


def test_pages_lead_from_the_newest_to_the_oldest_and_back(site: Site) -> None:
    for seed in range(5):
        site.studio.save(seed=seed)
    first = site.get("/history", params={"limit": 2}).json()
    assert [card["seed"] for card in first["cards"]] == [4, 3]
    assert first["newer"] == ""
    second = site.get("/history", params={"limit": 2, "after": first["older"]}).json()
    assert [card["seed"] for card in second["cards"]] == [2, 1]
    back = site.get("/history", params={"limit": 2, "before": second["newer"]}).json()
    assert back["cards"] == first["cards"]
    last = site.get("/history", params={"limit": 2, "after": second["older"]}).json()
    assert ([card["seed"] for card in last["cards"]], last["older"]) == ([0], "")
    linked = site.get("/history/3").json()  # the grid opens at a picture
    around = [site.get("/history", params={way: linked["cursor"]}).json()["cards"] for way in ("before", "after")]
    assert [[card["id"] for card in cards] for cards in around] == [[5, 4], [2, 1]]


def test_a_search_names_what_it_did_not_understand(site: Site) -> None:
    site.studio.save(prompt="a castle")
    found = site.get("/history", params={"q": "castle size:big"}).json()
    assert len(found["cards"]) == 1
    assert found["problems"][0].startswith("size:")
    assert site.get("/history/days", params={"q": "castle"}).json()[0]["count"] == 1
    assert site.get("/history/ids", params={"q": "castle"}).json() == {"ids": [1]}
    assert site.get("/history/status").json() == {"banner": "", "busy": False}


def test_a_picture_is_shown_with_everything_but_paths_of_this_machine(site: Site, tmp_path: Path) -> None:
    params = site.studio.params(batch_count=2, prompt="a castle")
    path = site.studio.save(params, index=1)
    answer = site.get("/history/1")
    view = answer.json()
    assert view["params"] == json.loads(params.single(1).canonical_json())
    assert (view["seed"], view["state"], view["name"]) == (8, "present", path.name)
    assert view["path"] == path.relative_to(site.studio.paths.outputs).as_posix()
    assert view["environment"]["torch"] == "2.13.0"
    folder = tmp_path / "secret folder"
    folder.mkdir()
    Image.open(path).save(folder / "x.png")
    site.history.import_folder(folder, everything=True)
    imported = site.get("/history/2")
    assert imported.json()["path"] is None
    assert "secret folder" not in imported.text
    assert site.get("/history/2/file").status_code == 200


def test_the_file_and_its_thumbnail_are_served_as_they_are(site: Site) -> None:
    path = site.studio.save(seed=1)
    view = site.get("/history/1").json()
    file = site.get("/" + view["file"])
    assert file.content == path.read_bytes()
    assert file.headers["content-type"] == "image/png"
    assert "inline" in file.headers["content-disposition"]
    assert "attachment" in site.get("/history/1/file", params={"download": True}).headers["content-disposition"]
    thumbnail = site.get("/" + view["thumbnail"])
    assert Image.open(io.BytesIO(thumbnail.content)).format == "WEBP"
    assert "immutable" in thumbnail.headers["cache-control"]
    assert site.get("/history/1/thumbnail.webp?v=old").headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "address",
    [
        "/history/0", "/history/-1", "/history/99", "/history/abc", "/history/1.5", "/history/9223372036854775808",
        "/history/..%2f..%2fetc%2fpasswd/file", "/history/%2e%2e/file", "/history/1%00/file", "/history/file:/file",
        "/history/C:/file", "/history/1::$DATA/file", "/history//etc/passwd/file",
        "/history/..\\..\\x/thumbnail.webp", "/shared/..%2f..%2fx", "/shared/x/picture", "/history/drafts/..%2fx",
        "/history/1%2f..%2f2/file", "/history/zip?ids=../x", "/history/zip?ids=99", "/history/compare?ids=1",
        "/history?after=../x", "/history?limit=0", "/history?limit=501",
    ],
)  # fmt: skip
def test_H102_no_name_and_no_number_leads_anywhere_else(address: str, site: Site) -> None:
    site.studio.save(seed=1)
    answer = site.get(address)
    assert answer.status_code in (404, 422), answer.text
    assert str(site.studio.paths.data_dir) not in answer.text
    assert "Traceback" not in answer.text


def test_H102_a_link_in_the_outputs_folder_leads_nowhere_else(site: Site, tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"secret")
    path = site.studio.save(seed=1)
    site.studio.save(seed=2)
    path.unlink()
    path.symlink_to(secret)
    site.history.thumbnails.drop(site.history.get("", 1).record.thumbnail)
    for address in ("/history/1/file", "/history/1/thumbnail.webp", "/history/zip?ids=1"):
        assert site.get(address).status_code == 404, address
    archive = zipfile.ZipFile(io.BytesIO(site.get("/history/zip?ids=1,2").content))
    assert [name.split("-")[0] for name in archive.namelist()] == ["00001"]


READS = [
    "/history/{id}", "/history/{id}/file", "/history/{id}/thumbnail.webp", "/history/{id}/similar",
    "/history/{id}/family", "/history/{id}/replay", "/history/{id}/difference/{id}", "/history/zip?ids={id}",
    "/history/compare?ids={id},{id}",
]  # fmt: skip
WRITES: list[tuple[str, Callable[[int], Any]]] = [
    ("/history/{id}/notes", lambda one: {"notes": "x"}),
    ("/history/{id}/replay", lambda one: {}),
    ("/history/{id}/share", lambda one: {}),
    ("/history/shares/{id}/revoke", lambda one: {}),
]


@pytest.mark.parametrize("address", READS)
def test_H106_what_is_somebody_elses_is_answered_like_what_does_not_exist(address: str, site: Site) -> None:
    site.studio.save_for("anna", seed=1)
    mine = site.get(address.format(id=1), "anna")
    theirs, nothing = site.get(address.format(id=1), "ben"), site.get(address.format(id=77), "ben")
    assert mine.status_code == 200, mine.text
    assert theirs.status_code == nothing.status_code == 404
    assert theirs.json() == nothing.json()
    assert site.get(address.format(id=1), "admin").status_code == 200


@pytest.mark.parametrize(("address", "body"), WRITES)
def test_H106_nobody_changes_what_is_somebody_elses(address: str, body: Callable[[int], Any], site: Site) -> None:
    site.studio.save_for("anna", seed=1)
    site.history.share("anna", 1)
    before = site.history.get("anna", 1)
    theirs, nothing = site.post(address.format(id=1), body(1), "ben"), site.post(address.format(id=77), body(77), "ben")
    assert theirs.status_code == nothing.status_code == 404
    assert theirs.json() == nothing.json()
    for action, fields in (
        ("favourite", {"favourite": True}),
        ("tags", {"add": ["x"]}),
        ("delete", {}),
        ("restore", {}),
    ):
        answer = site.post(f"/history/{action}", {"ids": [1], **fields}, "ben").json()
        assert not answer.get("changed"), answer
        assert not answer.get("ids"), answer
    assert site.post("/history/trash/empty", {"ids": None}, "ben").json() == {"changed": 0}
    assert site.history.get("anna", 1) == before
    assert site.jobs.taken == []


def test_an_administrator_is_told_whose_pictures_there_are(site: Site) -> None:
    for user in ("ben", "", "anna", "ben"):
        site.studio.save_for(user)
    assert site.get("/history/users", "admin").json() == [
        {"user": "", "count": 1},
        {"user": "anna", "count": 1},
        {"user": "ben", "count": 2},
    ]
    assert site.get("/history/users", "ben").json() == [{"user": "ben", "count": 2}]
    assert [card["user"] for card in site.get("/history", "admin", params={"q": 'user:""'}).json()["cards"]] == [""]


def test_lists_hold_only_what_is_the_viewers(site: Site) -> None:
    site.studio.save_for("anna", seed=1, prompt="annas secret")
    site.history.change_tags("anna", [1], add=["annas tag"])
    for address in (
        "/history",
        "/history/days",
        "/history/ids",
        "/history/tags",
        "/history/users",
        "/history/prompts",
        "/history/export",
    ):
        assert "anna" not in site.get(address, "ben").text, address
        assert site.get(address, "anna").text not in ("", "[]", '{"ids":[]}')
    assert "secret" in site.get("/history", "admin").text


def test_marks_notes_and_tags(site: Site) -> None:
    for seed in range(3):
        site.studio.save(seed=seed)
    assert site.post("/history/favourite", {"ids": [1, 3, 99], "favourite": True}).json() == {
        "changed": 2,
        "ids": [1, 3],
    }
    tagged = {"changed": 2, "added": {"Sea": [1, 2]}, "removed": {"none": []}}
    assert site.post("/history/tags", {"ids": [1, 2], "add": ["Sea"], "remove": ["none"]}).json() == tagged
    again = {"changed": 3, "added": {"SEA": [3]}, "removed": {}}  # only what undoes it
    assert site.post("/history/tags", {"ids": [1, 2, 3], "add": ["SEA"]}).json() == again
    assert site.post("/history/tags", {"ids": [3], "remove": ["sea"]}).json()["removed"] == {"sea": [3]}
    assert site.post("/history/favourite", {"ids": [1, 3], "favourite": True}).json() == {"changed": 2, "ids": []}
    assert site.post("/history/2/notes", {"notes": "print"}).json()["notes"] == "print"
    assert site.get("/history/ids", params={"q": "fav:"}).json() == {"ids": [3, 1]}
    assert site.get("/history/tags").json() == [{"tag": "Sea", "count": 2}]
    assert site.get("/history/2").json()["tags"] == ["Sea"]
    assert site.post("/history/favourite", {"ids": [1], "favourite": False}).json() == {"changed": 1, "ids": [1]}


def test_deleting_and_its_undo(site: Site) -> None:
    path = site.studio.save(seed=1)
    undo = site.post("/history/delete", {"ids": [1]}).json()
    assert undo == {"ids": [1]}
    assert site.get("/history").json()["cards"] == []
    [card] = site.get("/history", params={"trash": True}).json()["cards"]
    assert card["state"] == "trashed"
    assert site.get("/history/1/file").status_code == 404
    assert site.post("/history/restore", undo).json() == {"ids": [1]}
    assert path.exists()
    site.post("/history/delete", {"ids": [1]})
    assert site.post("/history/trash/empty", {}).status_code == 422  # what is for good is said explicitly
    assert site.post("/history/trash/empty", {"ids": None}).json() == {"changed": 1}
    assert site.get("/history/1").status_code == 404


def test_an_archive_of_a_selection_or_a_search(site: Site) -> None:
    files = [site.studio.save(seed=seed) for seed in range(3)]
    for answer in (
        site.get("/history/zip", params={"ids": "1,3"}),
        site.post("/history/zip", {"ids": [1, 3]}),
        site.get("/history/zip", params={"q": "-seed:1"}),
    ):
        assert answer.headers["content-disposition"] == 'attachment; filename="pictures.zip"'
        with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
            assert sorted(archive.namelist()) == [files[0].name, files[2].name]
            assert archive.read(files[0].name) == files[0].read_bytes()


def test_a_comparison_and_a_difference(site: Site) -> None:
    site.studio.save(seed=1)
    site.studio.save(seed=1, steps=30)
    site.studio.save(seed=2)
    [row] = site.get("/history/compare", params={"ids": "1,2"}).json()
    assert (row["name"], row["values"], row["equal"]) == ("steps", ["20", "30"], False)
    assert len(site.get("/history/compare", params={"ids": "1,2", "everything": True}).json()) > 20
    same = site.get("/history/1/difference/2").json()
    assert (same["verdict"], same["max_difference"]) == ("identical", 0)
    other = site.get("/history/1/difference/3").json()
    assert other["verdict"] == "different"
    assert other["max_difference"] > 0
    assert [row["name"] for row in other["rows"]] == ["seed"]


def test_a_replay_is_queued_and_its_pictures_become_children(site: Site) -> None:
    params = site.studio.params(checkpoint=None, batch_size=2)
    site.studio.save_for("anna", params=params, index=1)
    plan = site.get("/history/1/replay", "anna").json()
    assert plan["params"]["seed"] == 8
    answer = site.post("/history/1/replay", {}, "anna")
    assert (answer.status_code, answer.json()["job"]) == (201, "job1")
    assert site.jobs.taken == [(params.single(1), "anna")]
    list(site.studio.recorder.following((site.studio.save(seed=8) and None for _ in range(1)), job="job1", user="anna"))  # type: ignore[misc]
    [root, child] = site.get("/history/1/family", "anna").json()["members"]
    assert (root["card"]["id"], child["parent"], child["relation"]) == (1, 1, "replay")
    changed = site.post("/history/1/replay", {"changes": {"seed": 5, "cfg_scale": 4, "width": 128}}, "anna").json()
    assert changed["plan"]["relation"] == "variation"
    assert (site.jobs.taken[1][0].seed, site.jobs.taken[1][0].cfg_scale) == (5, 4.0)
    assert site.post("/history/1/replay", {"changes": {"no": 1}}, "anna").status_code == 422
    assert site.post("/history/1/replay", {"changes": {"steps": "x"}}, "anna").status_code == 422
    site.jobs.full = True
    assert site.post("/history/1/replay", {}, "anna").status_code == 429


def test_a_replay_without_its_checkpoint_is_refused_unless_it_is_wanted_anyway(site: Site) -> None:
    from history_studio import CHECKPOINT

    site.studio.models = (CHECKPOINT,)
    site.studio.save(seed=1)
    refused = site.post("/history/1/replay", {})
    assert refused.status_code == 422
    assert "photo/base-v15.safetensors [6ce0161689]" in refused.json()["message"]
    assert site.get("/history/1/replay").json()["missing"][0]["kind"] == "checkpoint"
    assert site.post("/history/1/replay", {"anyway": True}).status_code == 201


def test_more_like_this(site: Site) -> None:
    for seed, prompt in enumerate(["a red lighthouse", "a cat", "a lighthouse, red sky"]):
        site.studio.save(seed=seed, prompt=prompt)
    assert site.get("/history/1/similar").json()[0]["id"] == 3


def test_a_link_shows_one_picture_to_anybody(site: Site) -> None:
    path = site.studio.save_for("anna", seed=1, prompt="private words")
    made = site.post("/history/1/share", {}, "anna")
    assert made.status_code == 201
    address = "/" + made.json()["path"]
    shown = site.get(address, "stranger").json()
    assert "private words" in shown["infotext"]
    assert site.get("/" + shown["picture"], "stranger").content == path.read_bytes()
    bare = site.post("/history/1/share", {"with_parameters": False, "days": 2}, "anna").json()
    shown = site.get("/" + bare["path"], "stranger").json()
    assert (shown["infotext"], shown["params"]) == ("", None)
    picture = site.get("/" + shown["picture"], "stranger")
    assert b"private words" not in picture.content
    assert Image.open(io.BytesIO(picture.content)).tobytes() == Image.open(path).tobytes()
    shares = site.get("/history/1/shares", "anna").json()
    assert [share["with_parameters"] for share in shares] == [False, True]
    assert site.get("/history/1/shares", "ben").json() == []
    assert site.post(f"/history/shares/{made.json()['id']}/revoke", {}, "anna").json() == {"changed": 1}
    assert site.get(address, "stranger").status_code == 404
    assert site.post("/history/1/share", {"days": -1}, "anna").status_code == 422


def test_drafts_are_each_viewers_own(site: Site) -> None:
    assert site.get("/history/drafts/txt2img", "anna").json()["data"] is None
    saved = site.post("/history/drafts/txt2img", {"data": {"prompt": "half"}}, "anna").json()
    assert saved["data"] == {"prompt": "half"}
    assert site.get("/history/drafts/txt2img", "anna").json() == saved
    assert site.get("/history/drafts/txt2img", "admin").json()["data"] is None
    assert site.post("/history/drafts/txt2img", {"data": None}, "anna").json()["data"] is None
    assert site.post("/history/drafts/TXT", {"data": {}}, "anna").status_code == 422


def test_the_prompt_history_is_paged_searched_and_forgotten(site: Site) -> None:
    for seed in range(4):
        site.studio.save(seed=seed, prompt=f"castle {seed}")
    first = site.get("/history/prompts", params={"limit": 3}).json()
    assert [prompt["prompt"] for prompt in first["prompts"]] == ["castle 3", "castle 2", "castle 1"]
    assert first["prompts"][0]["picture"] == 4
    second = site.get("/history/prompts", params={"limit": 3, "after": first["older"]}).json()
    assert ([prompt["prompt"] for prompt in second["prompts"]], second["older"]) == (["castle 0"], "")
    assert len(site.get("/history/prompts", params={"q": "CASTLE 2"}).json()["prompts"]) == 1
    one = first["prompts"][1]["id"]
    assert site.post("/history/prompts/forget", {"ids": [one]}).json() == {"changed": 1}
    assert site.post("/history/prompts/forget", {"ids": None}).json() == {"changed": 3}


def test_export_and_import(site: Site) -> None:
    site.studio.save_for("anna", seed=1, prompt="a ünïcode castle 🏰")
    lines = site.get("/history/export", "anna")
    assert lines.headers["content-type"].startswith("application/x-ndjson")
    assert json.loads(lines.text)["prompt"] == "a ünïcode castle 🏰"
    answer = site.client.post("/history/import", content=lines.content + b"\nbroken\n\xff", headers={"x-user": "ben"})
    result = answer.json()
    assert (result["added"], result["known"], result["refused"]) == (1, 0, 2)
    [card] = site.get("/history", "ben").json()["cards"]
    assert (card["prompt"], card["state"]) == ("a ünïcode castle 🏰", "missing")
    assert site.get(f"/history/{card['id']}/file", "ben").status_code == 404


def test_an_imported_line_is_no_right_to_the_picture_that_it_names(site: Site) -> None:
    """Its reference can be read in every picture that was made from it."""
    reference = "ab" * 32
    site.studio.save_for("anna", init={"image": reference})
    line = json.dumps({"latent_history": 1, "params": site.history.get("anna", 1).record.params})
    for user in ("ben", "anna"):
        assert site.client.post("/history/import", content=line, headers={"x-user": user}).json()["added"] == 1
    assert not site.history.made_from("ben", reference)
    assert site.history.made_from("anna", reference)


@pytest.mark.parametrize(
    "entries",
    [
        '"changes":{"x":NaN}',
        '"seconds":{"x":1e999}',
        '"seconds":{"x":1' + "0" * 400 + "}",
        '"changes":{"x":' + "[" * 900 + "]" * 900 + "}",
    ],
    ids=lambda text: text[:24],
)
def test_H096_a_line_with_a_value_that_no_record_has_is_refused_alone(entries: str, site: Site) -> None:
    lines = '{"latent_history":1,"prompt":"good"}\n{"latent_history":1,' + entries + "}"
    result = site.client.post("/history/import", content=lines, headers={"x-user": "ben"})
    assert (result.json()["added"], result.json()["refused"]) == (1, 1)
    assert site.get("/history/1", "ben").status_code == 200


def test_H096_half_an_emoji_and_numbers_without_bounds_spoil_nobodys_export(site: Site) -> None:
    site.studio.save_for("anna", seed=1)
    line = (
        '{"latent_history":1,"changes":{"x":["\\ud800"]},"environment":{"\\ud800":"\\ud800"},"created":1'
        + "0" * 400
        + "}"
    )
    assert site.client.post("/history/import", content=line, headers={"x-user": "ben"}).json()["added"] == 1
    assert site.get("/history/2", "ben").json()["changes"] == {"x": ["?"]}
    assert site.get("/history/2/family", "ben").status_code == 200
    assert len(site.get("/history/export", "admin").text.splitlines()) == 2


def test_an_imported_line_of_the_future_does_not_move_the_clock_of_the_others(site: Site) -> None:
    line = json.dumps({"latent_history": 1, "prompt": "later", "position": 253402299999999})
    site.client.post("/history/import", content=line, headers={"x-user": "ben"})
    site.studio.save_for("anna", seed=1, prompt="now")
    [prompt] = site.get("/history/prompts", "anna").json()["prompts"]
    assert prompt["used"] < time.time() + 3600


def test_a_draft_with_half_an_emoji_is_kept_with_a_mark_in_its_place(site: Site) -> None:
    body = b'{"data":{"prompt":"a \\ud83d\\ude00 and \\ud83d","more":[{"x":"\\ude00"}]}}'
    kept = {"prompt": "a \U0001f600 and \ufffd", "more": [{"x": "\ufffd"}]}
    answer = site.client.post("/history/drafts/form", content=body, headers={"content-type": "application/json"})
    assert answer.json()["data"] == kept
    assert site.get("/history/drafts/form").json()["data"] == kept


def test_a_replay_with_a_number_beyond_all_bounds_is_refused(site: Site) -> None:
    site.studio.save(seed=1)
    body = '{"changes":{"cfg_scale":' + "9" * 400 + "}}"
    answer = site.client.post("/history/1/replay", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert "cfg_scale" in answer.json()["message"]


def test_H102_a_line_that_names_a_folder_opens_no_file_of_it(site: Site, tmp_path: Path) -> None:
    folder = tmp_path / "home"
    folder.mkdir()
    Image.new("RGB", (8, 8)).save(folder / "photo.png")
    line = json.dumps({"latent_history": 1, "folder": str(folder), "path": "photo.png", "prompt": "x"})
    answer = site.client.post("/history/import", content=line, headers={"x-user": "admin"})
    assert answer.json()["added"] == 1
    for address in ("/history/1/file", "/history/1/thumbnail.webp", "/history/zip?ids=1"):
        assert site.get(address, "admin").status_code == 404
    site.history.import_folder(folder, everything=True)
    assert str(folder) not in site.get("/history/export", "admin").text


@pytest.mark.parametrize(
    ("address", "body"),
    [
        ("/history/favourite", {"ids": ["1"], "favourite": True}),
        ("/history/favourite", {"ids": [1], "favourite": 1}),
        ("/history/favourite", {"ids": [True], "favourite": True}),
        ("/history/favourite", {"ids": [1.5], "favourite": True}),
        ("/history/favourite", {"ids": [2**63], "favourite": True}),
        ("/history/favourite", {"ids": [1] * 10_001, "favourite": True}),
        ("/history/favourite", {"ids": [1], "favourite": True, "user": "anna"}),
        ("/history/tags", {"ids": [1], "add": ["x" * 101]}),
        ("/history/delete", {"ids": None}),
        ("/history/delete", [1]),
        ("/history/1/notes", {"notes": None}),
        ("/history/1/notes", {"notes": "x" * 20_001}),
        ("/history/1/replay", {"changes": []}),
        ("/history/1/share", {"days": "2"}),
        ("/history/drafts/txt2img", {"data": [1]}),
    ],
)
def test_H096_bodies_are_strict(address: str, body: Any, site: Site) -> None:
    site.studio.save(seed=1)
    answer = site.post(address, body)
    assert answer.status_code == 422, answer.text
    assert set(answer.json()) == {"error", "message", "advice"}


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe", b"[" * 100_000, b'{"ids": [NaN], "favourite": true}', b'{"notes": "\\ud800"}', b"null"],
)
def test_H096_hostile_bodies_are_refused_and_the_next_request_works(content: bytes, site: Site) -> None:
    site.studio.save(seed=1)
    for address in ("/history/favourite", "/history/1/notes", "/history/drafts/txt2img"):
        answer = site.client.post(address, content=content, headers={"content-type": "application/json"})
        assert answer.status_code in (200, 400, 422), answer.text
    assert site.get("/history/1").status_code == 200


def test_a_refusing_viewer_of_refuses_every_route(site: Site) -> None:
    app = FastAPI()
    add_error_handlers(app)

    def refuse(_: Request) -> Viewer:
        raise NotFound("Sign in first.")

    paths = site.studio.paths
    rights = InputRights(InputStore(paths.outputs), site.history.made_from)
    router = history_routes(site.history, site.jobs, Catalog(paths), rights, refuse)  # type: ignore[arg-type]
    app.include_router(router)
    site.studio.save(seed=1)
    with TestClient(app, base_url="http://127.0.0.1") as client:
        for address in ("/history", "/history/1", "/history/1/file", "/history/days", "/history/export"):
            assert client.get(address).status_code == 404


def test_every_route_is_described_with_types(site: Site) -> None:
    described = site.client.get("/openapi.json").json()["paths"]
    routes = {path for path in described if path.startswith(("/history", "/shared"))}
    assert len(routes) >= 28
    for path in routes:
        for method, facts in described[path].items():
            assert facts.get("description"), (method, path)
            answer = next(facts["responses"][code] for code in ("200", "201") if code in facts["responses"])
            assert "content" in answer, (method, path)
