"""What the user chose once: OmegaConf structured settings in `config.yaml`.

Read at the door and validated entry by entry: an entry that is unknown or has an impossible value never stops the
start. It is set aside (`Settings.problems` names it, the file keeps a copy as `config.yaml.corrupt-TIME` when it cannot
be parsed at all) and the default is used. Written atomically with a backup. Values from the file are never
interpolated: `${oc.env:HOME}` is a plain string.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from webui.errors import SettingsError, near_matches, printable
from webui.paths import write_atomic

MAX_FILE_SIZE = 2**20  # bytes; a settings file of a megabyte is not one of ours
_DOLLAR = "\ue024"  # stands for the "$" of "${" while a file is read: OmegaConf would try to interpolate


class Precision(Enum):
    auto = "auto"  # fp16 on CUDA, bf16 on a CPU that has it, else fp32
    fp16 = "fp16"
    bf16 = "bf16"
    fp32 = "fp32"


class WeightStorage(Enum):
    full = "full"  # as they are computed with
    int8 = "int8"  # eight bits, an even step
    float8 = "float8"  # eight bits, finer for small numbers


class Attention(Enum):
    auto = "auto"
    xformers = "xformers"
    sdpa = "sdpa"
    sliced = "sliced"


class MemoryMode(Enum):
    normal = "normal"
    medvram = "medvram"  # one network on the device at a time
    lowvram = "lowvram"  # one layer of a network at a time


class Theme(Enum):
    system = "system"
    light = "light"
    dark = "dark"


class ImageFormat(Enum):
    png = "png"
    jpeg = "jpeg"
    webp = "webp"
    avif = "avif"


@dataclass
class ModelSettings:
    checkpoint: str = ""  # title, name or hash; "" = the first that can run
    vae: str = "Automatic"
    vae_overrides_preferences: bool = True  # a chosen VAE wins over the checkpoint's preferred one
    checkpoints_in_memory: int = 1
    memory_limit_gb: float = 0.0  # for all loaded checkpoints together; 0 = their number alone decides
    allow_pickle: bool = False  # open .ckpt and .pt files, through the allow-list


@dataclass
class DeviceSettings:
    use_cpu: bool = False
    precision: Precision = Precision.auto
    vae_precision: Precision = Precision.auto
    weights: WeightStorage = WeightStorage.full  # how the UNet's are kept in memory
    attention: Attention = Attention.auto
    graphs: bool = True  # CUDA graphs of the UNet
    kernels: bool = True  # our own, where they work
    compile: bool = False  # the UNet, by torch.compile
    memory: MemoryMode = MemoryMode.normal
    vram_limit_gb: float = 0.0  # for the networks on the GPU; the rest waits in RAM; 0 = no limit


@dataclass
class PreviewSettings:
    enabled: bool = True
    every_seconds: float = 0.25
    max_side: int = 512  # pixels


@dataclass
class SavingSettings:
    format: ImageFormat = ImageFormat.png
    quality: int = 90


@dataclass
class QueueSettings:
    max_pending: int = 500
    max_pending_per_user: int = 100  # of one who signed in by a name
    worker_timeout_seconds: float = 120.0  # without a heartbeat


@dataclass
class PageSettings:
    theme: Theme = Theme.system


@dataclass
class ServerSettings:
    port: int = 7860
    open_browser: bool = True


@dataclass
class ExtensionSettings:
    disabled: str = ""  # names of extensions that are switched off, with commas
    safe_mode: bool = False  # start without any


@dataclass
class Settings:
    """All settings, by group. Plain data: reading a value has no side effect."""

    model: ModelSettings = field(default_factory=ModelSettings)
    device: DeviceSettings = field(default_factory=DeviceSettings)
    preview: PreviewSettings = field(default_factory=PreviewSettings)
    saving: SavingSettings = field(default_factory=SavingSettings)
    queue: QueueSettings = field(default_factory=QueueSettings)
    page: PageSettings = field(default_factory=PageSettings)
    server: ServerSettings = field(default_factory=ServerSettings)
    extensions: ExtensionSettings = field(default_factory=ExtensionSettings)


BOUNDS: dict[str, tuple[float, float]] = {
    "model.checkpoints_in_memory": (1, 16),
    "model.memory_limit_gb": (0, 4096),
    "device.vram_limit_gb": (0, 4096),
    "preview.every_seconds": (0.05, 60),
    "preview.max_side": (64, 2048),
    "saving.quality": (1, 100),
    "queue.max_pending": (1, 100_000),
    "queue.max_pending_per_user": (1, 100_000),
    "queue.worker_timeout_seconds": (5, 3600),
    "server.port": (0, 65_535),
}


def keys() -> list[str]:
    """Every setting's dotted name, in order."""
    return [
        f"{group.name}.{entry.name}"
        for group in dataclasses.fields(Settings)
        for entry in dataclasses.fields(cast(Any, group.default_factory))
    ]


def get(settings: Settings, key: str) -> Any:
    """The value of a dotted name; enums as their text."""
    group, _, name = key.partition(".")
    value = getattr(getattr(settings, group), name)
    return value.value if isinstance(value, Enum) else value


def changed(settings: Settings, values: dict[str, Any]) -> Settings:
    """A copy with dotted names replaced. Raises `SettingsError` for an unknown name or an impossible value."""
    known = keys()
    config = OmegaConf.structured(settings)
    for key, value in values.items():
        if key not in known:
            raise SettingsError(f'There is no setting "{key[:80]}".', near_matches(key, known))
        _set(config, key, value)
    return cast(Settings, OmegaConf.to_object(config))


