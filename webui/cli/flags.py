"""Flags that several commands share, as frozen dataclasses, and what they mean for settings and paths.

A flag holds for this run and is never saved.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

import typer

from webui import settings as stored
from webui.errors import SettingsError
from webui.paths import REPO_ROOT, Paths
from webui.settings import Attention, Precision, Settings, WeightStorage

R = TypeVar("R")

_FOLDERS, _MACHINE = "Folders", "Machine"


class PrecisionFlag(str, Enum):
    """Our names, and the three that users of other programs know."""

    auto = "auto"
    fp16 = "fp16"
    bf16 = "bf16"
    fp32 = "fp32"
    full = "full"  # fp32
    half = "half"  # fp16
    autocast = "autocast"  # auto


def _models(flag: str, what: str) -> Any:
    help_text = f"Also look for {what} here, before the usual folder. May be given several times."
    return typer.Option(
        flag, exists=True, file_okay=False, rich_help_panel=_FOLDERS, help=help_text, metavar="DIR", show_default=False
    )


def _folder(flag: str, help_text: str) -> Any:
    return typer.Option(flag, file_okay=False, rich_help_panel=_FOLDERS, help=help_text, metavar="DIR")


def _switch(flag: str, help_text: str) -> Any:
    return typer.Option(flag, rich_help_panel=_MACHINE, help=help_text)


@dataclass(frozen=True, slots=True)
class Folders:
    """Where models are read from and where things are written."""

    data_dir: Annotated[
        Path | None,
        _folder("--data-dir", "The folder of models/, outputs/, config.yaml, cache/ and logs/ (that of app.py)."),
    ] = None
    outputs_dir: Annotated[Path | None, _folder("--outputs-dir", "Save pictures below this folder.")] = None
    ckpt_dir: Annotated[list[Path] | None, _models("--ckpt-dir", "checkpoints")] = None
    vae_dir: Annotated[list[Path] | None, _models("--vae-dir", "VAEs")] = None
    lora_dir: Annotated[list[Path] | None, _models("--lora-dir", "LoRAs")] = None
    embeddings_dir: Annotated[list[Path] | None, _models("--embeddings-dir", "embeddings")] = None
    styles_file: Annotated[
        list[Path] | None,
        typer.Option(
            "--styles-file",
            rich_help_panel=_FOLDERS,
            help="Also read styles from this CSV file; its name may hold * and ?. The first one is where new styles are"
            " written. May be given several times.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None

    def paths(self) -> Paths:
        return Paths.under(
            self.data_dir or REPO_ROOT,
            outputs=self.outputs_dir,
            checkpoints=tuple(self.ckpt_dir or ()),
            vaes=tuple(self.vae_dir or ()),
            loras=tuple(self.lora_dir or ()),
            embeddings=tuple(self.embeddings_dir or ()),
            styles=tuple(self.styles_file or ()),
            shipped=True,
        )


@dataclass(frozen=True, slots=True)
class Machine:
    """What computes, in which precision, with how much memory."""

    attention: Annotated[Attention | None, _switch("--attention", "The attention kernels.")] = None
    xformers: Annotated[bool, _switch("--xformers", "The same as --attention xformers.")] = False
    opt_sdp_attention: Annotated[bool, _switch("--opt-sdp-attention", "The same as --attention sdpa.")] = False
    precision: Annotated[PrecisionFlag | None, _switch("--precision", "Numbers of the networks.")] = None
    no_half: Annotated[bool, _switch("--no-half", "Every network in fp32: slower, more memory.")] = False
    no_half_vae: Annotated[bool, _switch("--no-half-vae", "The VAE alone in fp32.")] = False
    weights: Annotated[WeightStorage | None, _switch("--weights", "How the UNet's weights are kept in memory.")] = None
    medvram: Annotated[bool, _switch("--medvram", "Keep one network on the GPU at a time.")] = False
    lowvram: Annotated[bool, _switch("--lowvram", "Keep one layer on the GPU at a time: much slower.")] = False
    use_cpu: Annotated[bool, _switch("--use-cpu", "Compute on the CPU, even if there is a GPU.")] = False
    safe_mode: Annotated[bool, _switch("--safe-mode", "Start without any extension.")] = False

    def overrides(self) -> dict[str, Any]:
        """The settings that these flags replace, by dotted name. Raises `SettingsError` where two contradict."""
        values: dict[str, Any] = {}
        attention = {Attention.xformers} if self.xformers else set()
        attention |= {Attention.sdpa} if self.opt_sdp_attention else set()
        attention |= {self.attention} if self.attention else set()
        if chosen := _only(attention, "--attention, --xformers, --opt-sdp-attention"):
            values["device.attention"] = chosen.value
        precisions = {Precision.fp32} if self.no_half else set()
        precisions |= {_PRECISIONS[self.precision]} if self.precision else set()
        if wanted := _only(precisions, "--precision, --no-half"):
            values["device.precision"] = wanted.value
        if self.no_half or self.no_half_vae or self.precision is PrecisionFlag.full:
            values["device.vae_precision"] = Precision.fp32.value
        if self.weights:
            values["device.weights"] = self.weights.value
        if mode := _only({name for name in ("medvram", "lowvram") if getattr(self, name)}, "--medvram, --lowvram"):
            values["device.memory"] = mode
        if self.use_cpu:
            values["device.use_cpu"] = True
        if self.safe_mode:
            values["extensions.safe_mode"] = True
        return values


_PRECISIONS = {
    PrecisionFlag.auto: Precision.auto,
    PrecisionFlag.autocast: Precision.auto,
    PrecisionFlag.fp16: Precision.fp16,
    PrecisionFlag.half: Precision.fp16,
    PrecisionFlag.bf16: Precision.bf16,
    PrecisionFlag.fp32: Precision.fp32,
    PrecisionFlag.full: Precision.fp32,
}

T = TypeVar("T")


def _only(given: set[T], flags: str) -> T | None:
    if len(given) > 1:
        raise SettingsError(f"The flags {flags} contradict each other.", "Give one of them.")
    return next(iter(given), None)


def load_settings(paths: Paths, overrides: dict[str, Any]) -> tuple[Settings, list[str]]:
    """The settings in force for this run, and a sentence for each entry of the file that was set aside."""
    settings, problems = stored.load(paths.config_file)
    return stored.changed(settings, overrides), problems


def expanded(**groups: type[Any]) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Turn a command's dataclass parameters into one option a field, so that flags are declared once.

    `groups` names the dataclass of a parameter that is annotated in general terms.
    """

    def decorate(function: Callable[..., R]) -> Callable[..., R]:
        hints = get_type_hints(function, include_extras=True) | groups
        expandable: dict[str, Any] = {name: kind for name, kind in hints.items() if is_dataclass(kind)}
        parameters: list[inspect.Parameter] = []
        for name, parameter in inspect.signature(function).parameters.items():
            if name in expandable:
                parameters += _parameters(expandable[name])
            else:
                parameters.append(parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY))

        @functools.wraps(function)
        def command(**values: Any) -> R:
            for name, kind in expandable.items():
                values[name] = kind(**{field.name: values.pop(field.name) for field in fields(kind)})
            return function(**values)

        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return command

    return decorate


def _parameters(kind: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(kind, include_extras=True)
    return [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name]
        )
        for field in fields(kind)
    ]


def plain_type(annotation: Any) -> Any:
    """The type that a command line can read for a field: without bounds and None; a tuple is written as text."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return plain_type(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return plain_type(next(part for part in get_args(annotation) if part is not type(None)))
    return str if origin is tuple else annotation
