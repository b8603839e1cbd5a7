"""Settings: whatever is in the file, the program starts; whatever happens while saving, the old ones are there."""

from __future__ import annotations

import errno
import math
import os
import signal
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as profile
from hypothesis import strategies as st

from webui import paths
from webui.errors import SettingsError
from webui.settings import (
    BOUNDS,
    Attention,
    Precision,
    Settings,
    SettingsStore,
    changed,
    get,
    keys,
    load,
    save,
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.yaml"


def aside(file: Path) -> list[Path]:
    return sorted(file.parent.glob("*.corrupt-*"))


def test_without_a_file_the_defaults_hold_and_nothing_is_written(file: Path) -> None:
    assert load(file) == (Settings(), [])
    assert not file.exists()


def test_what_was_saved_is_read_back_and_only_what_differs_is_in_the_file(file: Path) -> None:
    chosen = changed(Settings(), {"device.precision": "bf16", "model.checkpoint": "é 'x' [1f2e3d].ckpt: #1"})
    save(chosen, file)
    assert load(file) == (chosen, [])
    assert chosen.device.precision is Precision.bf16
    assert "attention" not in file.read_text(encoding="utf-8")


@given(st.text())
def test_any_text_that_is_accepted_comes_back_the_same(text: str) -> None:
    import tempfile

    try:
        chosen = changed(Settings(), {"model.checkpoint": text})
    except SettingsError:
        return
    with tempfile.TemporaryDirectory() as folder:
        save(chosen, Path(folder) / "config.yaml")
        assert load(Path(folder) / "config.yaml") == (chosen, [])


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers()) | st.binary()


@given(st.sampled_from(keys()), VALUES)
def test_any_value_for_any_setting_is_accepted_within_its_bounds_or_refused(key: str, value: Any) -> None:
    try:
        chosen = changed(Settings(), {key: value})
    except SettingsError:
        return
    found = get(chosen, key)
    assert type(found) is type(get(Settings(), key))
    if key in BOUNDS:
        assert BOUNDS[key][0] <= found <= BOUNDS[key][1]


@pytest.mark.parametrize("value", [10**400, math.inf, math.nan, "???", "${oc.env:HOME}", "\ud800", "a\nb"])
@pytest.mark.parametrize("key", ["preview.every_seconds", "model.checkpoint", "device.precision"])
def test_values_that_break_parsers_are_refused(key: str, value: Any) -> None:
    if key == "model.checkpoint" and value == 10**400:
        assert get(changed(Settings(), {key: value}), key) == str(value)  # a file may have a number for a name
        return
    with pytest.raises(SettingsError):
        changed(Settings(), {key: value})


def test_a_hash_that_yaml_takes_for_a_number_is_told_to_need_quotes(file: Path) -> None:
    file.write_text("model: {checkpoint: 1234567e10}\n")
    found, problems = load(file)
    assert found == Settings()
    assert "in quotes" in problems[0]
    file.write_text("model: {checkpoint: '1234567e10', vae: 1234567890}\n")
    found, problems = load(file)
    assert (found.model.checkpoint, found.model.vae, problems) == ("1234567e10", "1234567890", [])


def test_a_folder_that_may_not_be_looked_into_is_told(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(path: Path, **_: Any) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "exists", closed)
    assert load(file) == (Settings(), ["config.yaml could not be read: Permission denied."])


def test_an_unknown_setting_is_answered_with_the_near_ones() -> None:
    with pytest.raises(SettingsError, match=r'Did you mean "model\.checkpoint"'):
        changed(Settings(), {"model.checkpont": "x"})


def test_F20_H117_a_bad_entry_is_named_and_the_others_hold(file: Path) -> None:
    file.write_text(
        "device: {precision: fp61, attention: sdpa}\nserver: {port: 99999}\nmodl: {vae: x}\nsaving: {quality: .nan}\n"
        "preview: {every_seconds: 1" + "0" * 400 + "}\nmodel:\n  vae: null\n  checkpoint: ${\n"
    )
    found, problems = load(file)
    assert found == changed(Settings(), {"device.attention": "sdpa"})
    assert found.device.attention is Attention.sdpa
    told = "\n".join(problems)
    for name in ("device.precision", "server.port", "modl", "saving.quality", "preview.every_seconds", "model.vae"):
        assert f'"{name}' in told
    assert "model.checkpoint" in told
    assert len(problems) == 7
    assert file.exists()
    assert not aside(file)


