"""What a script may ask of the program while it makes many jobs of one (`webui.extensions.Desk`)."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image

from webui.catalog import Catalog
from webui.inputs import InputStore
from webui.names import AUTOMATIC, LATENT_UPSCALERS, PIXEL_UPSCALERS
from webui.params import GenerationParams
from webui.paths import Paths
from webui.prompt import StyleBook, wildcard_lines

_NO_FILE = (AUTOMATIC, "None")


class EngineDesk:
    """The services behind the hook `expand`."""

    def __init__(self, paths: Paths, catalog: Catalog) -> None:
        self._paths = paths
        self._catalog = catalog
        self._inputs = InputStore(paths.outputs)

    def keep(self, picture: Image.Image) -> str:
        """Keep a picture among the inputs, without loss; gives its reference. Raises `SaveError`."""
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", compress_level=1)
        return self._inputs.add(buffer.getvalue()).reference

    def checkpoint(self, name: str) -> str:
        """The name of the checkpoint that answers to this alias. Raises `ModelNotFound` with near matches."""
        return self._catalog.find_checkpoint(name).name

    def vae(self, name: str) -> str:
        """The VAE selection for this name. Raises `ModelNotFound` with near matches."""
        plain = next((word for word in _NO_FILE if word.casefold() == name.strip().casefold()), None)
        return plain or self._catalog.find_vae(name).name

    def upscaler(self, name: str) -> str:
        """The name as requests have it, if there is such an upscaler. Raises `ModelNotFound` with near matches."""
        wanted = name.strip().casefold()
        plain = next((word for word in (*PIXEL_UPSCALERS, *LATENT_UPSCALERS) if word.casefold() == wanted), None)
        if plain is None:
            self._catalog.find_upscaler(name)
        return plain or name

    def with_styles(self, params: GenerationParams, names: Sequence[str]) -> GenerationParams:
        """The params with these styles merged into the prompts. Raises `InvalidParams` for an unknown one."""
        book = StyleBook(self._paths.styles_files, self._paths.styles_file)
        prompt, negative = book.apply(params.prompt, params.negative_prompt, names)
        return params.changed(prompt=prompt, negative_prompt=negative)

    def wildcard(self, name: str) -> Sequence[str]:
        """The lines of a wildcard file; none when there is no such file."""
        return wildcard_lines(name, self._paths.wildcards)
