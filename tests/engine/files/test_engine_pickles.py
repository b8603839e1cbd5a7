"""Pickle-based files: hostile ones are refused before anything in them runs, honest ones are converted (H035-H050)."""

from __future__ import annotations

import errno
import io
import json
import os
import pickle
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from embedded import EMBEDDED_CHECKPOINT
from engine_runs import make_engine, run

from webui.engine.files import pickles
from webui.engine.files.pickles import check_archive, converted, read_tensors
from webui.engine.files.weights import Weights, open_weights
from webui.errors import BadModelFile, UnsafeFile

TENSORS = {"model.weight": torch.arange(12.0).reshape(3, 4), "step": torch.tensor(5)}


class Calls:
    """Pickles as a call of a function by its name."""

    def __init__(self, module: str, name: str, *arguments: Any) -> None:
        self.program = b"\x80\x02c" + f"{module}\n{name}\n".encode() + pickle.dumps(arguments, protocol=2)[2:-1] + b"R."


def archive(path: Path, program: bytes, members: dict[str, bytes] | None = None, **options: Any) -> Path:
    """A torch archive with a hand-written pickle."""
    with zipfile.ZipFile(path, "w", **options) as file:
        file.writestr("archive/data.pkl", program)
        for name, data in {"archive/version": b"3\n", **(members or {})}.items():
            file.writestr(name, data)
    return path


