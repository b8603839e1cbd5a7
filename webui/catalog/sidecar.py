"""What stands beside a model file, or in its metadata, read into types: dimensions, and the user's notes.

`NAME.yaml` is the configuration format of the CompVis code. There it names classes to import (`target:`); here nothing
is ever imported, and one such line alone is compared, as text, with the one name that says what is predicted. Only the
numbers listed in the dataclasses below are taken, each within its bounds, and nothing is interpolated:
`${oc.env:HOME}` is text, and text is not a number.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from omegaconf import OmegaConf
from pydantic import Field, TypeAdapter, ValidationError

from webui.errors import BadModelFile

MAX_YAML_SIZE = 64 * 1024  # bytes; the largest published ones have 6 KB
MAX_NOTES_SIZE = 256 * 1024
MAX_NOTE_LENGTH = 100_000  # characters

Channels = Annotated[int, Field(ge=1, le=8192)]
Width = Annotated[int, Field(ge=1, le=32_768)]
Count = Annotated[int, Field(ge=1, le=128)]
Beta = Annotated[float, Field(gt=0.0, lt=1.0, allow_inf_nan=False)]
Multiples = Annotated[tuple[Annotated[int, Field(ge=1, le=64)], ...], Field(min_length=1, max_length=8)]
RgbRow = tuple[
    Annotated[float, Field(ge=-100.0, le=100.0, allow_inf_nan=False)],
    Annotated[float, Field(ge=-100.0, le=100.0, allow_inf_nan=False)],
    Annotated[float, Field(ge=-100.0, le=100.0, allow_inf_nan=False)],
]


@dataclass(frozen=True, slots=True)
class UnetDims:
    """The UNet as openaimodel.py names it. None: not said; then the tensors' shapes or the family decide."""

    in_channels: Channels | None = None
    out_channels: Channels | None = None
    model_channels: Channels | None = None
    channel_mult: Multiples | None = None
    num_res_blocks: Annotated[int, Field(ge=1, le=16)] | None = None
    # downsampling factors (1, 2, 4, ...) of the levels that have attention
    attention_resolutions: Annotated[tuple[Annotated[int, Field(ge=1, le=128)], ...], Field(max_length=8)] | None = None
    num_heads: Count | None = None
    num_head_channels: Annotated[int, Field(ge=1, le=512)] | None = None
    transformer_depth: Annotated[int, Field(ge=0, le=32)] | None = None
    context_dim: Width | None = None
    use_linear: bool | None = None  # linear instead of 1x1 convolution around the transformer
    norm_num_groups: Annotated[int, Field(ge=1, le=512)] | None = None


@dataclass(frozen=True, slots=True)
class VaeDims:
    """The autoencoder as LDM's ddconfig names it."""

    in_channels: Channels | None = None
    out_channels: Channels | None = None
    ch: Channels | None = None
    ch_mult: Multiples | None = None
    num_res_blocks: Annotated[int, Field(ge=1, le=16)] | None = None
    z_channels: Channels | None = None
    norm_num_groups: Annotated[int, Field(ge=1, le=512)] | None = None


@dataclass(frozen=True, slots=True)
class TextDims:
    """The CLIP text encoder as transformers' CLIPTextConfig names it."""

    hidden_size: Width | None = None
    intermediate_size: Width | None = None
    num_hidden_layers: Count | None = None
    num_attention_heads: Count | None = None
    max_position_embeddings: Annotated[int, Field(ge=4, le=4096)] | None = None
    vocab_size: Annotated[int, Field(ge=1, le=2**20)] | None = None
    hidden_act: Literal["quick_gelu", "gelu"] | None = None


@dataclass(frozen=True, slots=True)
class Sidecar:
    """What is said about a model outside of its tensors. None: not said."""

    parameterization: Literal["eps", "v"] | None = None
    linear_start: Beta | None = None
    linear_end: Beta | None = None
    timesteps: Annotated[int, Field(ge=1, le=100_000)] | None = None
    scale_factor: Annotated[float, Field(gt=0.0, le=1000.0, allow_inf_nan=False)] | None = None
    image_size: Annotated[int, Field(ge=2, le=2048)] | None = None  # latent cells a side
    native_size: Annotated[int, Field(ge=16, le=16_384)] | None = None  # pixels a side
    unet: UnetDims | None = None
    vae: VaeDims | None = None
    text: TextDims | None = None
    text_2: TextDims | None = None  # of SDXL's second encoder
    # one row (red, green, blue) a latent channel: a quick preview is latents times this, plus the bias
    latent_rgb_factors: Annotated[tuple[RgbRow, ...], Field(min_length=1, max_length=128)] | None = None
    latent_rgb_bias: RgbRow | None = None


