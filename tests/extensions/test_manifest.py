"""extension.toml: what is taken, and what is refused with which words."""

from __future__ import annotations

import pytest

from webui.extensions.manifest import BadExtension, read_manifest

GOOD = """
name = "grain"
title = "Grain"
version = "1.2"
api = 1
asks = ["step"]
[panel]
title = "Film grain"
[[panel.fields]]
key = "amount"
label = "Amount"
kind = "float"
default = 0.5
low = 0
high = 1
[[panel.fields]]
key = "kind"
label = "Kind"
kind = "choice"
default = "fine"
choices = ["fine", "coarse"]
"""


def test_a_manifest_is_read_whole() -> None:
    manifest = read_manifest(GOOD)
    assert (manifest.name, manifest.version, manifest.asks) == ("grain", "1.2", ("step",))
    assert manifest.panel is not None
    assert manifest.panel.read({}) == {"amount": 0.5, "kind": "fine"}
    assert manifest.panel.read({"amount": 1}) == {"amount": 1.0, "kind": "fine"}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"amount": 2}, "Amount is between 0 and 1"),
        ({"amount": float("nan")}, "Amount is between 0 and 1"),
        ({"amount": "1"}, "Amount is a number"),
        ({"amount": True}, "Amount is a number"),
        ({"kind": "huge"}, "choose one of: fine, coarse"),
        ({"kind": 1}, "Kind is a text"),
        ({"size": 1}, 'there is no field "size"'),
    ],
)
def test_a_value_that_a_field_cannot_have_is_refused_in_words(values: dict[str, object], words: str) -> None:
    panel = read_manifest(GOOD).panel
    assert panel is not None
    with pytest.raises(ValueError, match=words):
        panel.read(values)


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("api = 1", "api = 2", "made for version 2 of the extension API"),
        ('asks = ["step"]', 'asks = ["fly"]', 'asks for a hook "fly"'),
        ('asks = ["step"]', 'asks = ["expand"]', 'of the kind "script" exactly if'),
        ('name = "grain"', 'name = "../grain"', "name"),
        ("default = 0.5", "default = 7", "amount is between"),
        ("low = 0\n", "", "needs low and high"),
        ('choices = ["fine", "coarse"]', "", "needs choices"),
        ('key = "kind"', 'key = "amount"', "the same key"),
        ("api = 1", "api = 1\ncolour = 3", "colour"),
        ("api = 1", "api = 1\n[[samplers]]\nname = 'Mine'", "asks"),
        ("api = 1", "api = [", "not valid TOML"),
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused_with_the_reason(before: str, after: str, words: str) -> None:
    assert before in GOOD
    with pytest.raises(BadExtension) as caught:
        read_manifest(GOOD.replace(before, after))
    assert words in caught.value.message


def test_a_hook_that_changes_pictures_needs_a_panel_so_that_the_picture_names_it() -> None:
    text = 'name = "ghost"\ntitle = "Ghost"\nversion = "1"\napi = 1\nasks = ["decoded"]\n'
    with pytest.raises(BadExtension, match=r"needs a \[panel\]"):
        read_manifest(text)
