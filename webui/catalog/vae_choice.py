"""Which VAE decodes: the order of precedence that users of AUTOMATIC1111 know (its sd_vae.py, `resolve_vae`).

One rule differs on purpose: a VAE that is named after the checkpoint must carry its whole stem. There, `model.ckpt`
also took `model2.vae.pt`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace

from webui.catalog.aliases import natural_key
from webui.catalog.inspection import needs_pickle
from webui.catalog.models import ModelFile, VaeChoice
from webui.catalog.scan import VAE_ENDINGS
from webui.errors import ModelNotFound, UnsupportedModel, near_matches
from webui.names import AUTOMATIC

NONE = "None"
_IN_VAE_FOLDERS = (".safetensors", ".pt", ".ckpt")  # where all are VAEs, ".vae" need not be said


def canonical_selection(selection: str) -> str:
    """ "Automatic" and "None" in any case ("auto" and "" are old spellings of the first), else the name itself."""
    folded = selection.strip().casefold()
    if folded in ("", "auto", "automatic"):
        return AUTOMATIC
    return NONE if folded == "none" else selection.strip()


def find_vae(vaes: Sequence[ModelFile], name: str) -> ModelFile:
    """The VAE of that file name, relative path, stem or hash.

    Several files may have the same file name: the one in the folder that the user gave wins, then models/VAE, then
    those beside checkpoints; the relative path names each of them. Raises `ModelNotFound` with near matches.
    """
    name = name.strip()
    by_name: dict[str, ModelFile] = {}
    for vae in vaes:  # in the order of precedence
        by_name.setdefault(vae.path.name, vae)
    found = by_name.get(name) or next((v for v in vaes if v.name == name), None)
    if found is None and name:
        folded = name.casefold()
        aliases = ((v, (v.path.name, v.name, v.stem, v.title, v.sha256, v.short_hash)) for v in vaes)
        found = next((v for v, names in aliases if folded in {n.casefold() for n in names if n}), None)
    if found is None:
        advice = near_matches(name, by_name) or 'Choose another VAE, or "Automatic".'
        raise ModelNotFound(f'There is no VAE "{name[:80]}".', advice)
    return found


def choose_vae(
    checkpoint: ModelFile,
    selection: str,
    vaes: Sequence[ModelFile],
    *,
    overrides_preferences: bool = True,
    allow_pickle: bool = False,
) -> VaeChoice:
    """The VAE for a checkpoint, the user's selection ("Automatic", "None", a name) and the files there are.

    1. the selection, when it is not Automatic and overrides the preferences of single checkpoints;
    2. the `vae` of the checkpoint's NAME.json; 3. a file beside the checkpoint, then one elsewhere that is named after
    it; 4. the selection; else the baked one.
    A VAE that is meant and missing gives way to the next with a note; one that is there and cannot be used raises
    `UnsupportedModel` when the user selected it by name.
    """
    selection = canonical_selection(selection)
    if overrides_preferences and selection != AUTOMATIC:
        return _selected(checkpoint, selection, vaes, allow_pickle)
    notes: list[str] = []
    preferred = canonical_selection(checkpoint.notes.vae) if checkpoint.notes else AUTOMATIC
    if preferred == NONE:
        return VaeChoice(None, "")
    if preferred != AUTOMATIC:
        try:
            return VaeChoice(_usable(find_vae(vaes, preferred), allow_pickle), "from user metadata")
        except (ModelNotFound, UnsupportedModel) as error:
            notes.append(f"The VAE preferred in the notes of {checkpoint.name} was not used: {error.message}")
    beside = [(vae, "found near the checkpoint") for vae in near(checkpoint, vaes)]
    for vae, source in (*beside, *((vae, "named after the checkpoint") for vae in elsewhere(checkpoint, vaes))):
        try:
            return VaeChoice(_usable(vae, allow_pickle), source, " ".join(notes))
        except UnsupportedModel as error:
            notes.append(error.message)
    choice = _selected(checkpoint, selection, vaes, allow_pickle)
    return replace(choice, note=" ".join([*notes, choice.note]).strip())


def near(checkpoint: ModelFile, vaes: Iterable[ModelFile]) -> list[ModelFile]:
    """The VAE files in the checkpoint's folder that carry its whole stem, the preferred format first."""
    folder = os.fspath(checkpoint.path.parent)
    return _named(checkpoint, (v for v in vaes if os.fspath(v.path.parent) == folder), VAE_ENDINGS)


def elsewhere(checkpoint: ModelFile, vaes: Iterable[ModelFile]) -> list[ModelFile]:
    """The VAE files of all other folders that are named after the checkpoint, the preferred ones first.

    A name without ".vae" can be of a VAE folder alone: beside checkpoints, it is a checkpoint's.
    """
    folder = os.fspath(checkpoint.path.parent)
    others = (v for v in vaes if os.fspath(v.path.parent) != folder)
    return _named(checkpoint, others, (*VAE_ENDINGS, *_IN_VAE_FOLDERS))


def _named(checkpoint: ModelFile, vaes: Iterable[ModelFile], endings: Iterable[str]) -> list[ModelFile]:
    """Those with the checkpoint's whole stem and one of the endings, in the order of the endings."""
    names = {checkpoint.stem + ending: order for order, ending in enumerate(endings)}
    return sorted((v for v in vaes if v.path.name in names), key=lambda v: names[v.path.name])


def listing(given: Iterable[Sequence[ModelFile]], beside: Sequence[ModelFile]) -> list[ModelFile]:
    """All VAE files in the order of precedence: folders in the order of `Paths.vaes`, then those beside checkpoints.

    In one folder, of two files with the same name the later one (in natural order) comes first, as it always did.
    """
    ordered: dict[str, ModelFile] = {}
    for group in (*given, beside):
        for vae in sorted(group, key=lambda v: natural_key(v.name), reverse=True):
            ordered.setdefault(os.fspath(vae.path), vae)
    return list(ordered.values())


def _selected(checkpoint: ModelFile, selection: str, vaes: Sequence[ModelFile], allow_pickle: bool) -> VaeChoice:
    if selection in (AUTOMATIC, NONE):
        return VaeChoice(None, "")
    try:
        return VaeChoice(_usable(find_vae(vaes, selection), allow_pickle), "specified in settings")
    except ModelNotFound as error:
        baked = "the one in the checkpoint is used" if checkpoint.has_vae else "the checkpoint has none of its own"
        return VaeChoice(None, "", f"{error.message} Therefore {baked}.")


def _usable(vae: ModelFile, allow_pickle: bool) -> ModelFile:
    if vae.runnable or (allow_pickle and needs_pickle(vae)):
        return vae
    raise UnsupportedModel(f'The VAE "{vae.name}" cannot be used: {vae.reason}', "Choose another VAE, or Automatic.")
