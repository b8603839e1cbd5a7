"""Parameters of every program, pasted as text, taken from the clipboard, and dropped as a picture into PNG info."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from PIL import Image, PngImagePlugin
from steps import wait_for

pytestmark = pytest.mark.browser

SEED = 2**53 + 1  # the first whole number that JavaScript's numbers do not hold
LINE = f"Steps: 9, Sampler: Euler a, Schedule type: Karras, CFG scale: 4.5, Seed: {SEED}, Size: 96x64"


@dataclass(frozen=True)
class Case:
    """What a program writes: `text` as it is copied, `chunks` as they are in a file; `unknown` is in neither of the
    form's fields, and has to be shown."""

    text: str
    unknown: str
    chunks: dict[str, str] = field(default_factory=dict)
    dialect: str = "A1111"
    schedule: str = "Karras"

    @property
    def png(self) -> bytes:
        info = PngImagePlugin.PngInfo()
        for key, value in (self.chunks or {"parameters": self.text}).items():
            info.add_text(key, value)
        buffer = io.BytesIO()
        Image.new("RGB", (96, 64), "green").save(buffer, "PNG", pnginfo=info)
        return buffer.getvalue()


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


GRAPH = {
    "3": node(
        "KSampler", seed=SEED, steps=9, cfg=4.5, sampler_name="euler_ancestral", scheduler="karras", denoise=1,
        model=["8", 0], positive=["6", 0], negative=["7", 0], latent_image=["5", 0],
    ),
    "4": node("CheckpointLoaderSimple", ckpt_name="other.safetensors"),
    "5": node("EmptyLatentImage", width=96, height=64, batch_size=1),
    "6": node("CLIPTextEncode", text="a fox", clip=["4", 1]),
    "7": node("CLIPTextEncode", text="rain", clip=["4", 1]),
    "8": node("FreeU", b1=1.1, model=["4", 0]),
}  # fmt: skip
WORKFLOW = {
    "version": 0.4,
    "links": [[1, 1, 0, 8, 0, "MODEL"], [9, 8, 0, 2, 0, "MODEL"], [2, 1, 1, 3, 0, "CLIP"], [3, 1, 1, 4, 0, "CLIP"],
              [4, 3, 0, 2, 1, "COND"], [5, 4, 0, 2, 2, "COND"], [6, 5, 0, 2, 3, "LATENT"]],
    "nodes": [
        {"id": 1, "type": "CheckpointLoaderSimple", "widgets_values": ["other.ckpt"]},
        {"id": 2, "type": "KSampler", "widgets_values": [SEED, "fixed", 9, 4.5, "euler_ancestral", "karras", 1],
         "inputs": [{"name": "model", "link": 9}, {"name": "positive", "link": 4}, {"name": "negative", "link": 5},
                    {"name": "latent_image", "link": 6}]},
        {"id": 3, "type": "CLIPTextEncode", "widgets_values": ["a fox"], "inputs": [{"name": "clip", "link": 2}]},
        {"id": 4, "type": "CLIPTextEncode", "widgets_values": ["rain"], "inputs": [{"name": "clip", "link": 3}]},
        {"id": 5, "type": "EmptyLatentImage", "widgets_values": [96, 64, 1]},
        {"id": 8, "type": "FreeU", "widgets_values": [1.1], "inputs": [{"name": "model", "link": 1}]},
    ],
}  # fmt: skip
INVOKEAI = {
    "positive_prompt": "a fox", "negative_prompt": "rain", "width": 96, "height": 64, "seed": SEED, "steps": 9,
    "cfg_scale": 4.5, "scheduler": "euler_k", "model": {"name": "other", "base": "sd-1"}, "hrf_enabled": True,
    "app_version": "5.0.0", "rand_device": "cpu",
}  # fmt: skip
SWARM = {
    "sui_image_params": {
        "prompt": "a fox", "negativeprompt": "rain", "model": "other", "seed": SEED, "steps": 9, "cfgscale": 4.5,
        "width": 96, "height": 64, "sampler": "euler_ancestral", "scheduler": "karras", "refinermethod": "PostApply",
    },
}  # fmt: skip
NOVELAI = {
    "prompt": "a fox", "uc": "rain", "steps": 9, "scale": 4.5, "seed": SEED, "sampler": "k_euler_ancestral",
    "noise_schedule": "karras", "width": 96, "height": 64,
}  # fmt: skip
EASY = {
    "Prompt": "a fox", "Negative Prompt": "rain", "Seed": str(SEED), "Stable Diffusion model": "other", "Width": "96",
    "Height": "64", "Steps": "9", "Guidance Scale": "4.5", "Sampler": "euler_a", "Hypernetwork Strength": "0.5",
}  # fmt: skip
FOOOCUS = {
    "metadata_scheme": "fooocus", "prompt": "a fox", "negative_prompt": "rain", "styles": "['Fooocus V2']",
    "resolution": "(96, 64)", "steps": 9, "guidance_scale": 4.5, "sampler": "euler_ancestral", "seed": str(SEED),
    "scheduler": "karras", "base_model": "other", "loras": [],
}  # fmt: skip
CIVITAI = '[{"type":"checkpoint","modelVersionId":1,"modelName":"Other","modelVersionName":"v1"}]'


def of_json(value: Any, chunk: str, **more: Any) -> Case:
    return Case(json.dumps(value), chunks={chunk: json.dumps(value)}, **more)


