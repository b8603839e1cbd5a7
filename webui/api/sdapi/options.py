"""The options of AUTOMATIC1111 that clients read, set and override, in the terms of this product.

Some are settings here (`setting`): setting them changes `webui.settings`. Some decide a picture (`field`): here that is
a part of the request, so as an option they are the default of requests that come through /sdapi/v1, and nothing else
ever reads them. The rest has no counterpart: it is kept and told again, for clients that look.

`effective` joins what is kept with one request's `override_settings`: a plain dictionary that ends with the request.
"""

from __future__ import annotations

import json
import logging
import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from webui import settings as all_settings
from webui.errors import Forbidden, InvalidParams, SettingsError
from webui.names import AUTOMATIC
from webui.params import make_params
from webui.paths import write_atomic

if TYPE_CHECKING:
    from webui.catalog import Catalog
    from webui.jobs.service import JobService
    from webui.settings import Settings, SettingsStore

_log = logging.getLogger(__name__)

MAX_FILE = 256 * 2**10  # bytes
MAX_TEXT = 4096  # characters of a value
_FORMATS = {"png": "png", "jpg": "jpeg", "jpeg": "jpeg", "webp": "webp", "avif": "avif"}


@dataclass(frozen=True, slots=True)
class Option:
    """One option. `default` says its type; `choices` are the values it may have, () for any.

    `setting` is its dotted name in `webui.settings`, `field` its name in `GenerationParams`.
    """

    key: str
    default: Any
    field: str = ""
    setting: str = ""
    choices: tuple[str, ...] = ()


CHECKPOINT, VAE, FORMAT = "sd_model_checkpoint", "sd_vae", "samples_format"

_LIST = (
    Option(CHECKPOINT, "", field="checkpoint", setting="model.checkpoint"),
    Option(VAE, AUTOMATIC, field="vae", setting="model.vae"),
    Option("sd_vae_overrides_per_model_preferences", True, setting="model.vae_overrides_preferences"),
    Option("sd_checkpoints_limit", 1, setting="model.checkpoints_in_memory"),
    Option(FORMAT, "png", field="image_format", setting="saving.format", choices=tuple(_FORMATS)),
    Option("jpeg_quality", 90, field="image_quality", setting="saving.quality"),
    Option("live_previews_enable", True, setting="preview.enabled"),
    # What decides a picture
    Option("CLIP_stop_at_last_layers", 1, "clip_skip"),
    Option("eta_noise_seed_delta", 0, "ensd"),
    Option("randn_source", "CPU", "rng", choices=("GPU", "CPU", "NV")),
    Option("emphasis", "Original", "emphasis", choices=("None", "Ignore", "Original", "No norm")),
    Option("comma_padding_backtrack", 20, "comma_backtrack"),
    Option("pad_cond_uncond", False, "pad_conds"),
    Option("use_old_scheduling", False, "old_prompt_timelines"),
    Option("eta_ancestral", 1.0),
    Option("eta_ddim", 0.0),
    Option("s_churn", 0.0, "s_churn"),
    Option("s_tmin", 0.0, "s_tmin"),
    Option("s_tmax", 0.0, "s_tmax"),
    Option("s_noise", 1.0, "s_noise"),
    Option("sigma_min", 0.0, "sigma_min"),
    Option("sigma_max", 0.0, "sigma_max"),
    Option("rho", 0.0, "rho"),
    Option("beta_dist_alpha", 0.6, "beta_alpha"),
    Option("beta_dist_beta", 0.6, "beta_beta"),
    Option("s_min_uncond", 0.0, "negative_guidance_min_sigma"),
    Option("s_min_uncond_all", False, "negative_guidance_all_steps"),
    Option("skip_early_cond", 0.0, "skip_early_cfg"),
    Option("always_discard_next_to_last_sigma", False, "discard_penultimate_sigma"),
    Option("sgm_noise_multiplier", False, "sgm_noise_multiplier"),
    Option("enable_quantization", False, "quantize_timesteps"),
    Option("sd_noise_schedule", "Default", choices=("Default", "Zero Terminal SNR")),
    Option("tiling", False),
    # img2img and inpainting
    Option("img2img_fix_steps", False),
    Option("img2img_color_correction", False),
    Option("img2img_extra_noise", 0.0),
    Option("img2img_background_color", "#ffffff"),
    Option("initial_noise_multiplier", 1.0),
    Option("inpainting_mask_weight", 1.0),
    Option("upscaler_for_img2img", "None"),
    # Without a counterpart
    Option("sd_checkpoint_cache", 0),
    Option("samples_save", True),
    Option("save_images_add_number", True),
    Option("grid_save", True),
    Option("grid_format", "png"),
    Option("return_grid", False),
    Option("return_mask", False),
    Option("return_mask_composite", False),
    Option("do_not_show_images", False),
    Option("enable_pnginfo", True),
    Option("save_txt", False),
    Option("send_seed", True),
    Option("send_size", True),
    Option("show_progressbar", True),
    Option("show_progress_every_n_steps", 10),
    Option("show_progress_grid", True),
    Option("show_progress_type", "Approx cheap"),
    Option("live_preview_refresh_period", 1000),
    Option("live_preview_content", "Prompt"),
    Option("face_restoration", False),
    Option("face_restoration_model", "CodeFormer"),
    Option("face_restoration_unload", False),
    Option("code_former_weight", 0.5),
    Option("ESRGAN_tile", 192),
    Option("ESRGAN_tile_overlap", 8),
    Option("token_merging_ratio", 0.0),
    Option("token_merging_ratio_img2img", 0.0),
    Option("token_merging_ratio_hr", 0.0),
    Option("multiple_tqdm", True),
    Option("add_model_hash_to_info", True),
    Option("add_model_name_to_info", True),
    Option("add_version_to_infotext", True),
    Option("interrogate_clip_num_beams", 1),
    Option("no_dpmpp_sde_batch_determinism", False),
    Option("upcast_attn", False),
    Option("quicksettings_list", [CHECKPOINT]),
    Option("disabled_extensions", []),
)
OPTIONS: dict[str, Option] = {option.key: option for option in _LIST}

