"""Finding the model files below a folder: names and `stat` results, nothing is opened.

Symbolic links are followed, to files and to folders, also out of the models folder: people share one collection between
several programs. A folder is entered once, however many links lead to it, so a loop of links ends. Everything found is
given to the catalog, also what cannot be used: a file left out without a word looks like a fault of the program.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Role = Literal["checkpoint", "vae", "lora", "embedding", "hypernetwork", "upscaler", "face_restorer", "controlnet"]

MAX_FILES = 50_000  # of one models folder
MAX_DEPTH = 32  # folders below the models folder
MAX_NAME_LENGTH = 1024  # characters, as `GenerationParams.checkpoint` has it
MAX_FOLDER_FILES = 500  # of one model in the diffusers layout
MODEL_INDEX = "model_index.json"

# What users look for in a folder of that role. The formats that cannot be read are listed with that reason.
SUFFIXES: dict[Role, frozenset[str]] = {
    "checkpoint": frozenset({".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".gguf", ".onnx"}),
    "vae": frozenset({".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".gguf", ".onnx"}),
    "lora": frozenset({".safetensors", ".ckpt", ".pt", ".bin"}),
    "embedding": frozenset({".safetensors", ".pt", ".bin", ".png", ".webp", ".avif", ".jxl"}),
    "hypernetwork": frozenset({".safetensors", ".pt", ".bin"}),
    "upscaler": frozenset({".safetensors", ".pth", ".pt", ".bin", ".onnx"}),
    "face_restorer": frozenset({".safetensors", ".pth", ".ckpt", ".pt", ".onnx"}),
    "controlnet": frozenset({".safetensors", ".pth", ".ckpt", ".pt", ".bin"}),
}
PICTURE_SUFFIXES = frozenset({".png", ".webp", ".avif", ".jxl"})  # an embedding can be inside of a picture
VAE_ENDINGS = (".vae.safetensors", ".vae.pt", ".vae.ckpt")  # beside a checkpoint, in the order of preference
DOWNLOAD_ENDINGS = (".aria2", ".part", ".crdownload", ".download", ".!qb", ".incomplete")
# Control characters, line separators and direction overrides; emoji with their joiners are fine.
_UNSHOWABLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Found:
    """A file, or a folder in the diffusers layout, and what identifies its present content."""

    path: Path
    role: Role
    name: str  # relative to the models folder, "/" between the parts
    stem: str
    size: int = 0
    mtime_ns: int = 0
    inode: int = 0
    yaml: str = ""  # stamp of NAME.yaml, "" without one
    json: str = ""  # stamp of NAME.json
    is_folder: bool = False
    problem: str = ""  # why it is not worth opening

    @property
    def stamp(self) -> str:
        """Changes when anything changes that the catalog reads."""
        return f"{self.size}:{self.mtime_ns}:{self.inode}:{self.yaml}:{self.json}"

    @property
    def look(self) -> str:
        """The stamp, and what spoke against opening it: a download may end without a change of the file."""
        return f"{self.stamp}:{self.problem}"


def find_models(root: Path, role: Role) -> tuple[list[Found], list[str]]:
    """The models below `root` in no particular order, and a sentence for each folder that could not be searched."""
    found: list[Found] = []
    problems: list[str] = []
    entered: set[tuple[int, int]] = set()
    waiting: list[tuple[Path, str, int]] = [(root, "", 0)]
    while waiting:
        folder, prefix, depth = waiting.pop()
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in entered:
                continue
            entered.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda e: e.name)
        except FileNotFoundError:
            continue  # a folder that is not there holds no models
        except OSError as error:
            problems.append(f'The folder "{shown(prefix or folder.name)}" could not be searched: {error.strerror}.')
            continue
        names = {entry.name for entry in entries}
        if role == "checkpoint" and MODEL_INDEX in names:
            found.append(_folder(folder, prefix.rstrip("/") or folder.name))
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if _is_folder(entry):
                if depth < MAX_DEPTH:
                    waiting.append((Path(entry.path), f"{prefix}{entry.name}/", depth + 1))
                else:
                    problems.append(f'Folders more than {MAX_DEPTH} deep are not searched: "{shown(prefix)}".')
            elif Path(entry.name).suffix.lower() in SUFFIXES[role] and not _is_preview(entry.name, names):
                if len(found) == MAX_FILES:
                    return found, [*problems, f'Only the first {MAX_FILES:,} models of "{root.name}" are listed.']
                found.append(_file(entry, prefix, role, names))
    return found, problems


def look_again(known: Path, role: Role, name: str, is_folder: bool) -> Found | None:
    """The same model as it is now, or None when it is gone."""
    if is_folder:
        return _folder(known, name) if (known / MODEL_INDEX).is_file() else None
    try:
        with os.scandir(known.parent) as listing:
            entries = {entry.name: entry for entry in listing if entry.name.startswith(known.stem)}
    except OSError:
        return None
    entry = entries.get(known.name)
    if entry is None or _is_folder(entry):
        return None
    return _file(entry, name[: len(name) - len(known.name)], role, set(entries))


def is_near_vae(name: str) -> bool:
    """Whether a file is a VAE that lies beside checkpoints, by its ending."""
    return name.lower().endswith(VAE_ENDINGS)


def shown(name: str) -> str:
    """A file name that can be printed: what has no place on a line is escaped."""
    return _UNSHOWABLE.sub(lambda m: ascii(m.group())[1:-1], name)


def _is_preview(name: str, names: set[str]) -> bool:
    """Whether a picture in a models folder only shows what a model beside it draws."""
    path = Path(name)
    if path.suffix.lower() not in PICTURE_SUFFIXES:
        return False
    models = (path.stem + suffix for suffix in (".safetensors", ".pt", ".bin"))
    return ".preview" in path.suffixes[:-1] or any(model in names for model in models)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a loop of links: listed as a file that cannot be opened


def _file(entry: os.DirEntry[str], prefix: str, role: Role, names: set[str]) -> Found:
    path, name = Path(entry.path), prefix + entry.name
    stem = path.stem
    if _UNSHOWABLE.search(name) or len(name) > MAX_NAME_LENGTH:
        problem = "Its name holds characters that cannot be shown. Rename the file."
        if len(name) > MAX_NAME_LENGTH:
            problem = f"Its name with its folders is longer than {MAX_NAME_LENGTH:,} characters. Move it further up."
        return Found(path, role, shown(name), shown(stem), problem=problem)
    try:
        status = entry.stat()
    except OSError as error:
        if entry.is_symlink():
            problem = "It is a link that leads nowhere. Remove the link or restore what it points to."
        else:
            problem = f"It cannot be looked at: {error.strerror}. Check its rights."
        return Found(path, role, name, stem, problem=problem)
    problem = ""
    if not stat.S_ISREG(status.st_mode):
        problem = "It is not a regular file (a pipe, socket or device). Remove it from the folder."
    elif any(f"{entry.name}{ending}" in names for ending in DOWNLOAD_ENDINGS):
        problem = "It is still being downloaded. Refresh the list when the download has finished."
    return Found(
        path,
        role,
        name,
        stem,
        status.st_size,
        status.st_mtime_ns,
        status.st_ino,
        yaml=_stamp(path.with_name(f"{stem}.yaml"), names) if role in ("checkpoint", "vae") else "",
        json=_stamp(path.with_name(f"{stem}.json"), names),
        problem=problem,
    )


def _stamp(path: Path, names: set[str]) -> str:
    if path.name not in names:
        return ""
    try:
        status = path.stat()
    except OSError:
        return "unreadable"
    return f"{status.st_size},{status.st_mtime_ns},{status.st_ino}"


def _folder(folder: Path, name: str) -> Found:
    """A diffusers folder: its size is the sum of its files, its time that of the newest.

    In place of its inode stands a number made of each file's name, size, time and inode, so that a file replaced by an
    older one of the same size is another model too.
    """
    if _UNSHOWABLE.search(name):
        problem = "Its name holds characters that cannot be shown. Rename the folder."
        return Found(folder, "checkpoint", shown(name), shown(folder.name), is_folder=True, problem=problem)
    size, newest, count = 0, 0, 0
    mark = hashlib.sha256()
    try:
        for path in folder_files(folder):
            status = path.stat()
            seen = (os.fspath(path.relative_to(folder)), status.st_size, status.st_mtime_ns, status.st_ino)
            mark.update(repr(seen).encode("utf-8", "surrogateescape"))
            size += status.st_size
            newest = max(newest, status.st_mtime_ns)
            count += 1
        problem = ""
    except OSError as error:
        problem = f"It cannot be looked at: {error.strerror or error}."
    if count > MAX_FOLDER_FILES:
        problem = f"The folder holds more than {MAX_FOLDER_FILES} files; a model in the diffusers layout has about 20."
    inode = int.from_bytes(mark.digest()[:8], "big") >> 1  # 63 bits: what SQLite can keep
    notes = folder.with_name(f"{folder.name}.json")
    return Found(
        folder, "checkpoint", name, folder.name, size, newest, inode, json=_stamp(notes, _names(notes)), is_folder=True,
        problem=problem,
    )  # fmt: skip


def _names(path: Path) -> set[str]:
    return {path.name} if path.is_file() else set()


def folder_files(folder: Path) -> Iterator[Path]:
    """The files of a diffusers folder, two levels deep, one more than its limit at most."""
    count = 0
    for first in sorted(folder.iterdir()):
        children = sorted(first.iterdir()) if first.is_dir() else [first]
        for path in children:
            if not path.is_dir():
                count += 1
                yield path
                if count > MAX_FOLDER_FILES:
                    return
