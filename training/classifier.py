"""A judge that names emoji: a small network trained on the emoji pictures alone, never on what the model drew.

    .venv/bin/python -m training.classifier --work WORK --minutes 4

It looks at 64x64 pixels and knows every concept. Writes WORK/classifier.pt.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from training.precision import mixed
from training.prepare import load_scenes
from training.progress import TimeBox, learning_rate, save, set_rate

SIDE = 64
WIDTHS = (32, 64, 128, 192)
SIZE = 96  # of a batch
RATE = 2e-3


class Classifier(torch.nn.Module):
    """(B, 3, 64, 64) in -1..1 -> (B, classes)."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        layers: list[torch.nn.Module] = []
        before = 3
        for width in WIDTHS:
            layers += [torch.nn.Conv2d(before, width, 3, 2, 1), torch.nn.BatchNorm2d(width), torch.nn.ReLU()]
            layers += [torch.nn.Conv2d(width, width, 3, 1, 1), torch.nn.BatchNorm2d(width), torch.nn.ReLU()]
            before = width
        self.features = torch.nn.Sequential(*layers)
        self.head = torch.nn.Linear(before, classes)

    def forward(self, pixels: Tensor) -> Tensor:
        scores: Tensor = self.head(self.features(pixels).amax((2, 3)))
        return scores


def seen(pictures: np.ndarray) -> Tensor:
    """uint8 (N, H, W, 3) of any size -> what the classifier looks at."""
    pixels = torch.from_numpy(np.array(pictures)).movedim(-1, 1).float() / 127.5 - 1
    return functional.interpolate(pixels, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)


def varied(pixels: Tensor) -> Tensor:
    """Shift, zoom and turn a little; other light; some blur; a hair of noise."""
    count = len(pixels)
    angle, zoom = (torch.rand(count) - 0.5) * 0.4, torch.empty(count).uniform_(0.85, 1.3)
    cos, sin = angle.cos() * zoom, angle.sin() * zoom
    shift = (torch.rand(count, 2) - 0.5) * 0.25
    matrix = torch.stack((torch.stack((cos, -sin, shift[:, 0]), 1), torch.stack((sin, cos, shift[:, 1]), 1)), 1)
    grid = functional.affine_grid(matrix, list(pixels.shape), align_corners=False)
    moved = functional.grid_sample(pixels, grid, padding_mode="border", align_corners=False)
    blurred = functional.avg_pool2d(functional.pad(moved, (1, 1, 1, 1), "reflect"), 3, 1)
    moved = torch.lerp(moved, blurred, torch.rand(count, 1, 1, 1))
    light = torch.empty(count, 3, 1, 1).uniform_(0.9, 1.1)
    return (moved * light + 0.03 * torch.randn_like(moved)).clamp(-1, 1)


def load_classifier(work: Path) -> Classifier:
    """What training wrote."""
    weights = torch.load(work / "classifier.pt", weights_only=True)["classifier"]
    model = Classifier(len(weights["head.bias"]))
    model.load_state_dict(weights)
    return model.eval()


def train(work: Path, minutes: float) -> float:
    """Train and save; returns the accuracy on one scene in twelve, which were kept apart."""
    torch.manual_seed(0)
    scenes = load_scenes(work)
    rows = np.array([i for i, scene in enumerate(scenes) if scene.kind == "single"])
    labels = torch.tensor([scenes[row].concepts[0] for row in rows])
    images = np.load(work / "images.npy", mmap_mode="r")
    pixels = torch.cat([seen(images[part]) for part in np.array_split(rows, len(rows) // 200 + 1)])
    kept = torch.arange(len(rows)) % 12 == 0
    known, answers = pixels[~kept], labels[~kept]
    model = Classifier(int(labels.max()) + 1)
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.02)
    box, step = TimeBox(minutes), 0
    while (share := box.share) < 1:
        set_rate([optimiser], RATE * learning_rate(share, step, 50))
        chosen = torch.randint(len(known), (SIZE,))
        with mixed(pixels.device):
            scores = model(varied(known[chosen]))
        loss = functional.cross_entropy(scores.float(), answers[chosen], label_smoothing=0.05)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        step += 1
        if step % 100 == 0:
            print(f"{step} {box.elapsed:.0f}s cpu {time.process_time():.0f} loss {loss.item():.3f}", flush=True)
    model.eval()
    with torch.inference_mode():
        right: float = (model(pixels[kept]).argmax(1) == labels[kept]).float().mean().item()
    save({"classifier": model.state_dict()}, work / "classifier.pt")
    print(f"{step} steps; {int(kept.sum())} scenes kept apart: {right:.1%}")
    return right


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=4)
    args = parser.parse_args()
    train(args.work, args.minutes)


if __name__ == "__main__":
    main()