def load(path: Path) -> tuple[Settings, list[str]]:
    """The settings in `path` and a sentence for each entry that was set aside. Never raises for a bad file."""
    settings = Settings()
    problems: list[str] = []
    backup = path.with_name(path.name + ".bak")
    try:
        if not path.exists():
            return settings, []
        torn = backup.exists() and path.stat().st_size == 0  # `save` writes at least a line
        entries = _read(path, problems, torn)
        if entries is None:
            entries = (_read(backup, problems) if backup.exists() else None) or {}
    except OSError as error:  # nobody may look into that folder
        return settings, [f"{path.name} could not be read: {error.strerror or error}."]
    known = keys()
    config = OmegaConf.structured(settings)
    for key, value in _flat(entries):
        if key not in known:
            problems.append(f'{path.name}: "{key[:80]}" is not a setting; ignored. {near_matches(key, known)}'.strip())
            continue
        try:
            _set(config, key, value)
        except SettingsError as error:
            problems.append(f"{path.name}: {error.message} The default is used.")
    return cast(Settings, OmegaConf.to_object(config)), problems


def save(settings: Settings, path: Path) -> None:
    """Write the entries that differ from the defaults. Raises `SettingsError` when the disk refuses."""
    defaults = Settings()
    entries: dict[str, dict[str, Any]] = {}
    for key in keys():
        value = get(settings, key)
        if value != get(defaults, key):
            group, _, name = key.partition(".")
            entries.setdefault(group, {})[name] = value
    text = OmegaConf.to_yaml(OmegaConf.create(entries)) if entries else ""
    header = "# Settings of Latent WebUI. Entries that are not named here have their defaults.\n"
    try:
        write_atomic(path, (header + text).encode(), backup=True)
    except OSError as error:
        raise SettingsError(
            f"The settings could not be saved: {error.strerror or error}.",
            f"Make room or give write access in {path.parent}. The settings before stay in force.",
        ) from error


def _read(path: Path, problems: list[str], torn: bool = False) -> dict[str, Any] | None:
    """The file as plain nested dicts, or None after setting a broken file aside."""
    try:
        if torn:
            raise ValueError("it is empty")
        if path.stat().st_size > MAX_FILE_SIZE:
            raise ValueError("it is larger than a megabyte")
        text = path.read_text(encoding="utf-8-sig").replace("${", f"{_DOLLAR}{{")  # or one "${" costs the whole file
        content = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
        if not isinstance(content, dict):
            raise ValueError("it is not a mapping of groups")
        return cast(dict[str, Any], content)
    except PermissionError as error:  # it may be whole, so it stays where it is
        problems.append(f"{path.name} could not be read: {error.strerror}.")
        return None
    except Exception as error:  # a hostile YAML can fail in many ways; each of them means the same here
        reason = str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__
        aside = path.with_name(f"{path.name}.corrupt-{time.strftime('%Y%m%d-%H%M%S')}")
        try:
            path.replace(aside)
            kept = f" It was kept as {aside.name}."
        except OSError:
            kept = ""
        problems.append(f"{path.name} could not be read ({reason}).{kept}")
        return None


def _flat(entries: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested groups as (dotted name, value); one level deep, as the settings are."""
    flat: list[tuple[str, Any]] = []
    for key, value in entries.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and not prefix:
            flat.extend(_flat(value, f"{name}."))
        else:
            flat.append((name, value))
    return flat


def _set(config: Any, key: str, value: Any) -> None:
    """Put one validated value. Raises `SettingsError`."""
    if isinstance(value, str) and ("${" in value or _DOLLAR in value):
        raise SettingsError(f'"{key}" holds "${{", which is not allowed.', "Write the value itself.")
    if isinstance(value, str) and (value == "???" or printable(value) != value):  # OmegaConf reads "???" as "missing"
        raise SettingsError(f'"{key}" cannot be {value!r:.60}.')
    if isinstance(value, float) and value != value:
        raise SettingsError(f'"{key}" is not a number.')
    current = OmegaConf.select(config, key)
    if isinstance(current, str) and isinstance(value, float):  # YAML took a name such as 1234567e10 for a number
        raise SettingsError(f'"{key}" cannot be the number {value!r:.60}: put what stands there in quotes.')
    if isinstance(current, bool) != isinstance(value, bool) or isinstance(value, dict | list):
        raise SettingsError(f'"{key}" cannot be {value!r:.60}.')
    try:
        OmegaConf.update(config, key, value)
    except (OmegaConfBaseException, OverflowError):
        choices = f" Choices: {', '.join(e.value for e in type(current))}." if isinstance(current, Enum) else ""
        raise SettingsError(f'"{key}" cannot be {value!r:.60}.', choices.strip()) from None
    if key in BOUNDS:
        low, high = BOUNDS[key]
        if not low <= OmegaConf.select(config, key) <= high:
            OmegaConf.update(config, key, current)
            raise SettingsError(f'"{key}" must be between {low:g} and {high:g}.')


class SettingsStore:
    """The settings in force. Any thread reads `current`; `change` saves first and then swaps the whole value.

    What the command line set for this run is in force, but is never written to the file.
    """

    def __init__(self, settings: Settings, path: Path) -> None:
        self._current = settings
        self._path = path
        self._lock = threading.Lock()

    @property
    def current(self) -> Settings:
        return self._current

    def change(self, values: dict[str, Any]) -> Settings:
        """Validate, save and put in force. Raises `SettingsError`; the settings before then stay."""
        with self._lock:
            in_force = changed(self._current, values)
            saved, _ = load(self._path)
            save(changed(saved, values), self._path)
            self._current = in_force
            return in_force