# Told as constants: where files go, which commands run and what is fetched is never set over the network.
LOCKED: dict[str, Any] = {
    "outdir_samples": "",
    "outdir_txt2img_samples": "outputs/txt2img-images",
    "outdir_img2img_samples": "outputs/img2img-images",
    "outdir_extras_samples": "outputs/extras-images",
    "outdir_grids": "",
    "outdir_txt2img_grids": "outputs/txt2img-grids",
    "outdir_img2img_grids": "outputs/img2img-grids",
    "outdir_save": "log/images",
    "outdir_init_images": "outputs/init-images",
    "samples_filename_pattern": "",
    "directories_filename_pattern": "[date]",
    "save_to_dirs": True,
    "temp_dir": "",
    "api_enable_requests": False,
    "api_forbid_local_requests": True,
    "api_useragent": "",
}

# Defaults of requests alone, under the field's own name; the others need more than a new name (`translate`).
FIELDS: dict[str, str] = {
    option.key: option.field
    for option in _LIST
    if option.field and option.key not in (CHECKPOINT, VAE, FORMAT, "randn_source")
}
# Those that decide a picture in another place than under a field's own name (`translate`): the part, and its field.
_PARTS: dict[str, tuple[str, str]] = {
    "eta_ancestral": ("", "eta"),
    "eta_ddim": ("", "eta"),
    "img2img_extra_noise": ("init", "extra_noise"),
    "img2img_background_color": ("init", "background"),
    "initial_noise_multiplier": ("init", "noise_multiplier"),
    "inpainting_mask_weight": ("inpaint", "conditioning_mask_strength"),
    "code_former_weight": ("faces", "codeformer_weight"),
}
_ANY_PICTURE = "0" * 64


