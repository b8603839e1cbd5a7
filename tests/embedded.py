"""The embedded checkpoint, for tests that need a real model file."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from webui.paths import REPO_ROOT

EMBEDDED_CHECKPOINT = REPO_ROOT / "models" / "Stable-diffusion" / "emoji-128.safetensors"
EMBEDDED_UPSCALERS = sorted((REPO_ROOT / "models" / "ESRGAN").glob("*.safetensors"))


def install_embedded(root: Path, name: str = EMBEDDED_CHECKPOINT.stem) -> Path:
    """Put the embedded checkpoint into a data folder, under a name; returns its file there."""
    folder = root / "models" / "Stable-diffusion"
    folder.mkdir(parents=True, exist_ok=True)
    for suffix in (".safetensors", ".yaml"):
        link_or_copy(EMBEDDED_CHECKPOINT.with_suffix(suffix), folder / f"{name}{suffix}")
    return folder / f"{name}.safetensors"


def link_or_copy(source: Path, target: Path) -> None:
    """A hard link where the file system allows it: the embedded model is 42 MB."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
