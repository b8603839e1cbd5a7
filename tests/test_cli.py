"""The commands: what a line means, what is printed where, and which exit code says what."""

from __future__ import annotations

import io
import os
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from embedded import EMBEDDED_CHECKPOINT
from PIL import Image
from typer.testing import CliRunner

import webui.server
from webui import cli
from webui.catalog import Catalog
from webui.cli import check, doctor, generate, groups, history, model_tools, models, serve
from webui.cli.combinations import bad_combinations, release
from webui.cli.flags import Folders, Machine, PrecisionFlag, load_settings
from webui.errors import InvalidParams, NotFound, SettingsError, WebUIError
from webui.inputs import InputStore
from webui.install import Steps
from webui.operations import Hires, SoftInpainting
from webui.params import GenerationParams
from webui.paths import SHIPPED_MODELS, Paths
from webui.server.options import ServeOptions
from webui.settings import Attention, Settings, WeightStorage, changed

REPO_ROOT = Path(__file__).resolve().parent.parent
posix_only = pytest.mark.skipif(os.name != "posix", reason="signals and modes")


def run(*arguments: str, env: dict[str, str] | None = None) -> Any:
    """A command in this process; `.stdout` and `.stderr` apart."""
    return CliRunner().invoke(cli.command_line(arguments[0]), list(arguments), env=env)


def program(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The program in a process of its own, far from the repository's folder."""
    return subprocess.run(
        [sys.executable, "-m", "webui", *arguments],
        capture_output=True,
        text=True,
        timeout=240,
        cwd=Path.home(),
        env={**os.environ, "PYTHONPATH": str(REPO_ROOT), **environment},
    )


# --- reading the line ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ([], ["serve"]),
        (["--listen", "--port", "1"], ["serve", "--listen", "--port", "1"]),
        (["serve", "--listen"], ["serve", "--listen"]),
        (["generate", "--steps", "3", "a"], ["generate", "--steps", "3", "a"]),
        (["--use-cpu", "all", "--api"], ["serve", "--use-cpu"]),
        (["--help"], ["--help"]),
        (["--version"], ["--version"]),
    ],
)
def test_flags_alone_are_serve_s_and_old_spellings_work(line: list[str], meant: list[str]) -> None:
    assert cli.familiar(line) == meant


def test_help_names_every_command_and_a_wrong_one_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    told = capsys.readouterr().out
    assert all(command in told for command in cli.COMMANDS)
    assert cli.main(["paint"]) == 2
    assert cli.main(["serve", "--no-such-flag"]) == 2


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([command, "--help"]) == 0
    assert "Usage: app.py" in capsys.readouterr().out


def test_an_expected_error_is_a_sentence_and_exit_code_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--share"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("--share is not available: ")
    assert "Traceback" not in told


def test_what_the_disk_refuses_is_a_sentence_with_the_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("no folder")
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    assert cli.main(["upscale", str(tmp_path / "a.png"), "--data-dir", str(tmp_path / "file" / "sub")]) == 1
    told = capsys.readouterr().err
    assert told.startswith(str(tmp_path / "file" / "sub"))
    assert len(told.splitlines()) == 1


def test_letters_that_the_terminal_does_not_have_end_no_command(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="cp1252"))
    assert cli.main(["--version"]) == 0
    print("/pictures/猫.png", flush=True)
    assert written.getvalue().splitlines()[-1] == rb"/pictures/\u732b.png"


