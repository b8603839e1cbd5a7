"""The form of the making tabs as data: every field of `GenerationParams` that a user sets, with its words and bounds.

Widgets, defaults, tooltips, the reading of values and the page's own memory of them all follow from this table.
"""

from __future__ import annotations

from webui.names import SAMPLER_NAMES, SCHEDULE_NAMES
from webui.ui.field import Field, Group, choice, flag, model, number, slider
from webui.ui.picture_fields import (
    FACES,
    HIRES,
    IMG2IMG,
    INPAINT,
    MODE_FIELD,
    OUTPAINT,
    PICTURE_FIELDS,
    SD_UPSCALE,
    SOFT,
    TILING,
)

MODEL_FIELDS = (
    Field("checkpoint", "Checkpoint", "model", "The network that draws."),
    Field("vae", "VAE", "model", "Turns latents into pixels. Automatic takes the one that belongs to the checkpoint."),
)

PROMPT_FIELDS = (
    Field("prompt", "Prompt", "text", "What the picture shows."),
    Field("negative_prompt", "Negative prompt", "text", "What the picture should not show."),
)

# No parameter of its own: the chosen styles, a name a line, are merged into the prompts when a job is submitted.
EXTENSIONS_FIELD = Field("extensions", "Extensions", "panels", "Values of the extensions' panels that are on.")
STYLES_FIELD = Field("styles", "Styles", "styles", "Pieces of prompt with a name, added to what you type.")

SAMPLING = Group(
    "sampling",
    "Sampling",
    (
        choice("sampler", "Sampling method", SAMPLER_NAMES, "How noise becomes a picture. Usual: DPM++ 2M, Euler a."),
        choice(
            "schedule",
            "Schedule type",
            SCHEDULE_NAMES,
            "How the noise levels are spread over the steps. Automatic takes the sampler's own.",
        ),
        slider("steps", "Sampling steps", (1, 150, 1), "More steps are slower and finer. Usual: 20 to 30."),
        slider(
            "cfg_scale",
            "CFG scale",
            (0, 30, 0.5),
            "How closely the picture follows the prompt (classifier-free guidance, Ho and Salimans). Usual: 4 to 8.",
        ),
    ),
)

_SIZE_TIP = "Pixels, in steps of 8. Best near the checkpoint's native size."
SIZE = Group(
    "size",
    "Size",
    (slider("width", "Width", (64, 2048, 8), _SIZE_TIP), slider("height", "Height", (64, 2048, 8), _SIZE_TIP)),
)

BATCH = Group(
    "batch",
    "Batch",
    (
        slider("batch_count", "Batch count", (1, 100, 1), "How many batches, one after the other."),
        slider("batch_size", "Batch size", (1, 16, 1), "Pictures drawn together: faster, needs more memory."),
    ),
)

SEED = Group(
    "seed",
    "Seed",
    (
        Field("seed", "Seed", "seed", "The number the noise starts from; -1 draws one. Same seed, same picture."),
        slider(
            "clip_skip",
            "CLIP skip",
            (1, 12, 1),
            "Read the prompt from an earlier layer of the text encoder. 1 is its last; some models are made for 2.",
        ),
    ),
)

VARIATION = Group(
    "variation",
    "Variation",
    (
        Field("variation_seed", "Variation seed", "seed", "The noise that is mixed in; -1 draws one."),
        slider(
            "variation_strength",
            "Variation strength",
            (0, 1, 0.01),
            "How much: 0 none, 1 all. Usual: 0.05 to 0.3.",
        ),
        number(
            "seed_resize_width",
            "Resize seed from width",
            (0, 16384, 8),
            "Keep the composition that the seed has at another size. 0 is off.",
        ),
        number("seed_resize_height", "Resize seed from height", (0, 16384, 8), "See the width beside. 0 is off."),
    ),
    open=False,
)

