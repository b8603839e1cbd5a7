"""The whole reading of a request's prompts: comments, network tags, AND parts, and a schedule of texts for each part.

What had no effect is said in `PromptPlan.warnings`; what cannot be done at all is `InvalidParams`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from webui.events import Warning
from webui.prompt.attention import Emphasis
from webui.prompt.brackets import bracket_problems
from webui.prompt.chunks import CHUNK, DEFAULT_COMMA_BACKTRACK, EmbeddingNames, is_cut
from webui.prompt.comments import strip_comments
from webui.prompt.composable import split_and
from webui.prompt.limits import MAX_CHUNKS
from webui.prompt.networks import ExtraNetwork, split_networks, strip_networks
from webui.prompt.schedule import ScheduledText, scheduled_texts
from webui.prompt.tokenizer import ClipTokenizer

_SHOWN_PROBLEMS = 5


@dataclass(frozen=True, slots=True)
class PromptPart:
    """One prompt of a composition: its guidance weight, and which text it has at which call (`text_at`)."""

    weight: float
    schedule: tuple[ScheduledText, ...]


@dataclass(frozen=True, slots=True)
class PromptPlan:
    """Everything the engine has to know about the prompts of one pass of one picture."""

    parts: tuple[PromptPart, ...]
    negative: tuple[ScheduledText, ...]
    networks: tuple[ExtraNetwork, ...]
    warnings: tuple[Warning, ...]

    def texts(self) -> tuple[str, ...]:
        """Every text that has to be encoded, each once: the parts' in order, then the negative prompt's."""
        schedules = [*(part.schedule for part in self.parts), self.negative]
        return tuple(dict.fromkeys(entry.text for schedule in schedules for entry in schedule))


def parse_prompt(
    prompt: str,
    negative_prompt: str = "",
    *,
    steps: int,
    hires_steps: int | None = None,
    emphasis: Emphasis = "Original",
    compatible: bool = False,
    old_timelines: bool = False,
    tokenizer: ClipTokenizer | None = None,
    comma_backtrack: int = DEFAULT_COMMA_BACKTRACK,
    embeddings: EmbeddingNames | None = None,
) -> PromptPlan:
    """Read both prompts. Styles and wildcards are applied before (`styles`, `wildcards`).

    `steps` is the number of denoiser calls of the first pass (`schedule.denoiser_calls`); with `hires_steps` the plan
    is that of the second pass. With a `tokenizer` text past the limit is reported, too. `compatible` reads the prompts
    as AUTOMATIC1111 does, faults included: a number after a last colon is a weight without AND, BREAK inside brackets
    is a word, `#` has no escape. `old_timelines`: see `schedule.parse_schedule`.

    Network tags are read in the prompt alone; AND, too: in the negative prompt both are words. Raises `InvalidParams`
    past the limits of `webui.prompt.limits`.
    """
    warnings: list[Warning] = []
    text, networks, network_warnings = split_networks(strip_comments(prompt, compatible=compatible))
    negative_text = strip_comments(negative_prompt, compatible=compatible)
    warnings += network_warnings
    if strip_networks(negative_text) != negative_text:
        note = (
            "Network tags such as <lora:...> work in the prompt alone; in the negative prompt they are read as words."
        )
        warnings.append(Warning("network", note))

    def schedule(words: str, where: str) -> tuple[ScheduledText, ...]:
        entries, parsed = scheduled_texts(words, steps, hires_steps, old_timelines=old_timelines)
        if not parsed and "[" in words:
            warnings.append(
                Warning(
                    "schedule",
                    f'Prompt editing in the {where} had no effect: there is a "|" outside of [a|b], or a lone "\\".',
                )
            )
        return entries

    parts = tuple(
        PromptPart(float(weight), schedule(str(words), "prompt"))
        for words, weight in split_and(text, compatible=compatible)
    )
    negative = schedule(negative_text, "negative prompt")
    if emphasis != "None":
        warnings += _bracket_warnings(text, "prompt") + _bracket_warnings(negative_text, "negative prompt")
    plan = PromptPlan(parts, negative, networks, ())
    longest = max(plan.texts(), key=len)
    if tokenizer is not None and is_cut(
        longest,
        tokenizer,
        emphasis=emphasis,
        comma_backtrack=comma_backtrack,
        compatible=compatible,
        embeddings=embeddings,
    ):
        limit = MAX_CHUNKS * CHUNK
        warnings.append(Warning("length", f"The text after the first {limit:,} tokens of a prompt had no effect."))
    return replace(plan, warnings=tuple(dict.fromkeys(warnings)))


def _bracket_warnings(text: str, where: str) -> list[Warning]:
    problems = bracket_problems(text)
    warnings = [Warning("bracket", f"In the {where}: {problem.message}") for problem in problems[:_SHOWN_PROBLEMS]]
    if len(problems) > _SHOWN_PROBLEMS:
        more = len(problems) - _SHOWN_PROBLEMS
        warnings.append(Warning("bracket", f"In the {where}: {more:,} more brackets have no partner."))
    return warnings
