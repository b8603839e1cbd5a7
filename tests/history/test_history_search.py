"""A search finds exactly what its words say, page after page, and never by walking a table."""

from __future__ import annotations

import datetime
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from history_studio import Studio, ids
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from webui.errors import InvalidParams, NotFound
from webui.history import History, rows, search
from webui.history.database import Database
from webui.history.folding import fold
from webui.history.query import DateTerm, FlagTerm, RangeTerm, SizeTerm, Term, TextTerm, parse_query
from webui.history.records import Record, State
from webui.history.schema import MIGRATIONS
from webui.provenance import UsedModel

NOON = datetime.datetime(2026, 11, 23, 12).timestamp()
DAY = 86_400.0


# --- against a naive oracle ------------------------------------------------------------------------------------------


WORDS = [
    "cat", "Cats", "a cat", "ca", "c", "雨", "雨の夜", "Straße", "STRASSE", "cafe\u0301", "café", '"', "(cat:1.2)",
    "%", "_", "’", "o", "-x", "night",
]  # fmt: skip
texts = st.lists(st.sampled_from(WORDS), max_size=4).map(" ".join)
MODELS = [
    UsedModel("checkpoint", "photo/Base.safetensors", "6ce0161689" + "0" * 54),
    UsedModel("checkpoint", "anime.safetensors", "c0ffee" + "1" * 58),
    UsedModel("checkpoint", "lost.ckpt", ""),
]
LORAS = [UsedModel("lora", "Grain.safetensors", "63cabf0b2a0d"), UsedModel("lora", "detail", "")]
records = st.builds(
    Record,
    prompt=texts,
    negative_prompt=texts,
    notes=texts.map(str.strip),
    checkpoint=st.sampled_from([None, *MODELS]),
    networks=st.lists(st.sampled_from(LORAS), unique=True).map(tuple),
    sampler=st.sampled_from(["", "Euler", "Euler a", "DPM++ 2M"]),
    seed=st.sampled_from([None, -1, 0, 7, 100, 2**63 - 1]),
    width=st.sampled_from([0, 512, 768]),
    height=st.sampled_from([0, 512, 768]),
    steps=st.sampled_from([None, 1, 20, 30]),
    created=st.sampled_from([NOON, NOON - DAY, NOON - 40 * DAY, NOON - 400 * DAY]),
    favourite=st.booleans(),
    tags=st.lists(st.sampled_from(["Cats", "cat", "night sky", "ca"]), unique_by=fold).map(tuple),
    state=st.sampled_from([State.present, State.missing, State.unsaved, State.trashed, State.writing]),
    source=st.sampled_from(["", "ComfyUI"]),
    user=st.sampled_from(["", "anna"]),
)  # fmt: skip


def holds(record: Record, term: Term) -> bool:
    """What a term means, said as plainly as possible."""
    if isinstance(term, TextTerm):
        value = term.value
        if term.field == "text":
            found = value in fold(record.prompt) or value in fold(record.notes)
        elif term.field == "negative":
            found = value in fold(record.negative_prompt)
        elif term.field == "model":
            found = record.checkpoint is not None and named(record.checkpoint, value)
        elif term.field == "lora":
            found = any(named(network, value) for network in record.networks)
        elif term.field == "sampler":
            found = value in fold(record.sampler)
        elif term.field == "tag":
            tags = [fold(tag) for tag in record.tags]
            found = value in tags if term.whole else any(tag.startswith(value) for tag in tags)
        else:
            found = record.user == value
    elif isinstance(term, RangeTerm):
        number = record.seed if term.field == "seed" else record.steps
        found = number is not None and term.low <= number <= term.high
    elif isinstance(term, SizeTerm):
        sides = (record.width, record.height)
        found = sides == (term.width, term.height) if term.height else term.width in sides
    elif isinstance(term, DateTerm):
        found = term.first <= time.strftime("%Y-%m-%d", time.localtime(record.created)) <= term.last
    else:
        assert isinstance(term, FlagTerm)
        found = {
            "favourite": record.favourite,
            "missing": record.state is State.missing,
            "unsaved": record.state is State.unsaved,
            "imported": record.source != "",
        }[term.flag]
    return found != term.exclude


