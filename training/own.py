"""A model of your own pictures, in one command.

    python -m training.own --pictures FOLDER --name my-model --minutes 10

Every picture in the folder is a lesson. What it shows is read from the .txt file of the same name beside it; without
one the file's name is the caption ("red_dragon-2.png": "red dragon"). Training goes on from a finished checkpoint of
this project. It takes the new pictures as its only lessons: the longer it trains, the more it forgets of the old ones.
The result lies in models/Stable-diffusion/ and can be chosen in the web UI at once.
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from training.export import write_checkpoint
from training.model import SCALE_FACTOR, Vocabulary, known_tokens, open_checkpoint
from training.parallel import device_of, here
from training.progress import TimeBox
from training.unet import Draw, Trainer, run
from training.vae import encoded

MODELS = Path(__file__).parents[1] / "models" / "Stable-diffusion"
EMBEDDED = MODELS / "emoji-128.safetensors"
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif"}
VIEWS = 8  # of each picture: mirrored, nearer, a little aside


def read_pictures(folder: Path) -> list[tuple[Image.Image, str]]:
    """(RGB picture, caption) for each file, transparent parts white. Raises ValueError when there is none."""
    found = []
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in SUFFIXES:
            continue
        with Image.open(path) as file:
            rgba = ImageOps.exif_transpose(file).convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        found.append((Image.alpha_composite(white, rgba).convert("RGB"), caption_of(path)))
    if not found:
        raise ValueError(f"There are no pictures in {folder}. Known are {', '.join(sorted(SUFFIXES))}.")
    return found


def caption_of(path: Path) -> str:
    """The text beside the picture, or the words of its name without a number at the end."""
    beside = path.with_suffix(".txt")
    if beside.exists():
        return " ".join(beside.read_text("utf-8").split())
    words = re.sub(r"[_\-.\s]+", " ", path.stem).strip()
    return re.sub(r"\s*\(?\d+\)?$", "", words) or words


def views(picture: Image.Image, side: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Square views of a picture: the whole middle first, then nearer ones; every second is mirrored."""
    shorter = min(picture.size)
    found = []
    for number in range(VIEWS):
        edge = shorter * (1 if number < 2 else rng.uniform(0.82, 1))
        free = np.array(picture.size) - edge
        left, top = free / 2 if number < 2 else free * rng.uniform(0.2, 0.8, 2)
        view = picture.resize((side, side), Image.Resampling.LANCZOS, (left, top, left + edge, top + edge))
        found.append(np.asarray(ImageOps.mirror(view) if number % 2 else view))
    return found


def drawing_from(latents: torch.Tensor, rows: np.ndarray) -> Draw:
    """Batches in which every view is as likely as any other."""

    known = here(rows, latents.device)

    def draw(size: int, _: float, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        picked = torch.randint(len(latents), (size,), generator=generator, device=latents.device)
        return latents[picked], known[picked]

    return draw


def train_own(args: argparse.Namespace, work: Path) -> Path:
    """The whole way from a folder to a checkpoint; returns its path."""
    lessons = read_pictures(args.pictures)
    rng = np.random.default_rng(0)
    images = np.stack([view for picture, _ in lessons for view in views(picture, args.side, rng)])
    texts = [caption for _, caption in lessons for _ in range(VIEWS)]
    np.save(work / "images.npy", images)
    print(f"{len(lessons)} pictures, {len(set(texts))} different captions, for example: {texts[0]!r}", flush=True)

    start = open_checkpoint(args.start)
    vocabulary = Vocabulary.of(texts, known_tokens(start))
    trainer = Trainer(vocabulary, args.rate, args.threads, device_of(args.device))
    trainer.start_from(start)
    latents = (encoded(start.vae, images) * SCALE_FACTOR).to(trainer.device)
    draw = drawing_from(latents, vocabulary.rows(texts))
    run(trainer, draw, TimeBox(args.minutes), args.batch, work / "unet.pt")
    out: Path = args.out / f"{args.name}.safetensors"
    write_checkpoint(work, out, start.vae, args.side)
    return out


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, required=True, help="folder of pictures")
    parser.add_argument("--name", required=True, help="of the new model")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--start", type=Path, default=EMBEDDED, help="checkpoint to go on from")
    parser.add_argument("--out", type=Path, default=MODELS, help="folder of the result")
    parser.add_argument("--side", type=int, default=128, help="pixels")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", default="auto")
    args = parser.parse_args(arguments)
    if not re.fullmatch(r"[\w.\- ]+", args.name):
        parser.error("--name may hold letters, digits, spaces, dots, - and _")
    return args


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse(arguments)
    with tempfile.TemporaryDirectory() as work:
        out = train_own(args, Path(work))
    print(f"Done. Choose {out.name} in the web UI (the list's refresh button finds it).")


if __name__ == "__main__":
    main()
