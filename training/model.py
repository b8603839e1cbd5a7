"""The networks of the model: their dimensions, how they are built, and how a finished checkpoint is opened again.

`Denoiser` holds the UNet and the text encoder, which are trained together. Its text encoder knows only the tokens that
occur in the captions (`Vocabulary`); all other tokens share row 0, and get it in the exported file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from webui.catalog.sidecar import merged, read_metadata, read_yaml
from webui.engine.checkpoints.loader import Target, fill, plan_text_encoder, plan_unet, plan_vae
from webui.engine.files.dims import text_dims, unet_dims, vae_dims
from webui.engine.files.weights import Weights
from webui.prompt.tokenizer import BOS, EOS, ClipTokenizer

TOKENS = 77
VOCABULARY = 49408
WIDTH = 128  # of the text encoder and of the cross-attention
SCALE_FACTOR = 0.18215  # SD1's: what the UNet sees is the VAE's latent times this
TIMESTEPS = 1000
UNET: dict[str, Any] = {
    "sample_size": 16,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (64, 128, 192),
    "layers_per_block": 1,
    "cross_attention_dim": WIDTH,
    "attention_head_dim": 4,  # diffusers' name for the number of heads
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
}
TEXT: dict[str, Any] = {
    "hidden_size": WIDTH,
    "intermediate_size": 4 * WIDTH,
    "num_hidden_layers": 3,
    "num_attention_heads": WIDTH // 64,
    "max_position_embeddings": TOKENS,
    "projection_dim": WIDTH,
    "hidden_act": "quick_gelu",
}
TOKEN_ROWS = "embeddings.token_embedding.weight"
POSITION_ROWS = "embeddings.position_embedding.weight"


def alphas_cumprod() -> Tensor:
    """SD1's noise table, (1000,): "scaled linear" betas from 0.00085 to 0.012."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, TIMESTEPS, dtype=torch.float64) ** 2
    return (1 - betas).cumprod(0).float()


class PlainAttention:
    """softmax(QK) V in three operations. On a CPU, and for so few tokens, its backward pass takes a tenth of the time
    of torch's fused attention (measured: that took 37 % of a training step).
    """

    def __call__(self, attn: Any, hidden: Tensor, encoder_hidden_states: Tensor | None = None, **_: Any) -> Tensor:
        context = hidden if encoder_hidden_states is None else encoder_hidden_states

        def heads(tensor: Tensor) -> Tensor:
            return torch.unflatten(tensor, -1, (attn.heads, -1)).transpose(1, 2)

        query, key, value = heads(attn.to_q(hidden)), heads(attn.to_k(context)), heads(attn.to_v(context))
        weights = (query * query.shape[-1] ** -0.5 @ key.mT).softmax(-1)
        result: Tensor = attn.to_out[0]((weights @ value).transpose(1, 2).flatten(2))
        return result