def named(model: UsedModel, value: str) -> bool:
    return value in fold(model.name) or (model.sha256 != "" and model.sha256.startswith(value))


quoted = st.sampled_from([word for word in WORDS if '"' not in word]).map('"{}"'.format)
fields = st.one_of(
    st.sampled_from([word for word in WORDS if " " not in word and '"' not in word and not word.startswith("-")]),
    quoted,
    st.sampled_from(["negative:", "tag:"]).flatmap(lambda name: quoted.map(lambda value: name + value)),
    st.sampled_from(
        [
            "model:base", "model:c0ffee", "model:1", "model:safe", "lora:grain", "lora:63ca", "lora:x", "sampler:euler",
            'sampler:"euler a"', "seed:7", "seed:0..100", "seed:-1", "seed:9223372036854775807", "steps:20", "tag:ca",
            "size:512x768", "size:512", "size:0", "date:2026-11-23", "date:2026", "date:..2026-10", "fav:", "fav:no",
            "steps:..20", "tag:n", "is:missing", "is:unsaved", "is:imported", "user:anna",
        ]
    ),
)  # fmt: skip
queries = st.lists(st.tuples(st.sampled_from(["", "", "-"]), fields).map("".join), max_size=4).map(" ".join)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Database:
    return Database(tmp_path_factory.mktemp("oracle") / "history.sqlite", MIGRATIONS)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(records, max_size=12), queries, st.sampled_from([None, "", "anna"]), st.integers(1, 5))
def test_a_search_finds_what_a_naive_reading_of_it_finds(
    empty: Database, made: list[Record], text: str, user: str | None, limit: int
) -> None:
    query = parse_query(text)
    assert query.problems == ()
    with empty.write() as db:
        db.execute("DELETE FROM pictures")
        numbered = [(rows.insert(db, record), record) for record in made]
    expected = [
        picture_id
        for picture_id, record in sorted(numbered, key=lambda one: (int(one[1].created * 1000), one[0]), reverse=True)
        if record.state.shown and user in (None, record.user) and all(holds(record, term) for term in query.terms)
    ]
    with empty.read() as db:
        found: list[int] = []
        after = ""
        while True:
            part = search.page(db, user, query, after=after, limit=limit)
            found += [card.id for card in part.cards]
            after = part.older
            if not after:
                break
        assert found == expected
        assert sum(day.count for day in search.days(db, user, query)) == len(expected)
        assert search.ids(db, user, query, 1000) == expected


# --- a hundred thousand rows -----------------------------------------------------------------------------------------


