"""`History`: the one way to everything the history knows and does, for the page, the API and the command line.

Every method takes a user. `None` is an administrator and sees all; any other name sees and changes what is theirs, and
for the rest every answer is the same as for what does not exist (`NotFound`). Without accounts everybody is "".
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from webui import events
from webui.errors import HistoryUnavailable, InvalidParams, NotFound, WorkerDied
from webui.history import comparison, deletion, drafts, family, jsonlines, rows, search, shares, zips
from webui.history.database import Database
from webui.history.folding import clean, fold
from webui.history.importer import Imported, ImportProgress, import_folder
from webui.history.query import parse_query
from webui.history.reconcile import Origin, Reconciled
from webui.history.recorder import WARNING, history_file
from webui.history.records import MAX_NOTES, Record, State, clean_tags
from webui.history.replay import Models, ReplayPlan, plan_replay
from webui.history.rights import MAX_SELECTED, Picture, file_of, get_picture, own_ids, own_pictures, owns_file
from webui.history.schema import MIGRATIONS
from webui.history.thumbnails import Thumbnails, read_picture
from webui.history.upkeep import Upkeep
from webui.inputs import references_in, starts_from
from webui.paths import Paths

MAX_COMPARED = 10
PROBE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Marked:
    """Pictures that were marked: how many of the chosen ones were the user's, and the ids of those that changed."""

    count: int
    changed: list[int]


@dataclass(frozen=True, slots=True)
class Retagged:
    """Pictures whose tags were changed: how many, and by tag the ids of those that it came to, or went from."""

    count: int
    added: dict[str, list[int]]
    removed: dict[str, list[int]]


