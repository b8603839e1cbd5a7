"""The concepts: what each is called, its keywords, and its picture."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from training.sources import KEYWORDS, NAMES, PICTURES, fetch

CONCEPTS = Path(__file__).with_name("concepts.txt")
MAX_KEYWORD = 24  # characters


@dataclass(frozen=True, slots=True)
class Concept:
    """One thing that can be drawn. `names[0]` is the one to say; the others mean the same."""

    names: tuple[str, ...]
    keywords: tuple[str, ...]  # words that go with it, and with others
    group: str
    solid: bool  # also drawn in pairs and counts
    picture: Path  # RGBA

    @property
    def name(self) -> str:
        """What it is called in a prompt."""
        return self.names[0]

    def image(self) -> Image.Image:
        """The picture, RGBA."""
        with Image.open(self.picture) as picture:
            return picture.convert("RGBA")


def load_concepts(downloads: Path, limit: int | None = None, listing: Path = CONCEPTS) -> list[Concept]:
    """The concepts of a listing, in its order. Raises ValueError for a name that no emoji has."""
    pictures = fetch(PICTURES, downloads) / "assets"
    names = fetch(NAMES, downloads) / "en"
    emoji = json.loads((names / "data.json").read_text("utf-8"))
    groups = {
        group["order"]: group["key"] for group in json.loads((names / "messages.json").read_text("utf-8"))["groups"]
    }
    annotations = fetch(KEYWORDS, downloads) / "annotations" / "en" / "annotations.json"
    cldr = json.loads(annotations.read_text("utf-8"))["annotations"]["annotations"]
    by_label = {_plain(entry["label"]): entry for entry in emoji}

    found: list[Concept] = []
    lines = [line for line in listing.read_text("utf-8").splitlines() if line.strip() and not line.startswith("#")]
    for line in lines[:limit]:
        label, _, aliases = line.lstrip("*").partition("|")
        entry = by_label.get(label.strip())
        if entry is None:
            raise ValueError(f"{listing.name}: no emoji is called {label.strip()!r}")
        words = [*entry.get("tags", ()), *cldr.get(entry["emoji"], {}).get("default", ())]
        others = [alias.strip() for alias in aliases.split(",") if alias.strip()]
        everyday = [alias[1:] for alias in others if alias.startswith("=")]
        others = [alias for alias in others if not alias.startswith("=")]
        found.append(
            Concept(
                names=tuple(dict.fromkeys([*everyday, label.strip(), *others])),
                keywords=tuple(dict.fromkeys(_plain(word) for word in words if len(word) < MAX_KEYWORD)),
                group=groups[entry["group"]],
                solid=line.startswith("*"),
                picture=_picture(pictures, entry["hexcode"].lower()),
            )
        )
    return found


def distinctive_keywords(concepts: list[Concept]) -> list[tuple[str, ...]]:
    """For each concept the keywords that no other concept has and that are nobody's name: they alone can mean it."""
    often = Counter(word for concept in concepts for word in concept.keywords)
    names = {name for concept in concepts for name in concept.names}
    return [tuple(w for w in c.keywords if often[w] == 1 and w not in names) for c in concepts]


def _plain(text: str) -> str:
    return text.lower().translate(str.maketrans("’", "'", "“”"))


def _picture(folder: Path, code: str) -> Path:
    """Files are named by code point, some with the variation selector and some without."""
    for name in (code, code.replace("-fe0f", ""), f"{code}-fe0f"):
        if (folder / f"{name}.webp").exists():
            return folder / f"{name}.webp"
    raise ValueError(f"there is no picture of {code}")
