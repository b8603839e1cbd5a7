"""The History tab: every picture ever made. Pure functions at the top; its life is in the scripts named below.

The page gets its pictures from the routes below /history; nothing here reads the history itself.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from webui.history.query import IS_STATES
from webui.ui.common import mounted
from webui.ui.markup import markup

# --- pure -------------------------------------------------------------------------------------------------------------

# In the order in which they are run: each file builds on the ones before it.
SCRIPTS = (
    "history-search.js",
    "history-grid.js",
    "history-actions.js",
    "history-replay.js",
    "history-details.js",
    "history-compare.js",
    "history-viewer.js",
    "history.js",
    "stage-history.js",
    "prompts.js",
    "drafts.js",
)


@dataclass(frozen=True, slots=True)
class SearchField:
    """A field of the search language as the page offers it. `values`: what it takes, where that is a short list."""

    name: str
    example: str
    about: str
    values: tuple[str, ...] = ()


SEARCH_FIELDS = (
    SearchField("model", "model:photon", "Checkpoint, by a part of its name or the beginning of its hash"),
    SearchField("sampler", "sampler:euler", "Sampling method, by a part of its name"),
    SearchField("schedule", "schedule:karras", "Schedule type, by a part of its name"),
    SearchField("lora", "lora:grain", "LoRA, by a part of its name or the beginning of its hash"),
    SearchField("vae", "vae:mse", "VAE, by a part of its name"),
    SearchField("seed", "seed:100..200", "Seed, or a range of seeds"),
    SearchField("steps", "steps:20", "Sampling steps, or a range"),
    SearchField("size", "size:512x768", "Width and height, or one side"),
    SearchField(
        "date", "date:2026-11", "Day, month or year, or a range such as 2026-01..2026-03", ("today", "yesterday")
    ),
    SearchField("fav", "fav:yes", "Favourites, or with fav:no all others", ("yes", "no")),
    SearchField("tag", "tag:cats", "Tag, from its beginning"),
    SearchField("negative", "negative:blurry", "Word in the negative prompt"),
    SearchField("is", "is:replay", "Pictures of a kind", IS_STATES),
)
SEARCH_WORDS = (
    ("castle fog", "Both words, in the prompt or the notes"),
    ('"blue sky"', "These words in this order"),
    ("-fog", "Without the word; a minus goes before fields, too: -tag:cats"),
)


def spec() -> dict[str, Any]:
    """What the page's script needs to help with a search."""
    return {
        "fields": [asdict(field) for field in SEARCH_FIELDS],
        "words": [{"example": example, "about": about} for example, about in SEARCH_WORDS],
    }


# --- layout -----------------------------------------------------------------------------------------------------------


def build() -> None:
    """The tab's content. Called inside a `gr.Tab`."""
    mounted("history", markup("history"))
