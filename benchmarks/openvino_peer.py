"""OpenVINO as a peer: the same networks, converted on this machine, computed by Intel's library for inference."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.cases import Case, given
from webui.cli.bench import CaseKind
from webui.engine.compute.device import DeviceChoice, dtype_name

_HINTS = {torch.bfloat16: "bf16", torch.float32: "f32"}


class OpenVino:
    """UNet steps and VAE decodes. A conversion is for one shape, as is best for speed, and takes minutes at full size.

    `networks` gives UNet and VAE of diffusers in fp32; the library rounds them itself.
    """

    def __init__(self, device: DeviceChoice, networks: Callable[[], tuple[Any, Any]]) -> None:
        self.device = device
        self.dtype = torch.bfloat16 if device.bf16 else torch.float32
        self.picture = b""  # it draws none
        self._networks = networks

    @property
    def name(self) -> str:
        return f"OpenVINO, {dtype_name(self.dtype)}"

    def work(self, case: Case) -> Callable[[], object]:
        """Raises ImportError where the library is not installed, ValueError for other cases."""
        library: Any = importlib.import_module("openvino")
        if case.kind not in (CaseKind.unet, CaseKind.decode):
            raise ValueError("it is measured in UNet steps and VAE decodes alone")
        with torch.inference_mode(False), torch.no_grad():
            unet, vae = self._networks()
            module, inputs = _step(unet, case) if case.kind is CaseKind.unet else _decode(vae, case)
            shapes = [list(one.shape) for one in inputs]
            model = library.convert_model(module, example_input=inputs, input=shapes)
        hints = {"INFERENCE_PRECISION_HINT": _HINTS[self.dtype], "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        request = library.Core().compile_model(model, "CPU", hints).create_infer_request()
        arrays = [one.numpy() for one in inputs]
        return lambda: request.infer(arrays)


class _Step(torch.nn.Module):
    """A UNet with its arguments in a row, as a conversion wants them."""

    def __init__(self, unet: Any) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, sample: Tensor, t: Tensor, context: Tensor, *added: Tensor) -> Tensor:
        more = {"text_embeds": added[0], "time_ids": added[1]} if added else None
        out: Tensor = self.unet(sample, t, encoder_hidden_states=context, added_cond_kwargs=more, return_dict=False)[0]
        return out


class _Decoder(torch.nn.Module):
    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, latents: Tensor) -> Tensor:
        out: Tensor = self.vae.decode(latents, return_dict=False)[0]
        return out


def _step(unet: Any, case: Case) -> tuple[torch.nn.Module, tuple[Tensor, ...]]:
    x, prompts, pooled, sizes = given(unet, case)
    context = torch.cat([tokens.expand(case.batch, -1, -1) for tokens in prompts])
    inputs = (torch.cat((x, x)), torch.tensor(500.0), context)
    if pooled is None or sizes is None:
        return _Step(unet), inputs
    rows = 2 * case.batch
    return _Step(unet), (*inputs, pooled.repeat(rows, 1), sizes.repeat(rows, 1))


def _decode(vae: Any, case: Case) -> tuple[torch.nn.Module, tuple[Tensor, ...]]:
    cells = case.side // 8
    return _Decoder(vae), (torch.zeros(case.batch, vae.config.latent_channels, cells, cells),)
