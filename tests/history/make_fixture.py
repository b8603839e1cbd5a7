"""Writes the fixture of the present version of the history, as SQL text: made by real use, for all later versions.

    PYTHONPATH=.:tests python tests/history/make_fixture.py > tests/history/fixtures/v1.sql

Run it once for each new version before its migration is followed by another, and never change a fixture afterwards.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

from history_studio import Studio

from webui import events
from webui.history import History, Recorder
from webui.history.recorder import history_file
from webui.paths import Paths


def used(paths: Paths) -> None:
    """Two users, marks, a draft, a link, a replay."""
    recorder = Recorder(paths)
    studio = Studio(paths, recorder)

    def job(**fields: object) -> Iterator[events.Event]:
        studio.save(**fields)  # type: ignore[arg-type]
        yield events.Finished(1, {"total": 2.0}, 123_456)

    night = job(seed=1, prompt="a castle\nat night", negative_prompt="fog", sampler="Euler a")
    list(recorder.following(night, job="job-1", user="anna"))
    history = History(paths)
    list(recorder.following(job(seed=2), job="job-2"))
    history.set_favourite("anna", [1], True)
    history.change_tags("anna", [1], add=["best", "Night"])
    history.set_notes("anna", 1, "print this")
    history.save_draft("anna", "txt2img", {"prompt": "half typed"})
    history.share("anna", 1)
    history.link("", "job-3", 2, "replay", {})
    list(recorder.following(job(seed=3), job="job-3"))
    history.stop()
    recorder.close()


def dump(path: Path) -> Iterator[str]:
    """The file as SQL: tables, rows, then indices; the text index is filled from its table."""
    with sqlite3.connect(path) as db:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        schema = db.execute("SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid").fetchall()
        yield f"-- The history in version {version}, made by tests/history/make_fixture.py. Never to be changed."
        yield "BEGIN;"
        tables = [(name, sql) for kind, name, sql in schema if kind == "table"]
        virtual = [name for name, sql in tables if sql.startswith("CREATE VIRTUAL")]
        for name, sql in tables:
            if name.startswith("sqlite_") or any(name.startswith(f"{index}_") for index in virtual):
                continue
            yield f"{sql};"
            if name in virtual:
                continue
            for row in db.execute(f"SELECT * FROM {name}"):
                values = ", ".join(db.execute("SELECT quote(?)", (value,)).fetchone()[0] for value in row)
                yield f"INSERT INTO {name} VALUES ({values});"
        for name in virtual:
            yield f"INSERT INTO {name}({name}) VALUES ('rebuild');"
        for kind, _, sql in schema:
            if kind == "index":
                yield f"{sql};"
        yield f"PRAGMA user_version={version};"
        yield "COMMIT;"
    db.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        paths = Paths.under(Path(folder))
        paths.make_folders()
        used(paths)
        print("\n".join(dump(history_file(paths))))
