"""Prompt editing and alternation: `[from:to:when]` changes a text once, `[a|b|c]` at every step.

`when` without a dot is a step, with a dot a share of the steps; 1.0 to 2.0 and steps past the first pass address the
hires pass. The grammar is AUTOMATIC1111's. It is read here with one stack in one pass: a bracket whose content fits no
form is plain text, and then no bracket around it can be a form either, for a form holds only balanced brackets.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple

from webui.errors import InvalidParams
from webui.prompt.limits import MAX_DEPTH, MAX_SCHEDULE_TEXT, MAX_SCHEDULE_WORK, too_deep

_TOKEN = re.compile(r"\\.|\\|[^\\()\[\]:|]+|[()\[\]:|]")
# lark's SIGNED_NUMBER: digits may lack on one side of the dot
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)


class ScheduledText(NamedTuple):
    """`text` is in force up to and including denoiser call `end_step` (see `text_at`)."""

    end_step: int
    text: str


@dataclass(frozen=True, slots=True)
class _Edit:
    before: list[_Node]
    after: list[_Node]
    when: str


@dataclass(frozen=True, slots=True)
class _Alternation:
    options: list[list[_Node]]


_Node = str | _Edit | _Alternation


@dataclass(slots=True)
class _Frame:
    """An open bracket: its content so far, cut at the colons and bars of its own level."""

    bracket: str
    segments: list[list[_Node]] = field(default_factory=lambda: [[]])
    separators: list[str] = field(default_factory=list)

    def literal(self) -> list[_Node]:
        """The content as the plain text it was, without the closing bracket."""
        nodes: list[_Node] = [self.bracket]
        for i, segment in enumerate(self.segments):
            if i:
                nodes.append(self.separators[i - 1])
            nodes += segment
        return nodes


class _NotAPrompt(Exception):
    """The text is outside the grammar: a bar that belongs to no alternation, or a backslash before nothing."""


def parse_schedule(
    text: str, steps: int, hires_steps: int | None = None, *, old_timelines: bool = False
) -> list[list[int | str]]:
    """`[[end_step, text], ...]` of one pass; steps count from 1 here. See `text_at` for which text a step uses.

    `steps` is the number of denoiser calls of the first pass (`denoiser_calls`). With `hires_steps` the schedule is
    that of the second pass. `old_timelines` reads `when` as versions before 1.6 did: below 1 a share, else a step.
    A text that does not parse has one entry, itself. Raises `InvalidParams` past the limits.

    >>> parse_schedule("a [b:.5] c", 10)
    [[5, 'a  c'], [10, 'a b c']]
    """
    schedule, _ = scheduled_texts(text, steps, hires_steps, old_timelines=old_timelines)
    return [[entry.end_step, entry.text] for entry in schedule]


def scheduled_texts(
    text: str, steps: int, hires_steps: int | None = None, *, old_timelines: bool = False
) -> tuple[tuple[ScheduledText, ...], bool]:
    """The same as a tuple, and whether the text parsed (False: editing and alternation in it have no effect)."""
    hires = hires_steps is not None and not old_timelines
    last = hires_steps if hires_steps is not None and hires else steps
    try:
        nodes = _read(text)
    except _NotAPrompt:
        return (ScheduledText(last, text),), False
    timeline = _Timeline(last, steps if hires else 0, old_timelines)
    ends = {last}
    changes = _collect(nodes, timeline, ends)
    if changes * len(ends) > MAX_SCHEDULE_WORK or len(text) * len(ends) > MAX_SCHEDULE_TEXT:
        raise InvalidParams(
            f"The prompt changes in {changes:,} places at {len(ends):,} steps, which is more than can be prepared.",
            "Shorten it, or use fewer alternations [a|b] or steps.",
        )
    seen: dict[str, str] = {}  # an alternation repeats its texts: keep each once
    entries = []
    for end in sorted(ends):
        current = _text_at_step(nodes, end, timeline)
        entries.append(ScheduledText(end, seen.setdefault(current, current)))
    return tuple(entries), True


def text_at(schedule: tuple[ScheduledText, ...], call: int) -> str:
    """The text that denoiser call `call` (counted from 0) uses: the first entry that ends at it or later.

    Call 0 and call 1 both fall to an entry that ends at 1, so the first text lasts one call longer than its number
    says. That is what AUTOMATIC1111 does, and old pictures depend on it.
    """
    return next((entry.text for entry in schedule if call <= entry.end_step), schedule[-1].text)


def denoiser_calls(steps: int, second_order: bool) -> int:
    """How many calls the schedule counts: methods that call the denoiser twice a step count every call."""
    return steps * 2 if second_order else steps


@dataclass(frozen=True, slots=True)
class _Timeline:
    """How a written `when` becomes a step of this pass."""

    steps: int
    first_pass_steps: int  # 0 unless this is the hires pass
    old: bool

    def step(self, when: str) -> int:
        value = float(when)
        if self.old:
            value = value * self.steps if value < 1 else value
        elif "." in when:
            value = (value - (1.0 if self.first_pass_steps else 0.0)) * self.steps
        else:
            value -= self.first_pass_steps
        return int(max(min(value, self.steps), -1.0))  # bounded before int(): 1e999 is a number, too


def _read(text: str) -> list[_Node]:
    """The text as a tree. Raises `_NotAPrompt`, and `InvalidParams` for brackets nested too deep."""
    root = _Frame("")
    stack = [root]
    stray_bar = False

    def flatten() -> None:
        """Every open bracket turns out to be plain text."""
        nonlocal stray_bar
        for frame in stack[1:]:
            stray_bar = stray_bar or "|" in frame.separators
            root.segments[-1] += frame.literal()
        del stack[1:]

    for match in _TOKEN.finditer(text):
        token = match.group()
        top = stack[-1]
        if token in "([" and len(token) == 1:
            if len(stack) > MAX_DEPTH:
                raise too_deep()
            stack.append(_Frame(token))
        elif token in ")]" and len(token) == 1:
            form = _form(top, token)
            if form is not None:
                stack.pop()
                stack[-1].segments[-1] += form
            else:
                flatten()
                root.segments[-1].append(token)
        elif token in (":", "|") and top is not root:
            top.separators.append(token)
            top.segments.append([])
        elif token == "|":
            stray_bar = True
        elif token == "\\":
            raise _NotAPrompt
        else:
            top.segments[-1].append(token)
    flatten()
    if stray_bar:
        raise _NotAPrompt
    return root.segments[0]


def _form(frame: _Frame, closing: str) -> list[_Node] | None:
    """What the bracket is, once closed: emphasis (its own text), an edit, an alternation, or nothing of these."""
    colons, bars = frame.separators.count(":"), frame.separators.count("|")
    if frame.bracket == "(" and closing == ")" and colons <= 1 and not bars:
        return [*frame.literal(), ")"]
    if frame.bracket != "[" or closing != "]":
        return None
    if bars and not colons:
        return [_Alternation(frame.segments)]
    if bars or colons > 2:
        return None
    if not colons:
        return [*frame.literal(), "]"]
    last = frame.segments[-1]
    when = last[0].strip() if len(last) == 1 and isinstance(last[0], str) else ""
    if not _NUMBER.fullmatch(when):
        return None
    return [_Edit(frame.segments[0] if colons == 2 else [], frame.segments[-2], when)]


def _collect(nodes: list[_Node], timeline: _Timeline, ends: set[int]) -> int:
    """Add the steps at which something changes to `ends`; the answer is how many places change."""
    changes = 0
    for node in nodes:
        if isinstance(node, _Edit):
            step = timeline.step(node.when)
            if step >= 1:
                ends.add(step)
            changes += 1 + _collect(node.before, timeline, ends) + _collect(node.after, timeline, ends)
        elif isinstance(node, _Alternation):
            ends.update(range(1, timeline.steps + 1))
            changes += 1 + sum(_collect(option, timeline, ends) for option in node.options)
    return changes


def _text_at_step(nodes: list[_Node], step: int, timeline: _Timeline) -> str:
    parts: list[str] = []
    for node in nodes:
        if isinstance(node, str):
            parts.append(node)
        elif isinstance(node, _Edit):
            chosen = node.before if step <= timeline.step(node.when) else node.after
            parts.append(_text_at_step(chosen, step, timeline))
        else:
            parts.append(_text_at_step(node.options[(step - 1) % len(node.options)], step, timeline))
    return "".join(parts)
