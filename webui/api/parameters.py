"""What a parameters text or a picture says, in the terms of this machine: styles, models here, models missing."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from webui import infotext
from webui.api.responses import ModelMention, NotUnderstoodView, ParametersView
from webui.catalog import can_run
from webui.catalog.lookup import embedding_name, find_network, find_restorer, tag_names, with_hash
from webui.errors import WebUIError, near_matches
from webui.names import AUTOMATIC
from webui.prompt import ExtraNetwork, rename_networks, split_networks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from webui.catalog import Catalog
    from webui.catalog.models import ModelFile
    from webui.infotext import ParsedInfotext
    from webui.prompt import StyleBook
    from webui.settings import SettingsStore

_HASH = re.compile(r"\s*\[([0-9a-fA-F]{6,64})\]\s*$")
_SUFFIX = re.compile(r"\.(safetensors|ckpt|pt|pth|bin)$", re.IGNORECASE)
_NO_VAE = (AUTOMATIC, "None")
MAX_MENTIONED = 100
_DIGITS = 10  # of a hash, at least, that say which file it is

ForeignText = Callable[[str, "Mapping[str, str]"], "str | None"]
"""The parameters text that somebody makes of a text and chunks of a picture that they know; None for all others."""


class ParametersReader:
    """Turns parsed parameters into what the form can take over, and says what of it is not here."""

    def __init__(
        self, catalog: Catalog, store: SettingsStore, styles: StyleBook, foreign: ForeignText = lambda *_: None
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._styles = styles
        self._foreign = foreign

    def read(
        self, text: str, chunks: Mapping[str, str] | None = None, size: tuple[int, int] | None = None
    ) -> ParsedInfotext:
        """A picture's texts, or a text alone, parsed: extensions are asked first, then every dialect that we know."""
        own = self._foreign(text, chunks or {})
        if own is not None:
            return infotext.parse(own)
        return infotext.parse(text) if chunks is None else infotext.parse_chunks(text, chunks, size=size)

    def view(self, parsed: ParsedInfotext) -> ParametersView:
        """`params` hold the names that models have here; a model that is missing is left out of them and mentioned."""
        params: dict[str, Any] = {
            key: list(value) if isinstance(value, tuple) else value for key, value in parsed.params.items()
        }
        prompt, negative = parsed.prompt, parsed.negative_prompt
        styles: list[str] = []
        if "prompt" in params or "negative_prompt" in params:
            styles, prompt, negative = self._styles.recognise(prompt, negative)
        models = [*self._checkpoint(params), *self._vae(params, parsed.fields.get("VAE hash", ""))]
        models += self._faces(params)
        loras: dict[str, ModelMention] = {}
        prompt = self._with_loras(prompt, parsed.lora_hashes, loras)
        hires = params.get("hires")
        if isinstance(hires, dict) and isinstance(hires.get("prompt"), str):
            params["hires"] = {**hires, "prompt": self._with_loras(hires["prompt"], parsed.lora_hashes, loras)}
        models += [*loras.values(), *self._embeddings(parsed.embedding_hashes)]
        params.update({key: text for key, text in (("prompt", prompt), ("negative_prompt", negative)) if key in params})
        return ParametersView(
            dialect=parsed.dialect,
            prompt=prompt,
            negative_prompt=negative,
            styles=styles,
            fields=dict(parsed.fields),
            params=params,
            not_understood=[
                NotUnderstoodView(key=n.key, value=n.value, reason=n.reason) for n in parsed.not_understood
            ],
            models=models[:MAX_MENTIONED],
        )

    def _checkpoint(self, params: dict[str, Any]) -> list[ModelMention]:
        alias = params.pop("checkpoint", None)
        if not alias:
            return []
        usable = [model for model in self._catalog.checkpoints if can_run(model, self._store.current)]
        mention, found = _mention("checkpoint", *_name_and_hash(alias), usable)
        if found is not None:
            params["checkpoint"] = found.name
        elif any(_stem(model.name) == _stem(mention.name) for model in self._catalog.checkpoints):
            mention.note = f"The checkpoint {mention.name} is here, but cannot be used by this version."
        return [mention]

    def _vae(self, params: dict[str, Any], digest: str) -> list[ModelMention]:
        alias = params.get("vae")
        if not alias or alias in _NO_VAE:
            return []
        mention, found = _mention("vae", alias, digest, self._catalog.vaes)
        if found is not None:
            params["vae"] = found.name
        else:
            del params["vae"]
        return [mention]

    def _faces(self, params: dict[str, Any]) -> list[ModelMention]:
        """Without its network there is no face restoration, and the text's other settings stay as they are."""
        name = (params.get("faces") or {}).get("model", "")
        if not name or find_restorer(self._catalog.face_restorers, name) is not None:
            return []
        params["faces"] = None
        note = f'There is no face restoration model "{name}" here: faces stay as they are drawn.'
        return [ModelMention(kind="face restorer", name=name, note=note)]

    def _with_loras(self, prompt: str, hashes: dict[str, str], mentions: dict[str, ModelMention]) -> str:
        """The prompt with tags under the names that LoRAs have here; `mentions` gets what became of each, by name."""
        loras = self._catalog.loras
        for network in _tags(prompt):
            name, digest = network.name, hashes.get(network.name.replace(",", ""), "")
            if network.kind != "lora" or name in mentions:
                continue
            named = find_network(loras, name)
            found = self._of_hash(named, digest) or named
            mention = mentions[name] = ModelMention(kind="lora", name=name, digest=digest)
            if found is None:
                mention.nearest = _nearest(name, loras)
                mention.note = f'There is no LoRA "{name}" here.'
                continue
            own = {known.casefold() for known in (found.stem, found.name_without_suffix, found.name)}
            if found is named and name.casefold() in own:
                mention.here = name
                mention.note = _other_content("LoRA", name, digest, self._hashes(found))
            else:
                mention.here = tag_names(loras)[found.name]
                mention.note = f'The LoRA "{name}" is called "{mention.here}" here.'
        here = {name: mention.here for name, mention in mentions.items() if mention.here not in ("", name)}
        return rename_networks(prompt, lambda kind, name: here.get(name) if kind == "lora" else None)

    def _of_hash(self, named: ModelFile | None, digest: str) -> ModelFile | None:
        """The LoRA with this hash: the one that has the name, too, or any other; None where none is known to have it.

        A hash over the tensors alone that is not known yet is computed for the next time.
        """
        if not digest:
            return None
        loras = self._catalog.loras
        if named is not None and _one_begins(self._hashes(named), digest):
            return named
        found = with_hash(loras, digest)
        if found is not None or (named is not None and not self._by_tensors(named)):
            return found  # as long as it may be the one that has the name, not every LoRA is read for it
        return next((lora for lora in loras if _one_begins([self._by_tensors(lora)], digest)), None)

    def _hashes(self, lora: ModelFile) -> list[str]:
        """All by which a parameters text may mean the file, the usual one first; what is not known yet is ""."""
        trained = lora.metadata.get("sshs_model_hash", "").strip().lower()
        by_tensors = self._by_tensors(lora)
        return [trained or by_tensors, by_tensors, lora.sha256 or ""]

    def _by_tensors(self, lora: ModelFile) -> str:
        try:
            return self._catalog.addnet_hash(lora, wait=False)
        except WebUIError:  # a file that cannot be read is not the one
            return ""

    def _embeddings(self, hashes: dict[str, str]) -> list[ModelMention]:
        mentions = []
        for name, digest in list(hashes.items())[:MAX_MENTIONED]:  # each is looked for in all names
            named = find_network(self._catalog.embeddings, name)
            known = [(named.sha256 if named is not None else None) or ""]
            found = named if _one_begins(known, digest) else with_hash(self._catalog.embeddings, digest) or named
            mention = ModelMention(kind="embedding", name=name, digest=digest, here=found.stem if found else "")
            if found is None:
                mention.note = f'There is no embedding "{name}" here.'
                mention.nearest = _nearest(name, self._catalog.embeddings)
            elif found is named:
                mention.note = _other_content("embedding", name, digest, known)
            else:
                mention.note = f'The embedding "{name}" is called "{embedding_name(found)}" here: write that instead.'
            mentions.append(mention)
        return mentions