@pytest.mark.parametrize(
    "content",
    [
        b"\x00\x01\xff",
        b"model: {checkpoint: [",
        b"- a\n- b\n",
        b'!!python/object/apply:os.system ["touch pwned"]',
        b"a: &a [x,x,x,x,x,x,x,x,x,x]\n"
        + b"".join(b"%c: &%c [*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c]\n" % (c + 1, c + 1, *[c] * 8) for c in range(97, 107)),
        b"{" * 3000,
        b"model: {vae: a}\nmodel: {vae: b}\n",
        b"# " + b"x" * 2**20,
        b"model: {vae: a}\n".decode().encode("utf-16"),
    ],
)
def test_F20_H117_a_file_that_cannot_be_read_is_kept_aside_and_the_start_goes_on(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    found, problems = load(file)
    assert found == Settings()
    assert [kept.read_bytes() for kept in aside(file)] == [content]
    assert len(problems) == 1
    assert aside(file)[0].name in problems[0]
    assert "\n" not in problems[0]
    assert load(file) == (Settings(), [])


@pytest.mark.parametrize("content", [b"", b"# nothing\n", b"\n\n", b"{}"])
def test_an_empty_file_is_no_fault(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    assert load(file) == (Settings(), [])


@profile(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_F20_H117_no_content_stops_the_start(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    found, _ = load(file)
    assert isinstance(found, Settings)


def test_F20_H117_a_file_of_a_hundred_megabytes_is_not_even_read(file: Path) -> None:
    with file.open("wb") as huge:
        huge.truncate(100 * 2**20)
    found, problems = load(file)
    assert found == Settings()
    assert "larger than a megabyte" in problems[0]
    assert len(aside(file)) == 1


@pytest.mark.parametrize("torn", [lambda whole: whole[:-3] + b"\x00", lambda whole: b""])
def test_F18_a_torn_or_emptied_file_gives_way_to_the_backup(file: Path, torn: Callable[[bytes], bytes]) -> None:
    save(changed(Settings(), {"model.vae": "first"}), file)
    save(changed(Settings(), {"model.vae": "second"}), file)
    file.write_bytes(torn(file.read_bytes()))
    found, problems = load(file)
    assert found.model.vae == "first"
    assert len(problems) == 1
    assert len(aside(file)) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("call", range(1, 10))
def test_F18_a_kill_at_any_moment_of_a_save_leaves_the_old_settings_or_the_new(file: Path, call: int) -> None:
    """`call`: the file system call of the save at which the process dies."""
    save(changed(Settings(), {"model.vae": "older"}), file)
    old, new = (changed(Settings(), {"model.vae": name}) for name in ("old", "new"))
    save(old, file)
    child = os.fork()
    if child == 0:
        with pytest.MonkeyPatch.context() as patch:
            made = 0

            def dying(real: Callable[..., Any]) -> Callable[..., Any]:
                def counted(*arguments: Any, **words: Any) -> Any:
                    nonlocal made
                    made += 1
                    if made == call:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return real(*arguments, **words)

                return counted

            for owner, name in ((paths.os, "open"), (paths.os, "fsync"), (Path, "replace"), (Path, "read_bytes")):
                patch.setattr(owner, name, dying(getattr(owner, name)))
            save(new, file)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "the save makes fewer calls than this"
    found, problems = load(file)
    assert found in (old, new)
    assert problems == []
    assert load(file.with_name("config.yaml.bak"))[0] in (changed(Settings(), {"model.vae": "older"}), old)


def test_a_file_that_may_not_be_read_stays_where_it_is(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("model: {vae: mine}\n")

    def refused(*_: object, **__: object) -> str:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refused)
    found, problems = load(file)
    assert found == Settings()
    assert problems == ["config.yaml could not be read: Permission denied."]
    assert file.exists()
    assert not aside(file)


def test_F15_a_full_disk_is_told_and_the_old_settings_stay(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = changed(Settings(), {"model.vae": "old"})
    save(old, file)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(paths.os, "fsync", full)
    store = SettingsStore(old, file)
    with pytest.raises(SettingsError, match=r"could not be saved: No space left on device\..*stay in force"):
        store.change({"model.vae": "new"})
    monkeypatch.undo()
    assert store.current == old
    assert load(file) == (old, [])


def test_what_a_flag_set_for_this_run_is_in_force_but_not_saved(file: Path) -> None:
    save(changed(Settings(), {"saving.quality": 80}), file)
    started, _ = load(file)
    store = SettingsStore(changed(started, {"device.use_cpu": True}), file)
    store.change({"page.theme": "dark"})
    assert store.current.device.use_cpu
    assert store.current.page.theme.value == "dark"
    assert load(file) == (changed(Settings(), {"saving.quality": 80, "page.theme": "dark"}), [])


@pytest.mark.parametrize("key", keys())
def test_every_setting_stands_in_the_documentation_as_it_is(key: str) -> None:
    value = get(Settings(), key)
    group, _, name = key.partition(".")
    kind = type(getattr(getattr(Settings(), group), name))
    if kind is bool:
        shown, allowed = str(value).lower(), "`true`, `false`"
    elif issubclass(kind, Enum):
        shown, allowed = value, ", ".join(f"`{choice.value}`" for choice in kind)
    elif kind is str:
        shown, allowed = value or '""', "text"
    else:
        low, high = BOUNDS[key]
        shown, allowed = value, f"{low} to {high}"
    documented = (paths.REPO_ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert f"\n| `{key}` | `{shown}` | {allowed} | " in documented
