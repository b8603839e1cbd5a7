"""A file of adapters: which layers it speaks of, and with which tensors. Nothing is computed here.

The tensor names of kohya's trainers, LyCORIS, diffusers and peft end in what the tensor is (`.lora_down.weight`,
`.hada_w1_a`, ...); what stands before is the layer. `ROLES` maps the endings to one set of names, so that the
mathematics (`algebra.py`) knows each family once.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from webui.catalog.adapters import BUNDLE
from webui.engine.files.weights import Weights

MAX_METADATA = 2**20  # characters of the settings in a header

_PLAIN = (
    ("alpha", "dora_scale"),
    ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"),
    ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"),
    ("oft_blocks", "oft_diag", "rescale"),
    ("w_norm", "b_norm", "diff", "diff_b"),
    ("on_input", "ia3_l"),
)

ROLES: dict[str, str] = {
    **{f".{name}": name for names in _PLAIN for name in names},
    ".lora_down.weight": "down",
    ".lora_up.weight": "up",
    ".lora_mid.weight": "mid",
    ".lora.down.weight": "down",
    ".lora.up.weight": "up",
    ".lora_linear_layer.down.weight": "down",
    ".lora_linear_layer.up.weight": "up",
    "_lora.down.weight": "down",  # of the first attention processors: attn1.processor.to_q_lora.down.weight
    "_lora.up.weight": "up",
    ".lora_A.weight": "down",
    ".lora_B.weight": "up",
    ".lora_A.default.weight": "down",
    ".lora_B.default.weight": "up",
    ".lora_B.bias": "up_bias",
    ".lora_magnitude_vector": "magnitude",
    ".lora_magnitude_vector.weight": "magnitude",
    ".a1.weight": "a1",
    ".a2.weight": "a2",
    ".b1.weight": "b1",
    ".b2.weight": "b2",
    ".bm.weight": "bm",
    ".oft_R.weight": "oft_r",
    ".boft_R": "boft_r",
    ".boft_s": "boft_s",
    ".weight": "ia3",  # last: every longer ending comes before it
}
_ENDINGS = sorted(ROLES, key=len, reverse=True)


@dataclass(frozen=True, slots=True)
class Layer:
    """What a file holds for one layer: role -> the tensor's name. `scale` is what the file's settings say, or None."""

    key: str
    tensors: Mapping[str, str] = field(hash=False)
    scale: float | None = None


class LoraFile:
    """An open file of adapters, its tensors grouped by layer."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        grouped: dict[str, dict[str, str]] = {}
        self.unknown: list[str] = []  # tensors of no kind that is known here
        for name in weights.tensors:
            if name.startswith(BUNDLE):  # an embedding that the file brings with it
                continue
            found = split_name(name)
            if found is None:
                self.unknown.append(name)
            else:
                grouped.setdefault(found[0], {})[found[1]] = name
        settings = _settings(weights.metadata)
        self.layers: dict[str, Layer] = {}
        for key, tensors in grouped.items():
            if set(tensors) == {"ia3"}:  # "....weight" alone is no adapter's tensor
                self.unknown += tensors.values()
                continue
            self.layers[key] = Layer(key, tensors, _scale_of(key, settings) if "alpha" not in tensors else None)


def split_name(name: str) -> tuple[str, str] | None:
    """(layer, role) of a tensor's name; None when its ending is none of `ROLES`."""
    ending = next((ending for ending in _ENDINGS if name.endswith(ending)), None)
    if ending is None or len(ending) == len(name):
        return None
    return name.removesuffix(ending).replace(".processor.", "."), ROLES[ending]


def _settings(metadata: Mapping[str, str]) -> dict[str, Any]:
    """diffusers writes peft's settings (rank, alpha) into the header, under `network.setting` names."""
    text = metadata.get("lora_adapter_metadata", "")
    if not text or len(text) > MAX_METADATA:
        return {}
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return {}  # damaged settings say nothing; the scale is then 1, as without them
    return content if isinstance(content, dict) else {}


def _scale_of(key: str, settings: Mapping[str, Any]) -> float | None:
    """alpha / rank of a peft layer (alpha / sqrt(rank) for rank-stabilised LoRA), None where nothing is said."""
    network, _, path = key.partition(".")
    usual = settings.get(f"{network}.lora_alpha", settings.get(f"{network}.alpha"))  # LoHa and LoKr have the short name
    alpha = _by_pattern(path, settings.get(f"{network}.alpha_pattern"), usual)
    rank = _by_pattern(path, settings.get(f"{network}.rank_pattern"), settings.get(f"{network}.r"))
    if alpha is None or rank is None or rank <= 0:
        return None
    return alpha / (math.sqrt(rank) if settings.get(f"{network}.use_rslora") is True else rank)


def _by_pattern(path: str, patterns: Any, usual: Any) -> float | None:
    """peft's patterns are layer names, or ends of layer names."""
    value = usual
    if isinstance(patterns, dict):
        value = next((v for name, v in patterns.items() if path == name or path.endswith(f".{name}")), usual)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
