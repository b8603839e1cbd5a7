"""A model of your own pictures, in one command.

    .venv/bin/python -m training.own --pictures FOLDER --name my-model --minutes 10

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
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from training.export import write_checkpoint
from training.model import SCALE_FACTOR, Vocabulary, known_tokens, open_checkpoint
from training.parallel import device_of, here
from training.progress import TimeBox, save
from training.unet import Draw, Trainer, run
from training.vae import encoded
from webui.errors import WebUIError
from webui.pictures import open_image
from webui.pictures.canvas import flattened

MODELS = Path(__file__).parents[1] / "models" / "Stable-diffusion"
EMBEDDED = MODELS / "emoji-128.safetensors"
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".avif", ".bmp", ".gif"}
WORDLESS = re.compile(r"(?:img|image|dsc[fn]?|pxl|photo)?[\d\s]*", re.IGNORECASE)  # a caption that a camera wrote
VIEWS = 8  # of each picture: mirrored, nearer, a little aside


def picture_files(folder: Path) -> list[Path]:
    """The pictures of a folder by name, without the hidden files that some systems put beside each."""
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    return [path for path in files if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")]


def read_pictures(folder: Path) -> Iterator[tuple[Image.Image, str]]:
    """(RGB picture, caption) of each file, transparent parts white; what cannot be read is told and left out."""
    for path in picture_files(folder):
        try:
            picture, caption = _opened(path), caption_of(path)
        except (OSError, SyntaxError, ValueError, WebUIError) as error:
            print(f"{path.name} is left out: {error}", flush=True)
            continue
        yield flattened(picture, "#ffffff"), caption


def _opened(path: Path) -> Image.Image:
    if path.suffix.lower() != ".bmp":
        return open_image(path.read_bytes(), formats=("PNG", "JPEG", "WEBP", "AVIF", "GIF"))
    with Image.open(path, formats=("BMP",)) as file:
        return file.convert("RGB")


def caption_of(path: Path) -> str:
    """The text beside the picture, or the words of its name without a number at the end.

    Raises ValueError for a text that is neither UTF-8 nor UTF-16 with its mark.
    """
    beside = path.with_suffix(".txt")
    if beside.exists():
        data = beside.read_bytes()
        try:
            text = data.decode("utf-16" if data.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else "utf-8-sig")
        except UnicodeDecodeError:
            raise ValueError(f"{beside.name} is not UTF-8 text; save it as that.") from None
        return " ".join(text.split())
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


def target_of(args: argparse.Namespace) -> Path:
    """The file of the new model."""
    return Path(args.out) / f"{args.name}.safetensors"


def train_own(args: argparse.Namespace, work: Path) -> Path:
    """The whole way from a folder to a checkpoint; returns its path. Ctrl+C ends the training, not the way.

    Raises SystemExit where no picture can be read.
    """
    rng = np.random.default_rng(0)
    lessons = [(views(picture, args.side, rng), caption) for picture, caption in read_pictures(args.pictures)]
    if not lessons:
        raise SystemExit(f"No picture in {args.pictures} can be read.")
    images = np.concatenate([several for several, _ in lessons])
    texts = [caption for _, caption in lessons for _ in range(VIEWS)]
    np.save(work / "images.npy", images)
    print(f"{len(lessons)} pictures, {len(set(texts))} different captions, for example: {texts[0]!r}", flush=True)
    if wordless := sum(WORDLESS.fullmatch(caption) is not None for _, caption in lessons):
        print(f"{wordless} of them have no words of their own: write what they show in a .txt beside each.", flush=True)

    start = open_checkpoint(args.start)
    vocabulary = Vocabulary.of(texts, known_tokens(start))
    trainer = Trainer(vocabulary, args.rate, args.threads, device_of(args.device))
    trainer.start_from(start)
    latents = (encoded(start.vae, images) * SCALE_FACTOR).to(trainer.device)
    draw = drawing_from(latents, vocabulary.rows(texts))
    try:
        run(trainer, draw, TimeBox(args.minutes), args.batch, work / "unet.pt")
    except KeyboardInterrupt:
        print("Stopped: the model is written as far as it has come.", flush=True)
        save(trainer.state(), work / "unet.pt")
    out = target_of(args)
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
    parser.add_argument("--again", action="store_true", help="replace a model of this name")
    args = parser.parse_args(arguments)
    if not re.fullmatch(r"[\w.\- ]+", args.name):
        parser.error("--name may hold letters, digits, spaces, dots, - and _")
    if not args.pictures.is_dir():
        parser.error(f"there is no folder {args.pictures}")
    if not picture_files(args.pictures):
        parser.error(f"there are no pictures in {args.pictures}; known are {', '.join(sorted(SUFFIXES))}")
    out = target_of(args)
    if any(out.exists() and kept.exists() and out.samefile(kept) for kept in (EMBEDDED, args.start)):
        parser.error(f"{out.name} is what the training goes on from, or came with the program; choose another --name")
    if out.exists() and not args.again:
        parser.error(f"{out} exists; choose another --name, or replace it with --again")
    return args


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse(arguments)
    with tempfile.TemporaryDirectory() as work:
        out = train_own(args, Path(work))
    print(f"Done. Choose {out.name} in the web UI (the list's refresh button finds it).")


if __name__ == "__main__":
    main()