@dataclass(frozen=True, slots=True)
class UserNotes:
    """NAME.json, as users of AUTOMATIC1111 keep it beside a model."""

    description: str = ""
    notes: str = ""
    vae: str = ""  # preferred VAE: a file name, "None", "Automatic" or ""
    activation_text: str = ""
    negative_text: str = ""
    preferred_weight: float = 0.0  # 0: none
    sd_version: str = ""


_SIDECAR: TypeAdapter[Sidecar] = TypeAdapter(Sidecar)
_T = TypeVar("_T", Sidecar, UnetDims, VaeDims, TextDims)


def read_yaml(data: bytes) -> Sidecar:
    """The content of a NAME.yaml. Raises `BadModelFile` with one sentence for anything that is not one."""
    if len(data) > MAX_YAML_SIZE:
        raise _bad(f"it is larger than {MAX_YAML_SIZE // 1024} KB")
    try:
        content = OmegaConf.to_container(OmegaConf.create(data.decode("utf-8-sig")), resolve=False)
    except Exception as error:  # a hostile YAML fails in many ways inside the parser; each means the same here
        raise _bad(_first_line(error)) from None
    if not isinstance(content, dict):
        raise _bad("it is not a mapping")
    params = _mapping(_mapping(content, "model"), "params")
    unet = _mapping(_mapping(params, "unet_config"), "params")
    stage = _mapping(_mapping(params, "first_stage_config"), "params")
    vae = _mapping(stage, "ddconfig")
    text = _mapping(_mapping(params, "cond_stage_config"), "params")
    return _validated(
        {
            **_denoiser(params),
            **_taken(params, "parameterization", "linear_start", "linear_end", "timesteps", "scale_factor"),
            **_taken(params, "image_size"),
            "unet": {
                **_taken(unet, "in_channels", "out_channels", "model_channels", "channel_mult", "context_dim"),
                **_taken(unet, "attention_resolutions", "norm_num_groups"),
                # the original code writes -1 for "not said" here
                **{k: v for k, v in _taken(unet, "num_heads", "num_head_channels").items() if v != -1},
                "num_res_blocks": _uniform(unet.get("num_res_blocks")),
                "transformer_depth": _same(unet.get("transformer_depth")),
                "use_linear": unet.get("use_linear_in_transformer"),
            },
            "vae": {
                **_taken(vae, "in_channels", "ch", "ch_mult", "num_res_blocks", "z_channels", "norm_num_groups"),
                "out_channels": vae.get("out_ch"),
            },
            "text": _taken(text, *(f.name for f in dataclasses.fields(TextDims))),
        }
    )


def read_metadata(metadata: Mapping[str, str]) -> Sidecar | None:
    """What a header's metadata says, where it holds diffusers configs as JSON texts; None when it says nothing.

    Raises `BadModelFile` when an entry is there and cannot be meant.
    """
    configs = {key: _json_entry(metadata, key) for key in ("unet_config", "vae_config", "text_config", "text_2_config")}
    factors = _json_entry(metadata, "latent_rgb_factors")
    bias = _json_entry(metadata, "latent_rgb_bias") or _json_entry(metadata, "latent_rgb_factors_bias")
    entries: dict[str, Any] = {
        "parameterization": _prediction_name(
            metadata.get("prediction_type")
            or metadata.get("modelspec.prediction_type")
            or metadata.get("modelspec.predict_key")
        ),
        "native_size": _resolution(metadata.get("native_resolution") or metadata.get("modelspec.resolution")),
        "latent_rgb_factors": factors,
        "latent_rgb_bias": bias,
    }
    entries.update(
        from_configs(
            configs["unet_config"], configs["vae_config"], configs["text_config"], text_2=configs["text_2_config"]
        )
    )
    found = _validated(entries)
    return None if found == Sidecar() else found