def test_reading_the_line_of_serve_loads_neither_gradio_nor_the_params(tmp_path: Path) -> None:
    """The start page should be there at once, so the line must not cost what only other commands need."""
    script = (
        "import sys\nfrom webui import cli\n"
        "try:\n    cli.command_line('serve')(['serve', '--help'])\nexcept SystemExit:\n    pass\n"
        "print([name for name in ('gradio', 'torch', 'webui.params', 'webui.catalog') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=REPO_ROOT)
    assert done.stdout.strip().splitlines()[-1] == "[]", done.stderr


# --- flags -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("machine", "meaning"),
    [
        (Machine(), {}),
        (Machine(xformers=True), {"device.attention": "xformers"}),
        (Machine(opt_sdp_attention=True), {"device.attention": "sdpa"}),
        (Machine(opt_sdp_attention=True, attention=Attention.sdpa), {"device.attention": "sdpa"}),
        (Machine(attention=Attention.sliced), {"device.attention": "sliced"}),
        (Machine(no_half=True), {"device.precision": "fp32", "device.vae_precision": "fp32"}),
        (Machine(no_half_vae=True), {"device.vae_precision": "fp32"}),
        (
            Machine(precision=PrecisionFlag.full, no_half=True),
            {"device.precision": "fp32", "device.vae_precision": "fp32"},
        ),
        (Machine(precision=PrecisionFlag.half), {"device.precision": "fp16"}),
        (Machine(precision=PrecisionFlag.autocast), {"device.precision": "auto"}),
        (Machine(precision=PrecisionFlag.bf16), {"device.precision": "bf16"}),
        (Machine(weights=WeightStorage.int8), {"device.weights": "int8"}),
        (Machine(medvram=True), {"device.memory": "medvram"}),
        (Machine(lowvram=True, use_cpu=True), {"device.memory": "lowvram", "device.use_cpu": True}),
    ],
)
def test_familiar_flags_mean_settings_of_this_run(machine: Machine, meaning: dict[str, Any]) -> None:
    assert machine.overrides() == meaning
    changed(Settings(), meaning)


@pytest.mark.parametrize(
    "machine",
    [
        Machine(xformers=True, opt_sdp_attention=True),
        Machine(xformers=True, attention=Attention.sdpa),
        Machine(medvram=True, lowvram=True),
        Machine(no_half=True, precision=PrecisionFlag.half),
    ],
)
def test_flags_that_contradict_each_other_are_refused(machine: Machine) -> None:
    with pytest.raises(SettingsError, match="contradict"):
        machine.overrides()


def test_flags_win_over_the_file_and_do_not_change_it(tmp_path: Path) -> None:
    paths = Paths.under(tmp_path)
    paths.config_file.write_text("device: {attention: sdpa}\nmodel: {vae: None, no: 1}\n")
    settings, problems = load_settings(paths, {"device.attention": "xformers"})
    assert settings.device.attention is Attention.xformers
    assert settings.model.vae == "None"
    assert len(problems) == 1
    assert "attention: sdpa" in paths.config_file.read_text()


def test_folder_flags_come_before_the_usual_folders(tmp_path: Path) -> None:
    paths = Folders(data_dir=tmp_path, styles_file=[tmp_path / "s.csv"]).paths()
    assert paths.styles_file == tmp_path / "s.csv"
    paths = Folders(data_dir=tmp_path, ckpt_dir=[tmp_path / "a", tmp_path / "b"], outputs_dir=tmp_path / "o").paths()
    own = (tmp_path / "models" / "Stable-diffusion").resolve()
    assert paths.checkpoints == (
        *((tmp_path / name).resolve() for name in "ab"), own, SHIPPED_MODELS / "Stable-diffusion"
    )  # fmt: skip
    assert paths.new_checkpoints == own
    assert paths.outputs == (tmp_path / "o").resolve()


def test_a_model_folder_that_is_not_there_is_a_slip_of_the_keyboard(tmp_path: Path) -> None:
    done = run("serve", "--ckpt-dir", str(tmp_path / "nowhere"))
    assert done.exit_code == 2
    assert not (tmp_path / "nowhere").exists()


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Settings, Paths, ServeOptions]]:
    """What the server is called with, in place of serving."""
    seen: list[tuple[Settings, Paths, ServeOptions]] = []

    def record(settings: Settings, paths: Paths, options: ServeOptions, **_: object) -> int:
        seen.append((settings, paths, options))
        return 0

    monkeypatch.setattr(webui.server, "serve", record)
    return seen


def test_the_flags_of_serve_reach_the_server(served: list[Any], tmp_path: Path) -> None:
    line = ["--listen", "--port", "8000", "--api", "--theme", "dark", "--no-browser", "--data-dir", str(tmp_path)]
    line += ["--xformers", "--allow-host", "a.example", "--cors-origin", "https://b.example", "--access-token", "t"]
    assert cli.main(line) == 0
    settings, paths, options = served[0]
    assert options == ServeOptions("0.0.0.0", 8000, False, "dark", ("https://b.example",), ("a.example",), "t")
    assert settings.device.attention is Attention.xformers
    assert paths.data_dir == tmp_path.resolve()
    assert not paths.config_file.exists()


