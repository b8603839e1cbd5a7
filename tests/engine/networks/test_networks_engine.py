"""LoRAs named in a prompt, through the whole engine on the real embedded model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from embedded import install_embedded
from engine_runs import QUICK, make_engine, run
from network_files import loaded, lora_tensors, notice, write, write_lora
from picture_inputs import keep, scene

from webui import infotext, pictures
from webui.engine import Engine
from webui.events import Loading
from webui.params import make_params

PROMPT = "a red apple"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine whose model folder holds a LoRA named film, with an alias, and another one named grain."""
    root = tmp_path_factory.mktemp("networks")
    install_embedded(root)
    engine = make_engine(root)
    write_lora(engine, "film", {"ss_output_name": "oldfilm", "ss_network_dim": "4"})
    write_lora(engine, "sub/grain", seed=9)
    engine._tools.catalog.refresh()
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def plain(engine: Engine) -> list[str]:
    return run(engine).digests


def digests(engine: Engine, tags: str, **fields: Any) -> list[str]:
    done = run(engine, prompt=f"{PROMPT}{tags}", **fields)
    assert [w.text for w in done.warnings] == []
    return done.digests


def test_a_lora_changes_the_picture_and_off_again_it_is_the_one_before(engine: Engine, plain: list[str]) -> None:
    changed = digests(engine, " <lora:film:0.8>")
    assert changed != plain
    assert digests(engine, "") == plain
    assert digests(engine, " <lora:film:0.8>") == changed


def test_weights_of_text_encoder_and_unet_are_apart(engine: Engine, plain: list[str]) -> None:
    both, text, unet = (digests(engine, f" <lora:film:{w}>") for w in ("0.5", "0.5:0", "0:0.5"))
    assert len({both[0], text[0], unet[0], plain[0]}) == 4
    assert digests(engine, " <lora:film:te=0.5:unet=0>") == text
    assert digests(engine, " <lora:film:0>") == plain


@pytest.mark.parametrize("name", ["oldfilm", "FILM", "film.safetensors"])
def test_a_lora_is_found_by_alias_and_in_any_case(name: str, engine: Engine) -> None:
    assert digests(engine, f" <lora:{name}:0.8>") == digests(engine, " <lora:film:0.8>")


def test_a_lora_is_found_by_its_hash(engine: Engine) -> None:
    catalog = engine._tools.catalog
    digest = catalog.sha256(next(m for m in catalog.loras if m.stem == "film"))
    assert digests(engine, f" <lora:{digest[:12]}:0.8>") == digests(engine, " <lora:film:0.8>")


def test_any_number_of_loras_at_once(engine: Engine) -> None:
    one, other = digests(engine, " <lora:film:0.5>"), digests(engine, " <lora:grain:0.5>")
    together = digests(engine, " <lora:film:0.5> <lora:grain:0.5>")
    assert len({one[0], other[0], together[0]}) == 3
    assert digests(engine, " <lora:film:0.25> <lora:film:0.25> <lora:grain:0.5>") == together


def test_a_second_picture_with_the_same_set_costs_no_pass_and_a_new_weight_one_for_each_network(engine: Engine) -> None:
    digests(engine, " <lora:film:0.61>")
    adapters = loaded(engine).adapters
    passes = adapters.passes
    digests(engine, " <lora:film:0.61>", seed=8)
    digests(engine, "", seed=8)
    digests(engine, " <lora:film:0.61>", seed=9)
    assert adapters.passes == passes
    digests(engine, " <lora:film:0.62>")
    assert adapters.passes == passes + 2


def test_a_step_range_acts_on_its_share_of_the_steps(engine: Engine, plain: list[str]) -> None:
    whole = digests(engine, " <lora:film:0.8:start=0:stop=1>")
    assert whole == digests(engine, " <lora:film:0.8>")
    first, last = digests(engine, " <lora:film:0.8:stop=0.5>"), digests(engine, " <lora:film:0.8:start=0.5>")
    assert len({whole[0], first[0], last[0], plain[0]}) == 4
    # In four steps, a range that ends before the second step and one that has not begun at the last are the same.
    assert digests(engine, " <lora:film:0.8:stop=0.2>") == digests(engine, " <lora:film:0.8:stop=0.25>")
    assert digests(engine, "") == plain