class Denoiser(torch.nn.Module):
    """(noisy latents (B, 4, h, w), timesteps (B,), token rows (B, 77)) -> v (B, 4, h, w)."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        # the end token only matters to the pooled output, which nothing here uses
        config = CLIPTextConfig(**TEXT, vocab_size=tokens, bos_token_id=0, eos_token_id=2, pad_token_id=0)
        self.unet = UNet2DConditionModel(**UNET)
        self.unet.set_attn_processor(PlainAttention())
        self.text = CLIPTextModel._from_config(config, attn_implementation="eager")
        torch.nn.init.zeros_(self.unet.conv_out.weight)
        torch.nn.init.normal_(self.text.get_parameter(TOKEN_ROWS), std=0.3)
        torch.nn.init.normal_(self.text.get_parameter(POSITION_ROWS), std=0.1)

    def forward(self, noisy: Tensor, timesteps: Tensor, rows: Tensor) -> Tensor:
        context = self.text(rows).last_hidden_state
        predicted: Tensor = self.unet(noisy, timesteps, context).sample
        return predicted


class Vocabulary:
    """CLIP's tokens that training meets, numbered from 1; 0 stands for every other."""

    def __init__(self, tokens: Sequence[int]) -> None:
        """`tokens`: ascending CLIP token numbers, the begin and end tokens among them."""
        self.tokens = np.asarray(tokens, np.int64)
        self._row = np.zeros(VOCABULARY, np.int64)
        self._row[self.tokens] = np.arange(1, len(self.tokens) + 1)
        self._clip = ClipTokenizer()

    @classmethod
    def of(cls, texts: Sequence[str], also: Sequence[int] = ()) -> Vocabulary:
        """Every token of these texts, and some more."""
        clip = ClipTokenizer()
        return cls(sorted({BOS, EOS, *also, *(token for text in set(texts) for token in clip.encode(text))}))

    def __len__(self) -> int:
        return len(self.tokens) + 1

    @property
    def end(self) -> int:
        """The row of the end token, which also fills up."""
        return int(self._row[EOS])

    def rows(self, texts: Sequence[str]) -> np.ndarray:
        """(N, 77) rows of the token table: begin, the text, end to the end."""
        rows = np.full((len(texts), TOKENS), self.end, np.int64)
        rows[:, 0] = self._row[BOS]
        for i, text in enumerate(texts):
            found = self._row[self._clip.encode(text)][: TOKENS - 2]
            rows[i, 1 : 1 + len(found)] = found
        return rows


@dataclass(frozen=True, slots=True)
class Opened:
    """The networks of a checkpoint file, float32, as the engine's own loader reads them."""

    unet: UNet2DConditionModel
    text: CLIPTextModel
    vae: AutoencoderKL


def open_checkpoint(path: Path) -> Opened:
    """Read a checkpoint and the .yaml beside it. Raises `BadModelFile`."""
    weights = Weights(path)
    yaml = path.with_suffix(".yaml")
    sidecar = merged(read_yaml(yaml.read_bytes()) if yaml.exists() else None, read_metadata(weights.metadata))
    shapes = {name: tensor.shape for name, tensor in weights.tensors.items()}
    target = Target(torch.device("cpu"), torch.float32, channels_last=False)
    return Opened(
        unet=fill(plan_unet(weights, unet_dims(shapes, sidecar)), target),
        text=fill(plan_text_encoder(weights, text_dims(shapes, sidecar)), target),
        vae=fill(plan_vae(weights, vae_dims(shapes, sidecar)), target),
    )


def shared_row(table: Tensor) -> Tensor:
    """The row that most tokens of an exported table have: those that training never met."""
    rows, first = torch.unique(table, dim=0, return_inverse=True)
    row: Tensor = rows[torch.bincount(first).argmax()]
    return row


def known_tokens(opened: Opened) -> list[int]:
    """The tokens that a checkpoint of ours was trained with."""
    table = opened.text.state_dict()[TOKEN_ROWS]
    known: list[int] = (table != shared_row(table)).any(1).nonzero().flatten().tolist()
    return known


@torch.no_grad()
def take_over(model: Denoiser, vocabulary: Vocabulary, opened: Opened) -> int:
    """Start from the weights of a finished checkpoint of the same dimensions; returns how many tokens it knew.

    Tokens that it never met share one row there. They keep the random rows that they have in `model`, so that they
    can become different words.
    """
    model.unet.load_state_dict(opened.unet.state_dict())
    theirs = dict(opened.text.state_dict())
    table = theirs.pop(TOKEN_ROWS)
    model.text.load_state_dict(theirs, strict=False)
    shared = shared_row(table)
    ours = model.text.get_parameter(TOKEN_ROWS)
    ours[0] = shared
    known = (table[torch.from_numpy(vocabulary.tokens)] != shared).any(1)
    ours[1:][known] = table[torch.from_numpy(vocabulary.tokens)][known]
    return int(known.sum())
