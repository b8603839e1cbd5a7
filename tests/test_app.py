"""`python3 app.py` on a bare machine: the real launcher in folders of its own, with a program that only says hello."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from webui import launcher
from webui.install import InstallError, Steps, diagnosis
from webui.launcher import Home

REPO_ROOT = Path(__file__).resolve().parent.parent
NEEDED = ("app.py", "webui/__init__.py", "webui/errors.py", "webui/paths.py", "webui/install.py", "webui/launcher.py")
PYENV = Path("~/.pyenv/versions").expanduser()

HELLO = """
import json, os, sys
def main(arguments):
    seen = ("HF_HUB_OFFLINE", "GRADIO_ANALYTICS_ENABLED", "GRADIO_RUN_HISTORY")
    print(json.dumps({"arguments": arguments, "prefix": sys.prefix, "cwd": os.getcwd(), "file": __file__,
                      "environment": {name: os.environ.get(name) for name in seen}}))
    return 7 if arguments == ["fail"] else 0
"""

posix_only = pytest.mark.skipif(os.name != "posix", reason="symbolic links and signals")


def make_folder(where: Path, requirements: str = "") -> Path:
    """A checkout with nothing but what the launcher needs, and a stub in the program's place."""
    for name in NEEDED:
        (where / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(REPO_ROOT / name, where / name)
    (where / "webui" / "cli.py").write_text(HELLO)
    (where / "requirements.txt").write_text(requirements)
    return where


def start(folder: Path, *arguments: str, python: str = sys.executable, **environment: str) -> Started:
    """Run app.py there with a pip that finds no index but what the test gives it."""
    done = subprocess.run(
        [python, str(folder / "app.py"), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=environment.pop("cwd", str(folder.parent)),
        env={**os.environ, "PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "", **environment},
    )
    return Started(done)


class Started:
    """What a start gave."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.code, self.out, self.said = done.returncode, done.stdout, done.stderr

    @property
    def hello(self) -> dict[str, object]:
        """What the program saw. Fails with what was said when it was not reached."""
        assert self.out.strip(), self.said
        return dict(json.loads(self.out))

    def sentence(self) -> str:
        """The last line, after checking that it is a user's: exit code 1, no traceback, nothing started."""
        assert self.code == 1, self.said
        assert "Traceback" not in self.said
        assert not self.out
        return self.said.strip().splitlines()[-1]


def make_wheel(folder: Path, name: str = "greeting", version: str = "1.0", body: str = "WORD = 'hello'\n") -> Path:
    """A package as a wheel on the disk, so that pip has something to install without a network."""
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    record = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"{name}.py", body)
        archive.writestr(f"{record}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{record}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{record}/RECORD", f"{name}.py,,\n{record}/METADATA,,\n{record}/WHEEL,,\n{record}/RECORD,,\n")
    return wheel


@pytest.fixture(scope="session")
def installed_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder after its first start, to be copied."""
    folder = make_folder(tmp_path_factory.mktemp("once") / "webui-folder")
    assert start(folder).code == 0
    return folder


@pytest.fixture
def installed(installed_once: Path, tmp_path: Path) -> Path:
    """A folder of the test's own after a first start: moved from where it was made, which must not matter."""
    return Path(shutil.copytree(installed_once, tmp_path / "copy", symlinks=True))


def site_packages(folder: Path) -> Path:
    return next(iter([*folder.glob(".venv/lib/python3*/site-packages"), *folder.glob(".venv/Lib/site-packages")]))


def put_pip(folder: Path, body: str) -> None:
    """Replace .venv's pip by a script."""
    pip = site_packages(folder) / "pip"
    shutil.rmtree(pip)
    pip.mkdir()
    (pip / "__init__.py").write_text("")
    version = 'import sys\nif "--version" in sys.argv: sys.exit(0)\n'
    (pip / "__main__.py").write_text(version + body)


def unstamped(folder: Path) -> Path:
    """As an installation that was ended before its end."""
    (folder / ".venv" / "latent-webui.json").unlink()
    return folder


# --- the way it should go --------------------------------------------------------------------------------------------


def test_the_first_start_makes_a_venv_installs_with_progress_and_runs_the_program_in_it(tmp_path: Path) -> None:
    packages = [make_wheel(tmp_path), make_wheel(tmp_path, "template", body="{% not Python %}\n")]
    folder = make_folder(tmp_path / "a folder", requirements="".join(f"{wheel}\n" for wheel in packages))
    arguments = ("generate", "a red apple", "--steps", "20")
    first = start(folder, *arguments, cwd=str(tmp_path), PYTHONDONTWRITEBYTECODE="1")
    assert first.hello["arguments"] == ["generate", "a red apple", "--steps", "20"]
    assert Path(str(first.hello["prefix"])).samefile(folder / ".venv")
    assert first.hello["cwd"] == str(tmp_path)
    assert first.hello["environment"] == {
        "HF_HUB_OFFLINE": "1",
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_RUN_HISTORY": "false",
    }
    assert (site_packages(folder) / "greeting.py").exists()
    compiled = [path.name.split(".")[0] for path in (site_packages(folder) / "__pycache__").iterdir()]
    assert compiled == ["greeting"]  # what cannot be compiled is no obstacle
    lines = first.said.splitlines()
    assert any(line.startswith("  Making .venv with Python") and line.endswith(" s") for line in lines), lines
    assert any(line.startswith("  Installing what requirements.txt names") and line.endswith(" s") for line in lines)
    assert "  Ready: 2 packages were installed." in lines
    assert "\r" not in first.said
    assert "\x1b" not in first.said
    assert not (folder / ".venv" / "tmp").exists()


def test_the_second_start_asks_neither_pip_nor_the_network(installed: Path) -> None:
    put_pip(installed, "raise SystemExit('pip was asked')")
    second = start(installed)
    assert second.hello["arguments"] == []
    assert second.said == ""


def test_the_program_s_exit_code_is_the_exit_code(installed: Path) -> None:
    assert start(installed, "fail").code == 7


def test_started_by_its_own_python_it_runs_in_that_process(installed: Path) -> None:
    again = start(installed, python=str(Home(installed).python))
    assert again.code == 0
    assert Path(str(again.hello["prefix"])).samefile(installed / ".venv")


def test_changed_requirements_are_installed_at_the_next_start_and_comments_do_not_count(
    installed: Path, tmp_path: Path
) -> None:
    requirements = installed / "requirements.txt"
    requirements.write_text("# a remark\n\n")
    assert start(installed).said == ""
    requirements.write_text(f"{make_wheel(tmp_path)}\n")
    assert "1 packages were installed" in start(installed).said
    assert start(installed).said == ""


def test_a_webui_py_in_the_folder_one_stands_in_is_not_run(installed: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "another product"
    elsewhere.mkdir()
    (elsewhere / "webui.py").write_text("raise SystemExit('the wrong program')")
    assert start(installed, cwd=str(elsewhere)).hello["file"] == str(installed / "webui" / "cli.py")


def test_pythonhome_and_pip_settings_of_the_user_do_not_lead_astray(installed: Path, tmp_path: Path) -> None:
    (installed / "requirements.txt").write_text(f"{make_wheel(tmp_path)}\n")
    done = start(installed, PIP_USER="1", PIP_TARGET=str(tmp_path / "target"), PYTHONPATH=str(tmp_path))
    assert done.code == 0, done.said
    assert (site_packages(installed) / "greeting.py").exists()
    assert not (tmp_path / "target").exists()


# --- what an interrupted run, or somebody, left behind ----------------------------------------------------------------


def _no_python(venv: Path) -> None:
    shutil.rmtree(venv / "bin")


def _no_pip(venv: Path) -> None:
    for found in venv.glob("lib/python3*/site-packages/pip*"):
        shutil.rmtree(found)


def _only_a_start(venv: Path) -> None:
    shutil.rmtree(venv)
    (venv / "bin").mkdir(parents=True)
    (venv / "include").mkdir()


def _dangling_python(venv: Path) -> None:
    (venv / "bin" / "python").unlink()
    (venv / "bin" / "python").symlink_to("/nowhere/python3")


def _empty(venv: Path) -> None:
    shutil.rmtree(venv)
    venv.mkdir()


def _torn_stamp(venv: Path) -> None:
    (venv / "latent-webui.json").write_text('{"python": "3.')


@posix_only
@pytest.mark.parametrize("damage", [_no_pip, _only_a_start, _torn_stamp])
def test_a_half_made_venv_is_completed(installed: Path, damage: Callable[[Path], None]) -> None:
    damage(installed / ".venv")
    if damage is not _torn_stamp:
        (installed / ".venv" / "latent-webui.json").unlink(missing_ok=True)
    assert start(installed).hello["arguments"] == []
    assert start(installed).said == ""


@posix_only
@pytest.mark.parametrize("damage", [_no_python, _only_a_start, _dangling_python, _empty])
def test_a_venv_whose_python_does_not_start_is_none(installed: Path, damage: Callable[[Path], None]) -> None:
    home = Home(installed)
    assert launcher.probe_venv(home) is not None
    damage(home.venv)
    assert launcher.probe_venv(home) is None


def test_a_folder_of_that_name_that_is_something_else_is_not_touched(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "folder")
    (folder / ".venv").mkdir()
    (folder / ".venv" / "thesis.txt").write_text("years of work")
    assert "is not a virtual environment" in start(folder).sentence()
    assert (folder / ".venv" / "thesis.txt").read_text() == "years of work"


@posix_only
def test_ctrl_c_ends_with_a_sentence_and_the_next_start_goes_on(installed: Path) -> None:
    real_pip = site_packages(installed) / "pip"
    kept = installed / "kept-pip"
    shutil.copytree(real_pip, kept)
    put_pip(unstamped(installed), "import time\nprint('Collecting torch', flush=True)\ntime.sleep(60)\n")
    process = subprocess.Popen(
        [sys.executable, str(installed / "app.py")], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while not (installed / ".venv" / "tmp").exists():  # pip is about to run
        assert process.poll() is None
        time.sleep(0.02)
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Stopped. Run it again to go on." in said
    assert "Traceback" not in said
    shutil.rmtree(real_pip)
    shutil.copytree(kept, real_pip)
    assert start(installed).code == 0


@posix_only
def test_a_second_app_py_does_not_install_into_the_same_venv(installed: Path) -> None:
    import fcntl

    unstamped(installed)
    handle = os.open(installed, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        assert "Another app.py is installing here" in start(installed).sentence()
    finally:
        os.close(handle)
    assert start(installed).code == 0


# --- what can go wrong, each a sentence -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "The disk is full"),
        (
            "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError(Failed to establish a "
            "new connection: [Errno -3] Temporary failure in name resolution)': /simple/torch/\n"
            "ERROR: Could not find a version that satisfies the requirement torch (from versions: none)",
            "The package registry cannot be reached",
        ),
        ("ssl.SSLCertVerificationError: CERTIFICATE_VERIFY_FAILED", "certificate is not trusted"),
        (
            "ERROR: Could not find a version that satisfies the requirement xformers>=0.0.35 (from versions: 0.0.1)",
            "There is no build of xformers>=0.0.35",
        ),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES", "A download was damaged"),
        ("ERROR: Could not install: [Errno 13] Permission denied: 'x'", ".venv cannot be written to"),
        ("ERROR: something that nobody foresaw", "something that nobody foresaw. The file .venv/install.log"),
        ("", "The packages could not be installed: pip said nothing."),
    ],
)
def test_a_failing_pip_becomes_a_sentence_with_the_next_step(installed: Path, output: str, sentence: str) -> None:
    put_pip(unstamped(installed), f"print({output!r})\nraise SystemExit(1)\n")
    failed = start(installed)
    assert sentence in failed.sentence()
    assert (installed / ".venv" / "install.log").read_text().strip() == output
    assert not (installed / ".venv" / "latent-webui.json").exists()


@pytest.mark.parametrize(
    ("system", "machine", "size", "platform_named"),
    [
        ("darwin", "x86_64", 2**63 - 1, "Macs with an Intel processor"),
        ("win32", "AMD64", 2**31 - 1, "a 32-bit Python"),
        ("linux", "x86_64", 2**63 - 1, ""),
        ("darwin", "arm64", 2**63 - 1, ""),
    ],
)
def test_where_torch_has_no_builds_nobody_is_sent_for_another_python(
    system: str, machine: str, size: int, platform_named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(sys, "maxsize", size)
    monkeypatch.setattr("platform.machine", lambda: machine)
    said = "ERROR: Could not find a version that satisfies the requirement {} (from versions: none)"
    told = str(diagnosis(said.format("torch<2.14,>=2.10"), 1))
    assert (platform_named in told and "another Python" not in told) if platform_named else "another Python" in told
    assert "another Python" in str(diagnosis(said.format("torchsde>=0.2.6"), 1))


@posix_only
def test_a_pip_that_was_killed_is_told_as_that(installed: Path) -> None:
    put_pip(unstamped(installed), "import os\nos.kill(os.getpid(), 9)\n")
    assert "ended by signal 9 (often a lack of memory)" in start(installed).sentence()


def test_a_registry_that_does_not_answer_is_named_by_the_real_pip(installed: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]  # closed again: connections are refused
    (installed / "requirements.txt").write_text("a-package-of-nobody\n")
    index = {"PIP_NO_INDEX": "0", "PIP_INDEX_URL": f"http://127.0.0.1:{port}/simple", "PIP_RETRIES": "1"}
    failed = start(installed, **index)
    assert failed.sentence().startswith("The package registry cannot be reached.")
    assert "does not answer; trying again" in failed.said


def test_a_package_without_a_build_is_named_by_the_real_pip(installed: Path) -> None:
    (installed / "requirements.txt").write_text("a-package-of-nobody>=3\n")
    assert "There is no build of a-package-of-nobody>=3 for Python 3." in start(installed).sentence()


@pytest.mark.parametrize("module", ["ensurepip", "venv"])
def test_a_python_without_venv_names_the_package_to_install(tmp_path: Path, module: str) -> None:
    folder = make_folder(tmp_path / "folder")
    runner = tmp_path / "debian.py"  # Debian leaves these modules out of its python3 package
    runner.write_text(
        f"import runpy, sys\nsys.modules[{module!r}] = None\nsys.path.insert(0, {str(folder)!r})\n"
        f"sys.argv = ['app.py']\nrunpy.run_path({str(folder / 'app.py')!r}, run_name='__main__')\n"
    )
    done = Started(subprocess.run([sys.executable, str(runner)], capture_output=True, text=True, timeout=60))
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert f"sudo apt install python{version}-venv" in done.sentence()
    assert not (folder / ".venv").exists()


def test_a_full_disk_is_told_before_anything_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(make_folder(tmp_path / "folder"))
    monkeypatch.setattr(launcher.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**11, 10**11, 10**9))
    with pytest.raises(InstallError) as caught:
        launcher.prepare(home, Steps())
    assert str(caught.value).startswith("The disk has 1.0 GB left, and the installation needs at least 3 GB.")
    assert not home.venv.exists()


def test_little_disk_for_cuda_is_a_remark_and_not_a_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(launcher.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**11, 10**11, 5 * 10**9))
    monkeypatch.setattr(launcher.sys, "platform", "linux")
    launcher.check_disk(Home(make_folder(tmp_path / "folder")), Steps())
    assert "torch with CUDA needs about 12 GB" in capsys.readouterr().err


def test_a_python_that_is_too_new_is_told_and_another_one_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "bin" / "python3.8"
    other.parent.mkdir()
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    monkeypatch.setattr(launcher, "OLDEST", (3, 7))
    monkeypatch.setattr(launcher, "NEWEST", (3, 8))
    monkeypatch.setenv("PATH", str(other.parent))
    with pytest.raises(InstallError, match=r"needs Python 3\.7 to 3\.8.*run python3\.8 app\.py"):
        launcher.make_venv(Home(make_folder(tmp_path / "folder")), Steps())


def test_a_torchvision_that_does_not_import_is_named_with_the_way_out(installed: Path, tmp_path: Path) -> None:
    broken = "raise RuntimeError('operator torchvision::nms does not exist')\n"
    with zipfile.ZipFile(make_wheel(tmp_path, "torchvision", "0.28.0", broken)) as archive:
        archive.extractall(site_packages(installed))  # as somebody's own pip would
    failed = start(installed)
    assert "operator torchvision::nms does not exist" in failed.sentence()
    assert "-m pip uninstall torchvision" in failed.sentence()
    assert "Traceback" not in failed.said
    shutil.rmtree(site_packages(installed) / "torchvision-0.28.0.dist-info")
    (site_packages(installed) / "torchvision.py").unlink()
    assert start(installed).code == 0


def test_a_torchvision_that_works_is_looked_at_once(installed: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(make_wheel(tmp_path, "torchvision", "0.28.0")) as archive:
        archive.extractall(site_packages(installed))
    assert start(installed).code == 0
    assert start(installed).said == ""


@pytest.mark.parametrize("version", ["2.7", "3.6", "3.7", "3.8", "3.9"])
def test_an_old_python_gets_a_sentence_and_not_a_syntax_error(version: str) -> None:
    python = next(iter(sorted(PYENV.glob(f"{version}.*/bin/python"))), None)
    if python is None:
        pytest.skip(f"no Python {version} here")
    done = Started(subprocess.run([str(python), str(REPO_ROOT / "app.py")], capture_output=True, text=True, timeout=60))
    assert done.sentence().startswith(f"Latent WebUI needs Python 3.10 to 3.13, and this is Python {version}.")


@pytest.mark.parametrize("version", ["3.10", "3.11", "3.12", "3.13"])
def test_every_supported_python_installs_and_starts(tmp_path: Path, version: str) -> None:
    python = next(iter(sorted(PYENV.glob(f"{version}.*/bin/python"))), None)
    if python is None:
        pytest.skip(f"no Python {version} here")
    folder = make_folder(tmp_path / "folder", requirements=f"{make_wheel(tmp_path)}\n")
    assert start(folder, python=str(python)).hello["arguments"] == []
    assert json.loads((folder / ".venv" / "latent-webui.json").read_text())["python"] == version


# --- the words -------------------------------------------------------------------------------------------------------


def test_without_a_terminal_steps_are_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    steps = Steps()
    steps.status(3.0, "downloading")
    with steps.step("Making .venv"):
        steps.status(4.0, "still")
    said = capsys.readouterr().err
    assert said.splitlines()[0].split() == ["Making", ".venv", said.split()[-2], "s"]
    assert len(said.splitlines()) == 1


def test_pip_s_exit_without_a_known_reason_quotes_its_last_error() -> None:
    error = diagnosis("Collecting a\nERROR: first\nERROR: second\n", 2)
    assert error.message == "The packages could not be installed: second."
