"""Which files the names in a prompt mean, opened and ready to be attached; what cannot be used is said."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from webui.catalog import Catalog, Family, ModelFile, can_run
from webui.catalog.adapters import architecture
from webui.catalog.catalog import NetworkRole
from webui.catalog.lookup import embedding_name
from webui.engine.checkpoints.loaded import LoadedCheckpoint
from webui.engine.files.weights import Fingerprint, Weights, open_weights
from webui.engine.memory.residency import Residency
from webui.engine.networks.active import ActiveNetworks, UsedHypernetwork, UsedLora
from webui.engine.networks.embeddings import Bundle, Embedding, bundled_embeddings, load_embedding
from webui.engine.networks.hypernetworks import Hypernetwork, load_hypernetwork
from webui.engine.networks.layer_names import UNET
from webui.engine.networks.lora import CheckpointAdapters
from webui.engine.networks.lora_file import LoraFile
from webui.engine.networks.used import UsedNetwork
from webui.errors import WebUIError, near_matches
from webui.events import Warning
from webui.params import GenerationParams
from webui.prompt import ExtraNetwork, PromptPlan, clip_tokenizer, listed, names_in, words_of
from webui.settings import Settings

KEPT_FILES = 64  # that are open; a LoRA's is mapped into memory, not read
_WORDS: dict[NetworkRole, str] = {"lora": "LoRA", "embedding": "embedding", "hypernetwork": "hypernetwork"}

T = TypeVar("T")
Say = Callable[[str], None]
FileKey = tuple[str, str, Fingerprint]  # what it is for, its path, its content


@dataclass(frozen=True, slots=True)
class UsedEmbedding:
    """An embedding whose name stands in the prompts. `model` is its file; None where a LoRA brought it."""

    embedding: Embedding
    model: ModelFile | None


class NetworkLibrary:
    """Finds and opens the networks that prompts name, and keeps the files open that were used last.

    `residency` knows where networks of a checkpoint are kept when nothing runs.
    """

    def __init__(self, catalog: Catalog, settings: Settings, cache_dir: Path, residency: Residency) -> None:
        self._catalog = catalog
        self._settings = settings
        self._allow_pickle = settings.model.allow_pickle
        self._cache_dir = cache_dir
        self._residency = residency
        self._open: OrderedDict[FileKey, Any] = OrderedDict()
        self._last: weakref.ref[CheckpointAdapters] | None = None  # what was asked for last

    @property
    def held(self) -> dict[str, int]:
        """The files that are open, by name, each with its size in bytes."""
        return {Path(path).name: fingerprint[0] for _, path, fingerprint in self._open}

    def close(self) -> None:
        """Forget all of them. What a picture still uses stays open until it is done."""
        self._open.clear()

    def select(self, plan: PromptPlan, checkpoint: LoadedCheckpoint, calls: int) -> ActiveNetworks:
        """What the tags of a prompt ask for, with a warning for each that has no effect.

        `calls` is the number of denoiser calls of the pass, which step ranges are shares of.
        """
        warnings: list[Warning] = []

        def say(text: str) -> None:
            warnings.append(Warning("network", text))

        if checkpoint.adapters is None:
            kept = self._residency
            checkpoint.adapters = CheckpointAdapters(
                networks_of(checkpoint), lambda: kept.home, text_home=lambda: kept.guest_home, device=kept.device
            )
        checkpoint.adapters.settle()
        last = self._last() if self._last is not None else None
        if last is not None and last is not checkpoint.adapters:
            last.clear()  # of another checkpoint; its changed weights are of no use meanwhile
        self._last = weakref.ref(checkpoint.adapters)
        loras = [self._lora(tag, checkpoint, say) for tag in plan.networks if tag.kind == "lora"]
        hypernetworks = [self._hypernetwork(tag, checkpoint, say) for tag in plan.networks if tag.kind == "hypernet"]
        return ActiveNetworks(
            adapters=checkpoint.adapters,
            loras=tuple(lora for lora in loras if lora is not None),
            hypernetworks=tuple(network for network in hypernetworks if network is not None),
            calls=calls,
            warnings=tuple(warnings),
        )

    def embeddings_in(
        self,
        plan: PromptPlan,
        active: ActiveNetworks,
        checkpoint: LoadedCheckpoint,
        params: GenerationParams,
    ) -> tuple[dict[str, UsedEmbedding], list[Warning]]:
        """The embeddings whose names stand in the prompts, by name, and a warning for each that cannot be used.

        A file is opened only when its name occurs, and not where `params` wants that to be a word. A LoRA's own
        embeddings come before files of the same name.
        """
        self._catalog.notice("embedding")
        bundles = [(lora.tag.name, self._bundled(lora.file)) for lora in active.loras]
        bundled = {e.name: e for _, bundle in bundles for e in bundle.embeddings}
        words = words_of(params.read_as_words)
        named = {embedding_name(model): model for model in reversed(self._catalog.embeddings)}
        files = {name: model for name, model in named.items() if listed(name) not in words}
        known = [*bundled, *(name for name in files if name not in bundled)]
        mentioned = names_in(
            plan, known, clip_tokenizer(), emphasis=params.emphasis, compatible=params.prompt_compatibility
        )
        widths = [int(module.config.hidden_size) for name, module in networks_of(checkpoint).items() if name != UNET]
        found: dict[str, UsedEmbedding] = {}
        warnings = [
            Warning("embedding", f'The embedding "{name}" in the LoRA "{lora}" cannot be used: {_clause(why)}.')
            for lora, bundle in bundles
            for name, why in bundle.problems
        ]
        for name in (n for n in known if n in mentioned):
            model = None if name in bundled else files[name]
            try:
                embedding = bundled[name] if model is None else self._embedding(model)
                why = embedding.why_not(widths)
            except WebUIError as error:
                why = _clause(error.message)
            if why:
                warnings.append(Warning("embedding", f'The embedding "{name}" was read as words: {why}.'))
            else:
                found[name] = UsedEmbedding(embedding, model)
        return found, warnings

    def used(self, active: ActiveNetworks, embeddings: Mapping[str, UsedEmbedding]) -> tuple[UsedNetwork, ...]:
        """What the infotext and the history are told. Hashes that are not known are computed."""
        return (
            *(self._used("lora", lora.tag.name, lora.model) for lora in active.loras),
            *(self._used("hypernetwork", network.tag.name, network.model) for network in active.hypernetworks),
            *(self._used("embedding", name, e.model) for name, e in embeddings.items() if e.model is not None),
        )

    def _used(self, role: NetworkRole, name: str, model: ModelFile) -> UsedNetwork:
        sha256 = self._catalog.sha256(model)
        digest = sha256
        if role == "lora":
            digest = model.metadata.get("sshs_model_hash", "").strip().lower() or self._catalog.addnet_hash(model)
        return UsedNetwork(role, name, model.name, sha256, digest)

    def _lora(self, tag: ExtraNetwork, checkpoint: LoadedCheckpoint, say: Say) -> UsedLora | None:
        model, adapters = self._find(tag, "lora", checkpoint, say), checkpoint.adapters
        if model is None or adapters is None:
            return None
        try:
            file = self._kept(("lora", str(model.path), model.fingerprint), lambda: LoraFile(self._weights(model)))
            useful = adapters.places(file) or self._bundled(file).embeddings
        except WebUIError as error:
            say(f'The LoRA "{tag.name}" had no effect: {error.message}')
            return None
        if not useful:
            why = f"none of its {len(file.layers)} layers is in this model ({checkpoint.family})"
            say(f'The LoRA "{tag.name}" had no effect: {why}.')
            return None
        return UsedLora(tag, model, file)

    def _hypernetwork(self, tag: ExtraNetwork, checkpoint: LoadedCheckpoint, say: Say) -> UsedHypernetwork | None:
        model = self._find(tag, "hypernetwork", checkpoint, say)
        if model is None:
            return None
        key = ("hypernetwork", str(model.path), model.fingerprint)
        try:
            network: Hypernetwork = self._kept(key, lambda: load_hypernetwork(self._weights(model)))
        except WebUIError as error:
            say(f'The hypernetwork "{tag.name}" had no effect: {error.message}')
            return None
        if checkpoint.unet.config.cross_attention_dim not in network.pairs:
            widths = ", ".join(map(str, sorted(network.pairs)))
            has = checkpoint.unet.config.cross_attention_dim
            say(
                f'The hypernetwork "{tag.name}" does not act on the prompt: it is made for widths of {widths}, '
                f"this model's prompts have {has} numbers a token."
            )
        return UsedHypernetwork(tag, model, network)

    def _find(self, tag: ExtraNetwork, role: NetworkRole, checkpoint: LoadedCheckpoint, say: Say) -> ModelFile | None:
        """The file that a tag means, if it goes with the checkpoint."""
        model, word = self._catalog.find_network(role, tag.name), _WORDS[role]
        if model is None:
            near = near_matches(tag.name, (m.stem for m in self._catalog.networks(role)))
            say(f'There is no {word} "{tag.name}" here, so its tag had no effect. {near}'.strip())
        elif not can_run(model, self._settings):
            say(f'The {word} "{tag.name}" had no effect: {model.reason}')
        elif why := _misfit(model, checkpoint):
            say(f'The {word} "{tag.name}" had no effect: {why}.')
        else:
            return model
        return None

    def _embedding(self, model: ModelFile) -> Embedding:
        return self._kept(
            ("embedding", str(model.path), model.fingerprint),
            lambda: load_embedding(model, allow_pickle=self._allow_pickle, cache_dir=self._cache_dir),
        )

    def _bundled(self, file: LoraFile) -> Bundle:
        weights = file.weights
        return self._kept(("bundle", str(weights.path), weights.fingerprint), lambda: bundled_embeddings(weights))

    def _weights(self, model: ModelFile) -> Weights:
        return open_weights(model.path, allow_pickle=self._allow_pickle, cache_dir=self._cache_dir)

    def _kept(self, key: FileKey, make: Callable[[], T]) -> T:
        """From the files that are open, or opened now."""
        if key not in self._open:
            self._open[key] = make()
            while len(self._open) > KEPT_FILES:
                self._open.popitem(last=False)
        self._open.move_to_end(key)
        return cast(T, self._open[key])


def networks_of(checkpoint: LoadedCheckpoint) -> dict[str, Any]:
    """The networks of a checkpoint by the names that adapters have for them."""
    texts = [encoder.module for encoder in checkpoint.text_encoders]
    names = ("te2",) if checkpoint.family is Family.SDXL_REFINER else ("te1", "te2")
    return {UNET: checkpoint.unet, **dict(zip(names, texts, strict=False))}


def _clause(sentence: str) -> str:
    """A sentence as the end of another one."""
    return f"{sentence[:1].lower()}{sentence[1:].rstrip('.')}"


def _misfit(model: ModelFile, checkpoint: LoadedCheckpoint) -> str:
    """Why a network is not for this checkpoint, as far as the catalog knows; "" when nothing speaks against it."""
    made, is_family = architecture(model.family), architecture(checkpoint.family)
    if made is not Family.UNKNOWN and made is not is_family:
        return f"it is made for {model.family}, and this model is {checkpoint.family}"
    width = int(checkpoint.unet.config.cross_attention_dim)
    if model.kind == "lora" and model.context_dim not in (0, width):
        return f"it is made for prompts of {model.context_dim} numbers a token, and this model has {width}"
    return ""
