"""What a model file is, from its header alone: kind, family, prediction type, a few dimensions.

The rules are the key names and shapes by which the published models differ. Nothing is decided by a file's name or
size. A wrong shape under a right name makes a file "unknown" or not runnable; it never raises.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from webui.catalog import checkpoints, components
from webui.catalog.families import FACTS, Family
from webui.catalog.header import Header
from webui.catalog.keys import Detected, Keys
from webui.catalog.sidecar import Sidecar

# The order matters where one layout contains another's names: adapters and ControlNets reuse the UNet's.
_RULES: tuple[Callable[[Keys], Detected | None], ...] = (
    components.control,
    components.face_restorer,
    components.lora,
    checkpoints.ldm_checkpoint,
    checkpoints.named_family,
    components.lone_part,
    checkpoints.diffusers_unet,
    components.vae,
    components.text_encoder,
    components.upscaler,
    components.hypernetwork,
    components.motion_module,
    components.embedding,
)


def detect(header: Header, sidecar: Sidecar | None = None) -> Detected:
    """What the file is. `sidecar` decides the prediction type where the keys cannot."""
    keys = Keys(header)
    for rule in _RULES:
        found = rule(keys)
        if found is not None:
            return _with_prediction(found, keys, sidecar)
    return Detected("unknown", reason="Its tensors belong to no model that is known here.")


def _with_prediction(found: Detected, keys: Keys, sidecar: Sidecar | None) -> Detected:
    """The order of trust: NAME.yaml or metadata, marker tensors, the family's usual one."""
    found = replace(found, zero_terminal_snr=keys.has("ztsnr"))
    if found.family == Family.UNKNOWN:
        return found
    said = sidecar.parameterization if sidecar else None
    usual = FACTS[found.family].prediction
    if usual == "flow":
        return replace(found, prediction="flow", prediction_known=True)
    if said is not None:
        return replace(found, prediction=said, prediction_known=True)
    if keys.has("v_pred"):
        return replace(found, prediction="v", prediction_known=True)
    # Every published SD1 and SDXL model without a mark is an eps model; SD2 came both ways with the same keys.
    return replace(found, prediction=usual, prediction_known=found.family not in (Family.SD2, Family.SD2_UNCLIP))
