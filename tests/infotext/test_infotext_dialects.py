"""The metadata of other programs: what maps is mapped, the rest is shown, and nothing in it can do harm."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from webui import infotext
from webui.infotext import bounded_json
from webui.infotext.model import ParsedInfotext
from webui.params import make_params


def read(value: Any) -> ParsedInfotext:
    parsed = infotext.parse(json.dumps(value))
    make_params(parsed.params)
    return parsed


def some(parsed: ParsedInfotext, *names: str) -> tuple[Any, ...]:
    return tuple(parsed.params.get(name) for name in names)


# --- ComfyUI ---------------------------------------------------------------------------------------------------------

GRAPH: dict[str, Any] = {
    "3": {
        "class_type": "KSampler",
        "inputs": {
            "seed": 77, "steps": 25, "cfg": 6.5, "sampler_name": "dpmpp_2m_sde_gpu", "scheduler": "karras",
            "denoise": 1,
            "model": ["12", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0],
        },
    },
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "SDXL\\juggernaut.safetensors"}},
    "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 832, "height": 1216, "batch_size": 1}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": ["20", 0], "clip": ["11", 0]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "ugly", "clip": ["11", 0]}},
    "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["14", 0]}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": "x"}},
    "10": {"class_type": "LoraLoader", "inputs": {
        "lora_name": "film.safetensors", "strength_model": 0.8, "strength_clip": 0.5, "model": ["4", 0],
        "clip": ["4", 1],
    }},
    "11": {"class_type": "CLIPSetLastLayer", "inputs": {"stop_at_clip_layer": -2, "clip": ["10", 1]}},
    "12": {"class_type": "RescaleCFG", "inputs": {"multiplier": 0.7, "model": ["13", 0]}},
    "13": {"class_type": "FreeU", "inputs": {"b1": 1.1, "model": ["10", 0]}},
    "14": {"class_type": "VAELoader", "inputs": {"vae_name": "sdxl.vae.safetensors"}},
    "20": {"class_type": "PrimitiveString", "inputs": {"value": "a cat"}},
}  # fmt: skip


def test_a_comfyui_graph_is_walked_from_its_output_to_its_inputs() -> None:
    parsed = read(GRAPH)
    assert parsed.dialect == "ComfyUI"
    assert (parsed.prompt, parsed.negative_prompt) == ("a cat <lora:film:0.5:0.8>", "ugly")
    assert some(parsed, "seed", "steps", "cfg_scale", "sampler", "schedule") == (77, 25, 6.5, "DPM++ 2M SDE", "Karras")
    assert some(parsed, "width", "height", "checkpoint", "vae") == (832, 1216, "juggernaut", "sdxl.vae.safetensors")
    assert some(parsed, "clip_skip", "cfg_rescale", "rng") == (2, 0.7, "CPU")
    assert [entry.value for entry in parsed.not_understood] == ["FreeU"]


def test_a_second_pass_is_passed_over_for_the_first() -> None:
    graph = {
        **GRAPH,
        "30": {"class_type": "LatentUpscale", "inputs": {"samples": ["3", 0], "width": 1664, "height": 2432}},
        "31": {**GRAPH["3"], "inputs": {**GRAPH["3"]["inputs"], "steps": 9, "denoise": 0.5, "latent_image": ["30", 0]}},
        "8": {"class_type": "VAEDecode", "inputs": {"samples": ["31", 0], "vae": ["14", 0]}},
    }
    parsed = read(graph)
    assert some(parsed, "steps", "width") == (25, 832)
    assert parsed.not_understood[0].reason == "of several sampling passes the first was read"


def test_custom_sampling_nodes_are_followed() -> None:
    graph = {
        "1": {"class_type": "SamplerCustomAdvanced", "inputs": {
            "noise": ["2", 0], "guider": ["3", 0], "sampler": ["4", 0], "sigmas": ["5", 0], "latent_image": ["6", 0]}},
        "2": {"class_type": "RandomNoise", "inputs": {"noise_seed": 9}},
        "3": {"class_type": "CFGGuider", "inputs": {
            "cfg": 3.5, "model": ["7", 0], "positive": ["8", 0], "negative": ["9", 0]}},
        "4": {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "euler"}},
        "5": {"class_type": "KarrasScheduler", "inputs": {"steps": 12, "sigma_max": 14.6, "sigma_min": 0.03, "rho": 7}},
        "6": {"class_type": "EmptySD3LatentImage", "inputs": {"width": 512, "height": 512}},
        "7": {"class_type": "UNETLoader", "inputs": {"unet_name": "flux.safetensors"}},
        "8": {"class_type": "ConditioningCombine", "inputs": {"conditioning_1": ["10", 0], "conditioning_2": ["11",
        0]}},
        "9": {"class_type": "ConditioningZeroOut", "inputs": {"conditioning": ["10", 0]}},
        "10": {"class_type": "CLIPTextEncode", "inputs": {"text": "a"}},
        "11": {"class_type": "CLIPTextEncode", "inputs": {"text": "b"}},
        "12": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}},
    }  # fmt: skip
    parsed = read(graph)
    assert (parsed.prompt, parsed.negative_prompt) == ("a AND b", "")
    assert some(parsed, "seed", "steps", "cfg_scale", "sampler", "schedule") == (9, 12, 3.5, "Euler", "Karras")
    assert parsed.params["checkpoint"] == "flux"


WORKFLOW: dict[str, Any] = {
    "version": 0.4,
    "links": [[1, 1, 0, 2, 0, "MODEL"], [2, 1, 1, 3, 0, "CLIP"], [3, 1, 1, 4, 0, "CLIP"], [4, 3, 0, 2, 1, "COND"],
              [5, 4, 0, 2, 2, "COND"], [6, 5, 0, 2, 3, "LATENT"], [7, 2, 0, 6, 0, "LATENT"], [8, 6, 0, 7, 0, "IMAGE"]],
    "nodes": [
        {"id": 1, "type": "CheckpointLoaderSimple", "widgets_values": ["m.ckpt"]},
        {"id": 2, "type": "KSampler", "widgets_values": [5, "randomize", 20, 8, "euler_ancestral", "normal", 1],
         "inputs": [{"name": "model", "link": 9}, {"name": "positive", "link": 4}, {"name": "negative", "link": 5},
                    {"name": "latent_image", "link": 6}]},
        {"id": 3, "type": "CLIPTextEncode", "widgets_values": ["a dog"], "inputs": [{"name": "clip", "link": 2}]},
        {"id": 4, "type": "CLIPTextEncode", "widgets_values": ["bad"], "inputs": [{"name": "clip", "link": 3}]},
        {"id": 5, "type": "EmptyLatentImage", "widgets_values": [640, 512, 4]},
        {"id": 6, "type": "VAEDecode", "inputs": [{"name": "samples", "link": 7}]},
        {"id": 7, "type": "SaveImage", "widgets_values": ["x"], "inputs": [{"name": "images", "link": 8}]},
        {"id": 8, "type": "LoraLoader", "mode": 4, "widgets_values": ["l", 1, 1], "inputs": [{"name": "model",
         "link": 1}]},
    ],
}  # fmt: skip
WORKFLOW["links"].append([9, 8, 0, 2, 0, "MODEL"])


def test_a_drawn_workflow_is_read_like_the_graph_and_bypassed_nodes_only_forward() -> None:
    parsed = read(WORKFLOW)
    assert (parsed.prompt, parsed.negative_prompt) == ("a dog", "bad")
    assert some(parsed, "seed", "steps", "cfg_scale", "sampler", "schedule") == (5, 20, 8.0, "Euler a", "Normal")
    assert some(parsed, "width", "height", "checkpoint") == (640, 512, "m")


def test_comfyui_text_chunks_are_found_without_a_parameters_text() -> None:
    chunks = {"prompt": json.dumps(GRAPH), "workflow": json.dumps(WORKFLOW)}
    assert infotext.parse_chunks("", chunks).params["seed"] == 77
    assert infotext.parse_chunks("", {"workflow": chunks["workflow"]}).params["seed"] == 5
    assert read({"prompt": GRAPH, "workflow": WORKFLOW}).params["seed"] == 77


def test_a_parameters_text_wins_over_the_graph_beside_it() -> None:
    parsed = infotext.parse_chunks("x\nSteps: 3, Sampler: Euler, Seed: 4", {"prompt": json.dumps(GRAPH)})
    assert (parsed.prompt, parsed.params["seed"]) == ("x", 4)


@pytest.mark.timeout(20)
def test_graphs_that_run_in_circles_or_lead_nowhere_end() -> None:
    circle = json.loads(json.dumps(GRAPH))
    circle["4"]["inputs"] = {"model": ["12", 0]}
    circle["20"]["inputs"] = {"value": ["20", 0]}
    circle["5"]["inputs"] = {"samples": ["3", 0]}
    assert read(circle).params["seed"] == 77
    chain = {str(i): {"class_type": "X", "inputs": {"a": [str(i + 1), 0], "b": [str(i + 2), 0]}} for i in range(4000)}
    read({**chain, "s": {"class_type": "KSampler", "inputs": {"positive": ["0", 0], "steps": 3, "model": ["0", 0]}}})
    many = {
        str(i): {"class_type": "K", "inputs": {"positive": 1, "steps": 2, "latent_image": [str(i + 1), 0]}}
        for i in range(4000)
    }
    read(many)
    assert read({"1": {"class_type": "SaveImage", "inputs": {}}}).not_understood


# --- the others ------------------------------------------------------------------------------------------------------


def test_swarmui() -> None:
    parsed = read(
        {
            "sui_image_params": {
                "prompt": "a cat", "negativeprompt": "bad", "model": "Official/sd_xl_base_1.0", "seed": 3, "steps": 20,
                "cfgscale": 7.5, "width": 1024, "height": 768, "sampler": "dpmpp_2m", "scheduler": "karras",
                "loras": ["film", "b"], "loraweights": ["0.5"], "clipstopatlayer": -2, "swarm_version": "0.9",
                "refinermethod": "PostApply", "automaticvae": True, "rescalecfgmultiplier": 0.5,
            },
            "sui_models": [{"name": "sd_xl_base_1.0.safetensors", "param": "model", "hash": "0x31e35c80fc"}],
        }
    )  # fmt: skip
    assert parsed.dialect == "SwarmUI"
    assert parsed.prompt == "a cat <lora:film:0.5><lora:b:1>"
    assert some(parsed, "steps", "cfg_scale", "width", "height", "clip_skip") == (20, 7.5, 1024, 768, 2)
    assert some(parsed, "sampler", "schedule", "checkpoint", "cfg_rescale") == (
        "DPM++ 2M",
        "Karras",
        "sd_xl_base_1.0",
        0.5,
    )
    assert {entry.key for entry in parsed.not_understood} == {"refinermethod", "automaticvae"}
    assert ("checkpoint", "sd_xl_base_1.0", "31e35c80fc") in [(r.kind, r.name, r.digest) for r in parsed.resources]


def test_invokeai_of_three_generations() -> None:
    new = {
        "generation_mode": "txt2img", "positive_prompt": "a", "negative_prompt": "b", "width": 512, "height": 640,
        "seed": 8, "rand_device": "cpu", "cfg_scale": 7.5, "cfg_rescale_multiplier": 0, "steps": 30, "clip_skip": 1,
        "scheduler": "dpmpp_2m_sde_k", "model": {"name": "dreamshaper", "hash": "blake3:abc", "base": "sd-1"},
        "loras": [{"model": {"name": "film"}, "weight": 0.75}], "vae": {"name": "mse"}, "app_version": "5.0.0",
    }  # fmt: skip
    parsed = infotext.parse_chunks("", {"invokeai_metadata": json.dumps(new)})
    assert parsed.dialect == "InvokeAI"
    assert (parsed.prompt, parsed.negative_prompt) == ("a <lora:film:0.75>", "b")
    assert some(parsed, "sampler", "schedule", "clip_skip", "rng") == ("DPM++ 2M SDE", "Karras", 2, "CPU")
    assert some(parsed, "checkpoint", "vae", "seed", "height") == ("dreamshaper", "mse", 8, 640)
    second = {
        "model_weights": "sd-v1-5", "app_version": "2.3.0",
        "image": {"prompt": [{"prompt": "a cat [ugly]", "weight": 1}], "steps": 50, "cfg_scale": 7.5, "seed": 1,
                  "width": 512, "height": 512, "sampler": "k_euler_a", "type": "txt2img"},
    }  # fmt: skip
    parsed = infotext.parse_chunks("", {"sd-metadata": json.dumps(second)})
    assert (parsed.prompt, parsed.negative_prompt, parsed.params["sampler"]) == ("a cat", "ugly", "Euler a")
    first = '"a \\"fine\\" cat" -s 50 -S 123 -W 512 -H 384 -C 7.5 -A k_lms'
    parsed = infotext.parse_chunks("", {"Dream": first})
    assert parsed.prompt == 'a "fine" cat'
    assert some(parsed, "steps", "seed", "height", "cfg_scale", "sampler") == (50, 123, 384, 7.5, "LMS")


def test_novelai_as_a1111_converts_it() -> None:
    comment = {"steps": 28, "sampler": "k_euler_ancestral", "seed": 1, "strength": 0.7, "scale": 11.0, "uc": "lowres"}
    chunks = {"Software": "NovelAI", "Description": "1girl, {solo}", "Comment": json.dumps(comment)}
    parsed = infotext.parse_chunks("", chunks, size=(512, 768))
    assert (parsed.dialect, parsed.prompt, parsed.negative_prompt) == ("NovelAI", "1girl, {solo}", "lowres")
    assert parsed.fields == {
        "Steps": "28", "Sampler": "Euler a", "CFG scale": "11", "Seed": "1", "Size-1": "512", "Size-2": "768",
        "Clip skip": "2", "ENSD": "31337",
    }  # fmt: skip
    assert some(parsed, "clip_skip", "ensd", "width") == (2, 31337, 512)


def test_fooocus_json_and_its_log() -> None:
    parsed = read(
        {
            "metadata_scheme": "fooocus", "prompt": "a cat", "negative_prompt": "", "styles": "['Fooocus V2']",
            "resolution": "(1152, 896)", "steps": 30, "guidance_scale": 4.0, "sampler": "dpmpp_2m_sde_gpu",
            "seed": "42",
            "scheduler": "karras", "base_model": "juggernautXL_v8", "base_model_hash": "aeb7e9e689", "clip_skip": 2,
            "loras": [["offset", 0.1, "4852686128"]], "vae": "Default (model)", "version": "Fooocus v2.5.0",
        }
    )  # fmt: skip
    assert parsed.dialect == "Fooocus"
    assert parsed.prompt == "a cat <lora:offset:0.1>"
    assert some(parsed, "width", "height", "seed", "sampler") == (1152, 896, 42, "DPM++ 2M SDE")
    assert parsed.params["checkpoint"] == "juggernautXL_v8 [aeb7e9e689]"
    assert "styles" in {entry.key for entry in parsed.not_understood}
    log = read(
        {"Prompt": "b", "Negative Prompt": "n", "Resolution": "(512, 512)", "Guidance Scale": 5,
         "Base Model": "m.safetensors",
         "Sampler": "euler", "Scheduler": "simple", "Seed": 1, "LoRA 1": "film.safetensors : 0.5"}
    )  # fmt: skip
    assert (log.prompt, log.params["checkpoint"], log.params["cfg_scale"]) == ("b <lora:film:0.5>", "m", 5.0)


def test_easy_diffusion_by_chunks_and_by_json() -> None:
    chunks = {
        "Prompt": "a", "Negative Prompt": "b", "Seed": "5", "Stable Diffusion model": "sd-v1-4", "Clip Skip": "True",
        "VAE model": "None", "Sampler": "euler_a", "Width": "512", "Height": "448", "Steps": "25",
        "Guidance Scale": "7.5", "LoRA model": "film", "LoRA Strength": "0.4",
    }  # fmt: skip
    parsed = infotext.parse_chunks("", chunks)
    assert (parsed.dialect, parsed.prompt) == ("Easy Diffusion", "a <lora:film:0.4>")
    assert some(parsed, "seed", "steps", "width", "height", "sampler") == (5, 25, 512, 448, "Euler a")
    request = {"prompt": "a", "num_inference_steps": 9, "guidance_scale": 2, "sampler_name": "ddim", "seed": 1}
    assert some(read({"reqBody": request}), "steps", "sampler") == (9, "DDIM")


def test_a_request_of_ours_or_alike_is_read() -> None:
    parsed = read({"prompt": "a", "steps": 9, "sampler_name": "Euler a", "width": 512, "height": 512, "override": 1})
    assert some(parsed, "prompt", "steps", "sampler", "width") == ("a", 9, "Euler a", 512)
    assert "rng" not in parsed.params
    assert [entry.key for entry in parsed.not_understood] == ["override"]


def test_json_that_says_nothing_known_is_a_text() -> None:
    for text in ("{}", "{not json", '{"a": 1}', "[1, 2]"):
        assert infotext.parse(text).prompt == text


# --- hostile metadata ------------------------------------------------------------------------------------------------


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"prompt": ' + "9" * 100_000 + "}",
        '{"prompt": NaN}',
        json.dumps({"prompt": {str(i): {"class_type": "x", "inputs": {}} for i in range(50_000)}}),
        '{"a": "' + "x" * (bounded_json.MAX_LENGTH + 1) + '"}',
        '{"sui_image_params": {"seed": 1e999, "prompt": {"a": []}, "loras": [[], {}, null], "width": -1}}',
    ],
)
def test_deep_long_and_odd_json_is_bounded(text: str) -> None:
    make_params(infotext.parse(text).params)


def test_H075_markup_stays_text() -> None:
    parsed = read({**GRAPH, "20": {"class_type": "PrimitiveString", "inputs": {"value": "<script>alert(1)</script>"}}})
    assert parsed.prompt.startswith("<script>alert(1)</script>")


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["prompt", "nodes", "links", "class_type", "inputs", "image", "sui_image_params", "positive_prompt",
             "uc", "scale",
             "base_model", "loras", "model", "reqBody", "steps", "positive", "seed", "widgets_values", "type", "id",
             "1"]
        ),
        inner,
        max_size=5,
    ),
    max_leaves=20,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(trees)
def test_any_json_is_read_without_an_error(value: Any) -> None:
    make_params(infotext.parse(json.dumps(value)).params)
    make_params(
        infotext.parse_chunks(
            "", {"prompt": json.dumps(value), "Comment": json.dumps(value), "Software": "NovelAI"}
        ).params
    )


MUTABLE = [GRAPH, WORKFLOW]
links = st.sampled_from(['[["1", 0]]', '["3", 0]']).map(json.loads)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(MUTABLE), st.randoms(use_true_random=False), scalars | links)
def test_a_damaged_graph_is_read_without_an_error(graph: Any, random: Any, value: Any) -> None:
    damaged = json.loads(json.dumps(graph))
    for _ in range(3):
        place = damaged
        while isinstance(place, dict | list) and place:
            key = random.choice(list(place) if isinstance(place, dict) else range(len(place)))
            if random.random() < 0.3 or not isinstance(place[key], dict | list):
                place[key] = copy.deepcopy(value)
                break
            place = place[key]
    make_params(infotext.parse(json.dumps(damaged)).params)
