"""Who is measured: this engine, and diffusers as it comes and as its users tune it. Each runs in a process of its own,
with its own allocator and its own peak of memory; the processes are asked in turn.
"""

from __future__ import annotations

import os
import tempfile
import traceback
from collections.abc import Callable, Sequence
from functools import lru_cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from PIL import Image as PillowImage

from benchmarks.cases import TOKENS, Case, given, model_file, planned
from benchmarks.measuring import cost, matmul_ceiling
from benchmarks.openvino_peer import OpenVino
from benchmarks.sdcpp_peer import StableDiffusionCpp
from webui import settings as stored
from webui.cli.bench import ASKED_FOR, CaseKind, PeerKind
from webui.engine import Engine
from webui.engine.checkpoints.loader import Target, fill, import_libraries, use_attention
from webui.engine.checkpoints.reading import trained_sigmas
from webui.engine.compute.attention import Attention
from webui.engine.compute.device import DeviceChoice, choose_device, dtype_name
from webui.engine.compute.graphs import Graphs, recorder_for
from webui.engine.compute.kernels import kernels_for
from webui.engine.compute.layers import use_kernels
from webui.engine.compute.reuse import ReusingUnet
from webui.engine.conditioning.telling import Sizes
from webui.engine.conditioning.text import Conditioning, Encoded, Schedule
from webui.engine.denoise import UnetEvaluator
from webui.engine.latents.begin import pixels_of
from webui.engine.memory.residency import Residency
from webui.engine.memory.usage import PeakMeter, free_memory, give_back
from webui.events import Failed, Image
from webui.params import make_params
from webui.paths import PACKAGE_DATA, Paths
from webui.settings import MemoryMode, WeightStorage

OTHER_PICTURES = (PeerKind.fast, *ASKED_FOR)  # ours, with pictures that differ
FAST = {"feature_reuse": 2, "guidance_end": 0.7}
PROMPT, GUIDANCE = "a red apple on a wooden table", 7.0
MUCH = 1e15  # operations: all threads have something to do


class Ours:
    """The engine: its loader, its evaluation of the UNet, its jobs. `fast`: with the options that are not exact.

    `weights`: how the UNet's are kept in memory.
    """

    def __init__(self, paths: Paths, checkpoint: str, use_cpu: bool, fast: bool, weights: WeightStorage) -> None:
        settings, _ = stored.load(paths.config_file)
        wanted = {"device.use_cpu": use_cpu, "preview.enabled": False, "device.weights": weights.value}
        self._settings = stored.changed(settings, wanted)
        self._paths, self._checkpoint = paths, checkpoint
        self._engine = Engine(self._settings, paths)
        self.device: DeviceChoice = self._engine.device
        self.dtype = self.device.dtype
        self._options: dict[str, Any] = FAST if fast else {}
        self.picture = b""  # the last one, as a PNG file

    @property
    def name(self) -> str:
        return f"ours{', not exact' if self._options else ''}, {self.device.formats}"

    @lru_cache(maxsize=1)  # noqa: B019 (one a process)
    def _networks(self) -> tuple[Any, Any, Any]:
        plans, vae_plan = planned(self._paths, self._checkpoint)
        attention = Attention(self.device.device, self.dtype, self._settings.device.attention)
        unet = fill(plans.unet, Target(self.device.device, self.dtype, storage=self.device.storage))
        vae = fill(vae_plan, Target(self.device.device, self.device.vae_dtype))
        wanted = self._settings.device.kernels
        kernels, _ = kernels_for(self.device.device, self.dtype, wanted=wanted)
        for network in (unet, vae):
            use_attention(network, attention)
            use_kernels(network, kernels)
        return unet, vae, fill(plans.texts[0][0], Target(self.device.device, self.dtype))

    def work(self, case: Case) -> Callable[[], object]:
        if case.kind is CaseKind.picture:
            return lambda: self._picture(case)
        unet, vae, text = self._networks()
        if case.kind is not CaseKind.unet:
            return part_of(case, vae, text, self.device.device)
        x, prompts, pooled, sizes = given(unet, case)
        there = Residency(self.device.device, MemoryMode.normal)
        graphs = Graphs(recorder_for(self.device.device, wanted=True), lambda: free_memory(self.device.device))
        said = [Schedule(((0, Encoded(tokens, pooled)),)) for tokens in prompts]
        evaluate = UnetEvaluator(
            ReusingUnet(unet, there, 1, MUCH, graphs.of(lambda: None)),
            Conditioning(((1.0, said[0]),), said[1]),
            trained_sigmas(None, False),
            "eps",
            dtype=self.dtype,
            quantize=False,
            check=lambda: None,
            sizes=None if sizes is None else Sizes(sizes, sizes),
        )
        x, sigma = x.to(self.device.device), torch.full((case.batch,), 5.0, device=self.device.device)
        return lambda: evaluate(x, sigma, 0, True, 5.0)

    def close(self) -> None:
        self._engine.close()

    def _picture(self, case: Case) -> None:
        wanted = {"prompt": PROMPT, "checkpoint": self._checkpoint, "sampler": "Euler", "cfg_scale": GUIDANCE}
        size = {"width": case.side, "height": case.side, "batch_size": case.batch}
        other = {"steps": case.steps, "seed": 1, "save": False, **self._options}
        for event in self._engine.generate(make_params({**wanted, **size, **other})):
            if isinstance(event, Failed):
                raise RuntimeError(event.error["message"])
            if isinstance(event, Image):
                self.picture = event.png


