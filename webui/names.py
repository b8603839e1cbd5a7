"""The names users know: samplers and schedules with their aliases and flags. Pure data, no torch.

The mathematics behind each name is in `webui.sampling`; the page, the API and the parameters text need the names
alone. Source of names, aliases, default schedules and flags: AUTOMATIC1111 1.9 and later.
"""

from __future__ import annotations

from dataclasses import dataclass

from webui.errors import InvalidParams, near_matches

AUTOMATIC = "Automatic"


@dataclass(frozen=True, slots=True)
class SamplerName:
    """What the outside has to know about a sampler.

    `second_order`: the denoiser is called twice a step, so prompt schedules count `2 * steps` calls.
    `ancestral`: draws noise at each step from the picture's own generator (ENSD applies to it).
    `brownian`: its noise comes from a Brownian tree.
    `discard_penultimate`: one more sigma is made and the second last is dropped.
    `own_schedule`: the schedule is part of the method; `schedule` of a request has no effect.
    `timestep_space`: the method is defined on timesteps (DDIM family); its default schedule is its own.
    """

    name: str
    aliases: tuple[str, ...] = ()
    default_schedule: str = "Uniform"
    second_order: bool = False
    ancestral: bool = False
    brownian: bool = False
    discard_penultimate: bool = False
    own_schedule: bool = False
    timestep_space: bool = False
    flow: bool = False

    @property
    def stochastic(self) -> bool:
        """Whether it adds noise with its default options."""
        return self.ancestral or self.brownian


@dataclass(frozen=True, slots=True)
class ScheduleName:
    """A sigma schedule; `default_rho` is 0 where it has none."""

    name: str
    alias: str
    more_aliases: tuple[str, ...] = ()
    default_rho: float = 0.0

    @property
    def aliases(self) -> tuple[str, ...]:
        return (self.alias, *self.more_aliases)


_SAMPLER_LIST = (
    SamplerName("DPM++ 2M", ("k_dpmpp_2m",), "Karras"),
    SamplerName("DPM++ SDE", ("k_dpmpp_sde",), "Karras", second_order=True, brownian=True),
    SamplerName("DPM++ 2M SDE", ("k_dpmpp_2m_sde",), "Exponential", brownian=True),
    SamplerName("DPM++ 2M SDE Heun", ("k_dpmpp_2m_sde_heun",), "Exponential", brownian=True),
    SamplerName("DPM++ 2S a", ("k_dpmpp_2s_a",), "Karras", second_order=True, ancestral=True),
    SamplerName("DPM++ 3M SDE", ("k_dpmpp_3m_sde",), "Exponential", brownian=True, discard_penultimate=True),
    SamplerName("Euler a", ("k_euler_a", "k_euler_ancestral"), ancestral=True),
    SamplerName("Euler", ("k_euler",)),
    SamplerName("LMS", ("k_lms",)),
    SamplerName("Heun", ("k_heun",), second_order=True),
    SamplerName("DPM2", ("k_dpm_2",), "Karras", second_order=True, discard_penultimate=True),
    SamplerName("DPM2 a", ("k_dpm_2_a",), "Karras", second_order=True, ancestral=True, discard_penultimate=True),
    SamplerName("DPM fast", ("k_dpm_fast",), ancestral=True, own_schedule=True),
    SamplerName("DPM adaptive", ("k_dpm_ad",), ancestral=True, own_schedule=True),
    SamplerName("Restart", ("restart",), "Karras", second_order=True),
    SamplerName("HeunPP2", ("heunpp2",)),
    SamplerName("IPNDM", ("ipndm",)),
    SamplerName("IPNDM_V", ("ipndm_v",)),
    SamplerName("DEIS", ("deis",), "SGM Uniform"),
    SamplerName("DDIM", ("ddim",), "DDIM", timestep_space=True),
    SamplerName("DDIM CFG++", ("ddim_cfgpp",), "DDIM", timestep_space=True),
    SamplerName("Euler CFG++", ("euler_cfgpp", "k_euler_cfgpp")),
    SamplerName("PLMS", ("plms",), "DDIM", timestep_space=True),
    SamplerName("UniPC", ("unipc",), "DDIM", timestep_space=True),
    SamplerName("LCM", ("lcm", "k_lcm"), ancestral=True),
    SamplerName("TCD", ("tcd",), "SGM Uniform", ancestral=True),
    SamplerName("DDPM", ("ddpm",), ancestral=True),
    SamplerName("Euler (flow)", ("flow_euler", "flowmatch_euler"), "Simple", flow=True),
    SamplerName("DPM++ 2M (flow)", ("flow_dpmpp_2m",), "Simple", flow=True),
)

