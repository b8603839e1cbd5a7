"""Adding an extension from a folder or a wheel: shown first, copied whole, nothing else touched."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from extensions.extension_folders import write_extension
from typer.testing import CliRunner

from webui.cli.extension import commands_of, extension
from webui.errors import NotFound, WebUIError
from webui.extensions.adding import add, candidate
from webui.extensions.manifest import BadExtension
from webui.paths import Paths

STEP = "from webui.extensions import hookimpl\n@hookimpl\ndef step(): return None\n"


def test_a_folder_is_shown_asked_for_and_copied(tmp_path: Path) -> None:
    source = write_extension(tmp_path / "elsewhere", "grain", STEP, asks="step")
    arguments = ["add", str(source), "--data-dir", str(tmp_path)]
    refused = CliRunner().invoke(extension, arguments, input="n\n")
    assert refused.exit_code == 1
    assert "engine.py" in refused.output
    assert "uses: step" in refused.output
    assert not (tmp_path / "extensions" / "grain").exists()
    taken = CliRunner().invoke(extension, arguments, input="y\n")
    assert taken.exit_code == 0, taken.output
    assert (tmp_path / "extensions" / "grain" / "engine.py").read_text() == STEP
    listed = CliRunner().invoke(extension, ["list", "--data-dir", str(tmp_path)])
    assert "grain" in listed.output
    again = CliRunner().invoke(extension, arguments, input="y\n")
    assert isinstance(again.exception, WebUIError)
    assert "already" in again.exception.message


def test_a_wheel_gives_its_package_and_nothing_beside_it(tmp_path: Path) -> None:
    folder = write_extension(tmp_path / "source", "grain", STEP, asks="step")
    wheel = tmp_path / "grain-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path in folder.iterdir():
            archive.write(path, f"grain_package/{path.name}")
        archive.writestr("grain-1.0.dist-info/METADATA", "Name: grain")
        archive.writestr("grain_package/../../outside.py", "")
    with candidate(wheel) as found:
        assert found.code == ("engine.py",)
        target = add(found, tmp_path / "extensions")
    assert sorted(path.name for path in target.iterdir()) == ["engine.py", "extension.toml"]
    assert list(tmp_path.rglob("outside.py")) == []


def test_what_is_no_extension_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.whl").write_text("no zip")
    for source, words in ((tmp_path / "empty", "cannot be read"), (tmp_path / "file.whl", "neither a folder nor")):
        with pytest.raises(BadExtension, match=words), candidate(source):
            pytest.fail("it was taken in")


def test_an_extension_whose_requirements_are_not_met_is_not_added_and_nothing_is_installed(tmp_path: Path) -> None:
    source = write_extension(tmp_path / "elsewhere", "grain", STEP, asks="step", more='requires = ["no-such-thing>=1"]')
    result = CliRunner().invoke(extension, ["add", str(source), "--yes", "--data-dir", str(tmp_path)])
    assert isinstance(result.exception, WebUIError)
    assert "no-such-thing, which is not installed" in result.exception.message
    assert not (tmp_path / "extensions" / "grain").exists()


def state_of(name: str, data: list[str]) -> str:
    listed = CliRunner().invoke(extension, ["list", *data]).output.splitlines()
    return next(line.split()[2] for line in listed if line.startswith(name))


def test_switching_is_remembered(tmp_path: Path) -> None:
    write_extension(tmp_path, "grain", STEP, asks="step")
    runner, data = CliRunner(), ["--data-dir", str(tmp_path)]
    assert runner.invoke(extension, ["disable", "grain", *data]).exit_code == 0
    assert "off" in next(
        line for line in runner.invoke(extension, ["list", *data]).output.splitlines() if "grain" in line
    )
    assert runner.invoke(extension, ["enable", "grain", *data]).exit_code == 0
    assert " on " in next(
        line for line in runner.invoke(extension, ["list", *data]).output.splitlines() if "grain" in line
    )
    unknown = runner.invoke(extension, ["enable", "grian", *data])
    assert isinstance(unknown.exception, NotFound)
    assert '"grain"' in unknown.exception.advice


def test_an_extension_brings_commands_of_its_own(tmp_path: Path) -> None:
    code = (
        "from webui.extensions import hookimpl\n"
        "def hello(name: str = 'you'):\n"
        "    '''Greets.'''\n"
        "    print(f'hello {name}')\n"
        "@hookimpl\n"
        "def commands(): return {'hello': hello}\n"
    )
    write_extension(tmp_path, "greeter", code, asks="commands", side="front")
    app = commands_of("greeter", Paths.under(tmp_path))
    assert app is not None
    assert CliRunner().invoke(app, ["hello", "--name", "ann"]).output == "hello ann\n"
    assert commands_of("greter", Paths.under(tmp_path)) is None