MANY = 100_000


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """Rows of two users over two hundred days, several with the same position, written as fast as SQLite can."""
    database = Database(tmp_path_factory.mktemp("many") / "history.sqlite", MIGRATIONS)
    with database.write() as db:
        text_ids = [rows.text_id(db, f"castle number {n} in the rain", "fog", "") for n in range(500)]
        rare = rows.text_id(db, "a zeppelin", "", "")
        models = [
            db.execute(
                "INSERT INTO names (kind, name, sha256, search) VALUES ('checkpoint', ?, '', ?)", (name, name)
            ).lastrowid
            for name in ("one.safetensors", "two.safetensors", "rare.safetensors")
        ]

        def row(n: int) -> tuple[Any, ...]:
            position = (n // 3) * 1000  # three pictures at the same moment
            day = f"2026-{1 + n // 9000:02}-{1 + n % 9000 // 400:02}"
            text = rare if n in (10, 50_000, 99_990) else text_ids[n % 500]
            model = models[2] if n % 10_000 == 0 else models[n % 2]
            return (
                n + 1, position, position / 1000, day, "anna" if n % 5 else "", "present", 1, 1, f"{n}.png", text,
                model, n % 1000, 512, 512, n % 1009 == 0, "",
            )  # fmt: skip

        db.executemany(
            "INSERT INTO pictures (id, position, created, day, user, state, shown, folder, path, text, checkpoint,"
            " seed, width, height, favourite, thumbnail) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
            map(row, range(MANY)),
        )
    yield database
    database.close()


def walk(database: Database, user: str | None, text: str, limit: int, *, newer: bool = False) -> list[int]:
    """All pages one after the other, as ids."""
    found: list[int] = []
    cursor = "0.0" if newer else ""
    with database.read() as db:
        while True:
            if newer:
                part = search.page(db, user, parse_query(text), before=cursor, limit=limit)
                found += [card.id for card in reversed(part.cards)]
                cursor = part.newer
            else:
                part = search.page(db, user, parse_query(text), after=cursor, limit=limit)
                found += [card.id for card in part.cards]
                cursor = part.older
            if not cursor:
                return found


def test_every_row_is_on_exactly_one_page(many: Database) -> None:
    assert walk(many, None, "", 500) == list(range(MANY, 0, -1))


def test_pages_lead_back_to_the_newest(many: Database) -> None:
    assert walk(many, None, "model:rare", 3, newer=True) == [n + 1 for n in range(MANY) if n % 10_000 == 0]
    with many.read() as db:
        first = search.page(db, None, parse_query(""), limit=7)
        second = search.page(db, None, parse_query(""), after=first.older, limit=7)
        back = search.page(db, None, parse_query(""), before=second.newer, limit=7)
    assert back.cards == first.cards
    assert (first.newer, back.newer) == ("", "")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("zeppelin", lambda n: n in (10, 50_000, 99_990)),
        ("zeppelin -castle", lambda n: n in (10, 50_000, 99_990)),
        ("seed:77", lambda n: n % 1000 == 77),
        ("model:rare", lambda n: n % 10_000 == 0),
        ("fav:", lambda n: n % 1009 == 0),
        ("date:2026-03-01", lambda n: 18_000 <= n < 18_400),
        ('"castle number 17 in"', lambda n: n % 500 == 17),
    ],
)
def test_a_search_among_many_finds_all_of_them(many: Database, text: str, wanted: Any) -> None:
    assert walk(many, None, text, 40) == [n + 1 for n in range(MANY - 1, -1, -1) if wanted(n)]
    assert walk(many, "anna", text, 40) == [n + 1 for n in range(MANY - 1, -1, -1) if wanted(n) and n % 5]


def plan(database: Database, user: str | None, text: str, *, after: str = "") -> list[str]:
    """What SQLite will do for a page."""
    statements: list[str] = []
    with database.read() as db:
        db.set_trace_callback(statements.append)
        search.page(db, user, parse_query(text), after=after)
        db.set_trace_callback(None)
        [statement] = [s for s in statements if s.startswith("SELECT p.id, p.position")]
        return [row["detail"] for row in db.execute("EXPLAIN QUERY PLAN " + statement)]


@pytest.mark.parametrize("after", ["", "50000000.150001"])
@pytest.mark.parametrize("user", [None, "anna"])
@pytest.mark.parametrize(
    "text",
    [
        "", "castle", "zeppelin", "ca", "castle -fog negative:fog", "model:rare", "date:2026-03", "fav:", "size:512",
        "-tag:x", "tag:x", "lora:x", "seed:77", "is:missing", "sampler:euler",
    ],
)  # fmt: skip
def test_a_page_is_read_along_the_order_and_never_sorted(
    many: Database, text: str, user: str | None, after: str
) -> None:
    details = plan(many, user, text, after=after)
    index = "pictures_order (shown=?" if user is None else "pictures_user (user=? AND shown=?"
    [walked] = [detail for detail in details if detail.startswith("SEARCH p USING") and "INTEGER" not in detail]
    assert index in walked, details
    assert not any(detail.startswith("SCAN p") for detail in details), details
    assert "TEMP B-TREE" not in " ".join(details), details
    if after:
        assert "position<" in walked, details