_SCHEDULE_LIST = (
    ScheduleName(AUTOMATIC, "automatic"),
    ScheduleName("Uniform", "uniform"),
    ScheduleName("Karras", "karras", default_rho=7.0),
    ScheduleName("Exponential", "exponential"),
    ScheduleName("Polyexponential", "polyexponential", default_rho=1.0),
    ScheduleName("SGM Uniform", "sgm_uniform", ("SGMUniform",)),
    ScheduleName("KL Optimal", "kl_optimal"),
    ScheduleName("Align Your Steps", "align_your_steps"),
    ScheduleName("Simple", "simple"),
    ScheduleName("Normal", "normal"),
    ScheduleName("DDIM", "ddim"),
    ScheduleName("Beta", "beta"),
    ScheduleName("Turbo", "turbo"),
)

SAMPLER_NAMES: dict[str, SamplerName] = {s.name: s for s in _SAMPLER_LIST}
SCHEDULE_NAMES: dict[str, ScheduleName] = {s.name: s for s in _SCHEDULE_LIST}

_SAMPLER_LOOKUP = {alias.casefold(): s for s in _SAMPLER_LIST for alias in (s.name, *s.aliases)}
_SCHEDULE_LOOKUP = {alias.casefold(): s for s in _SCHEDULE_LIST for alias in (s.name, *s.aliases)}


@dataclass(frozen=True, slots=True)
class LatentUpscaler:
    """A way to enlarge latents; `interpolation` is torch's name for it."""

    interpolation: str
    antialias: bool = False


LATENT_UPSCALERS: dict[str, LatentUpscaler] = {
    "Latent": LatentUpscaler("bilinear"),
    "Latent (antialiased)": LatentUpscaler("bilinear", antialias=True),
    "Latent (bicubic)": LatentUpscaler("bicubic"),
    "Latent (bicubic antialiased)": LatentUpscaler("bicubic", antialias=True),
    "Latent (nearest)": LatentUpscaler("nearest"),
    "Latent (nearest-exact)": LatentUpscaler("nearest-exact"),
}
NO_MODEL = "None"
NO_UPSCALER = "None"
PIXEL_UPSCALERS = [NO_UPSCALER, "Lanczos", "Nearest"]
"""Upscalers that need no model file; "None" enlarges as Lanczos does, where a size is asked for."""


def find_schedule(name: str) -> ScheduleName:
    """The schedule of that name, label or alias, in any case. Raises `InvalidParams` with near matches."""
    found = _SCHEDULE_LOOKUP.get(name.strip().casefold())
    if found is None:
        raise InvalidParams(
            f'There is no schedule type "{name[:80]}".',
            near_matches(name, SCHEDULE_NAMES) or f"Known: {', '.join(SCHEDULE_NAMES)}.",
        )
    return found


def find_sampler(name: str) -> tuple[SamplerName, ScheduleName | None]:
    """The sampler of that name or alias, in any case, and the schedule that an old combined name carries.

    `find_sampler("DPM++ 2M Karras")` is DPM++ 2M and Karras; a plain name has no schedule (None).
    Raises `InvalidParams` with near matches.
    """
    folded = name.strip().casefold()
    if folded in _SAMPLER_LOOKUP:
        return _SAMPLER_LOOKUP[folded], None
    for label, schedule in sorted(_SCHEDULE_LOOKUP.items(), key=lambda kv: -len(kv[0])):
        head, separator, tail = folded.rpartition(" " + label)
        if separator and not tail and head.strip() in _SAMPLER_LOOKUP:
            return _SAMPLER_LOOKUP[head.strip()], schedule
    raise InvalidParams(
        f'There is no sampler "{name[:80]}".',
        near_matches(name, SAMPLER_NAMES) or f"Known: {', '.join(SAMPLER_NAMES)}.",
    )


def add_sampler(sampler: SamplerName) -> None:
    """Make a sampler of an extension known to this process. Raises `InvalidParams` when the name means another one."""
    if SAMPLER_NAMES.get(sampler.name) == sampler:
        return
    for name in (sampler.name, *sampler.aliases):
        if name.casefold() in _SAMPLER_LOOKUP:
            raise InvalidParams(f'There is a sampler "{name}" already.', "Give the extension's another name.")
    find_schedule(sampler.default_schedule)
    SAMPLER_NAMES[sampler.name] = sampler
    _SAMPLER_LOOKUP.update({name.casefold(): sampler for name in (sampler.name, *sampler.aliases)})


def add_schedule(schedule: ScheduleName) -> None:
    """Make a schedule of an extension known to this process. Raises `InvalidParams` when the name means another one."""
    if SCHEDULE_NAMES.get(schedule.name) == schedule:
        return
    for name in (schedule.name, *schedule.aliases):
        if name.casefold() in _SCHEDULE_LOOKUP:
            raise InvalidParams(f'There is a schedule "{name}" already.', "Give the extension's another name.")
    SCHEDULE_NAMES[schedule.name] = schedule
    _SCHEDULE_LOOKUP.update({name.casefold(): schedule for name in (schedule.name, *schedule.aliases)})


def add_upscaler(name: str) -> None:
    """Make an upscaler of an extension known to this process, beside those that need no model file."""
    if name.casefold() not in (known.casefold() for known in (*PIXEL_UPSCALERS, *LATENT_UPSCALERS)):
        PIXEL_UPSCALERS.append(name)