def test_a_password_of_the_environment_may_hold_spaces(
    served: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATENT_WEBUI_AUTH", "ann:correct horse battery")
    assert cli.main(["--data-dir", str(tmp_path)]) == 0
    assert cli.main(["--data-dir", str(tmp_path), "--auth", "bob:some other words"]) == 0
    assert [options.auth for _, _, options in served] == [
        (("ann", "correct horse battery"),),
        (("bob", "some other words"),),
    ]


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("pics.example.org", "pics.example.org"),
        ("https://Pics.Example.org/", "pics.example.org"),
        ("pics.example.org:8443", "pics.example.org"),
        ("pics.example.org.", "pics.example.org"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("192.168.1.2", "192.168.1.2"),
        ("[FE80::1]", "fe80::1"),
    ],
)
def test_a_host_name_is_taken_as_it_is_compared(given: str, name: str) -> None:
    assert serve.host_name(given) == name


@pytest.mark.parametrize(
    ("given", "origin"),
    [
        ("https://app.example.org", "https://app.example.org"),
        ("HTTPS://App.example.org:443/", "https://app.example.org"),
        ("http://localhost:3000/", "http://localhost:3000"),
        ("http://[::1]:3000", "http://[::1]:3000"),
        ("app://obsidian.md", "app://obsidian.md"),
        ("*", "*"),
    ],
)
def test_an_origin_is_taken_as_browsers_send_it(given: str, origin: str) -> None:
    assert serve.web_origin(given) == origin


def test_a_host_or_an_origin_that_can_never_match_is_refused() -> None:
    for wrong in ("", "*.example.org", "a b", "example.org/path", "ann@example.org", "example.org:port"):
        with pytest.raises(SettingsError):
            serve.host_name(wrong)
    for wrong in (
        "",
        "app.example.org",
        "https://",
        "https://app.example.org/page",
        "https://a:b",
        "//app.example.org",
    ):
        with pytest.raises(SettingsError):
            serve.web_origin(wrong)