MORE_SAMPLING = Group(
    "more",
    "More sampling",
    (
        number("eta", "Eta", (0, 10, 0.05), "Fresh noise in each step. Empty: the sampler's own.", optional=True),
        number("s_noise", "Sigma noise", (0, 10, 0.001), "Strength of the noise that samplers add (EDM). Usual: 1."),
        number("s_churn", "Sigma churn", (0, 1000, 0.01), "Extra noise for Euler, Heun and DPM2 (EDM). 0 is off."),
        number("s_tmin", "Sigma tmin", (0, 1e6, 0.01), "Churn works above this noise level (EDM)."),
        number("s_tmax", "Sigma tmax", (0, 1e6, 0.01), "Churn works below this noise level (EDM). 0: no bound."),
        number("sigma_min", "Sigma min", (0, 1e6, 0.001), "The lowest noise level of the schedule. 0: the model's."),
        number("sigma_max", "Sigma max", (0, 1e6, 0.001), "The highest noise level of the schedule. 0: the model's."),
        number("rho", "Rho", (0, 100, 0.1), "Bend of the Karras and polyexponential schedules. 0: their own."),
        number("beta_alpha", "Beta alpha", (0.001, 100, 0.05), "First shape of the Beta schedule. Usual: 0.6."),
        number("beta_beta", "Beta beta", (0.001, 100, 0.05), "Second shape of the Beta schedule. Usual: 0.6."),
        Field(
            "sigmas",
            "Own sigmas",
            "sigmas",
            "Noise levels of your own, falling, separated by commas. Empty: the schedule.",
        ),
        choice(
            "rng",
            "Noise source",
            ("CPU", "GPU", "NV"),
            "CPU gives the same picture on every machine; NV equals an NVIDIA GPU's noise.",
        ),
        number(
            "ensd",
            "Eta noise seed delta",
            (-(2**31), 2**31 - 1, 1),
            "Added to the seed of the noise in each step. Usual: 0.",
        ),
        number(
            "cfg_rescale",
            "CFG rescale",
            (0, 1, 0.01),
            "Tones down colours that a high CFG scale burns (Lin et al. 2023). Usual: 0, or 0.7 for v-prediction.",
        ),
        number(
            "skip_early_cfg",
            "Skip early CFG",
            (0, 1, 0.01),
            "Share of the first steps that run without guidance: faster, freer. Usual: 0.",
        ),
        number(
            "guidance_end",
            "Guidance end",
            (0, 1, 0.01),
            "Share of the steps after which guidance ends: each of the rest takes half as long. Usual: 1, or 0.7.",
        ),
        number(
            "feature_reuse",
            "Feature reuse",
            (1, 10, 1),
            "Keep what the UNet's deep levels say for so many calls (DeepCache): 2 to 3 is much faster, and the picture"
            " differs a little. 1 is exact.",
        ),
        number(
            "negative_guidance_min_sigma",
            "Negative guidance min sigma",
            (0, 1e6, 0.01),
            "Below this noise level, leave the negative prompt out in every other step: faster. 0 is off.",
        ),
        number(
            "dynamic_thresholding_percentile",
            "Dynamic thresholding",
            (0, 1, 0.001),
            "The percentile that clamps what a high CFG scale overdrives (Imagen). 0 is off; usual: 0.995.",
        ),
        number(
            "dynamic_thresholding_mimic_scale",
            "Mimic CFG scale",
            (0, 100, 0.5),
            "The CFG scale whose range thresholding keeps. Usual: 7.",
        ),
        choice(
            "emphasis",
            "Emphasis mode",
            ("Original", "No norm", "Ignore", "None"),
            "How (word:1.2) is weighed. Original keeps the mean of the whole prompt.",
        ),
        number(
            "comma_backtrack",
            "Comma backtrack",
            (0, 74, 1),
            "A chunk of 75 tokens may end up to so many tokens early, at a comma.",
        ),
        Field(
            "read_as_words",
            "Read as words",
            "text",
            "Names of embeddings that mean their plain words in this picture, separated by commas.",
        ),
        flag("negative_guidance_all_steps", "Min sigma in all steps", "Not in every other step alone."),
        flag(
            "pad_conds",
            "Pad prompts alike",
            "Prompt and negative prompt of different lengths run in one batch: faster.",
        ),
        flag("discard_penultimate_sigma", "Discard next-to-last sigma", "For every sampler, not only those made so."),
        flag("sgm_noise_multiplier", "SGM noise multiplier", "Start from the noise strength SDXL was trained with."),
        flag("quantize_timesteps", "Round to trained timesteps", "Ask the model only at trained noise levels."),
        flag("zero_terminal_snr", "Zero terminal SNR", "Start from pure noise, as models trained so want it."),
        flag(
            "old_prompt_timelines",
            "Old prompt timelines",
            "Read [from:to:when] as versions of AUTOMATIC1111 before 1.6 did.",
        ),
        flag("wildcards", "Wildcards", "Choose for __name__ and {a|b} by the seed. Off: they are read as words."),
        flag("prompt_compatibility", "AUTOMATIC1111 prompts", "Read prompts as AUTOMATIC1111 does, faults included."),
    ),
    open=False,
)

