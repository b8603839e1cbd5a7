"""The prompt language, from text to what the text encoder reads. No torch.

The order of reading: styles are merged, wildcards chosen, comments stripped, network tags cut out, the parts around
AND split, each part scheduled over the steps (`parse_prompt` does the last four); then each scheduled text is read for
emphasis and cut into chunks of tokens (`chunk_text`).
"""

from __future__ import annotations

from webui.prompt.attention import Emphasis, Piece, parse_attention, parse_pieces
from webui.prompt.brackets import BracketProblem, bracket_problems
from webui.prompt.chunks import Chunk, EmbeddingNames, PlacedEmbedding, chunk_text, count_tokens
from webui.prompt.comments import strip_comments
from webui.prompt.composable import split_and
from webui.prompt.mentions import listed, names_in, words_of
from webui.prompt.networks import ExtraNetwork, rename_networks, split_networks, strip_networks, written
from webui.prompt.plan import PromptPart, PromptPlan, parse_prompt
from webui.prompt.schedule import ScheduledText, denoiser_calls, parse_schedule, text_at
from webui.prompt.stylebook import StyleBook
from webui.prompt.styles import Style, apply_styles, find_styles, read_styles, recognise, save_styles, shown_name
from webui.prompt.tokenizer import ClipTokenizer, clip_tokenizer
from webui.prompt.wildcards import every_expansion, expand_wildcards, has_wildcards, list_wildcards, wildcard_lines

__all__ = [
    "BracketProblem",
    "Chunk",
    "ClipTokenizer",
    "EmbeddingNames",
    "Emphasis",
    "ExtraNetwork",
    "Piece",
    "PlacedEmbedding",
    "PromptPart",
    "PromptPlan",
    "ScheduledText",
    "Style",
    "StyleBook",
    "apply_styles",
    "bracket_problems",
    "chunk_text",
    "clip_tokenizer",
    "count_tokens",
    "denoiser_calls",
    "every_expansion",
    "expand_wildcards",
    "find_styles",
    "has_wildcards",
    "list_wildcards",
    "listed",
    "names_in",
    "parse_attention",
    "parse_pieces",
    "parse_prompt",
    "parse_schedule",
    "read_styles",
    "recognise",
    "rename_networks",
    "save_styles",
    "shown_name",
    "split_and",
    "split_networks",
    "strip_comments",
    "strip_networks",
    "text_at",
    "wildcard_lines",
    "words_of",
    "written",
]
