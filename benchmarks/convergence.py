"""The order of every sampler, measured.

    .venv/bin/python -m benchmarks.convergence   # writes docs/convergence.md and its plot

The data is a mixture of Gaussians, whose denoiser is known exactly, so nothing but the sampler's own error is left. The
probability-flow ODE is solved from sigma 80 to 0.1; the truth is a solution in 1,000 steps of the classical Runge-Kutta
method of order 4. A method of order p makes 2^p times less error with twice the steps. Samplers that add noise run
without it (eta 0).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from webui.sampling import GaussianMixture, sample, schedule

ROOT = Path(__file__).resolve().parent.parent
SIGMA_MAX, SIGMA_MIN = 80.0, 0.1
STEPS = (11, 20, 41, 80, 161, 320)  # each leaves 2 when divided by 3: DPM fast ends with a step of order 2
PICTURES = 16


@dataclass(frozen=True)
class Method:
    """A sampler and the order that its formulas have on uneven steps."""

    name: str
    order: int
    calls: int = 1  # of the model, a step
    options: dict[str, Any] = field(default_factory=dict, hash=False)
    note: str = ""


NO_NOISE = {"eta": 0.0}
METHODS = (
    Method("Euler", 1),
    Method("Euler a", 1, 1, NO_NOISE),
    Method("Euler CFG++", 1),
    Method("DDIM", 1),
    Method("DDIM CFG++", 1),
    Method("TCD", 1, 1, NO_NOISE),
    Method("Euler (flow)", 1),
    Method("HeunPP2", 1, 3, note="its weights fade with sigma"),
    Method("Heun", 2, 2),
    Method("DPM2", 2, 2),
    Method("DPM2 a", 2, 2, NO_NOISE),
    Method("DPM++ 2S a", 2, 2, NO_NOISE),
    Method("DPM++ SDE", 2, 2, NO_NOISE),
    Method("DPM++ 2M", 2),
    Method("DPM++ 2M SDE", 2, 1, NO_NOISE),
    Method("DPM++ 2M SDE Heun", 2, 1, NO_NOISE),
    Method("DPM++ 2M (flow)", 2),
    Method("IPNDM", 2, note="4 on even steps, for which its weights are made"),
    Method("PLMS", 2, note="4 on even steps, for which its weights are made"),
    Method("DPM++ 3M SDE", 2, 1, NO_NOISE, "its second difference has half its weight, as in the reference"),
    Method("DPM fast", 3, 1, NO_NOISE, "steps are calls here; a step of order 3 has three"),
    Method("DEIS", 3),
    Method("UniPC", 3, 1, {"lower_order_final": False}, "order 4 but for the last step, which is not corrected"),
    Method("LMS", 4),
    Method("IPNDM_V", 4),
)


@dataclass(frozen=True)
class Problem:
    """Where all methods start, and where they should end."""

    mixture: GaussianMixture
    start: Tensor
    truth: Tensor


def make_problem() -> Problem:
    """Five Gaussians of width 0.3 in 64 dimensions; starts (16, 4, 4, 4) at sigma 80, float64."""
    generator = torch.Generator().manual_seed(0)
    mixture = GaussianMixture(torch.randn(5, 64, generator=generator, dtype=torch.float64), 0.3)
    start = torch.randn(PICTURES, 4, 4, 4, generator=generator, dtype=torch.float64) * SIGMA_MAX
    return Problem(mixture, start, runge_kutta_4(mixture, start, grid(1000)))


def grid(steps: int) -> list[float]:
    """Karras levels from sigma 80 to 0.1, without a final 0, where no method shows its order."""
    return [float(s) for s in schedule("Karras", steps + 1, [SIGMA_MIN, SIGMA_MAX])[:-1]]


def runge_kutta_4(mixture: GaussianMixture, x: Tensor, sigmas: Sequence[float]) -> Tensor:
    """The classical method on dx/dt = D - x, t = -log sigma."""

    def slope(x: Tensor, t: float) -> Tensor:
        return mixture(x, torch.full((len(x),), math.exp(-t), dtype=x.dtype)) - x

    for sigma, sigma_next in pairwise(sigmas):
        t, h = -math.log(sigma), math.log(sigma / sigma_next)
        k1 = slope(x, t)
        k2 = slope(x + h / 2 * k1, t + h / 2)
        k3 = slope(x + h / 2 * k2, t + h / 2)
        k4 = slope(x + h * k3, t + h)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return x


def error(method: Method, steps: int, problem: Problem) -> float:
    """Relative distance from the truth, over all pictures."""
    sigmas = grid(steps)
    if method.name.endswith("(flow)"):  # the same path in the coordinates of a flow
        levels = [s / (1 + s) for s in sigmas]
        x = sample(method.name, problem.mixture.as_flow, problem.start / (1 + SIGMA_MAX), levels, **method.options)
        x = x * (1 + SIGMA_MIN)
    else:
        x = sample(method.name, problem.mixture, problem.start, sigmas, **method.options)
    return float((x - problem.truth).norm() / problem.truth.norm())


def observed_order(errors: Sequence[float], steps: Sequence[int]) -> float:
    """The slope of log error over log steps, by least squares."""
    xs, ys = [math.log(n) for n in steps], [-math.log(e) for e in errors]
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    covariance = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True))
    return covariance / sum((x - mean_x) ** 2 for x in xs)


def adaptive_rows(problem: Problem) -> list[tuple[float, int, float]]:
    """(relative tolerance, calls a picture, error) of DPM adaptive, which chooses its steps itself."""
    rows = []
    for rtol in (0.05, 0.01, 0.002, 0.0004):
        calls = 0

        def counted(x: Tensor, sigma: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            return problem.mixture(x, sigma)

        ends = [SIGMA_MAX, SIGMA_MIN]
        x = sample("DPM adaptive", counted, problem.start, ends, rtol=rtol, atol=rtol * 0.156, eta=0.0)
        rows.append((rtol, calls, float((x - problem.truth).norm() / problem.truth.norm())))
    return rows


def markdown(table: dict[Method, list[float]], adaptive: Sequence[tuple[float, int, float]]) -> str:
    """The page docs/convergence.md."""
    head = " | ".join(f"{n}" for n in STEPS)
    lines = [
        "# How fast the samplers converge",
        "",
        "Made by `.venv/bin/python -m benchmarks.convergence`; do not edit by hand.",
        "",
        "The data is a mixture of five Gaussians in 64 dimensions, whose denoiser is known exactly: all the error is",
        "the sampler's own. The probability-flow ODE runs from sigma 80 to 0.1 over Karras levels in float64; the",
        "truth is a solution in 1,000 steps of the classical Runge-Kutta method. What adds noise runs without (eta 0).",
        "A method of order p makes 2^p times less error with twice the steps; `measured` is the slope over the last",
        "three columns.",
        "",
        "![error against steps](images/convergence.png)",
        "",
        f"| sampler | calls a step | order | measured | {head} | |",
        "|---|---|---|---|" + "---|" * len(STEPS) + "---|",
    ]
    for method, errors in table.items():
        cells = " | ".join(f"{e:.1e}" for e in errors)
        measured = observed_order(errors[-3:], STEPS[-3:])
        lines.append(f"| {method.name} | {method.calls} | {method.order} | {measured:.2f} | {cells} | {method.note} |")
    lines += [
        "",
        "Not in the table: LCM, DDPM and Restart draw noise as part of the method, and DPM adaptive chooses its own",
        "steps. Its error follows its tolerance:",
        "",
        "| relative tolerance | calls | error |",
        "|---|---|---|",
        *(f"| {rtol:g} | {calls} | {e:.1e} |" for rtol, calls, e in adaptive),
        "",
        "High orders pay off with many steps; with few, the constant decides.",
        "",
    ]
    return "\n".join(lines)


# The plot, drawn at twice its size so that lines come out smooth.

SCALE = 2
SIZE = (1000, 640)
FRAME = (70, 20, 770, 590)  # left, top, right, bottom
COLOURS = (
    "#4c78a8", "#f58518", "#54a24b", "#e45756", "#72b7b2", "#b279a2", "#9d755d", "#eeca3b",
    "#1b9e77", "#d95f02", "#7570b3", "#e7298a", "#66a61e", "#666666", "#17becf",
)  # fmt: skip


def plot(table: dict[Method, list[float]], path: Path) -> None:
    """Error over steps, both on logarithmic axes; methods that coincide share a line."""
    lines: dict[tuple[str, ...], tuple[list[str], list[float]]] = {}
    for method, errors in table.items():
        lines.setdefault(tuple(f"{e:.2e}" for e in errors), ([], errors))[0].append(method.name)
    low = math.floor(math.log10(min(min(errors) for _, errors in lines.values())))
    high = math.ceil(math.log10(max(max(errors) for _, errors in lines.values())))

    image = Image.new("RGB", (SIZE[0] * SCALE, SIZE[1] * SCALE), "white")
    draw = ImageDraw.Draw(image)
    small, normal = ImageFont.load_default(12 * SCALE), ImageFont.load_default(14 * SCALE)
    left, top, right, bottom = (v * SCALE for v in FRAME)

    def at(steps: float, value: float) -> tuple[float, float]:
        x = left + (right - left) * math.log(steps / STEPS[0]) / math.log(STEPS[-1] / STEPS[0])
        y = bottom - (bottom - top) * (math.log10(value) - low) / (high - low)
        return x, y

    for power in range(low, high + 1):
        _, y = at(STEPS[0], 10.0**power)
        draw.line((left, y, right, y), fill="#e4e4e4", width=SCALE)
        draw.text((left - 8 * SCALE, y), f"1e{power}", fill="#333333", font=small, anchor="rm")
    for steps in STEPS:
        x, _ = at(steps, 10.0**low)
        draw.line((x, top, x, bottom), fill="#e4e4e4", width=SCALE)
        draw.text((x, bottom + 6 * SCALE), str(steps), fill="#333333", font=small, anchor="ma")
    draw.text(((left + right) / 2, bottom + 26 * SCALE), "steps", fill="#333333", font=normal, anchor="ma")
    draw.text((left + 8 * SCALE, bottom - 12 * SCALE), "relative error", fill="#333333", font=normal, anchor="ls")

    labels = []
    for colour, (names, errors) in zip(COLOURS, lines.values(), strict=False):
        points = [at(n, e) for n, e in zip(STEPS, errors, strict=True)]
        draw.line(points, fill=colour, width=2 * SCALE, joint="curve")
        for x, y in points:
            draw.ellipse((x - 3 * SCALE, y - 3 * SCALE, x + 3 * SCALE, y + 3 * SCALE), fill=colour)
        labels.append((points[-1][1], ", ".join(names), colour))
    height = 16 * SCALE
    y_label = float(top)
    for y, text, colour in sorted(labels):
        y_label = max(y, y_label)
        for row in _wrapped(text, 32):
            draw.text((right + 10 * SCALE, y_label), row, fill=colour, font=small, anchor="lm")
            y_label += height
    image.resize(SIZE, Image.Resampling.LANCZOS).save(path, optimize=True)


def _wrapped(text: str, width: int) -> list[str]:
    rows = [""]
    for word in text.split(", "):
        if rows[-1] and len(rows[-1]) + len(word) > width:
            rows[-1] += ","
            rows.append(word)
        else:
            rows[-1] += (", " if rows[-1] else "") + word
    return rows


def main() -> None:
    """Measure, write the page and the plot."""
    problem = make_problem()
    table = {method: [error(method, n, problem) for n in STEPS] for method in METHODS}
    images = ROOT / "docs" / "images"
    images.mkdir(parents=True, exist_ok=True)
    plot(table, images / "convergence.png")
    page = ROOT / "docs" / "convergence.md"
    page.write_text(markdown(table, adaptive_rows(problem)), encoding="utf-8")
    print(f"{page}: {len(table)} samplers, {len(STEPS)} step counts")


if __name__ == "__main__":
    main()
