"""Which device computes, in which precision, and why. Chosen once, at start; the reason is printed."""

from __future__ import annotations

import platform
from dataclasses import dataclass, field
from pathlib import Path

import torch

from webui.settings import DeviceSettings, MemoryMode, Precision, WeightStorage

_DTYPES = {Precision.fp16: torch.float16, Precision.bf16: torch.bfloat16, Precision.fp32: torch.float32}
_NAMES = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32", torch.float8_e4m3fn: "float8"}
_STORED = {WeightStorage.int8: torch.int8, WeightStorage.float8: torch.float8_e4m3fn}

_CPU_BF16_FLAGS = ("avx512_bf16", "amx_bf16", "bf16")  # x86, x86 with tiles, Arm


@dataclass(frozen=True, slots=True)
class DeviceChoice:
    """The device and the number formats of the networks.

    `dtype` is that of the UNet and the text encoder, `vae_dtype` that of the VAE; `memory` only matters on CUDA.
    `reason` is a sentence or two for the console.
    """

    device: torch.device
    name: str
    dtype: torch.dtype
    vae_dtype: torch.dtype
    reason: str
    bf16: bool  # whether the device computes in bf16 itself
    memory: MemoryMode = MemoryMode.normal
    storage: torch.dtype | None = None  # of the UNet's large weights, where it is not `dtype`

    @property
    def kind(self) -> str:
        return self.device.type

    @property
    def precision(self) -> str:
        return dtype_name(self.dtype)

    @property
    def vae_precision(self) -> str:
        return dtype_name(self.vae_dtype)

    @property
    def formats(self) -> str:
        """Of the UNet: in what it computes, and in what its weights are kept, where that is another."""
        return self.precision + (f", weights in {dtype_name(self.storage)}" if self.storage else "")


@dataclass(frozen=True, slots=True)
class BackendStatus:
    """A way to compute something on this machine (an attention backend, say): usable, or why not."""

    name: str
    available: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class DeviceReport:
    """What `doctor` prints: plain text and numbers."""

    device: str
    name: str
    precision: str
    vae_precision: str
    reason: str
    memory_mode: str
    torch_version: str
    threads: int
    total_memory: int  # bytes
    attention: str  # the backend in use
    kernels: BackendStatus  # of our own
    backends: tuple[BackendStatus, ...] = field(default=())
    gpu_build: bool = True  # whether torch was built for any GPU


def dtype_name(dtype: torch.dtype) -> str:
    """ "fp16", "bf16", "fp32", or torch's own name."""
    return _NAMES.get(dtype, str(dtype).removeprefix("torch."))


def choose_device(settings: DeviceSettings) -> DeviceChoice:
    """The device that the settings and the machine allow. Never fails: the CPU in fp32 is always there."""
    if not settings.use_cpu and torch.cuda.is_available():
        return _cuda(settings)
    if not settings.use_cpu and torch.backends.mps.is_available():
        return _chosen(settings, torch.device("mps"), "Apple GPU", torch.float16, "fp16 is fastest there", bf16=True)
    native = cpu_has_bf16()
    why = "the CPU was asked for" if settings.use_cpu else "no GPU was found"
    auto = torch.bfloat16 if native else torch.float32
    how = "this processor computes in bf16" if native else "this processor has no bf16 units, so fp32 is faster"
    return _chosen(settings, torch.device("cpu"), cpu_name(), auto, f"{why}; {how}", bf16=native)


def cpu_has_bf16() -> bool:
    """Whether the processor multiplies bf16 itself (AVX512-BF16, AMX, Arm bf16); emulation is slower than fp32."""
    flags = _cpuinfo("flags") or _cpuinfo("Features")
    if flags:
        return any(flag in flags.split() for flag in _CPU_BF16_FLAGS)
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # other systems: ask torch, if it can tell
    return any(bool(getattr(torch.cpu, probe, bool)()) for probe in probes)


def cpu_name() -> str:
    """The processor's marketing name, as far as the system tells."""
    return _cpuinfo("model name") or platform.processor() or platform.machine() or "CPU"


def _cuda(settings: DeviceSettings) -> DeviceChoice:
    device = torch.device("cuda", torch.cuda.current_device())
    properties = torch.cuda.get_device_properties(device)
    bf16 = bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if (properties.major, properties.minor) < (5, 3):  # fp16 maths begins with Maxwell's second generation
        auto, how = torch.float32, "this GPU has no fp16 maths"
    else:
        auto, how = torch.float16, "fp16 is fastest on a CUDA GPU"
    return _chosen(settings, device, properties.name, auto, how, bf16=bf16)


def _chosen(
    settings: DeviceSettings, device: torch.device, name: str, auto: torch.dtype, how: str, *, bf16: bool
) -> DeviceChoice:
    dtype = _DTYPES.get(settings.precision, auto)
    vae_dtype = _DTYPES.get(settings.vae_precision, dtype)
    if settings.precision is not Precision.auto:
        how = f"{dtype_name(dtype)} was asked for"
        if dtype is torch.bfloat16 and not bf16:
            how += ", though this device only emulates it"
    memory = settings.memory if device.type == "cuda" else MemoryMode.normal
    reason = f"{how[:1].upper()}{how[1:]}."
    storage = _STORED.get(settings.weights)
    if storage is not None and not _expands(storage, device):
        reason += f" It does not know {dtype_name(storage)}, so weights are kept as they are computed with."
        storage = None
    return DeviceChoice(device, name, dtype, vae_dtype, reason, bf16, memory, storage)


def _expands(storage: torch.dtype, device: torch.device) -> bool:
    """Whether the device makes numbers of that format, and computes with them in another."""
    try:
        return float(torch.ones(1, device=device).to(storage).to(torch.float16)) == 1.0
    except (RuntimeError, TypeError):  # Apple's GPUs have no float8
        return False


def _cpuinfo(key: str) -> str:
    """The first value of `key` in Linux's list of processors, "" elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return ""
