"""The cards of networks and checkpoints on the real page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from steps import Late, focused, frames, generate, press, set_values, until, wait_for, wait_for_end

pytestmark = pytest.mark.browser
BLOCK = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"


def write(path: Path, tensors: dict[str, tuple[int, int]], metadata: dict[str, str] | None = None) -> Path:
    header: dict[str, Any] = {"__metadata__": metadata or {}}
    end = 0
    for name, (rows, columns) in tensors.items():
        header[name] = {"dtype": "F16", "shape": [rows, columns], "data_offsets": [end, end + 2 * rows * columns]}
        end += 2 * rows * columns
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(end))
    return path


@pytest.fixture(scope="module", autouse=True)
def networks(server: Any) -> Iterator[Path]:
    """Two LoRAs, one of them for SD2, and an embedding."""
    models = server.data_dir / "models"
    film = write(models / "Lora" / "styles" / "cardfilm.safetensors", {f"{BLOCK}.lora_down.weight": (4, 768)})
    film.with_suffix(".json").write_text(json.dumps({"activation text": "grainy", "preferred weight": 0.8}))
    Image.new("RGB", (64, 80), "teal").save(film.with_suffix(".png"))
    write(models / "Lora" / "cardwash.safetensors", {f"{BLOCK}.lora_down.weight": (4, 1024)})
    write(models / "embeddings" / "cardhands.safetensors", {"emb_params": (2, 768)})
    server.post("/models/refresh")
    yield models
    for path in (models / "Lora", models / "embeddings"):
        for file in path.rglob("card*"):
            file.unlink()
    server.post("/models/refresh")


def prompt(page: Any, name: str = "prompt") -> str:
    return str(page.evaluate("name => latent.form.values[name]", name))


def open_cards(page: Any) -> Any:
    page.locator("#show-cards").click()
    cards = page.locator("#cards")
    cards.locator("#cards-grid .choose").first.wait_for()
    return cards


def test_a_click_puts_the_tag_with_its_words_into_the_prompt_and_another_takes_it_out(page: Any) -> None:
    set_values(page, prompt="a red apple")
    cards = open_cards(page)
    film = cards.get_by_role("button", name="cardfilm", exact=False).first
    film.click()
    wait_for(page, "latent.form.values.prompt === 'a red apple, <lora:cardfilm:0.8> grainy'")
    assert film.get_attribute("aria-pressed") == "true"
    film.click()
    wait_for(page, "latent.form.values.prompt === 'a red apple'")
    assert film.get_attribute("aria-pressed") == "false"


def test_cards_are_searched_filtered_by_folder_and_family_and_sorted(page: Any) -> None:
    cards = open_cards(page)
    names = cards.locator("#cards-grid .name")
    until(lambda: names.all_inner_texts() == ["cardwash", "cardfilm"])
    cards.get_by_label("Search networks").fill("film")
    until(lambda: names.all_inner_texts() == ["cardfilm"])
    cards.get_by_label("Search networks").fill("")
    cards.get_by_label("Folder").select_option("styles")
    until(lambda: names.all_inner_texts() == ["cardfilm"])
    cards.get_by_label("Folder").select_option("")
    cards.get_by_label("Family").select_option(label="For this model (SD1)")
    until(lambda: names.all_inner_texts() == ["cardfilm"])
    cards.get_by_label("Family").select_option("")
    cards.get_by_label("Order").select_option(label="Newest first")
    until(lambda: sorted(names.all_inner_texts()) == ["cardfilm", "cardwash"])
    assert cards.locator("img").first.get_attribute("loading") == "lazy"


def test_an_embedding_goes_into_the_negative_prompt_where_that_is_chosen(page: Any) -> None:
    set_values(page, prompt="a red apple", negative_prompt="blurry")
    cards = open_cards(page)
    cards.get_by_role("tab", name="Embeddings").click()
    cards.get_by_label("into the negative prompt").check()
    cards.get_by_role("button", name="cardhands", exact=False).first.click()
    wait_for(page, "latent.form.values.negative_prompt === 'blurry, cardhands'")
    assert prompt(page) == "a red apple"


def test_the_checkpoint_in_use_is_marked_and_escape_closes(page: Any) -> None:
    cards = open_cards(page)
    cards.get_by_role("tab", name="Checkpoints").click()
    cards.locator("#cards-grid .choose[aria-pressed=true]").wait_for()
    page.keyboard.press("Escape")
    assert not cards.is_visible()


def test_notes_are_kept_and_the_last_picture_becomes_the_preview(page: Any, networks: Path) -> None:
    set_values(page, prompt="a red apple", steps=1)
    wait_for_end(page, generate(page))
    cards = open_cards(page)
    cards.get_by_role("button", name="Details of cardwash").click()
    cards.get_by_label("Activation text").fill("soft wash")
    cards.get_by_label("Preferred weight").fill("0.5")
    cards.get_by_role("button", name="Save").click()
    page.get_by_text("Notes saved.").wait_for()
    saved = json.loads((networks / "Lora" / "cardwash.json").read_text())
    assert (saved["activation text"], saved["preferred weight"]) == ("soft wash", 0.5)
    cards.get_by_role("button", name="Use the last picture as preview").click()
    cards.get_by_role("img", name="Preview of cardwash").wait_for()
    assert (networks / "Lora" / "cardwash.png").is_file()
    cards.get_by_role("button", name="Back to the cards").press("Enter")
    assert focused(page) == "Details of cardwash"
    cards.get_by_role("button", name="cardwash", exact=False).first.click()
    wait_for(page, "latent.form.values.prompt === 'a red apple, <lora:cardwash:0.5> soft wash'")


def test_a_late_list_takes_neither_the_place_nor_the_focus_nor_a_press(page: Any) -> None:
    def many(route: Any) -> None:
        answer = route.fetch().json()
        card = {**answer["cards"][0], "preview": "", "reason": ""}
        answer["cards"] = [{**card, "name": f"{n}.pt", "label": f"{n}", "insert": f"<lora:{n}:1>"} for n in range(60)]
        answer["cards"][-1]["label"] += f" of {len(asked)}"
        asked.append(route)
        if len(asked) > 1:
            held.append((route, answer))
        else:
            route.fulfill(json=answer)

    asked: list[Any] = []
    held: list[tuple[Any, Any]] = []
    page.route("**/cards?kind=lora", many)
    grid = page.locator("#cards-grid")

    def come() -> None:
        route, answer = held.pop()
        route.fulfill(json=answer)
        grid.get_by_text(f"59 of {len(asked) - 1}").wait_for(state="attached")
        frames(page)

    def again() -> None:
        page.keyboard.press("Escape")
        page.locator("#show-cards").click()
        until(lambda: page.wait_for_timeout(10) or held)

    open_cards(page)
    again()
    card = grid.locator(".choose", has=page.get_by_text("40", exact=True))
    card.focus()
    place = grid.evaluate("grid => grid.scrollTop")
    assert place > 0
    come()
    assert grid.evaluate("grid => grid.scrollTop") == place
    assert focused(page).startswith("40")
    again()
    press(page, grid.locator(".choose", has=page.get_by_text("2", exact=True)), come)
    wait_for(page, "latent.form.values.prompt.includes('<lora:2:1>')", timeout=10_000)


def test_details_that_come_late_are_never_taken_for_those_of_another_card(page: Any) -> None:
    cards = open_cards(page)
    late = Late(page, "**/cards/details?*", first=1)
    cards.get_by_role("button", name="Details of cardfilm").click()
    late.wait()
    cards.get_by_role("button", name="Details of cardwash").click()
    cards.get_by_role("heading", name="cardwash").wait_for()
    late.come()
    assert cards.get_by_label("Activation text").input_value() != "grainy"  # of cardfilm


def test_what_is_typed_into_the_notes_stays_while_others_are_saved(page: Any, networks: Path) -> None:
    cards = open_cards(page)
    cards.get_by_role("button", name="Details of cardwash").click()
    text = cards.get_by_label("Activation text")
    text.fill("soft")
    late = Late(page, "**/cards/notes")
    cards.get_by_role("button", name="Save").click()
    late.wait()
    text.fill("soft wash")
    late.come()
    page.get_by_text("Notes saved.").wait_for()
    assert text.input_value() == "soft wash"
    assert json.loads((networks / "Lora" / "cardwash.json").read_text())["activation text"] == "soft"
    (networks / "Lora" / "cardwash.json").unlink()


def test_two_cards_that_are_chosen_at_once_are_both_in_the_prompt(page: Any) -> None:
    set_values(page, prompt="a red apple")
    open_cards(page)
    page.evaluate(
        "for (const label of ['cardwash', 'cardfilm'])"
        " [...document.querySelectorAll('#cards-grid .choose')].find(node => node.textContent.includes(label)).click()"
    )
    wait_for(page, "latent.form.values.prompt.includes('cardfilm')")
    assert "cardwash" in prompt(page)


def test_cards_fit_a_phone(pages: Any) -> None:
    page = pages.open(viewport={"width": 390, "height": 844})
    cards = open_cards(page)
    assert page.evaluate("document.querySelector('#cards').scrollWidth <= 390")
    assert cards.locator("#cards-grid .choose").first.bounding_box()["height"] >= 44
