"""Links for others, drafts, and the family tree."""

from __future__ import annotations

import sqlite3
import time
from typing import Any

import pytest
from history_studio import Studio, ids

from webui.errors import InvalidParams, NotFound
from webui.history import History
from webui.history.drafts import MAX_DRAFT, MAX_FORMS
from webui.history.recorder import history_file

# --- links -----------------------------------------------------------------------------------------------------------


def test_a_link_shows_its_picture_to_whoever_holds_it_until_it_is_ended(studio: Studio, history: History) -> None:
    path = studio.save_for("anna", seed=1)
    made = history.share("anna", 1)
    picture, with_parameters = history.shared(made.token)
    assert (picture.id, with_parameters) == (1, True)
    assert history.shared_file(made.token)[0] == path
    assert [share.id for share in history.shares("anna", 1)] == [made.id]
    assert history.shares("ben") == []
    with pytest.raises(NotFound):
        history.revoke("ben", made.id)
    history.revoke("anna", made.id)
    with pytest.raises(NotFound):
        history.shared(made.token)
    with pytest.raises(NotFound):
        history.revoke("anna", made.id)


def test_nothing_is_shared_by_itself_and_tokens_cannot_be_guessed_or_read_from_the_file(
    studio: Studio, history: History
) -> None:
    studio.save(seed=1)
    tokens = {history.share("", 1).token for _ in range(5)}
    assert len(tokens) == 5
    assert all(len(token) == 32 for token in tokens)
    for guess in ("", "1", "a" * 32, "a" * 10_000, "\ud800", next(iter(tokens))[:-1]):
        with pytest.raises(NotFound):
            history.shared(guess)
    history.stop()
    studio.recorder.close()
    content = history_file(studio.paths).read_bytes()
    assert not any(token.encode() in content for token in tokens)


