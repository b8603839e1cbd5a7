"""Network tags are cut out, read and reported; comments vanish and escaped signs stay."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webui.errors import InvalidParams
from webui.prompt import ExtraNetwork, rename_networks, split_networks, strip_comments, strip_networks, written


def one(text: str) -> ExtraNetwork:
    _, networks, warnings = split_networks(text)
    assert not warnings
    (network,) = networks
    return network


@pytest.mark.parametrize(
    ("tag", "te", "unet", "dyn"),
    [
        ("<lora:name>", 1.0, 1.0, None),
        ("<lora:name:0.8>", 0.8, 0.8, None),
        ("<lora:name:0.8:0.5>", 0.8, 0.5, None),
        ("<lora:name:1:1:8>", 1.0, 1.0, 8),
        ("<lyco:name:te=0.3:unet=0.6:dyn=4>", 0.3, 0.6, 4),
        ("<lora:name:unet=0.6>", 1.0, 0.6, None),
        ("<lora:name:-1>", -1.0, -1.0, None),
    ],
)
def test_a_lora_tag_has_a_weight_for_each_network(tag: str, te: float, unet: float, dyn: int | None) -> None:
    network = one(tag)
    assert (network.kind, network.name) == ("lora", "name")
    assert (network.te_weight, network.unet_weight, network.dyn_rank) == (te, unet, dyn)


def test_several_networks_are_kept_in_order_and_the_text_around_them_stays() -> None:
    text, networks, _ = split_networks("a <lora:x:1> b <hypernet:y:0.5>, c")
    assert text == "a  b , c"
    assert [(n.kind, n.name, n.te_weight) for n in networks] == [("lora", "x", 1.0), ("hypernet", "y", 0.5)]


@pytest.mark.parametrize(
    ("tag", "reason"),
    [
        ("<foo:bar>", 'no networks of the kind "foo"'),
        ("<lora:x:nan>", '"nan" is not a weight'),
        ("<lora:x:1e9>", "is not a weight"),
        ("<lora:x:strong>", "is not a weight"),
        ("<lora:te=1>", "it has no name"),
        ("<lora: :1>", "it has no name"),
    ],
)
def test_a_tag_without_effect_is_removed_and_said(tag: str, reason: str) -> None:
    text, networks, warnings = split_networks(f"a {tag} b")
    assert (text, networks) == ("a  b", ())
    assert reason in warnings[0].text


@pytest.mark.parametrize("tag", ["<lora:", "<lora:>", "<lora", "< lora:x>", "<:x>"])
def test_H092_what_is_no_tag_is_text(tag: str) -> None:
    assert split_networks(f"a {tag} b") == (f"a {tag} b", (), ())


@pytest.mark.parametrize("name", ["../../etc/passwd", "C:\\x", "%2e%2e%2f", "/etc/passwd", "a\nb"])
def test_H092_a_name_that_looks_like_a_path_is_a_name_to_be_looked_up(name: str) -> None:
    _, networks, warnings = split_networks(f"<lora:{name}:1>")
    assert networks[0].name == name.partition(":")[0] if not warnings else not networks


def test_H092_arguments_of_other_programs_do_not_harm() -> None:
    _, (network,), _ = split_networks("<lora:x:1:1:lbw=1,0,0,0>")
    assert network.named == {"lbw": "1,0,0,0"}


@pytest.mark.parametrize(
    ("tag", "said"),
    [
        ("<lora:x:0.5:lbw=MIDD>", "lbw=MIDD"),
        ("<lora:x:0.5:1:8:what>", "what"),
        ("<hypernet:x:0.5:9>", "9"),
        ("<hypernet:x:0.5:unet=1>", "unet=1"),
    ],
)
def test_an_argument_that_means_nothing_is_said_and_the_network_acts(tag: str, said: str) -> None:
    text, (network,), (warning,) = split_networks(f"a {tag}")
    assert (text, network.name, network.te_weight) == ("a ", "x", 0.5)
    assert f'"{said}" had no effect' in warning.text


def test_a_name_with_a_number_sign_is_written_with_an_escape() -> None:
    text, (network,), _ = split_networks(strip_comments(f"a <lora:{written('my#style')}:1> cat # note"))
    assert (text, network.name) == ("a  cat \n", "my#style")


def test_tags_are_renamed_and_all_else_stays() -> None:
    text = r"a <lyco:old:0.5:te=1> <lora:my\#style> <hypernet:old:1> <lora: Old > old"
    names = {"old": "sub/new", "my#style": "b#"}
    renamed = rename_networks(text, lambda kind, name: names.get(name.lower()) if kind == "lora" else None)
    assert renamed == r"a <lyco:sub/new:0.5:te=1> <lora:b\#> <hypernet:old:1> <lora:sub/new> old"
    assert rename_networks(text, lambda _kind, _name: None) == text


@pytest.mark.timeout(20)
def test_H092_five_hundred_tags_are_refused_and_unclosed_ones_cost_their_length() -> None:
    with pytest.raises(InvalidParams, match="more than 200 networks"):
        split_networks("<lora:a:1>" * 500)
    assert strip_networks("<lora:a:1>" * 500) == ""
    assert split_networks("<a:" * 60_000)[1] == ()


@given(st.text("<>:=lora 1.x", max_size=60))
def test_any_text_is_split_and_nothing_that_is_left_is_a_tag(text: str) -> None:
    left, networks, _ = split_networks(text)
    assert left == strip_networks(text)
    assert len(left) <= len(text)
    for network in networks:
        assert isinstance(network.unet_weight, float)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a # b", "a \n"),
        ("# b\na", "\na"),
        ("a\n# b\nc", "a\nc"),
        ("a\n#b\n#c\nd", "a\n\nd"),
        ("a, #b\nc", "a, \nc"),
        ("no comment", "no comment"),
        ("#", "\n"),
    ],
)
def test_a_comment_leaves_one_line_break(text: str, expected: str) -> None:
    assert strip_comments(text) == expected
    assert strip_comments(text, compatible=True) == expected


def test_an_escaped_sign_is_no_comment_unless_compatible() -> None:
    assert strip_comments("\\#tag, a") == "\\#tag, a"
    assert strip_comments("a \\\\# b") == "a \\\\\n"
    assert strip_comments("\\#tag, a", compatible=True) == "\\\n"