def test_a_step_range_that_holds_no_step_changes_nothing(engine: Engine, plain: list[str]) -> None:
    assert digests(engine, " <lora:film:1:start=0.8:stop=0.9>") == plain


def test_the_range_of_a_pass_that_starts_from_a_picture_is_of_its_own_steps(engine: Engine) -> None:
    init = {"image": keep(engine._tools.paths.outputs, scene(64, 64)), "denoising_strength": 0.4}
    tags = ("", " <lora:film:1>", " <lora:film:1:start=0.5>", " <lora:film:1:stop=0.5>")
    made = [digests(engine, tag, width=64, height=64, steps=8, init=init)[0] for tag in tags]  # four calls
    assert len(set(made)) == 4


def test_a_range_equals_the_sets_by_hand(engine: Engine) -> None:
    """Two LoRAs that take turns: film in the first half, grain in the second."""
    turns = digests(engine, " <lora:film:0.5:stop=0.5> <lora:grain:0.5:start=0.5>")
    assert turns != digests(engine, " <lora:film:0.5> <lora:grain:0.5>")
    assert turns == digests(engine, " <lora:grain:0.5:start=0.5> <lora:film:0.5:stop=0.5>")


def test_a_batch_whose_pictures_choose_different_loras_equals_its_singles(engine: Engine) -> None:
    fields = {**QUICK, "prompt": PROMPT + " {<lora:film:0.8>|<lora:grain:0.8>|}", "batch_size": 6, "width": 64}
    fields |= {"height": 64, "steps": 2}
    batch = run(engine, **fields)
    prompts = [infotext.parse(image.infotext).prompt for image in batch.images]
    assert len(set(prompts)) == 3
    for index in (0, 2, 5):
        assert run(engine, **make_params(fields).single(index).model_dump()).digests == [batch.digests[index]]


def test_the_counts_are_told_and_layers_that_do_not_fit_are_a_warning(engine: Engine) -> None:
    tensors = lora_tensors(loaded(engine), seed=3)
    whole = len(tensors) // 3
    write(engine._tools.paths.loras[-1] / "whole.safetensors", tensors)
    tensors["lora_unet_down_blocks_9_attentions_0_proj_in.lora_up.weight"] = torch.zeros(4, 4)
    write(engine._tools.paths.loras[-1] / "partly.safetensors", tensors)
    notice(engine)
    done = run(engine, prompt=f"{PROMPT} <lora:whole:1>")
    lines = [event.line for event in done.of(Loading) if event.what == "lora"]
    assert lines == [f"LoRA whole (LoRA): {whole} layers applied"]
    assert not done.warnings
    text = run(engine, prompt=f"{PROMPT} <lora:partly:1>").warnings[0].text
    assert text.startswith(f'Of the LoRA "partly", {whole} of {whole + 1} layers applied, 1 skipped')
    assert "lora_unet_down_blocks_9_attentions_0_proj_in" in text


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        ({"lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": (4, 768)}, "made for SDXL"),
        ({"transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight": (4, 3072)}, "Flux"),
        (
            {"lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight": (4, 768)},
            "768 numbers a token",
        ),
        ({"lora_unet_down_blocks_77_attentions_0_proj_in.lora_down.weight": (4, 32)}, "none of its 1 layers"),
    ],
)
def test_a_lora_of_another_family_is_refused_with_its_family_named(
    shapes: dict[str, tuple[int, ...]], said: str, engine: Engine, plain: list[str]
) -> None:
    tensors = {name: torch.zeros(shape) for name, shape in shapes.items()}
    write(engine._tools.paths.loras[-1] / "foreign.safetensors", tensors)
    notice(engine)
    done = run(engine, prompt=f"{PROMPT} <lora:foreign:1>")
    assert done.digests == plain
    assert [w.code for w in done.warnings] == ["network"]
    assert 'The LoRA "foreign" had no effect' in done.warnings[0].text
    assert said in done.warnings[0].text


