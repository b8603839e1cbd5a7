"""Extra networks in the text: `<lora:name:0.8>`, `<lora:name:te=1:unet=0.5>`, `<hypernet:name:0.6>`.

An addition of ours: `<lora:name:1:start=0.2:stop=0.8>` acts on a share of the steps.

The name is only a name here; it is looked up in the catalog's list, never joined to a path. A `#` in it is written
`\\#`: alone it begins a comment.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from webui.errors import InvalidParams
from webui.events import Warning
from webui.prompt.limits import MAX_NETWORKS, MAX_WEIGHT

_OPEN = re.compile(r"<(\w+):")
_KINDS = {"lora": "lora", "lyco": "lora", "hypernet": "hypernet"}
# What means something behind a name: the positional arguments, and the names of the others.
_ARGUMENTS = {"lora": (3, ("te", "unet", "dyn", "start", "stop")), "hypernet": (1, ("te", "start", "stop"))}


@dataclass(frozen=True, slots=True)
class ExtraNetwork:
    """A network to add to the model. `args`: the positional arguments after the name; `named`: the `key=value` ones."""

    kind: str  # "lora" or "hypernet"
    name: str
    args: tuple[str, ...] = ()
    named: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def te_weight(self) -> float:
        """The multiplier on the text encoder; also the strength of a hypernetwork."""
        return self._number("te", 0, 1.0)

    @property
    def unet_weight(self) -> float:
        """The multiplier on the UNet: the text encoder's unless it is given."""
        return self._number("unet", 1, self.te_weight)

    @property
    def dyn_rank(self) -> int | None:
        """LyCORIS: how many ranks to use, None for all."""
        value = self._number("dyn", 2, 0.0)
        return int(value) if value >= 1 else None

    @property
    def start(self) -> float:
        """The share of the steps after which it begins to act, 0 to 1."""
        return float(self.named.get("start", "").strip() or 0.0)

    @property
    def stop(self) -> float:
        """The share of the steps after which it acts no more, 0 to 1."""
        return float(self.named.get("stop", "").strip() or 1.0)

    def acts_at(self, call: int, total: int) -> bool:
        """Whether it acts at this denoiser call of `total`, counted from 0."""
        return self.start * total <= call and (call < self.stop * total or self.stop == 1.0)

    def _number(self, key: str, index: int, default: float) -> float:
        text = self.named.get(key, self.args[index] if index < len(self.args) else "")
        return float(text) if text.strip() else default


def split_networks(text: str) -> tuple[str, tuple[ExtraNetwork, ...], tuple[Warning, ...]]:
    """(the text without its tags, the networks in order, what had no effect). Linear.

    A tag of an unknown kind, or with a weight that is no number, is removed with a warning; arguments that mean nothing
    are a warning, and the network acts. Raises `InvalidParams`
    for more than `MAX_NETWORKS` tags.
    """
    kept: list[str] = []
    networks: list[ExtraNetwork] = []
    warnings: list[Warning] = []
    position = 0
    tags = _tags(text)
    if len(tags) > MAX_NETWORKS:
        raise InvalidParams(
            f"The prompt names more than {MAX_NETWORKS} networks.", "Remove some of the <lora:...> tags."
        )
    for start, end, kind, content in tags:
        kept.append(text[position:start])
        position = end
        found = _network(kind, content)
        if isinstance(found, ExtraNetwork):
            networks.append(found)
            surplus = _surplus(found)
            if surplus:
                known = ", ".join(_ARGUMENTS[found.kind][1])
                text_of = f'In "{text[start:end][:80]}", "{":".join(surplus)[:80]}" had no effect. Known: {known}.'
                warnings.append(Warning("network", text_of))
        else:
            warnings.append(Warning("network", f'"{text[start:end][:80]}" had no effect: {found}'))
    kept.append(text[position:])
    return "".join(kept), tuple(networks), tuple(warnings)


def strip_networks(text: str) -> str:
    """The text without its tags, whatever they hold and however many they are."""
    kept: list[str] = []
    position = 0
    for start, end, _, _ in _tags(text):
        kept.append(text[position:start])
        position = end
    kept.append(text[position:])
    return "".join(kept)


def written(name: str) -> str:
    """A network's name as a tag has it."""
    return name.replace("#", r"\#")


def rename_networks(text: str, present: Callable[[str, str], str | None]) -> str:
    """The text with other names in its tags: `present(kind, name)` is the name from now on, None for the same."""
    kept: list[str] = []
    position = 0
    for _, end, kind, content in _tags(text):
        name = content.partition(":")[0]
        new = present(_KINDS.get(kind.casefold(), ""), _read(name))
        if new is not None:
            begin = end - 1 - len(content)
            kept += (text[position:begin], written(new))
            position = begin + len(name)
    return "".join((*kept, text[position:]))


def _tags(text: str) -> list[tuple[int, int, str, str]]:
    """(start, end, kind, content) of every `<kind:content>`; the search ends where no `>` is left."""
    found: list[tuple[int, int, str, str]] = []
    position = 0
    while match := _OPEN.search(text, position):
        close = text.find(">", match.end())
        if close < 0:
            break
        if close == match.end():  # "<lora:>" is text
            position = close
            continue
        found.append((match.start(), close + 1, match.group(1), text[match.end() : close]))
        position = close + 1
    return found


def _network(kind: str, content: str) -> ExtraNetwork | str:
    """The network, or why there is none."""
    positional: list[str] = []
    named: dict[str, str] = {}
    for argument in content.split(":"):
        key, equals, value = argument.partition("=")
        if equals and "=" not in value:
            named[key.strip()] = value
        else:
            positional.append(argument)
    known = _KINDS.get(kind.casefold())
    if known is None:
        return f'there are no networks of the kind "{kind[:40]}". Known: {", ".join(sorted(_KINDS))}.'
    if not positional or not positional[0].strip():
        return "it has no name."
    name, *arguments = positional
    numbers = [*arguments[:3], *(named[key] for key in ("te", "unet", "dyn") if key in named)]
    for number in numbers:
        if number.strip() and not _is_weight(number):
            return f'"{number[:40]}" is not a weight between -{MAX_WEIGHT:g} and {MAX_WEIGHT:g}.'
    network = ExtraNetwork(known, _read(name), tuple(arguments), named)
    for key in ("start", "stop"):
        if named.get(key, "").strip() and not _is_share(named[key]):
            return f'{key}="{named[key][:40]}" is not a share of the steps between 0 and 1.'
    if network.start >= network.stop:
        return f"it starts at {network.start:g} and stops at {network.stop:g}, so it never acts."
    return network


def _read(name: str) -> str:
    return name.strip().replace(r"\#", "#")


def _surplus(network: ExtraNetwork) -> list[str]:
    """The arguments that mean nothing, as they are written."""
    positions, names = _ARGUMENTS[network.kind]
    named = [f"{key}={value}" for key, value in network.named.items() if key not in names]
    return [*filter(str.strip, network.args[positions:]), *named]


def _is_share(text: str) -> bool:
    return _is_weight(text) and 0 <= float(text) <= 1


def _is_weight(text: str) -> bool:
    try:
        value = float(text)
    except ValueError:
        return False
    return math.isfinite(value) and abs(value) <= MAX_WEIGHT
