"""What the infotext and the history are told about the networks of a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from webui.infotext import hash_list
from webui.provenance import UsedModel

SHORT = 12  # digits of a network's hash in a parameters text

NetworkKind = Literal["lora", "embedding", "hypernetwork"]


@dataclass(frozen=True, slots=True)
class UsedNetwork:
    """A network that acted on a picture. `name` as the prompt has it; `digest` is the hash by which users know it.

    For a LoRA the hash over its tensors alone (or what its training program wrote down), otherwise the file's sha256.
    """

    kind: NetworkKind
    name: str
    file: str  # what the catalog calls `name`
    sha256: str
    digest: str


def hash_entries(networks: Sequence[UsedNetwork]) -> tuple[tuple[str, str | None], ...]:
    """The settings "Lora hashes" and "TI hashes" of a parameters text; None where there is nothing to say."""
    return tuple(
        (key, hash_list(dict.fromkeys((n.name, n.digest[:SHORT]) for n in networks if n.kind == kind)))
        for key, kind in (("Lora hashes", "lora"), ("TI hashes", "embedding"))
    )


def used_models(networks: Sequence[UsedNetwork]) -> tuple[UsedModel, ...]:
    """For the history, each file once."""
    return tuple(dict.fromkeys(UsedModel(n.kind, n.file, n.sha256) for n in networks))
