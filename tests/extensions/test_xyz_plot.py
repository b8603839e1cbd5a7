"""X/Y/Z plot: values as users write them, the order of the cells, legends, failures, and every axis."""

from __future__ import annotations

import itertools
import sys
from typing import Any

import pytest
from extensions.shipped import FakeDesk, Played, answer, play, shipped_host
from PIL import Image

from webui.api.sdapi.scripts import read_scripts
from webui.errors import InvalidParams
from webui.extensions import Cell, CellResult
from webui.extensions.door import checked, panels_of
from webui.extensions.scripts import values_of_scripts
from webui.params import GenerationParams, make_params

HOST = shipped_host()
NAME = "xyz-plot"


def plot(make: Any = answer, fields: dict[str, Any] | None = None, **axes: Any) -> Played:
    """A plot; `x=("Steps", "1-3")` sets type and values of an axis, other names set fields of the panel."""
    values: dict[str, Any] = {"x_type": "Nothing"}
    for name, value in axes.items():
        if name in ("x", "y", "z"):
            values |= {f"{name}_type": value[0], f"{name}_values": value[1]}
        else:
            values[name] = value
    return play(HOST, NAME, values, FakeDesk(), make, **(fields or {}))


def along_x(axis: str, text: str, field: str, **fields: Any) -> list[Any]:
    return [getattr(params, field) for params in plot(x=(axis, text), fields=fields).params]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1, 2,3", [1, 2, 3]),
        ("1-5", [1, 2, 3, 4, 5]),
        ("1-10 (+2)", [1, 3, 5, 7, 9]),
        ("10-1 (-3)", [10, 7, 4, 1]),
        ("1-10 [5]", [1, 3, 5, 7, 10]),
        ("3, 10-12", [3, 10, 11, 12]),
        ("5\n6", [5, 6]),
    ],
)
def test_whole_numbers_are_lists_ranges_and_counts(text: str, values: list[int]) -> None:
    assert along_x("Steps", text, "steps") == values


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1.5, 2", [1.5, 2.0]),
        ("1-2 (+0.5)", [1.0, 1.5, 2.0]),
        ("0-1 [3]", [0.0, 0.5, 1.0]),
        ("0.1-0.3 (+0.1)", [0.1, 0.2, 0.3]),
    ],
)
def test_real_numbers_have_the_same_ranges_without_rounding_errors(text: str, values: list[float]) -> None:
    assert along_x("CFG Scale", text, "cfg_scale") == values


