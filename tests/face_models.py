"""A picture with a face, and files of face restoration models that the package in tests/stand_ins understands."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file

STAND_INS = Path(__file__).parent / "stand_ins"
ASTRONAUT = Path(__file__).parent / "pictures" / "astronaut.jpg"  # NASA; see NOTICE
BOX = (52, 48, 142, 158)  # of the face, as a person would draw it
BACKGROUND = (196, 0, 224, 40)  # a part of the picture far from it


def astronaut() -> Image.Image:
    """224 x 224, one face."""
    return Image.open(ASTRONAUT).convert("RGB")


def write_face_models(root: Path, tint: float = 0.4) -> None:
    """GFPGANv1.4, which makes faces red, and codeformer, which greys them."""
    gfpgan, codeformer = root / "models" / "GFPGAN", root / "models" / "Codeformer"
    for folder in (gfpgan, codeformer):
        folder.mkdir(parents=True, exist_ok=True)
    red = {"toRGB.0.weight": torch.tensor([tint, 0.0, 0.0]), "stylegan_decoder.style_mlp.1.weight": torch.zeros(2, 2)}
    save_file(red, gfpgan / "GFPGANv1.4.safetensors")
    names = ("position_emb", "idx_pred_layer.1.weight", "quantize.embedding.weight")
    save_file({name: torch.zeros(2, 2) for name in names}, codeformer / "codeformer.safetensors")
