"""What the catalog hands out: frozen records of model files. They cross thread and process borders as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from webui.catalog.families import Family, Kind, Prediction
from webui.catalog.sidecar import Sidecar, UserNotes

PICKLE_SUFFIXES = frozenset({".ckpt", ".pt", ".pth", ".bin"})


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One model file, or one folder in the diffusers layout, as it was when the catalog last looked.

    `runnable` says whether the engine can use it for what its folder is for; `reason` is one sentence why not, ""
    otherwise. `problems` are sentences about parts that were set aside (an unreadable NAME.json) and change no pixel.
    """

    path: Path  # absolute; symbolic links are kept as the user made them
    kind: Kind
    family: Family
    name: str  # relative to its models folder, with "/" and the suffix
    stem: str  # the last part without the suffix
    size: int  # bytes; of a folder, the sum of its files
    mtime_ns: int
    inode: int
    sha256: str | None  # of the whole file; None until it was computed
    metadata: Mapping[str, str] = field(hash=False, repr=False)  # of the header, values of at most 4,096 characters
    native_size: int  # pixels a side
    prediction: Prediction
    prediction_known: bool  # False: nothing in the file or beside it says so, the family's usual one is assumed
    runnable: bool
    reason: str
    sidecar: Sidecar | None  # dimensions of NAME.yaml, then of the metadata, else None
    notes: UserNotes | None  # NAME.json
    is_folder: bool = False
    parts: Mapping[str, str] = field(
        default_factory=dict, hash=False, repr=False
    )  # of a folder: "unet" -> its weights file
    variant: str = ""  # what the family's name leaves open: "ESRGAN x4", "kohya", ...
    in_channels: int = 0  # of the UNet; 0: not known
    latent_channels: int = 0
    context_dim: int = 0  # width of the prompt's vectors (768 in SD1); 0: not known
    has_vae: bool = True  # of a checkpoint: a VAE is baked in
    zero_terminal_snr: bool = False  # the file says that it was trained so
    guided: bool = False  # an LCM whose UNet is told the CFG scale, and needs no negative prompt for it
    old_hash: str | None = None  # 8 hex, of files before hashes covered the whole file
    problems: tuple[str, ...] = ()

    @property
    def short_hash(self) -> str | None:
        """The first 10 hex digits of the sha256: what users call "model hash"."""
        return self.sha256[:10] if self.sha256 else None

    @property
    def title(self) -> str:
        """`name [hash]`, or the name alone while the hash is not known."""
        return f"{self.name} [{self.short_hash}]" if self.sha256 else self.name

    @property
    def model_name(self) -> str:
        """The name without suffix, with "_" for "/": an alias of old."""
        return self.name_without_suffix.replace("/", "_")

    @property
    def name_without_suffix(self) -> str:
        head, slash, _ = self.name.rpartition("/")
        return f"{head}{slash}{self.stem}"

    @property
    def is_pickle(self) -> bool:
        """Whether reading it means reading a pickle (only through the engine's allow-list)."""
        return not self.is_folder and self.path.suffix.lower() in PICKLE_SUFFIXES

    @property
    def fingerprint(self) -> tuple[int, int, int]:
        """(size, mtime_ns, inode): changes when the file is replaced or written."""
        return self.size, self.mtime_ns, self.inode


@dataclass(frozen=True, slots=True)
class VaeChoice:
    """The VAE to decode with: a file, or the one baked into the checkpoint (`file` is None).

    `source` is the console's wording: "found near the checkpoint", "named after the checkpoint", "specified in
    settings", "from user metadata", "" for the baked one. `note` is a sentence when a VAE that was meant could not be
    taken, else "".
    """

    file: ModelFile | None
    source: str = ""
    note: str = ""
