"""The tables of `history.sqlite`, as numbered migrations that only go forward.

What a grid and a search look at is narrow (`pictures`), so that a walk over a hundred thousand rows reads a few
megabytes; params, infotext and the like are in `details`. Prompts repeat within a batch and beyond it, so each distinct
triple of prompt, negative prompt and notes is stored and indexed once (`texts`), and so is each name of a model, a
sampler or a schedule (`names`). The search columns hold the text in the folded form of `folding.fold`; the trigram
index is over those, so a search means exactly "the folded text contains the folded word".

`pictures.position` is the place in the history: milliseconds of the clock when the picture was saved, but for pictures
of our own always above the one before, so a clock that jumps back never changes the order (fault F23). Pictures that
come from elsewhere take the place of their own date.
"""

from __future__ import annotations

OUTPUTS = 1  # folders.id of the outputs folder itself; its path is "", so that the folder can be moved

V1: tuple[str, ...] = (
    "CREATE TABLE folders (id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE)",
    f"INSERT INTO folders VALUES ({OUTPUTS}, '')",
    "CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
    "INSERT INTO counters VALUES ('position', 0), ('probe', 0)",
    """CREATE TABLE names (
        id INTEGER PRIMARY KEY,
        kind TEXT NOT NULL,     -- checkpoint, vae, lora, embedding, ..., sampler, schedule
        name TEXT NOT NULL,
        sha256 TEXT NOT NULL,   -- '' when it is not known, or where there is no file
        search TEXT NOT NULL,
        UNIQUE (kind, name, sha256)
    )""",
    """CREATE TABLE texts (
        id INTEGER PRIMARY KEY,
        digest BLOB NOT NULL UNIQUE,
        prompt TEXT NOT NULL,
        negative_prompt TEXT NOT NULL,
        notes TEXT NOT NULL,
        search_prompt TEXT NOT NULL,
        search_negative TEXT NOT NULL,
        search_notes TEXT NOT NULL
    )""",
    """CREATE VIRTUAL TABLE texts_index USING fts5(
        search_prompt, search_negative, search_notes,
        content='texts', content_rowid='id', tokenize='trigram case_sensitive 1'
    )""",
    """CREATE TABLE pictures (
        id INTEGER PRIMARY KEY AUTOINCREMENT,   -- never used twice
        position INTEGER NOT NULL,
        created REAL NOT NULL,                  -- unix seconds, as the clock said
        day TEXT NOT NULL,                      -- local date of `created`, YYYY-MM-DD
        user TEXT NOT NULL,
        state TEXT NOT NULL,                    -- see records.State
        shown INTEGER NOT NULL,                 -- 1 where the state belongs into the grid
        folder INTEGER NOT NULL REFERENCES folders(id),
        path TEXT,                              -- below the folder, with "/"; NULL where there is no file
        text INTEGER NOT NULL REFERENCES texts(id),
        checkpoint INTEGER REFERENCES names(id),
        vae INTEGER REFERENCES names(id),
        sampler INTEGER REFERENCES names(id),
        schedule INTEGER REFERENCES names(id),
        seed INTEGER,
        width INTEGER NOT NULL,
        height INTEGER NOT NULL,
        steps INTEGER,
        cfg_scale REAL,
        favourite INTEGER NOT NULL DEFAULT 0,
        source TEXT NOT NULL DEFAULT '',        -- '' = made here, else the tool that made it
        job TEXT NOT NULL DEFAULT '',
        picture_index INTEGER NOT NULL DEFAULT 0,
        parent INTEGER REFERENCES pictures(id) ON DELETE SET NULL,
        relation TEXT NOT NULL DEFAULT '',
        pixels_sha256 TEXT NOT NULL DEFAULT '',
        thumbnail TEXT NOT NULL                 -- key of the thumbnail in the cache
    )""",
    "CREATE INDEX pictures_order ON pictures(shown, position)",
    "CREATE INDEX pictures_user ON pictures(user, shown, position)",
    "CREATE INDEX pictures_day ON pictures(shown, day, user, position)",
    "CREATE UNIQUE INDEX pictures_file ON pictures(folder, path) WHERE state = 'present'",
    "CREATE INDEX pictures_path ON pictures(path) WHERE state <> 'present'",
    "CREATE INDEX pictures_text ON pictures(text)",
    "CREATE INDEX pictures_job ON pictures(job) WHERE job <> ''",
    "CREATE INDEX pictures_parent ON pictures(parent) WHERE parent IS NOT NULL",
    """CREATE TABLE details (
        picture INTEGER PRIMARY KEY REFERENCES pictures(id) ON DELETE CASCADE,
        params TEXT NOT NULL,        -- canonical JSON of the whole job's params, '' where they are not known
        infotext TEXT NOT NULL,
        environment TEXT NOT NULL,   -- JSON object, see webui.provenance.Environment
        changes TEXT NOT NULL,       -- JSON object: what "replay with" changed
        seconds TEXT NOT NULL,       -- JSON object, by stage, of the whole job
        peak_memory INTEGER NOT NULL,
        error TEXT NOT NULL          -- why the picture could not be saved
    )""",
    """CREATE TABLE networks (
        name INTEGER NOT NULL REFERENCES names(id),
        picture INTEGER NOT NULL REFERENCES pictures(id) ON DELETE CASCADE,
        PRIMARY KEY (name, picture)
    ) WITHOUT ROWID""",
    "CREATE INDEX networks_picture ON networks(picture)",
    """CREATE TABLE tags (
        search TEXT NOT NULL,
        picture INTEGER NOT NULL REFERENCES pictures(id) ON DELETE CASCADE,
        tag TEXT NOT NULL,
        PRIMARY KEY (search, picture)
    ) WITHOUT ROWID""",
    "CREATE INDEX tags_picture ON tags(picture)",
    """CREATE TABLE prompts (
        user TEXT NOT NULL,
        text INTEGER NOT NULL REFERENCES texts(id),
        used INTEGER NOT NULL,       -- position of the newest picture made with it
        uses INTEGER NOT NULL,
        picture INTEGER REFERENCES pictures(id) ON DELETE SET NULL,
        PRIMARY KEY (user, text)
    ) WITHOUT ROWID""",
    "CREATE INDEX prompts_order ON prompts(user, used)",
    "CREATE INDEX prompts_text ON prompts(text)",
    "CREATE INDEX prompts_picture ON prompts(picture)",
    """CREATE TABLE replays (
        job TEXT PRIMARY KEY,        -- jobs that will make children of `parent`
        parent INTEGER NOT NULL REFERENCES pictures(id) ON DELETE CASCADE,
        relation TEXT NOT NULL,
        changes TEXT NOT NULL
    ) WITHOUT ROWID""",
    "CREATE INDEX replays_parent ON replays(parent)",
    """CREATE TABLE shares (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        token_sha256 BLOB NOT NULL UNIQUE,
        picture INTEGER NOT NULL REFERENCES pictures(id) ON DELETE CASCADE,
        user TEXT NOT NULL,
        created REAL NOT NULL,
        expires REAL,                -- NULL = until it is revoked
        with_parameters INTEGER NOT NULL
    )""",
    "CREATE INDEX shares_picture ON shares(picture)",
    """CREATE TABLE drafts (
        user TEXT NOT NULL,
        form TEXT NOT NULL,
        data TEXT NOT NULL,
        updated REAL NOT NULL,
        PRIMARY KEY (user, form)
    ) WITHOUT ROWID""",
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (V1,)
"""`MIGRATIONS[n]` leads from version n to n + 1. Never change one that was released; add another."""