def _mention(kind: str, name: str, digest: str, models: Sequence[ModelFile]) -> tuple[ModelMention, ModelFile | None]:
    """A checkpoint or VAE by its hash, else by its name; a name whose hash is another one counts, and that is said."""
    found = with_hash(models, digest)
    note = ""
    if found is not None and _stem(found.name) != _stem(name):
        note = f"The {_WORDS[kind]} {name or digest} is called {found.name} here." if name else ""
    if found is None:
        found = next((model for model in models if name and _stem(model.name) == _stem(name)), None)
        known = found.short_hash if found is not None else None
        if found is not None and digest and known and not known.startswith(digest[: len(known)].lower()):
            note = f"{found.name} has the name of the {_WORDS[kind]}, but other content ({known} instead of {digest})."
    nearest = ""
    if found is None:
        note = f"There is no {_WORDS[kind]} {name or 'of that hash'}{f' [{digest}]' if digest else ''} here."
        nearest = _nearest(name, models)
    here = found.name if found is not None else ""
    return ModelMention(kind=kind, name=name, digest=digest, here=here, nearest=nearest, note=note), found


def _one_begins(hashes: Sequence[str], digest: str) -> bool:
    """Whether one of them begins with the digits of a text, which are too few to say so below `_DIGITS`."""
    return len(digest) >= _DIGITS and any(known.startswith(digest.lower()) for known in hashes)


def _other_content(word: str, name: str, digest: str, known: Sequence[str]) -> str:
    """The note on a file that has the name in a text; "" where it is the one, or may be: not all of `known` are."""
    if len(digest) < _DIGITS or not all(known) or _one_begins(known, digest):
        return ""
    return f'The {word} "{name}" here has other content ({known[0][: len(digest)]} instead of {digest}).'


_WORDS = {"checkpoint": "checkpoint", "vae": "VAE"}


def _name_and_hash(alias: str) -> tuple[str, str]:
    match = _HASH.search(alias)
    if match:
        return alias[: match.start()], match.group(1)
    return ("", alias) if re.fullmatch(r"[0-9a-fA-F]{8,64}", alias) else (alias, "")


def _stem(name: str) -> str:
    return _SUFFIX.sub("", name.replace("\\", "/").rpartition("/")[2]).casefold()


def _nearest(name: str, models: Sequence[ModelFile]) -> str:
    """The name here that is most like `name`, or ""."""
    by_stem = {_stem(model.name): model for model in models}
    quoted = re.findall(r'"([^"]*)"', near_matches(_stem(name), by_stem, 1))
    return next((by_stem[stem].name for stem in quoted if stem in by_stem), "")


def _tags(prompt: str) -> tuple[ExtraNetwork, ...]:
    try:
        return split_networks(prompt)[1]
    except WebUIError:  # more tags than a prompt may have: Generate will say so
        return ()
