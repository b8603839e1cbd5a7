"""A request completed from the model files: what was left to us is filled in, what cannot be met is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from webui.catalog.inspection import needs_pickle
from webui.catalog.models import ModelFile
from webui.catalog.vae_choice import NONE, canonical_selection, find_vae
from webui.errors import BadPicture, InvalidParams, NotFound, UnsupportedModel
from webui.inputs import InputStore
from webui.names import AUTOMATIC, LATENT_UPSCALERS, NO_MODEL, PIXEL_UPSCALERS
from webui.operations import MAX_RESULT_PIXELS, Extras, Frame, Hires, SdUpscale
from webui.params import SIDE_MULTIPLE, GenerationParams
from webui.settings import Settings

if TYPE_CHECKING:
    from webui.catalog.catalog import Catalog


def can_run(model: ModelFile, settings: Settings) -> bool:
    """Whether the engine can use it under these settings (pickle-based files need the user's leave)."""
    return model.runnable or (settings.model.allow_pickle and needs_pickle(model))


class Completion:
    """Completes requests under some settings."""

    def __init__(self, catalog: Catalog, inputs: InputStore, settings: Settings) -> None:
        self._catalog = catalog
        self._inputs = inputs
        self._settings = settings

    def of(self, params: GenerationParams) -> GenerationParams:
        """See `Catalog.resolve`."""
        complete = self._of(params)
        if not params.sources:
            self._require_room(complete)
        return complete

    def _of(self, params: GenerationParams) -> GenerationParams:
        self._inputs.require(params)
        if params.sources:
            self._require_room_for_one(params)
            one = self._of(params.for_source(0))
            extras = one.extras and {**one.extras.model_dump(), "image": None}
            own = {"sources": params.sources, "init": params.init, "width": params.width, "height": params.height}
            return one.changed(**own, extras=extras)
        if params.init is not None and params.init.image is None:
            raise InvalidParams("There is no picture to start from.", "Choose one, or leave init out.")
        if params.extras is not None and params.extras.image is None:
            raise InvalidParams("There is no picture to enlarge.", "Choose one, or leave extras out.")
        if params.extras is not None:
            extras, faces = self._with_upscalers(params.extras), self._faces(params)
            return params.changed(extras=extras, faces=faces).with_fixed_seeds()
        checkpoint = self._catalog.checkpoint_for(params.checkpoint, self._settings)
        self._require(checkpoint, f'checkpoint "{checkpoint.name}"', "Choose another checkpoint.")
        vae = canonical_selection(params.vae)
        if vae == AUTOMATIC:
            vae = canonical_selection(self._settings.model.vae)
        elif vae != NONE:
            file = self._catalog.find_vae(vae)
            first = find_vae(self._catalog.snapshot.vae_order, file.path.name)
            vae = file.path.name if first.path == file.path else file.name
        self._catalog.resolve_vae(
            checkpoint,
            vae,
            self._settings.model.vae_overrides_preferences,
            allow_pickle=self._settings.model.allow_pickle,
        )
        width, height = self._size(params, checkpoint)
        complete = params.changed(
            checkpoint=checkpoint.name,
            vae=vae,
            refiner=self._refiner(params),
            width=width,
            height=height,
            hires=self._hires(params),
            sd_upscale=self._with_upscalers(params.sd_upscale),
            faces=self._faces(params),
        ).with_fixed_seeds()
        if complete.hires is not None:
            complete.second_pass()  # refused here when it is too large
        return complete

    def _require_room(self, params: GenerationParams) -> None:
        """Raises `InvalidParams` where a picture would become too large to be kept and opened."""
        frame = params.init.frame if params.init is not None else None
        group, given = params.extras or params.sd_upscale or frame, params.extras or params.init
        if group is None or given is None or given.image is None:
            return
        size = self._inputs.size_of(given.image)
        if size is None:
            return  # it is told when it is opened
        if isinstance(group, Extras):
            (width, height), _ = group.sizes(*size)
        elif isinstance(group, Frame):
            width, height = size[0] + group.left + group.right, size[1] + group.top + group.bottom
        else:
            width, height = int(size[0] * group.scale), int(size[1] * group.scale)
        if width * height > MAX_RESULT_PIXELS:
            raise InvalidParams(
                f"The picture would be enlarged to {width}x{height} pixels, more than the"
                f" {MAX_RESULT_PIXELS // 10**6} megapixels that can be kept.",
                "Choose a smaller scale or size.",
            )

    def _require_room_for_one(self, params: GenerationParams) -> None:
        """The same of a folder, where nothing could be made; else each picture is told when its turn comes."""
        refusal: InvalidParams | None = None
        for number in range(len(params.sources)):
            try:
                self._require_room(params.for_source(number))
            except InvalidParams as error:
                refusal = error
            except (BadPicture, NotFound):
                continue
            else:
                return
        if refusal is not None:
            raise refusal

    def _hires(self, params: GenerationParams) -> dict[str, Any] | None:
        """The second pass with its checkpoint and upscaler under the catalog's own names."""
        fields = self._with_upscalers(params.hires)
        if params.hires is None or fields is None or params.hires.checkpoint is None:
            return fields
        file = self._catalog.checkpoint_for(params.hires.checkpoint, self._settings)
        self._require(file, f'checkpoint "{file.name}" of the hires pass', "Choose another one.")
        return {**fields, "checkpoint": file.name}

    def _require(self, model: ModelFile, what: str, advice: str) -> None:
        """Raises `UnsupportedModel` for one that the engine cannot use."""
        if not can_run(model, self._settings):
            raise UnsupportedModel(f"The {what} cannot be used: {model.reason}", advice)

    def _with_upscalers(self, group: Hires | SdUpscale | Extras | None) -> dict[str, Any] | None:
        """A group's fields, upscalers under their own names. Raises `ModelNotFound`, `UnsupportedModel`."""
        if group is None:
            return None
        built_in = (*PIXEL_UPSCALERS, *(LATENT_UPSCALERS if isinstance(group, Hires) else ()))
        fields = group.model_dump()
        for key in ("upscaler", "upscaler_2"):
            if key not in fields:
                continue
            known = next((name for name in built_in if name.casefold() == fields[key].strip().casefold()), None)
            fields[key] = known or self._runnable_upscaler(fields[key]).stem
        return fields

    def _runnable_upscaler(self, name: str) -> ModelFile:
        found = self._catalog.find_upscaler(name)
        if found.kind not in ("upscaler", "unknown"):
            raise UnsupportedModel(f'The upscaler "{found.name}" cannot be used: {found.reason}', "Choose another one.")
        return found

    def _faces(self, params: GenerationParams) -> dict[str, Any] | None:
        """The face restoration with its networks under the catalog's own names. Raises as `resolve` does."""
        if params.faces is None:
            return None
        fields = params.faces.model_dump()
        for key in ("model", "model_2"):
            if fields[key] == NO_MODEL:
                continue
            found = self._catalog.find_face_restorer(fields[key])
            if found.kind not in ("face_restorer", "unknown"):
                raise UnsupportedModel(f'"{found.name}" restores no faces: {found.reason}', "Choose another model.")
            fields[key] = found.stem
        return fields

    def _refiner(self, params: GenerationParams) -> str | None:
        """The refiner under the catalog's own name. Raises as `resolve` does."""
        if params.refiner is None:
            return None
        refiner = self._catalog.find_checkpoint(params.refiner)
        self._require(refiner, f'refiner "{refiner.name}"', "Choose another one, or none.")
        return refiner.name

    def _size(self, params: GenerationParams, checkpoint: ModelFile) -> tuple[int, int]:
        """(width, height) as asked for; what is left open is the picture's own, or the checkpoint's native size."""
        width = height = checkpoint.native_size
        init, hires = params.init, params.hires
        if params.sd_upscale is not None:  # the size is that of the tiles
            return params.width or width, params.height or height
        given = (init and init.image) or (hires and hires.first_pass)
        if given and not (params.width and params.height):
            picture, frame = self._inputs.look(given), init.frame if init else None
            width, height = picture.width, picture.height
            if frame is not None:
                width, height = width + frame.left + frame.right, height + frame.top + frame.bottom
            width, height = (max(2, side // SIDE_MULTIPLE) * SIDE_MULTIPLE for side in (width, height))
        return params.width or width, params.height or height