class OptionBook:
    """The options in force, and the file that keeps those that are no settings."""

    def __init__(self, path: Path, store: SettingsStore, catalog: Catalog, jobs: JobService) -> None:
        self._path = path
        self._store = store
        self._catalog = catalog
        self._jobs = jobs
        self._lock = threading.Lock()
        self._kept: dict[str, Any] | None = None

    def told(self) -> dict[str, Any]:
        """Every option as GET /options tells it."""
        settings = self._store.current
        values = {option.key: option.default for option in _LIST} | LOCKED | self._read()
        values.update((o.key, all_settings.get(settings, o.setting)) for o in _LIST if o.setting)
        default = self._catalog.default_checkpoint(settings.model.checkpoint, allow_pickle=settings.model.allow_pickle)
        values[CHECKPOINT] = default.title if default else ""
        values["sd_checkpoint_hash"] = (default.sha256 or "") if default else ""
        return values

    def effective(self, overrides: Mapping[str, Any]) -> dict[str, Any]:
        """The options of one request: what is kept, and its own over that. Only those that are known.

        Raises `InvalidParams` for a value that cannot be, or one that would decide where files go.
        """
        values = {option.key: option.default for option in _LIST if option.field or not option.setting}
        settings = self._store.current
        values.update({FORMAT: settings.saving.format.value, "jpeg_quality": settings.saving.quality})
        values.update(self._read())
        values[CHECKPOINT] = values[VAE] = None  # as selected
        for key, value in overrides.items():
            if key in LOCKED:
                raise InvalidParams(f"override_settings: {key} cannot be set by a request.", "Leave it out.")
            if key in OPTIONS and value is not None:
                values[key] = _checked(OPTIONS[key], value, "override_settings")
        return values

    def change(self, values: Mapping[str, Any]) -> None:
        """Set options for good; unknown ones are ignored. Nothing is changed when one of them cannot be.

        Raises `Forbidden` for one that decides where files go, `InvalidParams` and `ModelNotFound` for a value that
        cannot be, `SettingsError` when the disk refuses.
        """
        locked = [key for key in values if key in LOCKED and values[key] != LOCKED[key]]
        if locked:
            raise Forbidden(f"{locked[0]} cannot be set over the network.", "Set it on the machine itself.")
        known = {
            key: _checked(OPTIONS[key], value) for key, value in values.items() if key in OPTIONS and value is not None
        }
        settings = {OPTIONS[key].setting: value for key, value in known.items() if OPTIONS[key].setting}
        if "saving.format" in settings:
            settings["saving.format"] = _FORMATS[settings["saving.format"]]
        if "model.checkpoint" in settings:
            settings["model.checkpoint"] = self._catalog.find_checkpoint(settings["model.checkpoint"]).name
        if settings.get("model.vae", AUTOMATIC) not in (AUTOMATIC, "None"):
            settings["model.vae"] = self._catalog.find_vae(settings["model.vae"]).name
        all_settings.changed(self._store.current, settings)  # raises before anything is changed
        kept = {key: value for key, value in known.items() if not OPTIONS[key].setting}
        _require_possible({**self._read(), **kept})
        self._keep(kept)
        if settings:
            now = self._store.change(settings)
            self._jobs.apply_settings(now)
            if "model.checkpoint" in settings or "model.vae" in settings:
                self._select(now)

    def _select(self, settings: Settings) -> None:
        chosen = self._catalog.default_checkpoint(settings.model.checkpoint, allow_pickle=settings.model.allow_pickle)
        if chosen is not None:
            self._jobs.set_selected(chosen.name, settings.model.vae)

    def _keep(self, values: dict[str, Any]) -> None:
        if not values:
            return
        with self._lock:
            kept = {**self._read(), **values}
            kept = {key: value for key, value in kept.items() if value != OPTIONS[key].default}
            try:
                write_atomic(self._path, json.dumps(kept, indent=1, sort_keys=True).encode())
            except OSError as error:
                raise SettingsError(
                    f"The options could not be saved: {error.strerror or error}.", "Make room or give write access."
                ) from error
            self._kept = kept

    def _read(self) -> dict[str, Any]:
        """What is kept. A file that cannot be read is as good as none; a value that cannot be has its default."""
        if self._kept is None:
            found: dict[str, Any] = {}
            for key, value in _load(self._path).items():
                option = OPTIONS.get(key)
                if option is not None and not option.setting:
                    try:
                        _require_possible({**found, key: _checked(option, value)})
                    except InvalidParams as error:
                        _log.warning("the option %s of %s is left out: %s", key, self._path, error)
                    else:
                        found[key] = _checked(option, value)
            self._kept = found
        return self._kept


def _load(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_FILE:
            return {}
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _require_possible(values: Mapping[str, Any]) -> None:
    """See that requests can be made with these options. Raises `InvalidParams`: kept, they would break each one."""
    params: dict[str, Any] = {}
    for key, value in values.items():
        part, field = _PARTS.get(key, ("", FIELDS.get(key, "")))
        if not field:
            continue
        place = params.setdefault(part, {}) if part else params
        place[field] = value.lower() if field == "background" else value
        try:
            make_params(_with_pictures(params))
        except InvalidParams as error:
            raise InvalidParams(f"{key} cannot be {value!r:.60}: {error.message}", error.advice) from error


def _with_pictures(params: dict[str, Any]) -> dict[str, Any]:
    """The same with what its parts need, so that they can be made."""
    made = {**params}
    if "init" in made or "inpaint" in made:
        made["init"] = {"image": _ANY_PICTURE, **made.get("init", {})}
    if "inpaint" in made:
        made["inpaint"] = {"mask": _ANY_PICTURE, **made["inpaint"]}
    return made


def _checked(option: Option, value: Any, where: str = "") -> Any:
    """The value in the option's own type. Raises `InvalidParams`."""
    wrong = InvalidParams(
        f"{f'{where}: ' if where else ''}{option.key} cannot be {value!r:.60}.",
        f"Choices: {', '.join(option.choices)}." if option.choices else f"Its default is {option.default!r:.60}.",
    )
    kind = type(option.default)
    if kind is bool and value in (0, 1) and not isinstance(value, str):
        return bool(value)
    if kind in (int, float) and isinstance(value, str):
        value = _number(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < 2**53 else None
    if type(value) is not kind or (isinstance(value, float) and not math.isfinite(value)):
        raise wrong
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 2**63:
        raise wrong
    if isinstance(value, list) and not (len(value) <= 100 and all(isinstance(one, str) for one in value)):
        raise wrong
    texts = value if isinstance(value, list) else [value] if isinstance(value, str) else []
    if any(len(text) > MAX_TEXT or not text.isprintable() for text in texts):
        raise wrong
    if option.choices and value not in option.choices:
        folded = {choice.casefold(): choice for choice in option.choices}
        value = folded.get(str(value).casefold())
        if value is None:
            raise wrong
    return value


def _number(text: str) -> Any:
    try:
        return float(text) if len(text) <= 64 else None
    except ValueError:
        return None
