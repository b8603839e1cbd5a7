"""The tiles of an SD upscale, drawn one after the other; tile k of a picture has its seed + k."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from PIL import Image

from webui.engine.conditioning.text import Conditioning
from webui.engine.drawing import Draw, Drawing
from webui.engine.latents.codec import Codec
from webui.engine.passes import Batch, Pass, Tiles, part_of
from webui.engine.reporting import Reporting
from webui.engine.sampling_plan import SamplingPlan, Start
from webui.engine.sd_upscale import Grid, whole_cells
from webui.engine.shared import Tools
from webui.inputs import InputStore
from webui.pictures.canvas import flattened
from webui.pictures.colours import corrected


def enlarged_picture(
    tools: Tools, first: Pass, reporting: Reporting, preprocess: Callable[[Image.Image], Image.Image]
) -> Tiles | None:
    """What SD upscale draws anew, None for every other job. Raises `Stopped`.

    `preprocess` has its say on the given picture before anything else.
    """
    init, upscale, params = first.params.init, first.params.sd_upscale, first.params
    if upscale is None or init is None or init.image is None:
        return None
    image = flattened(preprocess(InputStore(tools.paths.outputs).open(init.image)), init.background)
    size = (whole_cells(image.width * upscale.scale), whole_cells(image.height * upscale.scale))
    large = tools.upscalers.enlarge(
        image, upscale.upscaler, size, as_large=True, emit=reporting.emit, check=reporting.check
    )
    tile = (min(params.width or 0, size[0]), min(params.height or 0, size[1]))
    return Tiles(large, Grid(size, tile, min(upscale.overlap, tile[0] // 2, tile[1] // 2)))


def drawn_in_tiles(
    tiles: Tiles, number: int, first: Pass, conditionings: Sequence[Conditioning], drawing: Drawing, codec: Codec
) -> Image.Image | None:
    """Picture `number` of the job; None when it was stopped before all of its tiles were drawn."""
    init, drawn = first.params.init, list[Image.Image]()
    for k, box in enumerate(tiles.grid.boxes()):
        tile = tiles.image.crop(box)
        batch = _drawn_tile(number, k, tile, first, conditionings, drawing, codec)
        if batch is None or batch.stopped_at:
            return None
        with drawing.reporting.timed("decode"):
            picture = codec.decode(first.vae, batch.latents)
        drawn.append(corrected(picture, tile) if init is not None and init.color_correction else picture)
    return tiles.grid.joined(drawn)


def _drawn_tile(
    number: int,
    k: int,
    tile: Image.Image,
    first: Pass,
    conditionings: Sequence[Conditioning],
    drawing: Drawing,
    codec: Codec,
) -> Batch | None:
    seed, variation = first.params.seeds_of(number)
    params = first.params.changed(
        seed=seed + k,
        variation_seed=variation + k,
        batch_size=1,
        batch_count=1,
        width=tile.width,
        height=tile.height,
    )
    one = replace(first, params=params, sampling=SamplingPlan(params, first.checkpoint, part_of(params)))
    with drawing.reporting.timed("encode"):
        start = Start(codec.encode(one.vae, tile))
    with drawing.reporting.timed("sample"):
        before = k * one.sampling.steps
        return drawing.run(Draw(one, conditionings, before=before, start=start, shown=number))
