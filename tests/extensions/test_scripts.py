"""Prompt matrix, prompts from a list, loopback, dynamic prompts, generate forever."""

from __future__ import annotations

from typing import Any

import pytest
from extensions.shipped import FakeDesk, answer, play, shipped_host

from webui.errors import InvalidParams
from webui.extensions import Cell, CellResult

HOST = shipped_host()


def test_every_shipped_extension_loads() -> None:
    names = {"detail", "dynamic-prompts", "generate-forever", "loopback", "presets", "prompt-matrix"}
    assert names | {"prompts-from-file", "xyz-plot"} <= set(HOST.manifests)
    assert HOST.problems == {}


# --- prompt matrix


def test_a_matrix_makes_every_combination_of_the_optional_parts() -> None:
    played = play(HOST, "prompt-matrix", {}, prompt="a castle | at night | in snow")
    assert [p.prompt for p in played.params] == [
        "a castle",
        "a castle, at night",
        "a castle, in snow",
        "a castle, at night, in snow",
    ]
    assert {p.seed for p in played.params} == {7}
    assert len(played.sheets) == 1
    assert dict(played.sheets[0].notes)["Grid layout"].startswith("2x2 of 16x16")


def test_a_matrix_can_put_the_options_first_join_by_spaces_vary_seeds_and_take_the_negative_prompt() -> None:
    values = {"put_at_start": True, "delimiter": "space", "different_seeds": True, "prompt_type": "negative"}
    played = play(HOST, "prompt-matrix", values, negative_prompt="blurry|dark|noisy")
    assert [p.negative_prompt for p in played.params][-1] == "dark noisy blurry"
    assert [p.seed for p in played.params] == [7, 8, 9, 10]
    assert {p.prompt for p in played.params} == {"a castle"}


def test_a_matrix_without_bars_or_with_too_many_is_refused() -> None:
    with pytest.raises(InvalidParams, match=r"no \|"):
        play(HOST, "prompt-matrix", {})
    with pytest.raises(InvalidParams, match="too many pictures"):
        play(HOST, "prompt-matrix", {}, prompt="|".join("abcdefghijklm"))


def test_commas_at_the_ends_of_parts_and_bars_of_a_choice_are_no_concern_of_the_matrix() -> None:
    played = play(HOST, "prompt-matrix", {}, prompt="a {red|blue} [cow|sheep], | at night, | , in snow")
    assert [p.prompt for p in played.params][-1] == "a {red|blue} [cow|sheep], at night, in snow"
    assert len(play(HOST, "prompt-matrix", {}, prompt="a [castle | at night").params) == 2


def test_drafts_of_a_large_matrix_do_not_take_more_time_than_its_pictures() -> None:
    assert len(play(HOST, "prompt-matrix", {}, prompt="a|b|c|d|e").drafts) < 8


# --- prompts from a list


def lines(text: str, desk: FakeDesk | None = None, fields: dict[str, Any] | None = None, **values: Any) -> Any:
    return play(HOST, "prompts-from-file", {"prompts": text, **values}, desk, **(fields or {}))


def test_each_line_is_a_prompt_and_empty_lines_and_comments_are_none() -> None:
    played = lines("a dog\n\n# a comment\n  a cat  \n")
    assert [p.prompt for p in played.params] == ["a dog", "a cat"]
    assert [p.seed for p in played.params] == [7, 7]


def test_flags_set_every_usual_field_and_prompts_run_on_without_quotes() -> None:
    line = (
        '--prompt a red dog --negative_prompt "blurry, dark" --steps 9 --cfg_scale 4.5 --seed 3 --subseed 4'
        " --subseed_strength 0.5 --sampler_name k_euler_a --batch_size 2 --n_iter 3 --width 32 --height 64"
        " --seed_resize_from_h 64 --seed_resize_from_w 32 --tiling true --do_not_save_grid true --sd_model one"
    )
    [params] = lines(line).params
    assert (params.prompt, params.negative_prompt) == ("a red dog", "blurry, dark")
    assert (params.steps, params.cfg_scale) == (9, 4.5)
    assert (params.seed, params.variation_seed, params.variation_strength) == (3, 4, 0.5)
    assert (params.sampler, params.batch_size, params.batch_count) == ("Euler a", 2, 3)
    assert (params.width, params.height, params.seed_resize_height, params.seed_resize_width) == (32, 64, 64, 32)
    assert (params.tiling_x, params.tiling_y, params.checkpoint) == (True, True, "one")


