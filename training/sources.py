"""The registry packages that everything is made from: fetched with npm or pip, and checked.

Pictures: `@lobehub/fluent-emoji-3d`, Microsoft's Fluent Emoji as 256 px RGBA files named by code point.
Names and keywords: `emojibase-data` and `cldr-annotations-full`. Their licences are in NOTICE.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Package:
    """An npm package in one exact version."""

    name: str
    version: str
    sha256: str  # of the .tgz

    @property
    def stem(self) -> str:
        """What `npm pack` calls the file, without its suffix."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}"


PICTURES = Package(
    "@lobehub/fluent-emoji-3d", "1.1.0", "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58"
)
NAMES = Package("emojibase-data", "17.0.0", "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a")
KEYWORDS = Package(
    "cldr-annotations-full", "48.2.0", "28576e51225deb51e3ddd734b0f824a0079682cb5d8c27faa9f68149317a14d1"
)


def fetch(package: Package, downloads: Path) -> Path:
    """The unpacked package's folder. Fetches it when it is not there yet; what is unpacked was checked then.

    Raises RuntimeError when npm fails or the file is not the one that this project was made with.
    """
    archive, folder = downloads / f"{package.stem}.tgz", downloads / package.stem
    if folder.exists():
        return folder / "package"
    if not archive.exists():
        npm = shutil.which("npm")
        if npm is None:
            raise RuntimeError(f"npm is needed to fetch {package.name}; or put {archive.name} into {downloads}.")
        downloads.mkdir(parents=True, exist_ok=True)
        command = [npm, "pack", f"{package.name}@{package.version}", "--silent", "--ignore-scripts"]
        subprocess.run(command, cwd=downloads, check=True, stdout=subprocess.DEVNULL)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != package.sha256:
        raise RuntimeError(f"{archive} is not the expected file (sha256 {digest}). Delete it and try again.")
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    with tarfile.open(archive) as tar:
        tar.extractall(partial, filter="data")
    partial.rename(folder)
    return folder / "package"


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel of PyPI in one exact version, for CPython 3.11 on x86-64 Linux: it is read, not installed."""

    package: str  # name==version
    file: str
    sha256: str

    @property
    def platform(self) -> str:
        """The last of those in the file's name."""
        return self.file.removesuffix(".whl").rpartition("-")[2].rpartition(".")[2]


def fetch_wheel(wheel: Wheel, downloads: Path) -> Path:
    """The wheel's file. Fetches it when it is not there yet. Raises RuntimeError when it is not the known one."""
    path = downloads / wheel.file
    if not path.exists():
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", str(downloads)]
        command += ["--only-binary=:all:", "--python-version=3.11", f"--platform={wheel.platform}", wheel.package]
        subprocess.run(command, check=True)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != wheel.sha256:
        raise RuntimeError(f"{path} is not the expected file (sha256 {digest}). Delete it and try again.")
    return path
