"""The model families this product knows by name, and what follows from the name alone.

A family that the engine cannot run yet is still recognised and named: a user reads why a file is not offered instead of
searching for a file that seems to be missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal

Prediction = Literal["eps", "v", "flow"]
Kind = Literal[
    "checkpoint",
    "vae",
    "lora",
    "embedding",
    "controlnet",
    "t2i_adapter",
    "ip_adapter",
    "upscaler",
    "face_restorer",
    "hypernetwork",
    "text_encoder",
    "unknown",
]
KIND_NAMES: dict[Kind, str] = {
    "checkpoint": "a checkpoint",
    "vae": "a VAE",
    "lora": "a LoRA",
    "embedding": "a textual inversion embedding",
    "controlnet": "a ControlNet",
    "t2i_adapter": "a T2I adapter",
    "ip_adapter": "an IP adapter",
    "upscaler": "an upscaler",
    "face_restorer": "a face restoration model",
    "hypernetwork": "a hypernetwork",
    "text_encoder": "a text encoder",
    "unknown": "a file of an unknown kind",
}


class Family(str, Enum):
    """An architecture; the value is the name that users read."""

    SD1 = "SD1"
    SD1_INPAINTING = "SD1 inpainting"
    SD1_IP2P = "SD1 ip2p"
    SD2 = "SD2"
    SD2_INPAINTING = "SD2 inpainting"
    SD2_DEPTH = "SD2 depth"
    SD2_UNCLIP = "SD2 unCLIP"
    SDXL = "SDXL"
    SDXL_INPAINTING = "SDXL inpainting"
    SDXL_IP2P = "SDXL ip2p"
    SDXL_REFINER = "SDXL refiner"
    SSD_1B = "SSD-1B"
    PLAYGROUND = "Playground 2.5"
    ALT_DIFFUSION = "Alt-Diffusion"
    SD3 = "SD3"
    SD35 = "SD3.5"
    FLUX = "Flux"
    FLUX_FILL = "Flux fill"
    FLUX_CONTROL = "Flux control"
    FLUX2 = "Flux.2"
    FLUX3 = "Flux.3"
    CHROMA = "Chroma"
    CASCADE = "Stable Cascade"
    AURA_FLOW = "AuraFlow"
    PIXART = "PixArt"
    SANA = "Sana"
    HUNYUAN = "Hunyuan"
    HIDREAM = "HiDream"
    LUMINA2 = "Lumina 2"
    Z_IMAGE = "Z-Image"
    QWEN_IMAGE = "Qwen-Image"
    KREA2 = "Krea 2"
    COSMOS = "Cosmos"
    LTX = "LTX"
    MOCHI = "Mochi"
    WAN = "Wan"
    UNKNOWN = "unknown"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class FamilyFacts:
    """`native_size` in pixels a side, the usual prediction type, the channels of its latents (0: not known)."""

    native_size: int
    prediction: Prediction
    latent_channels: int


_FLOW = FamilyFacts(1024, "flow", 16)
_XL = FamilyFacts(1024, "eps", 4)

FACTS: dict[Family, FamilyFacts] = {
    Family.SD1: FamilyFacts(512, "eps", 4),
    Family.SD1_INPAINTING: FamilyFacts(512, "eps", 4),
    Family.SD1_IP2P: FamilyFacts(512, "eps", 4),
    # SD2 was published as 512-base (eps) and 768-v; their keys and shapes are the same.
    Family.SD2: FamilyFacts(768, "v", 4),
    Family.SD2_INPAINTING: FamilyFacts(512, "eps", 4),
    Family.SD2_DEPTH: FamilyFacts(512, "eps", 4),
    Family.SD2_UNCLIP: FamilyFacts(768, "v", 4),
    Family.SDXL: _XL,
    Family.SDXL_INPAINTING: _XL,
    Family.SDXL_IP2P: _XL,
    Family.SDXL_REFINER: _XL,
    Family.SSD_1B: _XL,
    Family.PLAYGROUND: _XL,
    Family.ALT_DIFFUSION: FamilyFacts(512, "eps", 4),
    Family.SD3: _FLOW,
    Family.SD35: _FLOW,
    Family.FLUX: _FLOW,
    Family.FLUX_FILL: _FLOW,
    Family.FLUX_CONTROL: _FLOW,
    Family.FLUX2: FamilyFacts(1024, "flow", 32),
    Family.FLUX3: FamilyFacts(1024, "flow", 0),
    Family.CHROMA: _FLOW,
    Family.CASCADE: FamilyFacts(1024, "eps", 16),
    Family.AURA_FLOW: FamilyFacts(1024, "flow", 4),
    Family.PIXART: FamilyFacts(1024, "eps", 4),
    Family.SANA: FamilyFacts(1024, "flow", 32),
    Family.HUNYUAN: FamilyFacts(1024, "v", 4),
    Family.HIDREAM: _FLOW,
    Family.LUMINA2: _FLOW,
    Family.Z_IMAGE: _FLOW,
    Family.QWEN_IMAGE: _FLOW,
    Family.KREA2: FamilyFacts(1024, "flow", 0),
    Family.COSMOS: _FLOW,
    Family.LTX: FamilyFacts(512, "flow", 128),
    Family.MOCHI: FamilyFacts(512, "flow", 12),
    Family.WAN: FamilyFacts(512, "flow", 16),
    Family.UNKNOWN: FamilyFacts(512, "eps", 0),
}

RUNNABLE_FAMILIES = frozenset(
    {
        Family.SD1,
        Family.SD1_INPAINTING,
        Family.SD2,
        Family.SD2_INPAINTING,
        Family.SDXL,
        Family.SDXL_INPAINTING,
        Family.SDXL_REFINER,
    }
)
INPAINTING_FAMILIES = frozenset({Family.SD1_INPAINTING, Family.SD2_INPAINTING, Family.SDXL_INPAINTING})


def facts(family: Family) -> FamilyFacts:
    """What follows from the family's name."""
    return FACTS[family]
