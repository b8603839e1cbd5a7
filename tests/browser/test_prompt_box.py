"""Typing prompts on the real page: weights, phrases, brackets, completion, styles, and parameters from elsewhere."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from embedded import EMBEDDED_CHECKPOINT
from PIL import Image, PngImagePlugin
from running_server import RunningServer
from steps import Late, focused, frames, generate, press, set_values, until, wait_for, wait_for_end

from webui.prompt import bracket_problems

pytestmark = pytest.mark.browser

A1111 = (
    "a castle on a hill <lora:filmgran:0.8>\nNegative prompt: blurry\n"
    "Steps: 11, Sampler: DPM++ 2M Karras, CFG scale: 5.5, Seed: 965400086, Size: 64x96, Model hash: 6ce0161689, "
    'Model: emoji-prto-128, Clip skip: 2, Lora hashes: "filmgran: 63cabf0b2a0d", Token merging ratio: 0.5, '
    "Version: v1.10.1"
)
COMFYUI = {
    "3": {
        "class_type": "KSampler",
        "inputs": {
            "seed": 77, "steps": 9, "cfg": 4.5, "sampler_name": "euler_ancestral", "scheduler": "karras", "denoise": 1,
            "model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0],
        },
    },
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "v1-5.safetensors"}},
    "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 96, "height": 64, "batch_size": 1}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a comfy fox", "clip": ["4", 1]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "rain", "clip": ["4", 1]}},
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def library(server: RunningServer) -> Iterator[None]:
    """A LoRA, an embedding, a wildcard and two styles."""
    root = server.data_dir

    def network(name: str, tensor: str, shape: tuple[int, int]) -> None:
        size = 2 * shape[0] * shape[1]
        text = json.dumps({tensor: {"dtype": "F16", "shape": shape, "data_offsets": [0, size]}}).encode()
        path = root / "models" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(size))

    network("Lora/filmgrain.safetensors", "lora_unet_x.lora_down.weight", (4, 320))
    network("Lora/no#1 $&.safetensors", "lora_unet_x.lora_down.weight", (4, 320))
    network("embeddings/badhands.safetensors", "emb_params", (2, 768))
    (root / "wildcards").mkdir(exist_ok=True)
    (root / "wildcards" / "animal.txt").write_text("cat\ndog\nfox\n")
    (root / "styles.csv").write_text(
        'name,prompt,negative_prompt\nPhoto,"photo of {prompt}, 8k",lowres\nPainted,oil painting,\n'
    )
    server.post("/models/refresh")
    yield
    (root / "models" / "Lora" / "filmgrain.safetensors").unlink()
    (root / "models" / "Lora" / "no#1 $&.safetensors").unlink()
    (root / "models" / "embeddings" / "badhands.safetensors").unlink()
    server.post("/models/refresh")


def write(page: Any, text: str, start: int | None = None, end: int | None = None) -> Any:
    """Fill the prompt and place the caret or selection."""
    box = page.get_by_label("Prompt", exact=True)
    box.fill(text)
    start = len(text) if start is None else start
    box.evaluate("(b, [s, e]) => { b.focus(); b.setSelectionRange(s, e); }", [start, start if end is None else end])
    return box


def test_a_weight_changes_by_keys_and_the_browser_can_undo_it(page: Any) -> None:
    box = write(page, "a red cat", 3)
    page.keyboard.press("Control+ArrowUp")
    assert box.input_value() == "a (red:1.1) cat"
    page.keyboard.press("Control+ArrowUp")
    assert box.input_value() == "a (red:1.2) cat"
    wait_for(page, "latent.form.values.prompt === 'a (red:1.2) cat'")
    page.keyboard.press("Control+z")
    assert box.input_value() == "a (red:1.1) cat"
    page.keyboard.press("Control+ArrowDown")
    assert box.input_value() == "a red cat"
    page.keyboard.press("Control+ArrowDown")
    assert box.input_value() == "a (red:0.9) cat"


WEIGHTS = [
    ("a |red cat| b", 1, "a (red cat:1.1) b"),
    ("a |(red:1.3)| b", 1, "a (red:1.4) b"),
    ("a |(red| b", 1, None),
    ("(a (b|:1.2) c:1.5)", 1, "(a (b:1.3) c:1.5)"),
    ("(a| (b:1.2) c:1.5)", -1, "(a (b:1.2) c:1.4)"),
    ("(x|)", 1, "(x:1.2)"),
    ("a [x|] b", 1, "a x b"),
    ("[cat|:dog:5]", 1, "[(cat:1.1):dog:5]"),
    (r"\(wo|rd\)", 1, r"\((word:1.1)\)"),
    ("<lora:a|:0.8> b", 1, "<lora:a:0.85> b"),
    ("<lora:a|> b", -1, "<lora:a:0.95> b"),
    ("|", 1, None),
    (" | ", 1, None),
    ("a, |, b", 1, None),
]


def test_what_a_weight_is_given_to(page: Any) -> None:
    for before, direction, after in WEIGHTS:
        start, end = before.index("|"), before.rindex("|")
        end -= int(end > start)
        text = before.replace("|", "")
        done = page.evaluate("([t, s, e, d]) => latent.promptEdit.reweigh(t, s, e, d)", [text, start, end, direction])
        assert (done and text[: done["from"]] + done["text"] + text[done["to"] :]) == after, before


MOVES = [
    ("one, t^wo, three", 1, "one, three, t^wo"),
    ("one, t^wo, three", -1, "t^wo, one, three"),
    ("o^ne, two", -1, None),
    ("one, tw^o", 1, None),
    ("one, two^, ", 1, None),
    ("a, (b, c^, d:1.2), e", 1, "a, (b, d, c^:1.2), e"),
    ("a, (b:1.2)^, c", -1, "(b:1.2)^, a, c"),
    ("a, b AND c, d^", -1, "a, b AND d^, c"),
    ("a, b^ AND c, d", 1, None),
    ("{a, b^|c}", -1, "{b^, a|c}"),
    ("x, a\\(1, 2\\)^", -1, "x, 2\\)^, a\\(1"),
    ("one,two,three^,", -1, "one,three^,two,"),
]


def test_where_a_phrase_goes(page: Any) -> None:
    for before, direction, after in MOVES:
        at, text = before.index("^"), before.replace("^", "")
        done = page.evaluate("([t, s, d]) => latent.promptEdit.movePhrase(t, s, s, d)", [text, at, direction])
        if done is not None:
            moved = text[: done["from"]] + done["text"] + text[done["to"] :]
            done = moved[: done["start"]] + "^" + moved[done["start"] :]
        assert done == after, before


def test_a_phrase_moves_by_keys_and_the_page_stays(page: Any) -> None:
    box = write(page, "a fox, snow, night", 10)
    page.keyboard.press("Alt+ArrowLeft")
    assert box.input_value() == "snow, a fox, night"
    page.keyboard.press("Alt+ArrowRight")
    page.keyboard.press("Alt+ArrowRight")
    assert box.input_value() == "a fox, night, snow"
    assert page.evaluate("latent.form.ready")


def test_brackets_without_a_partner_are_marked_while_typing(page: Any) -> None:
    texts = ["a (b", "a) [b", "(a [b)]", "<lora:x", "<lora:x:1> (", "\\( a", "(a:1.2)", "a ]]", "( ( )", "<b", "{a"]
    for text in texts:
        found = page.evaluate("t => latent.promptEdit.brackets(t).map(p => [p.position, p.message])", text)
        assert found == [[p.position, p.message] for p in bracket_problems(text)], text
    box = write(page, "a (red apple")
    line = page.locator("#compose .marks").first
    line.filter(has_text='"(" is never closed').wait_for()
    assert page.locator(".marks-layer mark").inner_text() == "("
    mark, area = page.locator(".marks-layer mark").bounding_box(), box.bounding_box()
    assert area["x"] < mark["x"] < area["x"] + 60
    assert area["y"] < mark["y"] < area["y"] + 40
    box.press("End")
    page.keyboard.type(")")
    page.locator(".marks-layer").wait_for(state="detached")
    assert line.inner_text() == ""


def test_names_are_completed_with_a_few_keys(page: Any) -> None:
    box = write(page, "")
    listbox = page.locator("#completions")
    page.keyboard.type("a fox <gra")
    listbox.wait_for()
    assert box.get_attribute("aria-activedescendant") == "completion-0"
    page.keyboard.press("Enter")
    assert box.input_value() == "a fox <lora:filmgrain:1>"
    page.keyboard.type(" __an")
    listbox.get_by_role("option", name="animal").wait_for()
    page.keyboard.press("Tab")
    assert box.input_value() == "a fox <lora:filmgrain:1> __animal__"
    page.keyboard.type(", badh")
    listbox.get_by_role("option", name="badhands").wait_for()
    page.keyboard.press("Escape")
    assert listbox.is_hidden()
    assert box.get_attribute("role") is None
    page.keyboard.type("a")
    listbox.get_by_role("option", name="badhands").wait_for()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert box.input_value().endswith(", badhands")
    page.keyboard.press("Control+z")
    assert box.input_value().endswith(", badha")
    page.keyboard.type(", pai")
    listbox.get_by_role("option", name="Painted").wait_for()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    wait_for(page, "latent.form.values.styles === 'Painted'")
    assert box.input_value().endswith(", ")


def test_what_is_taken_from_a_list_replaces_all_that_was_typed_meanwhile(page: Any) -> None:
    box = write(page, "")
    listbox = page.locator("#completions")
    page.keyboard.type("a fox <gra")
    listbox.wait_for()
    late = Late(page, "**/completions?*")
    page.keyboard.type("i")
    late.wait()  # the list still is that of "gra"
    page.keyboard.press("Enter")
    assert box.input_value() == "a fox <lora:filmgrain:1>"
    late.come()
    assert listbox.is_hidden()


def test_what_the_keys_have_chosen_in_a_list_stays_when_a_late_list_comes(page: Any) -> None:
    two = [{"kind": "lora", "label": name, "insert": f"<lora:{name}:1>", "note": ""} for name in ("one", "onward")]
    page.route("**/completions?*", lambda route: route.fulfill(json=two))
    box = write(page, "")
    page.keyboard.type("<on")
    page.locator("#completions").wait_for()
    held: list[Any] = []
    page.route("**/completions?*", lambda route: held.append(route))
    page.keyboard.type("w")
    until(lambda: page.wait_for_timeout(10) or held)
    page.keyboard.press("ArrowDown")
    held[0].fulfill(json=two)
    frames(page)
    page.keyboard.press("Enter")
    assert box.input_value() == "<lora:onward:1>"


def test_the_tokens_are_those_of_the_newest_text(page: Any) -> None:
    late = Late(page, "**/tokens", first=1, wanted="apple")
    write(page, "an apple")
    late.wait()
    write(page, "a very large red apple")
    wait_for(page, "document.querySelector('.tokens').textContent === '5/75'")
    late.come()
    assert page.locator(".tokens").first.inner_text() == "5/75"


def test_a_letter_typed_while_the_page_fills_another_field_is_kept(page: Any) -> None:
    box = write(page, "a fo")
    wait_for(page, "latent.form.values.prompt === 'a fo'")
    # Gradio has read all fields, and writes them in a later frame: a letter may be typed in between
    page.evaluate(
        """() => { const { take } = latent;
        latent.take = (...list) => { const values = take(...list);
          document.execCommand('insertText', false, 'x'); latent.take = take; return values; }; }"""
    )
    set_values(page, steps=9)
    frames(page)
    assert box.input_value() == "a fox"
    wait_for(page, "latent.form.values.prompt === 'a fox' && latent.form.values.steps === 9")


def test_a_late_list_of_styles_takes_neither_the_focus_nor_a_press(page: Any) -> None:
    page.evaluate("latent.styles.open()")
    dialog = page.locator("#styles")
    photo = dialog.get_by_role("button", name="Photo photo of")
    photo.wait_for()
    page.keyboard.press("Escape")
    late = Late(page, "**/styles")
    page.evaluate("() => { latent.styles.open(); }")
    late.wait()
    photo.focus()
    late.come()
    assert focused(page).startswith("Photo")
    page.keyboard.press("Escape")
    late = Late(page, "**/styles")
    page.evaluate("() => { latent.styles.open(); }")
    late.wait()
    press(page, photo, late.come)
    wait_for(page, "latent.form.values.styles === 'Photo'", timeout=10_000)


def test_two_styles_that_are_chosen_at_once_are_both_chosen(page: Any) -> None:
    page.evaluate("latent.styles.open()")
    dialog = page.locator("#styles")
    dialog.get_by_role("button", name="Photo photo of").wait_for()
    page.evaluate("for (const name of ['Photo', 'Painted']) document.querySelector(`[data-name=${name}]`).click()")
    wait_for(page, "latent.form.values.styles.includes('Painted')")
    frames(page)
    assert page.evaluate("latent.form.values.styles") == "Photo\nPainted"


def test_styles_are_chosen_written_changed_and_merged(page: Any, server: RunningServer) -> None:
    write(page, "a red apple")
    page.get_by_role("button", name="Styles", exact=True).click()
    dialog = page.locator("#styles")
    dialog.get_by_role("button", name="Photo photo of").click()
    wait_for(page, "latent.form.values.styles === 'Photo'")
    dialog.get_by_role("button", name="New from the prompt").click()
    assert dialog.get_by_label("Added to the prompt").input_value() == "a red apple"
    dialog.get_by_label("Name").fill("Photo")
    dialog.get_by_role("button", name="Save").click()
    dialog.get_by_text('There is a style "Photo" already.').wait_for()
    dialog.get_by_label("Name").fill("Night")
    dialog.get_by_label("Added to the prompt").fill("at night, <b>")
    dialog.get_by_role("button", name="Save").click()
    dialog.get_by_role("button", name="Night at night, <b>").click()
    wait_for(page, "latent.form.values.styles === 'Photo\\nNight'")
    assert "Night" in (server.data_dir / "styles.csv").read_text(encoding="utf-8-sig")
    assert (server.data_dir / "styles.csv.bak").is_file()
    dialog.get_by_role("button", name="Close").click()
    wait_for(page, "document.querySelector('.tokens').textContent === '15/75'")
    set_values(page, steps=1, width=64, height=64)
    view = wait_for_end(page, generate(page))
    assert view["params"]["prompt"] == "photo of a red apple, 8k, at night, <b>"
    assert view["params"]["negative_prompt"] == "lowres"
    page.reload()
    page.locator(".style-chip", has_text="Night").get_by_role("button", name="Night", exact=True).click()
    dialog.get_by_role("button", name="Delete").click()
    wait_for(page, "latent.form.values.styles === 'Photo'")
    assert "Night" not in (server.data_dir / "styles.csv").read_text(encoding="utf-8-sig")


def test_a_text_of_another_program_fills_every_field_and_can_be_taken_back(page: Any) -> None:
    write(page, A1111)
    page.get_by_role("button", name="Paste parameters").click()
    taken = page.locator(".taken")
    taken.get_by_text("settings taken from an A1111 text").wait_for()
    values = page.evaluate("latent.form.values")
    expected = {"steps": 11, "sampler": "DPM++ 2M", "cfg_scale": 5.5, "seed": "965400086", "width": 64, "height": 96}
    assert {key: values[key] for key in expected} == expected
    assert (values["clip_skip"], values["negative_prompt"], values["rng"]) == (2, "blurry", "GPU")
    assert values["checkpoint"] == EMBEDDED_CHECKPOINT.name
    words = taken.inner_text()
    assert "There is no checkpoint emoji-prto-128 [6ce0161689] here." in words
    assert 'There is no LoRA "filmgran" here.' in words
    assert "1 entry without effect here" in words
    taken.get_by_role("button", name="Use filmgrain").press("Enter")
    wait_for(page, "latent.form.values.prompt === 'a castle on a hill <lora:filmgrain:0.8>'")
    until(lambda: focused(page) == "Taken")
    taken.get_by_text("What changed").click()
    assert "Sampling steps\t20\t11" in taken.inner_text()
    taken.get_by_role("button", name="Undo").press("Enter")
    until(lambda: focused(page) == "Paste parameters")
    wait_for(page, "latent.form.values.steps === 20 && latent.form.values.prompt.startsWith('a castle')")
    assert taken.is_hidden()
    write(page, "a <lora:no\\#2 $&:1> and <LORA:no\\#2 $&>\nSteps: 7, Sampler: Euler, Seed: 1")
    page.get_by_role("button", name="Paste parameters").click()
    taken.get_by_role("button", name="Use no#1 $&").click()
    wait_for(page, "latent.form.values.prompt === 'a <lora:no\\\\#1 $&:1> and <LORA:no\\\\#1 $&>'")


def test_the_clipboard_is_read_and_a_styles_text_is_recognised(pages: Any, server: RunningServer) -> None:
    context = pages.context(permissions=["clipboard-read", "clipboard-write"])
    page = pages.open(context)
    text = "photo of a bus, 8k\nNegative prompt: dark, lowres\nSteps: 7, Sampler: Euler, CFG scale: 3, Seed: 4"
    page.evaluate("text => navigator.clipboard.writeText(text)", text)
    page.get_by_role("button", name="Paste parameters").click()
    wait_for(page, "latent.form.values.steps === 7 && latent.form.values.styles === 'Photo'")
    values = page.evaluate("latent.form.values")
    assert (values["prompt"], values["negative_prompt"]) == ("a bus", "dark")


def test_an_empty_prompt_gets_the_parameters_of_the_last_picture(page: Any) -> None:
    set_values(
        page, prompt="a paper boat", negative_prompt="", steps=2, width=64, height=72, seed="31", sampler="Euler a"
    )
    wait_for_end(page, generate(page))
    set_values(page, prompt="something else", steps=9, seed="-1", sampler="Heun")
    page.get_by_role("button", name="Paste parameters").click()  # there is a prompt, and nothing to read
    page.locator(".toast").get_by_text("no parameters text").or_(
        page.locator(".toast").get_by_text("clipboard")
    ).wait_for()
    assert page.evaluate("latent.form.values.steps") == 9
    set_values(page, prompt="")
    page.get_by_role("button", name="Paste parameters").click()
    page.locator(".taken").get_by_text("settings taken from the last picture").wait_for()
    values = page.evaluate("latent.form.values")
    expected = {"prompt": "a paper boat", "steps": 2, "width": 64, "height": 72, "seed": "31", "sampler": "Euler a"}
    assert {key: values[key] for key in expected} == expected


def test_png_info_reads_a_comfyui_picture_and_sends_it(page: Any) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("prompt", json.dumps(COMFYUI))
    buffer = io.BytesIO()
    Image.new("RGB", (96, 64), "green").save(buffer, "PNG", pnginfo=info)
    page.get_by_role("tab", name="PNG info").click()
    page.locator(".png-info input[type=file]").set_input_files(
        {"name": "comfy.png", "mimeType": "image/png", "buffer": buffer.getvalue()}
    )
    result = page.locator(".png-info .result")
    result.get_by_role("cell", name="a comfy fox").first.wait_for()
    words = result.inner_text()
    assert "ComfyUI" in words
    assert "There is no checkpoint v1-5" in words
    assert "settings differ from the form" in words
    page.get_by_role("button", name="Send to txt2img").click()
    wait_for(page, "latent.form.values.prompt === 'a comfy fox'")
    values = page.evaluate("latent.form.values")
    assert (values["negative_prompt"], values["steps"], values["seed"]) == ("rain", 9, "77")
    assert (values["sampler"], values["schedule"], values["width"]) == ("Euler a", "Karras", 96)
    page.locator(".taken").wait_for()


def test_what_had_no_effect_is_said_under_the_picture(page: Any) -> None:
    set_values(
        page,
        prompt="a (red __animl__ <lora:filmgran:1>",
        negative_prompt="x",
        cfg_scale=1,
        steps=1,
        width=64,
        height=64,
    )
    wait_for_end(page, generate(page))
    words = page.locator("#stage .warnings").inner_text()
    assert 'There is no wildcard "__animl__"' in words
    assert 'Did you mean "animal"?' in words
    assert '"(" is never closed' in words
    assert 'There is no LoRA "filmgran" here' in words
    assert "negative prompt had no effect" in words
