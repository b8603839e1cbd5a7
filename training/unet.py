"""Command 4: the UNet and the text encoder, together.

    .venv/bin/python -m training.unet --work WORK --minutes 90 [--start CHECKPOINT] [--device auto]

v-prediction with a uniform loss (Salimans & Ho 2022) on SD1's noise table. Reads what `prepare` and `encode` wrote and
goes on from WORK/unet.pt when it is there; `--start` begins from the weights of a finished checkpoint instead. The loss
goes into WORK/unet.jsonl, and what the model draws by then into WORK/samples.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training.captions import caption
from training.concepts import distinctive_keywords, load_concepts
from training.generate import Studio, read_prompts, sheet
from training.model import (
    POSITION_ROWS,
    TIMESTEPS,
    TOKEN_ROWS,
    Denoiser,
    Opened,
    Vocabulary,
    alphas_cumprod,
    open_checkpoint,
    take_over,
)
from training.muon import Muon, split
from training.parallel import Replicas, device_of, here
from training.precision import format_of
from training.prepare import load_scenes
from training.progress import TimeBox, learning_rate, save, set_rate
from training.scenes import Scene
from training.vae import load_vae

NO_CAPTION = 0.1  # of the batch, for guidance
UNKNOWN_WORDS = 0.08  # of the batch get one or more words that mean nothing
MOST_UNKNOWN = 3
WARM_UP = 50
EMA = 0.997
SAVE_EVERY = 150  # seconds
LOG_EVERY = 2.5  # seconds
SHEET_EVERY = 900  # seconds
SHEET_EVERY_PROMPT = 2  # of the contact sheet's
TENTHS = 10
NEWEST = 0.03  # what a batch weighs in the means that are logged
Draw = Callable[[int, float, torch.Generator], tuple[Tensor, Tensor]]
"""`draw(batch size, share of the time, generator) -> latents (B, 4, h, w), token rows (B, 77)`, on its device."""
NOT_HIDDEN = ("conv_in", "conv_out", TOKEN_ROWS, POSITION_ROWS)
SHARES = {  # of the batch
    "single": 0.50,
    "tint": 0.05,
    "pair": 0.21,
    "count": 0.09,
    "shape": 0.07,
    "shapes": 0.05,
    "setting": 0.03,
}


class Pool:
    """Latents and captions to draw batches from.

    A curriculum: at first only scenes of the first concepts, then more and more, for a text encoder learns to tell
    fifty things apart sooner when it does not see three hundred.
    """

    def __init__(
        self, work: Path, scenes: Sequence[Scene], rows: np.ndarray, first: int, full_at: float, device: torch.device
    ) -> None:
        """`rows` (scenes, wordings, 77). `first` concepts at the start, all from the share `full_at` of the time on."""
        self._device = device
        self._file = np.load(work / "latents.npy", mmap_mode="c")
        self._latents = torch.zeros(0)
        self._ready, self._known = work / "latents.ready", 0
        self._rows = here(rows, device)
        self._newest = np.array([max(scene.concepts, default=-1) for scene in scenes])
        self._kinds = np.array([scene.kind for scene in scenes])
        self._first, self._full_at = first, full_at
        self._total = int(self._newest.max()) + 1
        self._chosen = torch.zeros(0, dtype=torch.int64)
        self._cumulative = torch.zeros(0)
        self._refreshed = -1.0

    def _refresh(self, share: float) -> None:
        """Take up what may be drawn by now."""
        if share - self._refreshed < 0.005 and share < 1:
            return
        self._refreshed = share
        grown = min(1.0, max(0.0, share / self._full_at)) if self._full_at else 1.0
        limit = self._first + (self._total - self._first) * grown
        ready = int(self._ready.read_text() or 0)
        if ready > self._known:
            self._latents, self._known = here(self._file, self._device), ready
        chosen = np.flatnonzero(self._newest[:ready] < limit)
        weights = np.zeros(len(chosen))
        for kind, part in SHARES.items():
            of_kind = self._kinds[chosen] == kind
            weights[of_kind] = part / max(1, int(of_kind.sum()))
        self._chosen = here(chosen, self._device)
        self._cumulative = here(np.cumsum(weights / weights.sum()), self._device)

    def draw(self, size: int, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """See `Draw`."""
        self._refresh(share)
        chances = torch.rand(size, dtype=torch.float64, generator=generator, device=self._device)
        picked = self._chosen[torch.searchsorted(self._cumulative, chances).clamp(max=len(self._chosen) - 1)]
        wording = torch.randint(self._rows.shape[1], (size,), generator=generator, device=self._device)
        return self._latents[picked].float(), self._rows[picked, wording].long()


def captions_of(work: Path, scenes: Sequence[Scene], concepts: int | None, wordings: int) -> list[str]:
    """So many captions for each scene, one after the other; always the same ones."""
    listed = load_concepts(work / "downloads", concepts)
    distinctive = distinctive_keywords(listed)
    rng = random.Random(3)
    return [caption(scene, listed, distinctive, rng) for scene in scenes for _ in range(wordings)]


def spoiled(rows: Tensor, vocabulary: Vocabulary, generator: torch.Generator) -> Tensor:
    """No caption for some of the rows (B, 77), and for some a few words that no scene has, which are to be ignored."""
    count, width = rows.shape
    chance = torch.rand(count, generator=generator, device=rows.device)
    words = torch.randint(1, MOST_UNKNOWN + 1, (count,), generator=generator, device=rows.device)
    words[chance >= NO_CAPTION + UNKNOWN_WORDS] = 0
    places = torch.arange(width, device=rows.device)
    for turn in range(MOST_UNKNOWN):
        length = (rows != vocabulary.end).sum(1)
        place = 1 + (torch.rand(count, generator=generator, device=rows.device) * length).long()[:, None]
        later = torch.cat((rows[:, :1], rows[:, :-1]), 1)
        longer = torch.where(places < place, rows, later.masked_fill(places == place, 0))
        rows = torch.where(((turn < words) & (length < width - 1))[:, None], longer, rows)
    empty = torch.from_numpy(vocabulary.rows([""])[0]).to(rows.device)
    return torch.where((chance < NO_CAPTION)[:, None], empty, rows)


def noised(latents: Tensor, alphas: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Noise a batch: (noisy latents, timesteps, the v to be predicted). Timesteps are spread evenly over the batch."""
    size, device = len(latents), latents.device
    places = (torch.arange(size, device=device) + torch.rand(size, device=device)) / size
    timesteps = (places * TIMESTEPS).long().clamp(max=TIMESTEPS - 1)[torch.randperm(size, device=device)]
    signal = alphas[timesteps].sqrt().view(-1, 1, 1, 1)
    spread = (1 - alphas[timesteps]).sqrt().view(-1, 1, 1, 1)
    noise = torch.randn_like(latents)
    return signal * latents + spread * noise, timesteps, signal * noise - spread * latents