CASES = {
    "A1111": Case(f"a fox\nNegative prompt: rain\n{LINE}, Token merging ratio: 0.5, Version: v1.10.1", "Token merging"),
    "Forge": Case(
        f"a fox\nNegative prompt: rain\n{LINE}, Distilled CFG Scale: 3.5, Module 1: ae, Version: f2.0.1v1.10.1",
        "Module 1",
        dialect="Forge",
    ),
    "SD.Next": Case(
        f"a fox\nNegative prompt: rain\n{LINE}, App: SD.Next, Pipeline: StableDiffusionPipeline, Operations: txt2img",
        "Pipeline",
        dialect="SD.Next",
    ),
    "Fooocus": Case(
        f'a fox\nNegative prompt: rain\n{LINE}, Sharpness: 2, ADM Guidance: "(1.5, 0.8, 0.3)", Version: Fooocus v2.5.0',
        "Sharpness",
        dialect="Fooocus",
    ),
    "Civitai": Case(
        f"a fox\nNegative prompt: rain\n{LINE}, Created Date: 2026-01-01T00:00:00Z, Civitai resources: {CIVITAI}, "
        "Civitai metadata: {}",
        "",
        dialect="Civitai",
    ),
    "Fooocus JSON": of_json(FOOOCUS, "parameters", unknown="styles", dialect="Fooocus"),
    "ComfyUI prompt": of_json(GRAPH, "prompt", unknown="FreeU", dialect="ComfyUI"),
    "ComfyUI workflow": of_json(WORKFLOW, "workflow", unknown="FreeU", dialect="ComfyUI"),
    "InvokeAI": of_json(INVOKEAI, "invokeai_metadata", unknown="hrf_enabled", dialect="InvokeAI"),
    "SwarmUI": of_json(SWARM, "parameters", unknown="refinermethod", dialect="SwarmUI"),
    "NovelAI": Case(
        json.dumps(NOVELAI),
        "",
        chunks={"Software": "NovelAI", "Description": "a fox", "Comment": json.dumps(NOVELAI)},
        dialect="NovelAI",
    ),
    "Easy Diffusion": Case(
        json.dumps(EASY), "Hypernetwork Strength", chunks=EASY, dialect="Easy Diffusion", schedule="Automatic"
    ),
}
SAME = {"prompt": "a fox", "negative_prompt": "rain", "steps": 9, "cfg_scale": 4.5, "seed": str(SEED)}
SAME |= {"width": 96, "height": 64}


def check(page: Any, name: str, case: Case) -> None:
    """The form has everything, and what has no effect here is said below the prompt."""
    taken = page.locator(".taken")
    wait_for(page, "() => latent.form.values.steps === 9 && latent.form.values.prompt === 'a fox'")
    taken.locator("p[role=status]").filter(has_text="taken from").wait_for()
    values = page.evaluate("latent.form.values")
    assert {key: values[key] for key in SAME} == SAME, name
    sampler = "Euler" if name == "InvokeAI" else "Euler a"
    assert (values["sampler"], values["schedule"]) == (sampler, case.schedule), name
    assert case.unknown in (taken.text_content() or ""), name


def forget(page: Any) -> None:
    """Empty the form, and what was said of the text before."""
    page.evaluate("latent.form.reset(latent.form.spec.keys)")
    page.evaluate("document.querySelectorAll('.taken p[role=status]').forEach((said) => { said.textContent = ''; })")


def test_every_dialect_is_taken_from_the_prompt_box(page: Any) -> None:
    box = page.get_by_label("Prompt", exact=True)
    for name, case in CASES.items():
        forget(page)
        wait_for(page, "latent.form.values.steps === 20")
        box.fill(case.text)
        page.get_by_role("button", name="Paste parameters").click()
        check(page, name, case)


def test_dialects_are_taken_from_the_clipboard(pages: Any) -> None:
    """One of each kind: lines, a line of JSON, a program's whole file. They go the way of the others."""
    page = pages.open(pages.context(permissions=["clipboard-read", "clipboard-write"]))
    for name in ("A1111", "Civitai", "ComfyUI workflow"):
        case = CASES[name]
        forget(page)
        wait_for(page, "latent.form.values.steps === 20 && latent.form.values.prompt === ''")
        page.evaluate("text => navigator.clipboard.writeText(text)", case.text)
        page.get_by_role("button", name="Paste parameters").click()
        check(page, name, case)


def test_png_info_shows_a_picture_of_every_program(page: Any) -> None:
    page.get_by_role("tab", name="PNG info").click()
    result = page.locator(".png-info .result")
    for name, case in CASES.items():
        file = {"name": f"{name}.png", "mimeType": "image/png", "buffer": case.png}
        page.locator(".png-info input[type=file]").set_input_files(file)
        result.get_by_text(f"{name}.png · PNG · 96 × 64 · {case.dialect}").wait_for()
        rows = dict(result.locator("table").last.locator("tr").evaluate_all(
            "rows => rows.map(row => [...row.children].map(cell => cell.textContent))"
        ))  # fmt: skip
        told = {key: rows[key] for key in ("Prompt", "Negative prompt", "Steps", "CFG scale", "Seed", "Size")}
        assert told == {
            "Prompt": "a fox",
            "Negative prompt": "rain",
            "Steps": "9",
            "CFG scale": "4.5",
            "Seed": str(SEED),
            "Size": "96 × 64",
        }, name
        assert case.unknown in (result.text_content() or ""), name