@pytest.mark.parametrize(
    ("axis", "text", "words"),
    [
        ("Steps", "fast", "neither a number nor a range"),
        ("Steps", "1.5", "not a whole number"),
        ("Steps", "", "there are no values for Steps"),
        ("Steps", "0-10 (+0)", "a step of 0"),
        ("Steps", "1-100000", "more than 1000 values"),
        ("Steps", "0", "steps"),
        ("Sampler", "Eulr", "no sampler"),
        ("Schedule type", "Karas", "no schedule"),
        ("Checkpoint name", "three", "no checkpoint"),
        ("Prompt S/R", "a palace, a hut", "is in neither prompt"),
        ("Prompt order", "castle, hut", "not in the prompt"),
        ("Size", "16by16", "not a size"),
        ("Hires steps", "5", "needs one"),
        ("Initial noise multiplier", "1", "needs a picture"),
        ("RNG source", "TPU", 'no "TPU"'),
        ("Hires upscaler", "Latent, Latnet", 'no upscaler "Latnet"'),
        ("Prompt S/R", '"", hut', "the first value is empty"),
        ("SGM noise multiplier", "maybe", "neither on nor off"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_before_anything_is_made(axis: str, text: str, words: str) -> None:
    with pytest.raises(InvalidParams) as caught:
        plot(x=(axis, text))
    assert words in str(caught.value)


AXES: list[tuple[str, str, str, list[Any]]] = [
    ("Seed", "5, 6", "seed", [5, 6]),
    ("Var. seed", "5, 6", "variation_seed", [5, 6]),
    ("Var. strength", "0, 0.5", "variation_strength", [0.0, 0.5]),
    ("Sampler", "Euler, DPM++ 2M Karras", "sampler", ["Euler", "DPM++ 2M"]),
    ("Checkpoint name", "one, two", "checkpoint", ["one.safetensors", "two.safetensors"]),
    ("Negative Guidance minimum sigma", "0, 1", "negative_guidance_min_sigma", [0.0, 1.0]),
    ("Sigma Churn", "0, 5", "s_churn", [0.0, 5.0]),
    ("Sigma min", "0, 5", "s_tmin", [0.0, 5.0]),
    ("Sigma max", "0, 5", "s_tmax", [0.0, 5.0]),
    ("Sigma noise", "1, 1.1", "s_noise", [1.0, 1.1]),
    ("Schedule type", "karras, Simple", "schedule", ["Karras", "Simple"]),
    ("Schedule min sigma", "0, 0.1", "sigma_min", [0.0, 0.1]),
    ("Schedule max sigma", "0, 9", "sigma_max", [0.0, 9.0]),
    ("Schedule rho", "5, 7", "rho", [5.0, 7.0]),
    ("Beta schedule alpha", "0.5, 0.6", "beta_alpha", [0.5, 0.6]),
    ("Beta schedule beta", "0.5, 0.6", "beta_beta", [0.5, 0.6]),
    ("Eta", "0, 1", "eta", [0.0, 1.0]),
    ("Clip skip", "1, 2", "clip_skip", [1, 2]),
    ("VAE", "a, b", "vae", ["a.vae", "b.vae"]),
    ("Styles", "None, noir", "prompt", ["a castle", "a castle, in the style of noir"]),
    ("Always discard next-to-last sigma", "True, no", "discard_penultimate_sigma", [True, False]),
    ("SGM noise multiplier", "off, on", "sgm_noise_multiplier", [False, True]),
    ("Refiner checkpoint", "None, two", "refiner", [None, "two.safetensors"]),
    ("Refiner switch at", "0.5, 0.8", "refiner_switch_at", [0.5, 0.8]),
    ("RNG source", "cpu, NV", "rng", ["CPU", "NV"]),
    ("Size", "16x32, 32 x 16", "height", [32, 16]),
    ("Prompt S/R", '"castle", hut, a "big" hut', "prompt", ["a castle", "a hut", 'a a "big" hut']),
    ("Guidance end", "0.5, 1", "guidance_end", [0.5, 1.0]),
    ("Feature reuse", "1, 2", "feature_reuse", [1, 2]),
    ("CFG rescale", "0, 0.7", "cfg_rescale", [0.0, 0.7]),
    ("Skip early CFG", "0, 0.2", "skip_early_cfg", [0.0, 0.2]),
    ("Emphasis mode", "none, No norm", "emphasis", ["None", "No norm"]),
]


@pytest.mark.parametrize(("axis", "text", "field", "values"), AXES, ids=[entry[0] for entry in AXES])
def test_every_axis_sets_its_field(axis: str, text: str, field: str, values: list[Any]) -> None:
    assert along_x(axis, text, field) == values


def test_axes_of_the_second_pass_and_of_the_start_picture_set_theirs() -> None:
    hires = {"hires": {}}
    assert [p.hires.steps for p in plot(x=("Hires steps", "3, 4"), fields=hires).params if p.hires] == [3, 4]
    assert [p.hires.sampler for p in plot(x=("Hires sampler", "Euler"), fields=hires).params if p.hires] == ["Euler"]
    names = [p.hires.upscaler for p in plot(x=("Hires upscaler", "Latent, Lanczos"), fields=hires).params if p.hires]
    assert names == ["Latent", "Lanczos"]
    strengths = [p.hires.denoising_strength for p in plot(x=("Denoising", "0.1"), fields=hires).params if p.hires]
    assert strengths == [0.1]
    init = {"init": {"image": "0" * 64}}
    assert [p.init.denoising_strength for p in plot(x=("Denoising", "0.2"), fields=init).params if p.init] == [0.2]
    masked = {**init, "inpaint": {"mask": "1" * 64}}
    weights = plot(x=("Cond. Image Mask Weight", "0.5, 1"), fields=masked).params
    assert [p.inpaint.conditioning_mask_strength for p in weights if p.inpaint] == [0.5, 1.0]
    many = plot(x=("Initial noise multiplier", "0.9, 1"), y=("Extra noise", "0.1"), fields=init)
    assert [p.init.noise_multiplier for p in many.params if p.init] == [0.9, 1.0]
    assert [p.init.extra_noise for p in many.params if p.init] == [0.1, 0.1]


def test_prompt_order_tries_every_order_of_its_parts() -> None:
    played = plot(x=("Prompt order", "red, old"), fields={"prompt": "a red, very old castle"})
    assert [params.prompt for params in played.params] == ["a red, very old castle", "a old, very red castle"]


def test_every_axis_has_a_test() -> None:
    panel = HOST.manifests[NAME].panel
    assert panel is not None
    choices = set(panel.fields[0].choices)
    known = ["Nothing", *(axis.name for axis in sys.modules["latent_extensions.xyz_plot.axes"].AXES)]
    assert [list(field.choices) for field in panel.fields if field.key.endswith("_type")] == [known] * 3
    tested = {name for name, *_ in AXES} | {"Nothing", "Steps", "CFG Scale", "Prompt order", "Hires steps"}
    tested |= {"Hires sampler", "Hires upscaler", "Denoising", "Initial noise multiplier", "Extra noise"}
    tested |= {"Cond. Image Mask Weight"}
    assert choices == tested


def test_text_can_be_replaced_by_nothing() -> None:
    played = plot(x=("Prompt S/R", 'red, "", blue,'), fields={"prompt": "a red castle"})
    assert [params.prompt for params in played.params] == ["a red castle", "a  castle", "a blue castle"]


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (("Sigma min", "0, 5"), ("Sigma max", "10, 3")),
        (("Schedule min sigma", "0.1, 5"), ("Schedule max sigma", "10, 3")),
    ],
)
def test_values_that_do_not_fit_together_cost_the_cells_in_which_they_meet(
    x: tuple[str, str], y: tuple[str, str]
) -> None:
    played = plot(x=x, y=y, draw_legend=False)
    assert len(played.cells) == played.expansion.pictures == 3
    assert "1 of 4 cells are left out" in played.expansion.notes[0]
    assert dict(played.sheets[0].notes)["Grid cells"] == "0 1 2 -"


def test_a_value_that_fits_beside_another_axis_alone_is_none_to_refuse() -> None:
    played = plot(x=("Schedule min sigma", "4, 5"), y=("Schedule max sigma", "10"), fields={"sigma_max": 3.0})
    assert [params.sigma_min for params in played.params] == [4.0, 5.0]
    prompts = plot(
        x=("Prompt S/R", "red, blue"), y=("Prompt order", "red, old"), fields={"prompt": "a red, old castle"}
    ).params
    assert [params.prompt for params in prompts] == [
        *("a red, old castle", "a blue, old castle"),
        *("a old, red castle", "a old, blue castle"),
    ]


def test_the_places_are_as_large_as_the_largest_sides_of_the_pictures() -> None:
    def make(cell: Cell) -> CellResult:
        return CellResult([Image.new("RGB", (cell.params.width or 0, cell.params.height or 0))])

    sizes = {"width": 64, "height": 64}
    sheet = plot(make, x=("Size", "16x32, 32x16"), draw_legend=False, fields=sizes).sheets[0]
    assert sheet.picture.size == (64, 32)


def test_the_cells_are_all_combinations_and_the_costliest_axis_changes_least() -> None:
    played = plot(x=("Checkpoint name", "one, two"), y=("Steps", "1-3"), z=("CFG Scale", "4, 5"))
    made = [(p.checkpoint, p.steps, p.cfg_scale) for p in played.params]
    assert len(set(made)) == 12
    switches = sum(a[0] != b[0] for a, b in itertools.pairwise(made))
    assert switches == 1
    assert played.expansion.pictures == 12


def test_seeds_are_fixed_follow_the_axes_or_are_drawn_from_the_request_s_own() -> None:
    assert [p.seed for p in plot(x=("Steps", "1-3")).params] == [7, 7, 7]
    varied = plot(x=("Steps", "1, 2"), y=("CFG Scale", "4, 5"), vary_seeds_x=True, vary_seeds_y=True)
    assert [p.seed for p in varied.params] == [7, 8, 8, 9]
    crossed = plot(x=("Steps", "1, 2"), y=("Seed", "50, 60"), vary_seeds_x=True)
    assert [p.seed for p in crossed.params] == [50, 51, 60, 61]
    first, second = (
        [p.seed for p in plot(x=("Seed", "-1, -1"), no_fixed_seeds=True, y=("Steps", "1, 2")).params] for _ in "ab"
    )
    assert first == second
    assert len(set(first)) == 2
    drawn = [p.seed for p in plot(x=("Steps", "1-3"), no_fixed_seeds=True).params]
    assert len(set(drawn)) == 3


def test_the_sheet_has_a_legend_and_says_where_each_cell_is() -> None:
    played = plot(x=("Steps", "1-3"), y=("Sampler", "Euler, DDIM"), margin_size=4)
    [sheet] = played.sheets
    notes = dict(sheet.notes)
    assert notes["Script"] == "X/Y/Z plot"
    assert (notes["X Type"], notes["X Values"], notes["Y Values"]) == ("Steps", "1-3", "Euler, DDIM")
    assert notes["Grid layout"].startswith("3x2 of 16x16 at ")
    assert notes["Grid cells"] == "0 1 2 3 4 5"
    left, top = map(int, notes["Grid layout"].split(" at ")[1].split(" ")[0].split("+"))
    assert left > 0
    assert top > 0
    for column in range(3):
        for row in range(2):
            assert sheet.picture.getpixel((left + column * 20 + 8, top + row * 20 + 8)) == (7, column + 1, 0)
    bare = plot(x=("Steps", "1-3"), draw_legend=False).sheets[0]
    assert bare.picture.size == (48, 16)
    fixed = plot(x=("Seed", "-1, 5")).sheets[0]
    assert dict(fixed.notes)["Fixed X Values"].endswith(", 5")


def test_a_cell_that_fails_is_drawn_as_failed_and_the_others_are_made() -> None:
    def make(cell: Cell) -> CellResult:
        return CellResult(error="It ran out of memory.") if cell.params.steps == 2 else answer(cell)

    played = plot(make, x=("Steps", "1-3"), draw_legend=False)
    assert len(played.cells) == 3
    sheet = played.sheets[0].picture
    assert sheet.getpixel((1, 1)) == (7, 1, 0)
    assert sheet.getpixel((40, 1)) == (7, 3, 0)
    assert sheet.getpixel((17, 1)) not in ((7, 2, 0), (255, 255, 255))


def test_an_interrupted_plot_keeps_the_grid_of_what_was_made() -> None:
    def make(cell: Cell) -> CellResult:
        return CellResult(error="Interrupted.", interrupted=True) if cell.params.steps == 3 else answer(cell)

    played = plot(make, x=("Steps", "1-9"))
    assert len(played.cells) == 3
    assert len(played.sheets) == 1


def test_with_a_z_axis_there_is_one_whole_grid_and_on_demand_one_for_each_value() -> None:
    axes = {"x": ("Steps", "1, 2"), "z": ("CFG Scale", "4, 5, 6")}
    assert len(plot(**axes).sheets) == 1
    played = plot(**axes, include_sub_grids=True)
    assert len(played.sheets) == 4
    assert played.sheets[0].picture.height < played.sheets[-1].picture.height


def test_pictures_can_be_left_out_of_the_job_s_result() -> None:
    assert all(cell.shown for cell in plot(x=("Steps", "1, 2")).cells)
    assert not any(cell.shown for cell in plot(x=("Steps", "1, 2"), include_lone_images=False).cells)


def test_a_batch_is_one_cell_of_several_pictures() -> None:
    played = plot(x=("Steps", "1, 2"), fields={"batch_size": 4}, draw_legend=False)
    assert played.expansion.pictures == 8
    assert played.sheets[0].picture.size == (64, 32)


def test_a_grid_of_a_hundred_cells_is_drawn_while_it_grows() -> None:
    played = plot(x=("Steps", "1-10"), y=("CFG Scale", "1-10"))
    assert len(played.cells) == 100
    assert played.drafts


@pytest.mark.parametrize(
    ("arguments", "img2img", "found"),
    [
        ([4, "1-2", [], 0, "", [], 0, "", [], True, True, False, False, False, False, False, 0, False], False, "Steps"),
        ([5, "4, 7"], True, "CFG Scale"),
        ([5, "3"], False, "Hires steps"),
        ([10, "", ["one", "two"]], True, "Checkpoint name"),
        ([29, "", ["a", "b"]], False, "VAE"),
        (["Steps", "1-2", [], 0, "", [], 0, "", [], "True", "False", "False", "False"], False, "Steps"),
    ],
)
def test_axes_have_the_numbers_of_the_other_program_s_tab_and_flags_may_be_words(
    arguments: list[Any], img2img: bool, found: str
) -> None:
    panels = panels_of(HOST.manifests)
    values = read_scripts(panels, "X/Y/Z plot", arguments, {}, img2img=img2img).extensions
    complete = checked(make_params({"extensions": values}), panels).extension_values[NAME]
    assert complete["x_type"] == found
    assert complete["draw_legend"] is True


def test_of_text_and_list_that_counts_which_the_client_says() -> None:
    panels = panels_of(HOST.manifests)
    arguments = [30, "ink", ["a, b", "c"], *[0, "", []] * 2, *[True, True], *[False] * 5, 0]
    of_list, of_text = (
        read_scripts(panels, NAME, [*arguments, text], {}, img2img=False).extensions[NAME] for text in (False, True)
    )
    assert (of_list["x_values"], of_list["x_values_dropdown"]) == ("", '"a, b", c')
    assert (of_text["x_values"], of_text["x_values_dropdown"]) == ("ink", "")


def test_an_axis_that_is_not_here_and_arguments_that_ask_for_something_else_are_refused() -> None:
    panels = panels_of(HOST.manifests)
    assert read_scripts(panels, "loopback", [4, 0.5, "Linear", "None"], {}, img2img=True).extensions
    assert read_scripts(panels, "prompts-from-file", [False, False, "start", "a", False], {}, img2img=True).extensions
    with pytest.raises(InvalidParams, match="takes 3 arguments"):
        read_scripts(panels, "loopback", [4, 0.5, "Linear", "CLIP"], {}, img2img=True)
    with pytest.raises(InvalidParams, match="no axis number 99"):
        read_scripts(panels, NAME, [99], {}, img2img=False)
    face = read_scripts(panels, NAME, [32], {}, img2img=False).extensions
    with pytest.raises(InvalidParams, match="cannot be 'Face restore'"):
        checked(make_params({"extensions": face}), panels)


def test_clients_of_the_api_may_give_the_arguments_by_position() -> None:
    arguments = [4, "1-2", [], 0, "", [], 0, "", [], True, True, False, False, False, False, False, 0]
    values = values_of_scripts(panels_of(HOST.manifests), script_name="x/y/z plot", script_args=arguments)
    request: GenerationParams = make_params({"extensions": values})
    assert request.extension_values[NAME]["x_type"] == "Steps"
    assert request.extension_values[NAME]["y_type"] == "Nothing"
    assert request.extension_values[NAME]["margin_size"] == 0