def v_loss(model: Denoiser, share: tuple[Tensor, Tensor, Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Mean squared error of v; also the timesteps and each sample's error."""
    noisy, timesteps, target, rows = share
    predicted = model(noisy.to(format_of(noisy.device.type)), timesteps, rows).float()
    errors = ((predicted - target) ** 2).mean((1, 2, 3))
    return errors.mean(), (timesteps, errors.detach())


class Trainer:
    """The model in `format_of` the device, its weights in float32, their running mean, and the optimisers."""

    def __init__(self, vocabulary: Vocabulary, rate: float, threads: int, device: torch.device | None = None) -> None:
        torch.manual_seed(0)
        self.vocabulary, self.rate, self.device = vocabulary, rate, device or torch.device("cpu")
        self.model = Denoiser(len(vocabulary))
        self.model.train()
        self._threads = threads
        self.step, self.spent = 0, 0.0
        self._begin()

    def _begin(self) -> None:
        """From the model's present weights."""
        self.model.to(self.device)
        self.names = [name for name, _ in self.model.named_parameters()]
        self.masters = [weight.detach().float().clone() for weight in self.model.parameters()]
        self.ema = [weight.clone() for weight in self.masters]
        named = list(zip(self.names, self.masters, strict=True))
        hidden, other = split(named, NOT_HIDDEN)
        table = next(weight for name, weight in named if name.endswith(TOKEN_ROWS))
        rest = [weight for weight in other if weight is not table]
        self.optimisers: list[torch.optim.Optimizer] = [
            Muon(hidden, lr=self.rate),
            torch.optim.AdamW(
                [{"params": rest, "weight_decay": 0.0}, {"params": [table], "factor": 2.0, "weight_decay": 0.0}],
                lr=self.rate,
                betas=(0.9, 0.98),
            ),
        ]
        self.model.to(format_of(self.device.type))
        self.replicas = Replicas(self.model, self._threads)

    def start_from(self, opened: Opened) -> int:
        """Take over a finished checkpoint; returns how many of the tokens it knew."""
        self.model.float().cpu()
        known = take_over(self.model, self.vocabulary, opened)
        self._begin()
        return known

    def update(self, latents: Tensor, rows: Tensor, alphas: Tensor, rate: float) -> tuple[Tensor, Tensor]:
        """One step; returns the timesteps and the loss of each sample."""
        noisy, timesteps, target = noised(latents, alphas)
        pieces = [tensor.chunk(len(self.replicas)) for tensor in (noisy, timesteps, target, rows)]
        results = self.replicas.backward(v_loss, list(zip(*pieces, strict=True)))
        for master, weight in zip(self.masters, self.model.parameters(), strict=True):
            master.grad = None if weight.grad is None else weight.grad.float()
            weight.grad = None
        torch.nn.utils.clip_grad_norm_(self.masters, 1.0)
        set_rate(self.optimisers, rate)
        for optimiser in self.optimisers:
            optimiser.step()
        self.step += 1
        decay = min(EMA, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(self.ema, self.masters, 1 - decay)
            for master, weight in zip(self.masters, self.model.parameters(), strict=True):
                weight.copy_(master)
        return torch.cat([t for t, _ in results]), torch.cat([e for _, e in results])

    def studio(self, vae: Any) -> Studio:
        """The running mean of the weights, as it would be exported now, and a VAE."""
        model = copy.deepcopy(self.model).cpu().eval()
        with torch.no_grad():
            for weight, mean in zip(model.parameters(), self.ema, strict=True):
                weight.copy_(mean)
        return Studio(model.unet, model.text, vae, lambda prompts: torch.from_numpy(self.vocabulary.rows(prompts)))

    def state(self) -> dict[str, Any]:
        """All that is needed to go on, and (`ema`) to export."""
        return {
            "names": self.names,
            "masters": self.masters,
            "ema": self.ema,
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "tokens": self.vocabulary.tokens.tolist(),
            "step": self.step,
            "spent": self.spent,
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from `state`. Raises ValueError when it was made with other captions."""
        if state["tokens"] != self.vocabulary.tokens.tolist():
            raise ValueError("The captions have changed since; delete unet.pt or start from an exported checkpoint.")
        with torch.no_grad():
            for ours, theirs in ((self.masters, state["masters"]), (self.ema, state["ema"])):
                torch._foreach_copy_(ours, theirs)
            for master, weight in zip(self.masters, self.model.parameters(), strict=True):
                weight.copy_(master)
        for optimiser, values in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(values)
        self.step, self.spent = state["step"], state["spent"]


def train(args: argparse.Namespace) -> None:
    """Train until the time is over."""
    work: Path = args.work
    scenes = load_scenes(work)
    texts, device = captions_of(work, scenes, args.concepts, args.wordings), device_of(args.device)
    vocabulary = Vocabulary.of(texts)
    rows = vocabulary.rows(texts).astype(np.int16).reshape(len(scenes), args.wordings, -1)
    trainer = Trainer(vocabulary, args.rate, args.threads, device)
    target, vae = work / "unet.pt", load_vae(work / "vae.pt")
    if target.exists():
        trainer.resume(torch.load(target, map_location=device, weights_only=True))
    elif args.start:
        print(f"{trainer.start_from(open_checkpoint(args.start))} of {len(vocabulary)} tokens were known")
    if args.compile:
        trainer.model.compile()
    prompts = read_prompts()[::SHEET_EVERY_PROMPT]
    pool = Pool(work, scenes, rows, args.first, args.full_at, device)
    box = TimeBox(args.minutes, trainer.spent, work / "unet.until")
    run(trainer, pool.draw, box, args.batch, target, lambda: draw_sheet(trainer, vae, prompts, work / "samples"))


def draw_sheet(trainer: Trainer, vae: Any, prompts: Sequence[str], folder: Path, side: int = 128) -> None:
    """What these prompts give by now, always from the same noise: FOLDER/STEP.png."""
    folder.mkdir(exist_ok=True)
    sheet(trainer.studio(vae).draw(prompts, side=side), prompts).save(folder / f"{trainer.step:06d}.png")


def run(
    trainer: Trainer, draw: Draw, box: TimeBox, size: int, target: Path, show: Callable[[], None] | None = None
) -> None:
    """Train until the time is over; saves to `target` every few minutes and at the end, and logs beside it.

    `show` is called every quarter of an hour and at the end.
    """
    alphas = alphas_cumprod().to(trainer.device)
    generator = torch.Generator(trainer.device).manual_seed(trainer.step)
    torch.manual_seed(trainer.step)
    begun = trainer.step
    saved = shown = logged = time.monotonic()
    by_time = torch.full((TENTHS,), torch.nan, device=trainer.device)

    def keep() -> None:
        trainer.spent = box.elapsed
        save(trainer.state(), target)

    with target.with_suffix(".jsonl").open("a", encoding="utf-8") as log:
        while (share := box.share) < 1:
            latents, rows = draw(size, share, generator)
            rows = spoiled(rows, trainer.vocabulary, generator)
            rate = trainer.rate * learning_rate(share, trainer.step - begun, WARM_UP)
            by_time = averaged(by_time, *trainer.update(latents, rows, alphas, rate))
            if time.monotonic() - logged > LOG_EVERY:
                parts = [round(value, 3) for value in by_time.tolist()]
                row: dict[str, float | list[float]] = {"step": trainer.step, "seconds": round(box.elapsed)}
                row |= {"cpu": round(time.process_time()), "rate": rate, "loss": round(by_time.mean().item(), 4)}
                row["by_time"] = parts
                print(json.dumps(row), flush=True)
                log.write(json.dumps(row) + "\n")
                log.flush()
                logged = time.monotonic()
            if time.monotonic() - saved > SAVE_EVERY:
                keep()
                saved = time.monotonic()
            if show and time.monotonic() - shown > SHEET_EVERY:
                show()
                shown = time.monotonic()
    keep()
    if show:
        show()


def averaged(by_time: Tensor, timesteps: Tensor, errors: Tensor) -> Tensor:
    """Running means of the loss in each tenth of the noise levels (10,), one batch later. NaN: none seen yet."""
    tenths = timesteps // (TIMESTEPS // TENTHS)
    sums, counts = (torch.zeros_like(by_time).index_add_(0, tenths, one) for one in (errors, torch.ones_like(errors)))
    new = sums / counts
    mean = torch.where(by_time.isnan(), new, by_time.lerp(new, NEWEST))
    return torch.where(new.isnan(), by_time, mean)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=90)
    parser.add_argument("--start", type=Path, help="begin from the weights of this checkpoint")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--concepts", type=int, default=300, help="as in prepare")
    parser.add_argument("--wordings", type=int, default=6, help="captions a scene")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--compile", action="store_true", help="let torch compile the networks; on a GPU")
    parser.add_argument("--first", type=int, default=64, help="concepts at the beginning")
    parser.add_argument("--full-at", type=float, default=0.25, help="share of the time when all concepts are in")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    train(parser.parse_args())


if __name__ == "__main__":
    main()