def from_configs(unet: Any, vae: Any, text: Any, scheduler: Any = None, text_2: Any = None) -> dict[str, Any]:
    """Entries of a `Sidecar`, not validated yet, from the config.json contents of a diffusers model (None: absent)."""
    entries: dict[str, Any] = {}
    if isinstance(unet, dict):
        entries["unet"] = _unet_entries(unet)
        entries["image_size"] = _uniform(unet.get("sample_size"))
    if isinstance(vae, dict):
        ch, mult = _multiples(vae.get("block_out_channels"))
        entries["vae"] = {
            **_taken(vae, "in_channels", "out_channels", "norm_num_groups"),
            "ch": ch,
            "ch_mult": mult,
            "num_res_blocks": vae.get("layers_per_block"),
            "z_channels": vae.get("latent_channels"),
        }
        entries["scale_factor"] = vae.get("scaling_factor")
    if isinstance(text, dict):
        entries["text"] = _taken(text, *(f.name for f in dataclasses.fields(TextDims)))
    if isinstance(text_2, dict):
        entries["text_2"] = _taken(text_2, *(f.name for f in dataclasses.fields(TextDims)))
    if isinstance(scheduler, dict):
        if scheduler.get("beta_schedule", "scaled_linear") != "scaled_linear" or scheduler.get("trained_betas"):
            raise BadModelFile("Its noise schedule is not the scaled-linear one.")
        entries["parameterization"] = _prediction_name(scheduler.get("prediction_type"))
        entries["linear_start"] = scheduler.get("beta_start")
        entries["linear_end"] = scheduler.get("beta_end")
        entries["timesteps"] = scheduler.get("num_train_timesteps")
    return entries


def validated(entries: Mapping[str, Any]) -> Sidecar:
    """A `Sidecar` from entries that came from outside. Raises `BadModelFile` that names the one out of bounds."""
    return _validated(entries)


def merged(first: Sidecar | None, second: Sidecar | None) -> Sidecar | None:
    """Both together; where both speak, `first` is believed."""
    if first is None or second is None:
        return first or second
    return _merge(first, second)


def read_notes(data: bytes) -> tuple[UserNotes | None, list[str]]:
    """The content of a NAME.json and a sentence for each entry that was set aside. Never raises."""
    if len(data) > MAX_NOTES_SIZE:
        return None, [f"Its notes (.json) are larger than {MAX_NOTES_SIZE // 1024} KB and were set aside."]
    try:
        content = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None, ["Its notes (.json) are not valid JSON and were set aside."]
    if not isinstance(content, dict):
        return None, ["Its notes (.json) are not a JSON object and were set aside."]
    problems: list[str] = []
    fields: dict[str, Any] = {}
    for f in dataclasses.fields(UserNotes):
        key = f.name.replace("_", " ")
        value = content.get(key)
        if value is None:
            continue
        if f.name == "preferred_weight":
            if type(value) in (int, float) and -100 <= value <= 100:
                fields[f.name] = float(value)
                continue
        elif isinstance(value, str) and len(value) <= MAX_NOTE_LENGTH:
            fields[f.name] = value.encode("utf-8", "replace").decode()  # a lone surrogate cannot be shown or stored
            continue
        problems.append(f'"{key}" in its notes (.json) cannot be used and was set aside.')
    return UserNotes(**fields), problems


def _denoiser(params: dict[str, Any]) -> dict[str, Any]:
    """What the configurations of SDXL, which have no `parameterization`, say of velocity: the name of a scaling."""
    denoiser = _mapping(_mapping(params, "denoiser_config"), "params")
    target = _mapping(denoiser, "scaling_config").get("target")
    return {"parameterization": "v"} if isinstance(target, str) and target.rpartition(".")[2] == "VScaling" else {}


