"""`Catalog`: the model files there are, and which of them a name means.

A refresh looks at the folders and replaces the whole snapshot at once; whoever holds the old tuples keeps a consistent
view. Detection results and hashes are remembered in the cache, so a refresh reads only what is new.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Literal

from webui.catalog.aliases import looks_like_hash
from webui.catalog.cache import Cache
from webui.catalog.completion import Completion
from webui.catalog.hasher import Hasher
from webui.catalog.inspection import needs_pickle
from webui.catalog.lookup import find_network, find_restorer, with_hash
from webui.catalog.models import ModelFile, VaeChoice
from webui.catalog.scan import MODEL_INDEX, SUFFIXES, VAE_ENDINGS, Role, find_models, is_near_vae, look_again
from webui.catalog.snapshot import Key, Reading, Seen, Snapshot, take_snapshot
from webui.catalog.vae_choice import NONE, canonical_selection, choose_vae, find_vae
from webui.errors import ModelNotFound, UnsupportedModel, near_matches
from webui.inputs import InputStore
from webui.names import AUTOMATIC, PIXEL_UPSCALERS
from webui.params import GenerationParams
from webui.paths import Paths
from webui.settings import Settings

NetworkRole = Literal["lora", "embedding", "hypernetwork"]

# What AUTOMATIC1111 calls models whose files are called otherwise.
A1111_UPSCALERS = {
    "r-esrgan 4x+": "RealESRGAN_x4plus",
    "r-esrgan 4x+ anime6b": "RealESRGAN_x4plus_anime_6B",
    "r-esrgan animevideo": "realesr-animevideov3",
    "r-esrgan general 4xv3": "realesr-general-x4v3",
    "r-esrgan general wdn 4xv3": "realesr-general-wdn-x4v3",
    "r-esrgan 2x+": "RealESRGAN_x2plus",
}
_NO_RESTORER = "Put a GFPGAN or CodeFormer file into models/GFPGAN or models/Codeformer, and refresh the lists."
SHIPPED = "emoji-128.safetensors"  # the checkpoint that comes with the program
RESCAN_SECONDS = 2.0  # an unknown name makes the folders be looked at again, unless that was done so recently


class Catalog:
    """The model files below `paths`. Cheap to make; the folders are looked at when something is first asked.

    Safe to use from several threads. Files of any kind are listed with a reason when they cannot be used; nothing that
    lies in a models folder makes these methods raise but the request for that very file.
    """

    def __init__(self, paths: Paths) -> None:
        self.paths = paths
        self._inputs = InputStore(paths.outputs)
        self._cache = Cache(paths.cache_dir / "models.sqlite")
        self._hasher = Hasher(self._cache, self._hash_known)
        self._lock = threading.RLock()
        self._snapshot: Snapshot | None = None
        self._seen: dict[Key, Seen] = {}
        self._looks: dict[Key, str] = {}
        self._scanned = 0.0
        self._revision = 0

    # What there is ------------------------------------------------------------------------------------------------

    @property
    def checkpoints(self) -> tuple[ModelFile, ...]:
        return self.snapshot.checkpoints

    @property
    def vaes(self) -> tuple[ModelFile, ...]:
        return self.snapshot.vaes

    @property
    def loras(self) -> tuple[ModelFile, ...]:
        return self.snapshot.loras

    @property
    def embeddings(self) -> tuple[ModelFile, ...]:
        return self.snapshot.embeddings

    @property
    def upscalers(self) -> tuple[ModelFile, ...]:
        return self.snapshot.upscalers

    @property
    def face_restorers(self) -> tuple[ModelFile, ...]:
        return self.snapshot.face_restorers

    @property
    def controlnets(self) -> tuple[ModelFile, ...]:
        return self.snapshot.controlnets

    @property
    def hypernetworks(self) -> tuple[ModelFile, ...]:
        return self.snapshot.hypernetworks

    @property
    def problems(self) -> tuple[str, ...]:
        """A sentence for each folder that could not be searched."""
        return self.snapshot.problems

    @property
    def revision(self) -> int:
        """Counts the changes of the snapshot (a refresh that found news, a hash that became known)."""
        return self._revision

    @property
    def snapshot(self) -> Snapshot:
        """Everything at one moment."""
        current = self._snapshot
        if current is None:
            with self._lock:
                if self._snapshot is None:
                    self.refresh()
                current = self._snapshot
        return current or Snapshot()

    def refresh(self) -> None:
        """Look at the folders again. Reads only files that are new or changed."""
        with self._lock:
            reading = Reading(
                self._seen,
                self._cache.facts() if self._snapshot is None else {},
                self._cache.hashes("sha256"),
            )
            snapshot = take_snapshot(self.paths, reading.models)
            if reading.fresh:
                self._cache.keep_facts(reading.fresh)
            gone = [key for key in self._seen if key not in reading.seen]
            if gone:
                self._cache.forget_facts(gone)
            self._seen = reading.seen
            self._looks = reading.looks
            self._scanned = time.monotonic()
            self._publish(snapshot)

    def close(self) -> None:
        """End the hashing in the background."""
        self._hasher.close()

    # What a name means --------------------------------------------------------------------------------------------

    def find_checkpoint(self, alias: str) -> ModelFile:
        """The checkpoint of that title, name, stem or hash, as it is on the disk now.

        Raises `ModelNotFound` with near matches; also when the file was deleted since the last look.
        """
        # A part of a name may mean another file than the one that was added a moment ago under this very name.
        if self.snapshot.index.exact(alias) is None:
            if self._is_model_folder(alias):
                self.refresh()
            else:
                self._rescan(alias)
        found = self.snapshot.index.find(alias)
        if found is None:
            raise self._no_checkpoint(alias)
        return self._as_it_is(found, "checkpoint")

    def default_checkpoint(self, preferred: str = "", *, allow_pickle: bool = False) -> ModelFile | None:
        """The preferred checkpoint if it is there and runs, else the first that runs, else None.

        What a user put there comes before the small one that ships.
        """
        found = self.snapshot.index.find(preferred)
        if found is not None and (found.runnable or (allow_pickle and needs_pickle(found))):
            return found
        return min((m for m in self.checkpoints if m.runnable), key=lambda m: m.path.name == SHIPPED, default=None)

    def checkpoint_for(self, alias: str | None, settings: Settings) -> ModelFile:
        """The checkpoint of that title, name, stem or hash; without one the settings' own, or the first that runs.

        Raises `ModelNotFound` as `find_checkpoint`, and when there is none to take.
        """
        if alias:
            return self.find_checkpoint(alias)
        preferred, allow_pickle = settings.model.checkpoint, settings.model.allow_pickle
        default = self.default_checkpoint(preferred, allow_pickle=allow_pickle)
        if default is None and self._rescan(""):
            default = self.default_checkpoint(preferred, allow_pickle=allow_pickle)
        if default is None:
            raise self._no_checkpoint("")
        return self._as_it_is(default, "checkpoint")

    def find_vae(self, name: str) -> ModelFile:
        """The VAE of that file name, relative path, stem or hash. Raises `ModelNotFound` with near matches."""
        try:
            found = find_vae(self.snapshot.vae_order, name)
        except ModelNotFound:
            if not self._rescan(name):
                raise
            found = find_vae(self.snapshot.vae_order, name)
        return self._as_it_is(found, "vae")

    def networks(self, role: NetworkRole) -> tuple[ModelFile, ...]:
        """The files of a kind that prompts name."""
        snapshot = self.snapshot
        return {
            "lora": snapshot.loras,
            "embedding": snapshot.embeddings,
            "hypernetwork": snapshot.hypernetworks,
        }[role]

    def find_network(self, role: NetworkRole, name: str) -> ModelFile | None:
        """The file that a prompt means by a name (`lookup.find_network`), as it is now; None without one."""
        found = find_network(self.networks(role), name)
        if found is None and self._rescan(name):
            found = find_network(self.networks(role), name)
        if found is None:
            return None
        try:
            return self._as_it_is(found, role)
        except ModelNotFound:  # deleted a moment ago; another file may have the name
            return find_network(self.networks(role), name)

    def notice(self, role: NetworkRole) -> None:
        """Look again when the files of a kind are others than at the last look.

        For embeddings: their names stand in prompts without a tag, so nothing else would bring a new one to light.
        """
        if self._is_changed(role, self._folders(role)):
            self.refresh()

    def find_upscaler(self, name: str) -> ModelFile:
        """The upscaler model of that stem, file name, relative path or hash, or AUTOMATIC1111's name for it.

        Raises `ModelNotFound` with near matches.
        """
        wanted = A1111_UPSCALERS.get(name.strip().casefold(), name)
        found = find_network(self.upscalers, wanted) or with_hash(self.upscalers, wanted)
        if found is None and self._rescan(name):
            found = find_network(self.upscalers, wanted)
        if found is None:
            known = (*PIXEL_UPSCALERS, *(model.stem for model in self.upscalers))
            raise ModelNotFound(
                f'There is no upscaler "{name[:80]}".', near_matches(name, known) or f"Known: {', '.join(known)[:500]}."
            )
        return self._as_it_is(found, "upscaler")

    def find_face_restorer(self, name: str) -> ModelFile:
        """The face restoration model of that stem, file name, relative path or hash, or the first one of that make.

        "Automatic" is the first one. Raises `ModelNotFound` with near matches.
        """
        found = find_restorer(self.face_restorers, name)
        if found is None and self._rescan(name):
            found = find_restorer(self.face_restorers, name)
        if found is None:
            what = "" if name == AUTOMATIC else f' "{name[:80]}"'
            raise ModelNotFound(
                f"There is no face restoration model{what}.",
                near_matches(name, [model.stem for model in self.face_restorers]) or _NO_RESTORER,
            )
        return self._as_it_is(found, "face_restorer")

    def resolve_vae(
        self,
        checkpoint: ModelFile,
        selection: str,
        overrides_preferences: bool = True,
        *,
        allow_pickle: bool = False,
    ) -> VaeChoice:
        """The VAE to decode with; see `choose_vae`.

        Raises `UnsupportedModel` when the selected file cannot be used, or when the choice falls on the baked VAE of a
        checkpoint that has none.
        """
        named = canonical_selection(selection) not in (AUTOMATIC, NONE)
        if named:
            with contextlib.suppress(ModelNotFound):  # told as a note of the choice
                self.find_vae(selection)
        if not (named and overrides_preferences):
            self._look_for_vaes(checkpoint)

        def chosen() -> VaeChoice:
            return choose_vae(
                checkpoint,
                selection,
                self.snapshot.vae_order,
                overrides_preferences=overrides_preferences,
                allow_pickle=allow_pickle,
            )

        choice = chosen()
        if choice.file is not None:
            try:
                return replace(choice, file=self._as_it_is(choice.file, "vae"))
            except ModelNotFound:  # deleted a moment ago, and no longer listed: it gives way to the next
                choice = chosen()
        if choice.file is None and not checkpoint.has_vae:
            raise UnsupportedModel(
                f'The checkpoint "{checkpoint.name}" has no VAE of its own. {choice.note}'.strip(),
                "Choose a VAE file, or put one beside the checkpoint.",
            )
        return choice

    def resolve(self, params: GenerationParams, settings: Settings) -> GenerationParams:
        """The request with everything filled in that was left to us: checkpoint (its name), VAE, size, seeds.

        Raises `ModelNotFound` for a checkpoint or VAE that is not there, `UnsupportedModel` for one that cannot run,
        `NotFound` for a picture to start from that is not there, `InvalidParams` when none was chosen.
        """
        return Completion(self, self._inputs, settings).of(params)

    # Hashes -------------------------------------------------------------------------------------------------------

    def sha256(self, model: ModelFile, wait: bool = True) -> str:
        """The sha256 of the whole file as it is now, 64 hex digits; of a folder, see `hashes.folder_sha256`.

        With `wait` false: "" when it is not known yet, and it is computed in the background.
        Raises `ModelNotFound` or `BadModelFile` when the file cannot be read.
        """
        return self._hasher.sha256(model, wait)

    def addnet_hash(self, model: ModelFile, wait: bool = True) -> str:
        """A LoRA's hash over its tensors alone (users see 12 digits); otherwise as `sha256`."""
        return self._hasher.addnet(model, wait)

    def hash_in_background(self) -> None:
        """Compute the hashes of all checkpoints and VAEs that can be used and have none, the smallest file first."""
        waiting = [m for m in (*self.checkpoints, *self.vaes) if m.runnable and not m.sha256]
        for model in sorted(waiting, key=lambda m: m.size):
            self._hasher.sha256(model, wait=False)

    # Inside -------------------------------------------------------------------------------------------------------

    def _no_checkpoint(self, alias: str) -> ModelNotFound:
        index = self.snapshot.index
        where = "Put a .safetensors file into models/Stable-diffusion and refresh the list."
        if not self.checkpoints:
            return ModelNotFound("There is no checkpoint.", where)
        if not alias.strip():
            return ModelNotFound("None of the checkpoints can be run.", "The list of models says why.")
        advice = near_matches(alias, index.known()) or "Refresh the list."
        if looks_like_hash(alias) and not all(m.sha256 for m in self.checkpoints):
            advice = "Not all hashes are known yet: a checkpoint's hash is computed when it is first used."
        return ModelNotFound(f'There is no checkpoint "{alias[:80]}".', advice)

    def _rescan(self, name: str) -> bool:
        """Look again for a name that is not known, unless that was done just now for something that is no file name."""
        is_file_name = name.lower().endswith(tuple(SUFFIXES["checkpoint"]))
        if not is_file_name and time.monotonic() - self._scanned < RESCAN_SECONDS:
            return False
        self.refresh()
        return True

    def _is_model_folder(self, name: str) -> bool:
        """Whether a folder of a whole model in the layout of diffusers has that name now."""
        path = PurePath(name)
        if not path.name or path.is_absolute() or ".." in path.parts:
            return False
        # Path.is_file would raise for a name that no file can have, such as one of a thousand letters.
        return any(os.path.isfile(folder / path / MODEL_INDEX) for folder in self.paths.checkpoints)  # noqa: PTH113

    def _look_for_vaes(self, checkpoint: ModelFile) -> None:
        """Look again when a VAE that the automatic choice could take came or went since the last look.

        Those are all in the VAE folders; of the folders that hold checkpoints, which may be large, only the names that
        count.
        """
        order = self.snapshot.vae_order
        names = {checkpoint.stem + ending for ending in VAE_ENDINGS}
        preferred = PurePath(checkpoint.notes.vae.strip()).name if checkpoint.notes else ""
        if is_near_vae(preferred) and not preferred.startswith("."):
            names.add(preferred)
        listed_files = (checkpoint, *self.checkpoints, *order)
        folders = {*self.paths.checkpoints, *(file.path.parent for file in listed_files)}
        places = [folder / name for folder in folders for name in names]
        # Without case: where the disk makes no difference, a file is there under a name that is not listed so.
        present = {_folded(path) for path in places if os.path.lexists(path) and not os.path.isdir(path)}  # noqa: PTH112
        listed = {_folded(path) for path in places} & {_folded(vae.path) for vae in order}
        if present != listed or self._is_changed("vae", self.paths.vaes):
            self.refresh()

    def _is_changed(self, role: Role, folders: Sequence[Path]) -> bool:
        """Whether the files below these folders are others, or look otherwise, than at the last look."""
        _ = self.snapshot  # the first look
        below = tuple(os.path.join(folder, "") for folder in folders)  # noqa: PTH118
        known = {path: look for (path, kind), look in self._looks.items() if kind == role and path.startswith(below)}
        return known != {os.fspath(f.path): f.look for folder in folders for f in find_models(folder, role)[0]}

    def _as_it_is(self, model: ModelFile, role: Role) -> ModelFile:
        """The model, read again if its file changed since the last look. Raises `ModelNotFound` when it is gone."""
        now = look_again(model.path, role, model.name, model.is_folder)
        if now is None:
            self.refresh()
            raise ModelNotFound(
                f'The file of "{model.name}" is not there any more.', "It was moved or deleted; choose another one."
            )
        known = self._seen.get((os.fspath(model.path), role))
        if known is not None and known.stamp == now.stamp:
            return model
        self.refresh()
        return next((m for m in self._listed(role) if m.path == model.path), model)

    def _listed(self, role: Role) -> tuple[ModelFile, ...]:
        if role in ("checkpoint", "vae"):
            return self.checkpoints if role == "checkpoint" else self.vaes
        networks = (*self.loras, *self.embeddings, *self.hypernetworks)
        return (*networks, *self.upscalers, *self.face_restorers, *self.controlnets)

    def _folders(self, role: NetworkRole) -> tuple[Path, ...]:
        paths = self.paths
        return {"lora": paths.loras, "embedding": paths.embeddings, "hypernetwork": paths.hypernetworks}[role]

    def _hash_known(self, model: ModelFile, digest: str) -> None:
        """Put a hash into the snapshot. Called from any thread."""
        with self._lock:
            snapshot = self._snapshot
            if snapshot is None:
                return
            self._publish(snapshot.with_hash(model, digest))

    def _publish(self, snapshot: Snapshot) -> None:
        if self._snapshot != snapshot:
            self._revision += 1
        self._snapshot = snapshot


def _folded(path: Path) -> str:
    return os.fspath(path).casefold()
