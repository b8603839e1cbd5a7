"""stable-diffusion.cpp as a peer: whole runs from the same file, in C++ on ggml."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from benchmarks.cases import Case
from webui.cli.bench import CaseKind
from webui.engine.compute.device import DeviceChoice


class StableDiffusionCpp:
    """Whole runs, for its Python binding has no call for a part. Weights stay in the number format of the file.

    `write` gets the pictures of a run, as every peer's are written.
    """

    def __init__(
        self,
        device: DeviceChoice,
        file: Path,
        prompt: str,
        guidance: float,
        write: Callable[[Sequence[Image.Image]], None],
    ) -> None:
        self.device = device
        self.dtype = torch.float32  # it sums in fp32, whatever the weights are
        self.picture = b""  # other noise than ours: nothing to compare
        self._file, self._prompt, self._guidance, self._write = file, prompt, guidance, write

    @property
    def name(self) -> str:
        return "stable-diffusion.cpp"

    def work(self, case: Case) -> Callable[[], object]:
        """Raises ImportError where the library is not installed, ValueError for other cases."""
        if case.kind is not CaseKind.picture:
            raise ValueError("it is measured in whole runs alone")
        model = self._model()

        def make() -> None:
            made = model.generate_image(
                prompt=self._prompt,
                width=case.side,
                height=case.side,
                sample_method="euler",
                scheduler="discrete",
                sample_steps=case.steps,
                cfg_scale=self._guidance,
                seed=1,
                batch_count=case.batch,
            )
            self._write(made)

        return make

    @lru_cache(maxsize=1)  # noqa: B019 (one a process)
    def _model(self) -> Any:
        library: Any = importlib.import_module("stable_diffusion_cpp")
        threads = torch.get_num_threads()
        return library.StableDiffusion(
            model_path=str(self._file), n_threads=threads, vae_decode_only=True, verbose=False
        )