def test_the_port_of_the_settings_holds_until_a_flag_says_otherwise(served: list[Any], tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("server: {port: 9000, open_browser: false}\n")
    assert cli.main(["--data-dir", str(tmp_path)]) == 0
    assert cli.main(["--data-dir", str(tmp_path), "--port", "0"]) == 0
    assert [options.port for _, _, options in served] == [9000, 0]
    assert served[0][2].host == "127.0.0.1"
    assert served[0][2].theme == ""


@pytest.mark.parametrize(
    ("environment", "platform", "display"),
    [
        ({"DISPLAY": ":0"}, "linux", True),
        ({"WAYLAND_DISPLAY": "wayland-0"}, "linux", True),
        ({}, "linux", False),
        ({"DISPLAY": ":10", "SSH_CONNECTION": "1 2 3 4"}, "linux", False),
        ({}, "win32", True),
        ({}, "darwin", True),
        ({"SSH_CONNECTION": "1 2 3 4"}, "darwin", False),
        ({"DISPLAY": ":0", "CI": "true"}, "linux", False),
    ],
)
def test_a_browser_opens_only_where_somebody_can_see_it(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], platform: str, display: bool
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SSH_CONNECTION", "CI"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(serve.sys, "platform", platform)
    assert serve.has_display() is display


# --- generate --------------------------------------------------------------------------------------------------------


def test_every_parameter_is_an_option() -> None:
    options = {
        option.name for option in cli.typer.main.get_command(cli.command_line("generate")).commands["generate"].params
    }  # type: ignore[attr-defined]
    elsewhere = {"extras", "sources", "save"}  # `app.py upscale`; --init-folder; unsaved, a picture would be lost
    assert set(GenerationParams.model_fields) - elsewhere <= options
    assert {"init__frame__left", "inpaint__soft__mask_influence", "hires__cfg_scale"} <= options


def test_options_become_params_and_what_was_not_given_is_the_settings_or_the_default() -> None:
    settings = changed(Settings(), {"saving.format": "webp", "saving.quality": 75})
    params = generate.request("a", {"steps": 7, "cfg_scale": 3.0, "sigmas": "10, 3,1,0", "eta": None}, settings)
    assert (params.prompt, params.steps, params.cfg_scale, params.sigmas) == ("a", 7, 3.0, (10.0, 3.0, 1.0, 0.0))
    assert (params.image_format, params.image_quality) == ("webp", 75)
    assert params.sampler == GenerationParams().sampler
    assert generate.request("a", {"image_format": "png"}, settings).image_format == "png"
    with pytest.raises(InvalidParams, match="--sigmas"):
        generate.request("a", {"sigmas": "10,x"}, settings)


def test_flags_of_a_group_become_the_group_and_its_pictures_are_stored(tmp_path: Path) -> None:
    file = tmp_path / "mask.png"
    Image.new("L", (8, 8), 255).save(file)
    store = InputStore(tmp_path)
    options = {
        "init__image": "a" * 64,
        "init__denoising_strength": 0.25,
        "inpaint__mask": str(file),
        "inpaint__soft": True,
        "hires": None,
        "init__frame__left": 8,
    }
    params = generate.request("a", groups.stored(options, store), Settings())
    assert params.init is not None
    assert params.inpaint is not None
    assert (params.init.image, params.init.denoising_strength) == ("a" * 64, 0.25)
    assert params.init.frame is not None
    assert params.init.frame.left == 8
    assert params.inpaint.soft == SoftInpainting()
    assert store.open(params.inpaint.mask or "").size == (8, 8)
    assert generate.request("a", {"hires": True}, Settings()).hires == Hires()
    assert generate.request("a", {"hires": False}, Settings()).hires is None
    with pytest.raises(InvalidParams, match="--no-hires"):
        generate.request("a", {"hires": False, "hires__scale": 2.0}, Settings())
    with pytest.raises(NotFound, match="cannot be read"):
        groups.stored({"init__image": str(tmp_path / "none.png")}, store)


UNMEETABLE = (
    (["--sampler", "Eular"], 'Did you mean "Euler"'),
    (["--width", "500"], "multiple of 8"),
    (["--checkpoint", "nothing-like-it"], 'There is no checkpoint "nothing-like-it"'),
    (["--steps", "0"], "steps"),
    (["--cfg-scale", "nan"], "cfg_scale"),
)


@pytest.mark.parametrize(("line", "reason"), UNMEETABLE)
def test_a_request_that_cannot_be_met_is_a_sentence(
    data_dir: Path, line: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["generate", "a red apple", "--data-dir", str(data_dir), *line]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert reason in told.err
    assert "Traceback" not in told.err


def test_the_program_ends_with_the_sentence_and_its_code(data_dir: Path) -> None:
    line, reason = UNMEETABLE[0]
    done = program("generate", "a red apple", "--data-dir", str(data_dir), *line)
    assert (done.returncode, done.stdout) == (1, "")
    assert reason in done.stderr
    assert "Traceback" not in done.stderr


def test_a_picture_is_made_and_its_path_is_all_that_is_on_standard_output(data_dir: Path, tmp_path: Path) -> None:
    line = ["a red apple", "--data-dir", str(data_dir), "--steps", "4", "--seed", "7", "--batch-count", "2"]
    first = program("generate", *line, "--output", str(tmp_path / "first"))
    assert first.returncode == 0, first.stderr
    saved = [Path(path) for path in first.stdout.splitlines()]
    assert len(saved) == 2
    assert all(path.is_absolute() and path.is_relative_to(tmp_path / "first") for path in saved)
    assert re.search(r"Loading weights \[[0-9a-f]{10}\] from ", first.stderr)
    assert "\x1b" not in first.stderr
    with Image.open(saved[0]) as picture:
        assert picture.size == (128, 128)
        assert "a red apple" in picture.info["parameters"]
        assert "Seed: 7," in picture.info["parameters"]
        pixels = picture.tobytes()
    second = program("generate", *line, "-o", str(tmp_path / "second"))
    with Image.open(second.stdout.splitlines()[0]) as picture:
        assert picture.tobytes() == pixels


def test_a_new_data_folder_has_the_models_that_ship(tmp_path: Path) -> None:
    line = ["a fox, golden-night <lora:pixel-art:1>", "--vae", "emoji-128-ft-mse", "--steps", "2", "--seed", "7"]
    done = program("generate", *line, "--data-dir", str(tmp_path))
    assert done.returncode == 0, done.stderr
    with Image.open(done.stdout.strip()) as picture:
        text = picture.info["parameters"]
    for name in (
        "Model: emoji-128,",
        "VAE: emoji-128-ft-mse.",
        'TI hashes: "golden-night: ',
        'Lora hashes: "pixel-art: ',
    ):
        assert name in text


@posix_only
def test_ctrl_c_keeps_what_is_finished_and_says_so(data_dir: Path) -> None:
    line = ["generate", "a red apple", "--data-dir", str(data_dir), "--steps", "8", "--batch-count", "500"]
    process = subprocess.Popen(
        [sys.executable, "-m", "webui", *line],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=REPO_ROOT,
    )
    pictures = data_dir / "outputs"
    limit = time.monotonic() + 120
    while not list(pictures.rglob("*.png")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < limit
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert "Interrupting" in told
    assert "Traceback" not in told
    assert set(out.splitlines()) == {str(path) for path in pictures.rglob("*.png")}


# --- history ---------------------------------------------------------------------------------------------------------


def test_the_history_lists_what_was_generated_and_takes_in_a_folder(data_dir: Path, tmp_path: Path) -> None:
    here = ("--data-dir", str(data_dir))
    made = program("generate", "a red apple", *here, "--steps", "2", "--seed", "7", "--output", str(tmp_path / "other"))
    assert made.returncode == 0, made.stderr
    listed = run("history", "list", "--outputs-dir", str(tmp_path / "other"), *here)
    assert listed.exit_code == 0, listed.output
    assert re.fullmatch(r" +1 +\S+ \S+ +128x128 +7 a red apple\n", listed.stdout)
    assert run("history", "list", *here).stdout == ""
    imported = run("history", "import", str(tmp_path / "other"), *here)
    assert imported.stdout == "1 picture found: 1 added, 0 known already.\n", imported.output
    assert run("history", "list", "apple seed:7", *here).stdout.split()[3:] == ["128x128", "7", "a", "red", "apple"]
    assert Path(made.stdout.strip()).is_file()


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("seed=5", ("seed", 5)),
        ("cfg-scale=3.5", ("cfg_scale", 3.5)),
        ("prompt=1 = one", ("prompt", "1 = one")),
        ("sigmas=10,3,0", ("sigmas", [10, 3, 0])),
        ("image_format=webp", ("image_format", "webp")),
    ],
)
def test_a_replay_can_change_any_parameter(text: str, meant: tuple[str, Any]) -> None:
    assert history.change(text) == meant


@pytest.mark.parametrize("text", ["seed", "sede=5", "=5"])
def test_a_change_of_nothing_is_told(text: str) -> None:
    with pytest.raises(InvalidParams, match="names no parameter"):
        history.change(text)


# --- models ----------------------------------------------------------------------------------------------------------


def test_models_lists_files_with_family_size_and_hash_and_says_what_cannot_be_used(data_dir: Path) -> None:
    folder = data_dir / "models" / "Stable-diffusion"
    (folder / "torn.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    done = run("models", "--data-dir", str(data_dir))
    assert done.exit_code == 0, done.output
    rows = done.stdout.splitlines()
    assert rows[0].split() == ["kind", "name", "family", "size", "hash", "remark"]
    good = next(row for row in rows if EMBEDDED_CHECKPOINT.stem in row).split()
    size = f"{EMBEDDED_CHECKPOINT.stat().st_size / 2**20:.0f}"
    assert good[:4] == ["checkpoint", EMBEDDED_CHECKPOINT.name, "SD1", size]
    assert re.fullmatch(r"[0-9a-f]{10}", good[5])
    torn = next(row for row in rows if "torn" in row)
    assert len(torn.split()) > 6
    assert "hashing 1 of" in done.stderr


def test_models_can_do_without_hashes_and_knows_them_afterwards(data_dir: Path) -> None:
    done = run("models", "--data-dir", str(data_dir), "--no-hashes")
    assert done.stdout.splitlines()[1].split()[-1] == "-"
    assert "hashing" not in done.stderr
    run("models", "--data-dir", str(data_dir))
    again = run("models", "--data-dir", str(data_dir), "--no-hashes")
    assert re.fullmatch(r"[0-9a-f]{10}", again.stdout.splitlines()[1].split()[-1])


def test_no_models_at_all_is_told_with_the_place_to_put_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webui.paths.SHIPPED_MODELS", tmp_path / "none")
    assert "models/Stable-diffusion" in run("models", "--data-dir", str(tmp_path)).stdout


def test_a_data_folder_named_before_the_tool_holds_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Path] = []

    def target(_: str, paths: Paths) -> Path:
        seen.append(paths.data_dir)
        raise InvalidParams("That is enough.")

    monkeypatch.setattr(model_tools, "_target", target)
    first, second = (tmp_path / "first").resolve(), (tmp_path / "second").resolve()
    before, tool = ["models", "--data-dir", str(first)], ["prune", "any", "-o", "new"]
    assert cli.main([*before, *tool]) == 1
    assert cli.main([*before, *tool, "--data-dir", str(second)]) == 1
    assert seen == [first, second]


# --- doctor ----------------------------------------------------------------------------------------------------------


def test_doctor_reports_what_a_bug_report_needs_and_not_where_the_user_lives(data_dir: Path) -> None:
    done = program("doctor", "--data-dir", str(data_dir), "--use-cpu", HOME=str(data_dir.parent))
    told = done.stdout
    assert done.returncode == 0, told + done.stderr
    for line in (
        r"^Latent WebUI \d",
        r"^  Python    3\.",
        r"^  torch      2\.\d+",
        r"^  device     cpu: .+",
        r"^  precision  (bf16|fp32) \(VAE (bf16|fp32)\)\. \w.+\.$",
        r"^  attention  sdpa: available, in use",
        r"^  attention  xformers: (available|not available: .+)",
        rf"^  checkpoint  {re.escape(EMBEDDED_CHECKPOINT.name)}",
        r"^  outputs  ~/data/outputs: .+ free",
        r"^  device\.use_cpu = True",
        r"^  gradio 6\.",
        r"^To look at\n  nothing",
    ):
        assert re.search(line, told, re.MULTILINE), f"{line}\n{told}"
    assert str(data_dir.parent) not in told
    assert "\x1b" not in told


def _dies(*_: object) -> None:
    os._exit(11)


def test_a_torch_that_crashes_costs_one_section_and_not_the_report(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_engine_facts", _dies)
    text, healthy = doctor.report(Settings(), Paths.under(data_dir))
    assert not healthy
    assert "was ended by the system" in text
    assert EMBEDDED_CHECKPOINT.stem in text


FACTS = {
    "torch_version": "2.13.0+cpu",
    "threads": 2,
    "device": "cpu",
    "name": "a CPU",
    "total_memory": 2**30,
    "precision": "fp32",
    "vae_precision": "fp32",
    "reason": "No GPU.",
    "memory_mode": "normal",
    "backends": [],
    "kernels": {"name": "ours", "available": True},
}


@pytest.mark.parametrize(
    ("gpu_build", "card", "use_cpu", "told"),
    [(False, True, False, True), (True, True, False, False), (False, False, False, False), (False, True, True, False)],
)
def test_doctor_tells_that_torch_cannot_use_the_card_that_is_there(
    gpu_build: bool, card: bool, use_cpu: bool, told: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(doctor, "ask_engine", lambda *_: {**FACTS, "gpu_build": gpu_build})
    monkeypatch.setattr(doctor.shutil, "which", lambda name: name if card and name == "nvidia-smi" else None)
    _, faults = doctor.engine_section(changed(Settings(), {"device.use_cpu": use_cpu}), Paths.under(tmp_path))
    assert any("PIP_EXTRA_INDEX_URL=https://" in fault for fault in faults) is told


@pytest.mark.parametrize(
    ("home", "text", "shown"),
    [
        ("/home/ann", "in /home/ann/models, /home/ann.", "in ~/models, ~."),
        ("/home/ann", "/home/anna /mnt/home/ann file:///home/ann/x", "/home/anna /mnt/home/ann file://~/x"),
        ("/", "/data/outputs: 1/2", "/data/outputs: 1/2"),
    ],
)
@posix_only
def test_the_home_folder_is_left_out_of_the_report_where_a_path_begins_with_it(
    home: str, text: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", home)
    assert doctor.homeless(text) == shown


def test_a_home_folder_that_nobody_knows_is_no_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(doctor.Path, "home", nobody)
    assert doctor.homeless("/data") == "/data"


def test_doctor_names_a_package_that_is_missing_or_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    known = doctor.installed_versions

    def pretend(names: Any = doctor.WATCHED) -> dict[str, str]:
        return {
            name: "1.0" if name == "gradio" else version
            for name, version in known(names).items()
            if name != "tokenizers"
        }

    monkeypatch.setattr(doctor, "installed_versions", pretend)
    lines, faults = doctor.packages()
    assert "tokenizers is missing" in lines
    assert any(fault.startswith("gradio 1.0, and gradio") for fault in faults)
    assert any(fault.startswith("tokenizers is missing, and tokenizers") for fault in faults)


OFFLINE = {"HF_HUB_OFFLINE": "1"}


@pytest.mark.parametrize(
    ("versions", "environment", "word"),
    [
        ({"torch": "2.14.0"}, OFFLINE, "torch 2.14.0 is newer"),
        ({"torch": "2.13.0+cpu", "xformers": "0.0.34"}, OFFLINE, "xformers 0.0.34"),
        ({"opencv-python": "5", "opencv-python-headless": "5"}, OFFLINE, "overwrite each other"),
        ({"pynvml": "13.0.1"}, OFFLINE, "pynvml"),
        ({"celery": "5.7.0", "python-dateutil": "2.9.0.post0"}, OFFLINE, "celery 5.7.0"),
        ({}, {}, "HF_HUB_OFFLINE"),
    ],
)
def test_a_combination_that_is_known_to_fail_is_told(
    versions: dict[str, str], environment: dict[str, str], word: str
) -> None:
    found = bad_combinations(versions, environment)
    assert len(found) == 1
    assert word in found[0]


def test_the_packages_that_are_installed_here_get_along() -> None:
    assert bad_combinations(doctor.installed_versions(), OFFLINE) == []
    good = {"torch": "2.13.0+cpu", "xformers": "0.0.35", "opencv-python-headless": "5", "python-dateutil": "2.9"}
    assert bad_combinations(good, OFFLINE) == []
    assert release("2.13.0+cpu") == (2, 13, 0)
    assert release("") == ()


# --- test ------------------------------------------------------------------------------------------------------------


def test_all_checks_run_even_if_one_fails_and_pytest_gets_what_follows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[tuple[str, ...]] = []

    def module(words: tuple[str, ...], *, quiet: bool = False) -> tuple[int, str]:
        ran.append(tuple(words))
        return int(words[0] == "mypy"), "what it found\n" if quiet else ""

    monkeypatch.setattr(check, "module", module)
    monkeypatch.setattr(check, "install_tools", lambda steps: None)
    monkeypatch.setattr(check, "install_chromium", lambda steps: None)
    monkeypatch.setattr(check, "install_proxy", lambda steps: None)
    monkeypatch.setattr(check, "cores", lambda: 2)
    assert cli.main(["test", "-k", "queue", "tests/jobs", "--maxfail=1"]) == 1
    assert [words[0] for words in ran] == ["ruff", "ruff", "mypy", "pytest"]
    assert ran[-1] == ("pytest", "-n", "2", "--dist", "loadfile", "-k", "queue", "tests/jobs", "--maxfail=1")
    said = capsys.readouterr()
    assert "Failed: mypy." in said.err
    assert said.out.count("what it found") == 3


@pytest.mark.parametrize(
    ("there", "words", "spread"),
    [
        (1, ["-x"], []),
        (2, ["-x"], ["-n", "2", "--dist", "loadfile"]),
        (64, [], ["-n", "4", "--dist", "loadfile"]),
        (8, ["-n", "0"], []),
        (8, ["-n3"], []),
        (8, ["--pdb", "tests/jobs"], []),
    ],
)
def test_pytest_uses_the_cores_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, there: int, words: list[str], spread: list[str]
) -> None:
    monkeypatch.setattr(check, "cores", lambda: there)
    assert check.spread(words) == spread


def a_command(folder: Path, name: str, body: str) -> None:
    folder.mkdir(exist_ok=True)
    file = folder / name
    file.write_text(f"#!/bin/sh\n{body}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)


@posix_only
@pytest.mark.parametrize(
    ("there", "admin", "asked"),
    [
        ("chromium-headless-shell", [], False),
        ("chromium", ["sudo", "-n"], False),
        ("chromium", None, False),
        ("chromium", [], True),  # as root, in a container
    ],
)
def test_chromium_that_is_there_is_not_installed_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, there: str, admin: list[str] | None, asked: bool
) -> None:
    a_command(tmp_path / "bin", there, "exit 0")
    a_command(tmp_path / "bin", "apt-get", f"echo > {tmp_path}/asked; exit 100")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(check, "administrator", lambda: admin)
    check.install_chromium(Steps())
    assert (tmp_path / "asked").exists() == asked


@posix_only
@pytest.mark.parametrize("known", [True, False])
def test_chromium_comes_from_debian_where_that_is_allowed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, known: bool
) -> None:
    body = f'echo "$@" >> {tmp_path}/asked'
    if not known:  # releases before bookworm have one package alone
        body += '; case "$*" in *headless*) exit 100;; esac'
    a_command(tmp_path / "bin", "apt-get", body)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(check, "administrator", list)
    check.install_chromium(Steps())
    wanted = ["chromium-headless-shell"] if known else ["chromium-headless-shell", "chromium"]
    lines = (tmp_path / "asked").read_text().splitlines()
    assert [line.rpartition(" ")[2] for line in lines if "install" in line] == wanted
    assert {line for line in lines if "install" not in line} == {"-q update"}


@posix_only
def test_chromium_that_cannot_be_installed_is_told_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(WebUIError, match="sudo apt install chromium"):
        check.install_chromium(Steps())
    a_command(tmp_path / "bin", "apt-get", "echo E: no such package; exit 100")
    monkeypatch.setattr(check, "administrator", list)
    with pytest.raises(WebUIError, match="E: no such package"):
        check.install_chromium(Steps())
    monkeypatch.setattr(check, "administrator", lambda: None)
    with pytest.raises(WebUIError, match="On Debian"):
        check.install_chromium(Steps())


@posix_only
def test_nginx_is_installed_by_root_alone_and_is_no_condition(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a_command(tmp_path / "bin", "apt-get", f'echo "$RUNLEVEL $@" >> {tmp_path}/asked; echo E: no network; exit 100')
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(check, "ADMIN_FOLDERS", ())
    for other in (None, ["sudo", "-n"]):
        monkeypatch.setattr(check, "administrator", lambda other=other: other)
        check.install_proxy(Steps())
        assert "nginx and openssl not here" in capsys.readouterr().err
    assert not (tmp_path / "asked").exists()
    monkeypatch.setattr(check, "administrator", list)
    check.install_proxy(Steps())
    assert (tmp_path / "asked").read_text().splitlines() == [
        "1 -q update",
        "1 -q install -y --no-install-recommends nginx-light openssl",
    ]
    assert "skipped: E: no network" in capsys.readouterr().err
    for name in ("nginx", "openssl"):
        a_command(tmp_path / "bin", name, "exit 0")
    (tmp_path / "asked").unlink()
    check.install_proxy(Steps())
    assert not (tmp_path / "asked").exists()


@posix_only
def test_the_rights_to_install_are_root_s_or_sudo_s_without_a_password(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(check.os, "geteuid", lambda: 0)
    assert check.administrator() == []
    monkeypatch.setattr(check.os, "geteuid", lambda: 1000)
    assert check.administrator() is None
    a_command(tmp_path / "bin", "sudo", "exit 1")
    assert check.administrator() is None
    a_command(tmp_path / "bin", "sudo", 'test "$1" = -n')
    assert check.administrator() == [str(tmp_path / "bin" / "sudo"), "-n"]


def test_the_catalog_that_models_lists_is_the_one_the_engine_uses(data_dir: Path) -> None:
    catalog = Catalog(Paths.under(data_dir))
    try:
        assert [word for word, _ in models.listed(catalog)] == ["checkpoint"]
    finally:
        catalog.close()