def test_a_guidance_that_burns_the_pictures_of_a_distilled_lora_is_said_below_them(engine: Engine) -> None:
    write_lora(engine, "film-lcm", seed=4, size=0.01)

    def said(tag: str, cfg_scale: float) -> list[str]:
        done = run(engine, prompt=f"{PROMPT} {tag}", steps=1, width=64, height=64, cfg_scale=cfg_scale)
        return [w.text for w in done.warnings if w.code == "distilled"]

    (text,) = said("<lora:film-lcm:1>", 7.0)
    assert 'The LoRA "film-lcm" is made for few steps (LCM): a CFG scale of 7 is too strong' in text
    assert "LCM, SGM Uniform, 6 steps and CFG scale 1.5 suit it" in text
    assert said("<lora:film-lcm:1>", 2.0) == said("<lora:film-lcm:1:0>", 7.0) == said("", 7.0) == []


def test_layers_that_do_not_fit_are_told_of_a_lora_that_begins_later(engine: Engine) -> None:
    checkpoint = loaded(engine)
    tensors = {name: tensor for name, tensor in lora_tensors(checkpoint).items() if name.startswith("lora_unet")}
    tensors[next(name for name in tensors if name.endswith("up.weight"))] = torch.zeros(3, 4)
    path = write(engine._tools.paths.loras[-1] / "late.safetensors", tensors)
    notice(engine)
    for _ in range(2):
        done = run(engine, prompt="a <lora:late:1:start=0.5>", width=64, height=64, steps=2)
        assert ["1 skipped" in w.text for w in done.warnings] == [True]
    path.unlink()


def test_an_unknown_lora_is_named_with_its_nearest_and_the_picture_is_made(engine: Engine, plain: list[str]) -> None:
    done = run(engine, prompt=f"{PROMPT} <lora:fillm:1>")
    assert done.digests == plain
    assert done.warnings[0].text.startswith('There is no LoRA "fillm" here')
    assert 'Did you mean "film"' in done.warnings[0].text


@pytest.mark.parametrize(("tag", "said"), [("start=2", "between 0 and 1"), ("start=0.8:stop=0.2", "never acts")])
def test_an_impossible_range_is_said(tag: str, said: str, engine: Engine, plain: list[str]) -> None:
    done = run(engine, prompt=f"{PROMPT} <lora:film:1:{tag}>")
    assert done.digests == plain
    assert said in done.warnings[0].text


def test_the_parameters_text_has_the_hash_by_which_users_know_the_lora(engine: Engine) -> None:
    image = run(engine, prompt=f"{PROMPT} <lora:film:0.8>").images[0]
    catalog = engine._tools.catalog
    digest = catalog.addnet_hash(next(m for m in catalog.loras if m.stem == "film"))[:12]
    assert f'Lora hashes: "film: {digest}"' in image.infotext
    read = infotext.parse(pictures.read_text(Path(image.path).read_bytes())[0])
    assert read.lora_hashes == {"film": digest}
    assert read.params["prompt"] == f"{PROMPT} <lora:film:0.8>"


def test_the_picture_is_made_again_from_its_own_text(engine: Engine) -> None:
    image = run(engine, prompt=f"{PROMPT} <lora:film:0.7:start=0.3>").images[0]
    params = make_params({**infotext.parse(image.infotext).params, "checkpoint": None})
    assert run(engine, **params.model_dump()).digests == [image.pixels_sha256]


def test_a_lora_that_was_replaced_on_the_disk_is_read_anew(engine: Engine) -> None:
    path = write_lora(engine, "moving", seed=11)
    first = digests(engine, " <lora:moving:1>")
    write_lora(engine, "new", seed=12).replace(path)
    assert digests(engine, " <lora:moving:1>") != first
