"""The host: what is loaded, asked, timed, kept away from others, and switched off."""

from __future__ import annotations

from pathlib import Path

import pytest
from extensions.extension_folders import host_of, write_extension

from webui.errors import InvalidParams
from webui.extensions import Host
from webui.extensions.host import MAX_FAILURES
from webui.params import GenerationParams

REQUEST = GenerationParams()
HOOK = "from webui.extensions import hookimpl\n"


def test_an_extension_is_asked_with_its_own_values_and_may_leave_parameters_out(tmp_path: Path) -> None:
    write_extension(
        tmp_path,
        "more",
        HOOK + "@hookimpl\ndef params(values):\n    return ('more', values['amount'])\n",
        asks="params",
    )
    host = host_of(tmp_path)
    answers = list(host.ask("params", {"more": {"amount": 3.0}}, request=REQUEST))
    assert answers == [("more", ("more", 3.0))]


def test_an_extension_without_values_in_the_job_is_not_asked(tmp_path: Path) -> None:
    write_extension(tmp_path, "more", HOOK + "@hookimpl\ndef params():\n    return 1\n", asks="params")
    assert list(host_of(tmp_path).ask("params", {}, request=REQUEST)) == []


def test_extensions_are_asked_by_name_and_tryfirst_comes_first(tmp_path: Path) -> None:
    for name, mark in (
        ("a-last", "(trylast=True)"),
        ("b-middle", ""),
        ("c-first", "(tryfirst=True)"),
        ("a-middle", ""),
    ):
        write_extension(tmp_path, name, HOOK + f"@hookimpl{mark}\ndef step():\n    return 1\n", asks="step")
    host = host_of(tmp_path)
    names = [name for name, _ in host.ask("step", {n: {} for n in host.manifests}, request=REQUEST)]
    assert names == ["c-first", "a-middle", "b-middle", "a-last"]


def test_a_failing_hook_is_no_answer_and_after_three_failures_the_extension_is_off(tmp_path: Path) -> None:
    write_extension(tmp_path, "bad", HOOK + "@hookimpl\ndef step():\n    raise OSError('lost')\n", asks="step")
    write_extension(tmp_path, "good", HOOK + "@hookimpl\ndef step():\n    return 1\n", asks="step")
    host = host_of(tmp_path)
    values: dict[str, dict[str, object]] = {"bad": {}, "good": {}}
    for turn in range(1, MAX_FAILURES + 1):
        assert not host.is_off("bad")
        assert list(host.ask("step", values, request=REQUEST)) == [("good", 1)]
        notices = host.take_notices()
        assert len(notices) == 1
        assert "bad failed in step (OSError: lost)" in notices[0]
        assert ("switched off" in notices[0]) == (turn == MAX_FAILURES)
    assert host.is_off("bad")
    assert list(host.ask("step", values, request=REQUEST)) == [("good", 1)]
    assert host.take_notices() == []
    report = host.report()
    assert report["uses"]["bad"]["step"]["failures"] == MAX_FAILURES
    assert report["uses"]["good"]["step"]["calls"] == MAX_FAILURES + 1
    assert report["uses"]["good"]["step"]["seconds"] >= 0
    assert "OSError: lost" in report["off"]["bad"]