class Diffusers:
    """diffusers' networks and pipeline on the same weights."""

    def __init__(self, paths: Paths, checkpoint: str, use_cpu: bool, tuned: bool) -> None:
        settings, _ = stored.load(paths.config_file)
        self.device: DeviceChoice = choose_device(stored.changed(settings, {"device.use_cpu": use_cpu}).device)
        on_gpu = self.device.kind != "cpu"
        self.dtype = torch.float16 if on_gpu else self.device.dtype if tuned else torch.float32
        self._tuned = tuned
        self.picture = b""  # other noise than ours: nothing to compare
        self._paths, self._checkpoint = paths, checkpoint

    @property
    def name(self) -> str:
        return f"diffusers{' tuned' if self._tuned else ''}, {dtype_name(self.dtype)}"

    @lru_cache(maxsize=1)  # noqa: B019 (one a process)
    def networks(self) -> tuple[Any, Any, tuple[Any, ...]]:
        """UNet, VAE and text encoders."""
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

        plans, vae_plan = planned(self._paths, self._checkpoint)
        target = Target(self.device.device, self.dtype, channels_last=self._tuned)
        networks = []
        for kind, plan in ((UNet2DConditionModel, plans.unet), (AutoencoderKL, vae_plan)):
            weights = fill(plan, target).state_dict()
            with torch.device("meta"):
                network = kind.from_config(dict(plan.module.config))
            network.load_state_dict(weights, assign=True)
            networks.append(network.eval().requires_grad_(False))
        texts = tuple(fill(plan, target) for plan, _ in plans.texts)
        return networks[0], networks[1], texts

    def work(self, case: Case) -> Callable[[], object]:
        unet, vae, texts = self.networks()
        if case.kind is CaseKind.picture:
            return self._picture(case)
        if case.kind is not CaseKind.unet:
            return part_of(case, vae, texts[0], self.device.device)
        x, prompts, pooled, sizes = given(unet, case)
        device = self.device.device
        x = torch.cat([x, x]).to(device, self.dtype)
        if self._tuned:
            x = x.contiguous(memory_format=torch.channels_last)
        context = torch.cat([tokens.expand(case.batch, -1, -1) for tokens in prompts]).to(device, self.dtype)
        added = None
        if pooled is not None and sizes is not None:
            rows = (2 * case.batch, -1)
            added = {
                "text_embeds": pooled.expand(rows).to(device, self.dtype),
                "time_ids": sizes.expand(rows).to(device),
            }
        t = torch.tensor(500, device=device)
        return lambda: unet(x, t, encoder_hidden_states=context, added_cond_kwargs=added, return_dict=False)

    def _picture(self, case: Case) -> Callable[[], object]:
        import diffusers
        import transformers

        unet, vae, texts = self.networks()
        words = PACKAGE_DATA / "clip"

        def tokenizer(padding: str) -> Any:
            files = (str(words / "vocab.json"), str(words / "merges.txt"))
            return transformers.CLIPTokenizer(*files, model_max_length=TOKENS, pad_token=padding)

        scheduler = diffusers.EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1
        )
        shared = {"unet": unet, "vae": vae, "scheduler": scheduler, "text_encoder": texts[0], "feature_extractor": None}
        first = tokenizer("<|endoftext|>")
        if len(texts) > 1:
            pipeline: Any = diffusers.StableDiffusionXLPipeline(
                **shared, tokenizer=first, text_encoder_2=texts[1], tokenizer_2=tokenizer("!"), add_watermarker=False
            )
        else:
            pipeline = diffusers.StableDiffusionPipeline(
                **shared, tokenizer=first, safety_checker=None, requires_safety_checker=False
            )
        pipeline.set_progress_bar_config(disable=True)

        def make() -> None:
            made = pipeline(
                PROMPT,
                width=case.side,
                height=case.side,
                num_inference_steps=case.steps,
                num_images_per_prompt=case.batch,
                guidance_scale=GUIDANCE,
                generator=torch.Generator().manual_seed(1),
            )
            written(made.images)

        return make


