"""Extensions in a job: their hooks around the parts of the engine, in the order in which a picture is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from webui.engine.conditioning.text import Conditioning
from webui.engine.latents.vae import Pixels
from webui.engine.upscaling import Upscalers
from webui.errors import InvalidParams
from webui.extensions import Host
from webui.extensions.door import checked, panels_of
from webui.extensions.specs import PICTURE_HOOKS
from webui.params import GenerationParams
from webui.provenance import SavedPicture
from webui.sampling import GuidanceHook, GuidanceStep, registry, schedules


def rewritten(host: Host, params: GenerationParams) -> GenerationParams:
    """The request as extensions want it. Raises `InvalidParams` for one that is not here, or for their values.

    The values of an extension that does nothing but this are not in the answer: what is recorded holds what it made of
    the request, and a replay must not ask it for more.
    """
    params = completed(host, params)
    for name in params.extension_values:
        values = params.extension_values.get(name)  # an extension before may have taken itself or others out
        if values is not None:
            params = host.rewrite("params", "request", params, {name: values})
            if PICTURE_HOOKS & set(host.manifests[name].asks) == {"params"}:
                params = params.without_extension(name)
    return params


def completed(host: Host, params: GenerationParams) -> GenerationParams:
    """The request with all values of its extensions. Raises `InvalidParams` for one that is not here, or for values."""
    return checked(params, panels_of(host.manifests))


class JobExtensions:
    """The hooks of the extensions that take part in one job. `warn` is told what became of them."""

    def __init__(self, host: Host, params: GenerationParams, warn: Callable[[str], None]) -> None:
        self._host = host
        self._params = params
        self._values: Mapping[str, Mapping[str, object]] = params.extension_values
        self._warn = warn

    def conditioning(self, conditioning: Conditioning) -> Conditioning:
        """What a picture is conditioned on, as the extensions want it."""
        answer: object = self._host.rewrite(
            "conditioning", "conditioning", conditioning, self._values, request=self._params
        )
        self.tell()
        if isinstance(answer, Conditioning):
            return answer
        self._warn("An extension's answer to the hook conditioning is no conditioning; it was left out.")
        return conditioning

    def preprocess(self, picture: Image.Image) -> Image.Image:
        """The picture to start from as the extensions want it."""
        answer: object = self._host.rewrite("preprocess", "picture", picture, self._values, request=self._params)
        self.tell()
        if isinstance(answer, Image.Image):
            return answer
        self._warn("An extension's answer to the hook preprocess is no picture; it was left out.")
        return picture

    def guidance(self) -> tuple[GuidanceHook, ...]:
        """The step hooks for one batch; they run after our own."""
        answers = self._host.ask("step", self._values, request=self._params)
        hooks = tuple(_Guarded(self._host, name, hook) for name, hook in answers)
        self.tell()
        return hooks

    def decoded(self, pixels: Pixels, index: int) -> Pixels:
        """The pixels (H, W, 3) of picture `index` as the extensions want them."""
        for name in sorted(self._values):
            for _, answer in self._host.ask(
                "decoded", {name: self._values[name]}, pixels=pixels.copy(), index=index, request=self._params
            ):
                if isinstance(answer, np.ndarray) and answer.dtype == np.uint8 and answer.shape == pixels.shape:
                    pixels = np.ascontiguousarray(answer)
                else:
                    self._warn(f"The extension {name} gave no picture of {pixels.shape}; its answer was left out.")
        self.tell()
        return pixels

    def saved(self, picture: SavedPicture) -> None:
        """A picture has its file."""
        for _ in self._host.ask("saved", picture=picture):
            continue
        self.tell()

    def tell(self) -> None:
        """Say what failed since the last time."""
        for notice in self._host.take_notices():
            self._warn(notice)


class _Guarded:
    """A step hook of an extension, with its failures kept away from the picture: what it changed is taken back."""

    def __init__(self, host: Host, name: str, hook: GuidanceHook) -> None:
        self._host = host
        self._name = name
        self._hook = hook

    def before(self, step: GuidanceStep) -> None:
        """See `webui.sampling.GuidanceHook`."""
        kept = step.x, step.cfg_scale, step.with_uncond
        if not self._ran(self._hook.before, step) or step.x.shape != kept[0].shape:
            step.x, step.cfg_scale, step.with_uncond = kept

    def after(self, step: GuidanceStep) -> None:
        """See `webui.sampling.GuidanceHook`."""
        kept = step.denoised
        if not self._ran(self._hook.after, step) or step.denoised.shape != kept.shape:
            step.denoised = kept

    def _ran(self, call: Callable[[GuidanceStep], None], step: GuidanceStep) -> bool:
        if self._host.is_off(self._name):
            return False

        def run() -> bool:
            call(step)
            return True

        return self._host.guard(self._name, "step", run) is not None


def register_functions(host: Host, upscalers: Upscalers) -> None:
    """Give the samplers, schedules and upscalers of extensions their functions, in this process.

    A function that is not there leaves its name known but refused, with the reason, when a job asks for it.
    """
    for hook, add in (
        ("samplers", registry.add_function),
        ("schedules", schedules.add_function),
        ("upscalers", upscalers.add),
    ):
        for name, answer in host.ask(hook):
            named = [one.name for one in getattr(host.manifests[name], hook)]
            functions = host.guard(name, hook, lambda names=named, given=answer: _functions(names, given))  # type: ignore[misc]
            for key, function in (functions or {}).items():
                add(key, function)


def _functions(names: Sequence[str], given: object) -> dict[str, Callable[..., Any]]:
    """Those of an answer that the manifest names. Raises TypeError, as a failure of the extension's hook."""
    if not isinstance(given, Mapping):
        raise TypeError(f"the answer is {type(given).__name__}, not names with functions")
    functions = {name: given[name] for name in names if name in given}
    wrong = next((name for name, function in functions.items() if not callable(function)), None)
    if wrong is not None:
        raise TypeError(f'"{wrong}" is no function')
    return functions


def refused(host: Host, name: str) -> InvalidParams:
    """The error for a job that wants a script which cannot run."""
    return InvalidParams(
        f"The extension {name} gave no pictures to make.", host.problems.get(name) or "Look at the log for the reason."
    )