REFINER = Group(
    "refiner",
    "Refiner",
    (
        model(
            "refiner",
            "Refiner checkpoint",
            "refiners",
            "Another checkpoint with the same kind of latents, which draws the last part of the picture.",
        ),
        slider(
            "refiner_switch_at",
            "Switch at",
            (0, 1, 0.01),
            "After which share of the way the refiner takes over (Podell et al. 2023). Usual: 0.8.",
        ),
        flag(
            "refiner_switch_by_steps",
            "Count the share in steps",
            "As AUTOMATIC1111 before 1.8; otherwise it is counted in noise levels, whatever the schedule.",
        ),
    ),
    open=False,
)

_ORIGINAL_TIP = "Told to SDXL as the {} of the file that a training picture came from. 0: the picture's own."
_TARGET_TIP = "Told to SDXL as the {} it draws. 0: the real one."
SDXL = Group(
    "sdxl",
    "SDXL",
    (
        number("original_width", "Original width", (0, 16384, 1), _ORIGINAL_TIP.format("width")),
        number("original_height", "Original height", (0, 16384, 1), _ORIGINAL_TIP.format("height")),
        number("crop_left", "Crop left", (0, 16384, 1), "Pixels that a training picture lost at the left. Usual: 0."),
        number("crop_top", "Crop top", (0, 16384, 1), "Pixels that a training picture lost at the top. Usual: 0."),
        number("target_width", "Target width", (0, 16384, 1), _TARGET_TIP.format("width")),
        number("target_height", "Target height", (0, 16384, 1), _TARGET_TIP.format("height")),
        number("aesthetic_score", "Aesthetic score", (0, 10, 0.1), "Told to the refiner with the prompt. Usual: 6."),
        number(
            "negative_aesthetic_score",
            "Negative aesthetic score",
            (0, 10, 0.1),
            "Told to the refiner with the negative prompt. Usual: 2.5.",
        ),
    ),
    open=False,
)

# In the order in which they stand on the page.
GROUPS = (
    IMG2IMG, INPAINT, OUTPAINT, SOFT, SAMPLING, SIZE, HIRES, BATCH, SEED, SD_UPSCALE, FACES, VARIATION, TILING,
    MORE_SAMPLING, REFINER, SDXL,
)  # fmt: skip
CARRIED = (
    *MODEL_FIELDS,
    STYLES_FIELD,
    EXTENSIONS_FIELD,
    MODE_FIELD,
    *PICTURE_FIELDS,
)  # never seen: the page fills them in
FIELDS: tuple[Field, ...] = (*CARRIED, *PROMPT_FIELDS, *(f for group in GROUPS for f in group.fields))
KEYS: tuple[str, ...] = tuple(f.name for f in FIELDS)
BY_NAME: dict[str, Field] = {f.name: f for f in FIELDS}
