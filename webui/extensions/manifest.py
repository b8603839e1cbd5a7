"""`extension.toml`: what an extension is, which hooks it asks for, and the fields of its panel.

The manifest is data and is read by both processes without running any of the extension's code, so the front can draw
the panel, check values and answer the API while the code that uses them runs in the worker alone.
"""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from webui.errors import WebUIError
from webui.extensions.specs import API_VERSION, ENGINE_HOOKS, FRONT_HOOKS, PICTURE_HOOKS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILE = "extension.toml"
MAX_SIZE = 256 * 2**10  # bytes of a manifest
MAX_TEXT = 100_000  # characters of a text value

Value = bool | int | float | str
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,39}$")]
Key = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
Line = Annotated[str, Field(min_length=1, max_length=200)]
Kind = Literal["int", "float", "bool", "choice", "text", "lines"]
Source = Literal["samplers", "schedules", "checkpoints", "vaes"]


class BadExtension(WebUIError):
    """An extension cannot be used; the message says why."""


class PanelField(BaseModel):
    """One value of a panel, as `[[panel.fields]]` declares it.

    `choices_from` fills the list of a choice with names that only a running program knows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: Key
    label: Line
    kind: Kind
    default: Value
    low: float | None = None
    high: float | None = None
    step: float | None = None
    choices: tuple[Line, ...] = ()
    choices_from: Source | None = None
    tip: str = Field("", max_length=500)
    hidden: bool = False  # for programs alone: the page does not draw it

    @model_validator(mode="after")
    def _whole(self) -> PanelField:
        if self.kind in ("int", "float") and (self.low is None or self.high is None or self.low > self.high):
            raise ValueError(f'the field "{self.key}" is a number and needs low and high')
        if self.kind == "choice" and not self.choices and self.choices_from is None:
            raise ValueError(f'the field "{self.key}" is a choice and needs choices')
        self.read(self.default)
        return self

    def read(self, value: Any) -> Value:
        """`value` as this field holds it. Raises ValueError in words."""
        if self.kind == "bool":
            if isinstance(value, bool):
                return value
            raise ValueError(f"{self.label} is on or off, not {value!r:.60}")
        if self.kind in ("int", "float"):
            return self._number(value)
        if not isinstance(value, str) or len(value) > MAX_TEXT:
            raise ValueError(f"{self.label} is a text of at most {MAX_TEXT:,} characters")
        if self.kind == "choice" and self.choices and self.choices_from is None and value not in self.choices:
            raise ValueError(f"{self.label} cannot be {value!r:.60}; choose one of: {', '.join(self.choices)}")
        return value.replace("\r\n", "\n").replace("\r", "\n")

    def _number(self, value: Any) -> int | float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{self.label} is a number, not {value!r:.60}")
        low, high = self.low or 0.0, self.high or 0.0
        if not low <= value <= high:  # also refuses NaN
            raise ValueError(f"{self.label} is between {low:g} and {high:g}")
        if self.kind == "float":
            return float(value) + 0.0
        if int(value) != value:
            raise ValueError(f"{self.label} is a whole number")
        return int(value)


class Panel(BaseModel):
    """The group of fields that the page draws below the form.

    A "script" takes the job over (it expands it into many), so only one is chosen at a time; any number of panels of
    the kind "always" can be on together.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: Line
    kind: Literal["always", "script"] = "always"
    note: str = Field("", max_length=1000)
    fields: tuple[PanelField, ...] = Field((), max_length=60)

    @field_validator("fields")
    @classmethod
    def _different(cls, fields: tuple[PanelField, ...]) -> tuple[PanelField, ...]:
        if len({field.key for field in fields}) < len(fields):
            raise ValueError("two fields of the panel have the same key")
        return fields

    def read(self, values: dict[str, Any]) -> dict[str, Value]:
        """Values with the defaults filled in, in the order of the fields. Raises ValueError in words."""
        unknown = values.keys() - {field.key for field in self.fields}
        if unknown:
            raise ValueError(f'there is no field "{min(unknown)[:60]}"; known: {", ".join(f.key for f in self.fields)}')
        return {field.key: field.read(values.get(field.key, field.default)) for field in self.fields}


class NewSampler(BaseModel):
    """A sampler that the engine side brings, as the rest of the program has to know it (`webui.names.SamplerName`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Line
    aliases: tuple[Line, ...] = ()
    default_schedule: Line = "Uniform"
    second_order: bool = False
    ancestral: bool = False


class NewSchedule(BaseModel):
    """A sigma schedule that the engine side brings (`webui.names.ScheduleName`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Line
    alias: Line


class NewUpscaler(BaseModel):
    """An upscaler that the engine side brings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Line


class Manifest(BaseModel):
    """The whole of `extension.toml`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    title: Line
    version: Line
    api: int
    summary: str = Field("", max_length=500)
    author: str = Field("", max_length=200)
    licence: str = Field("", max_length=200)
    requires: tuple[Line, ...] = ()  # as in requirements.txt
    asks: tuple[str, ...] = ()  # the hooks it may implement
    panel: Panel | None = None
    samplers: tuple[NewSampler, ...] = ()
    schedules: tuple[NewSchedule, ...] = ()
    upscalers: tuple[NewUpscaler, ...] = ()

    @field_validator("api")
    @classmethod
    def _known_api(cls, api: int) -> int:
        if api != API_VERSION:
            raise ValueError(f"it is made for version {api} of the extension API, and this program has {API_VERSION}")
        return api

    @model_validator(mode="after")
    def _hooks_exist(self) -> Manifest:
        unknown = set(self.asks) - ENGINE_HOOKS - FRONT_HOOKS
        if unknown:
            raise ValueError(f'it asks for a hook "{min(unknown)}", which does not exist')
        if PICTURE_HOOKS & set(self.asks) and self.panel is None:
            # or pictures would depend on something that neither their parameters nor their files name
            raise ValueError("a hook that changes pictures needs a [panel], so that a picture says that it was used")
        if self.panel is not None and (self.panel.kind == "script") != ("expand" in self.asks):
            raise ValueError('a panel is of the kind "script" exactly if the extension asks for "expand"')
        for what in ("samplers", "schedules", "upscalers"):
            if getattr(self, what) and what not in self.asks:
                raise ValueError(f'it brings {what} and has to ask for "{what}"')
        return self


def read_manifest(text: str) -> Manifest:
    """Raises `BadExtension` with one sentence."""
    try:
        data = tomllib.loads(text)
        return Manifest.model_validate(data)
    except tomllib.TOMLDecodeError as error:
        raise BadExtension(f"{FILE} is not valid TOML: {error}.") from None
    except RecursionError:
        raise BadExtension(f"{FILE} is nested too deeply.") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise BadExtension(f"{FILE}: {f'{where}: ' if where else ''}{message[:1].lower()}{message[1:]}.") from None


def read_manifest_file(folder: Path) -> Manifest:
    """The manifest of an extension's folder. Raises `BadExtension`."""
    path = folder / FILE
    try:
        if path.stat().st_size > MAX_SIZE:
            raise BadExtension(f"{FILE} is larger than {MAX_SIZE // 2**10} kB.")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadExtension(f"{FILE} cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    return read_manifest(text)


def folder_hash(folder: Path) -> str:
    """sha256 over the names and contents of the extension's files, in hex: what code would run."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts):
        digest.update(re.sub(r"\\", "/", str(path.relative_to(folder))).encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