Peer = Ours | Diffusers | OpenVino | StableDiffusionCpp


def written(images: Sequence[PillowImage.Image]) -> None:
    """To files, as a user wants them."""
    with tempfile.TemporaryDirectory() as folder:
        for number, image in enumerate(images):
            image.save(Path(folder) / f"{number}.png")


def peer_of(kind: str, paths: Paths, checkpoint: str, use_cpu: bool) -> Peer:
    """The peer of a name."""
    if kind in (PeerKind.ours, *OTHER_PICTURES):
        weights = WeightStorage(kind) if kind in ASKED_FOR else WeightStorage.full
        return Ours(paths, checkpoint, use_cpu, kind == PeerKind.fast, weights)
    diffusers = Diffusers(paths, checkpoint, use_cpu, kind == PeerKind.tuned)
    if kind == PeerKind.openvino:
        return OpenVino(diffusers.device, lambda: diffusers.networks()[:2])
    if kind == PeerKind.sdcpp:
        return StableDiffusionCpp(diffusers.device, model_file(paths, checkpoint).path, PROMPT, GUIDANCE, written)
    return diffusers


def serve(connection: Connection, kind: str, paths: Paths, checkpoint: str, use_cpu: bool, threads: int) -> None:
    """A peer's process: answers each message with (True, result) or (False, why not) until "stop" comes."""
    if threads:
        torch.set_num_threads(threads)
    peer: Peer | None = None
    works: dict[Case, Callable[[], object]] = {}
    meter: PeakMeter | None = None
    while (message := _next(connection)) != "stop":
        try:
            with torch.inference_mode():
                if peer is None:
                    import_libraries()
                    peer = peer_of(kind, paths, checkpoint, use_cpu)
                device = peer.device.device
                if message == "facts":
                    answer: object = (peer.name, str(device), peer.device.name, torch.get_num_threads())
                elif message == "ceiling":
                    answer = matmul_ceiling(device, peer.dtype)
                elif message == "picture":
                    answer = peer.picture
                elif message == "peak":
                    answer = meter.peak if meter else 0
                elif message in works:
                    answer = cost(works[message], device)
                else:
                    give_back(device)
                    meter = PeakMeter(device)
                    works = {message: peer.work(message)}
                    answer = cost(works[message], device)
            connection.send((True, answer))
        except Exception as error:  # whatever a peer fails with is a result: that it cannot do the case
            line = traceback.format_exception_only(error)[-1].strip()
            connection.send((False, line[:200]))
    if isinstance(peer, Ours):
        peer.close()


def _next(connection: Connection) -> Any:
    """The next message; "stop" where nobody asks any more."""
    try:
        return connection.recv()
    except EOFError:
        return "stop"


def part_of(case: Case, vae: Any, text: Any, device: torch.device) -> Callable[[], object]:
    """The cases besides UNet and whole run, which are the same for all."""
    first = next(vae.parameters())
    if case.kind is CaseKind.text:
        tokens = torch.full((2, TOKENS), 320, device=device)
        return lambda: text(input_ids=tokens)
    if case.kind is CaseKind.encode:
        pixels = pixels_of(PillowImage.new("RGB", (case.side, case.side), "teal")).to(device, first.dtype)
        return lambda: vae.encode(pixels, return_dict=False)
    shape = (case.batch, vae.config.latent_channels, case.side // 8, case.side // 8)
    latents = torch.zeros(shape, device=device, dtype=first.dtype)
    return lambda: vae.decode(latents, return_dict=False)


def quiet_environment() -> None:
    """For the children: no network, and threads that wait asleep, so that waiting is not counted as work."""
    os.environ.update({"HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"})