def test_styles_of_a_line_are_merged() -> None:
    [params] = lines('--prompt "a dog" --styles "noir, ink"').params
    assert params.prompt == "a dog, in the style of noir and ink"


@pytest.mark.parametrize("line", ["a dog --fast now", '--prompt "open', "--steps many", "--steps"])
def test_a_line_whose_flags_cannot_be_read_is_a_plain_prompt_and_that_is_said(line: str) -> None:
    played = lines(f"{line}\na cat")
    assert [p.prompt for p in played.params] == [line, "a cat"]
    assert "Line 1 was taken as a plain prompt" in played.expansion.notes[0]


def test_a_value_out_of_bounds_names_its_line_before_anything_is_made() -> None:
    with pytest.raises(InvalidParams, match="Line 2: steps"):
        lines("a dog\n--prompt x --steps 100000")


def test_seeds_count_up_by_line_or_are_drawn_once_or_for_each_line() -> None:
    assert [p.seed for p in lines("a\nb\nc", iterate_seed=True).params] == [7, 8, 9]
    text = "--prompt a --seed -1\n--prompt b --seed -1"
    apart, again, same = ([p.seed for p in lines(text, same_seed=one).params] for one in (False, False, True))
    assert len(set(apart)) == 2
    assert apart == again
    assert len(set(same)) == 1


def test_an_open_seed_of_the_form_is_drawn_for_each_line_unless_they_share_it() -> None:
    apart, again, same, counted = (
        [p.seed for p in lines("a\nb", seed_drawn=True, **one).params]
        for one in ({}, {}, {"same_seed": True}, {"iterate_seed": True})
    )
    assert len(set(apart)) == 2
    assert apart == again
    assert (same, counted) == ([7, 7], [7, 8])


def test_flags_that_mean_none_or_faces_and_sides_between_cells_are_understood() -> None:
    line = '--prompt "a dog" --restore_faces true --seed_resize_from_w -1 --seed_resize_from_h -1 --width 509'
    [params] = lines(line).params
    assert params.faces is not None
    assert (params.seed_resize_width, params.seed_resize_height, params.width) == (0, 0, 504)
    assert lines("--prompt x --restore_faces false", fields={"faces": {}}).params[0].faces is None


@pytest.mark.parametrize(("position", "prompt"), [("none", "a dog"), ("start", "big a dog"), ("end", "a dog big")])
def test_the_form_s_prompt_may_stand_before_or_after_each_line(position: str, prompt: str) -> None:
    assert lines("a dog", fields={"prompt": "big"}, prompt_position=position).params[0].prompt == prompt


# --- loopback


def test_loopback_feeds_each_picture_back_with_a_strength_along_the_curve() -> None:
    desk = FakeDesk()
    values = {"loops": 3, "final_denoising_strength": 0.9}
    init = {"image": "f" * 64, "denoising_strength": 0.5}
    played = play(HOST, "loopback", values, desk, init=init)
    starts = [p.init for p in played.params if p.init]
    assert [start.image for start in starts] == ["f" * 64, f"{1:064x}", f"{2:064x}"]
    assert [round(start.denoising_strength, 6) for start in starts] == [0.5, 0.7, 0.9]
    assert [p.seed for p in played.params] == [7, 8, 9]
    assert desk.kept[0].getpixel((0, 0)) == (7, 20, 0)
    assert played.sheets[0].picture.size == (48, 16)


@pytest.mark.parametrize(("curve", "middle"), [("Aggressive", 0.707107), ("Linear", 0.5), ("Lazy", 0.292893)])
def test_the_curve_decides_how_soon_the_final_strength_is_near(curve: str, middle: float) -> None:
    values = {"loops": 3, "final_denoising_strength": 1.0, "denoising_curve": curve}
    played = play(HOST, "loopback", values, init={"image": "f" * 64, "denoising_strength": 0.0})
    assert [round(p.init.denoising_strength, 6) for p in played.params if p.init] == [0.0, middle, 1.0]


