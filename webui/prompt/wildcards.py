"""Wildcards and variants: `__animal__` is a line of `wildcards/animal.txt`, `{a|b|c}` one of three, `{2$$a|b|c}` two.

The choice depends on the seed alone, so a picture can be made again. What is chosen may hold wildcards and variants
itself. Braces without a bar are plain text. `{1-3$$ and $$a|b|c}` joins one to three with " and "; `{0.5::a|b}` makes
`a` half as likely.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise
from pathlib import Path

from webui.errors import NotFound, near_matches
from webui.events import Warning
from webui.params import MAX_PROMPT_LENGTH
from webui.paths import safe_path

MAX_FILE_SIZE = 4 * 2**20  # bytes
MAX_NESTING = 20  # wildcards inside wildcards
MAX_CHOICES = 10_000  # of one prompt
_NAME = re.compile(r"[\w][\w \-./]*")
_MAX_NAME = 200
_START = re.compile(r"__|\{")
_BRACKET = re.compile(r"\\[\s\S]?|[\[\]{}|]")
_COUNT = re.compile(r"\s*(\d{1,3})(?:-(\d{1,3}))?\$\$")
_WEIGHT = re.compile(r"\s*(\d{1,6}(?:\.\d{0,6})?|\.\d{1,6})::")


@dataclass(slots=True)
class _Expansion:
    """One prompt being expanded."""

    random: random.Random
    root: Path | None
    choices: int = 0
    warnings: dict[str, Warning] = field(default_factory=dict)
    files: dict[str, list[str]] = field(default_factory=dict)

    def warn(self, text: str) -> None:
        self.warnings.setdefault(text, Warning("wildcard", text))

    def pick(self, count: int) -> int:
        """A number below `count`. Built on random() alone, whose sequence Python keeps the same between versions."""
        self.choices += 1
        return min(int(self.random.random() * count), count - 1)

    @property
    def exhausted(self) -> bool:
        return self.choices >= MAX_CHOICES


def expand_wildcards(
    text: str, *, seed: int, root: Path | None = None, stream: str = "prompt"
) -> tuple[str, tuple[Warning, ...]]:
    """The prompt with every wildcard and variant chosen, and what could not be.

    `root` is the folder of wildcard files; `stream` tells prompts of one picture apart, so that the prompt and the
    negative prompt do not choose alike. What cannot be expanded (an unknown file, too deep a nesting) stays as it is.
    """
    if "__" not in text and "{" not in text:
        return text, ()
    state = _Expansion(random.Random(f"{stream}/{seed}"), root)
    expanded = _expand(text, state, 0)
    if len(expanded) > MAX_PROMPT_LENGTH:
        state.warn(f"The wildcards made a prompt of {len(expanded):,} characters; it was left as it was written.")
        expanded = text
    return expanded, tuple(state.warnings.values())


def has_wildcards(text: str) -> bool:
    """Whether `expand_wildcards` would look for anything: a wildcard of a possible name, or a group with bars."""
    if "__" not in text and "{" not in text:
        return False
    return any(part.name or part.options for part in _split(text))


def list_wildcards(root: Path) -> list[str]:
    """The names that `__name__` can use, sorted, for completion."""
    found = (path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("*.txt") if path.is_file())
    return sorted(name for name in found if _NAME.fullmatch(name) and len(name) <= _MAX_NAME)


def wildcard_lines(name: str, root: Path) -> list[str]:
    """The lines that `__name__` can become; none when there is no such file."""
    return _read(name, _Expansion(random.Random(0), root)) if _NAME.fullmatch(name) and len(name) <= _MAX_NAME else []


def every_expansion(text: str, lines_of: Callable[[str], Sequence[str]], most: int) -> list[str] | None:
    """Every text that the wildcards and variants can become, each once, in order; None when there are more than `most`.

    `lines_of(name)` gives a wildcard file's lines; one without any stays as it is. Of `{2$$a|b|c}` every choice of two
    is taken, in the order in which they are written.
    """
    found = _every(text, lines_of, most, 0)
    return None if found is None else list(dict.fromkeys(found))


def _every(text: str, lines_of: Callable[[str], Sequence[str]], most: int, depth: int) -> list[str] | None:
    results = [""]
    for part in _split(text):
        if depth >= MAX_NESTING:
            choices: Sequence[str] = (part.source,)
        elif part.options:
            choices = _choices(part.options)
        else:
            choices = (lines_of(part.name) if part.name else ()) or (part.source,)
        grown: list[str] = []
        for choice in choices:
            plain = choice == part.source
            inner = [choice] if plain else _every(choice, lines_of, most, depth + 1)
            if inner is None or len(grown) + len(inner) > most:
                return None
            grown += inner
        grown = list(dict.fromkeys(grown))
        if len(results) * len(grown) > most:
            return None
        results = [before + after for before in results for after in grown]
    return results


def _choices(options: tuple[str, ...]) -> list[str]:
    """Every text that a variant group can become at its first level."""
    low, high, separator, texts, _ = _group(options)
    chosen = (combinations(texts, count) for count in range(low, min(high, len(texts)) + 1))
    return [separator.join(texts) for several in chosen for texts in several]


def _expand(text: str, state: _Expansion, depth: int) -> str:
    if depth > MAX_NESTING:
        state.warn(f"Wildcards are nested deeper than {MAX_NESTING} levels; the innermost were left as they are.")
        return text
    parts: list[str] = []
    length = 0
    for part in _split(text):
        if state.exhausted or length > MAX_PROMPT_LENGTH:
            state.warn(f"More than {MAX_CHOICES:,} wildcards or too long a text; the rest was left as it is.")
            expanded = part.source
        elif part.options:
            expanded = _expand(_choose(part.options, state), state, depth + 1)
        elif part.name:
            line = _line(part.name, state)
            expanded = part.source if line is None else _expand(line, state, depth + 1)
        else:
            expanded = part.source
        parts.append(expanded)
        length += len(expanded)
    return "".join(parts)


@dataclass(frozen=True, slots=True)
class _Part:
    """A stretch of text: plain, a wildcard (`name`) or a variant group (`options`)."""

    source: str
    name: str = ""
    options: tuple[str, ...] = ()


def _split(text: str) -> list[_Part]:
    """Cut a text into plain stretches, wildcards and outermost variant groups. Linear."""
    groups = _groups(text)
    parts: list[_Part] = []
    plain = position = 0
    while position < len(text):
        if position in groups:
            bars = groups[position]
            end = bars[-1] + 1
            cuts = [position, *bars]
            options = tuple(text[a + 1 : b] for a, b in pairwise(cuts))
            part = _Part(text[position:end], options=options)
        elif text.startswith("__", position) and (name := _name_at(text, position)):
            end = position + len(name) + 4
            part = _Part(text[position:end], name=name)
        else:
            match = _START.search(text, position + 1)
            position = match.start() if match else len(text)
            continue
        parts += [_Part(text[plain:position]), part]
        plain = position = end
    parts.append(_Part(text[plain:]))
    return [part for part in parts if part.source]


def _groups(text: str) -> dict[int, list[int]]:
    """For every `{` of a group with bars: the positions of its bars and its `}`. Bars in `[a|b]` are not."""
    groups: dict[int, list[int]] = {}
    stack: list[tuple[str, int, list[int]]] = []  # bracket, position, bars
    for match in _BRACKET.finditer(text):
        token, position = match.group(), match.start()
        if token in ("{", "["):
            stack.append((token, position, []))
        elif token == "|" and stack:
            stack[-1][2].append(position)
        elif token == "]" and stack and stack[-1][0] == "[":
            stack.pop()
        elif token == "}":
            unclosed: list[int] = []
            while stack and stack[-1][0] == "[":  # a square bracket left open inside: its bars are the group's
                unclosed = stack.pop()[2] + unclosed
            if stack:
                _, start, bars = stack.pop()
                if bars or unclosed:
                    groups[start] = [*bars, *unclosed, position]
    return groups


def _name_at(text: str, position: int) -> str:
    """The name of the wildcard that begins here, or ""."""
    end = text.find("__", position + 3, position + _MAX_NAME + 4)
    name = text[position + 2 : end] if end > 0 else ""
    return name if _NAME.fullmatch(name) else ""


def _group(options: tuple[str, ...]) -> tuple[int, int, str, list[str], list[float]]:
    """(fewest, most, separator, texts, weights) of a variant group."""
    low = high = 1
    separator = ", "
    texts: list[str] = []
    weights: list[float] = []
    for index, option in enumerate(options):
        count = _COUNT.match(option)
        if count:
            low, high = int(count.group(1)), int(count.group(2) or count.group(1))
            option = option[count.end() :]
            head, dollars, tail = option.partition("$$")
            if dollars and index == 0:
                separator, option = head, tail
        weight = _WEIGHT.match(option)
        texts.append(option[weight.end() :] if weight else option)
        weights.append(float(weight.group(1)) if weight else 1.0)
    low, high = sorted((low, high))
    return low, high, separator, texts, weights


def _choose(options: tuple[str, ...], state: _Expansion) -> str:
    low, high, separator, texts, weights = _group(options)
    wanted = low + state.pick(high - low + 1) if high > low else low
    chosen: list[str] = []
    left = list(range(len(texts)))
    while left and len(chosen) < wanted:
        index = _weighted(left, weights, state)
        left.remove(index)
        chosen.append(texts[index])
    return separator.join(chosen)


def _weighted(indices: Sequence[int], weights: Sequence[float], state: _Expansion) -> int:
    """One of the indices, as likely as its weight; evenly when all weights are 0."""
    total = sum(weights[index] for index in indices)
    if total <= 0:
        return indices[state.pick(len(indices))]
    state.choices += 1
    point = state.random.random() * total
    for index in indices:
        point -= weights[index]
        if point < 0:
            return index
    return indices[-1]


def _line(name: str, state: _Expansion) -> str | None:
    """A random line of a wildcard file; None, with a warning, when there is none."""
    if name not in state.files:
        state.files[name] = _read(name, state)
    lines = state.files[name]
    return lines[state.pick(len(lines))] if lines else None


def _read(name: str, state: _Expansion) -> list[str]:
    if state.root is None:
        state.warn(f'There is no folder for the wildcard "__{name}__"; it was left as it is.')
        return []
    try:
        path = safe_path(state.root, f"{name}.txt")
        if path.stat().st_size > MAX_FILE_SIZE:
            state.warn(f'The wildcard file "{name}.txt" is larger than {MAX_FILE_SIZE // 2**20} MB; it was not read.')
            return []
        text = path.read_bytes().decode("utf-8-sig", "replace")
    except (NotFound, OSError):
        advice = near_matches(name, list_wildcards(state.root))
        state.warn(f'There is no wildcard "__{name}__"; it was left as it is. {advice}'.strip())
        return []
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines:
        state.warn(f'The wildcard file "{name}.txt" has no lines to choose from.')
    return lines
