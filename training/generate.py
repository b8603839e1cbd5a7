"""Pictures from a finished checkpoint, many prompts at a time: for sample sheets and for evaluation.

    .venv/bin/python -m training.generate --checkpoint FILE --out SHEET.png [--prompts contact.txt]

The web UI draws one picture after the other, so that none depends on its neighbours. Here speed counts; mathematics and
weights are the same (`webui.sampling`, and the engine's loader).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from training.model import SCALE_FACTOR, TOKENS, open_checkpoint
from training.precision import format_of
from webui.prompt.tokenizer import BOS, EOS, ClipTokenizer
from webui.sampling import ModelDenoiser, PictureNoise, make_sigmas, sample, sigma_table, start_latents

SAMPLER, SCHEDULE, STEPS, CFG = "DPM++ 2M", "Karras", 20, 5.0
BATCH = 20
PROMPTS = Path(__file__).with_name("contact.txt")
LABEL = 26  # pixels below a picture of a sheet


def clip_tokens(prompts: Sequence[str]) -> Tensor:
    """(N, 77) CLIP tokens."""
    clip = ClipTokenizer()
    rows = torch.full((len(prompts), TOKENS), EOS)
    rows[:, 0] = BOS
    for row, prompt in zip(rows, prompts, strict=True):
        found = clip.encode(prompt)[: TOKENS - 2]
        row[1 : 1 + len(found)] = torch.tensor(found, dtype=torch.long)
    return rows


class Studio:
    """Networks that draw. They may be exchanged: `unet`, `text`, `vae`."""

    def __init__(
        self,
        unet: Any,
        text: Any,
        vae: Any,
        tokens: Callable[[Sequence[str]], Tensor] = clip_tokens,
        dtype: torch.dtype | None = None,
    ) -> None:
        """`tokens`: prompts to (N, 77) rows of the token table of `text`. `dtype`: the UNet's, else `format_of`."""
        self._dtype = dtype or format_of("cpu")
        self.unet, self.text, self.vae, self.tokens = unet.to(self._dtype), text, vae, tokens
        self._table = sigma_table()

    @classmethod
    def open(cls, checkpoint: Path, dtype: torch.dtype | None = None) -> Studio:
        """With the networks of a finished checkpoint. Raises `BadModelFile`."""
        opened = open_checkpoint(checkpoint)
        return cls(opened.unet, opened.text, opened.vae, dtype=dtype)

    @torch.inference_mode()
    def latents(self, prompts: Sequence[str], seeds: Sequence[int], *, side: int, steps: int, cfg: float) -> Tensor:
        """Clean latents (N, 4, side / 8, side / 8), each from its own seed."""
        context = self.text(self.tokens([*prompts, ""])).last_hidden_state.to(self._dtype)
        count, shape = len(prompts), (4, side // 8, side // 8)
        both = torch.cat((context[:-1], context[-1:].expand(count, -1, -1)))

        def predict(x: Tensor, t: Tensor) -> Tensor:
            output: Tensor = self.unet(x.to(self._dtype), t, both[: len(x)]).sample
            return output.float()

        model = ModelDenoiser(predict, self._table, "v")

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            cond, uncond = model(torch.cat((x, x)), torch.cat((sigma, sigma))).chunk(2)
            return uncond + cfg * (cond - uncond)

        sigmas = make_sigmas(SAMPLER, SCHEDULE, steps, self._table)
        noise = PictureNoise(list(seeds), shape)
        x = start_latents(noise.first(), sigmas, SAMPLER, prediction="v")
        return sample(SAMPLER, denoise, x, sigmas, noise=noise)

    @torch.inference_mode()
    def draw(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int] | None = None,
        *,
        side: int = 128,
        steps: int = STEPS,
        cfg: float = CFG,
    ) -> np.ndarray:
        """uint8 pictures (N, side, side, 3). Seeds default to 0, 1, 2, ..."""
        seeds = list(range(len(prompts))) if seeds is None else seeds
        pictures = []
        for start in range(0, len(prompts), BATCH):
            part = slice(start, start + BATCH)
            latents = self.latents(prompts[part], seeds[part], side=side, steps=steps, cfg=cfg)
            pixels = self.vae.decode(latents / SCALE_FACTOR).sample
            pictures.append(((pixels + 1) * 127.5).round().clamp(0, 255).byte().movedim(1, -1).numpy())
        return np.concatenate(pictures)


def sheet(pictures: np.ndarray, labels: Sequence[str], columns: int = 8) -> Image.Image:
    """Pictures in rows with what was asked for below each."""
    side = pictures.shape[1]
    rows = -(-len(pictures) // columns)
    canvas = Image.new("RGB", (columns * (side + 6), rows * (side + LABEL)), (236, 236, 236))
    pen = ImageDraw.Draw(canvas)
    for i, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        left, top = i % columns * (side + 6) + 3, i // columns * (side + LABEL)
        canvas.paste(Image.fromarray(picture), (left, top))
        for line, text in enumerate((label[:22], label[22:44])):
            pen.text((left, top + side + 1 + 11 * line), text.strip(), fill="black")
    return canvas


def read_prompts(path: Path = PROMPTS) -> list[str]:
    """One prompt a line."""
    return [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--prompts", type=Path, default=PROMPTS, help="a text file, one prompt a line")
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    prompts = read_prompts(args.prompts)
    seeds = [args.seed + i for i in range(len(prompts))]
    sheet(Studio.open(args.checkpoint).draw(prompts, seeds, side=args.side), prompts).save(args.out)


if __name__ == "__main__":
    main()