def saved(path: Path, content: Any, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


HOSTILE = [
    ("H035", "posix", "system", "echo owned"),
    ("H035", "nt", "system", "echo owned"),
    ("H035", "os", "system", "echo owned"),
    ("H036", "builtins", "eval", "1"),
    ("H036", "__builtin__", "eval", "1"),
    ("H036", "builtins", "exec", "1"),
    ("H049", "pip", "main", "install"),
    ("H049", "pty", "spawn", "/bin/sh"),
    ("H049", "timeit", "timeit", "1"),
    ("H049", "numpy.testing._private.utils", "runstring", "1"),
    ("H049", "torch.hub", "load", "x"),
    ("H049", "builtins", "getattr", "x"),
    ("H049", "operator", "attrgetter", "system"),
    ("H049", "torch.serialization", "load", "x"),
    ("H047", "torch._utils", "_rebuild_qtensor", 1),
    ("H047", "torch._utils", "_rebuild_sparse_tensor", 1),
    ("H047", "torch._utils", "_rebuild_nested_tensor", 1),
    ("H047", "torch._utils", "_rebuild_meta_tensor_no_storage", 1),
    ("H047", "torch._utils", "_rebuild_wrapper_subclass", 1),
]


@pytest.mark.parametrize(("number", "module", "name", "argument"), HOSTILE)
def test_H035_H036_H047_H049_calls_of_anything_but_tensors_are_refused_by_name(
    tmp_path: Path, number: str, module: str, name: str, argument: Any
) -> None:
    path = archive(tmp_path / "model.ckpt", Calls(module, name, argument).program)
    with pytest.raises(UnsafeFile, match=name):
        check_archive(path)


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_H035_newer_pickle_instructions_are_refused(tmp_path: Path, protocol: int) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return os.system, ("echo owned",)

    path = archive(tmp_path / "model.ckpt", pickle.dumps(Evil(), protocol=protocol))
    with pytest.raises(UnsafeFile):
        check_archive(path)


def test_H035_nothing_in_a_refused_file_runs(tmp_path: Path) -> None:
    mark = tmp_path / "owned"
    path = archive(tmp_path / "model.ckpt", Calls("posix", "system", f"touch {mark}").program)
    with pytest.raises(UnsafeFile, match=r"posix\.system"):
        converted(path, tmp_path / "cache")
    assert not mark.exists()
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_H037_H038_pickles_without_an_archive_are_refused(tmp_path: Path) -> None:
    raw = tmp_path / "raw.ckpt"
    raw.write_bytes(pickle.dumps({"weight": 1}))
    legacy = saved(tmp_path / "legacy.pt", TENSORS, _use_new_zipfile_serialization=False)
    for path in (raw, legacy):
        with pytest.raises(UnsafeFile, match="old kind"):
            check_archive(path)


def test_H039_H050_a_pickle_or_a_web_page_under_a_safetensors_name_is_told(tmp_path: Path) -> None:
    disguised = saved(tmp_path / "model.safetensors", TENSORS)
    with pytest.raises(BadModelFile, match="pickle-based"):
        Weights(disguised)
    page = tmp_path / "page.safetensors"
    page.write_bytes(b"<!DOCTYPE html><html>log in</html>")
    with pytest.raises(BadModelFile, match="web page"):
        Weights(page)


def benign() -> bytes:
    buffer = io.BytesIO()
    torch.save(TENSORS, buffer)
    with zipfile.ZipFile(buffer) as file:
        return file.read(next(n for n in file.namelist() if n.endswith("data.pkl")))


@pytest.mark.parametrize(
    "name", ["../evil", "archive/../../evil", "/etc/passwd", "archive/data/../../x", "archive\\evil", "archive/code.py"]
)
def test_H040_members_that_no_model_has_are_refused(tmp_path: Path, name: str) -> None:
    path = archive(tmp_path / "model.ckpt", benign(), {name: b"x"})
    with pytest.raises(UnsafeFile):
        check_archive(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_H041_H042_two_pickles_or_two_folders_are_refused(tmp_path: Path) -> None:
    twice = archive(tmp_path / "twice.ckpt", benign(), {"archive/data.pkl": benign()})
    two_folders = archive(tmp_path / "folders.ckpt", benign(), {"other/data.pkl": benign()})
    none = tmp_path / "none.ckpt"
    with zipfile.ZipFile(none, "w") as file:
        file.writestr("archive/version", b"3\n")
    for path in (twice, two_folders, none):
        with pytest.raises(UnsafeFile):
            check_archive(path)


def test_H043_wrong_checksums_and_odd_flags_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "model.ckpt", TENSORS)
    data = bytearray(path.read_bytes())
    place = data.find(np.arange(12, dtype=np.float32).tobytes())
    data[place] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(BadModelFile, match=r"checksum|damaged"):
        check_archive(path)
    flagged = saved(tmp_path / "flagged.ckpt", TENSORS)
    data = bytearray(flagged.read_bytes())
    entry = data.find(b"PK\x01\x02")
    data[entry + 8] |= 0x01  # "encrypted"
    flagged.write_bytes(data)
    with pytest.raises((UnsafeFile, BadModelFile)):
        check_archive(flagged)


def test_H044_compressed_members_are_refused_without_unpacking(tmp_path: Path) -> None:
    bomb = {"archive/data/0": bytes(50 * 2**20)}
    path = archive(tmp_path / "bomb.ckpt", benign(), bomb, compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 2**20
    with pytest.raises(UnsafeFile, match="compressed"):
        check_archive(path)


def test_an_archive_inside_of_a_comment_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "model.ckpt", TENSORS)
    with zipfile.ZipFile(path, "a") as file:
        file.comment = b"a comment: another ending could hide in it"
    with pytest.raises(UnsafeFile, match="differently"):
        check_archive(path)


def strided() -> Any:
    return {"weight": torch.zeros(1).expand(2**31)}


def beyond() -> Any:
    return {"weight": torch.zeros(4).as_strided((2,), (1,))}


def sparse() -> Any:
    return {"weight": torch.eye(3).to_sparse_csr()}


@pytest.mark.parametrize(
    ("content", "number"),
    [
        (strided, "H045"),
        (sparse, "H046"),
        (lambda: {"weight": torch.zeros(2, dtype=torch.complex64)}, "H047"),
        (lambda: {"weight": torch.zeros(2, device="meta")}, "H047"),
        (lambda: {"weight": torch.quantize_per_tensor(torch.zeros(2), 0.1, 0, torch.qint8)}, "H047"),
        (lambda: [1, 2, 3], ""),
        (lambda: {"a": "text"}, ""),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_H045_H046_H047_only_plain_dense_tensors_come_out(
    tmp_path: Path, content: Callable[[], Any], number: str
) -> None:
    path = saved(tmp_path / "model.ckpt", content())
    with pytest.raises(UnsafeFile):  # noqa: PT012 (either gate will do)
        check_archive(path)
        read_tensors(path)


def test_H048_training_leftovers_of_the_first_checkpoints_are_dropped_and_the_tensors_come_out(tmp_path: Path) -> None:
    class ModelCheckpoint:
        def __init__(self) -> None:
            self.best = np.float64(0.5)

    ModelCheckpoint.__module__ = "pytorch_lightning.callbacks.model_checkpoint"
    ModelCheckpoint.__qualname__ = "ModelCheckpoint"
    content = {
        "state_dict": {**TENSORS, "half": torch.ones(2, 2, dtype=torch.float16)},
        "global_step": 470000,
        "best": np.float64(0.25),
        "callbacks": {"x": {"best_model_score": torch.tensor(1.0)}},
    }
    path = tmp_path / "sd.ckpt"
    names = ("pytorch_lightning", "pytorch_lightning.callbacks", ModelCheckpoint.__module__)
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.setitem(sys.modules, name, ModuleType(name))
        patch.setattr(sys.modules[names[-1]], "ModelCheckpoint", ModelCheckpoint, raising=False)
        torch.save({**content, "callback": ModelCheckpoint()}, path)
    weights = Weights(converted(path, tmp_path / "cache"))
    assert set(weights.tensors) == {*TENSORS, "half"}
    for name, tensor in TENSORS.items():
        assert torch.equal(weights.tensor(name), tensor)
    assert weights.tensor("half").dtype is torch.float16


def test_a_reader_that_crashes_hurts_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "crash"
    script.write_text("#!/bin/sh\nkill -SEGV $$\n")
    script.chmod(0o755)
    monkeypatch.setattr(pickles.sys, "executable", str(script))
    with pytest.raises(UnsafeFile, match="crash"):
        converted(saved(tmp_path / "model.ckpt", TENSORS), tmp_path / "cache")


def test_a_conversion_is_made_once_and_again_when_the_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []

    def here(path: Path, target: Path, size: int) -> None:  # the other process's work, without the process
        made.append(target)
        pickles._write(*read_tensors(path), target)

    monkeypatch.setattr(pickles, "_convert_apart", here)
    path = saved(tmp_path / "model.ckpt", TENSORS)
    first = converted(path, tmp_path / "cache")
    assert converted(path, tmp_path / "cache") == first
    assert made == [first]
    saved(path, {"other": torch.ones(3)})
    second = converted(path, tmp_path / "cache")
    assert made == [first, second]
    assert not first.exists()
    assert set(Weights(second).tensors) == {"other"}


def test_pickles_are_closed_until_the_settings_allow_them(tmp_path: Path) -> None:
    path = saved(tmp_path / "model.ckpt", TENSORS)
    with pytest.raises(UnsafeFile, match="switched off"):
        open_weights(path, allow_pickle=False, cache_dir=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_checkpoint_and_a_vae_as_pickles_make_the_same_picture_when_allowed(data_dir: Path) -> None:
    weights = Weights(EMBEDDED_CHECKPOINT)
    tensors = {name: weights.tensor(name).clone() for name in weights.tensors}
    folder = data_dir / "models" / "Stable-diffusion"
    shutil.copyfile(EMBEDDED_CHECKPOINT.with_suffix(".yaml"), folder / "old.yaml")
    torch.save({"state_dict": tensors, "global_step": 1}, folder / "old.ckpt")
    prefix = "first_stage_model."
    vae = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    (data_dir / "models" / "VAE").mkdir(parents=True)
    torch.save({"state_dict": vae}, data_dir / "models" / "VAE" / "old.vae.pt")
    closed = make_engine(data_dir)
    refused = run(closed, checkpoint="old.ckpt", width=64, height=64)
    assert refused.error["error"] in ("UnsafeFile", "UnsupportedModel")
    assert "allow_pickle" in str(refused.error)
    closed.close()
    engine = make_engine(data_dir, model__allow_pickle=True)
    plain = run(engine, checkpoint=EMBEDDED_CHECKPOINT.stem, width=64, height=64)
    again = run(engine, checkpoint="old.ckpt", vae="old.vae.pt", width=64, height=64)
    assert again.digests == plain.digests
    assert "VAE: old.vae.pt" in again.images[0].infotext
    engine.close()


def test_a_disk_that_refuses_the_conversion_is_told_and_not_the_file_suspected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pickles, "_write", full)
    monkeypatch.setattr(pickles, "_limit_process", lambda _: None)
    path, target = saved(tmp_path / "model.ckpt", TENSORS), tmp_path / "out.safetensors"
    assert pickles.main([str(path), str(target)]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["error"] == "SaveError"
    assert "No space left" in report["message"]
    assert str(tmp_path) in report["advice"]
    assert "trust" not in report["advice"]


def test_what_a_killed_conversion_left_goes_at_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "cache" / "converted"
    folder.mkdir(parents=True)
    left, running = folder / ".tmp-a.safetensors", folder / ".tmp-b.safetensors"
    left.write_bytes(b"half")
    running.write_bytes(b"half")
    os.utime(left, (0, 0))
    monkeypatch.setattr(pickles, "_convert_apart", lambda *_: None)
    converted(saved(tmp_path / "model.ckpt", TENSORS), tmp_path / "cache")
    assert (left.exists(), running.exists()) == (False, True)
