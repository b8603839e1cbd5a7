"""What the samplers themselves cost: the time of all mathematics beyond the network's calls, as a share of a step.

    .venv/bin/python -m benchmarks.sampler_overhead [--size 64] [--batch 1] [--step-seconds S]

One step of the embedded model is timed in a real job (512x512 pixels, 64x64x4 latents, with guidance); `--step-seconds`
puts another machine's or model's in its place. Then every sampler runs at the same size with a network that answers at
once. What is left is the sampler, the guidance and the scaling around the network. Noise is counted apart: it is drawn
on the CPU, one generator a picture, whatever the sampler.

Why nothing waits for the device. Noise levels are Python floats, so no branch of a sampler depends on a tensor, and
the `(B,)` tensor of levels is filled on the device from a float, which queues a kernel and returns. Timesteps are
looked up on the device. Hooks get the level as a number beside the tensor (`LevelDenoiser.at_level`). Hence the Python
of step i+1 runs while the device is still busy with step i. The tests show it: every sampler but DPM adaptive, every
hook and `ModelDenoiser` run on the meta device, where there is no number to read. DPM adaptive has to read its error
estimate in each step, as any adaptive method. What takes time on a GPU is the launch of a few small kernels a step.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from webui.sampling import (
    SAMPLERS,
    CondOutputs,
    GuidedDenoiser,
    ModelDenoiser,
    Noise,
    PictureNoise,
    StepInfo,
    flow_sigma_table,
    make_sigmas,
    sample,
    sigma_table,
    start_latents,
)

ROOT = Path(__file__).resolve().parent.parent
STEPS = 20
REPEATS = 5
LIMIT = 0.02  # of a step


def time_of_a_step() -> float:
    """Seconds of one step of the embedded model at 512x512 with guidance, in a real job without previews."""
    from webui.engine import Engine
    from webui.events import Failed, Step
    from webui.params import make_params
    from webui.paths import Paths
    from webui.settings import Settings, changed

    settings = changed(Settings(), {"preview.enabled": False})
    marks: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        paths = dataclasses.replace(Paths.under(ROOT), outputs=Path(folder))
        params = make_params(
            {"prompt": "a red apple", "negative_prompt": "blurry", "seed": 1, "steps": 12, "sampler": "Euler"}
        ).changed(width=512, height=512)
        for event in Engine(settings, paths).generate(params):
            if isinstance(event, Failed):
                raise SystemExit(f"The embedded model could not be run: {event}")
            if isinstance(event, Step):
                marks.append(time.perf_counter())
    return statistics.median(after - before for before, after in pairwise(marks[2:]))


def overhead(name: str, size: int, batch: int, device: torch.device) -> tuple[float, float, int]:
    """(seconds of mathematics a step, seconds of noise a step, calls of the network in all)."""
    flow = SAMPLERS[name].flow
    table = flow_sigma_table() if flow else sigma_table()
    sigmas = make_sigmas(name, "Automatic", STEPS, table)
    levels = [s for s in sigmas.tolist() if s > 0]
    output = torch.zeros(2 * batch, 4, size, size, device=device)
    model = ModelDenoiser(lambda _x, _t: output, table, "flow" if flow else "v")

    def evaluate(x: Tensor, sigma: Tensor, _call: int, with_uncond: bool, _level: float) -> CondOutputs:
        if not with_uncond:
            return CondOutputs([(model(x, sigma), 1.0)], None)
        cond, uncond = model(torch.cat((x, x)), torch.cat((sigma, sigma))).chunk(2)
        return CondOutputs([(cond, 1.0)], uncond)

    pictures = PictureNoise(range(batch), (4, size, size), device=device)
    x = start_latents(pictures.first(), sigmas, name, prediction=model.prediction)
    drawn = torch.randn(x.shape, device=device)

    def run(noise: Noise) -> tuple[float, int, int]:
        """(seconds, steps, calls) of one picture."""
        denoiser = GuidedDenoiser(evaluate, cfg_scale=7.0, total_calls=STEPS)
        done: list[StepInfo] = []
        started = time.perf_counter()
        sample(name, denoiser, x, sigmas, noise=noise, callback=done.append)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started, len(done), denoiser.calls

    mathematics: list[float] = []
    with_noise: list[float] = []
    for _ in range(REPEATS + 1):
        seconds, steps, calls = run(lambda _sigma, _sigma_next: drawn)
        mathematics.append(seconds)
        noise = pictures.brownian(min(levels), max(levels)) if SAMPLERS[name].brownian else pictures
        with_noise.append(run(noise)[0])
    spent = statistics.median(mathematics[1:])
    return spent / steps, max(statistics.median(with_noise[1:]) - spent, 0.0) / steps, calls


def main() -> None:
    """Print the table, and fail where a sampler is above the limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64, help="latent cells a side")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--step-seconds", type=float, help="of one Euler step of the model, instead of measuring it")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    step = arguments.step_seconds or time_of_a_step()
    print(f"One Euler step of the model on {device.type}: {step * 1e3:.1f} ms\n")
    print("| sampler | network calls a step | mathematics, µs a step | share | noise, µs a step | share |")
    print("|---|---|---|---|---|---|")
    worst = 0.0
    for name in SAMPLERS:
        mathematics, noise, calls = overhead(name, arguments.size, arguments.batch, device)
        own_steps = calls if SAMPLERS[name].own_schedule else STEPS
        network = step * max(calls / own_steps, 1.0)
        worst = max(worst, mathematics / network)
        print(
            f"| {name} | {calls / own_steps:.2f} | {mathematics * 1e6:.0f} | {mathematics / network:.2%} "
            f"| {noise * 1e6:.0f} | {noise / network:.2%} |"
        )
    print(f"\nThe worst: {worst:.2%} of a step; the limit is {LIMIT:.0%}.")
    if worst > LIMIT:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
