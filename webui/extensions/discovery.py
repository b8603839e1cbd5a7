"""Which extensions there are: folders with an `extension.toml`, and installed packages with an entry point.

Finding runs none of their code. One that cannot be used is listed with the reason, and never stops the start.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import metadata, util
from pathlib import Path
from typing import Literal

from packaging.requirements import InvalidRequirement, Requirement

from webui.errors import InvalidParams
from webui.extensions.manifest import FILE, BadExtension, Manifest, read_manifest_file
from webui.names import SamplerName, ScheduleName, add_sampler, add_schedule, add_upscaler
from webui.paths import Paths
from webui.settings import Settings

ENTRY_POINTS = "latent_webui.extensions"
Source = Literal["folder", "package"]


@dataclass(frozen=True, slots=True)
class Found:
    """An extension that is here. `problem`: why it cannot be used, "" when it can. `enabled`: the user wants it.

    Without a manifest that can be read, `name` is the folder's.
    """

    name: str
    folder: Path
    source: Source
    manifest: Manifest | None = None
    problem: str = ""
    enabled: bool = True

    @property
    def usable(self) -> bool:
        return self.enabled and not self.problem and self.manifest is not None


def discover(paths: Paths, settings: Settings) -> tuple[Found, ...]:
    """All of them, by name. Of two with one name the first is used: folders first, in the order of `paths`."""
    off = disabled_names(settings)
    found: list[Found] = []
    for one in (*_in_folders(paths.extensions), *_in_packages()):
        if any(other.name == one.name for other in found):
            one = replace(one, problem=one.problem or f'Another extension is called "{one.name}", too.')
        found.append(replace(one, enabled=one.name not in off and not settings.extensions.safe_mode))
    return tuple(sorted(found, key=lambda one: one.name))


def disabled_names(settings: Settings) -> frozenset[str]:
    """The extensions that the user switched off."""
    return frozenset(name for part in settings.extensions.disabled.split(",") if (name := part.strip()))


def with_names_registered(found: Iterable[Found]) -> tuple[Found, ...]:
    """Make the samplers and schedules that usable extensions name known to requests, in this process.

    An extension whose names are taken comes back with that as its problem.
    """
    return tuple(_registered(one) if one.usable else one for one in found)


def _registered(one: Found) -> Found:
    try:
        for sampler in one.manifest.samplers if one.manifest else ():
            add_sampler(SamplerName(**sampler.model_dump()))
        for schedule in one.manifest.schedules if one.manifest else ():
            add_schedule(ScheduleName(schedule.name, schedule.alias))
        for upscaler in one.manifest.upscalers if one.manifest else ():
            add_upscaler(upscaler.name)
    except InvalidParams as error:
        return replace(one, problem=error.message)
    return one


def missing_requirements(requires: Sequence[str]) -> list[str]:
    """A sentence for each requirement that the installed packages do not meet. Nothing is ever installed for them."""
    sentences = []
    for text in requires:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            sentences.append(f'It requires "{text}", which is not a requirement that can be read.')
            continue
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            sentences.append(f"It requires {requirement.name}, which is not installed.")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            sentences.append(f"It requires {requirement}, and {version} is installed.")
    return sentences


def describe(folder: Path, source: Source) -> Found:
    """The extension in a folder, with its manifest read and its requirements checked."""
    try:
        manifest = read_manifest_file(folder)
    except BadExtension as error:
        return Found(folder.name, folder, source, problem=error.message)
    problem = " ".join(missing_requirements(manifest.requires))
    return Found(manifest.name, folder, source, manifest, problem)


def _in_folders(roots: Iterable[Path]) -> Iterator[Found]:
    for root in roots:
        if not root.is_dir():
            continue
        for folder in sorted(root.iterdir()):
            if folder.is_dir() and (folder / FILE).is_file():
                yield describe(folder, "folder")


def _in_packages() -> Iterator[Found]:
    for entry in metadata.entry_points(group=ENTRY_POINTS):
        try:
            spec = util.find_spec(entry.module)
        except (ImportError, ValueError):
            spec = None
        folder = next(iter(spec.submodule_search_locations or ()), None) if spec is not None else None
        if folder is None:
            yield Found(entry.name, Path(entry.module), "package", problem=f"The package {entry.module} is not here.")
        else:
            yield describe(Path(folder), "package")
