"""One picture by every sampler at several step counts, as one sheet: docs/images/samplers.jpg.

    .venv/bin/python -m benchmarks.sampler_grid [--prompt TEXT] [--seed N] [--cfg-scale C] [--checkpoint NAME]

The embedded model draws them all from one seed, each sampler on its own schedule. The flow samplers are left out: they
need a flow-matching model.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from webui.engine import Engine
from webui.events import Failed
from webui.events import Image as Picture
from webui.names import SAMPLER_NAMES
from webui.params import make_params
from webui.paths import Paths
from webui.settings import Settings, changed

ROOT = Path(__file__).resolve().parent.parent
STEPS = (4, 8, 12, 20, 30)
BLOCKS = 2  # side by side, so that the page does not become a ribbon
CELL, GAP, LABEL, HEAD = 112, 4, 175, 28  # pixels


def draw_all(engine: Engine, names: list[str], request: dict[str, Any]) -> dict[tuple[str, int], Image.Image]:
    """A picture for every sampler and step count. Ends the program with the engine's own words where one fails."""
    pictures: dict[tuple[str, int], Image.Image] = {}
    for name in names:
        for steps in STEPS:
            params = make_params({**request, "sampler": name, "steps": steps})
            for event in engine.generate(params):
                if isinstance(event, Failed):
                    raise SystemExit(f"{name}, {steps} steps: {event}")
                if isinstance(event, Picture):
                    pictures[name, steps] = Image.open(event.path).convert("RGB").copy()
        print(name, flush=True)
    return pictures


def compose(pictures: dict[tuple[str, int], Image.Image], names: list[str]) -> Image.Image:
    """The grid: a row a sampler, a column a step count, in blocks."""
    rows = math.ceil(len(names) / BLOCKS)
    block_width = LABEL + len(STEPS) * (CELL + GAP) + 4 * GAP
    sheet = Image.new("RGB", (BLOCKS * block_width, HEAD + rows * (CELL + GAP)), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(15)
    for block in range(BLOCKS):
        left = block * block_width
        for column, steps in enumerate(STEPS):
            x = left + LABEL + column * (CELL + GAP) + CELL / 2
            draw.text((x, HEAD / 2), f"{steps} steps", fill="#333333", font=font, anchor="mm")
        for row, name in enumerate(names[block * rows : (block + 1) * rows]):
            y = HEAD + row * (CELL + GAP)
            draw.text((left + LABEL - 3 * GAP, y + CELL / 2), name, fill="#333333", font=font, anchor="rm")
            for column, steps in enumerate(STEPS):
                cell = pictures[name, steps].resize((CELL, CELL), Image.Resampling.LANCZOS)
                sheet.paste(cell, (left + LABEL + column * (CELL + GAP), y))
    return sheet


def main() -> None:
    """Draw the pictures and write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompt", default="sunflower")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--cfg-scale", type=float, default=5.0)
    parser.add_argument("--checkpoint", help="any name the catalog knows; the embedded model without it")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "images" / "samplers.jpg")
    arguments = parser.parse_args()
    names = [name for name, info in SAMPLER_NAMES.items() if not info.flow]
    request = {
        "prompt": arguments.prompt,
        "seed": arguments.seed,
        "cfg_scale": arguments.cfg_scale,
        "checkpoint": arguments.checkpoint,
    }
    with tempfile.TemporaryDirectory() as folder:
        paths = dataclasses.replace(Paths.under(ROOT), outputs=Path(folder))
        engine = Engine(changed(Settings(), {"preview.enabled": False}), paths)
        sheet = compose(draw_all(engine, names, request), names)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(arguments.output, quality=85, optimize=True)
    print(f"{arguments.output}: {sheet.width} x {sheet.height}")


if __name__ == "__main__":
    main()
