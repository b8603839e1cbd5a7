"""docs/extensions.md: the worked example is the file that ships, and the other example runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

from embedded import install_embedded
from extensions.extension_folders import host_of, write_extension

from webui.engine import Engine
from webui.events import Image
from webui.params import make_params
from webui.paths import REPO_ROOT, Paths
from webui.settings import Settings

GUIDE = (REPO_ROOT / "docs" / "extensions.md").read_text(encoding="utf-8")


def test_the_worked_example_is_written_there_as_it_ships() -> None:
    shown = re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)\n```", GUIDE, flags=re.DOTALL)
    assert [name for name, _ in shown] == ["extensions/detail/extension.toml", "extensions/detail/engine.py"]
    for name, text in shown:
        assert text == (REPO_ROOT / name).read_text(encoding="utf-8").rstrip(), name
    assert len(shown[1][1].splitlines()) <= 60


def test_every_hook_is_in_the_table() -> None:
    from webui.extensions.specs import ENGINE_HOOKS, FRONT_HOOKS

    named = set(re.findall(r"`(\w+)\(", GUIDE.partition("## The hooks")[2].partition("## Scripts")[0]))
    assert named >= ENGINE_HOOKS | FRONT_HOOKS


def test_the_script_of_the_guide_makes_its_sheet(tmp_path: Path) -> None:
    code = next(text for text in re.findall(r"```python\n(.*?)```", GUIDE, flags=re.DOTALL) if "def cells" in text)
    write_extension(tmp_path, "steps-row", code, asks="expand")
    install_embedded(tmp_path)
    engine = Engine(Settings(), Paths.under(tmp_path), extensions=host_of(tmp_path))
    try:
        params = make_params({"prompt": "a red apple", "seed": 1, "extensions": {"steps-row": {}}})
        images = [event for event in engine.generate(params) if isinstance(event, Image)]
    finally:
        engine.close()
    assert len(images) == 4
    assert "txt2img-grids" in images[-1].path
    assert images[-1].width == 3 * images[0].width


def test_the_flag_of_the_guide_is_one_that_generate_takes() -> None:
    from typer.testing import CliRunner

    from webui.cli import command_line

    assert "generate" in GUIDE
    assert "--extension detail.amount=0.5" in GUIDE
    help_text = CliRunner().invoke(command_line("generate"), ["generate", "--help"], env={"COLUMNS": "200"}).output
    assert "--extension " in help_text
