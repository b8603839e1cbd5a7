"""The networks in memory: which checkpoints are loaded, which VAE decodes, and switching between them.

Everything about a new file that can fail is checked before the old model goes, so a failed load leaves the old one in
place.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from webui.catalog import ModelFile, VaeChoice
from webui.engine.checkpoints.loaded import LoadedCheckpoint
from webui.engine.checkpoints.loader import (
    Target,
    fill,
    import_libraries,
    live_from_file,
    plan_vae,
    use_attention,
)
from webui.engine.checkpoints.probe import probed_prediction
from webui.engine.checkpoints.reading import Plans, open_checkpoint, plan_checkpoint, scale_factor, trained_sigmas
from webui.engine.compute.attention import Attention
from webui.engine.compute.compiling import compile_in_place
from webui.engine.compute.device import DeviceChoice
from webui.engine.compute.kernels import Kernels
from webui.engine.compute.layers import use_kernels
from webui.engine.compute.threads import unet_flop
from webui.engine.conditioning.text import TextEncoder
from webui.engine.files.dims import SD2_FAMILIES, VaeDims, vae_dims
from webui.engine.files.weights import Fingerprint, Weights, file_fingerprint, open_weights
from webui.engine.latents.vae import Vae
from webui.engine.memory.residency import Residency
from webui.engine.memory.usage import give_back
from webui.errors import BadModelFile
from webui.events import Event, Loaded, Loading
from webui.sampling import Prediction

Emit = Callable[[Event], None]

EXTERNAL_VAES = 2  # kept in memory
DEFAULT_SCALE_FACTOR = 0.18215  # of SD1's and SD2's latents
BAKED = "the VAE in the checkpoint"


@dataclass
class ModelStore:
    """Loads checkpoints and VAEs, and keeps as many as the settings allow."""

    device: DeviceChoice
    attention: Attention
    residency: Residency
    cache_dir: Path
    keep: int
    allow_pickle: bool
    sha256: Callable[[ModelFile], str]
    limit: int = 0  # bytes of all loaded checkpoints together; 0: none
    compiled: bool = False  # whether UNets are
    kernels: Kernels | None = None
    _checkpoints: OrderedDict[str, LoadedCheckpoint] = field(default_factory=OrderedDict)
    _vaes: OrderedDict[str, Vae] = field(default_factory=OrderedDict)
    _vae_fits: dict[str, tuple[Any, ...]] = field(default_factory=dict)  # the file and latents that each was loaded for
    _vae_dtypes: dict[tuple[str, Fingerprint], torch.dtype] = field(default_factory=dict)
    _active: tuple[str, str] = ("", "")  # checkpoint and VAE of the last job

    def checkpoint(self, file: ModelFile, emit: Emit, *, beside: str = "") -> LoadedCheckpoint:
        """The checkpoint, from memory or from disk. Says what it does as `Loading` and `Loaded` events.

        `beside`: the path of another one that the same job needs; it stays in memory, whatever the limits.
        Raises `BadModelFile`, `UnsafeFile` or `ModelNotFound`; whatever was loaded before is then still loaded.
        """
        path = str(file.path)
        found = self._checkpoints.get(path)
        if found is not None and not self._is_current(found, file):
            self._forget(path)
            found = None
        if found is None:
            found = self._load(file, emit, beside)
        else:
            if beside not in self._checkpoints:
                self._make_room(0, beside, path)
            self._checkpoints.move_to_end(path)
            if self._active[0] != path:
                emit(Loading("checkpoint", file.name, f"Using the loaded model {_title(file, found.short_hash)}"))
                emit(Loaded("checkpoint", file.name, found.short_hash, str(file.path), {"total": 0.0}, reused=True))
        self._active = (path, self._active[1] if self._active[0] == path else "")
        return found

    def vae(self, checkpoint: LoadedCheckpoint, choice: VaeChoice, emit: Emit) -> Vae:
        """The VAE to decode with. Only the VAE is read; the other networks stay as they are."""
        if choice.file is None:
            key, known = f"baked in {checkpoint.file.path}", checkpoint.baked
            name, source = checkpoint.file.name, BAKED
            line = "Using the VAE in the checkpoint"
        else:
            key = str(choice.file.path)
            known = self._vaes.get(key)
            fits = (*_said(choice.file), checkpoint.scale_factor, checkpoint.latent_channels)
            if known is not None and self._vae_fits.get(key) != fits:
                self.residency.leave()
                del self._vaes[key]
                known = None
            self._vae_fits[key] = fits
            name, source = choice.file.path.name, choice.source
            line = f"Loading VAE weights {source}: {'cached ' + name if known else choice.file.path}"
        announce = known is None or self._active[1] != key
        started = time.perf_counter()
        if announce:
            emit(Loading("vae", name, line))
        reused = known is not None
        seconds: dict[str, float] = {}
        if known is None:
            known = (
                self._load_baked(checkpoint, seconds)
                if choice.file is None
                else self._load_file(checkpoint, choice.file, seconds)
            )
        if choice.file is not None:
            self._vaes.move_to_end(key)
        if announce:
            seconds["total"] = time.perf_counter() - started
            emit(Loaded("vae", name, known.short_hash, source, seconds, reused))
        self._active = (self._active[0], key)
        return known

    def remember_precision(self, vae: Vae) -> None:
        """Load this VAE in its present number format from now on."""
        self._vae_dtypes[(vae.name, vae.fingerprint)] = vae.dtype

    @property
    def checkpoints(self) -> tuple[LoadedCheckpoint, ...]:
        """Those in memory, the one used last at the end."""
        return tuple(self._checkpoints.values())

    @property
    def external_vaes(self) -> tuple[Vae, ...]:
        """Those in memory that are files of their own, the one used last at the end."""
        return tuple(self._vaes.values())

    @property
    def networks(self) -> list[Any]:
        """All that are in memory."""
        checkpoints = self.checkpoints
        vaes = [*(c.baked for c in checkpoints if c.baked is not None), *self.external_vaes]
        modules = [c.unet for c in checkpoints]
        modules += [encoder.module for c in checkpoints for encoder in c.text_encoders]
        return modules + [vae.module for vae in vaes if vae.module is not None]

    def drop_others(self) -> None:
        """Unload all but the checkpoint and the VAE used last, and the weights that adapters changed in it."""
        for path in [path for path in self._checkpoints if path != self._active[0]]:
            self._forget(path)
        self.residency.leave()
        for key in [key for key in self._vaes if key != self._active[1]]:
            del self._vaes[key]
        for checkpoint in self._checkpoints.values():
            if checkpoint.adapters is not None:
                checkpoint.adapters.clear()

    def drop_checkpoints(self) -> None:
        """Unload all of them."""
        self.residency.leave()
        self._checkpoints.clear()
        self._active = ("", "")

    def drop_vaes(self) -> None:
        """Unload those that are files of their own."""
        self.residency.leave()
        self._vaes.clear()
        self._active = (self._active[0], "")

    def drop_all(self) -> None:
        """Unload everything."""
        self.drop_checkpoints()
        self.drop_vaes()
        give_back(self.device.device)

    @property
    def loaded(self) -> tuple[str, ...]:
        """Names of the checkpoints in memory, the one used last at the end."""
        return tuple(c.file.name for c in self._checkpoints.values())

    def _is_current(self, loaded: LoadedCheckpoint, file: ModelFile) -> bool:
        """False when the file was replaced, or what is said of it: a NAME.yaml may come beside it or be corrected.

        Raises `BadModelFile`, once, when it was written to in place.
        """
        if _said(loaded.file) == _said(file) and all(file_fingerprint(p) == f for p, f in loaded.sources):
            return True
        try:
            loaded.check_unchanged()
        except BadModelFile:
            self._forget(str(file.path))
            raise
        return False

    def _make_room(self, size: int, *needed: str) -> None:
        """Unload what was not used for longest until one more of `size` bytes may come; `needed` paths stay.

        With a size of 0 nothing comes: what is above the limits goes.
        """

        def full() -> bool:
            if len(self._checkpoints) + bool(size) > self.keep:
                return True
            return bool(self.limit) and sum(held.bytes for held in self._checkpoints.values()) + size > self.limit

        while full() and (spare := [path for path in self._checkpoints if path not in needed]):
            self._forget(spare[0])

    def _forget(self, path: str) -> None:
        self.residency.leave()
        self._checkpoints.pop(path, None)
        if self._active[0] == path:
            self._active = ("", "")
        give_back(self.device.device)

    def _load(self, file: ModelFile, emit: Emit, beside: str) -> LoadedCheckpoint:
        seconds: dict[str, float] = {}
        clock = _Clock(seconds)
        sha256 = self.sha256(file)
        clock.lap("calculate hash")
        mark = f"[{sha256[:10]}] " if sha256 else ""
        emit(Loading("checkpoint", file.name, f"Loading weights {mark}from {file.path}"))
        import_libraries()
        clock.lap("import libraries")
        opened = open_checkpoint(file, allow_pickle=self.allow_pickle, cache_dir=self.cache_dir)
        clock.lap("open file")
        plans = plan_checkpoint(opened, file)
        clock.lap("create model")
        self._make_room(plans.bytes(self.device.dtype, self.device.storage), beside)
        clock.lap("unload the old model")
        target = self._target(self.device.dtype)
        unet = fill(plans.unet, replace(target, storage=self.device.storage))
        guest = replace(target, device=self.residency.guest_home)
        encoders = tuple(TextEncoder(fill(plan, guest), dims) for plan, dims in plans.texts)
        use_attention(unet, self.attention)
        use_kernels(unet, self.kernels)
        clock.lap("load weights")
        prediction = plans.prediction
        if not plans.prediction_known and plans.family in SD2_FAMILIES:
            prediction = self._probed(file, unet, emit)
            clock.lap("try what it predicts")
        if self.compiled:
            compile_in_place(unet)
        path, sidecar = opened.vae.path, opened.sidecar
        loaded = LoadedCheckpoint(
            file=file,
            sha256=sha256,
            family=plans.family,
            unet=unet,
            text_encoders=encoders,
            table=trained_sigmas(sidecar, plans.zero_terminal_snr),
            prediction=prediction,
            scale_factor=(sidecar.scale_factor if sidecar else None) or scale_factor(plans.family),
            sidecar=sidecar,
            vae_dims=plans.baked,
            open_vae=lambda: Weights(path),
            sources=tuple({w.path: (w.path, w.fingerprint) for w in opened.all}.values()),
            mapped=_mapped((unet, *(encoder.module for encoder in encoders)), plans),
            flop=unet_flop(unet),
            dims=plans.dims,
            unused=plans.unused() if len(set(map(id, opened.all))) == 1 else (),
        )
        self._checkpoints[str(file.path)] = loaded
        give_back(self.device.device)
        clock.end()
        emit(Loaded("checkpoint", file.name, loaded.short_hash, str(file.path), seconds))
        return loaded

    def _probed(self, file: ModelFile, unet: Any, emit: Emit) -> Prediction:
        """What an SD2 model predicts that does not say so."""
        with self.residency.using(unet) as network:
            found = probed_prediction(network, self.device.device)
        what, size = ("velocity (v)", 768) if found == "v" else ("noise (eps)", 512)
        line = f"Its file does not say what it predicts; tried, it is {what}, as of the SD2 models for {size} pixels."
        emit(Loading("checkpoint", file.name, line))
        return found

    def _load_baked(self, checkpoint: LoadedCheckpoint, seconds: dict[str, float]) -> Vae:
        dims = checkpoint.vae_dims
        if dims is None:
            raise BadModelFile(
                f'The checkpoint "{checkpoint.file.name}" holds no VAE.', "Choose a VAE file, or put one beside it."
            )
        weights = checkpoint.open_vae()
        checkpoint.baked = self._vae(BAKED, "", False, weights, dims, checkpoint.scale_factor, seconds)
        return checkpoint.baked

    def _load_file(self, checkpoint: LoadedCheckpoint, file: ModelFile, seconds: dict[str, float]) -> Vae:
        clock = _Clock(seconds)
        sha256 = self.sha256(file)
        clock.lap("calculate hash")
        weights = open_weights(file.path, allow_pickle=self.allow_pickle, cache_dir=self.cache_dir)
        dims = vae_dims(weights.shapes, file.sidecar, checkpoint.vae_dims)
        latents = checkpoint.latent_channels
        if dims.latent_channels != latents:
            raise BadModelFile(
                f'The VAE "{file.name}" has latents of {dims.latent_channels} channels, this checkpoint {latents}.',
                "Choose a VAE of the checkpoint's family, or Automatic.",
            )
        while len(self._vaes) >= EXTERNAL_VAES:
            self.residency.leave()
            self._vaes.popitem(last=False)
        vae = self._vae(file.path.name, sha256, True, weights, dims, checkpoint.scale_factor, seconds)
        self._vaes[str(file.path)] = vae
        give_back(self.device.device)
        return vae

    def _vae(
        self,
        name: str,
        sha256: str,
        external: bool,
        weights: Weights,
        dims: VaeDims,
        scale_factor: float,
        seconds: dict[str, float],
    ) -> Vae:
        clock = _Clock(seconds)

        def read(dtype: torch.dtype) -> Any:
            module = fill(plan_vae(weights, dims), self._target(dtype))
            use_attention(module, self.attention)
            use_kernels(module, self.kernels)
            return module

        dtype = self._vae_dtypes.get((name, weights.fingerprint), self.device.vae_dtype)
        module = read(dtype)
        clock.lap("load weights")
        return Vae(
            name=name,
            sha256=sha256,
            external=external,
            fingerprint=weights.fingerprint,
            dims=dims,
            scale_factor=scale_factor,
            module=module,
            dtype=dtype,
            device=self.device.device,
            residency=self.residency,
            reload=read,
        )

    def _target(self, dtype: torch.dtype) -> Target:
        return Target(self.residency.home, dtype)


class _Clock:
    """Seconds by stage, into a dict."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self._seconds = seconds
        self._started = self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self._seconds[stage] = now - self._last
        self._last = now

    def end(self) -> None:
        self._seconds["total"] = time.perf_counter() - self._started


def _said(file: ModelFile) -> tuple[Any, ...]:
    """All that the catalog knows of a file and that decides how it is loaded."""
    prediction = (file.prediction, file.prediction_known, file.zero_terminal_snr)
    return file.fingerprint, file.family, *prediction, file.has_vae, file.sidecar


def _title(file: ModelFile, short_hash: str | None) -> str:
    return f"{file.name} [{short_hash}]" if short_hash else file.name


def _mapped(networks: tuple[Any, ...], plans: Plans) -> bool:
    files = (plans.unet.weights, *(plan.weights for plan, _ in plans.texts))
    return any(live_from_file(network, weights) for network, weights in zip(networks, files, strict=True))