def test_links_that_have_ended_count_no_more(studio: Studio, history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webui.history.shares.MAX_SHARES", 2)
    studio.save(seed=1)
    kept = history.share("", 1)
    history.share("", 1, days=1e-9)
    time.sleep(0.001)
    assert history.share("", 1).token
    with pytest.raises(InvalidParams):
        history.share("", 1)
    assert history.shared(kept.token)


def test_a_link_ends_with_its_time_or_its_picture(
    studio: Studio, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio.save(seed=1)
    short, long = history.share("", 1, days=1), history.share("", 1)
    assert short.expires == pytest.approx(time.time() + 86_400, abs=60)
    with monkeypatch.context() as patch:
        now = time.time()
        patch.setattr(time, "time", lambda: now + 86_401)
        with pytest.raises(NotFound):
            history.shared(short.token)
        assert history.shared(long.token)[0].id == 1
        assert [share.id for share in history.shares("")] == [long.id]
    history.delete("", [1])
    with pytest.raises(NotFound):
        history.shared(long.token)
    history.restore("", [1])
    assert history.shared(long.token)[0].id == 1
    history.delete("", [1])
    history.empty_trash("")
    with pytest.raises(NotFound):
        history.shared(long.token)


@pytest.mark.parametrize("days", [0.0, -1.0, float("nan"), float("inf"), 4000.0])
def test_a_link_has_a_sensible_time(days: float, studio: Studio, history: History) -> None:
    studio.save(seed=1)
    with pytest.raises(InvalidParams):
        history.share("", 1, days=days)


# --- drafts ----------------------------------------------------------------------------------------------------------


def test_the_pictures_that_a_draft_starts_from_are_needed(history: History) -> None:
    picture, mask = "1" * 64, "2" * 64
    history.save_draft("anna", "txt2img", {"init.image": picture, "inpaint.mask": mask, "prompt": "3" * 64 + "!"})
    assert history.inputs() == {picture, mask}
    history.drop_draft("anna", "txt2img")
    assert history.inputs() == set()


def test_a_draft_is_kept_as_typed_for_each_user_and_form(history: History) -> None:
    typed = {"prompt": "half a (wor", "steps": "2", "nested": [1, None, {"a": 0.5}]}
    assert history.draft("anna", "txt2img") is None
    saved = history.save_draft("anna", "txt2img", typed)
    assert saved.data == typed
    history.save_draft("ben", "txt2img", {"prompt": "other"})
    history.save_draft("anna", "txt2img", typed)
    found = history.draft("anna", "txt2img")
    assert found is not None
    assert found.data == typed
    assert history.drop_draft("anna", "txt2img")
    assert not history.drop_draft("anna", "txt2img")
    assert history.draft("ben", "txt2img") is not None


@pytest.mark.parametrize("form", ["", "A", "../x", "x" * 65, "txt 2 img", "\0"])
def test_a_form_has_a_name(form: str, history: History) -> None:
    with pytest.raises(InvalidParams):
        history.save_draft("", form, {})
    with pytest.raises(InvalidParams):
        history.draft("", form)


@pytest.mark.parametrize("data", [{"x": float("nan")}, {"x": object()}, {"x": "y" * MAX_DRAFT}])
def test_a_draft_is_plain_and_bounded(data: dict[str, Any], history: History) -> None:
    with pytest.raises(InvalidParams):
        history.save_draft("", "txt2img", data)


def test_a_user_has_a_bounded_number_of_drafts(history: History) -> None:
    for number in range(MAX_FORMS):
        history.save_draft("anna", f"form{number}", {})
    history.save_draft("anna", "form0", {"again": True})
    with pytest.raises(InvalidParams, match="At most"):
        history.save_draft("anna", "one-more", {})
    history.save_draft("ben", "one-more", {})


# --- families --------------------------------------------------------------------------------------------------------


def child(
    studio: Studio, history: History, parent: int, user: str = "", relation: str = "replay", **fields: Any
) -> int:
    """A picture made from another, by a job of its own."""
    job = f"child-of-{parent}-{time.time_ns()}"
    history.link(None, job, parent, relation, fields)

    def work() -> Any:
        studio.save(**{"seed": parent * 10, **fields})
        yield from ()

    list(studio.recorder.following(work(), job=job, user=user))
    return max(ids(history, user=user))


def test_the_family_of_a_picture_is_its_tree_from_the_oldest_ancestor_down(studio: Studio, history: History) -> None:
    studio.save(seed=1)
    studio.save(seed=2)
    first = child(studio, history, 1)
    second = child(studio, history, 1, relation="variation", seed=5)
    grandchild = child(studio, history, first)
    for member in (1, first, second, grandchild):
        family = history.family("", member)
        assert family.root == 1
        assert family.complete
        assert [(m.card.id, m.parent, m.generation) for m in family.members] == [
            (1, None, 0),
            (first, 1, 1),
            (grandchild, first, 2),
            (second, 1, 1),
        ]
    assert [m.changes for m in history.family("", 1).members] == [{}, {}, {}, {"seed": 5}]
    assert [m.card.id for m in history.family("", 2).members] == [2]
    assert history.get("", 1).children == 2
    assert ids(history, "is:replay") == [grandchild, second, first]


def test_a_child_that_was_saved_before_its_link_was_known_is_linked_too(studio: Studio, history: History) -> None:
    studio.save(seed=1)

    def work() -> Any:
        studio.save(seed=1)
        history.link("", "quick", 1, "replay", {})
        studio.save(seed=1)
        yield from ()

    list(studio.recorder.following(work(), job="quick"))
    assert [history.get("", one).record.parent for one in (2, 3)] == [1, 1]


def test_a_family_survives_the_loss_of_a_member(studio: Studio, history: History) -> None:
    studio.save(seed=1)
    middle = child(studio, history, 1)
    last = child(studio, history, middle)
    history.delete("", [middle])
    assert [m.card.id for m in history.family("", last).members] == [1, middle, last]  # it may come back
    history.empty_trash("")
    assert [m.card.id for m in history.family("", last).members] == [last]
    assert history.get("", last).record.parent is None


def test_only_the_visible_part_of_a_family_is_shown(studio: Studio, history: History) -> None:
    studio.save_for("anna", seed=1)
    assert child(studio, history, 1, user="ben") == 2
    assert [m.card.id for m in history.family("ben", 2).members] == [2]
    assert history.family("ben", 2).members[0].parent is None
    assert [m.card.id for m in history.family("anna", 1).members] == [1]


def test_a_circle_of_parents_ends(studio: Studio, history: History) -> None:
    studio.save(seed=1)
    studio.save(seed=2)
    history.stop()
    with sqlite3.connect(history_file(studio.paths)) as db:
        db.execute("UPDATE pictures SET parent = 3 - id")
    db.close()
    family = History(studio.paths).family("", 1)
    assert sorted(m.card.id for m in family.members) == [1, 2]
