"""Nobody waits for the GPU while a picture is drawn, but for the one sampler that has to.

Every read of a number, and every copy that does not just join the queue, stops the processor until the GPU has done
all that it was given; then the GPU stands still until it is given more. See `silence` for how that is seen here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from family_models import RECIPES
from silence import GPU, Silence
from torch import Tensor

from webui.catalog.families import Family
from webui.engine.checkpoints.loaded import LoadedCheckpoint
from webui.engine.checkpoints.loader import meta_text_encoder, meta_unet
from webui.engine.compute.graphs import Graphs
from webui.engine.conditioning.text import (
    ChunkCache,
    Conditioning,
    Encoded,
    PromptEncoder,
    Schedule,
    TextEncoder,
)
from webui.engine.control import Control
from webui.engine.drawing import Draw, Drawing
from webui.engine.extensions import JobExtensions
from webui.engine.latents.latent_mask import LatentMask
from webui.engine.memory.residency import Residency
from webui.engine.passes import Pass
from webui.engine.progress import Progress
from webui.engine.refiner import Refiner
from webui.engine.reporting import Reporting
from webui.engine.sampling_plan import Part, SamplingPlan, Start
from webui.engine.saving.finishing import Finishing
from webui.engine.saving.keeping import Keeping
from webui.events import Step
from webui.extensions import Host
from webui.names import SAMPLER_NAMES
from webui.operations import SoftInpainting
from webui.params import make_params
from webui.prompt import chunk_text, clip_tokenizer, parse_prompt
from webui.sampling import SAMPLERS, flow_sigma_table, sigma_table
from webui.settings import MemoryMode, Settings, changed

STEPS = 9
DECIDES = {"DPM adaptive": {"sampling.methods.dpm.dpm_adaptive", "sampling.contract.per_picture"}}
"""Their next step depends on the numbers of this one."""


class Network(torch.nn.Module):
    """As little of a UNet as there can be."""

    def __init__(self, channels: int = 4, guidance_dim: int | None = None) -> None:
        super().__init__()
        self.config = SimpleNamespace(in_channels=channels, out_channels=4, time_cond_proj_dim=guidance_dim)

    def forward(self, sample: Tensor, timestep: Tensor, **named: Any) -> tuple[Tensor]:
        assert sample.device == timestep.device == named["encoder_hidden_states"].device == GPU
        assert sample.dtype is named["encoder_hidden_states"].dtype is torch.float16
        return (sample[:, :4] * timestep.mean(),)


class Drawn(NamedTuple):
    """Who waited how often, how many operations were asked for, how many steps were told, and how many looks for NaN
    were had.
    """

    waits: Counter[str]
    operations: int
    steps: int
    looks: int


class OnItsWay:
    """Fetched tensors that are there when they are asked for a second time."""

    def __init__(self, tensors: tuple[Tensor, ...]) -> None:
        self._kept = tuple(torch.ones(t.shape, dtype=t.dtype).copy_(t, non_blocking=True) for t in tensors)
        self._asked = 0

    @property
    def ready(self) -> bool:
        self._asked += 1
        return self._asked > 1

    def get(self) -> tuple[Tensor, ...]:
        return self._kept


def loaded(unet: Any, family: Family = Family.SD1, *, flow: bool = False) -> LoadedCheckpoint:
    file: Any = SimpleNamespace(name="small.safetensors", stem="small", zero_terminal_snr=False, family=family)
    return LoadedCheckpoint(
        file=file,
        sha256="",
        family=family,
        unet=unet,
        flop=0.0,
        dims=RECIPES["sd2"].unet,
        text_encoders=(),
        table=flow_sigma_table() if flow else sigma_table(),
        prediction="flow" if flow else "eps",
        scale_factor=0.18215,
        sidecar=None,
        vae_dims=None,
        open_vae=lambda: pytest.fail("nothing is decoded here"),
        sources=(),
        mapped=False,
        unused=(),
    )


def conditioning(width: int = 8, pooled: int = 0, negative_chunks: int = 1) -> Conditioning:
    """Two prompts that take turns and a negative one, where the text encoders leave them: on the GPU."""

    def encoded(chunks: int) -> Encoded:
        vector = torch.zeros(pooled, device=GPU) if pooled else None
        return Encoded(torch.zeros(77 * chunks, width, device=GPU), vector)

    prompt = Schedule(((2, encoded(1)), (1000, encoded(1))))
    return Conditioning(((1.0, prompt),), Schedule(((1000, encoded(negative_chunks)),)))


def draw(
    checkpoint: LoadedCheckpoint,
    conditionings: Sequence[Conditioning],
    second: LoadedCheckpoint | None = None,
    start: Start | None = None,
    **fields: Any,
) -> Drawn:
    """One batch, drawn as a job draws it."""
    usual = {"steps": STEPS, "width": 64, "height": 64, "batch_size": len(conditionings), "cfg_scale": 5.0, "seed": 7}
    params = make_params({**usual, **fields})
    settings = changed(Settings(), {"preview.enabled": False})
    device = SimpleNamespace(device=GPU, dtype=torch.float16, precision="fp16")
    tools: Any = SimpleNamespace(
        device=device,
        residency=Residency(GPU, MemoryMode.normal),
        settings=settings,
        graphs=Graphs(None, lambda: 0),
        apart=False,
    )
    events: list[Any] = []
    reporting = Reporting(GPU, Control(), events.append)
    extensions = JobExtensions(Host(side="engine"), params, lambda _text: None)
    sampling = SamplingPlan(params, checkpoint, None if start is None else Part(0.7, exact=True))
    vae: Any = SimpleNamespace(dims=SimpleNamespace(latent_channels=4))
    prompts: Any = SimpleNamespace(of_batch=lambda _first, _count: tuple(conditionings))
    other = None if second is None else Refiner(second, prompts)
    one = Pass(params, sampling, checkpoint, vae, prompts, "", other)
    finishing = Finishing(Keeping(tools, extensions.saved, events.append))
    drawing = Drawing(tools, extensions, reporting, Progress(STEPS, 1, 1), (False, False), None, finishing)
    looks: list[OnItsWay] = []

    def fetch(tensors: tuple[Tensor, ...]) -> OnItsWay:
        looks.append(OnItsWay(tensors))
        return looks[-1]

    with pytest.MonkeyPatch.context() as patch, Silence() as silence, torch.inference_mode():
        patch.setattr("webui.engine.drawing.fetch_from", lambda _device: fetch)
        batch = drawing.run(Draw(one, conditionings, start=start))
    assert batch is not None
    assert batch.latents.device == GPU
    steps = sum(isinstance(event, Step) for event in events)
    return Drawn(silence.waits, silence.operations, steps, len(looks))


def test_the_stand_in_sees_every_kind_of_wait() -> None:
    x = torch.zeros(2, device=GPU)
    with Silence() as silence:
        assert bool(torch.isfinite(x).all())
        float(x.max())
        x.tolist()
        x.cpu()
        torch.ones(2).to(GPU)
        torch.tensor([1.0], device=GPU)
        x.nonzero()
        x.copy_(torch.ones(2))
        assert silence.waits.total() == 8
        torch.ones(2).to(GPU, non_blocking=True)
        x.new_full((2,), 3.0)
        x.half()
        assert silence.waits.total() == 8


@pytest.mark.parametrize("name", [name for name in SAMPLER_NAMES if name in SAMPLERS])
def test_a_sampler_does_not_wait_for_the_gpu(name: str) -> None:
    flow = SAMPLER_NAMES[name].flow
    waits, _, steps, looks = draw(loaded(Network(), flow=flow), [conditioning()], sampler=name, eta=0.5, s_churn=5.0)
    assert steps > 0
    assert set(waits) == DECIDES.get(name, set())
    assert looks <= 3 * STEPS // 8, "at every eighth call, of which no sampler makes more than three a step"
    if name == "Euler":
        assert (steps, looks) == (STEPS, 1)


@pytest.mark.parametrize(
    "fields",
    [
        {"guidance_end": 0.5, "skip_early_cfg": 0.2, "negative_guidance_min_sigma": 1.0},
        {"dynamic_thresholding_percentile": 0.99, "cfg_rescale": 0.7},
        {"variation_strength": 0.0, "rng": "NV", "quantize_timesteps": True, "ensd": 31337},
        {"feature_reuse": 1, "sampler": "DPM++ 2M SDE"},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_no_option_of_guidance_or_noise_waits(fields: dict[str, Any]) -> None:
    waits, *_ = draw(loaded(Network()), [conditioning(), conditioning()], **fields)
    assert not waits


def test_pictures_with_prompts_of_their_own_and_of_other_lengths_wait_for_nothing() -> None:
    waits, *_ = draw(loaded(Network()), [conditioning(), conditioning(negative_chunks=2), conditioning()])
    assert not waits


@pytest.mark.parametrize("by_steps", [False, True])
def test_the_switch_to_a_refiner_waits_for_nothing(by_steps: bool) -> None:
    fields = {"refiner": "other", "refiner_switch_at": 0.5, "refiner_switch_by_steps": by_steps}
    waits, *_ = draw(loaded(Network()), [conditioning()], second=loaded(Network()), **fields)
    assert not waits


@pytest.mark.parametrize("sampler", ["Euler", "DDIM"])
@pytest.mark.parametrize("soft", [None, SoftInpainting()], ids=["hard", "soft"])
def test_inpainting_waits_for_nothing(sampler: str, soft: SoftInpainting | None) -> None:
    given = torch.zeros(1, 4, 8, 8, device=GPU)
    start = Start(given, LatentMask(given[:, :1], given, soft))
    waits, *_ = draw(loaded(Network()), [conditioning()], start=start, sampler=sampler)
    assert not waits


@pytest.mark.parametrize("name", ["sd1-lcm", "sdxl"])
def test_neither_does_a_unet(name: str) -> None:
    recipe = RECIPES[name]
    unet = meta_unet(recipe.unet).half().eval()
    told = conditioning(recipe.unet.context_dim, pooled=40 if name == "sdxl" else 0)
    waits, _, steps, _ = draw(loaded(unet, recipe.family), [told], steps=2)
    assert (steps, set(waits)) == (2, set())


@pytest.mark.parametrize("name", ["sd2", "sdxl"])
def test_prompts_are_encoded_without_waiting(name: str) -> None:
    recipe, tokenizer, emphasis = RECIPES[name], clip_tokenizer(), "Original"
    encoders = [TextEncoder(meta_text_encoder(dims).eval(), dims) for dims in recipe.texts]
    encoder = PromptEncoder(encoders, name, ChunkCache(), GPU, Residency(GPU, MemoryMode.normal))
    with Silence() as silence, torch.inference_mode():
        encoded = encoder.condition(
            parse_prompt("a (red:1.3) apple", "green", steps=STEPS, emphasis=emphasis, tokenizer=tokenizer),
            lambda text: chunk_text(text, tokenizer, emphasis=emphasis),
            clip_skip=1,
            emphasis=emphasis,
            pad_conds=True,
        )
    assert encoded.at(0, with_uncond=True)[0].device == GPU
    assert silence.operations > 0
    assert not silence.waits


@pytest.mark.parametrize(("sampler", "most"), [("Euler", 45), ("DPM++ 2M", 45), ("DPM++ 2M SDE", 110)])
def test_a_step_asks_for_few_operations_beside_the_network(sampler: str, most: int) -> None:
    """What everything but the networks costs, counted: the same on every machine, however busy. The network's two are
    among them.
    """
    few, many = (draw(loaded(Network()), [conditioning()], sampler=sampler, steps=n).operations for n in (10, 20))
    a_step = (many - few) / 10
    assert 10 < a_step <= most
