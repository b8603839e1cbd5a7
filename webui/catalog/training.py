"""What a file's own metadata says about its training, in the words of the field."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

MAX_TAGS = 60  # of the captions, the most frequent ones
MAX_TEXT = 4 * 2**20  # characters of the caption statistics
MAX_VALUE = 400

# Key -> what it is called. Sources: kohya's trainers (ss_*), the ModelSpec standard (modelspec.*).
_NAMES = {
    "modelspec.title": "Title",
    "ss_output_name": "Name in training",
    "ss_sd_model_name": "Base model",
    "ss_base_model_version": "Base version",
    "modelspec.architecture": "Architecture",
    "ss_network_module": "Network module",
    "ss_network_dim": "Dimension",
    "ss_network_alpha": "Alpha",
    "ss_network_args": "Network arguments",
    "ss_resolution": "Training resolution",
    "modelspec.resolution": "Resolution",
    "ss_num_train_images": "Training pictures",
    "ss_num_epochs": "Epochs",
    "ss_steps": "Steps",
    "ss_clip_skip": "Clip skip in training",
    "ss_learning_rate": "Learning rate",
    "ss_optimizer": "Optimizer",
    "modelspec.author": "Author",
    "modelspec.date": "Date",
    "modelspec.license": "Licence",
    "modelspec.description": "Description",
    "modelspec.usage_hint": "Usage hint",
    "modelspec.trigger_phrase": "Trigger phrase",
    "modelspec.tags": "Tags",
    "format": "Format",
}


def training_facts(metadata: Mapping[str, str]) -> list[tuple[str, str]]:
    """(what it is, value) pairs in a fixed order; entries that say nothing are left out."""
    facts = []
    for key, name in _NAMES.items():
        value = " ".join(metadata.get(key, "").split())
        if value and value not in ("None", "null", "{}", "[]"):
            facts.append((name, value if len(value) <= MAX_VALUE else value[: MAX_VALUE - 1] + "…"))
    return facts


def training_tags(metadata: Mapping[str, str]) -> list[tuple[str, int]]:
    """The words of the training captions with how often each stood there, the most frequent first."""
    text = metadata.get("ss_tag_frequency", "")
    if not text or len(text) > MAX_TEXT:
        return []
    try:
        folders = json.loads(text)
    except (ValueError, RecursionError):
        return []
    counted: Counter[str] = Counter()
    for tags in folders.values() if isinstance(folders, dict) else ():
        counted.update(_counts(tags))
    return counted.most_common(MAX_TAGS)


def _counts(tags: Any) -> dict[str, int]:
    if not isinstance(tags, dict):
        return {}
    return {tag.strip(): n for tag, n in tags.items() if isinstance(n, int) and 0 < n < 10**9 and tag.strip()}
