"""Merging and pruning for the page: requests as words of the command line, and a real command in its own process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from embedded import EMBEDDED_CHECKPOINT

from webui.errors import InvalidParams
from webui.jobs.model_tools import ModelTools, arguments
from webui.paths import Paths

MERGE = {"tool": "merge", "a": "one", "b": "two", "output": "anime/mixed"}


def test_a_request_becomes_the_words_of_the_command() -> None:
    words, output = arguments({**MERGE, "method": "slerp", "alpha": 0.25, "vae": "v.safetensors"})
    assert output == "anime/mixed"
    assert words == ["merge", "--output=anime/mixed", "--precision=fp16", "--method=slerp", "--alpha=0.25",
                     "--vae=v.safetensors", "--", "one", "two"]  # fmt: skip
    assert arguments({"tool": "prune", "a": "--help", "output": "x", "ema": True})[0][-3:] == ["--ema", "--", "--help"]


@pytest.mark.parametrize(
    "change",
    [
        {"output": "../out"}, {"output": "/etc/x"}, {"output": "a\\b"}, {"output": ""}, {"output": "a/../b"},
        {"tool": "delete"}, {"tool": "convert"}, {"method": "average"}, {"precision": "fp8"}, {"alpha": "0.5"},
        {"alpha": True}, {"a": ""}, {"b": None}, {"a": 5}, {"shell": "rm"},
    ],
)  # fmt: skip
def test_a_bad_request_is_refused_before_anything_is_started(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidParams):
        arguments({**MERGE, **change})


def test_a_ckpt_is_converted_beside_itself_or_under_a_name() -> None:
    assert arguments({"tool": "convert", "a": "old/a.b.ckpt"}) == (
        ["convert", "--precision=keep", "--", "old/a.b.ckpt"], "old/a.b",
    )  # fmt: skip
    words, output = arguments({"tool": "convert", "a": "a.pt", "precision": "fp16", "output": "new/a"})
    assert (words, output) == (["convert", "--precision=fp16", "--output=new/a", "--", "a.pt"], "new/a")


def test_a_ckpt_of_the_list_becomes_a_safetensors_file_through_the_allow_list(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    folder = tmp_path / "models" / "Stable-diffusion"
    folder.mkdir(parents=True)
    torch.save({"state_dict": {"model.x": torch.arange(6.0)}}, folder / "old.ckpt")
    (folder / "old.yaml").write_text("model: {}")
    torch.save({"state_dict": torch.nn.Linear(2, 2)}, folder / "code.ckpt")
    tools = ModelTools(Paths.under(tmp_path))
    tools.start({"tool": "convert", "a": "old.ckpt", "output": "sub/new"})
    ended = tools.wait()
    assert (ended.code, ended.output) == (0, "sub/new"), ended.lines
    assert load_file(folder / "sub" / "new.safetensors")["model.x"].tolist() == [0, 1, 2, 3, 4, 5]
    assert (folder / "sub" / "new.yaml").read_text() == "model: {}"
    tools.start({"tool": "convert", "a": "code.ckpt"})
    ended = tools.wait()
    assert ended.code == 1
    assert "which a file of plain tensors never needs" in "\n".join(ended.lines)
    assert not (folder / "code.safetensors").exists()


def test_a_merge_runs_in_a_process_of_its_own_and_tells_its_words(data_dir: Path) -> None:
    tools = ModelTools(Paths.under(data_dir))
    stem = EMBEDDED_CHECKPOINT.stem
    tools.start({"tool": "merge", "a": stem, "b": stem, "output": "mixed"})
    with pytest.raises(InvalidParams, match="Another model is being made"):
        tools.start({**MERGE, "output": "other"})
    ended = tools.wait()
    assert (ended.running, ended.code, ended.output) == (False, 0, "mixed"), ended.lines
    assert (data_dir / "models" / "Stable-diffusion" / "mixed.safetensors").is_file()
    assert any("tensors were mixed" in line for line in ended.lines)