class History:
    """The history below `paths.outputs`. Cheap to make: the file is opened when it is first needed.

    Every method may raise `HistoryUnavailable`; `banner()` then says it in a sentence until it is over.
    """

    def __init__(self, paths: Paths) -> None:
        self.outputs = paths.outputs
        self.thumbnails = Thumbnails(paths.cache_dir / "thumbnails")
        self._database = Database(history_file(paths), MIGRATIONS, repair=True, on_damage=self._damaged)
        self._upkeep = Upkeep(self._database, self.outputs, self.thumbnails)
        self._probed = 0.0

    # Life

    def start(self, origins: Callable[[], Mapping[str, Origin]] = dict) -> None:
        """Bring rows and files together in the background. `origins`: see `reconcile.origins_of`."""
        self._upkeep.start(origins)

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for the work in the background; True when it is over."""
        return self._upkeep.wait(seconds)

    @property
    def busy(self) -> bool:
        """Whether rows and files are being brought together in the background."""
        return not self._upkeep.wait(0)

    def stop(self) -> None:
        self._upkeep.stop()
        self.thumbnails.close()
        self._database.close()

    def reconcile(self) -> Reconciled:
        """The work of `start`, now and in this thread."""
        return self._upkeep.run()

    def heard(self, event: events.Event) -> None:
        """What a job of this program says: thumbnails are made ahead, and trouble in the other process is noticed."""
        if isinstance(event, events.Image) and event.path and event.pixels_sha256:
            key = rows.thumbnail_key(Record(pixels_sha256=event.pixels_sha256))
            self.thumbnails.later(key, Path(event.path))
        elif isinstance(event, events.Warning) and event.code == WARNING:
            self._database.trouble = event.text
        elif isinstance(event, events.Failed) and event.error.get("error") == WorkerDied.__name__:
            self._upkeep.again()  # it may have died between a file and the last word of its row

    def banner(self) -> str:
        """A sentence while the history cannot be written, else "". Tries again by itself every few seconds."""
        if self._database.trouble and time.monotonic() - self._probed > PROBE_SECONDS:
            self._probed = time.monotonic()
            with contextlib.suppress(HistoryUnavailable), self._database.write() as db:
                db.execute("UPDATE counters SET value = value + 1 WHERE name = 'probe'")
        return self._database.trouble

    def _damaged(self, aside: Path) -> None:
        self._upkeep.damaged(aside)

    # Finding

    def inputs(self) -> set[str]:
        """References of the pictures that any picture here was made from, the trash included, or that a draft holds."""
        with self._database.read() as db:
            texts = db.execute("SELECT params FROM details WHERE params <> '' UNION ALL SELECT data FROM drafts")
            return set().union(*(references_in(text) for (text,) in texts))

    def made_from(self, user: str, reference: str) -> bool:
        """Whether a picture of this user was made from that one of the inputs, the trash included.

        By a job of theirs: a line that was imported only claims it.
        """
        naming = "SELECT params FROM pictures JOIN details ON picture=id WHERE user=? AND job<>'' AND instr(params, ?)"
        with self._database.read() as db:
            return any(starts_from(row["params"], reference) for row in db.execute(naming, (user, reference)))

    def page(
        self,
        user: str | None,
        text: str = "",
        *,
        after: str = "",
        before: str = "",
        limit: int = 60,
        trashed: bool = False,
    ) -> search.Page:
        """A page of the grid, or of the trash. `text` is in the language of `history.query`."""
        with self._database.read() as db:
            return search.page(db, user, parse_query(text), after=after, before=before, limit=limit, trashed=trashed)

    def days(self, user: str | None, text: str = "") -> list[search.Day]:
        """The days of the pictures found, with counts; for headings and for jumping."""
        with self._database.read() as db:
            return search.days(db, user, parse_query(text))

    def outline(self, user: str | None, text: str = "", *, trashed: bool = False) -> list[search.Block]:
        """The shape of the whole grid: how many pictures each day has, in blocks that are pages."""
        with self._database.read() as db:
            return search.outline(db, user, parse_query(text), trashed=trashed)

    def ids(self, user: str | None, text: str, limit: int = MAX_SELECTED, *, trashed: bool = False) -> list[int]:
        """Everything that a search finds, for "select all"."""
        with self._database.read() as db:
            return search.ids(db, user, parse_query(text), min(limit, MAX_SELECTED), trashed=trashed)

    def get(self, user: str | None, picture_id: int) -> Picture:
        """One picture with all that is known of it. Raises `NotFound`."""
        with self._database.read() as db:
            return get_picture(db, user, picture_id)

    def of_job(self, user: str | None, job: str) -> list[search.Card]:
        """The pictures of a job, the first one first."""
        quoted = job.replace('"', "")
        with self._database.read() as db:
            cards = search.page(db, user, parse_query(f'job:"{quoted}"'), limit=search.MAX_PAGE).cards if quoted else ()
        return sorted(cards, key=lambda card: (card.picture_index, card.id))

    def finished_of(self, job: str) -> int:
        """How many different pictures a job has made that are still there: no half-drawn one, none whose file is gone.

        Whoever deleted a file or had no room for one wants it made again. For the command line: it asks for no user.
        """
        finished = (
            "SELECT p.picture_index, f.path AS folder, p.path FROM pictures p"
            " JOIN details d ON d.picture = p.id JOIN folders f ON f.id = p.folder"
            " WHERE p.job = ? AND p.job <> '' AND p.state = 'present' AND instr(d.infotext, 'Stopped at step: ') = 0"
        )
        with self._database.read() as db:
            found = db.execute(finished, (job,)).fetchall()
        return len({row["picture_index"] for row in found if (self.outputs / row["folder"] / row["path"]).is_file()})

    def similar(self, user: str | None, picture_id: int, limit: int = 60) -> list[search.Card]:
        """More like this: pictures with a similar prompt. Raises `NotFound`."""
        with self._database.read() as db:
            return search.similar(db, user, picture_id, limit)

    def family(self, user: str | None, picture_id: int) -> family.Family:
        """The picture's ancestors, and everything made from them. Raises `NotFound`."""
        with self._database.read() as db:
            get_picture(db, user, picture_id)
            return family.family(db, user, picture_id)

    def tags(self, user: str | None) -> list[tuple[str, int]]:
        """Every tag in use with its count."""
        with self._database.read() as db:
            return search.tags(db, user)

    def users(self, user: str | None) -> list[tuple[str, int]]:
        """Everybody whose pictures the user may see, with their number."""
        with self._database.read() as db:
            return search.users(db, user)

    # Files

    def file(self, user: str | None, picture_id: int) -> Path:
        """The picture's file. Raises `NotFound`, also when the file is missing or in the trash."""
        return file_of(self.outputs, self.get(user, picture_id))

    def owns_file(self, user: str | None, path: str) -> bool:
        """Whether the file of that name below the outputs folder is a picture of the user's."""
        if user is None:
            return True
        with self._database.read() as db:
            return owns_file(db, user, path)

    def thumbnail(self, user: str | None, picture_id: int) -> tuple[str, bytes]:
        """(key, WEBP). Raises `NotFound` when there is neither a thumbnail nor a file to make one from."""
        picture = self.get(user, picture_id)
        path: Path | None = None
        with contextlib.suppress(NotFound):
            path = file_of(self.outputs, picture, trashed=True)
        return picture.record.thumbnail, self.thumbnails.get(picture.record.thumbnail, path)

    def zip(self, user: str | None, picture_ids: Sequence[int]) -> Iterator[bytes]:
        """The files of the pictures as a zip archive, in pieces as they are read. Raises `NotFound` for none."""
        with self._database.read() as db:
            found = own_pictures(db, user, picture_ids)
        files = []
        for picture in found:
            with contextlib.suppress(NotFound):
                files.append((file_of(self.outputs, picture), picture.record.created))
        if not files:
            raise NotFound("None of these pictures has a file.", "Choose others.")
        return zips.stream(files)

    # Changing

    def set_favourite(self, user: str | None, picture_ids: Sequence[int], favourite: bool) -> Marked:
        """Mark or unmark."""
        with self._database.write() as db:
            chosen = own_ids(db, user, picture_ids)
            other = "SELECT 1 FROM pictures WHERE id=? AND favourite<>?"
            changed = [one for one in chosen if db.execute(other, (one, favourite)).fetchone()]
            db.executemany("UPDATE pictures SET favourite=? WHERE id=?", [(favourite, one) for one in changed])
            return Marked(len(chosen), changed)

    def change_tags(
        self, user: str | None, picture_ids: Sequence[int], *, add: Sequence[str] = (), remove: Sequence[str] = ()
    ) -> Retagged:
        """Add and remove tags, however they are written. Raises `InvalidParams` for too many tags."""
        added, removed = clean_tags(list(add)), clean_tags(list(remove))
        with self._database.write() as db:
            chosen = own_ids(db, user, picture_ids)

            def tagged(tag: str) -> set[int]:
                has = "SELECT 1 FROM tags WHERE picture=? AND search=?"
                return {one for one in chosen if db.execute(has, (one, fold(tag))).fetchone()}

            before = {tag: tagged(tag) for tag in (*added, *removed)}
            for picture_id in chosen:
                db.executemany(
                    "DELETE FROM tags WHERE picture=? AND search=?", [(picture_id, fold(tag)) for tag in removed]
                )
                rows.add_tags(db, picture_id, added)
                clean_tags(rows.tags_of(db, picture_id))  # raises above the bound; nothing was changed then
            return Retagged(
                len(chosen),
                added={tag: sorted(tagged(tag) - before[tag]) for tag in added},
                removed={tag: sorted(before[tag] - tagged(tag)) for tag in removed},
            )

    def set_notes(self, user: str | None, picture_id: int, notes: str) -> None:
        """Replace the notes. Raises `NotFound`, `InvalidParams` above 20,000 characters."""
        if len(notes) > MAX_NOTES:
            raise InvalidParams(f"The notes are longer than {MAX_NOTES:,} characters.", "Shorten them.")
        with self._database.write() as db:
            get_picture(db, user, picture_id)
            rows.set_notes(db, picture_id, clean(notes).strip())

    def delete(self, user: str | None, picture_ids: Sequence[int]) -> list[int]:
        """Into the trash, files and all; gives the ids that went, which is what `restore` takes to undo it.

        A file that cannot be moved stays, and so does its picture; then `SaveError` is raised after the others.
        """
        return deletion.delete(self._database, self.outputs, user, picture_ids)

    def restore(self, user: str | None, picture_ids: Sequence[int]) -> list[int]:
        """Out of the trash again; gives the ids that came back. Raises `SaveError` as `delete` does."""
        return deletion.restore(self._database, self.outputs, user, picture_ids)

    def empty_trash(self, user: str | None, picture_ids: Sequence[int] | None = None) -> int:
        """Delete what is in the user's trash for good (or only the named ones of it); gives how many went."""
        return deletion.empty_trash(self._database, self.outputs, self.thumbnails, user, picture_ids)

    def link(self, user: str | None, job: str, parent: int, relation: str, changes: Mapping[str, Any]) -> None:
        """The pictures of `job` are children of `parent`, those already made and those to come. Raises `NotFound`."""
        with self._database.write() as db:
            get_picture(db, user, parent)
            rows.link_children(db, job, parent, relation, dict(changes))

    # Making again

    def plan_replay(
        self, user: str | None, picture_id: int, models: Models, changes: Mapping[str, Any] | None = None
    ) -> ReplayPlan:
        """What to queue to make the picture again, or with some params changed. Raises `NotFound`, `InvalidParams`."""
        return plan_replay(self.get(user, picture_id).record, models, changes)

    def compare(
        self, user: str | None, picture_ids: Sequence[int], *, everything: bool = False
    ) -> list[comparison.Row]:
        """What two to ten pictures differ in. Raises `NotFound`, `InvalidParams`."""
        if not 2 <= len(picture_ids) <= MAX_COMPARED:
            raise InvalidParams(f"From two to {MAX_COMPARED} pictures can be compared.", "Choose that many.")
        with self._database.read() as db:
            return comparison.table([get_picture(db, user, one).record for one in picture_ids], everything=everything)

    def difference(self, user: str | None, first: int, second: int) -> comparison.Difference:
        """How far the pixels of two pictures are apart. Raises `NotFound`."""
        pair = [self.get(user, one) for one in (first, second)]
        same = pair[0].record.pixels_sha256 and pair[0].record.pixels_sha256 == pair[1].record.pixels_sha256
        return comparison.difference(*((one.record, None if same else self._bytes_of(one)) for one in pair))

    def _bytes_of(self, picture: Picture) -> bytes | None:
        try:
            return read_picture(file_of(self.outputs, picture, trashed=True))
        except NotFound:
            return None

    # Prompts and drafts

    def prompts(
        self, user: str, text: str = "", *, after: str = "", limit: int = 50
    ) -> tuple[list[search.Prompt], str]:
        """The user's earlier prompts, the newest first, and the cursor to go on with."""
        with self._database.read() as db:
            return search.prompts(db, user, text, after=after, limit=limit)

    def remember_prompt(self, user: str, prompt: str, negative_prompt: str = "") -> None:
        """Put a prompt into the user's prompt history, whether or not a picture comes of it."""
        with self._database.write() as db:
            rows.remember_prompt(db, user, clean(prompt), clean(negative_prompt), rows.next_position(db), None)

    def forget_prompts(self, user: str, prompt_ids: Sequence[int] | None = None) -> int:
        """Take prompts (None: all) out of the user's prompt history; pictures keep theirs. Gives how many."""
        with self._database.write() as db:
            every = [row["text"] for row in db.execute("SELECT text FROM prompts WHERE user=?", (user,))]
            chosen = every if prompt_ids is None else [one for one in every if one in set(prompt_ids)]
            for text in chosen:
                db.execute("DELETE FROM prompts WHERE user=? AND text=?", (user, text))
                rows.drop_text(db, text)
            return len(chosen)

    def draft(self, user: str, form: str) -> drafts.Draft | None:
        """The form as it was last typed, or None."""
        with self._database.read() as db:
            return drafts.get(db, user, form)

    def save_draft(self, user: str, form: str, data: Mapping[str, Any]) -> drafts.Draft:
        """Keep the form as typed. Raises `InvalidParams` for one that is too large."""
        with self._database.write() as db:
            return drafts.put(db, user, form, data)

    def drop_draft(self, user: str, form: str) -> bool:
        with self._database.write() as db:
            return drafts.drop(db, user, form)

    # Sharing

    def share(
        self, user: str | None, picture_id: int, *, days: float | None = None, with_parameters: bool = True
    ) -> shares.NewShare:
        """Make a link to one picture. Its token is told this once; only its hash is kept. Raises `NotFound`."""
        with self._database.write() as db:
            picture = get_picture(db, user, picture_id)
            return shares.create(db, picture_id, picture.record.user, days, with_parameters)

    def shares(self, user: str | None, picture_id: int | None = None) -> list[shares.Share]:
        """The user's links, of one picture or of all."""
        with self._database.read() as db:
            return shares.of(db, user, picture_id)

    def revoke(self, user: str | None, share_id: int) -> None:
        """End a link. Raises `NotFound`."""
        with self._database.write() as db:
            shares.revoke(db, user, share_id)

    def shared(self, token: str) -> tuple[Picture, bool]:
        """The picture behind a link, for whoever holds it, and whether its parameters may be shown.

        Raises `NotFound` for a link that never was, has ended, or whose picture is in the trash.
        """
        with self._database.read() as db:
            picture_id, with_parameters = shares.resolve(db, token)
            picture = get_picture(db, None, picture_id)
        if picture.record.state is State.trashed:
            raise shares.no_such_link()
        return picture, with_parameters

    def shared_file(self, token: str) -> tuple[Path, bool]:
        """The file behind a link, and whether it may be given with the text inside it. Raises `NotFound`."""
        picture, with_parameters = self.shared(token)
        return file_of(self.outputs, picture), with_parameters

    # In and out

    def export(self, user: str | None, text: str = "", *, folders: bool = False) -> Iterator[str]:
        """The user's pictures that a search finds (all by default) as JSON lines, each with its newline.

        `folders`: with the places of pictures outside the outputs folder; for the command line alone.
        """
        return jsonlines.export(self._database, user, parse_query(text), folders=folders)

    def import_lines(self, user: str | None, lines: Iterable[str], *, folders: bool = False) -> jsonlines.ImportedLines:
        """Take in JSON lines. A user's become that user's; only an administrator's keep their paths and owners.

        `folders`: believe places outside the outputs folder; for the command line alone.
        """
        return jsonlines.import_lines(self._database, self.outputs, user, lines, folders=folders)

    def import_folder(
        self,
        folder: Path,
        *,
        user: str = "",
        everything: bool = False,
        progress: Callable[[ImportProgress], None] = lambda _: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> Imported:
        """Take in the pictures of another program's folder where they are. Raises `InvalidParams`."""
        return import_folder(
            self._database, self.outputs, folder, user=user, everything=everything, progress=progress, stop=stop
        )