def test_days_are_counted_from_an_index_alone(many: Database) -> None:
    with many.read() as db:
        days = search.days(db, None, parse_query(""))
        statements: list[str] = []
        db.set_trace_callback(statements.append)
        search.days(db, None, parse_query(""))
        db.set_trace_callback(None)
        details = [row["detail"] for row in db.execute("EXPLAIN QUERY PLAN " + statements[0])]
    assert "COVERING INDEX pictures_day" in details[0]
    assert sum(day.count for day in days) == MANY
    assert [day.day for day in days] == sorted({day.day for day in days}, reverse=True)


def test_a_day_leads_to_its_newest_picture(many: Database) -> None:
    with many.read() as db:
        days = search.days(db, None, parse_query(""))
        chosen = days[17]
        page = search.page(db, None, parse_query(""), after=chosen.cursor, limit=chosen.count)
    newest = [card for card in page.cards if card.day == chosen.day]
    assert len(newest) >= chosen.count - 2  # up to two of the next day may share the moment
    assert page.cards[0].day in (chosen.day, days[16].day)


def test_rows_that_arrive_between_two_pages_shift_nothing(studio: Studio, history: History) -> None:
    for seed in range(6):
        studio.save(seed=seed)
    first = history.page("", limit=3)
    studio.save(seed=6)
    second = history.page("", after=first.older, limit=3)
    assert [card.seed for card in (*first.cards, *second.cards)] == [5, 4, 3, 2, 1, 0]
    assert [card.seed for card in history.page("", before=first.cards[0].cursor).cards] == [6]


# --- the rest --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cursor", ["x", "1", "1.x", "-1.2", "1.99999999999999999999", "'; DROP TABLE pictures"])
def test_a_cursor_that_is_none_is_refused(history: History, cursor: str) -> None:
    with pytest.raises(InvalidParams):
        history.page("", after=cursor)


def test_hostile_text_is_only_text(studio: Studio, history: History) -> None:
    studio.save(prompt="a'; DROP TABLE pictures; --", seed=1)
    for text in ("'; DROP", '" OR 1', "NEAR(", "a* AND", "{search_notes}:x", "\0castle", "\ud800", "tag:\U0010ffff"):
        history.page("", text)
    assert len(ids(history, '"\'; drop table"')) == 1


def test_nobody_finds_what_is_somebody_elses(studio: Studio, history: History) -> None:
    for user in ("anna", "ben"):
        studio.save_for(user, prompt=f"secret of {user}", seed=3)
    [annas] = ids(history, user="anna")
    [bens] = ids(history, user="ben")
    history.change_tags("ben", [bens], add=["bens tag"])
    for text in ("", "secret", "user:ben", "seed:3", "fav:no", "-nothing", "job:job-ben-1"):
        assert bens not in ids(history, text, user="anna")
    assert history.days("anna", "")[0].count == 1
    assert history.ids("anna", "") == [annas]
    assert history.tags("anna") == []
    assert [prompt.prompt for prompt in history.prompts("anna")[0]] == ["secret of anna"]
    assert [card.id for card in history.similar("anna", annas)] == []
    for call in (
        lambda: history.get("anna", bens),
        lambda: history.file("anna", bens),
        lambda: history.thumbnail("anna", bens),
        lambda: history.similar("anna", bens),
        lambda: history.family("anna", bens),
        lambda: history.compare("anna", [annas, bens]),
        lambda: history.difference("anna", annas, bens),
        lambda: history.set_notes("anna", bens, "x"),
        lambda: history.share("anna", bens),
        lambda: history.link("anna", "j", bens, "replay", {}),
        lambda: history.zip("anna", [bens]),
    ):
        with pytest.raises(NotFound):
            call()
    assert history.set_favourite("anna", [bens], True).count == 0
    assert history.change_tags("anna", [bens], add=["x"]).count == 0
    assert history.delete("anna", [bens]) == []
    assert history.empty_trash("anna") == 0
    assert list(history.export("anna", "user:ben")) == []
    assert sorted(ids(history, user=None)) == sorted([annas, bens])  # an administrator sees all