def _unet_entries(unet: dict[str, Any]) -> dict[str, Any]:
    """A UNet2DConditionModel config in LDM's terms. `attention_head_dim` there is, by an old slip, the head count."""
    channels, mult = _multiples(unet.get("block_out_channels"))
    entries = {
        **_taken(unet, "in_channels", "out_channels", "norm_num_groups"),
        "model_channels": channels,
        "channel_mult": mult,
        "num_res_blocks": _uniform(unet.get("layers_per_block")),
        "transformer_depth": _same(unet.get("transformer_layers_per_block")),
        "context_dim": unet.get("cross_attention_dim"),
        "use_linear": unet.get("use_linear_projection"),
    }
    heads = unet.get("attention_head_dim")
    if isinstance(heads, list) and channels and mult and len(heads) == len(mult):
        if not all(type(h) is int and h > 0 for h in heads):
            raise BadModelFile("attention_head_dim in its configuration is not a list of numbers.")
        widths = {channels * m // h for m, h in zip(mult, heads, strict=True)}
        entries["num_head_channels"] = widths.pop() if len(widths) == 1 else heads
    elif isinstance(heads, int):
        entries["num_heads"] = heads
    blocks = unet.get("down_block_types")
    if isinstance(blocks, list) and len(blocks) <= 8:
        entries["attention_resolutions"] = [2**i for i, block in enumerate(blocks) if "CrossAttn" in str(block)]
    return entries


def _multiples(channels: Any) -> tuple[Any, Any]:
    """[320, 640, 1280, 1280] is 320 times (1, 2, 4, 4)."""
    if channels is None:
        return None, None
    if not isinstance(channels, list) or not 1 <= len(channels) <= 8 or not all(type(c) is int for c in channels):
        raise BadModelFile("block_out_channels in its configuration is not a list of numbers.")
    base = channels[0]
    if base < 1 or any(c % base for c in channels):
        raise BadModelFile("block_out_channels in its configuration are not multiples of the first.")
    return base, [c // base for c in channels]


def _uniform(value: Any) -> Any:
    """The one number of a list of equal numbers; anything else as it is, for the validation to judge."""
    if isinstance(value, list) and value and all(v == value[0] for v in value):
        return value[0]
    return value


def _same(value: Any) -> Any:
    """As `_uniform`, but a list of different numbers says nothing: what it would say is read off the shapes."""
    value = _uniform(value)
    return None if isinstance(value, list) else value


def _prediction_name(value: Any) -> Any:
    names = {"epsilon": "eps", "eps": "eps", "v_prediction": "v", "v-prediction": "v", "v": "v", "vpred": "v"}
    if value is None or (isinstance(value, str) and value not in names):
        return None  # a spelling that nobody agreed on says nothing
    return names[value] if isinstance(value, str) else value


def _resolution(value: str | None) -> int | None:
    """ "512", "512x512" or "1024x768" (then the side of the square with that area) in pixels, a multiple of 8."""
    if value is None:
        return None
    parts = value.strip().lower().split("x")
    if not 1 <= len(parts) <= 2 or not all(p.strip().isdecimal() and len(p) <= 6 for p in parts):
        return None
    sides = [int(p) for p in parts]
    side = round((sides[0] * sides[-1]) ** 0.5 / 8) * 8
    return side if 16 <= side <= 16_384 else None


def _json_entry(metadata: Mapping[str, str], key: str) -> Any:
    text = metadata.get(key)
    if text is None:
        return None
    try:
        return json.loads(text) if len(text) <= MAX_YAML_SIZE else None
    except (ValueError, RecursionError):
        raise BadModelFile(f'"{key}" in its metadata is not valid JSON.') from None


def _mapping(parent: Any, key: str) -> dict[str, Any]:
    value = parent.get(key) if isinstance(parent, dict) else None
    return value if isinstance(value, dict) else {}


def _taken(source: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: source[key] for key in keys if key in source}


def _validated(entries: Mapping[str, Any]) -> Sidecar:
    """Through JSON, because pydantic's strict mode takes lists and objects from there alone."""
    try:
        found = _SIDECAR.validate_json(json.dumps(dict(entries)), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(p) for p in first["loc"] if not isinstance(p, str) or "[" not in p)
        raise _bad(f"{where}: {first['msg'][:1].lower()}{first['msg'][1:]}") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise _bad(_first_line(error)) from None
    empty = {"unet": UnetDims(), "vae": VaeDims(), "text": TextDims(), "text_2": TextDims()}
    said = {name: None for name, nothing in empty.items() if getattr(found, name) == nothing}
    return dataclasses.replace(found, **said) if said else found


def _merge(first: _T, second: _T) -> _T:
    changes: dict[str, Any] = {}
    for f in dataclasses.fields(first):
        mine, other = getattr(first, f.name), getattr(second, f.name)
        if mine is None:
            changes[f.name] = other
        elif dataclasses.is_dataclass(mine) and other is not None:
            changes[f.name] = _merge(mine, other)
    return dataclasses.replace(first, **changes)


def _bad(why: str) -> BadModelFile:
    return BadModelFile(f"Its configuration cannot be used: {why}.")


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    line = text.splitlines()[0][:160].rstrip(".") if text else type(error).__name__
    return "".join(ch if ch.isprintable() else " " for ch in line)
