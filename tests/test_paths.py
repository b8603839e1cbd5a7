"""Writing files so that nothing is ever half there, and reading only what lies below its folder."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from webui import paths
from webui.errors import NotFound
from webui.paths import Paths, safe_path, write_atomic, write_new

posix_only = pytest.mark.skipif(os.name != "posix", reason="POSIX modes and links")


def entries(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


def test_an_atomic_write_replaces_the_content_and_keeps_the_old_one_as_backup(tmp_path: Path) -> None:
    file = tmp_path / "new folder" / "config.yaml"
    write_atomic(file, b"one", backup=True)
    assert entries(file.parent) == {"config.yaml"}
    write_atomic(file, b"two", backup=True)
    assert file.read_bytes() == b"two"
    assert (file.parent / "config.yaml.bak").read_bytes() == b"one"
    assert entries(file.parent) == {"config.yaml", "config.yaml.bak"}


@pytest.mark.parametrize("when", ["write", "fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    file = tmp_path / "config.yaml"
    write_atomic(file, b"old", backup=True)

    def fails(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if when == "write":
        monkeypatch.setattr(paths.os, "fdopen", fails)
    elif when == "fsync":
        monkeypatch.setattr(paths.os, "fsync", fails)
    else:
        monkeypatch.setattr(Path, "replace", fails)
    with pytest.raises(OSError, match="No space"):
        write_atomic(file, b"new", backup=True)
    monkeypatch.undo()
    assert file.read_bytes() == b"old"
    assert entries(tmp_path) == {"config.yaml"}


@posix_only
def test_a_file_is_written_where_a_folder_cannot_be_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync

    def of_files_alone(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        real(handle)

    monkeypatch.setattr(paths.os, "fsync", of_files_alone)
    write_new(tmp_path / "a.png", b"one")
    write_atomic(tmp_path / "config.yaml", b"two")
    with paths.streamed_new(tmp_path / "model") as file:
        file.write(b"three")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        "a.png": b"one",
        "config.yaml": b"two",
        "model": b"three",
    }


@posix_only
def test_a_real_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    script = (
        "import resource, signal, sys\nfrom pathlib import Path\nfrom webui.paths import write_atomic\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "file = Path(sys.argv[1])\nwrite_atomic(file, b'old')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try:\n    write_atomic(file, b'x' * 100_000)\nexcept OSError as error:\n    print(error.errno)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "f")], capture_output=True, text=True)
    assert done.stdout.strip() == str(errno.EFBIG), done.stderr
    assert (tmp_path / "f").read_bytes() == b"old"
    assert entries(tmp_path) == {"f"}


@posix_only
def test_a_kill_at_any_moment_leaves_the_old_content_or_the_new_one(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    script = (
        "import sys\nfrom pathlib import Path\nfrom webui.paths import write_atomic\n"
        "print('go', flush=True)\nnumber = 0\n"
        "while True:\n    number += 1\n    write_atomic(Path(sys.argv[1]), (b'%06d' % number) * 20_000, backup=True)\n"
    )
    for _ in range(5):
        process = subprocess.Popen([sys.executable, "-c", script, str(file)], stdout=subprocess.PIPE)
        assert process.stdout
        process.stdout.readline()
        threading.Event().wait(0.15)
        process.kill()
        process.wait()
        process.stdout.close()
        for written in (file, file.with_name("config.yaml.bak")):
            content = written.read_bytes()
            assert content == content[:6] * 20_000


def test_a_new_file_never_overwrites(tmp_path: Path) -> None:
    write_new(tmp_path / "00001.png", b"one")
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "00001.png", b"two")
    assert (tmp_path / "00001.png").read_bytes() == b"one"
    assert entries(tmp_path) == {"00001.png"}


def test_where_there_are_no_hard_links_a_new_file_is_made_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(paths.os, "link", no_links)
    write_new(tmp_path / "a.png", b"one")
    assert (tmp_path / "a.png").read_bytes() == b"one"
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "a.png", b"two")
    assert (tmp_path / "a.png").read_bytes() == b"one"
    assert entries(tmp_path) == {"a.png"}


def test_of_many_writers_of_one_new_name_exactly_one_wins(tmp_path: Path) -> None:
    won: list[int] = []
    barrier = threading.Barrier(8)

    def write(number: int) -> None:
        barrier.wait()
        try:
            write_new(tmp_path / "00001.png", b"%d" % number * 1000)
        except FileExistsError:
            return
        won.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert (tmp_path / "00001.png").read_bytes() == b"%d" % won[0] * 1000


@posix_only
def test_pictures_have_the_mode_of_the_umask_and_settings_are_the_owner_s(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_new(tmp_path / "a.png", b"")
        write_atomic(tmp_path / "config.yaml", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.png").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "config.yaml").stat().st_mode) == 0o600


def test_a_file_below_the_folder_is_found(tmp_path: Path) -> None:
    (tmp_path / "day").mkdir()
    (tmp_path / "day" / "00001 é.png").write_bytes(b"x")
    assert safe_path(tmp_path, "day/00001 é.png") == (tmp_path / "day" / "00001 é.png").resolve()


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../secret.txt",
        "day/../../secret.txt",
        "/etc/passwd",
        "~/secret",
        "C:\\secret",
        "C:secret",
        "day\\..\\..\\secret.txt",
        "\\\\host\\share",
        "nul\0.png",
        "day",
        "nothing.png",
        "link-out",
        "link-loop",
        "pipe",
        "x" * 5000,
        "\ud800",
        "a/" * 3000,
    ],
)
def test_everything_else_is_not_there_and_all_refusals_sound_the_same(tmp_path: Path, name: str) -> None:
    root = tmp_path / "outputs"
    (root / "day").mkdir(parents=True)
    (tmp_path / "secret.txt").write_text("secret")
    if os.name == "posix":
        (root / "link-out").symlink_to(tmp_path / "secret.txt")
        (root / "link-loop").symlink_to(root / "link-loop")
        os.mkfifo(root / "pipe")
    with pytest.raises(NotFound, match=r"^There is no such file\. Refresh the list"):
        safe_path(root, name)


def test_given_folders_come_before_the_usual_ones_and_are_named_once(tmp_path: Path) -> None:
    mine, usual = tmp_path / "mine", tmp_path / "models" / "Stable-diffusion"
    found = Paths.under(tmp_path, checkpoints=(mine, usual, mine), outputs=tmp_path / "pictures")
    assert found.checkpoints == (mine.resolve(), usual.resolve())
    assert found.outputs == (tmp_path / "pictures").resolve()
    assert Paths.under(tmp_path).outputs == tmp_path.resolve() / "outputs"


def test_the_folders_are_made_and_made_again(tmp_path: Path) -> None:
    found = Paths.under(tmp_path / "data")
    found.make_folders()
    found.make_folders()
    assert found.checkpoints[0].is_dir()
    assert found.cache_dir.is_dir()
    assert found.config_file == found.data_dir / "config.yaml"


@posix_only
def test_models_that_ship_are_found_once_where_the_data_folder_links_to_them(tmp_path: Path) -> None:
    (tmp_path / "models").symlink_to(paths.SHIPPED_MODELS)
    linked, other = (Paths.under(tmp_path / name, shipped=True) for name in ("", "other"))
    assert linked.checkpoints == (tmp_path / "models" / "Stable-diffusion",)
    assert other.checkpoints[-1] == paths.SHIPPED_MODELS / "Stable-diffusion"