def test_tags_are_counted_and_found_by_their_beginning(studio: Studio, history: History) -> None:
    for seed in range(3):
        studio.save(seed=seed)
    history.change_tags("", [1, 2], add=["Night sky", "cats"])
    history.change_tags("", [3], add=["night SKY", "  dogs  "])
    history.change_tags("", [2], remove=["CATS"])
    assert history.tags("") == [("Night sky", 3), ("cats", 1), ("dogs", 1)]
    assert ids(history, "tag:night") == [3, 2, 1]
    assert ids(history, 'tag:"night"') == []
    assert ids(history, 'tag:"Night Sky" -tag:dog') == [2, 1]
    with pytest.raises(InvalidParams, match="at most 100 tags"):
        history.change_tags("", [1], add=[f"tag {n}" for n in range(100)])
    assert history.get("", 1).record.tags == ("cats", "Night sky")


def test_notes_are_found_and_forgotten(studio: Studio, history: History) -> None:
    studio.save(seed=1)
    studio.save(seed=2)
    history.set_notes("", 1, "Für Großmutter\r\nprint\x00 it")
    assert history.get("", 1).record.notes == "Für Großmutter\nprint it"
    assert ids(history, "GROSSMUTTER") == [1]
    assert ids(history, "castle") == [2, 1]
    history.set_notes("", 1, "")
    assert ids(history, "großmutter") == []
    with pytest.raises(InvalidParams):
        history.set_notes("", 1, "x" * 20_001)


def test_the_prompt_history_offers_each_prompt_once_the_newest_first(studio: Studio, history: History) -> None:
    for seed, prompt in enumerate(["a castle", "a tower", "a castle", "", "a Tower by the sea"]):
        studio.save(prompt=prompt, seed=seed)
    found, older = history.prompts("")
    assert [(p.prompt, p.uses, p.picture) for p in found] == [
        ("a Tower by the sea", 1, 5),
        ("a castle", 2, 3),
        ("a tower", 1, 2),
    ]
    assert older == ""
    first, older = history.prompts("", limit=2)
    second, _ = history.prompts("", after=older, limit=2)
    assert [p.prompt for p in (*first, *second)] == ["a Tower by the sea", "a castle", "a tower"]
    assert [p.prompt for p in history.prompts("", "tower sea")[0]] == ["a Tower by the sea"]
    history.delete("", [5])
    assert history.prompts("")[0][0].picture is None  # the prompt outlives its picture
    history.remember_prompt("", "typed, never drawn")
    assert history.prompts("")[0][0].prompt == "typed, never drawn"
    assert history.forget_prompts("", [history.prompts("")[0][0].id]) == 1
    assert history.forget_prompts("") == 3
    assert history.prompts("") == ([], "")
    assert ids(history, "tower") == [2]  # pictures keep theirs


def test_more_like_this_puts_the_nearest_prompt_first(studio: Studio, history: History) -> None:
    for seed, prompt in enumerate(
        [
            "a lighthouse on a cliff, storm, oil painting",
            "a cat on a sofa, photo",
            "a lighthouse on a cliff, calm sea, oil painting",
            "portrait of a sailor, oil painting",
            "a lighthouse on a cliff, storm, oil painting",
        ]
    ):
        studio.save(prompt=prompt, seed=seed)
    assert [card.id for card in history.similar("", 1)][:3] == [5, 3, 4]
    assert [card.id for card in history.similar("", 1, limit=1)] == [5]


def test_the_text_index_forgets_what_is_deleted(studio: Studio, history: History) -> None:
    studio.save(prompt="a secret lighthouse", seed=1)
    history.set_notes("", 1, "hush")
    history.delete("", [1])
    history.forget_prompts("")
    assert history.empty_trash("") == 1
    with sqlite3.connect(studio.paths.outputs / "history.sqlite") as db:
        assert db.execute("SELECT count(*) FROM texts").fetchone()[0] == 0
        assert db.execute("SELECT count(*) FROM texts_index WHERE texts_index MATCH 'lighthouse'").fetchone()[0] == 0
        db.execute("INSERT INTO texts_index(texts_index) VALUES ('integrity-check')")
    db.close()


def test_the_file_is_small_enough_for_what_it_holds(many: Database) -> None:
    size = Path(many.path).stat().st_size
    assert size < 60 * 2**20
