"""Adding an extension from a folder or a wheel: shown first, copied whole, nothing else touched."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from extensions.extension_folders import write_extension
from typer.testing import CliRunner

from webui.cli import main
from webui.cli.extension import commands_of, extension
from webui.errors import NotFound, WebUIError
from webui.events import Extensions
from webui.extensions.adding import add, candidate
from webui.extensions.front import FrontExtensions
from webui.extensions.manifest import BadExtension
from webui.paths import REPO_ROOT, Paths
from webui.settings import Settings, SettingsStore

GREETS = """
from webui.extensions import hookimpl

def hello(name: str = "you"):
    '''Greets.'''
    print(f"hello {name}")

@hookimpl
def commands():
    return {"hello": hello}
"""
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
    write_extension(tmp_path, "greeter", GREETS, asks="commands", side="front")
    app = commands_of("greeter", Paths.under(tmp_path))
    assert app is not None
    assert CliRunner().invoke(app, ["hello", "--name", "ann"]).output == "hello ann\n"
    assert commands_of("greter", Paths.under(tmp_path)) is None


@pytest.mark.parametrize("place", ["before", "after", "joined"])
def test_the_commands_of_an_extension_in_another_data_folder_are_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    write_extension(tmp_path, "greeter", GREETS, asks="commands", side="front")
    flag, line = ["--data-dir", str(tmp_path)], ["greeter", "hello", "--name", "ann"]
    joined = [f"--data-dir={tmp_path}", *line]
    assert main({"before": [*flag, *line], "after": [*line, *flag], "joined": joined}[place]) == 0
    assert capsys.readouterr().out == "hello ann\n"


def test_the_list_tells_what_the_hooks_took_in_the_server_that_ran_last(tmp_path: Path) -> None:
    write_extension(tmp_path, "grain", STEP, asks="step")
    paths = Paths.under(tmp_path)
    front = FrontExtensions(paths, SettingsStore(Settings(), paths.config_file))
    front.heard(Extensions({"uses": {"grain": {"step": {"calls": 40, "seconds": 0.25, "failures": 1}}}}))
    listed = CliRunner().invoke(extension, ["list", "--data-dir", str(tmp_path)]).output.splitlines()
    grain = next(number for number, line in enumerate(listed) if line.startswith("grain"))
    assert listed[grain + 1].strip() == "step (engine): 40 calls in 0.250 s, 1 failed"


def test_an_installed_package_with_an_entry_point_is_an_extension(tmp_path: Path) -> None:
    folder = write_extension(tmp_path / "source", "greeter", GREETS, asks="commands", side="front")
    wheel = tmp_path / "greeter_package-1.0-py3-none-any.whl"
    about = "greeter_package-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("greeter_package/__init__.py", "")
        for path in folder.iterdir():
            archive.write(path, f"greeter_package/{path.name}")
        archive.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: greeter-package\nVersion: 1.0\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/entry_points.txt", "[latent_webui.extensions]\ngreeter = greeter_package\n")
        archive.writestr(f"{about}/RECORD", "")
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--quiet", "--target", str(site)]
    subprocess.run([*pip, str(wheel)], check=True)

    def program(*arguments: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(site)}
        line = [sys.executable, "-m", "webui", *arguments]
        done = subprocess.run(line, cwd=REPO_ROOT, env=environment, capture_output=True, text=True, check=True)
        return done.stdout

    listed = program("extension", "list", "--data-dir", str(tmp_path))
    greeter = next(line for line in listed.splitlines() if line.startswith("greeter"))
    assert greeter.split()[:3] == ["greeter", "1.0", "on"]
    assert program("greeter", "hello", "--name", "ann") == "hello ann\n"
