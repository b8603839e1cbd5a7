"""Values of extensions in a request: complete, within bounds, and of extensions that are here."""

from __future__ import annotations

import pytest

from webui import infotext
from webui.errors import InvalidParams
from webui.extensions.door import checked
from webui.extensions.manifest import Panel, PanelField
from webui.extensions.scripts import values_of_options, values_of_scripts
from webui.params import GenerationParams, make_params, params_from_json

AMOUNT = PanelField(key="amount", label="Amount", kind="float", default=0.5, low=0, high=1)
KIND = PanelField(key="kind", label="Kind", kind="choice", default="fine", choices=("fine", "coarse"))
PANELS = {
    "grain": Panel(title="Film grain", fields=(AMOUNT, KIND)),
    "plot": Panel(title="X/Y/Z plot", kind="script", fields=(PanelField(key="x", label="X", kind="text", default=""),)),
    "matrix": Panel(title="Prompt matrix", kind="script"),
}


def request(**values: object) -> GenerationParams:
    return make_params({"extensions": values})


def test_missing_values_are_filled_in_so_that_a_queued_job_is_complete() -> None:
    params = checked(request(grain={"amount": 1}), PANELS)
    assert params.extension_values == {"grain": {"amount": 1.0, "kind": "fine"}}


def test_a_panel_that_asks_is_told_that_the_seed_was_left_open() -> None:
    drawn = PanelField(key="seed_drawn", label="Drawn", kind="bool", default=False, hidden=True)
    panels = {"lines": Panel(title="Lines", kind="script", fields=(drawn,))}
    for seed, told in ((-1, True), (5, False)):
        params = make_params({"seed": seed, "extensions": {"lines": {}}})
        assert checked(params, panels).extension_values == {"lines": {"seed_drawn": told}}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"grains": {}}, 'There is no extension "grains"'),
        ({"grain": {"amount": 3}}, "Film grain: Amount is between 0 and 1"),
        ({"grain": {"size": 3}}, 'no field "size"'),
        ({"plot": {}, "matrix": {}}, "cannot run in one job"),
    ],
)
def test_values_that_cannot_be_are_refused_at_the_door(values: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidParams) as caught:
        checked(make_params({"extensions": values}), PANELS)
    assert words in caught.value.message


def test_an_unknown_extension_is_refused_with_near_matches() -> None:
    with pytest.raises(InvalidParams) as caught:
        checked(request(grian={}), PANELS)
    assert '"grain"' in caught.value.advice


def test_values_survive_json_and_the_parameters_text_exactly() -> None:
    values = {"plot": {"x": '1-5, "a, b": c\nline'}, "grain": {"amount": 0.1, "kind": "coarse", "on": True, "n": 2**60}}
    params = make_params({"prompt": "x", "seed": 1, "width": 64, "height": 64, "extensions": values})
    assert params_from_json(params.canonical_json()) == params
    parsed = infotext.parse(infotext.format(params))
    assert parsed.not_understood == ()
    assert make_params({**parsed.params, "checkpoint": None}) == params


def test_equal_values_in_another_order_are_equal_params() -> None:
    one, two = request(a={"x": 1, "y": 2}, b={}), request(b={}, a={"y": 2, "x": 1})
    assert one == two
    assert one.canonical_json() == two.canonical_json()
    assert hash(one) == hash(two)
    assert one.without_extension("a") == request(b={})


@pytest.mark.parametrize("bad", [{"a": 1}, {"a": {"x": None}}, {"a": {"x": float("nan")}}, {"a" * 41: {}}, [1]])
def test_what_is_no_set_of_values_is_refused(bad: object) -> None:
    with pytest.raises(InvalidParams):
        make_params({"extensions": bad})


def test_scripts_of_api_clients_reach_extensions_by_title_with_positional_or_named_arguments() -> None:
    values = values_of_scripts(
        PANELS,
        script_name="x/y/z PLOT",
        script_args=["1, 2"],
        alwayson_scripts={"Film grain": {"args": [1, 1]}},
    )
    assert values == {"plot": {"x": "1, 2"}, "grain": {"amount": 1, "kind": "coarse"}}
    named = values_of_scripts(PANELS, alwayson_scripts={"grain": {"args": {"Amount": 0.2}}})
    assert named == {"grain": {"amount": 0.2}}
    with pytest.raises(InvalidParams, match="no script"):
        values_of_scripts(PANELS, script_name="Film grian")
    with pytest.raises(InvalidParams, match="takes 1 arguments, not 2"):
        values_of_scripts(PANELS, script_name="plot", script_args=["1", "2"])


def test_a_command_line_names_fields_and_types_their_values() -> None:
    values = values_of_options(PANELS, ["grain.amount=0.25", "grain.kind=coarse", "matrix"])
    assert values == {"grain": {"amount": 0.25, "kind": "coarse"}, "matrix": {}}
    with pytest.raises(InvalidParams, match='no field "size"'):
        values_of_options(PANELS, ["grain.size=1"])