def test_an_error_that_is_meant_for_the_user_passes_and_counts_as_no_failure(tmp_path: Path) -> None:
    code = (
        HOOK
        + "from webui.errors import InvalidParams\n@hookimpl\ndef params():\n    raise InvalidParams('No.', 'Do.')\n"
    )
    write_extension(tmp_path, "strict", code, asks="params")
    host = host_of(tmp_path)
    for _ in range(MAX_FAILURES + 1):
        with pytest.raises(InvalidParams, match="No"):
            list(host.ask("params", {"strict": {}}, request=REQUEST))
    assert not host.is_off("strict")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise RuntimeError('broken')", "does not load: RuntimeError: broken"),
        ("import no_such_module", "does not load: ModuleNotFoundError"),
        ("def f(:", "does not load: SyntaxError"),
        ("raise SystemExit(1)", "does not load: SystemExit"),
        (HOOK + "@hookimpl\ndef decoded():\n    return 1", "without asking for it"),
        (HOOK + "@hookimpl\ndef flies():\n    return 1", 'There is no hook "flies"'),
        (HOOK + "@hookimpl\ndef step(colour):\n    return 1", "does not fit the hooks"),
        (HOOK + "@hookimpl(wrapper=True)\ndef step():\n    return (yield)", "is a wrapper"),
    ],
)
def test_H118_an_extension_that_does_not_load_is_named_with_the_reason_and_harms_no_other(
    tmp_path: Path, code: str, words: str
) -> None:
    write_extension(tmp_path, "bad", code, asks="step")
    write_extension(tmp_path, "good", HOOK + "@hookimpl\ndef step():\n    return 1\n", asks="step")
    host = host_of(tmp_path)
    assert words in host.problems["bad"]
    assert "bad" not in host.manifests
    assert list(host.ask("step", {"good": {}}, request=REQUEST)) == [("good", 1)]


def test_modules_of_an_extension_import_each_other_and_stay_apart_from_those_of_others(tmp_path: Path) -> None:
    for name, value in (("one", 1), ("two", 2)):
        folder = write_extension(
            tmp_path,
            name,
            HOOK + "from . import numbers_of_mine\n@hookimpl\ndef step():\n    return numbers_of_mine.VALUE\n",
            asks="step",
        )
        (folder / "numbers_of_mine.py").write_text(f"VALUE = {value}\n")
    host = host_of(tmp_path)
    assert dict(host.ask("step", {"one": {}, "two": {}}, request=REQUEST)) == {"one": 1, "two": 2}


def test_one_side_never_loads_the_code_of_the_other(tmp_path: Path) -> None:
    folder = write_extension(tmp_path, "sides", "raise RuntimeError('the engine side')", asks="step presets")
    (folder / "front.py").write_text(HOOK + "@hookimpl\ndef presets(user):\n    return [user]\n")
    front = host_of(tmp_path, "front")
    assert front.problems == {}
    assert list(front.ask("presets", user="ann")) == [("sides", ["ann"])]
    assert "sides" in host_of(tmp_path, "engine").problems


def test_an_extension_gets_a_folder_of_its_own_for_what_it_keeps(tmp_path: Path) -> None:
    code = HOOK + "@hookimpl\ndef presets(folder):\n    return [folder]\n"
    write_extension(tmp_path, "keeper", code, asks="presets", side="front")
    [(_, [folder])] = host_of(tmp_path, "front").ask("presets", user="")
    assert folder.is_dir()
    assert folder == tmp_path / "data" / "extensions" / "keeper"


def test_safe_mode_and_switched_off_extensions_are_not_loaded(tmp_path: Path) -> None:
    write_extension(tmp_path, "one", HOOK + "@hookimpl\ndef step():\n    return 1\n", asks="step")
    assert "one" in host_of(tmp_path).manifests
    assert "one" not in host_of(tmp_path, extensions__disabled="two, one").manifests
    assert host_of(tmp_path, extensions__safe_mode=True).manifests == {}


def test_H118_a_requirement_that_is_not_met_is_a_reason_and_nothing_is_installed(tmp_path: Path) -> None:
    code = HOOK + "@hookimpl\ndef step():\n    return 1\n"
    write_extension(tmp_path, "old", code, asks="step", more='requires = ["numpy<1.0"]')
    write_extension(tmp_path, "absent", code, asks="step", more='requires = ["no-such-package-here>=2"]')
    write_extension(tmp_path, "fine", code, asks="step", more='requires = ["numpy>=1.0", "x; python_version<\'3\'"]')
    host = host_of(tmp_path)
    assert "fine" in host.manifests
    assert "old" not in host.manifests
    assert "absent" not in host.manifests


def test_without_extensions_every_question_is_answered_by_nobody() -> None:
    assert list(Host(side="engine").ask("step", {}, request=REQUEST)) == []