def test_loopback_without_a_picture_draws_the_first_one_and_takes_each_picture_of_a_batch_apart() -> None:
    played = play(HOST, "loopback", {"loops": 2}, batch_size=2)
    assert [bool(p.init) for p in played.params] == [False, True, False, True]
    assert [p.seed for p in played.params] == [7, 8, 8, 9]
    assert {p.pictures for p in played.params} == {1}


def test_what_is_done_to_a_picture_once_is_done_in_the_first_loop() -> None:
    drawn = play(HOST, "loopback", {"loops": 3}, hires={}).params
    assert [bool(p.hires) for p in drawn] == [True, False, False]
    init = {"image": "f" * 64}
    masked = play(HOST, "loopback", {"loops": 2}, init=init, inpaint={"mask": "1" * 64, "fill": "latent noise"}).params
    assert [p.inpaint and (p.inpaint.mask[0], p.inpaint.fill) for p in masked] == [
        ("1", "latent noise"),
        ("1", "original"),
    ]
    enlarged = play(HOST, "loopback", {"loops": 2}, init=init, sd_upscale={}).params
    assert [bool(p.sd_upscale) for p in enlarged] == [True, False]


def test_loopback_with_outpainting_is_refused_before_anything_is_made() -> None:
    with pytest.raises(InvalidParams, match="at its sides"):
        play(HOST, "loopback", {}, init={"image": "f" * 64, "frame": {"left": 64}}, inpaint={})


# --- dynamic prompts


def test_every_combination_of_variants_and_wildcards_is_made_once() -> None:
    desk = FakeDesk({"beast": ["cat", "{old|young} dog"]})
    prompt = "a {red|blue} __beast__, __missing__"
    played = play(HOST, "dynamic-prompts", {}, desk, prompt=prompt)
    assert [p.prompt for p in played.params] == [
        f"a {colour} {beast}, __missing__" for colour in ("red", "blue") for beast in ("cat", "old dog", "young dog")
    ]
    assert not any(p.wildcards for p in played.params)
    assert played.expansion.notes == ("There is no wildcard __missing__; it was left as it is.",)
    several = play(HOST, "dynamic-prompts", {"different_seeds": True}, prompt="{2$$ and $$a|b|c}")
    assert [p.prompt for p in several.params] == ["a and b", "a and c", "b and c"]
    assert [p.seed for p in several.params] == [7, 8, 9]


def test_a_second_pass_has_the_choices_of_its_picture_and_every_combination_of_its_own() -> None:
    alike = play(HOST, "dynamic-prompts", {}, prompt="a {red|blue} hut", hires={"prompt": "{red|blue}, sharp"})
    made = [(p.prompt, p.hires.prompt) for p in alike.params if p.hires]
    assert made == [("a red hut", "red, sharp"), ("a blue hut", "blue, sharp")]
    apart = play(HOST, "dynamic-prompts", {}, prompt="a {red|blue} hut", hires={"negative_prompt": "{dark|soft}"})
    assert [(p.prompt, p.hires.negative_prompt) for p in apart.params if p.hires] == [
        *(("a red hut", "dark"), ("a red hut", "soft")),
        *(("a blue hut", "dark"), ("a blue hut", "soft")),
    ]


def test_too_many_combinations_are_refused_and_cost_nothing() -> None:
    with pytest.raises(InvalidParams, match="more than 100 combinations"):
        play(HOST, "dynamic-prompts", {}, prompt=" ".join(["{a|b|c|d|e|f|g|h}"] * 40))
    recursive = FakeDesk({"x": ["__x__ a", "__x__ b"]})
    with pytest.raises(InvalidParams, match="combinations"):
        play(HOST, "dynamic-prompts", {}, recursive, prompt="__x__")


# --- generate forever


def test_rounds_have_seeds_of_their_own_that_follow_from_the_first_and_end_with_an_interrupt() -> None:
    def make(cell: Cell) -> CellResult:
        return CellResult(interrupted=True) if cell.label == "round 5" else answer(cell)

    first, second = (play(HOST, "generate-forever", {}, make=make) for _ in "ab")
    seeds = [p.seed for p in first.params]
    assert seeds[0] == 7
    assert len(set(seeds)) == 5
    assert seeds == [p.seed for p in second.params]
    assert len(play(HOST, "generate-forever", {"most": 3}).cells) == 3
