"""Routes of the prompt boxes: styles, completion of names, tokens, reading of a parameters text.

Styles are everybody's, so administrators alone change them.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query, Response

from webui.api.common import ERRORS, NO_STORE, JsonBody, fields_of
from webui.api.completion import KINDS, complete
from webui.api.parameters import ParametersReader
from webui.api.responses import CompletionView, ParametersView, StyleList, StyleView, TokenCount
from webui.api.viewer import AdminOnly
from webui.catalog import can_run
from webui.catalog.lookup import bundled_vectors, embedding_vectors, find_network
from webui.errors import InvalidParams, WebUIError
from webui.params import MAX_PROMPT_LENGTH, make_params
from webui.prompt import (
    EmbeddingNames,
    Style,
    StyleBook,
    clip_tokenizer,
    count_tokens,
    listed,
    shown_name,
    split_networks,
    strip_comments,
    words_of,
)

if TYPE_CHECKING:
    from webui.catalog import Catalog
    from webui.catalog.models import ModelFile
    from webui.settings import SettingsStore

MAX_QUERY = 100
_COUNTED = ("steps", "emphasis", "comma_backtrack", "prompt_compatibility")


def prompt_routes(
    catalog: Catalog, store: SettingsStore, styles: StyleBook, wildcards: Path, reader: ParametersReader
) -> APIRouter:
    """/styles, /completions, /tokens and /infotext."""
    router = APIRouter(tags=["prompts"], responses=ERRORS)

    @router.get("/styles", response_model=StyleList)
    def list_styles(response: Response) -> StyleList:
        """All styles, in the order of their files."""
        response.headers.update(NO_STORE)
        return _style_list(styles)

    @router.post("/styles", response_model=StyleList, dependencies=[AdminOnly])
    def save_style(body: JsonBody) -> StyleList:
        """Write a style: `{"name", "prompt", "negative_prompt", "before"}`; `before` is the name it had until now."""
        data = fields_of(body)
        name, prompt, negative, before = (_text(data, key) for key in ("name", "prompt", "negative_prompt", "before"))
        styles.save(Style(name, prompt, negative), before)
        return _style_list(styles)

    @router.post("/styles/delete", response_model=StyleList, dependencies=[AdminOnly])
    def delete_style(body: JsonBody) -> StyleList:
        """Delete a style: `{"name"}`. The file before stays beside it as NAME.bak."""
        styles.delete(_text(fields_of(body), "name"))
        return _style_list(styles)

    @router.get("/completions", response_model=list[CompletionView])
    def completions(
        response: Response,
        q: Annotated[str, Query(max_length=MAX_QUERY)] = "",
        kind: Annotated[str, Query(max_length=100)] = "",
    ) -> list[CompletionView]:
        """Names that fit what was typed, the best first; `kind` is one or several of lora, embedding, wildcard, style,
        with commas between them."""
        response.headers.update(NO_STORE)
        kinds = [name for name in kind.split(",") if name in KINDS] or list(KINDS)
        return complete(q, kinds, catalog, styles, wildcards)

    @router.get("/tokens", response_model=TokenCount)
    def tokens(text: Annotated[str, Query(max_length=MAX_PROMPT_LENGTH)] = "") -> TokenCount:
        """How many tokens a prompt takes; an embedding's name takes as many as it has vectors."""
        count, limit = count_tokens(text, clip_tokenizer(), embeddings=_embeddings(catalog, store, (text,)))
        return TokenCount(count=count, limit=limit)

    @router.post("/tokens", response_model=TokenCount)
    def tokens_of_form(body: JsonBody) -> TokenCount:
        """The same as the form has it: `{"text": ..., "negative": false, "styles": [...], "steps": 20, ...}`.

        With a `checkpoint`, the embeddings that are not made for it are words. `prompt`, beside a negative text: the
        one whose LoRA tags bring embeddings of their own.
        """
        data = fields_of(body)
        text, negative = _text(data, "text"), data.get("negative") is True
        if len(text) > MAX_PROMPT_LENGTH:
            raise InvalidParams(f"text: must be a string of at most {MAX_PROMPT_LENGTH} characters.")
        names = data.get("styles", [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise InvalidParams("styles: must be a list of names.")
        known = {style.name for style in styles.read()[0]}
        both = (_text(data, "prompt")[:MAX_PROMPT_LENGTH], text) if negative else (text, "")
        prompt, negative_prompt = styles.apply(*both, [name for name in names if name in known])
        text = negative_prompt if negative else prompt
        tagged = (prompt, negative_prompt)
        embeddings = _embeddings(catalog, store, tagged, _text(data, "checkpoint"), _text(data, "read_as_words"))
        count, limit = count_tokens(text, clip_tokenizer(), negative=negative, embeddings=embeddings, **_counting(data))
        return TokenCount(count=count, limit=limit)

    @router.post("/infotext", response_model=ParametersView)
    def read_text(body: JsonBody) -> ParametersView:
        """What a parameters text of any program says: `{"text": ...}`. A text without settings is a prompt."""
        return reader.view(reader.read(_text(fields_of(body), "text")))

    return router


def _embeddings(
    catalog: Catalog, store: SettingsStore, texts: Iterable[str], alias: str = "", read_as_words: str = ""
) -> EmbeddingNames:
    """The names that are embeddings for a checkpoint, those inside of LoRAs that the texts name among them; for any
    checkpoint where it is not known here.
    """
    words = words_of(read_as_words)
    try:
        checkpoint = catalog.find_checkpoint(alias) if alias else None
    except WebUIError:
        checkpoint = None
    usable = (model for model in catalog.embeddings if can_run(model, store.current))
    vectors = embedding_vectors(usable, checkpoint)
    vectors = {name: count for name, count in vectors.items() if listed(name) not in words}
    for lora in (lora for text in texts for lora in _loras(text, catalog)):
        vectors |= bundled_vectors(lora, checkpoint)
    return EmbeddingNames(vectors, clip_tokenizer())


def _loras(text: str, catalog: Catalog) -> list[ModelFile]:
    try:
        tags = split_networks(strip_comments(text))[1]
    except InvalidParams:  # more than a prompt may have: Generate will say so
        return []
    found = [find_network(catalog.loras, tag.name) for tag in tags if tag.kind == "lora"]
    return [lora for lora in found if lora is not None]


def _counting(data: dict[str, Any]) -> dict[str, Any]:
    """The settings that decide how a text is cut, within their bounds; what cannot be is left out."""
    given = make_params({key: data[key] for key in _COUNTED if data.get(key) is not None})
    return {
        "steps": given.steps,
        "emphasis": given.emphasis,
        "comma_backtrack": given.comma_backtrack,
        "compatible": given.prompt_compatibility,
    }


def _text(data: dict[str, Any], key: str) -> str:
    value = data.get(key, "")
    if not isinstance(value, str):
        raise InvalidParams(f"{key}: must be a text.")
    return value.encode("utf-8", "replace").decode("utf-8").replace("\0", "")


def _style_list(styles: StyleBook) -> StyleList:
    found, problems = styles.read()
    return StyleList(
        styles=[
            StyleView(
                name=style.name,
                prompt=style.prompt,
                negative_prompt=style.negative_prompt,
                file=shown_name(Path(style.source)),
            )
            for style in found
        ],
        problems=list(problems),
    )
